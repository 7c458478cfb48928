"""The engine of the sensitivity test: perturb chunks of spectra, predict, and add up. No arguments are checked here.

One repeat for one spectrum (Yip et al. 2021, Section 5): the bins are cut at random into groups; the bins of one
group at a time are drawn again from their own errors; the network answers again; every bin of the group receives
the squared change of each answer. The map is the mean over repeats and spectra.

How the work is cut, for those who run it on many machines: `make_chunks` yields small picklable `Chunk`s,
`run_chunk` is a pure function of (model, chunk, settings), `accumulate` adds up its answers in the order of the
spectra. Draws depend on the seed and on the index of the spectrum alone. Where bins move one at a time nothing is
drawn: `quadrature` takes the mean (`Settings.rule`).
"""

import time
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from perturbation.predictors import Predictor
from perturbation.quadrature import N_ARRAYS, Rule, map_chunk

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


def correlate(normals, root):
    """Turn unit normals (n_repeats, n_bins) into draws of covariance root root^T, each row on its own."""
    return np.matmul(normals[:, None, :], root.T)[:, 0]  # one product of all rows would depend on their number


def perturb(spectrum, noise, mask, out):
    """Fill ``out`` (n_repeats, n_groups, n_bins) with the spectrum, noise added to the bins of one group only.

    ``spectrum`` (n_bins,) and ``noise`` (n_repeats, n_bins) are in scaled units: adding scaled noise to a scaled
    spectrum loses no digits, unlike scaling a perturbed depth. ``mask`` has the shape of ``out``.
    """
    np.multiply(mask, noise[:, None, :], out=out)
    np.add(out, spectrum, out=out)


