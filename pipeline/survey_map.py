"""The exact map of a survey larger than the memory: workers read the file in blocks and return one map for each block.

Only the file's name and the rows travel to a worker, and a map of some ten kB comes back, however many spectra a block
has. Memory depends on the size of a block, not on that of the survey. Finished blocks are kept on disk.
"""

import argparse
import contextlib
import json
import logging
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.files import digest, full_disk_message, written_whole
from loaders.dataset import check_spectra
from loaders.own import read_grid, read_rows
from perturbation.accumulate import merge_maps
from perturbation.arguments import positive_integer, quadrature_rule
from perturbation.engine import run_tasks
from pipeline.cluster import open_scheduler
from runio.folder import RESULTS
from runio.log import InputError, RunLog, stopped_by
from runio.results import kept_map, load_run
from sensitivity import ModelLoader, SensitivityMap

logger = logging.getLogger(__name__)

BLOCK = 10_000  # spectra: some seconds of work for the fastest network
SAMPLE, MAX_OUTSIDE = 1000, 0.05  # spectra that are compared with the run's, and the share of depths beyond them
MAP = "sensitivity.h5"  # the file of the result


@dataclass(frozen=True)
class Block:
    """Some rows of a data set."""

    path: str
    start: int
    stop: int

    def __len__(self):
        return self.stop - self.start

    @property
    def task_name(self):
        """What a message calls this block."""
        return f"spectra {self.start} to {self.stop - 1}"


def map_block(loader, block, nodes):
    """Return the map of one block; ``loader`` (a `ModelLoader`) loads the TrainedNetwork once in each process."""
    try:
        spectra, errors = read_rows(block.path, block.start, block.stop)
        check_spectra(spectra, errors, read_grid(block.path)[1], "rows of the block")
        return loader.get().sensitivity(spectra, errors, scheme="single", nodes=nodes, keep_spectra=False)
    except ValueError as error:
        raise ValueError(f"{block.path}: {block.task_name}: {error}") from None


def load_network(run_dir):
    """Load the network of a finished run, for a `ModelLoader`."""
    from pipeline.folds import prepare_tensorflow

    prepare_tensorflow()
    from pipeline.network import TrainedNetwork

    return TrainedNetwork.load(run_dir)


def map_file(loader, path, folder, key, nodes=5, block_size=BLOCK, executor=None, advance=lambda n: None):
    """Return the exact map of all spectra of the HDF5 file ``path``, of this project's layout.

    ``loader`` is a `sensitivity.ModelLoader` of a `pipeline.network.TrainedNetwork`, which ``key`` identifies. Maps of
    finished blocks are kept in ``folder``, from which an interrupted survey continues; a folder with blocks of another
    network or survey raises an InputError. The size of a block, in spectra, changes the last digits at most, but for
    ``share_error``: see `merge_maps`. ``advance`` is called with the number of spectra of each finished block.
    """
    positive_integer("block_size", block_size), quadrature_rule(nodes, "auto", "single")
    path, folder = Path(path).resolve(), Path(folder)
    n_spectra, _ = read_grid(path)
    status = path.stat()
    _claim(folder, [key, str(path), status.st_size, status.st_mtime_ns, n_spectra, nodes, block_size])
    starts = range(0, max(n_spectra - 1, 1), block_size)  # a last spectrum alone, which has no spread, joins the others
    blocks = [Block(str(path), start, stop) for start, stop in pairwise([*starts, n_spectra])]
    files = {block: folder / f"block_{block.start}.h5" for block in blocks}
    missing = [block for block in blocks if kept_map(files[block], len(block)) is None]
    advance(n_spectra - sum(map(len, missing)))
    for block, result in run_tasks(missing, lambda block: (map_block, loader, block, nodes), executor):
        result.save(files[block])
        advance(len(block))
    return merge_maps(map(SensitivityMap.load, files.values()))


