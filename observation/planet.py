"""From an observation and a planet file to a survey of simulated planets that a network can be trained on."""

import contextlib
import copy
import importlib.util
import logging
import os
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import h5py

from common.processes import process_count
from runio.config import read_yaml
from runio.log import InputError, shows_progress

logger = logging.getLogger(__name__)

SURVEY = "survey.h5"
MEMORY_PER_PROCESS = 3e8  # bytes: TauREx and a forward model of 109 bins take 1.6e8


@contextlib.contextmanager
def resumable(folder):
    """Log how to continue if the block is interrupted."""
    try:
        yield
    except InputError:
        raise
    except BaseException:
        logger.info("%s: not finished; continue with the same command and --resume --output %s", folder, folder)
        raise


def make_survey(design, n, config, folder, arguments):
    """Simulate a survey of ``n`` planets into ``folder``, or continue with the one there; return the path of its file.

    ``arguments`` has ``resume``, ``overwrite`` and ``quiet``; of ``config``, ``seed`` and ``training.processes`` count.
    """
    out, parts = folder / SURVEY, folder / f"{SURVEY}.parts"
    if arguments.overwrite and arguments.resume:
        raise InputError("--overwrite and --resume: expected at most one of them, received both")
    if (out.exists() or parts.exists()) and not (arguments.resume or arguments.overwrite):
        raise InputError(f"{folder}: holds a survey; give --resume to continue with it or --overwrite to start again")
    if out.exists() and arguments.resume:
        _check_same(out, design, n, config.seed)
        logger.info("%s: already finished, nothing to do", out)
        return out
    if importlib.util.find_spec("taurex") is None:
        raise InputError("--planet: simulating planets needs TauREx 3: pip install taurex")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: no folder can be made here ({error.strerror or error})") from None
    for name in ("OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # for the workers: one thread per process
    from simulation.survey import CHUNK, simulate

    processes = process_count(config.training.processes, -(-n // CHUNK), MEMORY_PER_PROCESS)
    logger.info("%s: %d planets to simulate with %d processes", out, n, processes)
    try:
        simulate(n, config.seed, out, processes=processes, progress=shows_progress(arguments.quiet),
                 design=design, overwrite=arguments.overwrite)  # fmt: skip
    except BrokenProcessPool:
        raise RuntimeError(f"{out}: a worker process died; continue with --resume --output {folder}") from None
    return out


def _check_same(path, design, n, seed):
    """Refuse to continue with a survey of another observation, planet file, size or seed."""
    try:
        if not path.is_file():
            raise ValueError("not a regular file")
        with h5py.File(path) as file:
            there = {"design": str(file.attrs.get("design")), "--n": len(file["amps"]), "seed": int(file.attrs["seed"])}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not a readable survey ({error}); give --overwrite to start again") from None
    for name, asked in (("design", design.identity()), ("--n", n), ("seed", seed)):
        if there[name] != asked:
            what = "of another observation or planet file" if name == "design" else f"with {name} = {there[name]}"
            raise InputError(f"{path}: holds a survey {what}, received {asked}; give --overwrite to start again")


def settings_for(config, survey):
    """Return a copy of the settings for training on the survey, whose units are known."""
    config = copy.deepcopy(config)
    config.data.path, config.data.format = str(survey), "hdf5"
    config.data.depth_unit = config.data.width = "auto"
    config.data.targets, config.data.auxiliary = None, []
    return config


def is_answered(folder, observation, resume):
    """Whether an earlier command, now resumed, finished the estimate of this observation in ``folder``."""
    table = Path(folder) / "amps.csv"
    if not (resume and table.is_file()):
        return False
    there = read_yaml(table.with_name("config.yaml")).get("observation")
    if there != str(Path(observation).resolve()) or os.stat(observation).st_mtime > table.stat().st_mtime:
        raise InputError(
            f"{folder}: holds the estimate of {there} as it was, expected {observation} as it is; estimate it with "
            f"--apply {table.parents[1] / 'run'} --observation {observation}"
        )
    logger.info("%s: already finished, nothing to do", folder)
    return True
