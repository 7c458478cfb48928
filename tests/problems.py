"""Numbers for the tests of the engine, which needs NumPy only."""

import numpy as np


def plain_problem(n, n_bins=5, n_amps=2):
    """Return weights (n_bins, n_amps), spectra and errors (n, n_bins) and AMPs (n, n_amps): numbers of order one."""
    rng = np.random.default_rng(0)
    weights, spectra = rng.normal(size=(n_bins, n_amps)), rng.normal(size=(n, n_bins))
    return weights, spectra, rng.uniform(0.1, 0.4, (n, n_bins)), rng.uniform(-8, -2, (n, n_amps))


def slope_and_curvature(deviations, change):
    """Least-squares slope s and curvature c of ``change = s a + c a^2 / 2`` over the deviations a, its last axis.

    The curvature is NaN where fewer than two deviations differ from zero.
    """
    a, change = np.asarray(deviations, float), np.asarray(change, float)
    if len(np.unique(a[a != 0])) < 2:
        slope = change @ a / (a @ a)
        return slope, np.full_like(slope, np.nan)
    inverse = np.linalg.pinv(np.stack([a, a**2 / 2], axis=1))  # (2, n_deviations)
    slope, curvature = np.moveaxis(change @ inverse.T, -1, 0)
    return slope, curvature
