"""Prediction intervals of an estimate, and whether its spectrum is consistent with those that were trained on.

How far an estimate moves under further noise is not its error: a network that predicts the mean of what it cannot see
hardly moves. The error is therefore measured on simulated test planets. Those with the predictions nearest to the
estimate are taken, and the quantiles of their (truth - prediction), in units of its local size, give the intervals.
This is conformal prediction (Vovk et al. 2005; Lei et al. 2018, JASA 113, 1094) with a local scale, among neighbours,
so that the coverage holds near the estimate and not only on average; ``studies/answer_coverage.py`` compares the rule
with three others.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from constants import Stream, stream
from preprocessing import add_noise

LEVELS = {"68": 0.6827, "95": 0.9545}  # one and two standard deviations of a normal distribution
ONE_SIDED = {"90": 0.9}  # the interval whose two ends are limits at 95 %
NEIGHBOURS = 200  # test planets that give the quantiles, and that a spectrum is compared with
SCALE_NEIGHBOURS = 50  # test planets that give the local size of (truth - prediction)
MIN_PLANETS = 50  # test planets needed for an interval: at 95 % the two ends take 43
BLOCK = 256  # estimates at once, so that memory stays small


def intervals(predictions, truths, estimates, quantiles=None, levels=LEVELS):
    """Return prediction intervals (n_levels, 2, m, n_amps) for the truths behind ``estimates`` (m, n_amps).

    ``predictions`` and ``truths`` (n, n_amps) are of simulated planets that the network was not trained on, all in
    retrieval space; ``quantiles`` is another rule than `local_neighbours`. There is a low and a high end for each
    of the ``levels``, NaN with fewer than `MIN_PLANETS` planets. No end lies outside the range of the truths, unless
    the estimate itself does. Wrong shapes, NaN and infinity raise a ValueError.
    """
    predictions, truths, estimates = (np.asarray(values, float) for values in (predictions, truths, estimates))
    if predictions.ndim != 2 or predictions.shape != truths.shape or estimates.shape[1:] != predictions.shape[1:]:
        raise ValueError(
            "predictions, truths, estimates: expected shapes (n, n_amps), the same, and (m, n_amps), received "
            f"{predictions.shape}, {truths.shape}, {estimates.shape}"
        )
    for name, values in (("predictions", predictions), ("truths", truths), ("estimates", estimates)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: expected finite numbers, received NaN or infinity")
    if len(predictions) < MIN_PLANETS:
        return np.full((len(levels), 2, *estimates.shape), np.nan)
    tails, quantiles = np.array([(1 - level) / 2 for level in levels.values()]), quantiles or local_neighbours
    blocks = [quantiles(predictions, truths - predictions, block, tails) for block in _blocks(estimates)]
    ends = estimates + np.concatenate(blocks, axis=2)
    low, high = truths.min(axis=0), truths.max(axis=0)
    inside = (estimates >= low) & (estimates <= high)
    return np.where(inside, np.clip(ends, low, high), ends)


def local_neighbours(predictions, residuals, estimates, tails):
    """Quantiles of the residuals (n, n_amps) among neighbours, with a local scale: (n_levels, 2, m, n_amps)."""
    near = nearest(predictions, estimates, NEIGHBOURS)  # (m, k)
    rows, place = np.unique(near, return_inverse=True)
    relative = residuals[rows] / own_size(predictions, residuals, rows)
    scale = local_size(predictions, residuals, estimates)
    return conformal_quantiles(relative[place.reshape(near.shape)], tails, axis=1) * scale


def nearest(predictions, estimates, k):
    """Rows (m, k) of the predictions nearest to each estimate, in standard deviations of each AMP's predictions."""
    scale = np.maximum(predictions.std(axis=0), 1e-300)
    here, there = predictions / scale, estimates / scale
    square = (here**2).sum(axis=1) - 2 * there @ here.T  # (m, n), up to a constant in each row
    k = min(k, len(predictions))
    return np.argpartition(square, k - 1, axis=1)[:, :k]


def _blocks(values):
    return [values[i : i + BLOCK] for i in range(0, len(values), BLOCK)]


def local_size(predictions, residuals, estimates):
    """Root mean square of the residuals around each estimate, (m, n_amps)."""
    return _rms(residuals[nearest(predictions, estimates, SCALE_NEIGHBOURS)])


def own_size(predictions, residuals, rows):
    """Root mean square of the residuals around some of the planets, each without itself, (len(rows), n_amps)."""
    sizes = []
    for block in _blocks(rows):
        near = nearest(predictions, predictions[block], SCALE_NEIGHBOURS + 1)
        others = near != block[:, None]  # (m, k + 1)
        others[others.all(axis=1), -1] = False  # the planet is not listed because identical ones were: drop any one
        sizes.append(_rms(residuals[near[others].reshape(len(block), -1)]))
    return np.concatenate(sizes)


