"""How much memory does a worker take at most? One new process for each kind of work.

    python -m benchmarks.worker_memory [--quick]

The largest resident memory of a process that imports TensorFlow and maps spectra of the shipped data set, of one that
trains a fold of it, and of one that trains a fold of as many spectra as ``LARGE``. Writes
``benchmarks/results/worker_memory.csv``.
"""

import json
import multiprocessing
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor

import h5py
import numpy as np

from benchmarks.measuring import RESULTS, ROOT, SHIPPED, benchmark_parser, write
from constants import NETWORKS
from pipeline.folds import FoldTask, load_split, prepare_tensorflow, tensorflow_threads, train_on_worker
from runio.config import load_config

LARGE = 300_000  # spectra


def peak():
    """Return the largest resident memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def train(network, path):
    """Train fold 0 of a data set for an epoch; return the peak."""
    config = load_config(ROOT / "config.yaml", {"model.name": network, "training.epochs": 1, "data.path": str(path)})
    settings = json.dumps(config.to_dict())
    with tempfile.TemporaryDirectory() as folder:
        train_on_worker(FoldTask(settings, load_split(config).data.sha256(), folder, 0, tensorflow_threads()))
    return peak()


def map_spectra(network, path):
    """Make the exact map and the published one of some spectra; return the peak."""
    prepare_tensorflow()
    from models import build_model
    from sensitivity import sensitivity_map

    model = build_model(network, 52, 9)
    with h5py.File(path) as file:
        spectra, errors = file["spectra"][:96], file["errors"][:96]
    scales = {"x_mean": 0.01, "x_std": 1e-3, "scaled": True}
    for options in ({"scheme": "single"}, {"repeat": 200}):
        sensitivity_map(model, None, spectra, errors, no_spectra=None, rng=0, **scales, **options)
    return peak()


def enlarged(path, n):
    """Write the shipped data set again and again, until there are ``n`` spectra, each a little different."""
    rng = np.random.default_rng(0)
    with h5py.File(SHIPPED) as old, h5py.File(path, "w") as new:
        for name in old:
            if name in ("spectra", "errors", "amps"):
                values = np.resize(old[name][()], (n, old[name].shape[1]))
                new[name] = values * (1 + 1e-3 * rng.standard_normal((n, 1)))
                for key, value in old[name].attrs.items():
                    new[name].attrs[key] = value
            elif name != "auxiliary":
                old.copy(name, new)


def in_new_process(function, *arguments):
    """Return what ``function`` returns in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main():
    parser = benchmark_parser("worker_memory", __doc__)
    parser.add_argument("--quick", action="store_true", help="one network, the shipped data, nothing written")
    quick = parser.parse_args().quick
    rows = []

    def note(what, network, function, path):
        rows.append({"what": what, "network": network, "GB": f"{in_new_process(function, network, path):.2f}"})
        print(*rows[-1].values(), flush=True)

    for network in NETWORKS[:1] if quick else NETWORKS:
        note("map 96 spectra", network, map_spectra, SHIPPED)
        note("train a fold of the shipped data", network, train, SHIPPED)
    if quick:
        return
    with tempfile.TemporaryDirectory() as folder:
        enlarged(f"{folder}/large.h5", LARGE)
        note(f"train a fold of {LARGE} spectra", "mlp", train, f"{folder}/large.h5")
    write(rows, RESULTS / "worker_memory.csv")


if __name__ == "__main__":
    main()
