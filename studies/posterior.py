"""Posterior mean and variance of noisy test spectra: the answer that a perfect network would give.

    python -m studies.posterior --spectra 300 --true 6

adds to data/information.h5 what a tempered sampler finds on the emulator (`emulator.py`) with the priors of
`data/simulate.py`, and re-weights a few posteriors with the true forward model instead of the emulator. The noise is
that of a run of seed 0, spectrum by spectrum (`preprocessing.noisy_test_spectra`), so that the predictions of a run
can be set beside the posterior means (`limit.py`). What is stored is not computed again: a run that was stopped, or
one with more --spectra, goes on from there.

The sensitivity of the best estimator needs no derivative: for Gaussian noise, d E[AMP | x] / d x_b is the posterior
covariance of the AMP with the modelled depth of bin b, divided by the squared error of the bin.

Layout, n spectra: sampler/{index, rows, calls, log_evidence (n,), mean, variance, rank (n, 9), optimal_map
(n, 9, 52)}, rank the share of the posterior below the truth, the last in AMP units squared; m spectra with the true
model: true/{index, rows, effective_fraction (m,), mean, variance, mean_emulator, variance_emulator (m, 9)}.
"""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread per process

import numpy as np

from constants import Stream, stream
from data.simulate import PRIORS
from data.workers import end_with_parent
from preprocessing import noisy_test_spectra
from runio.files import written_whole
from studies.command import study_parser
from studies.emulator import SPLIT_SEED, Emulator, load_rows, prior_limits
from studies.emulator import STORED as EMULATOR
from studies.information import STORED, pick_planets

WALKERS = 128
KEPT_FRACTION = 0.7  # of the walkers, in effect, from one temperature to the next
MOVES, STEPS, THIN = 10, 450, 15  # of every walker at each temperature; at the end, and one in so many of these is kept
LIVE_POINTS = 250  # of nestle, for comparison
WAITING = 40  # proposals that are evaluated at once
STORE_EVERY = 5  # spectra
TRUE_DRAWS = 800  # evaluations of the true forward model per re-weighted posterior


class Batch:
    """Stands in for the pool of threads that nestle hands its proposals to: evaluates all that wait in one call.

    Parameters
    ----------
    function : callable
        (n, d) to (n,).
    """

    def __init__(self, function):
        self.function, self.waiting = function, []

    def submit(self, _, point):
        """Put a point on the list and return it as something that has a ``result``."""
        self.waiting.append(Waiting(self, point))
        return self.waiting[-1]

    def map(self, _, points):
        """Evaluate all points."""
        return list(self.function(np.array(list(points))))

    def run(self):
        """Evaluate those that wait."""
        for one, value in zip(self.waiting, self.function(np.array([one.point for one in self.waiting]))):
            one.value = float(value)
        self.waiting = []


class Waiting:
    """A point that `Batch` has yet to evaluate, or its value."""

    def __init__(self, batch, point):
        self.batch, self.point, self.value = batch, point, None

    def result(self):
        """Return the value of the function."""
        if self.value is None:
            self.batch.run()
        return self.value

    def cancel(self):
        """Take the point off the list."""
        if self.value is None:
            self.batch.waiting.remove(self)
        return self.value is None


@dataclass
class Posterior:
    """What the sampler found for one spectrum.

    Attributes
    ----------
    mean, variance : ndarray (n_amps,)
    gain : ndarray (n_amps, n_bins)
        d(mean) / d(depth).
    draws, weights : ndarray (n, n_amps), (n,)
        The posterior as weighted points.
    calls : int
        Evaluations of the likelihood.
    log_evidence : float
    """

    mean: np.ndarray
    variance: np.ndarray
    gain: np.ndarray
    draws: np.ndarray
    weights: np.ndarray
    calls: int = 0
    log_evidence: float = float("nan")


def summarise(draws, weights, depth, error, **about):
    """Posterior of draws (n, n_amps) with normalised weights (n,) and modelled depth (n, n_bins)."""
    mean = weights @ draws
    away = draws - mean
    gain = (away * weights[:, None]).T @ (depth - weights @ depth) / error**2
    return Posterior(mean, weights @ away**2, gain, draws, weights, **about)


