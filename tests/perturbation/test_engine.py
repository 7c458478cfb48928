"""The steps of the engine, each on its own against plain NumPy."""

import math
import pickle
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

from perturbation import engine
from perturbation.engine import (
    Chunk,
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
from perturbation.plan import Plan
from perturbation.predictors import Predictor

N_BINS, N_AMPS = 6, 2
X_STD = np.linspace(0.5, 2, N_BINS)


def plan_of(repeat=7, batch_size=10, labels=(0, 0, 0, 1, 1, 2), spectra=None, noise=None, **options):
    """Plan of random repeats for one network that reads (rows, n_bins)."""
    how = {
        "is_covariance": False, "x_mean": np.zeros((1, N_BINS)), "x_std": np.ones((1, N_BINS)), "auxiliary": None,
        "scheme": "halving", "shuffle": True, "rule": None, "seed": 3, "calls": (Predictor(None, N_AMPS, "flat"),),
    } | options  # fmt: skip
    return Plan(spectra, noise, labels=np.array(labels), repeat=repeat, batch_size=batch_size, **how)


def chunk_of(n=1, auxiliary=None):
    rng = np.random.default_rng(0)
    spectra, errors = rng.normal(size=(n, N_BINS)), rng.uniform(0.1, 0.3, (n, N_BINS))
    auxiliary = None if auxiliary is None else auxiliary[None]
    return Chunk(np.arange(5, 5 + n), spectra.astype(np.float32)[None], errors.astype(np.float32)[None], auxiliary)


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
    seen, plan, chunk = [], plan_of(repeat=8, batch_size=10), chunk_of()
    mean, variance = run_chunk([lambda x: seen.append(x.copy()) or model(x)], chunk, plan)[0]
    rows = np.concatenate([batch[1:] for batch in seen])
    moved = rows != chunk.spectra[0, 0]
    rows, moved = rows[moved.any(axis=1)], moved[moved.any(axis=1)]
    assert len(seen) == 3 and {len(batch) for batch in seen} == {10} and len(rows) == 3 * 8
    squares = (model(rows) - model(chunk.spectra[0])).astype(np.float64) ** 2
    of_repeats = np.stack([squares[moved[:, b]] for b in range(N_BINS)], axis=-1)  # (repeats, n_AMPs, n_bins)
    np.testing.assert_allclose(mean, of_repeats.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(variance, of_repeats.var(axis=0, ddof=1) / 8, rtol=1e-4)


def test_groups_and_noise_are_drawn_from_streams_of_their_own():
    """Seed 3, spectrum 5: stream 0 says which bins move, stream 1 by how much, whatever the batches are."""
    chunk, seen = chunk_of(), []
    run_chunk([lambda x: seen.append(x[1:] - x[0]) or model(x)], chunk, plan_of(repeat=7, batch_size=7))
    groups_rng, noise_rng = (np.random.default_rng(np.random.SeedSequence(3, spawn_key=(5, k))) for k in (0, 1))
    groups = choose_groups(plan_of().labels, True, 7, groups_rng)
    noise = noise_rng.standard_normal((7, N_BINS), dtype=np.float32) * chunk.noise[0, 0]
    moves = np.concatenate(seen).reshape(-1, 3, N_BINS)[:7]  # a batch holds two repeats, the last one
    expected = np.where(groups[:, None] == np.arange(3)[:, None], noise[:, None], 0)
    np.testing.assert_allclose(moves, expected, atol=1e-6)


@pytest.mark.parametrize("batch_size", range(1, 16))
def test_no_call_has_more_rows_than_a_batch_or_one_repeat(batch_size):
    sizes = []
    run_chunk([lambda x: sizes.append(len(x)) or model(x)], chunk_of(), plan_of(repeat=5, batch_size=batch_size))
    assert max(sizes) <= max(batch_size, 1 + 3) and len(set(sizes)) == 1


def test_thousands_of_repeats_take_the_memory_of_one():
    sizes = []
    run_chunk([lambda x: sizes.append(len(x)) or model(x)], chunk_of(), plan_of(repeat=2500, batch_size=10**6))
    assert sizes == [1 + 3 * 834] * 3


@pytest.mark.filterwarnings("error")
def test_one_repeat_has_no_variance_and_warns_of_nothing():
    maps = run_chunk([model], chunk_of(), plan_of(repeat=1))
    assert np.isfinite(maps[:, 0]).all() and np.isnan(maps[:, 1]).all()


def test_a_model_that_fails_is_named_with_its_spectrum():
    with pytest.raises(ValueError, match=r"for row 0 of spectrum 5$"):
        run_chunk([lambda x: np.full((len(x), N_AMPS), np.nan)], chunk_of(), plan_of())
    with pytest.raises(ValueError, match=r"expected output \(10, 2\), received \(10, 3\)"):
        run_chunk([lambda x: np.ones((len(x), 3))], chunk_of(), plan_of())


def test_each_spectrum_goes_with_its_auxiliary_input():
    seen = set()

    def recorded(inputs):
        spectra, auxiliary = inputs
        seen.update(zip(spectra[0].tolist()[:1], np.unique(auxiliary).tolist(), strict=True))
        return model(spectra)

    chunk = chunk_of(3, np.array([[1.0], [2.0], [3.0]], np.float32))
    run_chunk([recorded], chunk, plan_of())
    assert seen == {(float(spectrum[0]), k + 1.0) for k, spectrum in enumerate(chunk.spectra[0])}


# Chunks


def test_chunks_hold_scaled_spectra_and_errors_in_order():
    rng = np.random.default_rng(0)
    spectra, errors, auxiliary = rng.normal(size=(6, N_BINS)), rng.uniform(size=(6, N_BINS)), np.arange(6.0)[:, None]
    rows, x_mean = np.array([0, 2, 3, 5]), np.array([[0.5], [0.1]]) * np.ones(N_BINS)  # two networks
    plan = plan_of(spectra=spectra, noise=errors, chunk_size=3, x_mean=x_mean, x_std=np.stack([X_STD, 2 * X_STD]),
                   auxiliary=np.stack([auxiliary, -auxiliary]))  # fmt: skip
    chunks = list(make_chunks(plan, rows))
    assert [chunk.indices.tolist() for chunk in chunks] == [[0, 2, 3], [5]]
    assert [chunk.task_name for chunk in chunks] == ["spectra 0 to 3", "spectra 5 to 5"]
    joined = {name: np.concatenate([getattr(c, name) for c in chunks], axis=1) for name in ("spectra", "noise")}
    for k, mean, std in ((0, 0.5, X_STD), (1, 0.1, 2 * X_STD)):
        np.testing.assert_allclose(joined["spectra"][k], (spectra[rows] - mean) / std, rtol=1e-5)
        np.testing.assert_allclose(joined["noise"][k], errors[rows] / std, rtol=1e-6)
        assert np.concatenate([c.auxiliary[k] for c in chunks]).ravel().tolist() == ((-1) ** k * rows).tolist()
    assert {array.dtype for array in joined.values()} == {np.dtype(np.float32)}
    assert next(make_chunks(replace(plan, auxiliary=None), rows)).auxiliary is None


def given(shape_of, spectra=3, **options):
    """The only chunk of a plan for spectra of zero depth."""
    plan = plan_of(
        spectra=np.zeros((spectra, N_BINS)), noise=shape_of, x_std=X_STD[None], chunk_size=spectra, **options
    )
    (chunk,) = make_chunks(plan, np.arange(spectra))
    return chunk


@pytest.mark.parametrize("shared", [True, False])
def test_roots_in_chunks_are_of_the_covariance_scaled_for_each_bin(shared):
    covariance = covariances(1 if shared else 3)
    noise = given(covariance, is_covariance=True).noise[0]
    assert noise.shape == (1 if shared else 3, N_BINS, N_BINS)
    scaled = covariance / X_STD[:, None] / X_STD
    squares = noise @ np.swapaxes(noise, 1, 2)
    np.testing.assert_allclose(squares, np.broadcast_to(scaled, squares.shape), atol=1e-5 * scaled.max())


def test_directions_for_all_spectra_travel_once():
    noise = given(np.ones((1, 2, N_BINS))).noise
    assert noise.shape == (1, 1, 2, N_BINS)
    np.testing.assert_allclose(noise[0, 0], np.ones((2, N_BINS)) / X_STD, rtol=1e-6)


@pytest.mark.parametrize("shared, name", [(True, "org_error"), (False, "org_error, spectrum 1")])
def test_a_bad_covariance_is_named(shared, name):
    covariance = covariances(1 if shared else 3)
    covariance[-1 if shared else 1, 0, 0] = -1.0
    with pytest.raises(ValueError, match=f"^{name}: expected no negative eigenvalue"):
        given(covariance, is_covariance=True)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_rounding_errors_of_a_covariance_are_allowed_in_any_unit(scale):
    values = np.array([-0.3e-8 * N_BINS, 0.1, 0.2, 0.4, 0.7, 1.0])
    good = np.diag(values) * scale
    np.testing.assert_allclose(covariance_root(good, "x") @ covariance_root(good, "x").T, good, atol=1e-7 * scale)
    with pytest.raises(ValueError, match="negative eigenvalue"):
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


def tasks(n, executor, model=model):
    """Run n chunks of one spectrum each."""
    plan = plan_of(spectra=np.ones((n, N_BINS)), noise=np.full((n, N_BINS), 0.1))
    return run_chunks([model], plan, np.arange(n), executor)


@pytest.mark.parametrize("attributes, ahead", [({"chunks_ahead": 3}, 3), ({}, engine.CHUNKS_AHEAD)])
def test_no_more_chunks_are_handed_over_than_may_lie_ahead(attributes, ahead):
    executor, ended = AtOnce(1000, **attributes), 0
    for _ in tasks(ahead + 5, executor):
        assert len(executor.futures) <= ended + ahead
        ended += 1
    assert ended == len(executor.futures) == ahead + 5


def test_tasks_that_nobody_waits_for_any_more_are_cancelled():
    executor = AtOnce(1, chunks_ahead=3)
    results = tasks(5, executor)
    next(results)
    results.close()
    assert [future.cancelled() for future in executor.futures] == [False, True, True]


def test_maps_go_with_their_chunks_in_this_process_and_through_an_executor():
    here, there = list(tasks(3, None)), list(tasks(3, AtOnce(10)))
    for k, ((chunk, maps), (same, again)) in enumerate(zip(here, there, strict=True)):
        assert chunk.indices.tolist() == same.indices.tolist() == [k] and np.array_equal(maps, again)


def test_what_travels_with_a_chunk_is_small():
    plan = plan_of(
        spectra=np.ones((10_000, N_BINS)), noise=np.ones((10_000, N_BINS)), wanted=np.ones((10_000, 2), bool)
    )
    assert len(pickle.dumps(plan.without_data())) < 2000


def test_time_of_a_chunk_is_that_of_its_second_run_for_each_spectrum(monkeypatch):
    events, clock = [], iter([10.0, 16.0])
    monkeypatch.setattr(engine.time, "perf_counter", lambda: events.append("clock") or next(clock))
    seconds = time_chunk([lambda x: events.append("call") or model(x)], chunk_of(3), plan_of(batch_size=1000))
    assert seconds == 2.0 and events == [*["call"] * 3, "clock", *["call"] * 3, "clock"]
