"""What the sensitivity test costs, beside the bare forward passes it needs and beside the published code.

    python -m benchmarks.bench_sensitivity                    # paper-sized, all four networks; the LSTM takes long
    python -m benchmarks.bench_sensitivity --models mlp --quick
    python -m benchmarks.bench_sensitivity --explainers  # the mlp beside SHAP, Captum, scikit-learn
    python -m benchmarks.bench_sensitivity --exact  # the exact map of single bins, and of a survey of 100,000 spectra

Prints one table from one run and writes it to benchmarks/results. Each network, and each peak of memory, is measured in
a process of its own.
Map and bare passes take turns, a tenth of the work at a time, so that a machine that is busy for a while slows both.
How many random repeats the exact map is worth is measured by quadrature.py.
"""

import os
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

import sensitivity
from benchmarks.explainers import explain_rows
from benchmarks.measuring import (
    N_AMPS,
    N_BINS,
    RESULTS,
    PeakMemory,
    Stopwatch,
    benchmark_parser,
    isolated,
    make_problem,
    new_network,
    processor,
    sensitivity_of,
    show,
    write,
)
from constants import NETWORKS
from perturbation.probe import probe_model

TURNS = 10
PUBLISHED_CALLS = 300
COLUMNS = {
    "network": "{}",
    "map_s": "{:.1f}",
    "bare_s": "{:.1f}",
    "ratio": "{:.2f}",
    "cpu_ratio": "{:.2f}",
    "published_s_extrapolated": "{:.3g}",
    "factor": "{:,.0f}",
    "added_MB": "{:.0f}",
    "added_MB_10x_repeats": "{:.0f}",
    "time_10x_repeats": "{:.2f}",
    "bare_call": "{}",
}


def fastest_call(model, batch_size):
    """Find the quickest way to run the network: (name, function of n rows or more, rows per call)."""
    import tensorflow as tf

    graph = tf.function(lambda x: model(x, training=False), autograph=False)
    calls = {"predict_on_batch": model.predict_on_batch, "tf.function": lambda x: graph(tf.constant(x)).numpy()}
    best = None
    for rows in sorted({batch_size, 2048, 4096, 8192} if batch_size > 5000 else {batch_size}):
        x = np.random.default_rng(1).standard_normal((rows, N_BINS, 1), dtype=np.float32)
        for name, call in calls.items():
            call(x)
            times = []
            for _ in range(5):
                start = time.process_time()
                call(x)
                times.append((time.process_time() - start) / rows)
            if best is None or min(times) < best[0]:
                best = min(times), f"{name} of {rows}", lambda call=call, x=x: call(x), rows
    return best[1:]


def memory_added(name, repeat):
    """Peak memory that the map of four spectra adds to a process that has the network and used it, in MB."""
    network = new_network(name)
    spectra, errors = make_problem(4)
    with PeakMemory() as memory:
        sensitivity_of(network, spectra, errors, repeat)
    return memory.added