def sum_over_repeats(change, mask):
    """Give each bin the squared change of its group; sums over repeats of that and of its square.

    ``change`` (rows, n_AMPs) is f(x') - f(x), ``mask`` (rows, n_bins) tells which bins moved. As every bin is in
    one group per repeat, both sums are one matrix product: (2, n_AMPs, n_bins), float64.
    """
    squares = np.square(change.T, dtype=np.float64, order="C")
    moments = np.concatenate([squares, np.square(squares)])  # (2 n_AMPs, rows)
    n_amps, n_bins = change.shape[1], mask.shape[1]
    sums = np.zeros((2 * n_amps, n_bins))
    step = max(1, SMALL_PRODUCT // sums.size)
    for start in range(0, len(mask), step):
        rows = slice(start, start + step)
        sums += moments[:, rows] @ mask[rows].astype(np.float64)
    return sums.reshape(2, n_amps, n_bins)


# Chunks of spectra: what travels to a worker, and what a worker does


@dataclass(frozen=True)
class Settings:
    """What all chunks share."""

    labels: np.ndarray  # (n_bins,) group of each bin, -1 for a bin that is never perturbed
    shuffle: bool  # new random groups in every repeat
    repeat: int
    batch_size: int
    seed: int
    layout: str
    n_amps: int
    rule: Rule | None = None  # quadrature along directions; None: random repeats

    @property
    def n_arrays(self):
        """Arrays (n_AMPs, n_bins) of one spectrum: map and variance, or those of `quadrature`."""
        return 2 if self.rule is None else N_ARRAYS


@dataclass(frozen=True)
class Chunk:
    """Some spectra, in scaled units and float32.

    ``noise`` is (n, n_bins) errors, or (n, n_bins, n_bins) square roots F of covariances F F^T for random repeats, or
    (n or 1, K, n_bins) directions for quadrature.
    """

    indices: np.ndarray  # (n,) rows of org_spectrum
    spectra: np.ndarray  # (n, n_bins)
    noise: np.ndarray
    auxiliary: np.ndarray | None  # (n, k)

    @property
    def first(self):
        """One spectrum and its auxiliary input, to try a model with."""
        return self.spectra[0], None if self.auxiliary is None else self.auxiliary[0]

    @property
    def task_name(self):
        """What a message calls this chunk."""
        return f"spectra {self.indices[0]} to {self.indices[-1]}"


def make_chunks(indices, chunk_size, org_spectrum, org_error, is_covariance, x_mean, x_std, auxiliary=None):
    """Yield the spectra of ``indices`` as `Chunk`s of at most ``chunk_size``; nothing is copied before its turn.

    ``org_error`` is (N, n_bins), or (N, n_bins, n_bins) covariances or directions; a single covariance or set of
    directions for all spectra may be (1, ..., n_bins).
    """
    is_shared = len(org_error) == 1 < len(org_spectrum)
    shared = covariance_root(org_error[0], "all spectra")[None] if is_shared and is_covariance else org_error
    for start in range(0, len(indices), chunk_size):
        some = indices[start : start + chunk_size]
        if is_shared:
            noise = np.broadcast_to(shared, (len(some), *shared.shape[1:])) if is_covariance else shared
        elif is_covariance:
            noise = np.stack([covariance_root(org_error[i], f"spectrum {i}") for i in some])
        else:
            noise = org_error[some]
        noise = noise / (x_std[:, None] if is_covariance else x_std)
        spectra = (org_spectrum[some] - x_mean) / x_std
        yield Chunk(
            some,
            spectra.astype(np.float32),
            noise.astype(np.float32),
            None if auxiliary is None else auxiliary[some],
        )


def covariance_root(covariance, whose):
    """Matrix F with F F^T = covariance, (n_bins, n_bins); bins of zero variance are allowed.

    Raises
    ------
    ValueError
        If the covariance, of the spectrum called ``whose``, is not finite, symmetric and positive semi-definite.
    """
    name = f"org_error: expected the covariance of {whose} to be"
    size = np.abs(covariance).max()
    if not np.isfinite(size):
        raise ValueError(f"{name} finite, received NaN or infinity")
    if np.abs(covariance - covariance.T).max() > 1e-8 * size:
        raise ValueError(f"{name} symmetric, received one that is not")
    values, vectors = np.linalg.eigh(covariance)
    if values[0] < -1e-8 * size * len(values):
        raise ValueError(f"{name} positive semi-definite, received the eigenvalue {values[0]:.3g}")
    return vectors * np.sqrt(np.maximum(values, 0.0))


def run_chunk(model, chunk, settings):
    """Return the maps of the spectra of one chunk: (n, n_arrays, n_AMPs, n_bins), scaled units squared.

    Of random repeats the first is their mean, the second the variance of that mean; of quadrature see
    `quadrature.map_chunk`. A pure function: the answer for a spectrum depends on the model, the spectrum and its index
    and ``settings``, never on its neighbours.
    """
    predict = Predictor(model, settings.n_amps, settings.layout)
    if settings.rule is not None:
        return map_chunk(predict, chunk, settings)
    each = range(len(chunk.indices))
    maps = predict.side_by_side(lambda k: _run_spectrum(predict, chunk, k, settings), each, *chunk.first)
    return np.stack(maps)


def time_chunk(model, chunk, settings):
    """Return the seconds that `run_chunk` needs for each spectrum of a chunk, once the model has been used."""
    run_chunk(model, chunk, settings)
    start = time.perf_counter()
    run_chunk(model, chunk, settings)
    return (time.perf_counter() - start) / len(chunk.indices)


def _run_spectrum(predict, chunk, k, settings):
    spectrum, noise_scale, index = chunk.spectra[k], chunk.noise[k], int(chunk.indices[k])
    auxiliary = None if chunk.auxiliary is None else chunk.auxiliary[k]
    # Two streams, each read repeat by repeat, so that draws do not depend on the batch size
    groups_rng, noise_rng = (
        np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(index, stream))) for stream in (0, 1)
    )
    n_bins, n_groups = len(spectrum), int(settings.labels.max()) + 1
    most = even_share(min(settings.repeat, REPEATS_AT_ONCE), (settings.batch_size - 1) // n_groups)
    per_batch = even_share(settings.repeat, most)  # 10,000 repeats take the memory of 1000

    # Each batch has the same shape and carries the unperturbed spectrum as its first row
    rows = np.empty((1 + per_batch * n_groups, n_bins), np.float32)
    perturbed = rows[1:].reshape(per_batch, n_groups, n_bins)
    sums = 0.0
    for start in range(0, settings.repeat, per_batch):
        n = min(per_batch, settings.repeat - start)
        groups = choose_groups(settings.labels, settings.shuffle, n, groups_rng)  # (n, n_bins)
        noise = noise_rng.standard_normal((n, n_bins), dtype=np.float32)
        # A group of jointly normal bins is drawn from its own block by drawing all bins and using the group's
        noise = correlate(noise, noise_scale) if noise_scale.ndim == 2 else noise * noise_scale
        mask = groups[:, None, :] == np.arange(n_groups, dtype=groups.dtype)[:, None]  # (n, n_groups, n_bins)
        rows[0] = spectrum
        perturb(spectrum, noise, mask, out=perturbed[:n])
        perturbed[n:] = spectrum
        answers = predict(rows, auxiliary, f"spectrum {index}")  # (rows, n_AMPs)
        change = answers[1 : 1 + n * n_groups] - answers[0]
        sums = sums + sum_over_repeats(change, mask.reshape(-1, n_bins))
    mean, mean_square = sums / settings.repeat
    with np.errstate(invalid="ignore"):
        variance = np.maximum(mean_square - mean**2, 0.0) / np.float64(settings.repeat - 1)  # NaN for one repeat
    return np.stack([mean, variance])


def even_share(total, most):
    """Largest share, at most ``most`` (but one), that cuts ``total`` into parts of nearly the same size."""
    parts = -(-total // max(most, 1))
    return -(-total // parts)


def run_chunks(model, chunks, settings, executor):
    """Yield (chunk, maps): in order in this process, through an executor in the order in which they end.

    Chunks are handed over while fewer than ``executor.chunks_ahead`` (64 where it has no such attribute) lie between
    the oldest one that has not ended and the next, so that neither end has to hold the whole survey.
    """
    if executor is None:
        for chunk in chunks:
            yield chunk, run_chunk(model, chunk, settings)
        return
    numbered, ended, running = enumerate(chunks), SimpleQueue(), {}  # running: future to (number, chunk), oldest first
    upcoming = next(numbered, None)
    try:
        while running or upcoming:
            oldest, _ = next(iter(running.values()), upcoming)
            if upcoming and upcoming[0] < oldest + getattr(executor, "chunks_ahead", CHUNKS_AHEAD):
                future = executor.submit(run_chunk, model, upcoming[1], settings)
                running[future] = upcoming
                future.add_done_callback(ended.put)
                upcoming = next(numbered, None)
            else:
                future = ended.get()
                _, chunk = running.pop(future)
                yield chunk, future.result()
    finally:
        for future in running:
            future.cancel()
