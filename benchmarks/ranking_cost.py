"""What a ranking of the bins costs: evaluations and seconds until it agrees with the method's own long run.

    python -m benchmarks.ranking_cost RUN_DIR      # a network trained on the shipped data set, without further inputs

Each explanation gets twice the budget until the Spearman correlation with its own long run, mean over AMPs, is 0.99:
the exact map of single bins, the same by random repeats, scikit-learn's permutation importance, SHAP's sampling (the
first spectra are its background) and Captum's feature permutation, the last three where they are installed. They rank
different things, so each is compared with its own long run. A budget is doubled seven times at most, and the table says
where that was not enough. Prints a table and writes benchmarks/results/ranking_cost.csv.
"""

import os
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

from benchmarks.measuring import RESULTS, SHIPPED, as_estimator, benchmark_parser, write
from common.metrics import spearman
from loaders import load_dataset
from pipeline.network import TrainedNetwork
from sensitivity import sensitivity_map

WANTED = 0.99  # rank correlation
MAX_DOUBLINGS = 8


def until_it_ranks(run_dir, n_spectra):
    """Rows: evaluations and seconds of each explanation until its ranking is that of its own limit."""
    network = TrainedNetwork.load(run_dir)
    data = load_dataset(SHIPPED)
    spectra, errors = (x[-n_spectra:].astype(float) for x in (data.spectra, data.errors))
    x = network.scaler.inputs(spectra)[..., 0]
    counted = [0]

    def predict(rows):
        counted[0] += len(rows)
        return network.model.predict_on_batch(np.asarray(rows, np.float32)[:, :, None])

    def ours(**options):
        scaler = network.scaler
        return sensitivity_map(
            predict, None, spectra, errors, scaler.y_mean, scaler.y_std, no_spectra=None, x_mean=scaler.x_mean,
            x_std=scaler.x_std, scheme="single", keep_spectra=False, **options,
        ).mean  # fmt: skip

    predict(x[:2])
    methods = {
        "exact map": (lambda k: ours(nodes=(3, 5, 9, 13)[k]), lambda: ours(nodes=41)),
        "random repeats": (lambda k: ours(nodes=None, repeat=2 ** (k + 1), rng=k), lambda: ours(nodes=41)),
        "sklearn permutation_importance": (
            lambda k: permutation_importance(predict, x, 2**k, k), lambda: permutation_importance(predict, x, 128, 99)
        ),
        "shap SamplingExplainer": (
            lambda k: shap_sampling(predict, x, 104 * 2**k, k), lambda: shap_sampling(predict, x, 104 * 32, 99)
        ),
        "captum FeaturePermutation": (
            lambda k: captum_permutation(predict, x, 2**k, k), lambda: captum_permutation(predict, x, 64, 99)
        ),
    }  # fmt: skip
    for name, (at_budget, at_limit) in methods.items():
        try:
            limit = at_limit()
        except ImportError as error:
            print(f"{name}: skipped, {error.name} is not installed", file=sys.stderr)
            continue
        yield cheapest(name, at_budget, limit, counted)


def cheapest(name, at_budget, limit, counted):
    """Raise the budget until the ranking is that of the limit; return the row of the first budget that reaches it."""
    for k in range(MAX_DOUBLINGS):
        counted[0], start = 0, time.perf_counter()
        try:
            maps = at_budget(k)
        except IndexError:  # no greater budget
            break
        seconds = time.perf_counter() - start
        reached = spearman(maps, limit).mean()
        if reached >= WANTED:
            break
    return {
        "explanation": name, "spearman": f"{reached:.4f}", "reached": reached >= WANTED, "evaluations": counted[0],
        "seconds": f"{seconds:.2f}",
    }  # fmt: skip


def permutation_importance(predict, x, n_repeats, seed):
    """scikit-learn's importance of each bin for each AMP: rise of the squared distance to the network's own answer."""
    from sklearn.inspection import permutation_importance as importance

    y = predict(x)

    def of_each_amp(estimator, x, y):
        return dict(enumerate(-np.mean((estimator.predict(x) - y) ** 2, axis=0)))

    found = importance(as_estimator(predict), x, y, n_repeats=n_repeats, random_state=seed, scoring=of_each_amp)
    return np.stack([found[k].importances_mean for k in range(y.shape[1])])


def captum_permutation(predict, x, n_repeats, seed):
    """Captum's mean size of the change of each AMP when a bin is shuffled among the spectra, (n_AMPs, n_bins)."""
    import torch
    from captum.attr import FeaturePermutation

    torch.manual_seed(seed)
    explainer = FeaturePermutation(lambda rows: torch.from_numpy(predict(rows.numpy())))
    spectra, n_amps = torch.from_numpy(x), predict(x[:1]).shape[1]
    changes = [
        explainer.attribute(spectra, target=amp, perturbations_per_eval=x.shape[1]).abs().mean(dim=0).numpy()
        for _ in range(n_repeats)
        for amp in range(n_amps)
    ]
    return np.reshape(changes, (n_repeats, n_amps, -1)).mean(axis=0)


def shap_sampling(predict, x, n_samples, seed):
    """Mean size of SHAP's sampled values over the spectra, (n_AMPs, n_bins)."""
    import shap

    np.random.seed(seed)  # noqa: NPY002 - the explainer draws from the global state
    values = np.asarray(shap.SamplingExplainer(predict, x[:10]).shap_values(x, nsamples=n_samples, silent=True))
    return np.abs(values).mean(axis=0).T


def main():
    parser = benchmark_parser("ranking_cost", __doc__)
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("--spectra", type=int, default=20)
    parser.add_argument("--output", type=Path, default=RESULTS / "ranking_cost.csv")
    arguments = parser.parse_args()
    note = f"{date.today()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {arguments.spectra} spectra"
    rows = []
    for row in until_it_ranks(arguments.run, arguments.spectra):
        print(*(f"{key}: {value};" for key, value in row.items()), flush=True)
        rows.append(row)
        write(rows, arguments.output, note)


if __name__ == "__main__":
    main()
