"""What the benchmarks share: command line, watches, a process of its own, tables, the made-up problem."""

import argparse
import csv
import json
import multiprocessing
import os
import platform
import sys
import threading
import time
from pathlib import Path

import numpy as np

import sensitivity
from common.processes import end_with_parent
from runio.log import quiet_stderr

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
SHIPPED = ROOT / "data/ariel_spectra.h5"
N_BINS, N_AMPS = 52, 9


def benchmark_parser(name, description):
    """Return a parser of arguments for ``python -m benchmarks.<name>``, whose help keeps the lines."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


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
    """Return a scikit-learn estimator that predicts as ``predict`` does, for its permutation importance."""
    from sklearn.base import BaseEstimator, RegressorMixin

    class Network(RegressorMixin, BaseEstimator):
        def fit(self, x, y):
            return self

        def predict(self, x):
            return predict(x)

    return Network()


def write(rows, path, note=None):
    """Write rows (dict) of a table as CSV, under a comment with the machine and the date if there is one."""
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        file.write(f"# {note}\n" if note else "")
        writer = csv.DictWriter(file, columns_of(rows), restval="")
        writer.writeheader()
        writer.writerows(rows)


def columns_of(rows):
    """Return the names of the columns of all rows, in the order in which they appear."""
    return list(dict.fromkeys(column for row in rows for column in row))


def show(rows):
    """Print rows as a Markdown table."""
    columns = columns_of(rows)
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |", flush=True)


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
    """Name of the processor, from /proc/cpuinfo."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()