def _rms(residuals):
    """Root mean square over neighbours, (m, k, n_amps) to (m, n_amps), kept above zero."""
    return np.maximum(np.sqrt((residuals**2).mean(axis=1)), 1e-300)


def conformal_quantiles(values, tails, axis):
    """Low and high quantiles (n_levels, 2, ...) with the rank of conformal prediction, that of n + 1 values."""
    return np.quantile(values, np.stack([tails, 1 - tails], axis=1), axis=axis, method="weibull")


# --- is the spectrum consistent with those that were trained on? ---

INSIDE, OUTSIDE, UNKNOWN = "inside", "outside", "unknown"  # as verdict.yaml stores them
MAX_COMPARED = 500  # test planets whose own distances set the scale
OUTSIDE_SHARE = 0.99  # a spectrum that is further off than this share of test planets is out of distribution
OUTSIDE_BINS = 0.05  # so is one with more than this share of its bins outside the range of all test planets
OUTSIDE_DEVIATIONS = 5  # and one without a comparison, so many standard deviations from the mean training depth
LARGE_RESIDUAL = 4.0  # standard deviations from which on a bin is named
OTHER_ERRORS = 1.25  # factor beyond the errors that were trained on from which on errors are said to differ
MAX_ERROR_FACTOR = 3.0  # times the largest errors that were trained on; beyond, estimates leave their own intervals
RARE_ROW = 0.05  # of the test planets: a row of residuals of the same sign that no more of them have is a headline
MAX_NAMED = 5  # bins in a sentence


@dataclass(frozen=True)
class TestPlanets:
    """Simulated planets that no network was trained on, with the noise of an observation."""

    __test__ = False  # not a test case of pytest

    truths: np.ndarray  # (n, n_amps), as are the predictions
    predictions: np.ndarray
    clean: np.ndarray  # (n, n_bins) without noise; the same as ``spectra`` where the data set is noisy itself
    spectra: np.ndarray  # (n, n_bins)
    error: np.ndarray  # (n_bins,) 1-sigma of the noise
    noisy: bool

    def residuals(self, spectra, predictions, rows=None):
        """Compare spectra (m, n_bins) with their nearest neighbours, the planets of the most similar predictions.

        ``rows`` says which of the planets the spectra are of, so that none is its own neighbour. Returns the
        Mahalanobis distance (m,) from the neighbours, the standardised residual of each bin (m, n_bins) from what all
        other bins predict for it, and the standard deviations (m, n_bins) of these predictions, depth.
        """
        distance, standardised, deviations = (np.empty(shape) for shape in (len(spectra), spectra.shape, spectra.shape))
        for i, near in enumerate(nearest(self.predictions, predictions, NEIGHBOURS + 1)):
            near = near[near != rows[i]] if rows is not None else near
            mean, precision = self._around(near[:NEIGHBOURS])
            weighted = precision @ (spectra[i] - mean)
            deviations[i] = 1 / np.sqrt(np.diag(precision))
            distance[i] = np.sqrt(max(weighted @ (spectra[i] - mean), 0))
            standardised[i] = weighted * deviations[i]
        return distance, standardised, deviations

    def misfit(self, standardised, deviations):
        """Root mean square over bins (m,) of the part of a spectrum that is left as noise, in units of the errors."""
        return np.sqrt(np.mean((standardised / deviations * self.error) ** 2, axis=1))

    def _around(self, rows):
        """Mean and inverse covariance, noise included, of the spectra of some planets."""
        spectra = self.clean[rows]
        covariance = np.atleast_2d(np.cov(spectra.T))
        noise = np.diag(self.error**2)
        if self.noisy:  # noise is included already; shrink towards it, as there may be more bins than planets
            share = spectra.shape[1] / (spectra.shape[1] + len(rows))
            covariance = (1 - share) * covariance + share * noise
        else:
            covariance += noise
        return spectra.mean(axis=0), np.linalg.inv(covariance)  # the noise keeps it far from singular


def planets_as_seen(run, network, error, seed):
    """Predict a run's test planets from spectra with the 1-sigma errors (n_bins,) of an observation: `TestPlanets`."""
    kept = run.reference
    clean, noisy, error = kept["spectra"].astype(float), bool(run.data.get("noisy")), np.asarray(error, float)
    if error.shape != clean.shape[1:] or not (np.isfinite(error) & (error > 0)).all():
        raise ValueError(f"error: expected positive numbers of shape {clean.shape[1:]}, received shape {error.shape}")
    rng = np.random.default_rng(stream(seed, Stream.OBSERVATION_NOISE, 1))
    spectra = clean if noisy else add_noise(clean, error, rng)
    predictions = network.predict(spectra, kept.get("auxiliary"))
    if not np.isfinite(predictions).all():
        raise ValueError("network: expected finite predictions of its run's test spectra, received NaN or infinity")
    error = kept["error"].astype(float) if noisy else error
    return TestPlanets(run.y_test[kept["rows"]], predictions, clean, spectra, error, noisy)