def measure(name, n_spectra, repeat):
    """One row of the table, but for memory."""
    network = new_network(name)
    spectra, errors = make_problem(n_spectra)

    few = slice(0, 6)
    once, tenfold = Stopwatch(), Stopwatch()
    sensitivity_of(network, spectra[few], errors[few], repeat)  # memory is taken and kernels are chosen now
    with once:
        sensitivity_of(network, spectra[few], errors[few], repeat)
    with tenfold:
        sensitivity_of(network, spectra[few], errors[few], 10 * repeat)

    probe = probe_model(network, spectra[0])
    call_name, call, rows_per_call = fastest_call(network, probe.batch_size)
    n_groups = len(sensitivity.halving_sizes(N_BINS))
    mine, bare = Stopwatch(), Stopwatch()
    called = 0
    for turn in range(TURNS):
        part = slice(turn * n_spectra // TURNS, (turn + 1) * n_spectra // TURNS)
        if part.start == part.stop:
            continue
        with mine:
            sensitivity_of(network, spectra[part], errors[part], repeat, rng=turn)
        due = part.stop * repeat * n_groups
        with bare:
            while called < due:
                call()
                called += rows_per_call
    bare_share = n_spectra * repeat * n_groups / called  # the last call may have done more rows than were due

    spectrum = np.zeros((1, N_BINS, 1), np.float32)
    network.predict(spectrum, verbose=0)
    published, few_calls = Stopwatch(), min(PUBLISHED_CALLS, 3 * n_spectra)
    with published:
        for _ in range(few_calls):
            network.predict(spectrum, verbose=0)
    # one call for the spectrum itself and one for each group, for every AMP
    calls = n_spectra * repeat * N_AMPS * (n_groups + 1)
    published_s = published.wall / few_calls * calls
    return {
        "network": name,
        "map_s": mine.wall,
        "bare_s": bare.wall * bare_share,
        "ratio": mine.wall / (bare.wall * bare_share),
        "cpu_ratio": mine.cpu / (bare.cpu * bare_share),
        "published_s_extrapolated": published_s,
        "factor": published_s / mine.wall,
        "time_10x_repeats": tenfold.wall / once.wall,
        "bare_call": call_name,
    }


def measure_exact(n_spectra):
    """Row for the exact map of single bins by the mlp, beside the network alone, in milliseconds.

    Bare passes are ``predict_on_batch`` with the rows of the map. A map and its bare passes take turns, so that
    both find the caches as the other leaves them. The best and the median of twenty rounds, for what a busy machine
    does to them.
    """
    network = new_network("mlp")
    spectra, errors = make_problem(n_spectra)
    call, batches = network.predict_on_batch, []

    def map_once():
        sensitivity_of(network, spectra, errors, 500, scheme="single", keep_spectra=False)

    def recorded(rows):
        batches.append(rows)
        return call(rows)

    map_once()  # the network is tried, memory is taken and kernels are chosen now
    network.predict_on_batch = recorded
    map_once()
    network.predict_on_batch = call
    again = max(1, 100 // n_spectra)
    seconds = []
    for _ in range(2 * TURNS):
        mine, bare = Stopwatch(), Stopwatch()
        for _ in range(again):
            with mine:
                map_once()
            with bare:
                for rows in batches:
                    call(rows)
        seconds.append([mine.wall, mine.cpu, bare.wall, bare.cpu])
    seconds = np.array(seconds) / again
    best, median = 1000 * seconds.min(axis=0), 1000 * np.median(seconds, axis=0)
    ratio, cpu_ratio = np.median(seconds[:, :2] / seconds[:, 2:], axis=0)
    return {
        "spectra": n_spectra,
        "calls": f"{len(batches)} of {len(batches[0])} rows",
        "best_ms": f"{best[0]:.2f}",
        "bare_best_ms": f"{best[2]:.2f}",
        "ratio_of_best": f"{best[0] / best[2]:.2f}",
        "median_ms": f"{median[0]:.2f}",
        "bare_median_ms": f"{median[2]:.2f}",
        "median_ratio": f"{ratio:.2f}",
        "cpu_ms": f"{median[1]:.2f}",
        "bare_cpu_ms": f"{median[3]:.2f}",
        "median_cpu_ratio": f"{cpu_ratio:.2f}",
    }


def survey_exact(n_spectra):
    """Row for the exact map of a survey by the mlp: seconds, and the memory that it adds to spectra and network."""
    network = new_network("mlp")
    spectra, errors = make_problem(n_spectra)
    sensitivity_of(network, spectra[:300], errors[:300], 500, scheme="single", keep_spectra=False)
    watch = Stopwatch()
    with PeakMemory() as memory, watch:
        sensitivity_of(network, spectra, errors, 500, scheme="single", keep_spectra=False)
    return {
        "spectra": n_spectra,
        "seconds": f"{watch.wall:.1f}",
        "cpu_seconds": f"{watch.cpu:.1f}",
        "added_MB": f"{memory.added:.0f}",
        "spectra_MB": f"{2 * spectra.nbytes / 2**20:.0f}",
    }


def main():
    parser = benchmark_parser("bench_sensitivity", __doc__)
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--spectra", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="10 spectra, 100 repeats")
    parser.add_argument("--explainers", action="store_true", help="the mlp against other explanations, nothing else")
    parser.add_argument("--exact", action="store_true", help="the exact map of single bins by the mlp, nothing else")
    parser.add_argument("--survey", type=int, default=100_000, help="spectra of the survey of --exact")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.quick:
        args.spectra, args.repeat = 10, 100
    if args.exact:
        note = (
            f"{date.today()}, {processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; mlp, {N_AMPS} AMPs"
        )
        print(note, flush=True)
        table = {"exact": [isolated(measure_exact, n) for n in (1, 10, 50, args.spectra)]}
        show(table["exact"])
        table["exact_survey"] = [isolated(survey_exact, n) for n in (args.survey // 10, args.survey)]
        show(table["exact_survey"])
        for name, rows in table.items():
            write(rows, args.output / f"{name}.csv", note)
        return
    suffix = "_quick" if args.quick else ""
    few = min(args.spectra, 10)
    work = f"{few} spectra, mlp of" if args.explainers else f"{args.spectra} spectra, {args.repeat} repeats,"
    note = f"{date.today()}, {processor()}, {os.cpu_count()} cores; {work} {N_AMPS} AMPs"
    print(note, flush=True)
    if args.explainers:
        others = isolated(explain_rows, few, args.repeat)
        show(others)
        write(others, args.output / f"explainers{suffix}.csv", note)
        return
    rows = []
    for name in args.models:
        row = isolated(measure, name, args.spectra, args.repeat)
        row["added_MB"] = isolated(memory_added, name, args.repeat)
        row["added_MB_10x_repeats"] = isolated(memory_added, name, 10 * args.repeat)
        rows.append({key: form.format(row[key]).replace(",", "") for key, form in COLUMNS.items()})
        print(f"{name} done", file=sys.stderr)
    show(rows)
    some = "" if set(args.models) == set(NETWORKS) else "_" + "_".join(args.models)
    write(rows, args.output / f"sensitivity{some}{suffix}.csv", note)


if __name__ == "__main__":
    main()
