"""How far an answer can be trusted, seen from the answer itself (Yip et al. 2021, Section 5); draws nothing.

In use one knows the prediction and not the truth, so errors are binned along the prediction here. Arguments
and the pooling of folds are as in ``evaluation``.
"""

import math
from dataclasses import dataclass

import numpy as np

from report.evaluation import pooled

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
