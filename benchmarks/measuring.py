"""What the benchmarks of the sensitivity test share: watches, a process of its own, tables, the made-up problem."""

import csv
import json
import multiprocessing
import os
import platform
import sys
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path[:0] = [str(Path(__file__).resolve().parents[1])]  # so import this module before those of the root

import numpy as np  # noqa: E402

import sensitivity  # noqa: E402
from common.processes import end_with_parent  # noqa: E402
from runio.log import quiet_stderr  # noqa: E402

N_BINS, N_AMPS = 52, 9


class PeakMemory:
    """Resident memory added inside the block, in MB: the highest of samples every 10 ms."""

    def __enter__(self):
        self.start = self.peak = self._resident()
        self.running = True
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.running = False
        self.thread.join()
        self.added = max(self.peak, self._resident()) - self.start

    def _watch(self):
        while self.running:
            self.peak = max(self.peak, self._resident())
            time.sleep(0.01)

    @staticmethod
    def _resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Stopwatch:
    """Wall and CPU seconds, added up over several blocks."""

    def __init__(self):
        self.wall = self.cpu = 0.0

    def __enter__(self):
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *_):
        self.wall += time.perf_counter() - self._start[0]
        self.cpu += time.process_time() - self._start[1]


def make_problem(spectra):
    """Spectra and errors that look like transit depths; the cost does not depend on their values."""
    rng = np.random.default_rng(0)
    return rng.normal(0.01, 0.002, (spectra, N_BINS)), rng.uniform(2e-5, 6e-5, (spectra, N_BINS))


def sensitivity_of(model, spectra, errors, repeat, **options):
    """Map of the spectra given, as a user would ask for it."""
    y_scaling = np.zeros(N_AMPS), np.ones(N_AMPS)
    return sensitivity.sensitivity_map(
        model, None, spectra, errors, *y_scaling, None, None, repeat, 0.01, 0.002, **options
    )


def new_network(name):
    """One of the four networks, untrained, that has been used once."""
    with quiet_stderr():
        import models
    network = models.build_model(name, N_BINS, N_AMPS)
    network.predict_on_batch(np.zeros((2, N_BINS, 1), np.float32))
    return network


def as_estimator(predict):
    """Return a scikit-learn estimator that answers as ``predict`` does, for its permutation importance."""
    from sklearn.base import BaseEstimator, RegressorMixin

    class Network(RegressorMixin, BaseEstimator):
        def fit(self, x, y):
            return self

        def predict(self, x):
            return predict(x)

    return Network()


def write(rows, path, note):
    """Write rows of the table as CSV under a comment with the machine and the date."""
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="") as file:
        file.write(f"# {note}\n")
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def show(rows):
    """Print rows as a Markdown table."""
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |", flush=True)


def _isolated(function, args, connection):
    end_with_parent()
    connection.send(json.dumps(function(*args)))


def isolated(function, *args):
    """Return function(*args) from a process of its own, so that one network's memory is not another's."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_isolated, args=(function, args, sender))
    process.start()
    sender.close()
    try:
        return json.loads(receiver.recv())
    except EOFError:
        sys.exit(f"{function.__name__}{args}: its process ended with status {process.exitcode}")
    finally:
        process.join()


def processor():
    """Name of the processor, as Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()
