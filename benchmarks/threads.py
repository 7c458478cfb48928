"""Does the number of TensorFlow's threads change the weights of a network?

    python -m benchmarks.threads [--quick]

Trains every network for a few epochs with 1, 2 and 4 threads, as ``runfile.py --fold 0`` does, and compares the weights
bit for bit; once more, where they differ, with the same number of threads. Writes ``benchmarks/results/threads.csv``.
"""

import hashlib
import io
import itertools
import os
import subprocess
import sys
import tempfile
import zipfile

import h5py
import numpy as np

from benchmarks.measuring import RESULTS, ROOT, benchmark_parser, write
from constants import NETWORKS

THREADS = (1, 2, 4)
WAYS = (("config.yaml", 512), ("configs/paper.yaml", 64))


def trained_weights(network, config, batch_size, threads, size, epochs):
    """Return the weights of fold 0, one array after the other, trained in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "runfile.py", "--quiet", "--no-sensitivity", "--fold", "0", "--output", f"{folder}/run"),
            *("--config", config, "--model", network, "--batch_size", batch_size, "--epochs", epochs, "--size", size),
        ]
        environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": str(threads), "OMP_NUM_THREADS": "1"}
        subprocess.run([str(word) for word in command], cwd=ROOT, env=environment, check=True)
        with zipfile.ZipFile(f"{folder}/run/.unfinished/model_0.keras") as archive:
            content = io.BytesIO(archive.read("model.weights.h5"))
    arrays = []
    with h5py.File(content) as file:
        file.visititems(lambda _, item: arrays.append(item[()].ravel()) if isinstance(item, h5py.Dataset) else None)
    return np.concatenate([array.astype(np.float64) for array in arrays])


def compare(network, config, batch_size, size, epochs):
    """Return a row of the table."""
    weights = {n: trained_weights(network, config, batch_size, n, size, epochs) for n in THREADS}
    digests = {n: hashlib.sha256(values.tobytes()).hexdigest()[:12] for n, values in weights.items()}
    size_of_weights = np.abs(weights[1]).mean()
    row = {"network": network, "config": config, "batch_size": batch_size}
    for one, other in itertools.combinations(THREADS, 2):
        same = digests[one] == digests[other]
        difference = np.abs(weights[one] - weights[other]).mean() / size_of_weights
        row[f"{one} and {other}"] = "the same" if same else f"{difference:.1e}"
    if len(set(digests.values())) > 1:
        again = trained_weights(network, config, batch_size, 2, size, epochs)
        row["2 again"] = "the same" if np.array_equal(again, weights[2]) else "other"
    return row


def main():
    parser = benchmark_parser("threads", __doc__)
    parser.add_argument("--quick", action="store_true", help="one network, few spectra, nothing written")
    quick = parser.parse_args().quick
    networks, ways = (NETWORKS[:1], WAYS[:1]) if quick else (NETWORKS, WAYS)
    rows = []
    for (config, batch_size), network in itertools.product(ways, networks):
        rows.append(compare(network, config, batch_size, 400 if quick else 2000, 1 if quick else 2))
        print(rows[-1], flush=True)
    if not quick:
        write(rows, RESULTS / "threads.csv")


if __name__ == "__main__":
    main()
