"""The log of a run, its progress bar, its one-line error messages, and checks of the environment."""

import contextlib
import importlib.metadata
import logging
import logging.handlers
import os
import platform
import signal
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.processes import quiet_libraries
from constants import VERSION

MAX_MESSAGE = 900  # characters
PACKAGES = ("tensorflow", "keras", "numpy", "h5py", "matplotlib", "pyyaml", "tqdm")
SHARES = {"training": 80, "predictions and maps": 15, "figures": 5}  # % of the time of the README's first command
BAR = "{desc} |{bar}| {percentage:.0f}%, {elapsed} gone, about {remaining} left"


def one_line(text, limit=MAX_MESSAGE):
    """Return a text as one line without control characters, with its middle left out if it is too long."""
    text = str(text)
    if len(text) > 10 * limit:  # do not process all of a huge text
        text = f"{text[: 5 * limit]} {text[-5 * limit :]}"
    text = printable(" ".join(text.split()))
    if len(text) > limit:
        text = f"{text[: limit * 2 // 3]} ... {text[5 - limit // 3 :]}"
    return text


def printable(text, keep=""):
    """Return a text with control characters and invalid Unicode as escapes, except for the characters to ``keep``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


class InputError(ValueError):
    """Bad input; the message is one line: what, expected, received. ``runfile.py`` exits with status 2."""

    def __init__(self, message=""):
        super().__init__(one_line(message))


@contextlib.contextmanager
def as_input_error():
    """Raise errors of libraries that read the user's input as an `InputError`."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error


class Stages:
    """Times the stages of a run, for the line at its end, and shows its progress as one bar.

    The stages ``shown``, of those in ``SHARES``, fill the bar. The time left is estimated from the part that is done,
    and is right to a few per cent if the stages take their usual shares. ``quiet``, or no terminal: no bar.
    """

    def __init__(self, quiet=False, shown=tuple(SHARES)):
        self.seconds = {}
        self._quiet, self._shares = quiet, {name: SHARES[name] for name in shown}
        self._bar, self._name, self._before = None, None, 0  # before: the shares of the stages that have ended

    @contextlib.contextmanager
    def __call__(self, name):
        """Add the time of the block to the stage called ``name``."""
        start, self._name = time.perf_counter(), name
        self.done(0.0)
        try:
            yield
            self.done(1.0)
        except BaseException:
            self._close()
            raise
        self.seconds[name] = time.perf_counter() - start
        self._before += self._shares.get(name, 0)
        if self._before == sum(self._shares.values()):
            self._close()

    def done(self, part, words=""):
        """Show that a part (0 to 1) of the present stage is done, with ``words`` beside the name of the stage."""
        if self._name not in self._shares:
            return
        if self._bar is None:
            self._bar = tqdm(total=sum(self._shares.values()), bar_format=BAR, smoothing=0, disable=self._quiet or None)
        self._bar.n = self._before + part * self._shares[self._name]
        self._bar.set_description_str(f"{self._name}{', ' if words else ''}{words}")

    def found(self, part):
        """Say which part of the present stage an earlier run has done; it does not count for the time left."""
        if self._bar is not None:
            self._bar.initial = part * self._shares[self._name]
        self.done(part)

    def _close(self):
        if self._bar is not None:
            self._bar.close()

    def __str__(self):
        return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())


def shows_progress(quiet):
    """Say whether to show progress bars: only on a terminal, and not if asked to be quiet."""
    return not quiet and sys.stderr.isatty()


class _Whole(logging.Formatter):
    """Records of run.log, with time, level and module; tracebacks keep their lines."""

    def format(self, record):
        return printable(super().format(record), keep="\n\t")


class _Screen(logging.Handler):
    """Writes messages above a progress bar; warnings and errors go to stderr, as one line after their level."""

    def emit(self, record):
        text, stream = printable(record.getMessage(), keep="\n"), sys.stdout
        if record.levelno >= logging.WARNING:
            text, stream = f"{record.levelname.lower()}: {one_line(record.getMessage())}", sys.stderr
        with _unheard(stream):
            tqdm.write(text, file=stream)


