"""The exact map of a survey larger than the memory, from the network of a finished run.

    python -m studies.large_survey RUN_DIR SURVEY.h5 --output DIR [--scheduler local:4]

SURVEY.h5 has this project's own layout (data/FORMATS.md) and the wavelengths of the run; only its spectra and errors
are read, a piece at a time, and auxiliary inputs stay at their mean. Writes ``DIR/sensitivity.h5``. Run again after an
interruption it goes on where it was.
"""

import contextlib
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from loaders.own import read_grid
from pipeline.cluster import open_scheduler
from pipeline.pieces import PIECE, load_network, map_file, network_key
from runio.console import RunLog, shows_progress
from runio.errors import InputError
from runio.results import load_run
from sensitivity import ModelLoader
from studies.command import study_parser


def main(argv=None):
    """Run the command line; return the exit status: 0 success, 1 failed, 2 bad input."""
    parser = study_parser("large_survey", __doc__)
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