class Comparison(NamedTuple):
    """An observed spectrum beside simulated test planets."""

    distance: float  # Mahalanobis
    share_nearer: float  # of the test planets; the other two shares likewise
    largest: float  # absolute standardised residual
    share_smaller: float
    misfit: float  # in units of the errors
    share_better: float
    standardised: np.ndarray  # (n_bins,) residuals from the ``expected`` depths, which the other bins predict
    expected: np.ndarray
    n: int  # test planets
    beyond: float  # share of the bins outside the range of all planets
    row: slice  # the longest row of neighbouring bins whose residuals have the same sign
    share_longer: float  # of the test planets with a row that is as long or longer

    @property
    def outside(self):
        """Whether the spectrum is out of distribution."""
        shares = (self.share_nearer, self.share_smaller, self.share_better)
        return max(shares) > OUTSIDE_SHARE or self.beyond > OUTSIDE_BINS


def compare(depth, estimate, planets):
    """Compare a spectrum (n_bins,) of this estimate (n_amps,) with `TestPlanets`; None with too few of them."""
    if len(planets.predictions) < MIN_PLANETS:
        return None
    rows = np.unique(np.linspace(0, len(planets.predictions) - 1, MAX_COMPARED).round().astype(int))
    distances, others, units = planets.residuals(planets.spectra[rows], planets.predictions[rows], rows)
    distance, standardised, deviations = planets.residuals(depth[None], estimate[None])
    largest, misfit = np.abs(standardised).max(), planets.misfit(standardised, deviations)[0]
    row, rows_of_others = longest_row(standardised[0]), [longest_row(one) for one in others]
    return Comparison(
        distance=float(distance[0]),
        share_nearer=float(np.mean(distances < distance)),
        largest=float(largest),
        share_smaller=float(np.mean(np.abs(others).max(axis=1) < largest)),
        misfit=float(misfit),
        share_better=float(np.mean(planets.misfit(others, units) < misfit)),
        standardised=standardised[0],
        expected=depth - standardised[0] * deviations[0],
        n=len(rows),
        beyond=float(share_beyond(depth[None], planets.spectra)[0]),
        row=row,
        share_longer=float(np.mean([one.stop - one.start >= row.stop - row.start for one in rows_of_others])),
    )


def longest_row(residuals):
    """Return the slice of the most neighbouring bins (of n_bins) whose residuals have the same sign."""
    edges = np.flatnonzero(np.diff(residuals > 0, prepend=-1, append=2))
    longest = np.argmax(np.diff(edges))
    return slice(*edges[longest : longest + 2].tolist())


def share_beyond(spectra, others):
    """Share (m,) of the bins of each of ``spectra`` (m, n_bins) that lies outside the range of all ``others``."""
    return ((spectra < others.min(axis=0)) | (spectra > others.max(axis=0))).mean(axis=1)


class ErrorLevel(NamedTuple):
    """Median error of an observation in units of the training set's, and the 1st and 99th percentile in that set."""

    level: float
    low: float
    high: float

    @property
    def differs(self):
        """Whether the errors lie beyond those that were trained on."""
        return not self.low / OTHER_ERRORS <= self.level <= self.high * OTHER_ERRORS

    @property
    def too_large(self):
        """Whether they are so large that estimates often lie outside their own intervals."""
        return self.level > self.high * MAX_ERROR_FACTOR


def error_level(run, error):
    """Compare the errors (n_bins,) of an observation with those of the run."""
    low, high = np.quantile(run.reference["error_level"], [0.01, 0.99])
    return ErrorLevel(float(np.median(error / run.reference["error"])), float(low), float(high))


HEADLINES = {
    OUTSIDE: "Out of distribution: this observation is unlike the spectra that the network was trained on. Neither the"
    " estimates nor their errors can be relied on.",
    INSIDE: "Consistent: this observation is like the spectra that the network was trained on.",
    UNKNOWN: "Unknown: the observation could not be compared with the simulated planets ({}).",
}


class Consistency(NamedTuple):
    """Whether an observation is like the spectra that were trained on."""

    status: str  # "inside", "outside" or "unknown"
    sentences: list  # the result and its reasons
    numbers: dict  # for verdict.yaml


