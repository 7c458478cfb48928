"""The engine of the sensitivity test: perturb chunks of spectra, predict, and add up. No arguments are checked here.

docs/method.md says what is computed. `make_chunks` yields small picklable `Chunk`s, `run_chunk` is a pure function of
(models, chunk, plan), and `accumulate` adds up its maps in the order of the spectra. Draws depend only on the seed and
on the index of the spectrum. Where bins move one at a time nothing is drawn: see `quadrature`.

Several networks can predict from the same perturbed spectra. Their maps, and that of the mean of their predictions, are
stacked: n_rows = n_AMPs for one network, (K + 1) n_AMPs for K of them.
"""

import time
from dataclasses import dataclass, replace
from itertools import zip_longest
from queue import SimpleQueue

import numpy as np

from perturbation.predictors import side_by_side
from perturbation.quadrature import even_share, map_chunk

SMALL_PRODUCT = 200_000  # multiplications that BLAS does in one thread: more threads would fight the network's
REPEATS_AT_ONCE = 1000  # at most, in one call of the network
CHUNKS_AHEAD = 64  # handed to an executor beyond the oldest one that is still awaited, so that memory stays bounded


def halving_sizes(n_bins):
    """Sizes of the published groups: half of the bins, then half of that, rounded up, until all are used.

    >>> halving_sizes(52), halving_sizes(8)
    ([26, 13, 7, 4, 2], [4, 2, 1, 1])
    """
    sizes, left, size = [], n_bins, n_bins
    while left:
        size = min((size + 1) // 2, left)
        sizes.append(size)
        left -= size
    return sizes


def choose_groups(labels, shuffle, n_repeats, rng):
    """Group of each bin in each repeat: (n_repeats, n_bins) of integers, from the labels of one repeat (n_bins,)."""
    if not shuffle:
        return np.broadcast_to(labels, (n_repeats, len(labels)))
    # Sort random numbers that carry a label in their last bits: three times as quick as rng.permuted
    bits = int(labels.max()).bit_length()
    keys = rng.integers(2**32, size=(n_repeats, len(labels)), dtype=np.uint32) << bits
    keys |= labels.astype(np.uint32)
    keys.sort(axis=1)
    return keys & (2**bits - 1)


def perturb(spectrum, noise, mask, out):
    """Fill ``out`` (n_repeats, n_groups, n_bins) with the spectrum, and noise (n_repeats, n_bins) where ``mask`` is."""
    np.multiply(mask, noise[:, None, :], out=out)
    np.add(out, spectrum, out=out)


def sum_over_repeats(change, mask, again=None):
    """Give each bin the squared change of its group; sums over repeats of that and of its square: (2, n_AMPs, n_bins).

    ``change`` (rows, n_AMPs) is f(x') - f(x), ``mask`` (rows, n_bins) tells which bins moved. ``again`` is the change
    in a second call; for models that predict at random, the product of the two takes the place of the square. As every
    bin is in one group per repeat, both sums are one matrix product.
    """
    squares = np.multiply(change.T, change.T if again is None else again.T, dtype=np.float64, order="C")
    moments = np.concatenate([squares, np.square(squares)])  # (2 n_AMPs, rows)
    n_amps, n_bins = change.shape[1], mask.shape[1]
    sums = np.zeros((2 * n_amps, n_bins))
    step = max(1, SMALL_PRODUCT // sums.size)
    for start in range(0, len(mask), step):
        rows = slice(start, start + step)
        sums += moments[:, rows] @ mask[rows].astype(np.float64)
    return sums.reshape(2, n_amps, n_bins)


@dataclass(frozen=True)
class Chunk:
    """Some spectra, scaled for each of K networks, in float32.

    ``noise`` is (K, n, n_bins) errors, or (K, n or 1, n_bins, n_bins) square roots F of covariances F F^T for random
    repeats, or (K, n or 1, n_directions, n_bins) directions for quadrature.
    """

    indices: np.ndarray  # (n,) rows of org_spectrum
    spectra: np.ndarray  # (K, n, n_bins)
    noise: np.ndarray
    auxiliary: np.ndarray | None  # (K, n, k)

    @property
    def task_name(self):
        """What a message calls this chunk."""
        return f"spectra {self.indices[0]} to {self.indices[-1]}"


def make_chunks(plan, rows):
    """Yield the spectra of ``rows`` as `Chunk`s of ``plan.chunk_size``; nothing is copied before its turn."""
    given, x_std = plan.noise, plan.x_std  # (N, n_bins), or (N or 1, ..., n_bins) covariances or directions
    if plan.is_covariance and len(given) == 1:
        given = covariance_root(given, "org_error")
    for start in range(0, len(rows), plan.chunk_size):
        some = rows[start : start + plan.chunk_size]
        noise = given if len(given) == 1 else given[some]
        if plan.is_covariance and len(given) > 1:
            noise = np.stack([covariance_root(one, f"org_error, spectrum {i}") for i, one in zip(some, noise)])
        scaled = [(plan.spectra[some] - mean) / std for mean, std in zip(plan.x_mean, x_std)]
        noise = [noise / (std[:, None] if plan.is_covariance else std) for std in x_std]
        auxiliary = None if plan.auxiliary is None else plan.auxiliary[:, some]
        yield Chunk(some, np.array(scaled, np.float32), np.array(noise, np.float32), auxiliary)


def covariance_root(covariance, name):
    """Matrices F with F F^T = covariance (..., n_bins, n_bins), which is checked; it is called ``name`` in messages."""
    size = np.abs(covariance).max()
    if not np.isfinite(size):
        raise ValueError(f"{name}: expected finite numbers, received NaN or infinity")
    if np.abs(covariance - np.swapaxes(covariance, -1, -2)).max() > 1e-8 * size:
        raise ValueError(f"{name}: expected a symmetric covariance, received one that is not")
    values, vectors = np.linalg.eigh(covariance)  # ascending
    if (values[..., 0] < -1e-8 * values[..., -1] * values.shape[-1]).any():
        raise ValueError(f"{name}: expected no negative eigenvalue, received {values[..., 0].min():.3g}")
    return vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]


def run_chunk(models, chunk, plan):
    """Return the maps of the spectra of one chunk: (n, n_arrays, n_rows, n_columns), scaled units squared.

    Of random repeats these are their mean and the variance of that mean; of quadrature see `quadrature.map_chunk`. The
    map of a spectrum depends on the models, the spectrum, its index and the plan, never on its neighbours.
    """
    predictors = [replace(call, model=model) for model, call in zip(models, plan.calls, strict=True)]
    if plan.rule is not None:
        return map_chunk(predictors, chunk, plan)
    each = range(len(chunk.indices))
    return np.stack(side_by_side(predictors, lambda k: _map_by_repeats(predictors, chunk, k, plan), each, chunk))


def time_chunk(models, chunk, plan):
    """Return the seconds that `run_chunk` needs for each spectrum of a chunk, once the models have been used."""
    run_chunk(models, chunk, plan)
    start = time.perf_counter()
    run_chunk(models, chunk, plan)
    return (time.perf_counter() - start) / len(chunk.indices)


def _map_by_repeats(predictors, chunk, k, plan):
    """Return the mean over random repeats and its variance for one spectrum of a chunk, (2, n_rows, n_bins)."""
    index = int(chunk.indices[k])
    # Two streams, each read repeat by repeat, so that draws do not depend on the batch size
    groups_rng, noise_rng = (
        np.random.default_rng(np.random.SeedSequence(plan.seed, spawn_key=(index, stream))) for stream in (0, 1)
    )
    n_bins, n_groups = chunk.spectra.shape[-1], int(plan.labels.max()) + 1
    most = even_share(min(plan.repeat, REPEATS_AT_ONCE), (plan.batch_size - 1) // n_groups)
    per_batch = even_share(plan.repeat, most)  # 10,000 repeats take the memory of 1000

    # Each batch has the same shape and carries the unperturbed spectrum as its first row
    rows = np.empty((1 + per_batch * n_groups, n_bins), np.float32)
    perturbed = rows[1:].reshape(per_batch, n_groups, n_bins)
    sums = 0.0
    for start in range(0, plan.repeat, per_batch):
        n = min(per_batch, plan.repeat - start)
        groups = choose_groups(plan.labels, plan.shuffle, n, groups_rng)  # (n, n_bins)
        normals = noise_rng.standard_normal((n, n_bins), dtype=np.float32)
        mask = groups[:, None, :] == np.arange(n_groups, dtype=groups.dtype)[:, None]  # (n, n_groups, n_bins)
        changes, again = [], []
        for network, predict in enumerate(predictors):
            spectrum, scale = chunk.spectra[network, k], chunk.noise[network, k % chunk.noise.shape[1]]
            # A group of jointly normal bins is drawn from its own block by drawing all bins and using the group's. One
            # product of all rows would depend on their number
            noise = np.matmul(normals[:, None, :], scale.T)[:, 0] if scale.ndim == 2 else normals * scale
            rows[0] = spectrum
            perturb(spectrum, noise, mask, out=perturbed[:n])
            perturbed[n:] = spectrum
            auxiliary = None if chunk.auxiliary is None else chunk.auxiliary[network, k]
            for kept in (changes, again)[: 1 + plan.asks_twice]:
                given = rows.copy() if plan.asks_twice else rows  # a model may write on what it is given
                predictions = predict(given, auxiliary, f"spectrum {index}")  # (rows, n_AMPs)
                kept.append(predictions[1 : 1 + n * n_groups] - predictions[0])
        mask = mask.reshape(-1, n_bins)
        pairs = zip_longest(plan.with_mean(changes), plan.with_mean(again))
        by_network = [sum_over_repeats(change, mask, second) for change, second in pairs]
        sums = sums + np.concatenate(by_network, axis=1)
    mean, mean_square = sums / plan.repeat
    with np.errstate(invalid="ignore"):
        variance = np.maximum(mean_square - mean**2, 0.0) / np.float64(plan.repeat - 1)  # NaN for one repeat
    return np.stack([mean, variance])


def run_chunks(models, plan, rows, executor):
    """Yield (chunk, maps) for the spectra of ``rows``: in order in this process, through an executor as they end."""
    light = plan if executor is None else plan.without_data()
    yield from run_tasks(make_chunks(plan, rows), lambda chunk: (run_chunk, models, chunk, light), executor)


def run_tasks(tasks, call, executor):
    """Yield (task, result of the function and arguments ``call(task)``): in order, or through an executor as they end.

    Tasks are handed over while fewer than ``executor.chunks_ahead`` (64 where it has no such attribute) lie between
    the oldest one that has not ended and the next, so that neither end has to hold the whole survey.
    """
    if executor is None:
        for task in tasks:
            function, *arguments = call(task)
            yield task, function(*arguments)
        return
    numbered, ended, running = enumerate(tasks), SimpleQueue(), {}  # running: future to (number, task), oldest first
    upcoming = next(numbered, None)
    try:
        while running or upcoming:
            oldest, _ = next(iter(running.values()), upcoming)
            if upcoming and upcoming[0] < oldest + getattr(executor, "chunks_ahead", CHUNKS_AHEAD):
                future = executor.submit(*call(upcoming[1]))
                running[future] = upcoming
                future.add_done_callback(ended.put)
                upcoming = next(numbered, None)
            else:
                future = ended.get()
                _, task = running.pop(future)
                yield task, future.result()
    finally:
        for future in running:
            future.cancel()
