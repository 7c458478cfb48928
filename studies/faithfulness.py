"""Does a network's skill vanish when the bins that an explanation ranks first are corrupted? Deletion curves.

    python -m studies.faithfulness RUN_DIR
    python -m studies.faithfulness RUN_DIR --shap    # also SHAP (needs the package shap)

Each explanation ranks the bins for each AMP, from some test planets and the same number of evaluations. On other test
planets the first k bins are then corrupted, and R2 is measured again:

- planet: the bins together become those of another test planet's noisy spectrum
- conditional: the bins are drawn given the remaining ones, from a normal distribution with mean and covariance of the
  noisy training spectra, so that the spectrum stays plausible
- noise: the bins get ten times their error (what an observer loses when bins turn bad)

Explanations: the two schemes of the sensitivity test (single, halving), three ways to remove the floor of halving
(closed: `unmixed`; ols, wls: `unmixed_by_regression`), gradient x error, permutation importance, SHAP, and a random
order. Variants show what matters: single bins with ten times the repeats, at noisy spectra, and with each bin's spread
given all other bins in place of its error; the gradient at noise-free spectra.

The score is the area under the share of R2 lost, 1 - max(R2, 0) / R2(k=0), over log2(1 + k): 1 if the first bin takes
all skill, so larger is more faithful. Every seed draws planets, explanations and corruptions anew; within a seed all
explanations share the planets. Also written, against a long single-bin map: rank correlation, and the distance of the
two maps as shares, sum |share - share| / 2.
"""

import sys
import time
from pathlib import Path

import numpy as np

from common.metrics import r2, shares, spearman
from constants import Stream, stream
from studies.command import RESULTS, study_parser
from studies.map_agreement import gradient_map, permutation_map, shap_map
from studies.tables import data_frame, mean_over_seeds, with_error, write_csv
from studies.unmixing import cost_of_a_contrast, unmixed, unmixed_by_regression

COUNTS = (0, 1, 2, 4, 8, 16, 32, 52)
WORSE = 10.0  # corruption "noise": the error of a bin becomes this many times as large


def load_network(folder, fold=0):
    """Return a network of a run on the shipped test planets, the shipped data set and its test rows; else
    ValueError.
    """
    from pipeline.network import TrainedNetwork
    from runio.results import load_run
    from studies.emulator import load_rows

    run = load_run(folder)
    data, _, test = load_rows(seed=run.seed)
    if run.y_test.shape != data.amps[test].shape or not np.allclose(run.y_test, data.amps[test]):
        raise ValueError(f"{folder}: expected a run on the shipped data set with the default test planets")
    return TrainedNetwork.of_run(run, fold), data, test


def ranking(values):
    """Bins of each AMP, largest first: (n_amps, n_bins) of integers."""
    return np.argsort(-np.asarray(values), axis=1, kind="stable")


def another_planet(spectra, draws, rng):
    """Corruption "planet": bins become those of another row of ``spectra`` (n, n_bins), ``draws`` times."""
    donors = np.stack([rng.permutation(len(spectra)) for _ in range(draws)])
    return lambda bins: spectra[donors][:, :, bins]


def worse_noise(spectra, errors, draws, rng, times=WORSE):
    """Corruption "noise": the errors of the bins become ``times`` as large."""
    worse = spectra + np.sqrt(times**2 - 1) * errors * rng.standard_normal((draws, *spectra.shape))
    return lambda bins: worse[:, :, bins]


def given_the_rest(spectra, training, draws, rng):
    """Corruption "conditional": bins are drawn given all others, as in a normal fit to ``training`` (m, n_bins)."""
    mean, covariance = training.mean(axis=0), np.cov(training, rowvar=False)
    normals = rng.standard_normal((draws, *spectra.shape))

    def draw(bins):
        rest = np.setdiff1d(np.arange(len(mean)), bins)
        slope = np.linalg.solve(covariance[np.ix_(rest, rest)], covariance[np.ix_(rest, bins)])
        left = covariance[np.ix_(bins, bins)] - covariance[np.ix_(bins, rest)] @ slope
        values, vectors = np.linalg.eigh(left)
        root = vectors * np.sqrt(np.maximum(values, 0))
        return mean[bins] + (spectra[:, rest] - mean[rest]) @ slope + normals[:, :, bins] @ root.T

    return draw


def deletion_curve(predict, spectra, amps, order, corrupt, draws, counts=COUNTS):
    """R2 of each AMP after the first ``counts`` bins of its ranking ``order`` were corrupted, (n_amps, len(counts)).

    ``corrupt`` maps bins (k,) to their values (draws, n, k); R2 is over all draws together.
    """
    truth = np.tile(amps, (draws, 1))
    curve = np.empty((len(order), len(counts)))
    for a, bins in enumerate(order):
        moved = np.tile(spectra, (len(counts), draws, 1, 1))  # (n_counts, draws, n, n_bins)
        for c, k in enumerate(counts):
            if k:
                moved[c][:, :, bins[:k]] = corrupt(bins[:k])
        predictions = predict(moved.reshape(-1, spectra.shape[1])).reshape(len(counts), len(truth), -1)
        curve[a] = [r2(truth[:, a], prediction[:, a]) for prediction in predictions]
    return curve


