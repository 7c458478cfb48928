"""Posterior mean and variance of noisy test spectra: the answer that a perfect network would give.

    python benchmarks/posterior.py --spectra 600 --nested 60 --true 5

adds to data/information.h5 what two samplers find on the emulator (`emulator.py`) with the priors of
`data/simulate.py`: importance sampling for many spectra, and nested sampling (nestle) for the first of them to check
it. `--true` re-weights a few posteriors with the true forward model instead of the emulator.
The noise is that of a run of seed 0, spectrum by spectrum (`runfile.predict_noisy`), so that a run's predictions can
be set beside the posterior means (`limit.py`).

The sensitivity of the best estimator needs no derivative: for Gaussian noise, d E[AMP | x] / d x_b is the posterior
covariance of the AMP with the modelled depth of bin b, divided by the squared error of the bin.

Layout, n spectra: sampler/{index (n,), rows (n,), mean (n, 9), variance (n, 9), effective (n,)}, sampler/optimal_map
and sampler/optimal_map_error (9, 52), AMP unit squared, mean over the spectra and its standard error, and
sampler/optimal_map_per_spectrum (the first 300, 9, 52);
nested/{index, rows, mean, variance, calls, log_evidence}; true/{index, mean, variance, effective_fraction}.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread per process

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from emulator import SPLIT_SEED, Emulator, load_rows, prior_limits
from emulator import STORED as EMULATOR
from information import STORED, pick_planets

from data.simulate import PRIORS
from results import written_whole

POOL = 50_000  # draws from the prior, shared by all spectra, that say where to begin
STARTS = 8  # of the climb to the maxima of a posterior
DRAWS = 2000  # per round of importance sampling
LEAST_ROUNDS, MOST_ROUNDS = 4, 20
COMPONENTS = 4  # Student t distributions in the proposal
FREEDOM = 5.0  # their degrees of freedom
MAPS_KEPT = 300  # spectra whose optimal map is stored by itself
WANTED = 500  # effective draws per spectrum before it is left alone
LIVE_POINTS = 250  # of nested sampling


def noisy_spectra(data, test, seed=SPLIT_SEED):
    """Return the spectra (n_test, n_bins) on which a run with this seed judges its networks."""
    from preprocessing import add_noise

    return add_noise(data.spectra[test], data.errors[test], np.random.default_rng([seed, 6]))


def to_amps(normal):
    """Turn standard normal coordinates (n, 9) into AMPs: the uniform priors become a normal one, without edges."""
    from scipy.special import ndtr

    low, high = prior_limits()
    return low + (high - low) * ndtr(normal)


class Mixture:
    """Mixture of Student t distributions, fitted to weighted points.

    Parameters
    ----------
    weight : ndarray (K,)
    mean : ndarray (K, d)
    covariance : ndarray (K, d, d)
    """

    def __init__(self, weight, mean, covariance):
        self.weight, self.mean = weight, mean
        self.cholesky = np.linalg.cholesky(covariance)
        self.inverse = np.linalg.inv(self.cholesky)

    def draw(self, n, rng):
        """Draw (n, d) points."""
        d = self.mean.shape[1]
        chosen = rng.choice(len(self.weight), n, p=self.weight)
        normal = rng.standard_normal((n, d)) / np.sqrt(rng.chisquare(FREEDOM, (n, 1)) / FREEDOM)
        return self.mean[chosen] + np.einsum("nij,nj->ni", self.cholesky[chosen], normal)

    def parts(self, points):
        """Log density of each weighted component, up to a common constant, (n, K), and squared distances (n, K)."""
        d = points.shape[1]
        distance = np.stack([((points - m) @ i.T) ** 2 for m, i in zip(self.mean, self.inverse)], 1).sum(axis=2)
        volume = np.log(np.diagonal(self.cholesky, axis1=1, axis2=2)).sum(axis=1)
        density = np.log(self.weight) - volume - (FREEDOM + d) / 2 * np.log1p(distance / FREEDOM)
        return density, distance

    def log_density(self, points):
        """Log density (n,), up to a constant that all mixtures share."""
        return np.logaddexp.reduce(self.parts(points)[0], axis=1)


def fit_mixture(points, weights, rng, components=COMPONENTS, steps=8):
    """Fit a mixture to points (n, d) of normalised weights (n,) by expectation and maximisation."""
    d = points.shape[1]
    spread = np.cov(points.T, aweights=weights) + 1e-8 * np.eye(d)
    mean = points[rng.choice(len(points), components, p=weights)]
    mixture = Mixture(np.full(components, 1 / components), mean, np.repeat(spread[None] / 2, components, axis=0))
    for _ in range(steps):
        density, distance = mixture.parts(points)
        share = np.exp(density - np.logaddexp.reduce(density, axis=1)[:, None]) * weights[:, None]  # (n, K)
        pull = share * (FREEDOM + d) / (FREEDOM + distance)
        total = share.sum(axis=0) + 1e-12
        mean = (pull.T @ points) / (pull.sum(axis=0)[:, None] + 1e-12)
        away = points[:, None] - mean  # (n, K, d)
        covariance = np.einsum("nk,nki,nkj->kij", pull, away, away, optimize=True) + 0.02 * spread
        covariance = covariance / (total + 0.02)[:, None, None] + 1e-8 * np.eye(d)  # the prior keeps small ones whole
        mixture = Mixture(np.maximum(total, 0.02) / np.maximum(total, 0.02).sum(), mean, covariance)
    return mixture


def best_fits(depth, spectrum, error, starts, steps=30):
    """Climb to the maxima of the posterior from several points at once (Levenberg and Marquardt).

    Parameters
    ----------
    depth : callable
        AMPs (n, 9) to depth (n, n_bins).
    spectrum, error : ndarray (n_bins,)
    starts : ndarray (S, d)
        In normal coordinates, where the prior is a standard normal distribution.
    steps : int

    Returns
    -------
    points : ndarray (S, d)
    covariance : ndarray (S, d, d)
        Inverse of the Gauss-Newton curvature there.
    cost : ndarray (S,)
        chi squared plus squared distance from the centre of the prior.
    """
    n, d = starts.shape
    damping = np.full(n, 1.0)
    moves = np.concatenate([np.zeros((1, d)), 1e-3 * np.eye(d)])

    def residuals(points):
        return (depth(to_amps(points)) - spectrum) / error

    def curvature(points):
        found = residuals((points[:, None] + moves).reshape(-1, d)).reshape(n, d + 1, -1)
        slope = (found[:, 1:] - found[:, :1]) / 1e-3  # (S, d, n_bins)
        return found[:, 0], slope, slope @ np.swapaxes(slope, 1, 2) + np.eye(d)

    points = starts.copy()
    for _ in range(steps):
        left, slope, matrix = curvature(points)
        cost = (left**2).sum(axis=1) + (points**2).sum(axis=1)
        gradient = np.einsum("sdb,sb->sd", slope, left) + points
        scale = damping[:, None, None] * np.einsum("sii->si", matrix)[:, :, None] * np.eye(d)
        step = np.linalg.solve(matrix + scale, gradient[..., None])[..., 0]
        trial = points - np.clip(step, -1, 1)
        new = (residuals(trial) ** 2).sum(axis=1) + (trial**2).sum(axis=1)
        better = new < cost
        points[better] = trial[better]
        damping = np.where(better, damping / 4, damping * 4)
    left, _, matrix = curvature(points)
    return points, np.linalg.inv(matrix), (left**2).sum(axis=1) + (points**2).sum(axis=1)


def softened(log_weight, wanted):
    """Normalise weights (n,), raised to the power (at most 1) at which at least ``wanted`` draws count."""

    def at(power):
        w = np.exp(power * (log_weight - log_weight.max()))
        return w / w.sum()

    low, high = 0.0, 1.0
    if 1 / (at(1.0) ** 2).sum() >= wanted:
        return at(1.0)
    for _ in range(25):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 / (at(middle) ** 2).sum() >= wanted else (low, middle)
    return at(low)


@dataclass
class Posterior:
    """What a sampler found for one spectrum; ``gain`` (9, n_bins) is d(mean) / d(depth), ``draws`` weighted AMPs."""

    mean: np.ndarray
    variance: np.ndarray
    effective: float
    gain: np.ndarray
    draws: np.ndarray
    weights: np.ndarray


def summarise(amps, weights, depth, error):
    """Posterior of weighted draws: amps (n, 9), normalised weights (n,), their depth (n, n_bins)."""
    mean = weights @ amps
    away = amps - mean
    gain = (away * weights[:, None]).T @ (depth - weights @ depth) / error**2
    return Posterior(mean, weights @ away**2, 1 / (weights**2).sum(), gain, amps, weights)


def importance_posterior(depth, spectrum, error, pool, rng):
    """Sample one posterior by adaptive importance sampling, begun at its maxima.

    Parameters
    ----------
    depth : callable
        AMPs (n, 9) to depth (n, n_bins).
    spectrum, error : ndarray (n_bins,)
    pool : (ndarray (n, 9), ndarray (n, n_bins))
        Draws from the prior in normal coordinates, and their depth: the best of them are where the climb begins.
    rng : numpy.random.Generator

    Returns
    -------
    Posterior
        Of the draws of all rounds, each weighted by its target over the mean density of all proposals.
    """
    distance = (((pool[1] - spectrum.astype(np.float32)) * (1 / error).astype(np.float32)) ** 2).sum(axis=1)
    starts = pool[0][np.argpartition(distance, STARTS)[:STARTS]]
    points, covariance, cost = best_fits(depth, spectrum, error, starts)
    good = np.argsort(cost)[:COMPONENTS]
    weight = np.exp(-0.25 * (cost[good] - cost[good[0]])) + 0.01
    mixture = Mixture(weight / weight.sum(), points[good], 1.5 * covariance[good])

    points, amps, model, target, density, mixtures = [], [], [], [], [], []
    for _ in range(MOST_ROUNDS):
        points.append(mixture.draw(DRAWS, rng))
        amps.append(to_amps(points[-1]))
        model.append(depth(amps[-1]))
        chi2 = (((model[-1] - spectrum) / error) ** 2).sum(axis=1)
        target.append(-0.5 * (chi2 + (points[-1] ** 2).sum(axis=1)))
        density = [np.logaddexp(d, mixture.log_density(p)) for d, p in zip(density, points)]
        mixtures.append(mixture)
        density.append(np.logaddexp.reduce([m.log_density(points[-1]) for m in mixtures], axis=0))
        log_weight = np.concatenate(target) - np.concatenate(density)
        weights = np.exp(log_weight - log_weight.max())
        weights /= weights.sum()
        if len(mixtures) >= LEAST_ROUNDS and 1 / (weights**2).sum() > WANTED:
            break
        mixture = fit_mixture(np.concatenate(points), softened(log_weight, 300), rng)
    return summarise(np.concatenate(amps), weights, np.concatenate(model), error)


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


def nested_posterior(depth, spectrum, error, rng):
    """Sample one posterior by nested sampling; return mean, variance (9,), calls and log evidence."""
    import nestle

    low, high = prior_limits()

    def log_likelihood(amps):
        return -0.5 * (((depth(amps) - spectrum) / error) ** 2).sum(axis=1)

    found = nestle.sample(
        lambda amps: float(log_likelihood(amps[None])[0]),
        lambda unit: low + (high - low) * unit,
        len(low),
        method="multi",
        npoints=LIVE_POINTS,
        dlogz=0.1,
        rstate=np.random.RandomState(rng.integers(2**31)),  # what nestle takes
        queue_size=40,
        pool=Batch(log_likelihood),
    )
    weights = found.weights / found.weights.sum()
    mean = weights @ found.samples
    return mean, weights @ (found.samples - mean) ** 2, found.ncall, found.logz


def true_posterior(model, emulated, spectrum, error, rng, n=800):
    """Re-weight draws from the emulator's posterior by the true forward model.

    Returns
    -------
    mean, variance : ndarray (9,)
        Under the true model.
    fraction : float
        Effective draws over draws: 1 where the emulator is exact.
    start_mean, start_variance : ndarray (9,)
        Of the same draws before re-weighting.
    """
    picked = emulated.draws[rng.choice(len(emulated.draws), n, p=emulated.weights)]
    chi2 = [(((depth - spectrum) / error) ** 2).sum(axis=1) for depth in (model.depth(picked), _depth(picked))]
    weights = np.exp(-0.5 * (chi2[0] - chi2[1] - (chi2[0] - chi2[1]).min()))
    weights /= weights.sum()
    mean = weights @ picked
    return mean, weights @ (picked - mean) ** 2, 1 / (weights**2).sum() / n, picked.mean(axis=0), picked.var(axis=0)


# --- one process per core ---

_work = {}


def _start(path):
    """Prepare a worker: the emulator, the noisy spectra and the pool of prior draws."""
    data, _, test = load_rows()
    emulator = Emulator.load(path)
    points = np.random.default_rng([SPLIT_SEED, 9]).standard_normal((POOL, len(PRIORS)))
    pool = points, emulator.depth(to_amps(points)).astype(np.float32)
    _work.update(
        depth=emulator.depth, noisy=noisy_spectra(data, test), error=data.errors[test].astype(float), pool=pool
    )


def _depth(amps):
    return _work["depth"](amps)


def _sample(place):
    spectrum, error, rng = _work["noisy"][place], _work["error"][place], np.random.default_rng([SPLIT_SEED, 10, place])
    found = importance_posterior(_depth, spectrum, error, _work["pool"], rng)
    return found.mean, found.variance, found.effective, (found.gain * error) ** 2


def _nest(place):
    rng = np.random.default_rng([SPLIT_SEED, 11, place])
    return nested_posterior(_depth, _work["noisy"][place], _work["error"][place], rng)


def _reweight(place):
    from data.forward_model import ForwardModel

    if "model" not in _work:
        _work["model"] = ForwardModel()
    spectrum, error, rng = _work["noisy"][place], _work["error"][place], np.random.default_rng([SPLIT_SEED, 10, place])
    found = importance_posterior(_depth, spectrum, error, _work["pool"], rng)
    return true_posterior(_work["model"], found, spectrum, error, rng)


def store(path, name, arrays):
    """Put a group into the file, which is replaced whole."""
    import shutil

    import h5py

    with written_whole(path) as part:
        if Path(path).is_file():
            shutil.copyfile(path, part)
        with h5py.File(part, "a") as file:
            file.pop(name, None)
            for key, values in arrays.items():
                packed = {"compression": "gzip", "shuffle": True, "dtype": np.float32} if values.ndim == 3 else {}
                file.create_dataset(f"{name}/{key}", data=values, track_times=False, **packed)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spectra", type=int, default=600, help="by importance sampling (default %(default)s)")
    parser.add_argument("--nested", type=int, default=60, help="by nested sampling (default %(default)s)")
    parser.add_argument("--true", type=int, default=5, help="with the true forward model (default %(default)s)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--emulator", type=Path, default=EMULATOR)
    parser.add_argument("--out", type=Path, default=STORED, help="default: data/information.h5")
    parser.add_argument("--quick", action="store_true", help="4 spectra, 1 nested, nothing written")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.spectra, arguments.nested, arguments.true = 4, 1, 0
    from tqdm import tqdm

    data, _, test = load_rows()
    index = pick_planets(len(test), max(arguments.spectra, arguments.nested, arguments.true))
    jobs = (("sampler", _sample), ("nested", _nest), ("true", _reweight))
    found = {}
    with ProcessPoolExecutor(arguments.processes, get_context("spawn"), _start, (arguments.emulator,)) as pool:
        for name, job in jobs:
            n = arguments.spectra if name == "sampler" else getattr(arguments, name)
            if n == 0:
                continue
            start = time.perf_counter()
            rows = list(tqdm(pool.map(job, index[:n].tolist()), total=n, unit="spectrum", desc=name, disable=None))
            found[name] = [np.array(column) for column in zip(*rows)]
            print(f"{name}: {n} spectra, {time.perf_counter() - start:.0f} s on {arguments.processes} processes")
            if not arguments.quick:
                store(arguments.out, name, named(name, found[name], index[:n], test))
    print("\n".join(summary(found, data.amps[test][index])))
    return 0


def named(name, columns, index, test):
    """Arrays of a group of the file by name."""
    place = {"index": index, "rows": test[index]}
    mean, variance, *rest = columns
    place |= {"mean": mean, "variance": variance}
    if name == "sampler":
        error = rest[1].std(axis=0, ddof=1) / np.sqrt(len(mean))
        maps = {"optimal_map": rest[1].mean(axis=0), "optimal_map_error": error}
        return {**place, "effective": rest[0], **maps, "optimal_map_per_spectrum": rest[1][:MAPS_KEPT]}
    if name == "nested":
        return {**place, "calls": rest[0], "log_evidence": rest[1]}
    return {**place, "effective_fraction": rest[0]}


def summary(found, truth):
    """Agreement of the samplers with each other, with the truth and with the true model, as lines of text."""
    lines = []
    if "sampler" in found:
        mean, variance, effective, _ = found["sampler"]
        lines.append(
            f"effective draws per spectrum: median {np.median(effective):.0f}, 1 % {np.quantile(effective, 0.01):.0f}, "
            f"least {effective.min():.0f}"
        )
        z2 = ((truth[: len(mean)] - mean) ** 2).mean(axis=0) / variance.mean(axis=0)
        lines.append("(truth - mean)^2 / variance, expected 1: " + _row(z2))
    if "nested" in found and "sampler" in found:
        n = len(found["nested"][0])
        shift = (found["sampler"][0][:n] - found["nested"][0]) / np.sqrt(found["nested"][1])
        ratio = found["sampler"][1][:n].mean(axis=0) / found["nested"][1].mean(axis=0)
        lines.append("importance against nested, rms shift of the mean in posterior deviations: " + _row(_rms(shift)))
        lines.append("    ratio of the mean variances: " + _row(ratio))
        lines.append(f"    calls of the likelihood per nested spectrum: {found['nested'][2].mean():.0f}")
    if "true" in found:
        mean, variance, fraction, before, spread = found["true"]
        lines.append(
            "true model against emulator, rms shift of the mean in posterior deviations: "
            + _row(_rms((mean - before) / np.sqrt(spread)))
        )
        lines.append("    ratio of the mean variances: " + _row(variance.mean(axis=0) / spread.mean(axis=0)))
        lines.append("    effective fraction of the draws: " + " ".join(f"{value:.3f}" for value in fraction))
    return lines


def _rms(values):
    return np.sqrt((values**2).mean(axis=0))


def _row(values):
    return " ".join(f"{name} {value:.3f}" for name, value in zip(PRIORS, values))


if __name__ == "__main__":
    sys.exit(main())
