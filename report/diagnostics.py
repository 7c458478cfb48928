"""Diagnostics of predictions as arrays (Yip et al. 2021, Section 5); draws nothing.

``y_test`` and ``y_pred`` are in retrieval space: dex for log AMPs, the AMP's own unit for linear ones. ``y_pred`` is
the prediction of one network, (n_test, n_amps), or of several folds for the same test set, (n_folds, n_test, n_amps).
Folds are pooled, and counts are numbers of spectra, not of spectra times folds.
"""

import math
from typing import NamedTuple

import numpy as np

CREDIBILITY_EPS = 0.5  # dex
CREDIBILITY_DELTA = 0.7
BIN_WIDTH_DEX = 0.4
MIN_SPECTRA = 20

# Linear AMPs (radius, temperature) have no dex, and for a planet mass known to a decade 0.5 dex is no demand.
# A VMR prior of six decades has a standard deviation of 6 / sqrt(12) = 1.73 dex, of which 0.5 dex is 0.29 and
# 0.4 dex is 0.23: planet parameters get the same shares of their own standard deviation.
EPS_PER_STD = 0.5 / (6 / math.sqrt(12))
BIN_WIDTH_PER_STD = 0.4 / (6 / math.sqrt(12))


def _pair(y_test, y_pred):
    """Return truth and prediction as float64; ValueError if their shapes do not fit."""
    y_test, y_pred = np.asarray(y_test, float), np.asarray(y_pred, float)
    if y_test.ndim != 2 or len(y_test) == 0:
        raise ValueError(f"y_test: expected shape (n_test, n_amps) with n_test > 0, received {y_test.shape}")
    if y_pred.ndim not in (2, 3) or y_pred.shape[-2:] != y_test.shape:
        raise ValueError(f"y_pred: expected {y_test.shape}, or that with folds in front, received {y_pred.shape}")
    return y_test, y_pred


def pooled(y_test, y_pred):
    """Return truth and prediction as (n_folds * n_test, n_amps), and the number of folds."""
    y_test, y_pred = _pair(y_test, y_pred)
    n_folds = y_pred.shape[0] if y_pred.ndim == 3 else 1
    return np.tile(y_test, (n_folds, 1)), y_pred.reshape(-1, y_test.shape[1]), n_folds


class BiasVariance(NamedTuple):
    """Quantiles of predicted - true in bins of equal count along the truth, (n_amps, n_truth_bins) each.

    ``truth`` is the median truth of a bin; ``low`` and ``high`` are the ends of the central 68 %; ``count``
    (n_truth_bins,) is the number of spectra in a bin.
    """

    truth: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray


