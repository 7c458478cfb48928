"""Planets like an observed one: from an observation and a planet file to a survey that a network can learn from."""

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
    """Say how to go on, if what happens in the block is cut short."""
    try:
        yield
    except InputError:
        raise
    except BaseException:
        logger.info("%s: not finished; go on with the same command and --resume --output %s", folder, folder)
        raise


def make_survey(design, n, config, folder, arguments):
    """Simulate a survey into ``folder``, or take what an interrupted or finished command left there.

    Parameters
    ----------
    design : simulation.design.Design
    n : int
        Number of planets.
    config : config.Config
        ``seed`` and ``training.processes`` are used.
    folder : Path
        Made if missing.
    arguments : argparse.Namespace
        ``resume``, ``overwrite`` and ``quiet``, as of ``runfile.py``.

    Returns
    -------
    Path
        The file of the survey.

    Raises
    ------
    InputError
        If TauREx is missing, or the folder holds another survey, or one that is not to be gone on with.
    """
    out, parts = folder / SURVEY, folder / f"{SURVEY}.parts"
    if arguments.overwrite and arguments.resume:
        raise InputError("--overwrite starts again, --resume goes on: expected one of them, received both")
    if (out.exists() or parts.exists()) and not (arguments.resume or arguments.overwrite):
        raise InputError(f"{folder}: holds a survey; --resume to go on with it, --overwrite to start again")
    if out.exists() and arguments.resume:
        _check_same(out, design, n, config.seed)
        logger.info("%s: already finished, nothing to do", out)
        return out
    if importlib.util.find_spec("taurex") is None:
        raise InputError("--planet: needs TauREx 3 to simulate planets: pip install taurex")
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
        raise RuntimeError(f"{out}: a worker process died; go on with --resume --output {folder}") from None
    return out


def _check_same(path, design, n, seed):
    """Refuse to go on with a survey of another observation, planet file, size or seed."""
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        with h5py.File(path) as file:
            there = {"design": str(file.attrs.get("design")), "--n": len(file["amps"]), "seed": int(file.attrs["seed"])}
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not a survey that can be read ({error}); --overwrite to start again") from None
    for name, asked in (("design", design.identity()), ("--n", n), ("seed", seed)):
        if there[name] != asked:
            what = "of another observation or planet file" if name == "design" else f"with {name} = {there[name]}"
            raise InputError(f"{path}: holds a survey {what}, received {asked}; --overwrite to start again")


def settings_for(config, survey):
    """Return a copy of the settings that trains on a survey of ours, whatever is said about the observation's units."""
    config = copy.deepcopy(config)
    config.data.path, config.data.format = str(survey), "hdf5"
    config.data.depth_unit = config.data.width = "auto"
    config.data.targets, config.data.auxiliary = None, []
    return config


def is_answered(folder, observation, resume):
    """Whether an earlier command, now resumed, left its answer for this observation in ``folder``.

    Raises
    ------
    InputError
        If the answer there is for another observation, or for what was in this file before it was changed.
    """
    answer = Path(folder) / "amps.csv"
    if not (resume and answer.is_file()):
        return False
    there = read_yaml(answer.with_name("config.yaml")).get("observation")
    if there != str(Path(observation).resolve()) or os.stat(observation).st_mtime > answer.stat().st_mtime:
        raise InputError(
            f"{folder}: holds the answer for {there} as it was, expected {observation} as it is; answer with "
            f"--apply {answer.parents[1] / 'run'} --observation {observation}"
        )
    logger.info("%s: already finished, nothing to do", folder)
    return True
