"""The steps of the engine, each on its own against plain NumPy."""

import math
from concurrent.futures import Future

import numpy as np
import pytest

from perturbation import engine
from perturbation.engine import (
    Chunk,
    Settings,
    choose_groups,
    covariance_root,
    even_share,
    halving_sizes,
    make_chunks,
    run_chunk,
    run_chunks,
    sum_over_repeats,
    time_chunk,
)

N_BINS, N_AMPS = 6, 2
X_STD = np.linspace(0.5, 2, N_BINS)


def settings_of(repeat=7, batch_size=10, labels=(0, 0, 0, 1, 1, 2), shuffle=True):
    return Settings(np.array(labels), shuffle, repeat, batch_size, 3, "flat", N_AMPS)


def chunk_of(n=1, auxiliary=None):
    rng = np.random.default_rng(0)
    spectra, errors = rng.normal(size=(n, N_BINS)), rng.uniform(0.1, 0.3, (n, N_BINS))
    return Chunk(np.arange(5, 5 + n), spectra.astype(np.float32), errors.astype(np.float32), auxiliary)


def model(x):
    return np.stack([x.sum(axis=1), (x**2).sum(axis=1)], axis=1).astype(np.float32)


def covariances(n, scale=1.0):
    factors = np.random.default_rng(1).normal(size=(n, N_BINS, N_BINS))
    return scale * factors @ np.swapaxes(factors, 1, 2)


def test_sums_over_repeats_lose_no_digits():
    rng = np.random.default_rng(0)
    change, mask = rng.normal(size=(4500, N_AMPS)).astype(np.float32), rng.random((4500, 100)) < 0.3  # nine products
    squares = change.astype(np.float64)[:, :, None] ** 2 * mask[:, None, :]
    sums = sum_over_repeats(change, mask)
    np.testing.assert_allclose(sums, np.stack([squares.sum(axis=0), (squares**2).sum(axis=0)]), rtol=1e-13)


@pytest.mark.parametrize("total", [1, 5, 10, 1000])
@pytest.mark.parametrize("most", [-1, 0, 1, 3, 4, 999, 1000, 5000])
def test_shares_are_even_and_as_few_as_can_be(total, most):
    share, most = even_share(total, most), max(most, 1)
    parts = math.ceil(total / most)
    assert share == math.ceil(total / parts) <= most


