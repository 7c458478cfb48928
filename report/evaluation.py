"""How good the answers are: scores and diagnostics as arrays (Yip et al. 2021, Section 5); draws nothing.

Throughout, ``y_test`` and ``y_pred`` are in retrieval space (dex for log AMPs, the AMP's own unit for linear
ones). ``y_pred`` is the answer of one network, (n_test, n_amps), or of several folds on the same test set,
(n_folds, n_test, n_amps). Folds are pooled, and counts are given in spectra, not in spectra times folds.
"""

import math
from dataclasses import dataclass

import numpy as np


def scores(y_test, y_pred, y_mean, y_std):
    """Mean squared error and R2 of each AMP: the paper's score table.

    Parameters
    ----------
    y_test, y_pred : ndarray (n_test, n_amps)
        Truth and prediction in retrieval space.
    y_mean, y_std : ndarray (n_amps,) or (1, n_amps)
        Mean and standard deviation of the training AMPs. The error is taken in scaled units, so that AMPs
        compare; the mean cancels.

    Returns
    -------
    dict of str to ndarray (n_amps,)
        "MSE" in units of the training variance; "R2", NaN where the truth is constant.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    y_test, y_pred = _pair(y_test, y_pred)
    scale = np.asarray(y_std, float).reshape(-1)
    centre = np.asarray(y_mean, float).reshape(-1)
    for name, values in (("y_mean", centre), ("y_std", scale)):
        if values.shape not in ((1,), y_test.shape[1:]):
            raise ValueError(f"{name}: expected {y_test.shape[1]} values, received {values.size}")
    residual = np.sum((y_pred - y_test) ** 2, axis=-2)
    residual = residual.mean(axis=0) if y_pred.ndim == 3 else residual
    total = np.sum((y_test - y_test.mean(axis=0)) ** 2, axis=0)
    constant = np.ptp(y_test, axis=0) == 0
    r2 = 1 - np.divide(residual, total, out=np.full(len(total), np.nan), where=~constant)
    return {"MSE": residual / len(y_test) / scale**2, "R2": r2}


def _pair(y_test, y_pred):
    """Check that truth and prediction belong together; return them as float64."""
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


@dataclass(frozen=True)
class BiasVariance:
    """Error along the truth; every array is (n_amps, n_truth_bins).

    Attributes
    ----------
    truth : ndarray
        Median truth of each bin.
    absolute : ndarray
        Mean |predicted - true|.
    spread : ndarray
        Standard deviation of |predicted - true|.
    bias : ndarray
        Mean of predicted - true: positive where the network answers too high.
    count : ndarray (n_truth_bins,)
        Spectra in each bin.
    """

    truth: np.ndarray
    absolute: np.ndarray
    spread: np.ndarray
    bias: np.ndarray
    count: np.ndarray


def bias_variance(y_test, y_pred, per_bin=100, least_bins=5):
    """Error in equal-count bins along the truth (the paper's bias-variance figure).

    Parameters
    ----------
    y_test : ndarray (n_test, n_amps)
    y_pred : ndarray (n_test, n_amps) or (n_folds, n_test, n_amps)
    per_bin : int
        Spectra in a bin. What is left over is shared out, so bins can be a little fuller.
    least_bins : int
        A test set too small for this many bins of ``per_bin`` gets emptier bins instead, down to ten spectra.

    Returns
    -------
    BiasVariance
    """
    truth, predicted, n_folds = pooled(y_test, y_pred)
    n_test = len(truth) // n_folds
    n_bins = max(n_test // per_bin, min(least_bins, n_test // 10), 1)
    columns = []
    for t, p in zip(truth.T, predicted.T):
        order = np.argsort(t[:n_test], kind="stable")
        error = (p - t).reshape(n_folds, n_test)
        rows = [
            (
                np.median(t[chunk]),
                np.abs(error[:, chunk]).mean(),
                np.abs(error[:, chunk]).std(),
                error[:, chunk].mean(),
            )
            for chunk in np.array_split(order, n_bins)
        ]
        columns.append(rows)
    count = np.array([len(chunk) for chunk in np.array_split(np.arange(n_test), n_bins)])
    return BiasVariance(*np.moveaxis(np.array(columns), 2, 0), count=count)


@dataclass(frozen=True)
class Calibration:
    """Share of the truths within k standard deviations of the mean of the folds.

    Attributes
    ----------
    k : ndarray (n_k,)
    inside : ndarray (n_amps, n_k)
    expected : ndarray (n_k,)
        Of a normal distribution: erf(k / sqrt 2).
    """

    k: np.ndarray
    inside: np.ndarray
    expected: np.ndarray


def calibration(y_test, y_pred, k=None):
    """Is the spread of the folds an error bar? (Mostly not: it knows the training, but not the photon noise.)

    Parameters
    ----------
    y_test : ndarray (n_test, n_amps)
    y_pred : ndarray (n_folds, n_test, n_amps)
        Two folds or more.
    k : ndarray (n_k,), optional
        Numbers of standard deviations; 0 to 3 in steps of 0.25 by default.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        With fewer than two folds, which have no spread.
    """
    y_test, y_pred = _pair(y_test, y_pred)
    if y_pred.ndim != 3 or len(y_pred) < 2:
        raise ValueError(f"y_pred: expected two folds or more in front, received shape {y_pred.shape}")
    k = np.arange(0, 3.01, 0.25) if k is None else np.asarray(k, float)
    distance = np.abs(y_test - y_pred.mean(axis=0))
    spread = y_pred.std(axis=0, ddof=1)
    inside = np.array([(distance <= value * spread).mean(axis=0) for value in k]).T
    return Calibration(k, inside, np.array([math.erf(value / math.sqrt(2)) for value in k]))


@dataclass(frozen=True)
class LossBand:
    """One loss column over the folds; arrays are (n_epochs,), the epochs of the longest fold.

    ``mean``, ``low`` and ``high`` are over the ``folds`` folds that were still training at that epoch.
    """

    epoch: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    folds: np.ndarray


def loss_band(histories, column):
    """Mean, least and greatest of a loss over the folds, which may have stopped at different epochs.

    Parameters
    ----------
    histories : sequence of dict of str to ndarray
        One per fold, as ``results.read_history`` returns them.
    column : str
        "loss" or "val_loss".

    Returns
    -------
    LossBand or None
        None when no fold has the column.
    """
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


@dataclass(frozen=True)
class MeanMap:
    """A sensitivity map averaged over folds; arrays are (n_amps, n_bins), in AMP units squared.

    ``standard_error`` is that of the draws; ``low`` and ``high`` are the extremes over the folds.
    """

    mean: np.ndarray
    standard_error: np.ndarray
    low: np.ndarray
    high: np.ndarray
    folds: int


def mean_map(means, standard_errors):
    """Average the sensitivity maps of several folds.

    Parameters
    ----------
    means, standard_errors : sequence of ndarray (n_amps, n_bins)
        One per fold.

    Returns
    -------
    MeanMap
    """
    means, errors = np.asarray(means, float), np.asarray(standard_errors, float)
    if means.ndim != 3 or means.shape != errors.shape:
        raise ValueError(
            f"means: expected (n_folds, n_amps, n_bins) like standard_errors {errors.shape}, received {means.shape}"
        )
    error = np.sqrt((errors**2).sum(axis=0)) / len(means)
    return MeanMap(means.mean(axis=0), error, means.min(axis=0), means.max(axis=0), len(means))