def bias_variance(y_test, y_pred, per_bin=100, least_bins=5):
    """Quantiles of the error in bins along the truth (the paper's bias-variance figure): a `BiasVariance`.

    A bin holds about ``per_bin`` spectra. A test set that is too small for ``least_bins`` of them gets smaller bins,
    down to ten spectra.
    """
    truth, predicted, n_folds = pooled(y_test, y_pred)
    n_test = len(truth) // n_folds
    n_bins = max(n_test // per_bin, min(least_bins, n_test // 10), 1)
    columns = []
    for t, p in zip(truth.T, predicted.T):
        error = (p - t).reshape(n_folds, n_test)
        chunks = np.array_split(np.argsort(t[:n_test], kind="stable"), n_bins)
        columns.append([(np.median(t[c]), *np.quantile(error[:, c], (0.5, 0.16, 0.84))) for c in chunks])
    count = np.array([len(chunk) for chunk in np.array_split(np.arange(n_test), n_bins)])
    return BiasVariance(*np.moveaxis(np.array(columns), 2, 0), count)


class Calibration(NamedTuple):
    """Fraction of the truths within k (n_k,) standard deviations of the folds.

    ``inside`` (n_amps, n_k) is measured; ``expected`` (n_k,) is that of a normal distribution.
    """

    k: np.ndarray
    inside: np.ndarray
    expected: np.ndarray


def calibration(y_test, y_pred, k=None):
    """Compare the spread of the folds, (n_folds, n_test, n_amps), with the errors of their mean: a `Calibration`.

    ValueError with fewer than two folds, which have no spread.
    """
    y_test, y_pred = _pair(y_test, y_pred)
    if y_pred.ndim != 3 or len(y_pred) < 2:
        raise ValueError(f"y_pred: expected two folds or more in front, received shape {y_pred.shape}")
    k = np.arange(0, 3.01, 0.25) if k is None else np.asarray(k, float)
    distance = np.abs(y_test - y_pred.mean(axis=0))
    spread = y_pred.std(axis=0, ddof=1)
    inside = np.array([(distance <= value * spread).mean(axis=0) for value in k]).T
    return Calibration(k, inside, np.array([math.erf(value / math.sqrt(2)) for value in k]))


class LossBand(NamedTuple):
    """A loss against ``epoch``: mean, least and greatest over the ``folds`` that were still training, (n_epochs,)."""

    epoch: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    folds: np.ndarray


def loss_band(histories, column):
    """Return the `LossBand` of a column ("loss", "val_loss") of several histories; None where no fold has it."""
    curves = [np.asarray(h[column], float) for h in histories if len(h.get(column, ()))]
    if not curves:
        return None
    longest = max(map(len, curves))
    table = np.full((len(curves), longest), np.nan)
    for row, curve in zip(table, curves):
        row[: len(curve)] = curve
    folds = np.isfinite(table).sum(axis=0)
    mean = np.divide(np.nansum(table, axis=0), folds, out=np.full(longest, np.nan), where=folds > 0)
    low, high = np.fmin.reduce(table, axis=0), np.fmax.reduce(table, axis=0)
    return LossBand(np.arange(1, longest + 1), mean, low, high, folds)


class MeanMap(NamedTuple):
    """A sensitivity map averaged over folds, its standard error and the extremes over the folds, (n_amps, n_bins)."""

    mean: np.ndarray
    standard_error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    folds: int


def mean_map(means, standard_errors):
    """Average the maps of several folds, (n_folds, n_amps, n_bins): a `MeanMap`."""
    means, errors = np.asarray(means, float), np.asarray(standard_errors, float)
    if means.ndim != 3 or means.shape != errors.shape:
        raise ValueError(
            f"means: expected (n_folds, n_amps, n_bins) like standard_errors {errors.shape}, received {means.shape}"
        )
    error = np.sqrt((errors**2).sum(axis=0)) / len(means)
    return MeanMap(means.mean(axis=0), error, means.min(axis=0), means.max(axis=0), len(means))


def binning(amp_table, y_std, width_dex=BIN_WIDTH_DEX, width_per_std=BIN_WIDTH_PER_STD):
    """Width of the bins along the prediction, (n_amps,), retrieval space.

    It is ``width_dex`` for molecules, and for others ``width_per_std`` of the standard deviation ``y_std`` (n_amps,),
    though no more than ``width_dex`` for any log AMP.
    """
    relative = width_per_std * np.asarray(y_std, float).reshape(-1)
    most = [width_dex if amp.scale == "log10" else np.inf for amp in amp_table]
    molecule = [amp.scale == "log10" and amp.kind == "molecule" for amp in amp_table]
    return np.where(molecule, width_dex, np.minimum(relative, most))


def tolerance(amp_table, y_std):
    """Error below which a prediction counts as right, (n_amps,), by the same rule as `binning`."""
    return binning(amp_table, y_std, CREDIBILITY_EPS, EPS_PER_STD)


def _by_prediction(predicted, width, n_folds, min_spectra):
    """Yield (centre, rows, spectra) of the bins along the prediction that hold enough spectra, ascending."""
    width = width if width > 0 else 1.0
    index = np.floor(predicted / width)
    for i in np.unique(index):
        rows = np.flatnonzero(index == i)
        if len(rows) >= min_spectra * n_folds:
            yield (i + 0.5) * width, rows, len(rows) / n_folds


def _per_amp(name, values, truth):
    values = np.asarray(values, float).reshape(-1)
    if values.shape != truth.shape[1:]:
        raise ValueError(f"{name}: expected {truth.shape[1]} values, one per AMP, received {values.size}")
    return values


class Deviation(NamedTuple):
    """Predicted - true of one AMP in bins along the prediction, (n_bins_kept,): centre, median, ends, spectra."""

    predicted: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray


def deviation(y_test, y_pred, width, min_spectra=MIN_SPECTRA, interval=0.95):
    """Median and central ``interval`` of the error in bins of ``width`` (n_amps,) along the prediction.

    Bins with fewer than ``min_spectra`` spectra are left out. Returns a `Deviation` per AMP.
    """
    truth, predicted, n_folds = pooled(y_test, y_pred)
    quantiles = [0.5, (1 - interval) / 2, (1 + interval) / 2]
    found = []
    for t, p, w in zip(truth.T, predicted.T, _per_amp("width", width, truth)):
        rows = [
            (centre, *np.quantile(p[rows] - t[rows], quantiles), count)
            for centre, rows, count in _by_prediction(p, w, n_folds, min_spectra)
        ]
        found.append(Deviation(*np.array(rows, float).reshape(-1, 5).T))
    return found


class Credibility(NamedTuple):
    """P(|predicted - true| < eps) of one AMP in bins along the prediction, (n_bins_kept,), with 95 % intervals."""

    predicted: np.ndarray
    probability: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    eps: float


def credibility(y_test, y_pred, eps, width, min_spectra=MIN_SPECTRA):
    """P(|predicted - true| < eps) in bins of ``width`` along the prediction (the paper's credibility).

    ``eps`` and ``width`` (n_amps,) are those of `tolerance` and `binning`; bins with fewer than ``min_spectra`` spectra
    are left out. Returns a `Credibility` per AMP.
    """
    truth, predicted, n_folds = pooled(y_test, y_pred)
    found = []
    for t, p, e, w in zip(truth.T, predicted.T, _per_amp("eps", eps, truth), _per_amp("width", width, truth)):
        rows = [
            (centre, np.mean(np.abs(p[rows] - t[rows]) < e), count)
            for centre, rows, count in _by_prediction(p, w, n_folds, min_spectra)
        ]
        centre, probability, count = np.array(rows, float).reshape(-1, 3).T
        found.append(Credibility(centre, probability, *_wilson(probability, count), count, float(e)))
    return found


def _wilson(share, count, z=1.959964):
    """95 % interval of a binomial share (Wilson 1927): inside [0, 1], also for shares of 0 and 1."""
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return np.clip(middle - half, 0.0, share), np.clip(middle + half, share, 1.0)