def test_map_and_variance_are_those_of_the_repeats():
    """In batches of three repeats, the last with rows left over."""
    seen, settings, chunk = [], settings_of(repeat=8, batch_size=10), chunk_of()
    mean, variance = run_chunk(lambda x: seen.append(x.copy()) or model(x), chunk, settings)[0]
    rows = np.concatenate([batch[1:] for batch in seen])
    moved = rows != chunk.spectra[0]
    rows, moved = rows[moved.any(axis=1)], moved[moved.any(axis=1)]
    assert len(seen) == 3 and {len(batch) for batch in seen} == {10} and len(rows) == 3 * 8
    squares = (model(rows) - model(chunk.spectra)).astype(np.float64) ** 2
    of_repeats = np.stack([squares[moved[:, b]] for b in range(N_BINS)], axis=-1)  # (repeats, n_AMPs, n_bins)
    np.testing.assert_allclose(mean, of_repeats.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(variance, of_repeats.var(axis=0, ddof=1) / 8, rtol=1e-4)


def test_groups_and_noise_are_drawn_from_streams_of_their_own():
    """Seed 3, spectrum 5: stream 0 says which bins move, stream 1 by how much, whatever the batches are."""
    chunk, seen = chunk_of(), []
    run_chunk(lambda x: seen.append(x[1:] - x[0]) or model(x), chunk, settings_of(repeat=7, batch_size=7))
    groups_rng, noise_rng = (np.random.default_rng(np.random.SeedSequence(3, spawn_key=(5, k))) for k in (0, 1))
    groups = choose_groups(settings_of().labels, True, 7, groups_rng)
    noise = noise_rng.standard_normal((7, N_BINS), dtype=np.float32) * chunk.noise[0]
    moves = np.concatenate(seen).reshape(-1, 3, N_BINS)[:7]  # a batch holds two repeats, the last one
    expected = np.where(groups[:, None] == np.arange(3)[:, None], noise[:, None], 0)
    np.testing.assert_allclose(moves, expected, atol=1e-6)


@pytest.mark.parametrize("batch_size", range(1, 16))
def test_no_call_has_more_rows_than_a_batch_or_one_repeat(batch_size):
    sizes = []
    run_chunk(lambda x: sizes.append(len(x)) or model(x), chunk_of(), settings_of(repeat=5, batch_size=batch_size))
    assert max(sizes) <= max(batch_size, 1 + 3) and len(set(sizes)) == 1


def test_thousands_of_repeats_take_the_memory_of_one():
    sizes = []
    run_chunk(lambda x: sizes.append(len(x)) or model(x), chunk_of(), settings_of(repeat=2500, batch_size=10**6))
    assert sizes == [1 + 3 * 834] * 3


@pytest.mark.filterwarnings("error")
def test_one_repeat_has_no_variance_and_warns_of_nothing():
    maps = run_chunk(model, chunk_of(), settings_of(repeat=1))
    assert np.isfinite(maps[:, 0]).all() and np.isnan(maps[:, 1]).all()


def test_a_model_that_fails_is_named_with_its_spectrum():
    with pytest.raises(ValueError, match=r"for row 0 of spectrum 5$"):
        run_chunk(lambda x: np.full((len(x), N_AMPS), np.nan), chunk_of(), settings_of())
    with pytest.raises(ValueError, match=r"expected output \(10, 2\), received \(10, 3\)"):
        run_chunk(lambda x: np.ones((len(x), 3)), chunk_of(), settings_of())


def test_each_spectrum_goes_with_its_auxiliary_input():
    seen = set()

    def recorded(inputs):
        spectra, auxiliary = inputs
        seen.update(zip(spectra[0].tolist()[:1], np.unique(auxiliary).tolist(), strict=True))
        return model(spectra)

    chunk = chunk_of(3, np.array([[1.0], [2.0], [3.0]], np.float32))
    run_chunk(recorded, chunk, settings_of())
    assert seen == {(float(spectrum[0]), k + 1.0) for k, spectrum in enumerate(chunk.spectra)}


# Chunks


def test_chunks_hold_scaled_spectra_and_errors_in_order():
    rng = np.random.default_rng(0)
    spectra, errors, auxiliary = rng.normal(size=(6, N_BINS)), rng.uniform(size=(6, N_BINS)), np.arange(6.0)[:, None]
    rows = np.array([0, 2, 3, 5])
    chunks = list(make_chunks(rows, 3, spectra, errors, False, np.full(N_BINS, 0.5), X_STD, auxiliary))
    assert [chunk.indices.tolist() for chunk in chunks] == [[0, 2, 3], [5]]
    assert [chunk.task_name for chunk in chunks] == ["spectra 0 to 3", "spectra 5 to 5"]
    np.testing.assert_allclose(np.concatenate([c.spectra for c in chunks]), (spectra[rows] - 0.5) / X_STD, rtol=1e-5)
    np.testing.assert_allclose(np.concatenate([c.noise for c in chunks]), errors[rows] / X_STD, rtol=1e-6)
    assert np.concatenate([c.auxiliary for c in chunks]).ravel().tolist() == rows.tolist()
    assert {array.dtype for c in chunks for array in (c.spectra, c.noise)} == {np.dtype(np.float32)}
    assert next(make_chunks(rows, 3, spectra, errors, False, 0.5, X_STD)).auxiliary is None


@pytest.mark.parametrize("shared", [True, False])
def test_roots_in_chunks_are_of_the_covariance_scaled_for_each_bin(shared):
    spectra, given = np.zeros((3, N_BINS)), covariances(1 if shared else 3)
    (chunk,) = make_chunks(np.arange(3), 3, spectra, given, True, np.zeros(N_BINS), X_STD)
    assert chunk.noise.shape == (3, N_BINS, N_BINS)
    scaled = given / X_STD[:, None] / X_STD
    squares = chunk.noise @ np.swapaxes(chunk.noise, 1, 2)
    np.testing.assert_allclose(squares, np.broadcast_to(scaled, squares.shape), atol=1e-5 * scaled.max())


def test_directions_for_all_spectra_travel_once():
    directions = np.ones((1, 2, N_BINS))
    (chunk,) = make_chunks(np.arange(3), 3, np.zeros((3, N_BINS)), directions, False, np.zeros(N_BINS), X_STD)
    assert chunk.noise.shape == (1, 2, N_BINS)
    np.testing.assert_allclose(chunk.noise[0], directions[0] / X_STD, rtol=1e-6)


@pytest.mark.parametrize("shared, name", [(True, "all spectra"), (False, "spectrum 1")])
def test_a_bad_covariance_is_named(shared, name):
    given = covariances(1 if shared else 3)
    given[-1 if shared else 1, 0, 0] = -1.0
    with pytest.raises(ValueError, match=f"covariance of {name} to be positive semi-definite"):
        list(make_chunks(np.arange(3), 2, np.zeros((3, N_BINS)), given, True, np.zeros(N_BINS), X_STD))


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_rounding_errors_of_a_covariance_are_allowed_in_any_unit(scale):
    values = np.array([-0.3e-8 * N_BINS, 0.1, 0.2, 0.4, 0.7, 1.0])
    good = np.diag(values) * scale
    np.testing.assert_allclose(covariance_root(good, "x") @ covariance_root(good, "x").T, good, atol=1e-7 * scale)
    with pytest.raises(ValueError, match="semi-definite"):
        covariance_root(np.diag([-2e-8 * N_BINS, *values[1:]]) * scale, "x")
    uneven = good + np.triu(np.full((N_BINS, N_BINS), 0.5e-8 * scale), 1)
    covariance_root(uneven, "x")
    with pytest.raises(ValueError, match="symmetric"):
        covariance_root(good + 4 * (uneven - good), "x")


def test_halving_sizes_of_odd_numbers_are_rounded_up():
    assert halving_sizes(7) == [4, 2, 1] and halving_sizes(3) == [2, 1]


# Tasks of an executor


class AtOnce:
    """An executor that computes a task as it is handed over, the first ``n`` of them; the others never end."""

    def __init__(self, n, **attributes):
        self.n, self.futures = n, []
        vars(self).update(attributes)

    def submit(self, function, *args):
        future = Future()
        self.futures.append(future)
        if len(self.futures) <= self.n:
            try:
                future.set_result(function(*args))
            except Exception as error:
                future.set_exception(error)
        return future


def few_chunks(n):
    return [chunk_of() for _ in range(n)]


@pytest.mark.parametrize("attributes, ahead", [({"chunks_ahead": 3}, 3), ({}, engine.CHUNKS_AHEAD)])
def test_no_more_chunks_are_handed_over_than_may_lie_ahead(attributes, ahead):
    executor, answered = AtOnce(1000, **attributes), 0
    for _ in run_chunks(model, few_chunks(ahead + 5), settings_of(), executor):
        assert len(executor.futures) <= answered + ahead
        answered += 1
    assert answered == len(executor.futures) == ahead + 5


def test_tasks_that_nobody_waits_for_any_more_are_cancelled():
    executor = AtOnce(1, chunks_ahead=3)
    results = run_chunks(model, few_chunks(5), settings_of(), executor)
    next(results)
    results.close()
    assert [future.cancelled() for future in executor.futures] == [False, True, True]


def test_answers_go_with_their_chunks_in_this_process_and_through_an_executor():
    chunks = few_chunks(3)
    here = list(run_chunks(model, iter(chunks), settings_of(), None))
    there = list(run_chunks(model, iter(chunks), settings_of(), AtOnce(10)))
    for (chunk, maps), (same, again), given in zip(here, there, chunks, strict=True):
        assert chunk is same is given and np.array_equal(maps, again)


def test_time_of_a_chunk_is_that_of_its_second_run_for_each_spectrum(monkeypatch):
    events, clock = [], iter([10.0, 16.0])
    monkeypatch.setattr(engine.time, "perf_counter", lambda: events.append("clock") or next(clock))
    seconds = time_chunk(lambda x: events.append("call") or model(x), chunk_of(3), settings_of(batch_size=1000))
    assert seconds == 2.0 and events == [*["call"] * 3, "clock", *["call"] * 3, "clock"]