@contextlib.contextmanager
def _unheard(stream):
    """Redirect a stream to the null device once its reader has ended, so that neither run nor exit status changes."""
    try:
        yield
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())


class Terminated(KeyboardInterrupt):
    """SIGTERM, which then stops a command as Ctrl-C does: what it began is closed, and one line says so."""


def stopped_by(stop):
    """Return the word for what stopped a command, a KeyboardInterrupt, and its status: 128 and the signal's number."""
    return ("terminated", 143) if isinstance(stop, Terminated) else ("interrupted", 130)


class RunLog:
    """Sends the log to the screen at once, and to a file as soon as there is one.

    Use as a context manager; what was logged before ``to_file`` is kept and written there too. ``quiet``: only warnings
    and errors on the screen. ``path`` is the log file, once there is one.
    """

    def __init__(self, quiet=False):
        self.root = logging.getLogger()
        self.screen = _Screen(logging.WARNING if quiet else logging.INFO)
        self.memory = logging.handlers.MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1)
        self.path = None

    def __enter__(self):
        def terminate(*_):
            raise Terminated

        self.before = self.root.level
        self.root.setLevel(logging.INFO)
        if threading.current_thread() is threading.main_thread():
            self.terminate = signal.signal(signal.SIGTERM, terminate)
        self.root.addHandler(self.screen)
        self.root.addHandler(self.memory)
        logging.captureWarnings(True)
        warnings.showwarning = lambda message, *_, **__: logging.getLogger("warnings").warning("%s", message)
        quiet_libraries()
        logging.getLogger("pipeline.folds").setLevel(logging.DEBUG)  # every epoch, for the file alone
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
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.terminate)
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


@contextlib.contextmanager
def quiet_stderr():
    """Hide what compiled libraries print while they load, unless loading fails."""
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
    """Open the null device for a stream that the shell closed (``2>&-``), or the next opened file becomes stderr."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115


def check_environment():
    """Refuse environment variables with which libraries fail after the work is done, or with an unclear message.

    ``PYTHONWARNINGS=error`` would turn warnings of libraries into failures; it is not passed on.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise InputError(f"KERAS_BACKEND: expected tensorflow, with which runs are made, received {backend!r}")
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "")
        if value and not (value.isascii() and value.isdigit() and int(value) < 10_000):
            raise InputError(f"{name}: expected a whole number, received {value!r}")
    os.environ["MPLBACKEND"] = "agg"  # figures go to files; a name that is no backend is ignored
    if any(option.startswith("error") for option in sys.warnoptions):
        os.environ.pop("PYTHONWARNINGS", None)
        warnings.simplefilter("default")


def versions():
    """Return the versions of this software, of Python and of the packages, without importing them."""
    by_package = {"software": VERSION, "python": platform.python_version(), **dict.fromkeys(PACKAGES, "not installed")}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            by_package[package] = importlib.metadata.version(package)
    return by_package


def score_table(names, scores):
    """Return the closing table as text: MSE (scaled units) and R2 of each AMP from `runio.results.Run.scores`."""
    folds = [found for name, found in scores.items() if name != "ensemble"]
    mean = {score: np.mean([one[score] for one in folds], axis=0) for score in ("MSE", "R2")}
    columns = {"mean of folds ": scores["ensemble"], "single folds ": mean} if "ensemble" in scores else {"": mean}
    width = max(8, *(len(name) for name in names))
    heads = [f"{title}{score}" for title in columns for score in ("MSE", "R2")]
    lines = [" ".join([" " * width, *(f"{head:>17}" for head in heads)])]
    values = np.array([found[score] for found in columns.values() for score in ("MSE", "R2")])  # (columns, n_amps)
    for name, row in zip([*names, "mean"], np.column_stack([values, values.mean(axis=1)]).T):
        lines.append(" ".join([f"{name:<{width}}", *(f"{value:>17.4f}" for value in row)]))
    return "\n".join(lines)
