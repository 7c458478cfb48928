"""Posterior mean and variance of noisy test spectra: the answer that a perfect network would give.

    python -m studies.posterior --spectra 300 --true 6

adds to data/information.h5 what a tempered sampler (`samplers.py`) finds on the emulator (`emulator.py`) with the
priors of `simulation.design`, and re-weights a few posteriors with the true forward model instead of the emulator. The
noise is that of a run of seed 0, spectrum by spectrum (`preprocessing.noisy_test_spectra`), so that the predictions
of a run can be set beside the posterior means (`limit.py`). What is stored is not computed again: a run that was
stopped, or one with more --spectra, goes on from there.

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
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread per process

import numpy as np

from common.files import written_whole
from common.processes import end_with_parent
from constants import Stream, stream
from preprocessing import noisy_test_spectra
from simulation.design import PRIORS
from studies.command import study_parser
from studies.emulator import SPLIT_SEED, Emulator, load_rows, prior_limits
from studies.emulator import STORED as EMULATOR
from studies.information import STORED, pick_planets
from studies.samplers import tempered_posterior

STORE_EVERY = 5  # spectra
TRUE_DRAWS = 800  # evaluations of the true forward model per re-weighted posterior


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


def start_worker():
    """Prepare a worker: the emulator and the noisy spectra."""
    end_with_parent()
    data, rest, test = load_rows()
    _work.update(prior=(data.amps[rest], data.spectra[rest].astype(float)))  # training planets: no test planet
    _work.update(emulator=Emulator.load(EMULATOR), noisy=noisy_test_spectra(data, test, SPLIT_SEED))
    _work.update(error=data.errors[test].astype(float), limits=np.array(prior_limits()), truth=data.amps[test])


def observation(place):
    """Return the modelled depth as a function of AMPs, the noisy spectrum and its errors, in a started worker."""
    return _work["emulator"].depth, _work["noisy"][place], _work["error"][place]


def sample(place, *key, left_out=()):
    """Sample the posterior of a test spectrum in a started worker.

    Parameters
    ----------
    place : int
        Among the test spectra.
    *key : int
        Of the random stream: another key, other draws.
    left_out : int or sequence of int
        Bins without which to do it.
    """
    rng = np.random.default_rng(stream(SPLIT_SEED, Stream.NESTED_SAMPLING, place, *key))
    depth, spectrum, error = observation(place)
    error = error.copy()
    error[list(np.atleast_1d(left_out).astype(int))] *= 1e6  # as good as never seen
    return tempered_posterior(depth, spectrum, error, _work["limits"], _work["prior"], rng)


def _nest(place):
    found = sample(place)
    maps = ((found.gain * _work["error"][place]) ** 2).astype(np.float32)
    below = ranks(found.draws, found.weights, _work["truth"][place])
    return found.calls, found.log_evidence, found.mean, found.variance, below, maps


def _reweight(place):
    from simulation.forward_model import ForwardModel

    if "model" not in _work:
        _work["model"] = ForwardModel()
    spectrum, error = _work["noisy"][place], _work["error"][place]
    rng = np.random.default_rng(stream(SPLIT_SEED, Stream.REWEIGHTING, place))
    mean, variance, fraction, *before = reweight(_work["model"], _work["emulator"], sample(place), spectrum, error, rng)
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
                packed = {"compression": "gzip", "shuffle": True} if values.ndim >= 3 else {}
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


def sample_all(pool, name, index, test, path, write, groups=GROUPS):
    """Run the job of one of ``groups`` over the planets ``index``, from where the file ends, storing as it goes."""
    from tqdm import tqdm

    job, keys = groups[name]
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
    with ProcessPoolExecutor(arguments.processes, get_context("spawn"), start_worker) as pool:
        for name, n in (("sampler", arguments.spectra), ("true", arguments.true)):
            found[name] = sample_all(pool, name, index[:n], test, arguments.out, not arguments.quick)
    print("\n".join(summary(found, data.amps[test][index])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
