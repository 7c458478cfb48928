"""Simulate a survey of planets.

    python -m simulation --n 30000 --seed 1 --out runs/ariel.h5
    python -m simulation --observation FILE --planet FILE.yaml --n 40000 --out runs/mine.h5

The second makes planets for one observation, with its bins, errors and star, and priors around its planet. A run
that was stopped continues when the same command is given again.
"""

import argparse
import contextlib
import logging
import os
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

MAX_SEED = 2**31 - 1


def main(argv=None):
    """Read the command line and run; exits with one line on stderr and status 2 for bad input, 1 for a full disk."""
    parser = argparse.ArgumentParser(
        prog="python -m simulation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=30000, help="number of planets (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of planets and noise (default %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.h5", help="file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a survey that is already there")
    parser.add_argument("--opacities", metavar="DIR", help="your own TauREx 3 tables instead of ours")
    parser.add_argument("--processes", type=int, default=2, help="worker processes (default %(default)s)")
    parser.add_argument("--observation", metavar="FILE", help="simulate the bins and errors of this observed spectrum")
    parser.add_argument("--columns", default="auto", metavar="NAMES", help="names of its columns, see data/FORMATS.md")
    parser.add_argument("--planet", metavar="FILE.yaml", help="its star and the priors around its planet")
    arguments = parser.parse_args(argv)

    def stop(status, message):
        parser.exit(status, f"simulation: {message}\n")

    if bool(arguments.observation) != bool(arguments.planet):
        stop(2, "--observation FILE and --planet FILE.yaml go together, received one of them")
    if arguments.n < 1 or arguments.processes < 1:
        stop(2, "--n and --processes must be at least 1")
    if not 0 <= arguments.seed <= MAX_SEED:
        stop(2, f"--seed: expected 0 to {MAX_SEED}, received {str(arguments.seed)[:40]}")
    if not arguments.out.resolve().parent.is_dir():
        stop(2, f"--out: no folder {arguments.out.resolve().parent}")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # for the workers: one thread per process
    from common.files import full_disk_message
    from simulation.design import ARIEL, survey_design
    from simulation.survey import simulate

    try:
        with _logged_to_stderr("simulation", "loaders"):
            design = ARIEL
            if arguments.observation:
                design = survey_design(arguments.observation, arguments.planet, columns=arguments.columns)
            simulate(
                arguments.n, arguments.seed, arguments.out, arguments.opacities, arguments.processes, design=design,
                overwrite=arguments.overwrite,
            )  # fmt: skip
    except (ValueError, OSError) as error:
        if message := full_disk_message(error, arguments.out):
            stop(1, message)
        stop(2, error)
    except BrokenProcessPool:
        stop(1, "a worker process died; repeat the same command to continue")
    except KeyboardInterrupt:
        stop(130, "stopped; repeat the same command to continue")
    print(f"{arguments.out}: {arguments.n} spectra, {arguments.out.stat().st_size / 1e6:.1f} MB")


@contextlib.contextmanager
def _logged_to_stderr(*packages):
    """Show on stderr what these packages log."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("simulation: %(message)s"))
    loggers = [logging.getLogger(package) for package in packages]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.removeHandler(handler)
            logger.setLevel(level)


if __name__ == "__main__":
    sys.exit(main())