def share_lost(curve):
    """Share of R2 that is gone at each k, 0 to 1: (n_amps, n_counts) of R2 whose first column is k = 0."""
    return np.clip(1 - np.maximum(curve, 0) / curve[:, :1], 0, 1)


def area(curve, counts=COUNTS):
    """Area under the share of R2 lost over log2(1 + k), from 0 to 1, per AMP."""
    from scipy.integrate import trapezoid

    position = np.log2(1 + np.asarray(counts, float))
    return trapezoid(share_lost(curve), position / position[-1], axis=1)


def share_distance(a, b):
    """Half the sum of the absolute differences of two maps (n_bins,), each as shares of its sum."""
    return float(np.abs(shares(a) - shares(b)).sum() / 2)


class CountedNetwork:
    """Predictions of a `pipeline.network.TrainedNetwork` for transit depths; counts the spectra."""

    def __init__(self, network):
        self.network, self.spectra = network, 0

    def __call__(self, spectra):
        """AMPs (n, n_amps) of transit depths (n, n_bins)."""
        self.spectra += len(spectra)
        return self.network.predict(spectra)


def explanations(network, data, rows, background, spread, repeat, seed, with_shap):
    """Yield (name, map, evaluations) of every explanation of the planets ``rows``, at about equal evaluations.

    A gradient counts as one pass forward and one back for each AMP. ``spread`` (n_bins,) is that of each bin given all
    others.
    """
    from perturbation.engine import halving_sizes

    rng = np.random.default_rng(stream(seed, Stream.STUDY_MAPS, 1))
    spectra, errors, amps = data.spectra[rows].astype(float), data.errors[rows].astype(float), data.amps[rows]
    n, n_bins, n_amps = *spectra.shape, amps.shape[1]
    budget = n * n_bins * repeat
    sizes = halving_sizes(n_bins)
    halving_repeat = budget // (n * len(sizes))
    noisy = spectra + errors * rng.standard_normal(spectra.shape)

    def perturbed(x, errors, repeat, number, scheme="single"):
        draws = {"nodes": None, "repeat": repeat, "rng": stream(seed, Stream.STUDY_MAPS, number)}
        return network.sensitivity(x, errors, scheme=scheme, keep_spectra=False, **draws).mean

    yield "single", perturbed(spectra, errors, repeat, 2), n * (n_bins * repeat)
    halving = perturbed(spectra, errors, halving_repeat, 3, "halving")
    yield "halving", halving, n * len(sizes) * halving_repeat
    yield "halving, closed", unmixed(halving, sizes), n * len(sizes) * halving_repeat
    predict = CountedNetwork(network)
    for name, effects in unmixed_by_regression(predict, spectra, errors, halving_repeat, rng).items():
        yield f"halving, {name}", effects, predict.spectra
    copies = max(round(budget / (n * (1 + n_amps))), 1)
    many, scale = np.tile(spectra, (copies, 1)), np.tile(errors, (copies, 1))
    drawn = many + scale * rng.standard_normal(many.shape)
    yield "gradient", gradient_map(network, drawn, scale), len(many) * (1 + n_amps)
    predict = CountedNetwork(network)
    yield (
        "permutation",
        permutation_map(predict, noisy, amps, repeat, stream(seed, Stream.STUDY_MAPS, 4)),
        predict.spectra,
    )
    if with_shap:
        samples = max(round(budget / (n * 2 * n_amps)), 1)
        yield "shap", shap_map(network, noisy, data.spectra[background], samples), n * 2 * n_amps * samples
    yield "random", rng.random((n_amps, n_bins)), 0
    yield "single x 10", perturbed(spectra, errors, 10 * repeat, 5), 10 * budget
    yield "single, noisy", perturbed(noisy, errors, repeat, 6), budget
    yield "single, spread", perturbed(spectra, spread + 0 * errors, repeat, 7), budget
    yield "gradient, clean", gradient_map(network, spectra, errors), n * (1 + n_amps)


