"""What a model leaves unexplained, bin by bin: the best planet of the priors for an observed spectrum.

    python -m studies.best_fit --observation data/observations/wasp39b_prism.ecsv \
        --planet data/observations/wasp39b_jwst.yaml [--store]

Least squares with the true forward model, from the best few of random planets of the priors; offsets between
instruments are part of the covariance of the errors. Printed: chi2, the parameters, and the bins that are furthest off
in standard deviations, after the most likely offsets. It needs no survey and no network, and takes about a minute. The
best planet is no estimate: with this many parameters it can lie far out in a wide posterior. With --store, chi2 and the
bins go into studies/results/best_fit.csv, where rows of other files stay.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studies.command import RESULTS, study_parser
from studies.tables import data_frame, replaced_rows, write_csv

MAX_CALLS = 20  # of the forward model's derivatives, per start
WORST = 10  # bins that are named


@dataclass(frozen=True)
class Fit:
    """The best planet: AMPs (n_amps,) in retrieval space, chi2, and residuals (n_bins,) in standard deviations."""

    amps: np.ndarray
    chi2: float
    residuals: np.ndarray


def covariance_of(error, offsets):
    """Covariance (n_bins, n_bins) of errors (n_bins,) and of `simulation.design.Design.offsets`."""
    covariance = np.diag(error**2)
    for size, bins in offsets.values():
        covariance += size**2 * np.outer(bins, bins)
    return covariance


def best_fit(design, model, depth, starts=2, planets=400, seed=0):
    """Fit a planet of a design's priors to depths (n_bins,); `model` is its forward model.

    Returns
    -------
    Fit
    """
    from scipy.optimize import least_squares

    low, high = design.limits()
    root = np.linalg.cholesky(covariance_of(design.errors, design.offsets))
    amps = design.draw_amps(planets, seed)
    misfit = (np.linalg.solve(root, (depth - model.depth(amps)).T) ** 2).sum(axis=0)
    found = [
        least_squares(
            lambda share: np.linalg.solve(root, depth - model.depth(low + (high - low) * share)),
            np.clip((amps[i] - low) / (high - low), 0.01, 0.99),
            bounds=(0, 1),
            diff_step=1e-3,
            max_nfev=MAX_CALLS,
        )
        for i in np.argsort(misfit)[:starts]
    ]
    best = min(found, key=lambda one: one.cost)
    amps = low + (high - low) * best.x
    left = depth - model.depth(amps)
    for size, bins in design.offsets.values():  # the most likely offset of each instrument
        weight = 1 / design.errors[bins] ** 2
        left[bins] -= (weight * left[bins]).sum() / (weight.sum() + 1 / size**2)
    return Fit(amps, 2 * best.cost, left / design.errors)


def main():
    parser = study_parser("best_fit", __doc__)
    parser.add_argument("--observation", required=True, help="table of the observation")
    parser.add_argument("--planet", required=True, help="its planet file")
    parser.add_argument("--starts", type=int, default=2, help="planets to start from (default %(default)s)")
    parser.add_argument("--store", action="store_true", help="put the numbers into studies/results/best_fit.csv")
    arguments = parser.parse_args()
    from loaders.observation import read_observation
    from simulation.design import survey_design
    from simulation.survey import forward_model

    design, seen = survey_design(arguments.observation, arguments.planet), read_observation(arguments.observation)
    fit = best_fit(design, forward_model(design), seen.depth, arguments.starts)
    print(f"chi2 {fit.chi2:.1f} of {len(seen.depth)} bins and {len(fit.amps)} parameters")
    print("  ".join(f"{name} {value:.4g}" for name, value in zip(design.priors, fit.amps)))
    instruments = [""] * len(seen.depth) if seen.instrument is None else seen.instrument
    worst = [
        f"{seen.wavelength[i]:.4f} micron {fit.residuals[i]:+.1f} sigma {instruments[i]}".strip()
        for i in np.argsort(-np.abs(fit.residuals))[:WORST]
    ]
    print(*worst, sep="\n")
    if arguments.store:
        row = {"observation": Path(arguments.observation).name, "planet": Path(arguments.planet).name}
        numbers = {"chi2": f"{fit.chi2:.1f}", "bins": len(seen.depth), "parameters": len(fit.amps)}
        table = data_frame([{**row, **numbers, "worst_bins": "; ".join(worst)}])
        write_csv(RESULTS / "best_fit.csv", replaced_rows(RESULTS / "best_fit.csv", table, list(row)))


if __name__ == "__main__":
    sys.exit(main())
