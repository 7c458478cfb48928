"""Does a network's skill go when the bins that an explanation puts first are taken away? Deletion curves.

    python -m studies.faithfulness RUN_DIR
    python -m studies.faithfulness RUN_DIR --shap    # also SHAP (needs the package shap)

Each explanation ranks the bins for each AMP, from some test planets and the same number of model evaluations. On other
test planets the first k bins are then corrupted, and R2 is measured again:

- planet: these bins jointly become those of another test planet's noisy spectrum (resampled within the data)
- conditional: these bins are drawn given the remaining ones, from a normal distribution with mean and covariance of
  the noisy training spectra, so that the spectrum stays one that the data could hold
- noise: these bins get ten times their error (what an observer loses when bins turn bad)

Explanations: the two schemes of the sensitivity test (single, halving), three un-mixings of the halving draws (closed:
`unmixed`; ols, wls: `unmixed_by_regression`), gradient x error, permutation importance, SHAP, and a random order. To
find out why one loses, variants: single with ten times the repeats, at noisy spectra, and with each bin's spread given
all other bins in place of its error; the gradient at noise-free spectra only.

The score is the area under the share of R2 lost, 1 - max(R2, 0) / R2(k=0), over log2(1 + k): 1 if the first bin takes
all skill, so larger is more faithful. Every seed draws planets, explanations and corruptions anew; the planets of one
seed are the same for all explanations. Also written, against a long single-bin map: Spearman correlation, and the
distance of the two maps as shares, sum |share - share| / 2: 0 for the same, above 1 where noise makes shares negative.
"""

import argparse
import csv
import sys
import time
from pathlib import Path

import numpy as np

from constants import Stream, stream
from studies.map_agreement import gradient_map, permutation_map, shap_map
from studies.map_scores import spearman
from studies.unmixing import cost_of_a_contrast, unmixed, unmixed_by_regression

COUNTS = (0, 1, 2, 4, 8, 16, 32, 52)
WORSE = 10.0  # corruption "noise": the error of a bin becomes this many times as large
BATCH = 8192


def load_network(folder, fold=0):
    """Model, scaler and the run itself, with the shipped data set and its test rows, of one network of a run.

    Raises
    ------
    ValueError
        If the run was not judged on the shipped test planets: its other rows may have trained the network.
    """
    from pipeline.network import TrainedNetwork
    from runio.results import load_run
    from studies.emulator import load_rows

    run = load_run(folder)
    data, _, test = load_rows(seed=run.seed)
    if run.y_test.shape != data.amps[test].shape or not np.allclose(run.y_test, data.amps[test]):
        raise ValueError(f"{folder}: expected a run on the shipped data set with the default test planets")
    network = TrainedNetwork.of_run(run, fold)
    return run, network.model, network.scaler, data, test


def ranking(values):
    """Bins of each AMP, largest first: (n_amps, n_bins) of integers."""
    return np.argsort(-np.asarray(values), axis=1, kind="stable")


def r2(predicted, true):
    """Coefficient of determination per AMP, (n_amps,), over the first axis."""
    return 1 - ((predicted - true) ** 2).sum(axis=0) / ((true - true.mean(axis=0)) ** 2).sum(axis=0)


def another_planet(spectra, draws, rng):
    """Corruption "planet": bins become those of another row of ``spectra`` (n, n_bins), ``draws`` times."""
    donors = np.stack([rng.permutation(len(spectra)) for _ in range(draws)])
    return lambda bins: spectra[donors][:, :, bins]


def worse_noise(spectra, errors, draws, rng, times=WORSE):
    """Corruption "noise": bins get ``times`` their error."""
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
    """R2 of each AMP after the first k bins of its ranking were replaced.

    Parameters
    ----------
    predict : callable
        (rows, n_bins) of transit depths to (rows, n_amps).
    spectra, amps : ndarray (n, n_bins) and (n, n_amps)
    order : ndarray (n_amps, n_bins)
        Ranking of the bins for each AMP.
    corrupt : callable
        Bins (k,) to the values that they take, (draws, n, k); R2 is over all draws together.
    draws : int
    counts : sequence of int
        Values of k.

    Returns
    -------
    ndarray (n_amps, len(counts))
    """
    truth = np.tile(amps, (draws, 1))
    curve = np.empty((len(order), len(counts)))
    for a, bins in enumerate(order):
        for c, k in enumerate(counts):
            moved = np.tile(spectra, (draws, 1, 1))
            if k:
                moved[:, :, bins[:k]] = corrupt(bins[:k])
            curve[a, c] = r2(predict(moved.reshape(-1, spectra.shape[1])), truth)[a]
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
    return float(np.abs(a / a.sum() - b / b.sum()).sum() / 2)


