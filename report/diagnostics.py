"""Diagnostics of predictions as arrays (Yip et al. 2021, Section 5); draws nothing.

``y_test`` and ``y_pred`` (n_test, n_amps) are in retrieval space: dex for log AMPs, the AMP's own unit for linear ones.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

CREDIBILITY_EPS = 0.5  # dex
CREDIBILITY_DELTA = 0.7
BIN_WIDTH_DEX = 0.4
MIN_SPECTRA = 20
STEPS = tuple(np.arange(0, 3.01, 0.25))  # standard deviations of the folds

# Linear AMPs (radius, temperature) have no dex, and for a planet mass known to a decade 0.5 dex is no demand.
# A VMR prior of six decades has a standard deviation of 6 / sqrt(12) = 1.73 dex, of which 0.5 dex is 0.29 and
# 0.4 dex is 0.23: planet parameters get the same shares of their own standard deviation.
EPS_PER_STD = 0.5 / (6 / math.sqrt(12))
BIN_WIDTH_PER_STD = 0.4 / (6 / math.sqrt(12))


class Along(NamedTuple):
    """A quantity of one AMP with its interval in bins along the true or the predicted AMP, (n_bins_kept,) each."""

    centre: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray  # of spectra


def bias_variance(y_test, y_pred, per_bin=100, least_bins=5):
    """Median and central 68 % of predicted - true in bins along the truth (the paper's figure): an `Along` per AMP.

    A bin holds about ``per_bin`` spectra. A test set that is too small for ``least_bins`` of them gets smaller bins,
    down to ten spectra.
    """
    n_test, found = len(y_test), []
    n_bins = max(n_test // per_bin, min(least_bins, n_test // 10), 1)
    for truth, error in zip(np.transpose(y_test), np.transpose(y_pred - y_test)):
        chunks = np.array_split(np.argsort(truth, kind="stable"), n_bins)
        rows = [(np.median(truth[c]), *np.quantile(error[c], (0.5, 0.16, 0.84)), len(c)) for c in chunks]
        found.append(Along(*np.transpose(rows)))
    return found


class Calibration(NamedTuple):
    """Fraction of the truths within ``k`` standard deviations of the folds, and that of a normal distribution."""

    k: np.ndarray  # (n_k,)
    inside: np.ndarray  # (n_amps, n_k)
    expected: np.ndarray  # (n_k,)


def calibration(y_test, y_pred, k=STEPS):
    """Compare the spread of two folds or more, (n_folds, n_test, n_amps), with the errors of their mean."""
    distance, spread = np.abs(y_test - y_pred.mean(axis=0)), y_pred.std(axis=0, ddof=1)
    inside = np.array([(distance <= value * spread).mean(axis=0) for value in k]).T
    return Calibration(np.array(k), inside, np.array([math.erf(value / math.sqrt(2)) for value in k]))


class LossBand(NamedTuple):
    """A loss against ``epoch``: mean, least and greatest over the ``folds`` that were still training, (n_epochs,)."""

    epoch: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    folds: np.ndarray


def loss_band(histories, column):
    """Return the `LossBand` of a column ("loss", "val_loss") of several histories; None where no fold has it."""
    curves = [h[column] for h in histories if len(h.get(column, ()))]
    if not curves:
        return None
    table = np.array(list(itertools.zip_longest(*curves, fillvalue=np.nan)), float)  # (n_epochs, n_folds)
    folds = np.isfinite(table).sum(axis=1)
    mean = np.divide(np.nansum(table, axis=1), folds, out=np.full(len(table), np.nan), where=folds > 0)
    low, high = np.fmin.reduce(table, axis=1), np.fmax.reduce(table, axis=1)
    return LossBand(np.arange(1, len(table) + 1), mean, low, high, folds)


class MeanMap(NamedTuple):
    """A map averaged over folds, its standard error and the extremes over the folds, (n_amps, n_bins)."""

    mean: np.ndarray
    standard_error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    folds: int


def mean_map(means, standard_errors):
    """Average the maps of several folds, (n_folds, n_amps, n_bins): a `MeanMap`."""
    error = np.sqrt(np.sum(np.square(standard_errors), axis=0)) / len(means)
    return MeanMap(np.mean(means, axis=0), error, np.min(means, axis=0), np.max(means, axis=0), len(means))


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


def _by_prediction(y_test, y_pred, width, summary, min_spectra):
    """Apply ``summary`` to the errors of each AMP and its number in bins of ``width``: an `Along` per AMP."""
    found = []
    for k, step in enumerate(np.where(np.asarray(width) > 0, width, 1.0)):
        index, rows = np.floor(y_pred[:, k] / step), []
        for i, count in zip(*np.unique(index, return_counts=True)):
            if count >= min_spectra:
                inside = index == i
                rows.append(((i + 0.5) * step, *summary(y_pred[inside, k] - y_test[inside, k], k), count))
        found.append(Along(*np.array(rows, float).reshape(-1, 5).T))
    return found


def deviation(y_test, y_pred, width, min_spectra=MIN_SPECTRA):
    """Median and central 95 % of predicted - true in bins of ``width`` (n_amps,): an `Along` per AMP.

    Bins with fewer than ``min_spectra`` spectra are left out.
    """
    return _by_prediction(y_test, y_pred, width, lambda e, _: np.quantile(e, (0.5, 0.025, 0.975)), min_spectra)


def credibility(y_test, y_pred, eps, width, min_spectra=MIN_SPECTRA):
    """P(|predicted - true| < eps) in bins of ``width`` (the paper's credibility): an `Along` per AMP.

    ``eps`` and ``width`` (n_amps,) are those of `tolerance` and `binning`; bins with fewer than ``min_spectra`` spectra
    are left out.
    """
    return _by_prediction(y_test, y_pred, width, lambda e, k: _wilson(np.mean(np.abs(e) < eps[k]), len(e)), min_spectra)


def _wilson(share, count, z=1.959964):
    """Return a binomial share with its 95 % interval (Wilson 1927): inside [0, 1], also for shares of 0 and 1."""
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return share, np.clip(middle - half, 0.0, share), np.clip(middle + half, share, 1.0)


def credible_from(found, delta=CREDIBILITY_DELTA):
    """Return the centre of the bin from which on all of a `credibility` reach ``delta``; infinity where none does."""
    failed = np.flatnonzero(found.value < delta)
    return float(np.append(found.centre, np.inf)[failed[-1] + 1 if len(failed) else 0])
