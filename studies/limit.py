"""How far above the limit is a network? R2 beside squared error / limit, per AMP.

    python -m studies.limit RUN_DIR [RUN_DIR ...]

No estimator of an AMP can have a smaller mean squared error over the prior than the mean posterior variance, which the
posterior mean reaches. Two limits are printed (`data/information.h5`):

- Laplace: the mean squared error of the run over the mean Laplace variance from TauREx Jacobians, on the same planets.
  Its Gaussian prior of the same variance knows less than the uniform prior with its edges, and the posteriors are not
  Gaussian, so the ratio can be below 1.
- sampler: 1 + mean((prediction - posterior mean)^2) / mean(posterior variance), spectrum by spectrum. In expectation
  this is mean squared error / limit, because the error of the posterior mean is uncorrelated with anything computed
  from the spectrum, but it lacks the scatter of the true AMPs about the posterior means. The direct ratio,
  mean((prediction - truth)^2) / mean((posterior mean - truth)^2), is printed too.

Error bars are bootstrap over spectra. Each network is scored by itself and the folds are averaged, unless --ensemble is
given.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from report.best_estimator import ratio_with_error
from studies.command import INFORMATION, study_parser


@dataclass(frozen=True)
class LimitRatio:
    """R2 and squared error / limit of a run with bootstrap errors, (n_amps,) each; sampler and direct are None where
    not sampled.
    """

    amp_names: tuple
    r2: np.ndarray
    laplace: np.ndarray
    laplace_error: np.ndarray
    sampler: np.ndarray | None
    sampler_error: np.ndarray | None
    direct: np.ndarray | None
    direct_error: np.ndarray | None
    n_laplace: int
    n_sampler: int


def limit_ratio(run_folder, information=INFORMATION, ensemble=False):
    """Return the `LimitRatio` of a finished run; ``ensemble``: of the mean prediction of its folds."""
    from runio.results import load_run

    run = load_run(run_folder)
    refuse_other_test(run, information)
    predictions = np.array([fold.y_pred for fold in run.folds.values()])  # (folds, n_test, n_amps)
    if ensemble:
        predictions = predictions.mean(axis=0, keepdims=True)
    return compare(predictions, run.y_test, run.amp_names, information)


def compare(predictions, truth, amp_names, information=INFORMATION):
    """Return the `LimitRatio` of predictions (folds, n_test, n_amps) for the noisy test spectra of seed 0."""
    import h5py

    from common.metrics import scores

    with h5py.File(information) as file:
        index, variance = file["index"][()], file["laplace_variance"][()]
        sampled = {k: file["sampler"][k][()] for k in ("index", "mean", "variance")} if "sampler" in file else None
    r2 = np.mean([scores(truth, p, truth.std(axis=0))["R2"] for p in predictions], axis=0)
    squared = ((predictions - truth) ** 2).mean(axis=0)  # (n_test, n_amps)
    laplace = ratio_with_error(squared[index], variance)
    sampler = direct = (None, None)
    if sampled:
        place, mean = sampled["index"], sampled["mean"]
        excess = ((predictions[:, place] - mean) ** 2).mean(axis=0)
        sampler = ratio_with_error(excess + sampled["variance"], sampled["variance"])
        direct = ratio_with_error(squared[place], (mean - truth[place]) ** 2)
    n_sampler = len(sampled["index"]) if sampled else 0
    return LimitRatio(tuple(amp_names), r2, *laplace, *sampler, *direct, len(index), n_sampler)


def refuse_other_test(run, information=INFORMATION):
    """Raise ValueError if a run was tested on other spectra, or other noise, than the limit was computed for."""
    import h5py

    with h5py.File(information) as file:
        place, rows, seed, names = file["index"][()], file["rows"][()], file.attrs["seed"], file.attrs["amp_names"]
    if run.seed != seed:
        raise ValueError(f"{run.folder}: expected a run of seed {seed}, received seed {run.seed}")
    if len(run.test_rows) <= place.max() or not np.array_equal(run.test_rows[place], rows):
        raise ValueError(f"{run.folder}: expected the test rows of the shipped data set, received others")
    if list(run.amp_names) != list(names):
        raise ValueError(f"{run.folder}: expected AMPs {' '.join(names)}, received {run.amp_names}")


def table(ratio):
    """Lines of text: a row per AMP."""
    lines = [f"{'':8s} {'R2':>7s}  {'MSE/Laplace':>15s}  {'MSE/sampler':>15s}  {'direct':>15s}"]
    for k, name in enumerate(ratio.amp_names):
        pairs = [(ratio.laplace, ratio.laplace_error)]
        pairs += [(ratio.sampler, ratio.sampler_error), (ratio.direct, ratio.direct_error)] if ratio.n_sampler else []
        lines.append(f"{name:8s} {ratio.r2[k]:7.4f}  " + "  ".join(f"{v[k]:7.3f} +- {e[k]:.3f}" for v, e in pairs))
    lines.append(f"planets: {ratio.n_laplace} Laplace, {ratio.n_sampler} sampled")
    return lines


def main():
    parser = study_parser("limit", __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR")
    parser.add_argument("--ensemble", action="store_true", help="score the mean prediction of the folds")
    parser.add_argument("--information", type=Path, default=INFORMATION, help="default: data/information.h5")
    arguments = parser.parse_args()
    for folder in arguments.runs:
        try:
            ratio = limit_ratio(folder, arguments.information, arguments.ensemble)
        except (ValueError, OSError) as error:
            parser.exit(2, f"{parser.prog}: {error}\n")
        print(folder, *table(ratio), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
