"""Numbers for the tests of the engine, which needs NumPy only."""

import numpy as np


def plain_problem(n, n_bins=5, n_amps=2):
    """Return weights (n_bins, n_amps), spectra and errors (n, n_bins) and AMPs (n, n_amps): numbers of order one."""
    rng = np.random.default_rng(0)
    weights, spectra = rng.normal(size=(n_bins, n_amps)), rng.normal(size=(n, n_bins))
    return weights, spectra, rng.uniform(0.1, 0.4, (n, n_bins)), rng.uniform(-8, -2, (n, n_amps))
