"""How alike two maps of one AMP are, and how much of a map lies in a molecule's bands."""

import numpy as np


def spearman(a, b):
    """Rank correlation of two maps of one AMP, (n_bins,) each."""
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


def shared_top(a, b, top=10):
    """Count the bins that are among the ``top`` largest of both maps."""
    return len(set(np.argsort(a)[-top:]) & set(np.argsort(b)[-top:]))


def band_share(values, wavelength, bands):
    """Share of a map (n_bins,) in bins whose centre lies in one of ``bands``, (low, high) in micron."""
    inside = np.any([(wavelength >= low) & (wavelength <= high) for low, high in bands], axis=0)
    return float(values[inside].sum() / values.sum())