def walk(log_likelihood, start, rng, steps=STEPS, thin=THIN):
    """Markov chains by differential evolution (ter Braak 2006, Stat. Comput. 16, 239), uniform prior on the unit cube.

    Half of the walkers moves at a time, along differences of the other half, so the posterior is left invariant.

    Parameters
    ----------
    log_likelihood : callable
        (n, d) in the unit cube to (n,).
    start : ndarray (n_walkers, d)
    rng : numpy.random.Generator
    steps, thin : int
        Every ``thin``-th of the last two thirds of the steps is kept.

    Returns
    -------
    ndarray (n, d)
    """
    halves = [start[::2].copy(), start[1::2].copy()]
    values = [log_likelihood(half) for half in halves]
    kept, n_dim = [], start.shape[1]
    for step in range(1, steps + 1):
        for k in (0, 1):
            now, others = halves[k], halves[1 - k]
            first, second = (rng.integers(len(others), size=len(now)) for _ in range(2))
            scale = np.where(rng.random((len(now), 1)) < 0.1, 1.0, 2.38 / np.sqrt(2 * n_dim))
            new = now + scale * (others[first] - others[second]) + 1e-5 * rng.standard_normal(now.shape)
            inside = ((new >= 0) & (new <= 1)).all(axis=1)
            value = np.where(inside, log_likelihood(np.clip(new, 0, 1)), -np.inf)
            accepted = np.log(rng.random(len(now))) < value - values[k]
            halves[k] = np.where(accepted[:, None], new, now)
            values[k] = np.where(accepted, value, values[k])
        if 3 * step > steps and step % thin == 0:
            kept.extend(halves)
    return np.concatenate([np.array(half) for half in kept])


def nested_posterior(depth, spectrum, error, limits, rng):
    """Sample one posterior.

    Parameters
    ----------
    depth : callable
        AMPs (n, n_amps) to depth (n, n_bins).
    spectrum, error : ndarray (n_bins,)
    limits : ndarray (2, n_amps)
        Ends of the uniform priors.
    rng : numpy.random.Generator

    Returns
    -------
    Posterior
    """
    import nestle

    low, high = limits

    def log_likelihood(amps):
        return -0.5 * (((depth(amps) - spectrum) / error) ** 2).sum(axis=1)

    found = nestle.sample(
        None,  # `Batch` knows it
        lambda unit: low + (high - low) * unit,
        len(low),
        method="multi",
        npoints=LIVE_POINTS,
        dlogz=0.1,
        rstate=np.random.RandomState(rng.integers(2**31)),  # what nestle takes
        queue_size=WAITING,
        pool=Batch(log_likelihood),
    )
    counted = found.weights > 1e-6 * found.weights.max()
    draws, weights = found.samples[counted], found.weights[counted] / found.weights[counted].sum()
    return summarise(draws, weights, depth(draws), error, calls=found.ncall, log_evidence=found.logz)


def tempered_posterior(depth, spectrum, error, limits, prior, rng):
    """Sample one posterior by a population that is led from the prior to it (Del Moral et al. 2006, JRSS B 68, 411).

    The likelihood is raised to a power that grows from nearly 0 to 1. At each power the walkers are drawn anew by
    weight, so that distant modes keep their share, and then moved by Markov chains (`walk`); more steps follow at
    the end. nestle with 150 live points (`nested_posterior`) gave deviations up to a fifth smaller.

    Parameters
    ----------
    depth : callable
        AMPs (n, n_amps) to depth (n, n_bins).
    spectrum, error : ndarray (n_bins,)
    limits : ndarray (2, n_amps)
        Ends of the uniform priors.
    prior : (ndarray (n, n_amps), ndarray (n, n_bins))
        AMPs drawn from the prior, and their depths.
    rng : numpy.random.Generator

    Returns
    -------
    Posterior
    """
    low, high = limits

    def log_likelihood(unit):
        return -0.5 * (((depth(low + (high - low) * unit) - spectrum) / error) ** 2).sum(axis=1)

    value = -0.5 * (((prior[1] - spectrum) / error) ** 2).sum(axis=1)
    power, calls = next_power(value, 0.0, WALKERS / len(value)), 0
    log_evidence, weights = reweighted(power * value)
    walkers = (prior[0][rng.choice(len(value), WALKERS, p=weights)] - low) / (high - low)
    while True:
        walkers = walk(lambda unit, power=power: power * log_likelihood(unit), walkers, rng, MOVES, MOVES)
        calls += WALKERS * MOVES
        if power == 1:
            break
        value = log_likelihood(walkers)
        step = next_power(value, power, KEPT_FRACTION) - power
        gained, weights = reweighted(step * value)
        walkers, power, log_evidence = (
            walkers[rng.choice(WALKERS, WALKERS, p=weights)],
            power + step,
            log_evidence + gained,
        )
        power = 1.0 if power > 1 - 1e-9 else power
    draws = low + (high - low) * walk(log_likelihood, walkers, rng)
    weights = np.full(len(draws), 1 / len(draws))
    calls += WALKERS * STEPS
    return summarise(draws, weights, depth(draws), error, calls=calls, log_evidence=log_evidence)


