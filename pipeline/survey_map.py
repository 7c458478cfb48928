"""The exact map of a survey that no memory holds: workers read the file piece by piece, and send back one map of each.

Nothing but the file's name and rows travels to a worker, and a map of some ten kB comes back, however many spectra the
piece has. Memory depends on the size of a piece, not on that of the survey. A piece that is finished is on disk.
"""

import argparse
import concurrent.futures
import contextlib
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.files import digest, read_bounded, written_whole
from loaders.dataset import check_spectra
from loaders.own import read_grid, read_rows
from perturbation.accumulate import merge_maps
from perturbation.arguments import positive_integer, quadrature_rule
from pipeline.cluster import open_scheduler
from runio.log import InputError, RunLog, one_line, shows_progress
from runio.results import load_run
from sensitivity import ModelLoader, SensitivityMap

logger = logging.getLogger(__name__)

PIECE = 10_000  # spectra: some seconds of work for the quickest network
AHEAD = 64  # pieces handed to an executor that does not say how many it wants


@dataclass(frozen=True)
class Piece:
    """Some rows of a data set."""

    path: str
    start: int
    stop: int

    @property
    def task_name(self):
        """What a message calls this piece."""
        return f"spectra {self.start} to {self.stop - 1}"


def map_piece(loader, piece, nodes):
    """Return the map of one piece, in whatever process this runs.

    Parameters
    ----------
    loader : sensitivity.ModelLoader
        Of a ``pipeline.network.TrainedNetwork``.
    piece : Piece
    nodes : int
        Of the quadrature.

    Raises
    ------
    ValueError
        If spectra or errors cannot be used; the message says in which piece, and which of its rows.
    """
    try:
        spectra, errors = read_rows(piece.path, piece.start, piece.stop)
        check_spectra(spectra, errors, read_grid(piece.path)[1], "rows of the piece")
        return loader.get().sensitivity(spectra, errors, scheme="single", nodes=nodes, keep_spectra=False)
    except ValueError as error:
        raise ValueError(f"{piece.path}: {piece.task_name}: {error}") from None


def load_network(run_dir):
    """Load the network of a finished run, for a `sensitivity.ModelLoader`."""
    from pipeline.folds import prepare_tensorflow

    prepare_tensorflow()
    from pipeline.network import TrainedNetwork

    return TrainedNetwork.load(run_dir)


def map_file(loader, path, folder, key, nodes=5, piece_size=PIECE, executor=None, advance=lambda n: None):
    """Make the exact map of all spectra of an HDF5 file of this project's layout.

    Parameters
    ----------
    loader : sensitivity.ModelLoader
        Of a ``pipeline.network.TrainedNetwork``.
    path : path-like
        The data set; with an executor, where all workers see it.
    folder : path-like
        Where the maps of finished pieces are kept, so that an interrupted survey goes on where it stopped.
    key : str
        What else the maps depend on (the network); a folder of another is refused.
    nodes, piece_size : int
        Nodes of the quadrature, and spectra of a piece. The size changes no more than the last digits.
    executor : concurrent.futures.Executor, optional
        Default: this process.
    advance : callable, optional
        Called with the number of spectra of each finished piece.

    Returns
    -------
    sensitivity.SensitivityMap

    Raises
    ------
    InputError
        If the file is no such data set, or the folder holds pieces of another survey.
    """
    positive_integer("piece_size", piece_size), quadrature_rule(nodes, "auto", "single")
    path, folder = Path(path).resolve(), Path(folder)
    n_spectra, _ = read_grid(path)
    status = path.stat()
    _claim(folder, [key, str(path), status.st_size, status.st_mtime_ns, n_spectra, nodes, piece_size])
    pieces = [Piece(str(path), k, min(k + piece_size, n_spectra)) for k in range(0, n_spectra, piece_size)]
    missing = [piece for piece in pieces if not _is_kept(folder, piece)]
    advance(n_spectra - sum(piece.stop - piece.start for piece in missing))
    for piece, result in _answers(loader, missing, nodes, executor):
        result.save(_file(folder, piece))
        advance(piece.stop - piece.start)
    return merge_maps(SensitivityMap.load(_file(folder, piece)) for piece in pieces)