class Counted:
    """A way into the network for transit depths, in AMP units, that counts rows."""

    def __init__(self, model, scaler):
        self.model, self.scaler, self.rows = model, scaler, 0

    def __call__(self, spectra):
        """AMPs (n, n_amps) of transit depths (n, n_bins)."""
        self.rows += len(spectra)
        x = self.scaler.inputs(spectra)
        parts = [self.model.predict_on_batch(x[i : i + BATCH]) for i in range(0, len(x), BATCH)]
        return self.scaler.amps(np.concatenate(parts))


def single_map(model, scaler, spectra, errors, repeat, rng, scheme="single"):
    """Map of the sensitivity test in AMP units squared, (n_amps, n_bins)."""
    from sensitivity import sensitivity_map

    return sensitivity_map(
        model, None, spectra, errors, scaler.y_mean, scaler.y_std, no_spectra=None, repeat=repeat,
        x_mean=scaler.x_mean, x_std=scaler.x_std, rng=rng, scheme=scheme, nodes=None, keep_spectra=False,
    ).mean  # fmt: skip


def explanations(model, scaler, data, rows, background, spread, repeat, seed, with_shap):
    """Yield (name, map, evaluations): every explanation of the planets ``rows``, all for about the same evaluations.

    Gradients are counted as one pass forward and one back for each AMP. The equal number is what the single-bin
    scheme needs: planets x bins x ``repeat``. ``spread`` (n_bins,) is that of each bin given all others.
    """
    from perturbation.engine import halving_sizes

    rng = np.random.default_rng(stream(seed, Stream.STUDY_MAPS, 1))
    spectra, errors, amps = data.spectra[rows].astype(float), data.errors[rows].astype(float), data.amps[rows]
    n, n_bins, n_amps = *spectra.shape, amps.shape[1]
    budget = n * n_bins * repeat
    sizes = halving_sizes(n_bins)
    halving_repeat = budget // (n * len(sizes))
    noisy = spectra + errors * rng.standard_normal(spectra.shape)

    yield (
        "single",
        single_map(model, scaler, spectra, errors, repeat, stream(seed, Stream.STUDY_MAPS, 2)),
        n * (n_bins * repeat),
    )
    halving = single_map(model, scaler, spectra, errors, halving_repeat, stream(seed, Stream.STUDY_MAPS, 3), "halving")
    yield "halving", halving, n * len(sizes) * halving_repeat
    yield "halving, closed", unmixed(halving, sizes), n * len(sizes) * halving_repeat
    predict = Counted(model, scaler)
    for name, found in unmixed_by_regression(predict, spectra, errors, halving_repeat, rng).items():
        yield f"halving, {name}", found, predict.rows
    copies = max(round(budget / (n * (1 + n_amps))), 1)
    many, scale = np.tile(spectra, (copies, 1)), np.tile(errors, (copies, 1))
    drawn = many + scale * rng.standard_normal(many.shape)
    yield "gradient", gradient_map(model, scaler, drawn, scale), len(many) * (1 + n_amps)
    predict = Counted(model, scaler)
    yield "permutation", permutation_map(predict, noisy, amps, repeat, stream(seed, Stream.STUDY_MAPS, 4)), predict.rows
    if with_shap:
        samples = max(round(budget / (n * 2 * n_amps)), 1)
        yield "shap", shap_map(model, scaler, noisy, data.spectra[background], samples), n * 2 * n_amps * samples
    yield "random", rng.random((n_amps, n_bins)), 0
    yield (
        "single x 10",
        single_map(model, scaler, spectra, errors, 10 * repeat, stream(seed, Stream.STUDY_MAPS, 5)),
        10 * budget,
    )
    yield "single, noisy", single_map(model, scaler, noisy, errors, repeat, stream(seed, Stream.STUDY_MAPS, 6)), budget
    yield (
        "single, spread",
        single_map(model, scaler, spectra, spread + 0 * errors, repeat, stream(seed, Stream.STUDY_MAPS, 7)),
        budget,
    )
    yield "gradient, clean", gradient_map(model, scaler, spectra, errors), n * (1 + n_amps)


def run_seed(model, scaler, data, test, seed, arguments, reference):
    """Rows of the curves and of the summary for one seed."""
    rng = np.random.default_rng(stream(seed, Stream.CORRUPTION))
    shuffled = rng.permutation(test)
    explained, others = shuffled[: arguments.planets], shuffled[arguments.planets :]
    judged, background = others[: arguments.judged], others[arguments.judged : arguments.judged + 100]

    spectra, errors, amps = data.spectra[judged].astype(float), data.errors[judged].astype(float), data.amps[judged]
    noisy = spectra + errors * rng.standard_normal(spectra.shape)
    training = np.setdiff1d(np.arange(len(data.spectra)), test)
    training = data.spectra[training] + data.errors[training] * rng.standard_normal((len(training), spectra.shape[1]))
    spread = 1 / np.sqrt(np.diag(np.linalg.inv(np.cov(training, rowvar=False))))
    corruptions = {
        "planet": another_planet(noisy, arguments.draws, rng),
        "conditional": given_the_rest(noisy, training, arguments.draws, rng),
        "noise": worse_noise(noisy, errors, arguments.draws, rng),
    }
    predict = Counted(model, scaler)
    curves, summary = [], []
    start = time.perf_counter()
    for name, found, evaluations in explanations(
        model, scaler, data, explained, background, spread, arguments.repeat, seed, arguments.shap
    ):
        seconds = time.perf_counter() - start
        agreement = [(spearman(a, b), share_distance(a, b)) for a, b in zip(found, reference)]
        for corruption, corrupt in corruptions.items():
            curve = deletion_curve(predict, noisy, amps, ranking(found), corrupt, arguments.draws)
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


