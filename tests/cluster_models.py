"""Models for the tests of the cluster, to be imported in worker processes."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np

WEIGHTS = np.random.default_rng(5).normal(size=(13, 3)).astype(np.float32)


class Model:
    """A small nonlinear network; leaves a file in ``folder`` for every load of it.

    Takes ``seconds`` for an answer. Kills its process at the spectrum ``deadly`` (the first bin holds its row), or
    raises an error there. All arguments are text, as they are part of a `ModelLoader`.
    """

    def __init__(self, folder, seconds="0", deadly=None, raises=None):
        self.folder, self.seconds, self.raises = Path(folder), float(seconds), raises
        self.deadly = None if deadly is None else float(deadly)
        (self.folder / f"load-{os.getpid()}-{time.monotonic_ns()}").touch()

    def predict(self, rows):
        time.sleep(self.seconds)
        if self.deadly is not None and abs(rows[0, 0] - self.deadly) < 0.5:
            if self.raises:
                raise TypeError("no such number")
            os.kill(os.getpid(), signal.SIGKILL)
        return np.tanh(rows[:, 1:] @ WEIGHTS[1:])


def load(*arguments):
    return Model(*arguments)


def touch(path, seconds):
    """A task that leaves a trace."""
    Path(path).touch()
    time.sleep(seconds)


def hold(n_bytes, seconds):
    """A task that takes memory, and time."""
    held = np.ones(n_bytes // 8)
    time.sleep(seconds)
    return held[0]


GATE = threading.Event()


def wait_at_the_gate():
    """Wait, in a worker that is a thread of this process, until the gate is opened."""
    GATE.wait(60)
    return "through"
