"""What the best possible estimator achieves on a data set, and how near to it a run comes.

No estimator has a smaller mean squared error over the prior than the mean posterior variance, and the posterior mean
has exactly that. ``information.h5`` beside a data set holds sampled posteriors of some of its planets
(`studies.information`, `studies.posterior`), and with them the map of the posterior mean: the sensitivity map that a
perfect network would have.
"""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

RESAMPLES = 1000  # of the bootstrap


@dataclass(frozen=True)
class Yardstick:
    """Sampled posteriors of some planets of a data set.

    Attributes
    ----------
    amp_names : tuple of str
    seed : int
        Of the run whose noise the posteriors were sampled for.
    rows : ndarray (n,)
        Rows of the data set.
    mean, variance : ndarray (n, n_amps)
        Of each posterior, retrieval space.
    optimal_map : ndarray (n_amps, n_bins)
        Mean squared change of the posterior mean when a bin is redrawn within its error, AMP units squared.
    """

    amp_names: tuple
    seed: int
    rows: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    optimal_map: np.ndarray

    @classmethod
    def load(cls, path):
        """Read ``information.h5``; KeyError where it holds no sampled posteriors."""
        with h5py.File(path) as file:
            sampler = file["sampler"]
            return cls(
                tuple(str(name) for name in file.attrs["amp_names"]),
                int(file.attrs["seed"]),
                *(sampler[name][()] for name in ("rows", "mean", "variance")),
                sampler["optimal_map"][()].mean(axis=0, dtype=float),
            )

    def error_ratio(self, run, y_pred):
        """Squared error over the limit, and its 1-sigma error, (n_amps,) each; 1 cannot be beaten.

        On the planets and the noise that the posteriors were sampled for it is
        1 + mean (prediction - posterior mean)^2 / mean posterior variance, which equals the ratio in expectation and
        is free of the chance in how far the true AMPs lie from the posterior means. For a run of other test spectra,
        or other noise, it is the mean squared error of all over the mean posterior variance.

        Parameters
        ----------
        run : results.Run
        y_pred : ndarray (n_test, n_amps)
            Answers for its test spectra, retrieval space.
        """
        place = np.searchsorted(run.test_rows, self.rows)
        same = run.seed == self.seed and np.array_equal(run.test_rows[np.minimum(place, len(y_pred) - 1)], self.rows)
        if same:
            return ratio_with_error((y_pred[place] - self.mean) ** 2 + self.variance, self.variance)
        squared = (y_pred - run.y_test) ** 2
        ratio = squared.mean(axis=0) / self.variance.mean(axis=0)
        parts = [values.std(axis=0, ddof=1) / np.sqrt(len(values)) / values.mean(axis=0)
                 for values in (squared, self.variance)]  # fmt: skip
        return ratio, ratio * np.hypot(*parts)

    def agreement(self, sensitivity):
        """Rank correlation over bins of a map (n_amps, n_bins) with the optimal one, (n_amps,)."""
        return np.array([spearman(row, best) for row, best in zip(sensitivity, self.optimal_map)])


def yardstick_of(run):
    """Return the `Yardstick` of a run's data set; None where there is none, or it belongs to another data set.

    ``information.h5`` is looked for beside the data set; it belongs to it if it holds the digest that the run recorded.
    """
    path = Path(str(run.config.get("data", {}).get("path", ""))).parent / "information.h5"
    try:
        with h5py.File(path) as file:
            belongs = file.attrs.get("data_sha256") == run.config.get("data_sha256") is not None
        yardstick = Yardstick.load(path) if belongs else None
    except (OSError, KeyError):
        return None
    return yardstick if yardstick and yardstick.amp_names == run.amp_names else None


def ratio_with_error(above, below, resamples=RESAMPLES, seed=0):
    """Ratio of two means over spectra with its bootstrap error, (n_amps,) each.

    Parameters
    ----------
    above, below : ndarray (n, n_amps)
        Paired: row i of both is the same spectrum.
    resamples, seed : int
    """
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(above), np.full(len(above), 1 / len(above)), resamples)  # (resamples, n)
    return above.mean(axis=0) / below.mean(axis=0), ((weights @ above) / (weights @ below)).std(axis=0, ddof=1)


def spearman(a, b):
    """Rank correlation of two maps of one AMP without ties, (n_bins,) each; NaN where one of them is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])


def band_share(values, wavelength, bands):
    """Share of a map (n_bins,) in bins whose centre lies in one of ``bands``, (low, high) in micron."""
    inside = np.any([(wavelength >= low) & (wavelength <= high) for low, high in bands], axis=0)
    return float(values[inside].sum() / values.sum())