def _answers(loader, pieces, nodes, executor):
    """Yield (piece, map): in order in this process, else as they end, no more under way than the executor wants."""
    if executor is None:
        yield from ((piece, map_piece(loader, piece, nodes)) for piece in pieces)
        return
    waiting, running = iter(pieces), {}
    try:
        while True:
            while len(running) < getattr(executor, "chunks_ahead", AHEAD) and (piece := next(waiting, None)):
                running[executor.submit(map_piece, loader, piece, nodes)] = piece
            if not running:
                return
            ended, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                yield running.pop(future), future.result()
    finally:
        for future in running:
            future.cancel()


def _file(folder, piece):
    return folder / f"piece_{piece.start}.h5"


def _is_kept(folder, piece):
    """Whether the map of a piece is on disk and whole; a damaged one is made anew."""
    path = _file(folder, piece)
    if not path.is_file():
        return False
    try:
        kept = SensitivityMap.load(path)
        if (kept.n_spectra == piece.stop - piece.start).all() and np.isfinite(kept.mean).all():
            return True
        reason = "it is not the whole map of its spectra"
    except Exception as error:  # whatever a damaged file provokes in h5py or NumPy
        reason = one_line(error, 200)
    logger.warning("%s: damaged, and made anew (%s)", path, reason)
    return False


def _claim(folder, settings):
    """Make the folder ours, or see that it is."""
    file, text = folder / "pieces.json", json.dumps(settings).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            with written_whole(file) as part:
                part.write_bytes(text)
        same = read_bounded(file, len(text) + 1) == text
    except OSError as error:
        raise InputError(f"{folder}: not usable for maps ({error.strerror or error})") from None
    except ValueError:  # longer, or no file
        same = False
    if not same:
        raise InputError(f"{folder}: holds pieces of another survey or network; choose another --output")


def network_key(run_dir):
    """Return what tells the networks of two runs apart."""
    files = sorted(Path(run_dir).glob("*.keras"))
    return " ".join(digest(path) for path in files)


def main(argv=None):
    """Run the command line; return the exit status: 0 success, 1 failed, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.survey_map", description=__doc__)
    parser.add_argument("run", metavar="RUN_DIR", help="folder of a finished run; its mean of folds is used")
    parser.add_argument("survey", metavar="SURVEY.h5", help="spectra and errors")
    parser.add_argument("--output", metavar="DIR", required=True, help="folder for the map, and for finished pieces")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="Dask workers: local:N, tcp://... or a scheduler's file")
    parser.add_argument("--piece", type=int, default=PIECE, metavar="N", help=f"spectra of a task (default {PIECE})")
    parser.add_argument("--nodes", type=int, default=5, metavar="N", help="values that a bin takes (default 5)")
    arguments = parser.parse_args(argv)
    if arguments.piece < 1:
        parser.error(f"--piece: expected at least 1, received {arguments.piece}")
    with RunLog() as log:
        try:
            result = map_survey(arguments)
        except (InputError, ValueError) as error:
            log.root.error("%s", error)
            return 2
        except (OSError, RuntimeError) as error:
            log.root.error("%s", error)
            return 1
        path = Path(arguments.output) / "sensitivity.h5"
        result.save(path)
        log.root.info("%s: exact map of %d spectra", path, result.n_spectra.max())
    return 0


def map_survey(arguments):
    """Return the map of the survey that the command line names."""
    n_spectra, wavelength = read_grid(arguments.survey)
    trained_on = load_run(arguments.run).wavelength
    if wavelength.shape != trained_on.shape or not np.allclose(wavelength, trained_on, rtol=1e-4):
        raise InputError(f"{arguments.survey}: expected the {len(trained_on)} wavelengths of the run, received others")
    loader = ModelLoader(load_network, str(Path(arguments.run).resolve()))
    workers = open_scheduler(arguments.scheduler) if arguments.scheduler else contextlib.nullcontext()
    with workers as executor, tqdm(total=n_spectra, unit="spectrum", disable=not shows_progress(False)) as bar:
        return map_file(
            loader, arguments.survey, arguments.output, network_key(arguments.run), arguments.nodes, arguments.piece,
            executor, bar.update,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
