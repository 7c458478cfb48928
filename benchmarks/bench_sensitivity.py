"""What the sensitivity test costs, beside the bare forward passes it needs and beside the published way.

    python benchmarks/bench_sensitivity.py                    # paper-sized, all four networks; the LSTM takes long
    python benchmarks/bench_sensitivity.py --models mlp --quick
    python benchmarks/bench_sensitivity.py --models mlp --explainers  # and SHAP, Captum, scikit-learn
    python benchmarks/bench_sensitivity.py --exact  # the exact map of single bins, and of a survey of 100,000 spectra

Prints one table from one run and writes it to benchmarks/results. Each network, and each peak of memory, is measured in
a process of its own.
Map and bare passes take turns, a tenth of the work at a time, so that a machine that is busy for a while slows both.
How many random repeats the exact map is worth is measured by benchmarks/quadrature.py.
"""

import argparse
import csv
import json
import multiprocessing
import os
import platform
import sys
import threading
import time
from datetime import date
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

import numpy as np  # noqa: E402

import sensitivity  # noqa: E402
from constants import NETWORKS  # noqa: E402
from data.workers import end_with_parent  # noqa: E402
from perturbation.predictors import probe_model  # noqa: E402
from runio.console import quiet_stderr  # noqa: E402

N_BINS, N_AMPS, TURNS = 52, 9, 10
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


def fastest_call(model, batch_size):
    """Find the quickest way to run the network: (name, function of n rows or more, rows per call)."""
    import tensorflow as tf

    graph = tf.function(lambda x: model(x, training=False), autograph=False)
    calls = {"predict_on_batch": model.predict_on_batch, "tf.function": lambda x: graph(tf.constant(x)).numpy()}
    best = None
    for rows in sorted({batch_size, 2048, 4096, 8192} if batch_size > 1000 else {batch_size}):
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


