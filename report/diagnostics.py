"""How good the answers are: scores and diagnostics as arrays (Yip et al. 2021, Section 5); draws nothing.

Throughout, ``y_test`` and ``y_pred`` are in retrieval space (dex for log AMPs, the AMP's own unit for linear
ones). ``y_pred`` is the answer of one network, (n_test, n_amps), or of several folds on the same test set,
(n_folds, n_test, n_amps). Folds are pooled, and counts are given in spectra, not in spectra times folds.
"""

import math
from dataclasses import dataclass

import numpy as np


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


CREDIBILITY_EPS = 0.5  # dex
CREDIBILITY_DELTA = 0.7
BIN_WIDTH_DEX = 0.4
MIN_SPECTRA = 20

# Linear AMPs (radius, temperature) have no dex, and for a planet mass known to a decade 0.5 dex is no demand.
# A VMR prior of six decades has a standard deviation of 6 / sqrt(12) = 1.73 dex, of which 0.5 dex is 0.29 and
# 0.4 dex is 0.23: planet parameters get the same shares of their own standard deviation.
EPS_PER_STD = 0.5 / (6 / math.sqrt(12))
BIN_WIDTH_PER_STD = 0.4 / (6 / math.sqrt(12))


def binning(amp_table, y_std, width_dex=BIN_WIDTH_DEX, width_per_std=BIN_WIDTH_PER_STD):
    """Width of the bins along the prediction: in dex for molecules, a share of the std for planet parameters.

    Parameters
    ----------
    amp_table : sequence of constants.AMP
    y_std : ndarray (n_amps,)
        Standard deviation of the AMPs (of training, or of the truth), retrieval-space units.
    width_dex : float
        Width for molecules, and the most for any log AMP.
    width_per_std : float
        Width for all others, in standard deviations.

    Returns
    -------
    ndarray (n_amps,)
        Retrieval-space units.
    """
    shares = width_per_std * np.asarray(y_std, float).reshape(-1)
    most = [width_dex if amp.scale == "log10" else np.inf for amp in amp_table]
    molecule = [amp.scale == "log10" and amp.kind == "molecule" for amp in amp_table]
    return np.where(molecule, width_dex, np.minimum(shares, most))


def tolerance(amp_table, y_std, eps_dex=CREDIBILITY_EPS, eps_per_std=EPS_PER_STD):
    """Error below which an answer counts as right, for each AMP; see ``binning`` for the arguments."""
    return binning(amp_table, y_std, eps_dex, eps_per_std)


def _by_prediction(predicted, width, n_folds, min_spectra):
    """Yield (centre, rows, spectra) of the bins along the prediction that hold enough spectra, ascending."""
    width = width if width > 0 else 1.0
    index = np.floor(predicted / width)
    for i in np.unique(index):
        rows = np.flatnonzero(index == i)
        if len(rows) >= min_spectra * n_folds:
            yield (i + 0.5) * width, rows, len(rows) / n_folds


@dataclass(frozen=True)
class Deviation:
    """Predicted minus true against the prediction, for one AMP; every array is (n_bins_kept,).

    Attributes
    ----------
    predicted : ndarray
        Centre of the bin.
    median, low, high : ndarray
        Median and the 2.5 % and 97.5 % quantiles of predicted - true.
    count : ndarray
        Spectra in the bin (predictions divided by folds).
    """

    predicted: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray


def deviation(y_test, y_pred, width, min_spectra=MIN_SPECTRA, interval=0.95):
    """How far off an answer is likely to be, seen from the answer itself.

    Parameters
    ----------
    y_test : ndarray (n_test, n_amps)
    y_pred : ndarray (n_test, n_amps) or (n_folds, n_test, n_amps)
    width : ndarray (n_amps,)
        Bin widths, retrieval-space units; see ``binning``.
    min_spectra : int
        Bins with fewer spectra are left out.
    interval : float
        Central share of the errors between ``low`` and ``high``.

    Returns
    -------
    list of Deviation
        One per AMP.
    """
    truth, predicted, n_folds = pooled(y_test, y_pred)
    quantiles = [0.5, (1 - interval) / 2, (1 + interval) / 2]
    out = []
    for t, p, w in zip(truth.T, predicted.T, _per_amp("width", width, truth)):
        rows = [
            (centre, *np.quantile(p[rows] - t[rows], quantiles), count)
            for centre, rows, count in _by_prediction(p, w, n_folds, min_spectra)
        ]
        out.append(Deviation(*np.array(rows, float).reshape(-1, 5).T))
    return out


def _per_amp(name, values, truth):
    values = np.asarray(values, float).reshape(-1)
    if values.shape != truth.shape[1:]:
        raise ValueError(f"{name}: expected {truth.shape[1]} values, one per AMP, received {values.size}")
    return values


@dataclass(frozen=True)
class Credibility:
    """Probability that an answer is right, given the answer, for one AMP; arrays are (n_bins_kept,).

    Attributes
    ----------
    predicted : ndarray
        Centre of the bin.
    probability : ndarray
        Share of the spectra with |predicted - true| < eps.
    low, high : ndarray
        95 % Wilson interval of that share.
    count : ndarray
        Spectra in the bin (predictions divided by folds).
    eps : float
        Tolerance, retrieval-space units.
    """

    predicted: np.ndarray
    probability: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    eps: float


def credibility(y_test, y_pred, eps, width, min_spectra=MIN_SPECTRA):
    """P(|predicted - true| < eps) in bins along the prediction (the paper's credibility).

    Parameters
    ----------
    y_test : ndarray (n_test, n_amps)
    y_pred : ndarray (n_test, n_amps) or (n_folds, n_test, n_amps)
    eps, width : ndarray (n_amps,)
        Tolerance and bin width, retrieval-space units; see ``tolerance`` and ``binning``.
    min_spectra : int
        Bins with fewer spectra are left out.

    Returns
    -------
    list of Credibility
        One per AMP. An answer is called credible where the probability passes a threshold
        (``CREDIBILITY_DELTA``).
    """
    truth, predicted, n_folds = pooled(y_test, y_pred)
    out = []
    for t, p, e, w in zip(truth.T, predicted.T, _per_amp("eps", eps, truth), _per_amp("width", width, truth)):
        rows = [
            (centre, np.mean(np.abs(p[rows] - t[rows]) < e), count)
            for centre, rows, count in _by_prediction(p, w, n_folds, min_spectra)
        ]
        centre, share, count = np.array(rows, float).reshape(-1, 3).T
        out.append(Credibility(centre, share, *_wilson(share, count), count, float(e)))
    return out


def _wilson(share, count, z=1.959964):
    """95 % interval of a binomial share (Wilson 1927): inside [0, 1], also for shares of 0 and 1."""
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return np.clip(middle - half, 0.0, share), np.clip(middle + half, share, 1.0)
