"""What workers cost and what they gain; from that, a model of how long large surveys take.

    python -m benchmarks.bench_cluster [--quick]

Measures what a chunk costs its worker and the run itself, bytes, seconds per spectrum of every network (exact map of
single bins, and 500 repeats of the published one), and a whole test with one worker and with two. The model (not a
measurement) of 1e5, 1e7 and 1e9 spectra follows: the longer of the workers' time and of that of the run itself. Writes
``benchmarks/results/cluster_measured.csv`` and ``cluster_model.csv``. Of several rounds the quickest counts: on a
machine with other work, slower rounds measure that work.
"""

import math
import os
import pickle
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.measuring import N_AMPS, N_BINS, RESULTS, benchmark_parser, show, write
from constants import NETWORKS
from perturbation.accumulate import merge_maps
from perturbation.engine import Chunk, run_chunk
from perturbation.plan import CHUNK_BYTES, CHUNK_SECONDS, Plan
from perturbation.predictors import Predictor
from perturbation.quadrature import make_rule
from pipeline.cluster import open_scheduler, portable_task
from pipeline.survey_map import BLOCK
from sensitivity import ModelLoader, SensitivityMap, sensitivity_map

REPEAT = 500
MAPS = {"exact": {"scheme": "single"}, "published": {"scheme": "halving", "repeat": REPEAT}}
ARRAYS = {"exact": 4, "published": 2}  # that come back of every spectrum
WORKERS, SURVEYS = (1, 16, 256), (10**5, 10**7, 10**9)
SMALL, LARGE = 24, 240  # spectra in chunks that tell what a chunk costs, and what a spectrum in it


class Constant:
    """A network that costs nothing, so that only the overhead is left."""

    def predict(self, rows):  # noqa: D102
        return np.zeros((len(rows), N_AMPS), np.float32)


def mapped(model, n, **options):
    """Map ``n`` spectra; return wall seconds, processor seconds of this process, and the map."""
    rng = np.random.default_rng(1)
    spectra, errors = 0.01 + 1e-3 * rng.random((n, N_BINS)), np.full((n, N_BINS), 3e-5)
    options = {"no_spectra": None, "x_mean": 0.01, "x_std": 1e-3, "rng": 0, "keep_spectra": False, **options}
    start, processor = time.perf_counter(), time.process_time()
    result = sensitivity_map(model, None, spectra, errors, np.zeros(N_AMPS), np.ones(N_AMPS), **options)
    return time.perf_counter() - start, time.process_time() - processor, result


def saved_network(folder, name):
    """Write an untrained network of the default layers, which is as fast as a trained one; return its loader."""
    from models import build_model, load_model

    path = Path(folder) / f"{name}.keras"
    build_model(name, N_BINS, N_AMPS).save(path)
    return ModelLoader(load_model, str(path))


