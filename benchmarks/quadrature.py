"""How accurate the exact map is for how many evaluations, and how often its error bar covers the truth.

    python runfile.py --model mlp --output runs/mlp --no-sensitivity       # and cnn, hybrid, lstm
    python -m benchmarks.quadrature runs/mlp runs/cnn runs/hybrid runs/lstm

Measured around noisy spectra of the test set on the networks given, on a random forest trained here on the same data,
and on a function of steps. The truth is 41 nodes ("spline"), for the forest and the steps 200 ("midpoints").
Writes benchmarks/results/quadrature.csv. Its columns:

- error_percent: sum of |map - truth| over the bins, over the sum of the truth; mean over AMPs.
- covered, covered_twice: share of the cells of the map whose truth is within one, two ``quadrature_error``; cells of
  which the truth is zero are left out.
- bar_over_error: sum of ``quadrature_error`` over the sum of the true errors.
- random_repeats: repeats with the same error, from the error of 50 repeats, which falls as their square root.
- factor: those repeats over the evaluations for each bin.
"""

import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

import loaders
import sensitivity
from benchmarks.measuring import RESULTS, SHIPPED, benchmark_parser, show, write
from perturbation.quadrature import make_rule
from pipeline.network import TrainedNetwork
from runio.results import load_run

RULES = (("hermite", 3), ("hermite", 5), ("hermite", 9), ("spline", 5), ("spline", 9), ("midpoints", 10),
         ("midpoints", 20))  # fmt: skip
REPEATS, SEEDS = 50, 3
FOREST_ROWS = 3500


def noisy_tests(data, rows, n):
    """Return n spectra of these rows with their noise, and their errors, both (n, n_bins)."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(rows)[:n]
    return data.spectra[rows] + data.errors[rows] * rng.standard_normal(data.errors[rows].shape), data.errors[rows]


def of_network(folder, data, n):
    """Return function(**options) of the map of a trained network, around spectra that it was not trained on."""
    network, run = TrainedNetwork.load(folder), load_run(folder)
    spectra, errors = noisy_tests(data, run.test_rows, n)
    return lambda **options: network.sensitivity(spectra, errors, scheme="single", keep_spectra=False, **options)


def of_function(function, spectra, errors, scale=1.0):
    """Return function(**options) of the map of a function from (rows, n_bins) to (rows, n_AMPs)."""
    n_amps = function(spectra[:1] / scale).shape[1]
    return lambda **options: sensitivity.sensitivity_map(
        function, None, spectra, errors, np.zeros(n_amps), np.ones(n_amps), no_spectra=None, x_mean=0.0, x_std=scale,
        scheme="single", keep_spectra=False, input_layout="flat", **options,
    )  # fmt: skip


def of_forest(data, n):
    """Random forest of 100 trees on noisy spectra, scaled AMPs."""
    from sklearn.ensemble import RandomForestRegressor

    spectra, _ = noisy_tests(data, np.arange(FOREST_ROWS), FOREST_ROWS)
    rows = np.random.default_rng(0).permutation(FOREST_ROWS)  # the order of noisy_tests
    amps, scale = data.amps[rows], spectra.std()
    forest = RandomForestRegressor(100, min_samples_leaf=2, max_features=0.33, random_state=0, n_jobs=-1)
    forest.fit(spectra / scale, (amps - amps.mean(axis=0)) / amps.std(axis=0))
    forest.set_params(n_jobs=1)
    return of_function(forest.predict, *noisy_tests(data, np.arange(FOREST_ROWS, len(data.amps)), n), scale)


def of_steps(n, n_bins=52, n_amps=9):
    """Every AMP steps once along every bin, within three standard errors of zero."""
    rng = np.random.default_rng(0)
    where, height = rng.uniform(-3, 3, n_bins), rng.uniform(0.5, 1.5, (n_bins, n_amps))
    spectra = rng.normal(0, 0.3, (n, n_bins))
    return of_function(lambda x: (x > where) @ height, spectra, np.ones((n, n_bins)))


def distance(found, truth):
    """Sum of the absolute differences of a row over the sum of the row, mean over rows."""
    return np.mean(np.abs(found - truth).sum(axis=1) / truth.sum(axis=1))


def rows_of(name, compute, truth):
    """Rows of the table for one model: `compute` returns its map, ``truth`` are nodes and rule of the true one."""
    truth = compute(nodes=truth[0], rule=truth[1]).mean
    shown = truth > 0
    drawn = np.mean([distance(compute(nodes=None, repeat=REPEATS, rng=k).mean, truth) for k in range(SEEDS)])
    yield {"model": name, "rule": f"random, {REPEATS} repeats", "evaluations": REPEATS,
           "error_percent": f"{100 * drawn:.2f}"}  # fmt: skip
    for rule, nodes in RULES:
        result = compute(nodes=nodes, rule=rule)
        error, bar = np.abs(result.mean - truth)[shown], result.quadrature_error[shown]
        evaluations, near = len(make_rule(rule, nodes).nodes), distance(result.mean, truth)
        repeats = REPEATS * (drawn / near) ** 2
        yield {
            "model": name,
            "rule": f"{rule}, {nodes} nodes",
            "evaluations": evaluations,
            "error_percent": f"{100 * near:.2f}",
            "covered": f"{np.mean(error <= bar):.2f}",
            "covered_twice": f"{np.mean(error <= 2 * bar):.2f}",
            "bar_over_error": f"{bar.sum() / error.sum():.1f}",
            "random_repeats": f"{repeats:.0f}",
            "factor": f"{repeats / evaluations:.1f}",
        }


def main():
    parser = benchmark_parser("quadrature", __doc__)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of finished runs")
    parser.add_argument("--data", type=Path, default=SHIPPED)
    parser.add_argument("--spectra", type=int, default=16)
    parser.add_argument("--note", default="", help="how the networks were trained, for the head of the table")
    parser.add_argument("--output", type=Path, default=RESULTS / "quadrature.csv")
    args = parser.parse_args()
    data = loaders.load_dataset(args.data)
    models = {folder.name: (lambda folder=folder: of_network(folder, data, args.spectra)) for folder in args.runs}
    models |= {"forest": lambda: of_forest(data, args.spectra), "steps": lambda: of_steps(args.spectra)}
    rows = []
    for name, make in models.items():
        start = time.perf_counter()
        rows += rows_of(name, make(), (200, "midpoints") if name in ("forest", "steps") else (41, "spline"))
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    show(rows)
    write(rows, args.output, f"{date.today()}, {args.spectra} noisy spectra, data set of {len(data.amps)}; {args.note}")


if __name__ == "__main__":
    main()
