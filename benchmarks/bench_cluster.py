"""What workers cost and what they give: overhead per chunk, time with 1 and 2 workers, bytes per spectrum.

    python benchmarks/bench_cluster.py [--quick]
    python benchmarks/bench_cluster.py --exact     # model of the exact map, from the overheads of a run before

Prints the measurements, and from them a model (not a measurement) of the wall time of large surveys; writes both to
``benchmarks/results/cluster_measured.csv`` and ``cluster_model.csv``. Each round runs every way once, and the quickest
round counts: on a machine with other work, slower rounds measure that work.
"""

import argparse
import csv
import os
import pickle
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from perturbation.engine import Chunk, Settings, run_chunk  # noqa: E402
from perturbation.mapstore import MapStore  # noqa: E402
from pipeline.cluster import fingerprint, open_scheduler  # noqa: E402
from sensitivity import ModelLoader, halving_sizes, sensitivity_map  # noqa: E402

N_BINS, N_AMPS = 52, 9
REPEAT = 500  # of the model's survey
CHUNK_SIZE = 4  # where networks are timed
WORKERS, SURVEYS, CHUNK_SIZES = (1, 16, 256), (10**5, 10**7), (8, 64)
EXACT_CHUNK_SIZES = (24, 240)  # one call of the mlp, and ten


class Constant:
    """A network that costs nothing, so that only the overhead is left."""

    def predict(self, rows):  # noqa: D102
        return np.zeros((len(rows), N_AMPS), np.float32)


def spectra(n):
    rng = np.random.default_rng(1)
    return 0.01 + 1e-3 * rng.random((n, N_BINS)), np.full((n, N_BINS), 3e-5)


def mapped(model, n, repeat, **options):
    """Map ``n`` spectra; return the seconds it took and the map."""
    start = time.perf_counter()
    result = sensitivity_map(
        model, None, *spectra(n), np.zeros(N_AMPS), np.ones(N_AMPS), no_spectra=None, repeat=repeat, x_mean=0.01,
        x_std=1e-3, rng=0, keep_spectra=False, **options,
    )  # fmt: skip
    return time.perf_counter() - start, result


def saved_network(folder, name):
    """Write an untrained network of the default size, which is as fast as a trained one; return its loader."""
    from models import build_model, load_model

    path = Path(folder) / f"{name}.keras"
    build_model(name, N_BINS, N_AMPS).save(path)
    return ModelLoader(load_model, str(path))


def measure_overhead(n_workers, chunks, rounds):
    """Return seconds per chunk of wall time and of the processor time of client and scheduler, beyond in-process."""
    loader, wall, busy = ModelLoader(Constant), [], []
    with open_scheduler(f"local:{n_workers}") as executor:
        mapped(loader, 20, 1, chunk_size=1, executor=executor)
        for _ in range(rounds):
            alone, _ = mapped(loader, chunks, 1, chunk_size=1)
            processor = time.process_time()
            there, _ = mapped(loader, chunks, 1, chunk_size=1, executor=executor)
            busy.append((time.process_time() - processor) / chunks)
            wall.append((there - alone / n_workers) / chunks)
    return min(wall), min(busy)


def measure_networks(sizes, repeat, rounds):
    """Return {network: {way: seconds}} for {network: spectra}: in this process, with a store, on 1 and 2 workers."""
    quickest = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        open_scheduler("local:1") as single,
        open_scheduler("local:2") as pair,
    ):
        for name, n in sizes.items():
            loader = saved_network(folder, name)
            executors = {"in-process": None, "in-process, store": None, "1 worker": single, "2 workers": pair}
            times, digests = {way: [] for way in executors}, set()
            for k in range(rounds + 1):
                for way, executor in executors.items():
                    with MapStore(Path(folder) / f"{name}{k}{way}", N_AMPS, N_BINS) as store:
                        options = {"store": store} if "store" in way else {}
                        seconds, result = mapped(loader, n, repeat, executor=executor, chunk_size=CHUNK_SIZE, **options)
                    digests.add(result.mean.tobytes())
                    if k:  # the first round loads the network
                        times[way].append(seconds)
            if len(digests) != 1:
                raise RuntimeError(f"{name}: the maps differ")
            quickest[name] = {way: min(seconds) for way, seconds in times.items()}
    return quickest


def measure_bytes(chunk_size):
    """Return the bytes per spectrum sent to a worker and sent back, as pickled."""
    x, error = (a.astype(np.float32) for a in spectra(chunk_size))
    chunk = Chunk(np.arange(chunk_size), x, error, None)
    labels = np.repeat(np.arange(len(halving_sizes(N_BINS))), halving_sizes(N_BINS))
    settings = Settings(labels, True, REPEAT, 8192, 0, "channel", N_AMPS)
    task = pickle.dumps((run_chunk, (ModelLoader(Constant), chunk, settings), {}))
    sent = len(pickle.dumps((fingerprint(), task)))
    answer = len(pickle.dumps(np.zeros((chunk_size, 2, N_AMPS, N_BINS))))
    return sent / chunk_size, answer / chunk_size


