"""An observation held against the simulated planets of a run: is it like them, and are its errors?

A run keeps test spectra; here they are seen as the observing instrument would see them, with noise of its errors.
An observed spectrum x is compared with the test planets that the network answers alike, `ALIKE` of them: with their
mean m and covariance C, and the variances S of the noise, d^2 = (x - m)' (C + S)^-1 (x - m) (Mahalanobis 1936). The
*pull* of a bin is how far it lies from what all other bins lead one to expect, in standard deviations of that
expectation: with P the inverse of C + S, (P (x - m))_b / sqrt(P_bb). The *misfit* is what is left over: S P (x - m) is
the part of x - m that is best called noise, and its root mean square in units of the errors is large where many bins
are a little wrong together, as with an offset between instruments or a weak band. None has a scale of its own. They are
told as the share of test planets, treated alike, that lie nearer.

One mean and covariance of all spectra would not do: spectra curve through their space, and a spectrum with a band that
no simulated planet has lies well within such an ellipsoid (``studies/answer_coverage.py`` measures both).
"""

from dataclasses import dataclass

import numpy as np

from constants import Stream, stream
from pipeline.uncertainty import nearest
from preprocessing import add_noise

ALIKE = 200  # test planets around an answer
JUDGED = 500  # test planets whose own distances are the scale
FEWEST = 50  # test planets below which nothing is said
OUTSIDE = 0.99  # share of test planets that lie nearer, beyond which a spectrum is called unlike them
STRANGE = 4.0  # standard deviations from which on a bin is named
BEYOND = 0.05  # share of bins outside of the range of all test planets, beyond which a spectrum is unlike them
OTHER_ERRORS = 1.25  # factor beyond the errors of the test planets from which on errors are called others


@dataclass(frozen=True)
class Likeness:
    """How an observation lies among the simulated spectra.

    Attributes
    ----------
    distance, greatest_pull : float
        Mahalanobis distance of the spectrum; the largest absolute pull of a bin.
    misfit : float
        Root mean square over bins of what no mixture of the planets alike explains, in errors.
    nearer, pulled_less, fitted_better : float
        Share of test planets with a smaller distance, greatest pull and misfit.
    pulls : ndarray (n_bins,)
        Of each bin: its distance from what the others lead one to expect, in standard deviations, with sign.
    expected : ndarray (n_bins,)
        That expectation, depth.
    n : int
        Test planets that it was compared with.
    beyond : float
        Share of the bins that are deeper or shallower than in any test planet.
    """

    distance: float
    nearer: float
    greatest_pull: float
    pulled_less: float
    misfit: float
    fitted_better: float
    pulls: np.ndarray
    expected: np.ndarray
    n: int
    beyond: float = 0.0

    @property
    def outside(self):
        """Whether the spectrum is unlike those trained on."""
        shares = (self.nearer, self.pulled_less, self.fitted_better)
        return max(shares) > OUTSIDE or self.beyond > BEYOND

    @property
    def strange_bins(self):
        """Bins that are pulled by more than `STRANGE` standard deviations, the worst first, (n,) of int."""
        order = np.argsort(-np.abs(self.pulls), kind="stable")
        return order[np.abs(self.pulls[order]) > STRANGE]


@dataclass(frozen=True)
class ErrorLevel:
    """The errors of an observation in units of the median errors of the data set that was trained on.

    Attributes
    ----------
    level : float
        Median over bins.
    least, greatest : float
        The same of the simulated planets: 1st and 99th percentile.
    """

    level: float
    least: float
    greatest: float

    @property
    def other(self):
        """Whether they are beyond those that the networks were trained on."""
        return not self.least / OTHER_ERRORS <= self.level <= self.greatest * OTHER_ERRORS