def _claim(folder, settings):
    """Note the settings in a new folder; refuse a folder that was begun with others."""
    file, text = folder / "blocks.json", json.dumps(settings).encode()
    if (folder / MAP).exists() and not file.exists():
        raise InputError(f"{folder}: holds a {MAP} that is not of a survey; choose another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            with written_whole(file) as part:
                part.write_bytes(text)
        same = file.stat().st_size == len(text) and file.read_bytes() == text
    except OSError as error:
        raise InputError(f"{folder}: not usable for maps ({error.strerror or error})") from None
    if not same:
        raise InputError(f"{folder}: holds blocks of another survey or network; choose another --output")


def network_key(run_dir):
    """Return a text that differs between the networks, or the scalers, of two runs."""
    return digest(*sorted(Path(run_dir).glob("*.keras")), Path(run_dir) / RESULTS)


def main(argv=None):
    """Run the command line; return the exit status: 0 success, 1 failed, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.survey_map", description=__doc__)
    add = parser.add_argument
    add("run", metavar="RUN_DIR", help="folder of a finished run; its mean of folds is used")
    add("survey", metavar="SURVEY.h5", help="spectra and errors")
    add("--output", metavar="DIR", required=True, help="folder for the map, and for finished blocks")
    add("--scheduler", metavar="ADDRESS", help="Dask workers: local:N, tcp://... or a scheduler's file")
    add("--block", "--piece", type=int, default=BLOCK, metavar="N", help=f"spectra in a task (default {BLOCK})")
    add("--nodes", type=int, default=5, metavar="N", help="values that a bin takes (default 5)")
    arguments = parser.parse_args(argv)
    if arguments.block < 1:
        parser.error(f"--block: expected at least 1, received {arguments.block}")
    with RunLog() as log:
        try:
            result = map_survey(arguments)
            path = Path(arguments.output) / MAP
            result.save(path)
        except (OSError, ValueError, RuntimeError) as error:
            no_room = full_disk_message(error, arguments.output)
            log.root.error("%s", no_room or error)
            return 2 if isinstance(error, ValueError) and not no_room else 1
        except KeyboardInterrupt as stop:
            word, status = stopped_by(stop)
            log.root.error("%s; the same command continues from the finished blocks", word)
            return status
        log.root.info("%s: exact map of %d spectra", path, result.n_spectra.max())
    return 0


def _compare_depths(run, path, n_spectra):
    """Warn of a survey whose depths are not those that the run knows: its map would be an extrapolation."""
    if run.reference is None:
        return
    starts = {0, max(n_spectra // 2 - SAMPLE // 4, 0), max(n_spectra - SAMPLE // 2, 0)}
    depths = np.concatenate([read_rows(path, k, min(k + SAMPLE // 2, n_spectra))[0] for k in sorted(starts)])
    known = run.reference["spectra"]
    outside = np.mean((depths < known.min(axis=0)) | (depths > known.max(axis=0)))
    if outside > MAX_OUTSIDE:
        text = "%s: %.0f %% of %d depths lie outside those of the run's test planets; the map is an extrapolation"
        logger.warning(text, path, 100 * outside, depths.size)


def map_survey(arguments):
    """Return the map of the survey that the command line names."""
    n_spectra, wavelength = read_grid(arguments.survey)
    run = load_run(arguments.run)
    if wavelength.shape != run.wavelength.shape or not np.allclose(wavelength, run.wavelength, rtol=1e-4):
        raise InputError(f"{arguments.survey}: expected the run's {len(run.wavelength)} wavelengths, received others")
    _compare_depths(run, arguments.survey, n_spectra)
    loader = ModelLoader(load_network, str(Path(arguments.run).resolve()))
    workers = open_scheduler(arguments.scheduler) if arguments.scheduler else contextlib.nullcontext()
    with workers as executor, tqdm(total=n_spectra, unit="spectrum", disable=None) as bar:  # None: without a terminal
        return map_file(
            loader, arguments.survey, arguments.output, network_key(arguments.run), arguments.nodes, arguments.block,
            executor, bar.update,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
