"""The error of one answer: how far the truths lie from the answers, among simulated planets answered alike.

Further noise on an observation moves a point estimate far less than the truth may lie from it: a network that answers
the mean of what it cannot see is very sure of it. What it does not know is seen on test planets. Around one answer the
nearest test planets in the space of all answers are taken; their (truth - answer), in units of its local size, give the
quantiles. This is conformal prediction (Vovk et al. 2005; Lei et al. 2018, JASA 113, 1094) with a local scale, made
among neighbours, so that its coverage holds near the answer and not only on average. It was chosen by
``studies/answer_coverage.py``, beside three others.
"""

from dataclasses import dataclass, field

import numpy as np

from constants import Stream, stream
from preprocessing import add_noise

LEVELS = {"68": 0.6827, "95": 0.9545}  # one and two standard deviations of a normal distribution
NEIGHBOURS = 200  # test planets that give the quantiles
SCALING_NEIGHBOURS = 50  # test planets that give the size of (truth - answer) around one place
FEWEST = 50  # test planets below which no interval is given: 95 % needs 43 for its two ends
AT_ONCE = 256  # answers, so that memory stays small


def intervals(answers, truths, answer, quantiles=None):
    """Return the intervals that hold the truth behind an answer.

    Parameters
    ----------
    answers, truths : ndarray (n, n_amps)
        Of simulated planets that the network was not trained on, in retrieval space.
    answer : ndarray (m, n_amps)
        The answers that intervals are wanted for.
    quantiles : callable, optional
        Another rule than `local_neighbours`, to compare it with: the same arguments, the same result.

    Returns
    -------
    ndarray (n_levels, 2, m, n_amps)
        Low and high end for each of `LEVELS`; NaN where there are fewer than `FEWEST` planets. An end is never beyond
        the least and greatest truth, unless the answer itself is.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a number is not finite.
    """
    answers, truths, answer = (np.asarray(values, float) for values in (answers, truths, answer))
    if answers.ndim != 2 or answers.shape != truths.shape or answer.shape[1:] != answers.shape[1:]:
        raise ValueError(
            f"answers, truths, answer: expected (n, n_amps), the same, and (m, n_amps), received {answers.shape}, "
            f"{truths.shape}, {answer.shape}"
        )
    for name, values in (("answers", answers), ("truths", truths), ("answer", answer)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: expected finite numbers, received NaN or infinity")
    if len(answers) < FEWEST:
        return np.full((len(LEVELS), 2, *answer.shape), np.nan)
    ends = np.array([(1 - level) / 2 for level in LEVELS.values()])
    quantiles = quantiles or local_neighbours
    parts = [quantiles(answers, truths - answers, part, ends) for part in _parts(answer)]
    found = answer + np.concatenate(parts, axis=2)
    least, greatest = truths.min(axis=0), truths.max(axis=0)
    inside = (answer >= least) & (answer <= greatest)
    return np.where(inside, np.clip(found, least, greatest), found)


def local_neighbours(answers, residuals, answer, ends):
    """Return the quantiles of (truth - answer) that a local scale among the nearest planets gives.

    Parameters
    ----------
    answers, residuals : ndarray (n, n_amps)
        Of test planets; residuals are (truth - answer).
    answer : ndarray (m, n_amps)
    ends : ndarray (n_levels,)
        Probability below each low end, and above each high one.

    Returns
    -------
    ndarray (n_levels, 2, m, n_amps)
    """
    near = nearest(answers, answer, NEIGHBOURS)  # (m, k)
    rows, place = np.unique(near, return_inverse=True)
    relative = residuals[rows] / own_size(answers, residuals, rows)
    return conformal_quantiles(relative[place.reshape(near.shape)], ends, axis=1) * local_size(
        answers, residuals, answer
    )


def nearest(answers, answer, k):
    """Return the ``k`` nearest of ``answers`` (n, n_amps) to each ``answer`` (m, n_amps) as rows (m, k).

    Distances are in units of the standard deviation of each AMP's answers.
    """
    scale = np.maximum(answers.std(axis=0), 1e-300)
    here, there = answers / scale, answer / scale
    square = (here**2).sum(axis=1) - 2 * there @ here.T  # (m, n), but for what a row has in common
    k = min(k, len(answers))
    return np.argpartition(square, k - 1, axis=1)[:, :k]


def _parts(values):
    return [values[i : i + AT_ONCE] for i in range(0, len(values), AT_ONCE)]


def local_size(answers, residuals, answer):
    """Return the root mean square of (truth - answer) around each answer, (m, n_amps)."""
    near = nearest(answers, answer, SCALING_NEIGHBOURS)
    return _size(residuals[near])


def own_size(answers, residuals, rows):
    """Return the same around the planets ``rows``, each without itself, (len(rows), n_amps)."""
    sizes = []
    for part in _parts(rows):
        near = nearest(answers, answers[part], SCALING_NEIGHBOURS + 1)
        among = near != part[:, None]  # (m, k + 1)
        among[among.all(axis=1), -1] = False  # twins of it were nearer: any one goes
        sizes.append(_size(residuals[near[among].reshape(len(part), -1)]))
    return np.concatenate(sizes)


def _size(residuals):
    """Return the root mean square over neighbours, (m, k, n_amps) to (m, n_amps); never quite 0."""
    return np.maximum(np.sqrt((residuals**2).mean(axis=1)), 1e-300)


def conformal_quantiles(values, ends, axis):
    """Low and high ends (n_levels, 2, ...) that a further value like these falls between with the given probability.

    The rank is of n + 1 values, that of conformal prediction.
    """
    both = np.stack([ends, 1 - ends], axis=1)
    return np.quantile(values, both, axis=axis, method="weibull")


ALIKE = 200  # test planets around an answer
JUDGED = 500  # test planets whose own distances are the scale
OUTSIDE_SHARE = 0.99  # share of test planets that lie nearer, beyond which a spectrum is called unlike them
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
        return max(shares) > OUTSIDE_SHARE or self.beyond > BEYOND

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


INSIDE, OUTSIDE, UNKNOWN = "inside", "outside", "unknown"
MOST_BINS = 5  # that a sentence names
FAR = 5  # standard deviations of the training depths from which on a depth is called unlike them


@dataclass(frozen=True)
class Standing:
    """What is to be known before an answer is believed.

    Attributes
    ----------
    status : {"inside", "outside", "unknown"}
        Of the observation, among the simulated planets.
    sentences : list of str
        The verdict first.
    numbers : dict
        What it rests on, for ``verdict.yaml``.
    """

    status: str
    sentences: list
    numbers: dict = field(default_factory=dict)


def standing(likeness, level, wavelength, beyond=(), noisy=False, n_planets=0, far=0.0):
    """Say what is known of an observation.

    Parameters
    ----------
    likeness : observation.compare.Likeness or None
        None where the run keeps no test spectra, or too few.
    level : observation.compare.ErrorLevel or None
    wavelength : ndarray (n_bins,)
        Micron.
    beyond : sequence of str
        AMPs whose answer is beyond every simulated planet's truth.
    noisy : bool
        The simulated spectra hold noise themselves.
    n_planets : int
        Test planets that the errors are made of.
    far : float
        Standard deviations of all training depths by which the furthest bin lies from their mean.

    Returns
    -------
    Standing
    """
    sentences, numbers = [], {"test_planets": int(n_planets)}
    status = UNKNOWN if likeness is None else INSIDE
    far = far if likeness is None or likeness.outside else 0.0  # else the comparison has decided
    if beyond or far > FAR or (likeness is not None and likeness.outside):
        status = OUTSIDE
    if likeness is None:
        why = "this run keeps no test spectra: train it again" if level is None else "this run has too few test planets"
        sentences.append(f"Whether the observation is like the simulated planets is not known ({why}).")
    else:
        sentences.append(_of_distance(likeness, wavelength))
        numbers |= {
            "distance": likeness.distance,
            "test_planets_nearer": likeness.nearer,
            "greatest_pull": likeness.greatest_pull,
            "test_planets_pulled_less": likeness.pulled_less,
            "misfit": likeness.misfit,
            "test_planets_fitted_better": likeness.fitted_better,
            "share_of_bins_beyond_all": likeness.beyond,
            "strange_bins_micron": [float(wavelength[b]) for b in likeness.strange_bins],
        }
    if far > FAR:
        sentences.append(
            f"Its furthest bin lies {far:.0f} standard deviations from the training spectra: the network extrapolates."
        )
        numbers["standard_deviations_from_training"] = float(far)
    if beyond:
        sentences.append(f"The answer for {', '.join(beyond)} is beyond that of every simulated planet.")
        numbers["answers_beyond_simulated"] = list(beyond)
    sentences += _of_errors(level, noisy)
    if level is not None:
        numbers |= {"error_level": level.level, "error_level_trained": [level.least, level.greatest]}
    return Standing(status, sentences, {"status": status, **numbers})


def _of_distance(likeness, wavelength):
    bins, words = likeness.strange_bins, "Bins that stand out from the others"
    if likeness.outside and len(bins) == 0:
        bins, words = (
            np.argsort(-np.abs(likeness.pulls), kind="stable")[:3],
            "No bin stands out alone; furthest off are",
        )
    named = ", ".join(f"{wavelength[b]:.3g} µm ({likeness.pulls[b]:+.1f} σ)" for b in bins[:MOST_BINS])
    named += f" and {len(bins) - MOST_BINS} more" if len(bins) > MOST_BINS else ""
    where = f" {words}: {named}." if named else ""
    if likeness.beyond > 0:
        where += f" {likeness.beyond:.0%} of the bins are deeper or shallower than in any simulated planet."
    far = f"{likeness.nearer:.1%} of {likeness.n} simulated test planets lie nearer to those that are answered alike"
    bin_ = (
        f"{likeness.pulled_less:.1%} have a smaller greatest deviation of a bin, {likeness.fitted_better:.1%} less that"
    )
    bin_ += f" their like does not explain ({likeness.misfit:.2f} times the errors)"
    if likeness.outside:
        return (
            "OUTSIDE of what was trained on: hardly any simulated planet is as unlike the others as this spectrum, and"
            f" neither the answers nor their errors can be relied on. {far}; {bin_}.{where}"
        )
    return f"The spectrum looks like the simulated ones: {far}; {bin_}.{where}"


def _of_errors(level, noisy):
    if level is None:
        return ["The errors of the answers hold for spectra with the noise that the run was tested with."]
    trained = f"its errors are {level.level:.2g} times the median of those trained on ({level.least:.2g} to "
    trained += f"{level.greatest:.2g})"
    if noisy:
        text = "The simulated spectra hold noise themselves: the errors of the answers are for that noise, and "
        return [text + trained + ("; they are not right for this observation." if level.other else ".")]
    if level.other:
        return [
            f"The observation is {'noisier' if level.level > 1 else 'less noisy'} than what was trained on: {trained}."
            " The errors of the answers are measured with its own errors, and hold; but a network trained for them"
            " would answer better."
        ]
    return [f"The errors of the answers are measured on test planets with this observation's errors; {trained}."]
