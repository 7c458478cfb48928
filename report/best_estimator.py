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

from common.metrics import band_share, scores, spearman
from constants import AMP, BANDS
from report.style import bin_edges

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
        return spearman(sensitivity, self.optimal_map)


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


HALF = 0.5  # of a map, that the named wavelengths hold
MOST_RANGES = 2  # wavelength ranges that a sentence names
ALIKE = 0.85  # rank correlation with the optimal map from which on a network looks where it should
NERVOUS = 1.25  # sum of a map over that of the optimal one from which on noise is said to move an answer too much
UNINFORMED = 0.1  # R2 below which an answer says little more than the prior


@dataclass(frozen=True)
class Verdict:
    """What a report says first of one AMP.

    Attributes
    ----------
    amp : constants.AMP
    r2 : float
    ranges : list of (low, high, share)
        Wavelengths, micron, that together hold half of the map; the weightiest first.
    in_bands : float or None
        Share of the map in the known bands of a molecule.
    error_ratio, error_ratio_error, agreement, reaction, best_in_bands : float or None
        Beside the best possible estimator: squared error over the limit and its error, rank correlation of the maps,
        sum of the map over that of the optimal one, and the share of the optimal one in the bands.
    """

    amp: AMP
    r2: float
    ranges: list
    in_bands: float | None = None
    error_ratio: float | None = None
    error_ratio_error: float | None = None
    agreement: float | None = None
    reaction: float | None = None
    best_in_bands: float | None = None

    @property
    def sentence(self):
        """The verdict in plain words."""
        if not self.ranges:
            return "Nothing moves this answer."
        where = " and ".join(f"{low:.3g}–{high:.3g}" for low, high, _ in self.ranges[:MOST_RANGES])
        words = [f"rests on {where} µm" + (" (and elsewhere)" if len(self.ranges) > MOST_RANGES else "")]
        if self.agreement is not None:
            words.append("as it should" if self.agreement >= ALIKE else "not only where the best estimator looks")
        elif self.in_bands is not None:
            words.append(f"{self.in_bands:.0%} of it in the molecule's own bands")
        text = ", ".join(words)
        if self.reaction is not None and self.reaction >= NERVOUS:
            text += f"; reacts to noise {self.reaction:.1f} times as much as need be"
        if self.r2 < UNINFORMED:
            text += "; but the answer says little more than the prior"
        return text[0].upper() + text[1:] + "."


def verdicts(run, yardstick=None):
    """Return a `Verdict` for each AMP of a run, from the exact map of its best network (else the published one).

    Parameters
    ----------
    run : results.Run
    yardstick : yardstick.Yardstick, optional
        The best possible estimator on the run's data set.
    """
    best = run.best
    kept = best.sensitivity_single or best.sensitivity
    r2 = scores(run.y_test, best.y_pred, best.scaler["y_std"])["R2"]
    beside = _beside(run, best, kept, yardstick) if yardstick else [{}] * len(run.amp_table)
    edges, verdicts = bin_edges(run.wavelength), []
    for k, amp in enumerate(run.amp_table):
        values = np.zeros(len(run.wavelength)) if kept is None else np.nan_to_num(kept["mean"][k])
        ranges = half_of_the_map(values, edges) if values.sum() > 0 else []
        bands = BANDS.get(amp.key)
        inside = band_share(values, run.wavelength, bands) if bands and values.sum() > 0 else None
        verdicts.append(Verdict(amp, float(r2[k]), ranges, inside, **beside[k]))
    return verdicts


def _beside(run, best, kept, yardstick):
    """Return what is known of each AMP beside the best estimator, as a dict each."""
    ratio, error = yardstick.error_ratio(run, best.y_pred)
    rows = [{"error_ratio": r, "error_ratio_error": e} for r, e in zip(ratio.tolist(), error.tolist())]
    if kept is None or str(kept["scheme"]) != "single":
        return rows
    agreement = yardstick.agreement(kept["mean"])
    reaction = kept["mean"].sum(axis=1) / yardstick.optimal_map.sum(axis=1)
    for k, (row, amp) in enumerate(zip(rows, run.amp_table)):
        row |= {"agreement": float(agreement[k]), "reaction": float(reaction[k])}
        if amp.key in BANDS:
            row["best_in_bands"] = band_share(yardstick.optimal_map[k], run.wavelength, BANDS[amp.key])
    return rows


def half_of_the_map(values, edges):
    """Return the wavelength ranges (low, high, share) of the fewest bins that hold half of a map, weightiest first.

    Parameters
    ----------
    values : ndarray (n_bins,)
        A map of one AMP, not negative.
    edges : ndarray (n_bins + 1,)
        Edges of the bins, micron.
    """
    shares = values / values.sum()
    order = np.argsort(-shares, kind="stable")
    enough = int(np.searchsorted(np.cumsum(shares[order]), HALF - 1e-12)) + 1
    chosen = np.sort(order[:enough])
    pieces = np.split(chosen, np.flatnonzero(np.diff(chosen) > 1) + 1)
    ranges = [(float(edges[p[0]]), float(edges[p[-1] + 1]), float(shares[p].sum())) for p in pieces]
    return sorted(ranges, key=lambda piece: -piece[2])
