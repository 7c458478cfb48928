"""What holds for every test: one thread of arithmetic per process, and no process is left behind.

A session may use one process that has TensorFlow loaded and runs things in forked children: the fixture ``warm``.
"""

import os
import signal
import warnings

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(_name, "1")  # before anything is imported: idle threads that spin cost half of all time
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest  # noqa: E402
from processes import LINUX, adopt_orphans, children, command, left_of  # noqa: E402

warm_processes = set()


def pytest_sessionstart():
    adopt_orphans()


def lasting():
    """Return the children that serve the whole session."""
    return warm_processes | {process for process in children() if "resource_tracker" in command(process)}


@pytest.fixture(scope="module", autouse=True)
def no_process_is_left_behind():
    """Fail the file of tests that ends and leaves a process at work."""
    before = children() if LINUX else set()
    yield
    left = left_of(children() - before - lasting()) if LINUX else {}
    assert not left, f"expected no process at work after these tests, received {left}"


@pytest.fixture(scope="session")
def warm():
    """A process that has imported everything and runs ``runfile.py``, or a script, in forked children."""
    pytest.importorskip("tensorflow")
    from warm_runs import Warm

    process = Warm()
    warm_processes.add(process.process.pid)
    yield process
    process.close()


@pytest.fixture
def quick_figures(monkeypatch):
    """Runs of ``runfile.main`` in this process write one small figure instead of all: a second instead of six."""
    from warm_runs import replace_figures

    replace_figures(monkeypatch.setattr)


@pytest.fixture
def hears_signals():
    """Handle Ctrl-C as Python does, also where the shell that started the tests had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def eager():
    """Let TensorFlow run every operation as it comes: for a few steps that is faster than to compile a network."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Even though the `tf.config.experimental_run_functions_eagerly`")
        yield
    tf.config.run_functions_eagerly(False)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give the files of tests to the processes whole, so that what a file prepares is prepared once."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)
