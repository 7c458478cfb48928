"""What the best possible estimator achieves on a data set, and how close a run comes to it.

No estimator has a smaller mean squared error over the prior than the mean variance of the posterior, and the posterior
mean reaches it. ``information.h5`` beside a data set holds sampled posteriors of some of its planets, written by
`studies.information` and `studies.posterior`, and the sensitivity map of the posterior mean.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.files import opened_hdf5
from common.metrics import spearman
from loaders import load_dataset
from preprocessing import take

RESAMPLES = 1000  # of the bootstrap
SETTINGS = ("format", "targets", "auxiliary", "depth_unit", "width")  # of config.yaml, section data: how it is read


@dataclass(frozen=True)
class BestEstimator:
    """The posterior mean of a data set, known from sampled posteriors of some of its planets.

    Attributes
    ----------
    amp_names : tuple of str
    seed : int
        Seed of the test noise that the posteriors were sampled for.
    rows : ndarray (n,)
        Rows of the data set.
    mean, variance : ndarray (n, n_amps)
        Of each posterior, retrieval space.
    optimal_map : ndarray (n_amps, n_bins)
        Mean squared change of the posterior mean when a bin is redrawn within its error, AMP units squared.
    share_error : ndarray (n_amps, n_bins)
        Standard error of each bin's share in ``optimal_map``, from the spread over the planets.
    """

    amp_names: tuple
    seed: int
    rows: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    optimal_map: np.ndarray
    share_error: np.ndarray

    @classmethod
    def load(cls, path):
        """Read ``information.h5``; KeyError where it holds no sampled posteriors."""
        with opened_hdf5(path) as file:
            sampler = file["sampler"]
            maps = sampler["optimal_map"][()].astype(float)  # (n, n_amps, n_bins)
            optimal = maps.mean(axis=0)
            total = optimal.sum(axis=1, keepdims=True)
            influence = (maps - maps.sum(axis=2, keepdims=True) * optimal / total) / total
            return cls(
                tuple(str(name) for name in file.attrs["amp_names"]),
                int(file.attrs["seed"]),
                *(sampler[name][()] for name in ("rows", "mean", "variance")),
                optimal,
                influence.std(axis=0, ddof=1) / np.sqrt(len(maps)),
            )

    def error_ratio(self, run, y_pred):
        """Squared error of predictions (n_test, n_amps) over the limit, and its standard error, (n_amps,) each.

        On the planets and the noise that the posteriors were sampled for, the ratio is
        1 + mean (prediction - posterior mean)^2 / mean posterior variance. It equals the ratio in expectation and does
        not depend on how far the true AMPs happen to lie from the posterior means. For a run with other test spectra,
        or other noise, it is the mean squared error of all test spectra over the mean posterior variance.
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
        return spearman(sensitivity, self.optimal_map)


def best_estimator_of(run):
    """Return the `BestEstimator` of a run's data set; None where there is none, or it belongs to another data set.

    ``information.h5`` is looked for beside the data set. It belongs to the run if it holds the digest of the data set
    that the run recorded, or if the run used the first rows of that data set (``--size``).
    """
    path = Path(str(run.config.get("data", {}).get("path", ""))).parent / "information.h5"
    try:
        with opened_hdf5(path) as file:
            whole = file.attrs.get("data_sha256")
        used = run.config.get("data_sha256")
        known = None not in (whole, used) and (whole == used or _is_part(run.config, whole, used))
        best = BestEstimator.load(path) if known else None
    except (OSError, KeyError, ValueError):
        return None
    return best if best and best.amp_names == run.amp_names else None


def _is_part(config, whole, used):
    """Say whether the first ``data.size`` rows of the data set with the digest ``whole`` have the digest ``used``."""
    settings = {key: config["data"][key] for key in SETTINGS if key in config["data"]}
    size = config["data"].get("size", -1)
    if size == -1:
        return False
    messages = logging.getLogger("loaders")
    level = messages.level
    messages.setLevel(logging.WARNING)  # the run has already described its data set
    try:
        data = load_dataset(config["data"]["path"], **settings)
    finally:
        messages.setLevel(level)
    return data.sha256() == whole and take(data, size).sha256() == used


def ratio_with_error(above, below, resamples=RESAMPLES, seed=0):
    """Ratio of two means over spectra with its bootstrap error, (n_amps,) each.

    Row i of ``above`` and ``below``, (n, n_amps) each, is the same spectrum.
    """
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(above), np.full(len(above), 1 / len(above)), resamples)  # (resamples, n)
    return above.mean(axis=0) / below.mean(axis=0), ((weights @ above) / (weights @ below)).std(axis=0, ddof=1)