def consistency(comparison, level, wavelength, beyond=(), noisy=False, n_planets=0, deviations=0.0):
    """Say whether an observation is consistent with the training set, and why.

    ``comparison`` and the error ``level`` are None where the run keeps no test spectra, ``comparison`` also where it
    has too few. ``beyond`` names AMPs whose estimate lies outside the range of all planets; ``deviations`` is the
    largest distance of a bin from the mean training depth, in standard deviations of all training depths.
    """
    unlike = comparison is not None and comparison.outside
    extrapolates = deviations > OUTSIDE_DEVIATIONS and (unlike or comparison is None)  # else compared more sharply
    status = UNKNOWN if comparison is None else INSIDE
    if beyond or extrapolates or unlike or (level is not None and level.too_large):
        status = OUTSIDE
    why = "this run keeps no test spectra: train it again" if level is None else "this run has too few test planets"
    sentences, numbers = [HEADLINES[status].format(why)], {"status": status, "test_planets": int(n_planets)}
    if comparison is not None:
        order = np.argsort(-np.abs(comparison.standardised), kind="stable")
        outliers = order[np.abs(comparison.standardised[order]) > LARGE_RESIDUAL]
        sentences.append(_comparison_text(comparison, wavelength, order[: max(len(outliers), 3 * unlike)]))
        sentences[int(comparison.share_longer > RARE_ROW)] += _row_text(comparison, wavelength)
        numbers |= {
            "distance": comparison.distance,
            "test_planets_nearer": comparison.share_nearer,
            "greatest_pull": comparison.largest,
            "test_planets_pulled_less": comparison.share_smaller,
            "misfit": comparison.misfit,
            "test_planets_fitted_better": comparison.share_better,
            "share_of_bins_beyond_all": comparison.beyond,
            "strange_bins_micron": wavelength[outliers].tolist(),
        }
    if extrapolates:
        sentences.append(
            f"One bin lies {deviations:.0f} standard deviations from the mean training depth: the network extrapolates."
        )
        numbers["standard_deviations_from_training"] = float(deviations)
    if beyond:
        sentences.append(f"The estimate of {', '.join(beyond)} lies outside the range of all simulated planets.")
        numbers["answers_beyond_simulated"] = list(beyond)
    sentences.append(_errors_text(level, noisy))
    if level is not None:
        numbers |= {"error_level": level.level, "error_level_trained": [level.low, level.high]}
    return Consistency(status, sentences, numbers)


def _row_text(comparison, wavelength):
    """Name the longest row of residuals of the same sign; the largest residual and the misfit can miss one."""
    bins = wavelength[comparison.row]
    side = "above" if comparison.standardised[comparison.row.start] > 0 else "below"
    return (
        f" All {len(bins)} bins from {bins[0]:.3g} to {bins[-1]:.3g} µm lie {side} what the other bins predict; of the"
        f" test planets, {100 * comparison.share_longer:.1f} % have so long a row of residuals of the same sign."
    )


def _comparison_text(comparison, wavelength, bins):
    """Say how a spectrum compares with the test planets, and name ``bins``, those with the largest residuals."""
    one = comparison
    text = (
        f"Of {one.n} simulated test planets, {100 * one.share_nearer:.1f} % lie closer than this observation to the"
        f" planets with the most similar predictions. In {100 * one.share_smaller:.1f} % the largest residual is"
        f" smaller, and in {100 * one.share_better:.1f} % the misfit (here {one.misfit:.2f} times the errors)."
    )
    if len(bins):
        named = ", ".join(f"{wavelength[b]:.3g} µm ({comparison.standardised[b]:+.1f} σ)" for b in bins[:MAX_NAMED])
        named += f" and {len(bins) - MAX_NAMED} more" if len(bins) > MAX_NAMED else ""
        text += f" The largest residuals are at {named}.".replace("-", "−")
    if comparison.beyond > 0:
        text += f" {100 * comparison.beyond:.0f} % of the bins are deeper or shallower than in any simulated planet."
    return text


def _errors_text(level, noisy):
    if level is None:
        return "The intervals hold for spectra with the noise on which the run was tested."
    trained = f"the observation's errors are {level.level:.2g} times the median of the training set"
    trained += f" ({level.low:.2g} to {level.high:.2g} there)"
    if noisy and not level.too_large:
        text = "The simulated spectra hold noise themselves, so the intervals hold for that noise; "
        return text + trained + (", so they are not right for this observation." if level.differs else ".")
    if level.too_large:
        return (
            f"The observation is noisier than the training set, and too noisy for this run: {trained}. Beyond"
            f" {MAX_ERROR_FACTOR:g} times the largest of these, estimates lie outside their own intervals too often."
        )
    if level.differs:
        return (
            f"The observation is {'noisier' if level.level > 1 else 'less noisy'} than the training set: {trained}. The"
            " intervals are measured with the observation's own errors and remain valid; a network trained with such"
            " errors would give narrower ones."
        )
    return f"The intervals are measured on test planets with the observation's own errors; {trained}."