def run_seed(network, data, test, seed, arguments, reference):
    """Rows of the curves and of the summary for one seed."""
    rng = np.random.default_rng(stream(seed, Stream.CORRUPTION))
    shuffled = rng.permutation(test)
    explained, others = shuffled[: arguments.planets], shuffled[arguments.planets :]
    scored, background = others[: arguments.others], others[arguments.others : arguments.others + 100]

    spectra, errors, amps = data.spectra[scored].astype(float), data.errors[scored].astype(float), data.amps[scored]
    noisy = spectra + errors * rng.standard_normal(spectra.shape)
    training = np.setdiff1d(np.arange(len(data.spectra)), test)
    training = data.spectra[training] + data.errors[training] * rng.standard_normal((len(training), spectra.shape[1]))
    spread = 1 / np.sqrt(np.diag(np.linalg.inv(np.cov(training, rowvar=False))))
    corruptions = {
        "planet": another_planet(noisy, arguments.draws, rng),
        "conditional": given_the_rest(noisy, training, arguments.draws, rng),
        "noise": worse_noise(noisy, errors, arguments.draws, rng),
    }
    curves, summary = [], []
    start = time.perf_counter()
    for name, values, evaluations in explanations(
        network, data, explained, background, spread, arguments.repeat, seed, arguments.shap
    ):
        seconds = time.perf_counter() - start
        agreement = [(spearman(a, b), share_distance(a, b)) for a, b in zip(values, reference)]
        for corruption, corrupt in corruptions.items():
            curve = deletion_curve(network.predict, noisy, amps, ranking(values), corrupt, arguments.draws)
            for a, amp in enumerate(data.amp_names):
                what = {"explanation": name, "corruption": corruption, "amp": amp, "seed": seed}
                curves += [what | {"k": k, "r2": round(v, 5)} for k, v in zip(COUNTS, curve[a].tolist())]
                summary.append(
                    what
                    | {"area": round(float(area(curve)[a]), 5), "spearman_single": round(agreement[a][0], 4)}
                    | {"share_distance": round(agreement[a][1], 4)}
                    | {"evaluations": evaluations, "seconds": round(seconds, 2)}
                )
        start = time.perf_counter()
    return curves, summary


def over_seeds(curves):
    """Return the deletion curves, mean over seeds with its standard error: rows of explanation, corruption, AMP, k."""
    means = mean_over_seeds(curves, "r2", ["explanation", "corruption", "amp", "k"])
    return means.rename(columns={"mean": "r2", "error": "r2_error"}).reset_index()


def differences(summary, base="single"):
    """Area minus that of ``base``, seed by seed: mean over AMPs and seeds and its standard error, per explanation."""
    each = summary.groupby(["explanation", "seed"], sort=False)["area"].mean()
    less = each.sub(each[base], level="seed").rename("less").reset_index()
    return mean_over_seeds(less, "less", "explanation")


def text_table(summary, corruption):
    """Table to print: a row per explanation, a column per AMP, then the mean with its error over seeds."""
    part = summary[summary["corruption"] == corruption]
    table = part.pivot_table("area", "explanation", "amp", sort=False).map("{:.3f}".format)
    table["mean"] = with_error(mean_over_seeds(part, "area", "explanation"), 3)
    table["minus single"] = with_error(differences(part), 3)
    table["Spearman"] = with_error(mean_over_seeds(part, "spearman_single", "explanation"), 3)
    table["shares"] = with_error(mean_over_seeds(part, "share_distance", "explanation"), 3)
    return table.rename_axis(index=None, columns=corruption).to_string()


def main():
    parser = study_parser("faithfulness", __doc__)
    parser.add_argument("run", metavar="RUN_DIR", type=Path)
    parser.add_argument("--planets", type=int, default=100, help="test planets explained (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=20, help="of the single-bin scheme; sets the evaluations of all")
    parser.add_argument("--others", type=int, default=500, help="other test planets (default %(default)s)")
    parser.add_argument("--draws", type=int, default=3, help="corruptions of each planet (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shap", action="store_true", help="also SHAP values (needs the package shap)")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="10 planets, 2 repeats, 2 seeds, nothing written")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.planets, arguments.repeat, arguments.others, arguments.seeds = 10, 2, 50, 2
    try:
        network, data, test = load_network(arguments.run)
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")

    n = 10 * arguments.planets if not arguments.quick else 20
    rows = np.random.default_rng(stream(0, Stream.STUDY_PLANETS, 1)).permutation(test)[:n]
    spectra, errors = data.spectra[rows].astype(float), data.errors[rows].astype(float)
    draws = {"nodes": None, "repeat": 40, "rng": stream(0, Stream.STUDY_MAPS, 8)}
    reference = network.sensitivity(spectra, errors, scheme="single", keep_spectra=False, **draws).mean
    curves, summary = [], []
    for seed in range(arguments.seeds):
        more = run_seed(network, data, test, seed, arguments, reference)
        curves, summary = curves + more[0], summary + more[1]
        print(f"seed {seed} done", file=sys.stderr, flush=True)
    curves, summary = data_frame(curves), data_frame(summary)
    for corruption in summary["corruption"].unique():
        print(text_table(summary, corruption), end="\n\n")
    print(summary.groupby("explanation", sort=False)[["evaluations", "seconds"]].mean().round(2).to_string())
    from perturbation.engine import halving_sizes

    print("evaluations for equal effects, single = 1:", cost_of_a_contrast(halving_sizes(reference.shape[1])))
    if not arguments.quick:
        write_csv(arguments.out / "faithfulness_curves.csv", over_seeds(curves), "%.4f")
        write_csv(arguments.out / "faithfulness.csv", summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
