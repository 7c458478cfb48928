"""Samplers of one posterior: a tempered population with Markov chains, and nested sampling to compare with."""

from dataclasses import dataclass

import numpy as np

WALKERS = 128
KEPT_FRACTION = 0.7  # of the walkers, in effect, from one temperature to the next
MOVES, STEPS, THIN = 10, 450, 15  # of every walker at each temperature; at the end, and one in so many of these is kept
LIVE_POINTS = 250  # of nestle, for comparison
WAITING = 40  # proposals that are evaluated at once


class Batch:
    """Stands in for the pool of threads that nestle hands its proposals to: evaluates all that wait in one call."""

    def __init__(self, function):
        self.function, self.waiting = function, []

    def submit(self, _, point):
        """Add a point to those that wait and return it; its ``result`` is its value."""
        self.waiting.append(Waiting(self, point))
        return self.waiting[-1]

    def map(self, _, points):
        """Evaluate all points."""
        return list(self.function(np.array(list(points))))

    def run(self):
        """Evaluate the points that wait."""
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
        """Remove the point from those that wait."""
        if self.value is None:
            self.batch.waiting.remove(self)
        return self.value is None


@dataclass
class Posterior:
    """Mean and variance (n_amps,), gain d(mean) / d(depth) (n_amps, n_bins), weighted draws, and evaluations of a
    posterior.
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

    Half of the walkers moves at a time, along differences of the other half, so that the posterior is left invariant.
    Every ``thin``-th of the last two thirds of the steps is kept: returns (n, d).
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
    """Sample one posterior by nested sampling; ``depth`` maps AMPs (n, n_amps) to (n, n_bins), ``limits`` are the
    priors.
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


def tempered_posterior(depth, spectrum, error, limits, prior, rng, n_walkers=WALKERS, moves=MOVES):
    """Sample one posterior by a population that moves from the prior to it (Del Moral et al. 2006, JRSS B 68, 411).

    The likelihood is raised to a power that grows from nearly 0 to 1. At each power the walkers are resampled by
    weight, so that distant modes keep their share, then moved by Markov chains (`walk`); more steps follow at the end.
    ``prior`` holds AMPs drawn from the prior and their depths. nestle with 150 live points gave deviations up to a
    fifth smaller.
    """
    low, high = limits

    def log_likelihood(unit):
        return -0.5 * (((depth(low + (high - low) * unit) - spectrum) / error) ** 2).sum(axis=1)

    value = -0.5 * (((prior[1] - spectrum) / error) ** 2).sum(axis=1)
    power, calls = next_power(value, 0.0, n_walkers / len(value)), 0
    log_evidence, weights = reweighted(power * value)
    walkers = (prior[0][rng.choice(len(value), n_walkers, p=weights)] - low) / (high - low)
    while True:
        walkers = walk(lambda unit, power=power: power * log_likelihood(unit), walkers, rng, moves, moves)
        calls += n_walkers * moves
        if power == 1:
            break
        value = log_likelihood(walkers)
        step = next_power(value, power, KEPT_FRACTION) - power
        gained, weights = reweighted(step * value)
        walkers, power, log_evidence = (
            walkers[rng.choice(n_walkers, n_walkers, p=weights)],
            power + step,
            log_evidence + gained,
        )
        power = 1.0 if power > 1 - 1e-9 else power
    draws = low + (high - low) * walk(log_likelihood, walkers, rng)
    weights = np.full(len(draws), 1 / len(draws))
    calls += n_walkers * STEPS
    return summarise(draws, weights, depth(draws), error, calls=calls, log_evidence=log_evidence)


def reweighted(log_weights):
    """Log of the mean weight, and the weights with sum 1, of ``log_weights`` (n,)."""
    largest = log_weights.max()
    weights = np.exp(log_weights - largest)
    return largest + np.log(weights.mean()), weights / weights.sum()


def next_power(value, power, fraction):
    """Power of the likelihood, at most 1, at which the effective share of the points (n,) falls to ``fraction``;
    bisection.
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