def reweighted(log_weights):
    """Log of the mean weight, and the weights with sum 1, of ``log_weights`` (n,)."""
    largest = log_weights.max()
    weights = np.exp(log_weights - largest)
    return largest + np.log(weights.mean()), weights / weights.sum()


def next_power(value, power, fraction):
    """Power of the likelihood, at most 1, at which ``fraction`` of the points are left in effect; bisection.

    ``value`` (n,) is the log likelihood of points that are distributed as the prior times the likelihood to ``power``.
    """

    def left(step):
        weights = reweighted(step * value)[1]
        return 1 / (weights**2).sum() / len(value)

    small, large = 0.0, 1.0 - power
    if left(large) >= fraction:
        return 1.0
    for _ in range(40):
        middle = (small + large) / 2
        small, large = (middle, large) if left(middle) > fraction else (small, middle)
    return power + small


def ranks(draws, weights, truth):
    """Share of the posterior below the truth, (n_amps,): uniform from 0 to 1 over planets if posteriors are right.

    Simulation-based calibration (Talts et al. 2018, arXiv:1804.06788) with weighted draws.

    Parameters
    ----------
    draws, weights : ndarray (n, n_amps), (n,)
        Posterior as weighted points; the weights sum to 1.
    truth : ndarray (n_amps,)
    """
    return weights @ (draws < truth) + 0.5 * (weights @ (draws == truth))


def uniformity(found):
    """p-value of the Kolmogorov-Smirnov test of uniform ranks (n, n_amps), per AMP (n_amps,)."""
    from scipy.stats import kstest

    return np.array([kstest(column, "uniform").pvalue for column in np.asarray(found).T])


def reweight(model, emulator, found, spectrum, error, rng, n=TRUE_DRAWS):
    """Re-weight draws of the emulator's posterior by the true forward model.

    Returns
    -------
    mean, variance : ndarray (n_amps,)
        Under the true model.
    fraction : float
        Effective draws over draws: 1 where the emulator is exact.
    mean_emulator, variance_emulator : ndarray (n_amps,)
        Of the same draws before re-weighting.
    """
    picked = found.draws[rng.choice(len(found.draws), n, p=found.weights)]
    chi2 = [(((depth(picked) - spectrum) / error) ** 2).sum(axis=1) for depth in (model.depth, emulator.depth)]
    weights = np.exp(-0.5 * (chi2[0] - chi2[1] - (chi2[0] - chi2[1]).min()))
    weights /= weights.sum()
    mean = weights @ picked
    fraction = 1 / (weights**2).sum() / n
    return mean, weights @ (picked - mean) ** 2, fraction, picked.mean(axis=0), picked.var(axis=0)


# --- one process per core ---

_work = {}


def _start():
    """Prepare a worker: the emulator and the noisy spectra."""
    end_with_parent()
    data, rest, test = load_rows()
    _work.update(prior=(data.amps[rest], data.spectra[rest].astype(float)))  # training planets: no test planet
    _work.update(emulator=Emulator.load(EMULATOR), noisy=noisy_test_spectra(data, test, SPLIT_SEED))
    _work.update(error=data.errors[test].astype(float), limits=np.array(prior_limits()), truth=data.amps[test])


def _sample(place):
    rng = np.random.default_rng(stream(SPLIT_SEED, Stream.NESTED_SAMPLING, place))
    spectrum, error = _work["noisy"][place], _work["error"][place]
    return tempered_posterior(_work["emulator"].depth, spectrum, error, _work["limits"], _work["prior"], rng)


def _nest(place):
    found = _sample(place)
    maps = ((found.gain * _work["error"][place]) ** 2).astype(np.float32)
    below = ranks(found.draws, found.weights, _work["truth"][place])
    return found.calls, found.log_evidence, found.mean, found.variance, below, maps


def _reweight(place):
    from data.forward_model import ForwardModel

    if "model" not in _work:
        _work["model"] = ForwardModel()
    spectrum, error = _work["noisy"][place], _work["error"][place]
    rng = np.random.default_rng(stream(SPLIT_SEED, Stream.REWEIGHTING, place))
    mean, variance, fraction, *before = reweight(
        _work["model"], _work["emulator"], _sample(place), spectrum, error, rng
    )
    return fraction, mean, variance, *before


GROUPS = {
    "sampler": (_nest, ("calls", "log_evidence", "mean", "variance", "rank", "optimal_map")),
    "true": (_reweight, ("effective_fraction", "mean", "variance", "mean_emulator", "variance_emulator")),
}