def overhead(executor, chunk_size, n_chunks, rounds):
    """Return wall seconds of a chunk beyond its work in this process, and processor seconds of client and scheduler."""
    n, loader = chunk_size * n_chunks, ModelLoader(Constant)
    options = {**MAPS["exact"], "batch_size": 5120, "chunk_size": chunk_size}
    mapped(loader, n // 10, executor=executor, **options)
    alone = min(mapped(loader, n, **options)[0] for _ in range(rounds))
    there = [mapped(loader, n, executor=executor, **options)[:2] for _ in range(rounds)]
    wall, busy = (min(column) / n_chunks for column in zip(*there))
    return wall - alone / n_chunks, busy


def bytes_of_chunk(chunk_size, kind):
    """Return the bytes per spectrum sent to a worker and sent back, as pickled."""
    x = np.zeros((1, chunk_size, N_BINS), np.float32)
    rule = make_rule("auto", 5) if kind == "exact" else None
    scale = np.ones((1, N_BINS))
    plan = Plan(
        None, None, False, scale, scale, None, kind, np.arange(N_BINS), True, rule, REPEAT,
        calls=(Predictor(None, N_AMPS, "flat"),), batch_size=5120,
    )  # fmt: skip
    chunk = Chunk(np.arange(chunk_size), x, x.copy(), None)  # the same array twice would be pickled once
    task = portable_task(run_chunk, ([ModelLoader(Constant)], chunk, plan), {})
    answer = np.zeros((chunk_size, ARRAYS[kind], N_AMPS, N_BINS))
    return len(pickle.dumps(task[1:])) / chunk_size, len(pickle.dumps(answer)) / chunk_size


def seconds_per_spectrum(model, kind, n, rounds):
    """Return the processor seconds of a spectrum, in this process."""
    mapped(model, min(n, SMALL), **MAPS[kind])
    return min(mapped(model, n, **MAPS[kind])[1] for _ in range(rounds)) / n


def merging(n_blocks):
    """Return the seconds to save the map of a block, read it again and add it to the others."""
    result = mapped(Constant(), SMALL, **MAPS["exact"])[2]
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        for k in range(n_blocks):
            result.save(f"{folder}/{k}.h5")
        merge_maps(SensitivityMap.load(f"{folder}/{k}.h5") for k in range(n_blocks))
        return (time.process_time() - start) / n_blocks


def hours(seconds):
    """Write seconds as hours of two digits."""
    value = float(f"{seconds / 3600:.2g}")
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def model_table(each, costs):
    """Yield rows of the model.

    Parameters
    ----------
    each : dict of (network, kind) to float
        Seconds per spectrum.
    costs : dict of str to float
        ``wait``: wall seconds of a chunk on its worker beyond the work; ``chunk``, ``spectrum``: processor seconds of
        the run itself for a chunk, and for each spectrum in it; ``piece``: for a block, beyond a chunk.
    """
    for (network, kind), seconds in each.items():
        in_bytes = int(CHUNK_BYTES / (8 * ARRAYS[kind] * N_AMPS * N_BINS))
        ways = {"chunks": (min(int(CHUNK_SECONDS / seconds) or 1, in_bytes), costs["chunk"], costs["spectrum"])}
        if kind == "exact":
            ways["pieces"] = BLOCK, costs["chunk"] + costs["piece"], 0.0
        for way, (size, per_chunk, per_spectrum) in ways.items():
            for n in SURVEYS:
                own = n / size * per_chunk + n * per_spectrum
                row = {"network": network, "map": kind, "way": f"{way} of {size}", "spectra": f"{n:.0e}"}
                for workers in WORKERS:
                    work = math.ceil(n / size / workers) * (size * seconds + costs["wait"])
                    row[f"{workers} workers, hours"] = f"{hours(max(work, own))}{' *' if own > work else ''}"
                row["run itself, hours"] = hours(own)
                row["seconds per chunk"] = f"{size * seconds:.2g}"
                yield row


def measure(quick, note):
    """Measure all; return what `model_table` takes."""
    rounds, n_chunks = (1, 10) if quick else (4, 60)
    note("processors", os.cpu_count(), "")
    note("load when it began", os.getloadavg()[0], "processes")
    with tempfile.TemporaryDirectory() as folder:
        loaders = {name: saved_network(folder, name) for name in NETWORKS}
        with open_scheduler("local:1") as single:
            wait, small = overhead(single, SMALL, n_chunks, rounds)
            _, large = overhead(single, LARGE, n_chunks, rounds)
            n = 480 if quick else 9600
            with open_scheduler("local:2") as pair:
                for workers, executor in ((1, single), (2, pair)):
                    options = {"executor": executor, **MAPS["exact"]}
                    wall = min(mapped(loaders["mlp"], n, **options)[0] for _ in range(rounds + 1))
                    note(f"mlp, exact map of {n} spectra, {workers} worker(s), wall", wall, "s")
        each = {}
        for name in NETWORKS:
            for kind, n in (("exact", 240), ("published", 8)) if quick else (("exact", 960), ("published", 24)):
                each[name, kind] = seconds_per_spectrum(loaders[name].get(), kind, n, rounds)
                note(f"{name}, {kind} map of a spectrum", 1e3 * each[name, kind], "ms of processor")
    per_spectrum = (large - small) / (LARGE - SMALL)
    costs = {"wait": wait, "chunk": small - SMALL * per_spectrum, "spectrum": per_spectrum, "piece": merging(n_chunks)}
    words = {
        "wait": "a chunk's worker waits",
        "chunk": "a chunk costs the run",
        "spectrum": "a map that comes back costs the run",
        "piece": "a piece costs the run beside that",
    }
    for name, what in words.items():
        note(what, 1e3 * costs[name], "ms" if name == "wait" else "ms of processor")
    for kind in MAPS:
        sent, answer = bytes_of_chunk(LARGE, kind)
        note(f"sent to a worker, {kind} map, chunks of {LARGE}", sent / 1e3, "kB per spectrum")
        note(f"sent back, {kind} map", answer / 1e3, "kB per spectrum")
    return each, costs


def main():
    parser = benchmark_parser("bench_cluster", __doc__)
    parser.add_argument("--quick", action="store_true", help="few chunks, few spectra, nothing written")
    parser.add_argument("--results", default=RESULTS, type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    measured = []

    def note(what, value, unit):
        measured.append({"what": what, "value": f"{value:.3g}", "unit": unit})

    each, costs = measure(arguments.quick, note)
    model = list(model_table(each, costs))
    show(measured)
    print("\nA model, not a measurement; *: the run itself is the limit, not its workers\n")
    show(model)
    if not arguments.quick:
        write(measured, arguments.results / "cluster_measured.csv")
        write(model, arguments.results / "cluster_model.csv")


if __name__ == "__main__":
    main()