def new_network(name):
    """One of the four networks, untrained, that has been used once."""
    with quiet_stderr():
        import models
    network = models.build_model(name, N_BINS, N_AMPS)
    network.predict_on_batch(np.zeros((2, N_BINS, 1), np.float32))
    return network


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
    """Row for the exact map of single bins by the mlp, beside bare passes over as many rows.

    The best and the middle of ten turns, for what a busy machine does to them.
    """
    network = new_network("mlp")
    spectra, errors = make_problem(n_spectra)
    call_name, call, rows_per_call = fastest_call(network, probe_model(network, spectra[0]).batch_size)
    due = n_spectra * (1 + 4 * N_BINS)  # five nodes, the centre once
    mine, bare = [], []
    for turn in range(TURNS + 1):
        watch, bare_watch = Stopwatch(), Stopwatch()
        with watch:
            sensitivity_of(network, spectra, errors, 500, scheme="single", keep_spectra=False)
        with bare_watch:
            for _ in range(-(-due // rows_per_call)):
                call()
        if turn:  # the first takes memory and chooses kernels
            mine.append((watch.wall, watch.cpu))
            share = due / (-(-due // rows_per_call) * rows_per_call)
            bare.append((bare_watch.wall * share, bare_watch.cpu * share))
    mine, bare = np.array(mine), np.array(bare)
    ratio = np.median(mine / bare, axis=0)
    return {
        "work": f"{n_spectra} spectra, {due} rows",
        "best_s": f"{mine[:, 0].min():.3f}",
        "middle_s": f"{np.median(mine[:, 0]):.3f}",
        "cpu_s": f"{np.median(mine[:, 1]):.3f}",
        "bare_best_s": f"{bare[:, 0].min():.3f}",
        "bare_middle_s": f"{np.median(bare[:, 0]):.3f}",
        "ratio_of_best": f"{mine[:, 0].min() / bare[:, 0].min():.2f}",
        "middle_ratio": f"{ratio[0]:.2f}",
        "middle_cpu_ratio": f"{ratio[1]:.2f}",
        "bare_call": call_name,
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


def explain(n_spectra, repeat):
    """Rows for other explanations of the same mlp, with about as many network evaluations."""
    network = new_network("mlp")
    spectra, errors = make_problem(100)
    scaled = ((spectra - 0.01) / 0.002).astype(np.float32)
    chosen, evaluations = scaled[:n_spectra], repeat * len(sensitivity.halving_sizes(N_BINS))
    counted = [0]

    def predict(x):
        counted[0] += len(x)
        return network.predict_on_batch(np.asarray(x, np.float32)[:, :, None])

    predict(np.zeros((100, N_BINS)))

    def ours(x):
        sensitivity_of(predict, spectra[: len(x)], errors[: len(x)], repeat)

    def shap_permutation(x):
        import shap

        background = scaled[-10:]  # each evaluation averages over these rows
        explainer = shap.PermutationExplainer(predict, shap.maskers.Independent(background))
        explainer(x, max_evals=max(evaluations // len(background), 2 * N_BINS + 1), silent=True)

    def shap_sampling(x):
        import shap

        samples = evaluations // 2  # each takes two
        shap.SamplingExplainer(predict, scaled[-10:]).shap_values(x, nsamples=samples, silent=True)

    def torch_twin():
        import torch

        dense = [layer for layer in network.layers if layer.weights]
        stages = []
        for layer in dense:
            kernel, bias = layer.get_weights()
            linear = torch.nn.Linear(*kernel.shape)
            linear.weight.data, linear.bias.data = torch.from_numpy(kernel.T.copy()), torch.from_numpy(bias)
            stages += [linear, torch.nn.GELU()]
        twin = torch.nn.Sequential(*stages[:-1]).eval()
        np.testing.assert_allclose(twin(torch.from_numpy(chosen)).detach(), predict(chosen), atol=1e-4)

        def forward(x):
            counted[0] += len(x)
            with torch.no_grad():
                return twin(x)

        return torch, forward

    def captum(x, name):
        import captum.attr

        torch, forward = torch_twin()
        method = getattr(captum.attr, name)(forward)
        x = torch.from_numpy(x)
        passes = max(round(evaluations / (N_AMPS * (N_BINS + 1))), 1)
        for seed in range(passes):
            torch.manual_seed(seed)
            extra = {"baselines": x + torch.randn(x.shape) * 0.02} if name == "FeatureAblation" else {}
            for amp in range(N_AMPS):
                method.attribute(x, target=amp, **extra)

    def importance(x):
        from sklearn.base import BaseEstimator, RegressorMixin
        from sklearn.inspection import permutation_importance

        class Network(RegressorMixin, BaseEstimator):
            def fit(self, x, y):
                return self

            def predict(self, x):
                return predict(x)

        y = predict(x)
        permutation_importance(Network(), x, y, n_repeats=max(evaluations // N_BINS, 1), random_state=0)

    explanations = {
        "sensitivity map": (ours, "yes"),
        "shap PermutationExplainer": (shap_permutation, "no"),
        "shap SamplingExplainer": (shap_sampling, "no"),
        "captum FeatureAblation": (lambda x: captum(x, "FeatureAblation"), "no"),
        "captum FeaturePermutation": (lambda x: captum(x, "FeaturePermutation"), "no"),
        "sklearn permutation_importance": (importance, "over repeats; all AMPs in one score"),
    }
    for name, (function, error_bars) in explanations.items():
        watch = Stopwatch()
        try:
            function(chosen[:2])  # imports, and what is compiled on first use
            counted[0] = 0
            with PeakMemory() as memory, watch:
                function(chosen)
        except ImportError as error:
            print(f"{name}: skipped, {error.name} is not installed", file=sys.stderr)
            continue
        yield {
            "explanation": name,
            "seconds": round(watch.wall, 2),
            "evaluations": counted[0],
            "us_per_evaluation": round(1e6 * watch.wall / counted[0], 2),
            "added_MB": round(memory.added),
            "error_bars": error_bars,
        }


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


def explain_rows(n_spectra, repeat):
    """List of the rows of `explain`, for `isolated`."""
    return list(explain(n_spectra, repeat))


def processor():
    """Name of the processor, as Linux tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--spectra", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="10 spectra, 100 repeats")
    parser.add_argument("--explainers", action="store_true", help="a second table, against other explanations")
    parser.add_argument("--exact", action="store_true", help="the exact map of single bins by the mlp, nothing else")
    parser.add_argument("--survey", type=int, default=100_000, help="spectra of the survey of --exact")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    args = parser.parse_args()
    if args.quick:
        args.spectra, args.repeat = 10, 100
    if args.exact:
        note = (
            f"{date.today()}, {processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; mlp, {N_AMPS} AMPs"
        )
        print(note, flush=True)
        table = {"exact": [isolated(measure_exact, args.spectra)]}
        show(table["exact"])
        table["exact_survey"] = [isolated(survey_exact, n) for n in (args.survey // 10, args.survey)]
        show(table["exact_survey"])
        for name, rows in table.items():
            write(rows, args.output / f"{name}.csv", note)
        return
    work = f"{args.spectra} spectra, {args.repeat} repeats, {N_AMPS} AMPs"
    note = f"{date.today()}, {processor()}, {os.cpu_count()} cores; {work}"
    print(note, flush=True)
    rows = []
    for name in args.models:
        row = isolated(measure, name, args.spectra, args.repeat)
        row["added_MB"] = isolated(memory_added, name, args.repeat)
        row["added_MB_10x_repeats"] = isolated(memory_added, name, 10 * args.repeat)
        rows.append({key: form.format(row[key]).replace(",", "") for key, form in COLUMNS.items()})
        print(f"{name} done", file=sys.stderr)
    show(rows)
    suffix = "_quick" if args.quick else ""
    some = "" if set(args.models) == set(NETWORKS) else "_" + "_".join(args.models)
    write(rows, args.output / f"sensitivity{some}{suffix}.csv", note)
    if args.explainers:
        print()
        few = min(args.spectra, 10)
        others = isolated(explain_rows, few, args.repeat)
        show(others)
        note = note.replace(work, f"{few} spectra, mlp of {N_AMPS} AMPs")
        write(others, args.output / f"explainers{suffix}.csv", note)


if __name__ == "__main__":
    main()