def averaged(summary, key, *by):
    """{values of ``by``: (mean over AMPs and seeds, its standard error over seeds)}."""
    kept = {}
    for row in summary:
        kept.setdefault(tuple(row[b] for b in by), {}).setdefault(row["seed"], []).append(row[key])
    found = {}
    for what, seeds in kept.items():
        means = np.array([np.mean(values) for values in seeds.values()])
        error = means.std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else np.nan
        found[what] = float(means.mean()), float(error)
    return found


def over_seeds(curves):
    """Rows of the deletion curves, mean over seeds with its standard error."""
    by = ("explanation", "corruption", "amp", "k")
    found = averaged(curves, "r2", *by)
    return [dict(zip(by, what)) | {"r2": f"{m:.4f}", "r2_error": f"{e:.4f}"} for what, (m, e) in found.items()]


def differences(summary, corruption, base="single"):
    """{explanation: (area minus that of ``base``, its standard error over seeds)}, mean over AMPs, seed by seed."""
    part = [row for row in summary if row["corruption"] == corruption]
    areas = {(row["explanation"], row["seed"], row["amp"]): float(row["area"]) for row in part}
    less = [r | {"less": areas[r["explanation"], r["seed"], r["amp"]] - areas[base, r["seed"], r["amp"]]} for r in part]
    return averaged(less, "less", "explanation")


def text_table(summary, corruption, names):
    """Lines of text: a row per explanation, a column per AMP, then the mean with its error over seeds."""
    part = [row for row in summary if row["corruption"] == corruption]
    kept = [averaged(part, key, "explanation") for key in ("area", "spearman_single", "share_distance")]
    kept.insert(1, differences(summary, corruption))
    each = averaged(part, "area", "explanation", "amp")
    yield (
        f"{corruption:15s} "
        + " ".join(f"{name:>7s}" for name in names)
        + f" {'mean':>15s} {'minus single':>15s} {'Spearman':>15s} {'shares':>15s}"
    )
    for what in dict.fromkeys(row["explanation"] for row in part):
        cells = " ".join(f"{each[what, name][0]:7.3f}" for name in names)
        yield f"{what:15s} {cells} " + " ".join("{:7.3f} ± {:.3f}".format(*t[what,]) for t in kept)


def write(path, rows):
    """Write rows as CSV, whole or not at all."""
    from runio.files import written_whole

    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as part, open(part, "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN_DIR", type=Path)
    parser.add_argument("--planets", type=int, default=100, help="test planets explained (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=20, help="of the single-bin scheme; sets the evaluations of all")
    parser.add_argument("--judged", type=int, default=500, help="other test planets (default %(default)s)")
    parser.add_argument("--draws", type=int, default=3, help="corruptions of each planet (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shap", action="store_true", help="also SHAP values (needs the package shap)")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results", metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="10 planets, 2 repeats, 2 seeds, nothing written")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.planets, arguments.repeat, arguments.judged, arguments.seeds = 10, 2, 50, 2
    try:
        _, model, scaler, data, test = load_network(arguments.run)
    except ValueError as error:
        parser.exit(2, f"faithfulness.py: {error}\n")

    n = 10 * arguments.planets if not arguments.quick else 20
    long = np.random.default_rng(stream(0, Stream.STUDY_PLANETS, 1)).permutation(test)[:n]
    reference = single_map(
        model, scaler, data.spectra[long], data.errors[long].astype(float), 40, stream(0, Stream.STUDY_MAPS, 8)
    )
    curves, summary = [], []
    for seed in range(arguments.seeds):
        more = run_seed(model, scaler, data, test, seed, arguments, reference)
        curves, summary = curves + more[0], summary + more[1]
        print(f"seed {seed} done", file=sys.stderr, flush=True)
    for corruption in dict.fromkeys(row["corruption"] for row in summary):
        print(*text_table(summary, corruption, data.amp_names), "", sep="\n")
    for name, value in averaged(summary, "evaluations", "explanation").items():
        seconds = averaged(summary, "seconds", "explanation")[name][0]
        print(f"{name[0]:15s} {value[0]:10,.0f} evaluations {seconds:8.2f} s")
    from perturbation.engine import halving_sizes

    print("evaluations for equal effects, single = 1:", cost_of_a_contrast(halving_sizes(reference.shape[1])))
    if not arguments.quick:
        write(arguments.out / "faithfulness_curves.csv", over_seeds(curves))
        write(arguments.out / "faithfulness.csv", summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