@dataclass(frozen=True)
class TestPlanets:
    """Simulated planets that no network was trained on, as the observing instrument would see them.

    Attributes
    ----------
    truths, answers : ndarray (n, n_amps)
        AMPs in retrieval space, and what the network says.
    clean, spectra : ndarray (n, n_bins)
        As in the data set, and with noise of the observation's errors; the same where the data set is noisy itself.
    error : ndarray (n_bins,)
        1-sigma errors of that noise, depth: of the observation, or of a noisy data set.
    noisy : bool
        Whether the data set is noisy itself.
    """

    __test__ = False  # no case of pytest

    truths: np.ndarray
    answers: np.ndarray
    clean: np.ndarray
    spectra: np.ndarray
    error: np.ndarray
    noisy: bool

    def compare(self, spectra, answers, rows=None):
        """Hold spectra against the planets that are answered alike.

        Parameters
        ----------
        spectra : ndarray (m, n_bins)
        answers : ndarray (m, n_amps)
        rows : sequence of int, optional
            Where the spectra are themselves of test planets: which, so that none is its own neighbour.

        Returns
        -------
        distance : ndarray (m,)
        pulls, deviations : ndarray (m, n_bins)
            The standard deviations that pulls are in units of, depth.
        """
        distance, pulls, deviations = np.empty(len(spectra)), np.empty(spectra.shape), np.empty(spectra.shape)
        alike = nearest(self.answers, answers, ALIKE + 1)
        for i, near in enumerate(alike):
            near = near[near != rows[i]] if rows is not None else near
            mean, precision = self._around(near[:ALIKE])
            weighted = precision @ (spectra[i] - mean)
            deviations[i] = 1 / np.sqrt(np.diag(precision))
            distance[i] = np.sqrt(max(weighted @ (spectra[i] - mean), 0))
            pulls[i] = weighted * deviations[i]
        return distance, pulls, deviations

    def misfit(self, pulls, deviations):
        """Root mean square over bins, (m,), in errors, of what is best called noise; arguments as `compare` returns."""
        return np.sqrt(np.mean((pulls / deviations * self.error) ** 2, axis=1))

    def _around(self, rows):
        """Return the mean and the inverse covariance, noise and all, of the spectra of some planets."""
        spectra = self.clean[rows]
        covariance = np.atleast_2d(np.cov(spectra.T))
        noise = np.diag(self.error**2)
        if self.noisy:  # it is in there already; shrunk towards it, as there may be more bins than planets
            share = spectra.shape[1] / (spectra.shape[1] + len(rows))
            covariance = (1 - share) * covariance + share * noise
        else:
            covariance = covariance + noise
        return spectra.mean(axis=0), np.linalg.inv(covariance)  # the noise keeps it far from singular


def is_noisy(run):
    """Whether the spectra of the run's data set hold noise themselves."""
    return bool(run.data.get("noisy", False))


def planets_as_seen(run, network, error, seed):
    """Show a run's test planets to its network as an instrument with these errors would see them.

    Parameters
    ----------
    run : runio.results.Run
        With a ``reference``.
    network : pipeline.network.TrainedNetwork
    error : ndarray (n_bins,)
        1-sigma errors of the observation, depth.
    seed : int

    Returns
    -------
    TestPlanets

    Raises
    ------
    ValueError
        If the errors are not of the run's bins, or not positive; or the network answers NaN or infinity.
    """
    kept = run.reference
    clean, noisy = kept["spectra"].astype(float), is_noisy(run)
    error = np.asarray(error, float)
    if error.shape != clean.shape[1:] or not (np.isfinite(error) & (error > 0)).all():
        raise ValueError(f"error: expected positive numbers of shape {clean.shape[1:]}, received shape {error.shape}")
    rng = np.random.default_rng(stream(seed, Stream.OBSERVATION_NOISE, 1))
    spectra = clean if noisy else add_noise(clean, error, rng)
    answers = network.predict(spectra, kept.get("auxiliary"))
    if not np.isfinite(answers).all():
        raise ValueError("network: expected finite answers to the test spectra of its run, received NaN or infinity")
    error = np.asarray(kept["error"] if noisy else error, float)
    return TestPlanets(run.y_test[kept["rows"]], answers, clean, spectra, error, noisy)


def likeness(depth, answer, planets):
    """Hold an observed spectrum against simulated ones.

    Parameters
    ----------
    depth : ndarray (n_bins,)
    answer : ndarray (n_amps,)
        The network's to it.
    planets : TestPlanets

    Returns
    -------
    Likeness or None
        None where there are fewer than `FEWEST` planets.
    """
    if len(planets.answers) < FEWEST:
        return None
    rows = np.unique(np.linspace(0, len(planets.answers) - 1, JUDGED).round().astype(int))
    distances, others, units = planets.compare(planets.spectra[rows], planets.answers[rows], rows)
    found = planets.compare(depth[None], answer[None])
    distance, pulls, deviations = (values[0] for values in found)
    greatest, misfit = np.abs(pulls).max(), planets.misfit(*found[1:])[0]
    return Likeness(
        distance=float(distance),
        nearer=float(np.mean(distances < distance)),
        greatest_pull=float(greatest),
        pulled_less=float(np.mean(np.abs(others).max(axis=1) < greatest)),
        misfit=float(misfit),
        fitted_better=float(np.mean(planets.misfit(others, units) < misfit)),
        pulls=pulls,
        expected=depth - pulls * deviations,
        n=len(rows),
        beyond=float(beyond_all(depth[None], planets.spectra)[0]),
    )


def beyond_all(spectra, others):
    """Share of the bins of each of ``spectra`` (m, n_bins) that lies outside of the range of all ``others``, (m,)."""
    return ((spectra < others.min(axis=0)) | (spectra > others.max(axis=0))).mean(axis=1)


def error_level(run, error):
    """Compare the errors of an observation with those of the run; ``error`` (n_bins,), depth; an `ErrorLevel`."""
    least, greatest = np.quantile(run.reference["error_level"], [0.01, 0.99])
    return ErrorLevel(float(np.median(error / run.reference["error"])), float(least), float(greatest))