# --- the file ---


def store(path, name, arrays):
    """Put a group into the file, which is replaced whole."""
    import h5py

    with written_whole(path) as part:
        if Path(path).is_file():
            with h5py.File(path) as old, h5py.File(part, "w") as file:  # copying by object leaves no holes
                for key in old:
                    if key != name:
                        old.copy(key, file)
                file.attrs.update(old.attrs)
        with h5py.File(part, "a") as file:
            for key, values in arrays.items():
                packed = {"compression": "gzip", "shuffle": True} if values.ndim == 3 else {}
                file.create_dataset(f"{name}/{key}", data=values, track_times=False, **packed)


def read(path, name, index):
    """Arrays of a group, as far as they belong to the first planets of ``index``; {} if there are none."""
    import h5py

    if not Path(path).is_file():
        return {}
    with h5py.File(path) as file:
        if name not in file or "index" not in file[name]:
            return {}
        n = min(len(file[name]["index"]), len(index))
        arrays = {key: values[:n] for key, values in file[name].items()}
    return arrays if np.array_equal(arrays["index"], index[:n]) else {}


def sample_all(pool, name, index, test, path, write):
    """Run the job of a group over the planets ``index``, from where the file ends, storing as it goes."""
    from tqdm import tqdm

    job, keys = GROUPS[name]
    arrays = read(path, name, index) if write else {}
    done = len(arrays.get("index", ()))
    rows, todo = [], index[done:]
    start = time.perf_counter()
    for row in tqdm(pool.map(job, todo.tolist()), total=len(todo), unit="spectrum", desc=name, disable=None):
        rows.append(row)
        if (len(rows) % STORE_EVERY == 0 or len(rows) == len(todo)) and len(rows):
            new = dict(zip(keys, (np.array(column) for column in zip(*rows))))
            joined = {key: np.concatenate([arrays[key], new[key]]) if done else new[key] for key in keys}
            joined |= {"index": index[: done + len(rows)], "rows": test[index[: done + len(rows)]]}
            if write:
                store(path, name, joined)
    if todo.size:
        print(f"{name}: {len(todo)} spectra in {time.perf_counter() - start:.0f} s")
    return joined if rows else arrays


def summary(found, truth):
    """Agreement of the sampler with the truth and of the emulator with the true model, as lines of text."""
    lines = []
    if found.get("sampler"):
        sampled = found["sampler"]
        z2 = (truth[: len(sampled["mean"])] - sampled["mean"]) ** 2 / sampled["variance"]
        lines.append(f"{len(z2)} spectra, {sampled['calls'].mean():.0f} calls of the likelihood each")
        lines.append("mean of (truth - mean)^2 / variance, expected 1: " + _row(z2.mean(axis=0)))
        lines.append("    its standard error: " + _row(z2.std(axis=0, ddof=1) / np.sqrt(len(z2))))
        lines.append("Kolmogorov-Smirnov p of uniform ranks of the truths: " + _row(uniformity(sampled["rank"])))
    if found.get("true"):
        true = found["true"]
        shift = (true["mean"] - true["mean_emulator"]) / np.sqrt(true["variance_emulator"])
        ratio = true["variance"].mean(axis=0) / true["variance_emulator"].mean(axis=0)
        lines.append(
            "true model against emulator, rms shift of the mean in posterior deviations: "
            + _row(np.sqrt((shift**2).mean(axis=0)))
        )
        lines.append("    ratio of the mean variances: " + _row(ratio))
        lines.append("    effective fraction of the draws: " + " ".join(f"{v:.2f}" for v in true["effective_fraction"]))
    return lines


def _row(values):
    return " ".join(f"{name} {value:.3f}" for name, value in zip(PRIORS, values))


def main():
    parser = study_parser("posterior", __doc__)
    parser.add_argument("--spectra", type=int, default=300, help="spectra to sample (default %(default)s)")
    parser.add_argument("--true", type=int, default=6, help="with the true forward model (default %(default)s)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=STORED, help="default: data/information.h5")
    parser.add_argument("--quick", action="store_true", help="2 spectra, nothing written")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.spectra, arguments.true = 2, 0
    data, _, test = load_rows()
    index = pick_planets(len(test), max(arguments.spectra, arguments.true))
    found = {}
    with ProcessPoolExecutor(arguments.processes, get_context("spawn"), _start) as pool:
        for name, n in (("sampler", arguments.spectra), ("true", arguments.true)):
            found[name] = sample_all(pool, name, index[:n], test, arguments.out, not arguments.quick)
    print("\n".join(summary(found, data.amps[test][index])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
