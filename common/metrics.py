"""Scores of predictions, and how similar two sensitivity maps are."""

import numpy as np


def scores(y_test, y_pred, y_std):
    """Return the paper's scores of each AMP, {"MSE": (n_amps,), "R2": (n_amps,)}, of predictions (n_test, n_amps).

    ``y_std`` (n_amps,) or (1, n_amps) is the standard deviation of the training AMPs: the squared error is in units of
    its square, so that AMPs can be compared.
    """
    y_test, y_pred, scale = np.asarray(y_test, float), np.asarray(y_pred, float), np.asarray(y_std, float).reshape(-1)
    return {"MSE": np.sum((y_pred - y_test) ** 2, axis=0) / len(y_test) / scale**2, "R2": r2(y_test, y_pred)}


def r2(y_test, y_pred):
    """Coefficient of determination over the first axis; NaN where all true values are equal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sum((y_pred - y_test) ** 2, axis=0) / np.sum((y_test - y_test.mean(axis=0)) ** 2, axis=0)
    return np.where(np.ptp(y_test, axis=0) == 0, np.nan, 1 - ratio)


def spearman(a, b):
    """Rank correlation along the last axis; NaN where one of the two is constant."""

    def centred_ranks(values):  # the rank: how many values are lower, and half of those that are equal
        each, other = np.asarray(values)[..., :, None], np.asarray(values)[..., None, :]
        ranks = (other < each).sum(axis=-1) + (other == each).sum(axis=-1) / 2
        return ranks - ranks.mean(axis=-1, keepdims=True)

    a, b = centred_ranks(a), centred_ranks(b)
    with np.errstate(invalid="ignore"):
        return (a * b).sum(axis=-1) / np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))


def shares(values):
    """Each row of a map (..., n_bins) divided by its sum; NaN for a row of zeros."""
    total = np.sum(values, axis=-1, keepdims=True)
    return np.divide(values, total, out=np.full(np.shape(values), np.nan), where=total > 0)


def band_share(values, wavelength, bands):
    """Share of a map (n_bins,) in bins whose centre lies in one of ``bands``, (low, high) in micron."""
    inside = np.any([(wavelength >= low) & (wavelength <= high) for low, high in bands], axis=0)
    return float(values[inside].sum() / values.sum())
