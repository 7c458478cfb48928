"""What a run says: to the screen in short, to run.log in full."""

import contextlib
import importlib.metadata
import logging
import logging.handlers
import os
import platform
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from tqdm import tqdm

from constants import VERSION
from runio.errors import InputError, one_line, printable

PACKAGES = ("tensorflow", "keras", "numpy", "h5py", "matplotlib", "pyyaml", "tqdm")


class _OneLine(logging.Formatter):
    """A record on the screen: the message, with its level before it when it is a warning or worse."""

    def format(self, record):
        if record.levelno >= logging.WARNING:
            return f"{record.levelname.lower()}: {one_line(record.getMessage())}"
        return printable(record.getMessage(), keep="\n")


class _Whole(logging.Formatter):
    """A record in run.log, with time, level and place; tracebacks keep their lines."""

    def format(self, record):
        return printable(super().format(record), keep="\n\t")


class _Screen(logging.Handler):
    """Writes above a progress bar, never through it; warnings go to stderr."""

    def emit(self, record):
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        with _unheard(stream):
            tqdm.write(self.format(record), file=stream)


@contextlib.contextmanager
def _unheard(stream):
    """Send what is written to a stream nowhere once its reader has gone: no reason to end a run, or with status 120."""
    try:
        yield
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


class RunLog:
    """Sends the log to the screen at once, and to a file as soon as there is one.

    Use as a context manager; what was logged before ``to_file`` is kept and written there too.

    Parameters
    ----------
    quiet : bool
        Only warnings and errors on the screen.

    Attributes
    ----------
    path : Path or None
        The log file, once there is one.
    """

    def __init__(self, quiet=False):
        self.root = logging.getLogger()
        self.screen = _Screen(logging.WARNING if quiet else logging.INFO)
        self.screen.setFormatter(_OneLine())
        self.memory = logging.handlers.MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1)
        self.path = None

    def __enter__(self):
        self.before = self.root.level
        self.root.setLevel(logging.INFO)
        self.root.addHandler(self.screen)
        self.root.addHandler(self.memory)
        logging.captureWarnings(True)
        warnings.showwarning = _show_warning
        quiet_libraries()
        logging.getLogger("pipeline.epochs").setLevel(logging.DEBUG)  # every epoch, for the file alone
        return self

    def to_file(self, path):
        """Append to the log file from now on, beginning with all that was said before."""
        self.path = Path(path)
        file = logging.FileHandler(path, encoding="utf-8")
        file.handleError = lambda record: None  # a full disk is reported by those who write results
        file.setFormatter(_Whole("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
        self.memory.setTarget(file)
        self.memory.flush()
        self.memory.capacity = 1  # from here on every record goes straight through

    def keep_traceback(self):
        """Write the traceback of the exception being handled to the log file alone; say whether there is one."""
        trace = logging.LogRecord("runfile", logging.INFO, __file__, 0, "failed", (), sys.exc_info())
        self.memory.handle(trace)
        return self.memory.target is not None

    def __exit__(self, *exception):
        self.root.removeHandler(self.screen)
        self.root.removeHandler(self.memory)
        self.root.setLevel(self.before)
        logging.captureWarnings(False)
        file = self.memory.target
        with contextlib.suppress(OSError):  # a full disk
            self.memory.close()
        with contextlib.suppress(OSError):
            if file:
                file.close()
        for stream in (sys.stdout, sys.stderr):
            with _unheard(stream):
                stream.flush()


def quiet_libraries():
    """Let libraries log errors only: what they advise is for those who write programs, not for those who run this."""
    for name in ("tensorflow", "absl", "matplotlib", "fontTools", "h5py", "taurex"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _show_warning(message, category, filename, lineno, file=None, line=None):
    logging.getLogger("warnings").warning("%s", message)


@contextlib.contextmanager
def quiet_stderr():
    """Swallow what compiled libraries print while they load; show it after all if loading fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        saved = os.dup(2)
    except OSError:  # there is no stderr to quieten
        yield
        return
    with tempfile.TemporaryFile() as swallowed:
        sys.stderr.flush()
        os.dup2(swallowed.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            swallowed.seek(0)
            os.write(2, swallowed.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def open_standard_streams():
    """Give what was closed by the shell (``2>&-``) a place to go: the next file opened would become stderr."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115


def check_environment():
    """Refuse variables of the environment with which libraries would fail after the work is done, or speak in riddles.

    Raises
    ------
    InputError
        With the variable, what was expected and what was received.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise InputError(f"KERAS_BACKEND: expected tensorflow, with which runs are made, received {backend!r}")
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value and not (value.isascii() and value.isdigit() and int(value) < 10_000):
            raise InputError(f"{name}: expected a whole number, received {value!r}")
    os.environ["MPLBACKEND"] = "agg"  # figures go to files; a name that is no backend has no say


def shows_progress(quiet):
    """Say whether progress bars are wanted: not in a file, and not when asked to be quiet."""
    return not quiet and sys.stderr.isatty()


def versions():
    """Return the versions of this software, of Python and of the packages, without importing them."""
    by_package = {"software": VERSION, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            by_package[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            by_package[package] = "not installed"
    return by_package


def score_table(names, judged):
    """Return the closing table as text: MSE (scaled units) and R2 of each AMP, and their means.

    Parameters
    ----------
    names : sequence of str
        Keys of the AMPs.
    judged : dict of int or "ensemble" to dict
        ``MSE`` and ``R2`` (n_amps,) of each fold, and of the mean of the folds' answers if there is one.
    """
    folds = [scores for name, scores in judged.items() if name != "ensemble"]
    columns = {"": {score: np.mean([one[score] for one in folds], axis=0) for score in ("MSE", "R2")}}
    if "ensemble" in judged:
        columns = {"mean of folds ": judged["ensemble"], "single folds ": columns[""]}
    width = max(8, *(len(name) for name in names))
    heads = [f"{title}{score}" for title in columns for score in ("MSE", "R2")]
    lines = [" ".join([" " * width, *(f"{head:>17}" for head in heads)])]
    values = np.array([scores[score] for scores in columns.values() for score in ("MSE", "R2")])  # (columns, n_amps)
    for name, row in zip([*names, "mean"], np.column_stack([values, values.mean(axis=1)]).T):
        lines.append(" ".join([f"{name:<{width}}", *(f"{value:>17.4f}" for value in row)]))
    return "\n".join(lines)