def measure_exact(sizes, rounds):
    """Return {network: processor seconds for the exact map of one spectrum}, in this process."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, n in sizes.items():
            model, seconds = saved_network(folder, name).get(), []
            mapped(model, min(n, 24), 1, scheme="single")
            for _ in range(rounds):
                start = time.process_time()
                mapped(model, n, 1, scheme="single")
                seconds.append((time.process_time() - start) / n)
            found[f"{name}, exact"] = min(seconds)
    return found


def measure_adding(n):
    """Return the processor seconds that the client needs for one exact map that comes back: unpickled and added up."""
    maps = np.random.default_rng(0).random((n, 4, N_AMPS, N_BINS))
    answer, store = pickle.dumps(maps), dict(enumerate(maps))
    start = time.process_time()
    pickle.loads(answer)
    mapped(Constant(), n, 1, scheme="single", store=store)
    return (time.process_time() - start) / n


def exact_model(folder, quick):
    """Measure the exact map, take the overheads from an earlier full run, and model surveys; write it unless quick."""
    with open(folder / "cluster_measured.csv", newline="") as file:
        measured = {row["what"]: float(row["value"]) for row in csv.DictReader(file)}
    wall = measured["overhead per chunk, 1 worker(s), wall"] / 1e3
    busy = measured["overhead per chunk, 2 worker(s), client and scheduler"] / 1e3
    each = measure_exact({"mlp": 24, "lstm": 2} if quick else {"mlp": 2400, "lstm": 24}, 1 if quick else 5)
    adding = min(measure_adding(100 if quick else 1000) for _ in range(3))
    rows = list(model_table(each, wall, busy, EXACT_CHUNK_SIZES, adding))
    for row in rows:
        row |= {"seconds_per_spectrum": f"{each[row['network']]:.3g}", "seconds_to_add_it": f"{adding:.2g}"}
    print("A model, not a measurement: exact map of single bins, 5 nodes")
    show(rows)
    if not quick:
        write(folder / "cluster_model_exact.csv", rows)


def model_table(seconds, per_chunk, busy, chunk_sizes=CHUNK_SIZES, adding=0.0):
    """Yield rows of the model: wall time is the longer of the workers' work and the scheduler's.

    work: spectra x (seconds per spectrum + wait per chunk / chunk size) / workers
    scheduler: chunks x processor time of client and scheduler per chunk, and spectra x that of ``adding`` one map
    """
    for name, each in seconds.items():
        for chunk_size in chunk_sizes:
            limit = int(
                chunk_size * each / (busy + chunk_size * adding)
            )  # workers that keep the scheduler busy all the time
            for n in SURVEYS:
                for workers in WORKERS:
                    work = n * (each + per_chunk / chunk_size) / workers
                    scheduler = n / chunk_size * busy + n * adding
                    yield {
                        "network": name, "chunk_size": chunk_size, "spectra": n, "workers": workers,
                        "wall_hours": f"{max(work, scheduler) / 3600:.3g}",
                        "limited_by": "scheduler" if scheduler > work else "workers",
                        "scheduler_limit_workers": limit,
                    }  # fmt: skip


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def show(rows):
    columns = list(rows[0])
    widths = [max(len(str(row[c])) for row in [*rows, dict(zip(columns, columns))]) for c in columns]
    for row in [dict(zip(columns, columns)), *rows]:
        print("  ".join(f"{row[c]!s:>{w}}" for c, w in zip(columns, widths)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few chunks, few spectra, nothing written")
    parser.add_argument("--results", default=ROOT / "benchmarks/results", type=Path)
    parser.add_argument("--exact", action="store_true", help="the exact map alone, with the overheads measured before")
    quick = parser.parse_args().quick
    folder = parser.parse_args().results
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if parser.parse_args().exact:
        exact_model(folder, quick)
        return
    rounds, chunks, repeat = (1, 100, 50) if quick else (6, 500, 100)
    sizes = {"mlp": 8, "lstm": 8} if quick else {"mlp": 96, "lstm": 8}

    rows = []

    def note(what, value, unit):
        rows.append({"what": what, "value": f"{value:.4g}", "unit": unit})

    note("processors", os.cpu_count(), "")
    note("load when it began", os.getloadavg()[0], "processes")
    overhead = {w: measure_overhead(w, chunks, rounds) for w in (1, 2)}
    for w, (wall, busy) in overhead.items():
        note(f"overhead per chunk, {w} worker(s), wall", 1e3 * wall, "ms")
        note(f"overhead per chunk, {w} worker(s), client and scheduler", 1e3 * busy, "ms of processor")
    for size in (1, 8, 64):
        sent, answer = measure_bytes(size)
        note(f"sent to the worker, chunks of {size}", sent, "bytes per spectrum")
        note(f"sent back, chunks of {size}", answer, "bytes per spectrum")
    networks = measure_networks(sizes, repeat, rounds)
    each = {}
    for name, times in networks.items():
        for way, seconds in times.items():
            note(f"{name}, {way}", seconds, f"s for {sizes[name]} spectra x {repeat} repeats")
        work = times["1 worker"] - sizes[name] / CHUNK_SIZE * overhead[1][0]  # without what chunks cost
        each[name] = work / sizes[name] * REPEAT / repeat
        note(f"{name}, one spectrum x {REPEAT} repeats, 1 worker, without overhead", each[name], "s")
    show(rows)
    model = list(model_table(each, overhead[1][0], overhead[2][1]))
    print(f"\nA model, not a measurement: {REPEAT} repeats, workers like the one above")
    show(model)
    if not quick:
        write(folder / "cluster_measured.csv", rows)
        write(folder / "cluster_model.csv", model)


if __name__ == "__main__":
    main()
