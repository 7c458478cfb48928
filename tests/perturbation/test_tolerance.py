"""Stopping the sensitivity test when its map is known well enough: the same spectra whatever runs them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sensitivity import sensitivity_map

N, N_BINS = 200, 13
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(N_BINS, 3))
SPECTRA = RNG.normal(0.01, 0.002, (N, N_BINS))
ERRORS = 4e-5 * RNG.lognormal(0, 0.3, (N, 1)) * np.ones(N_BINS)  # planets differ, so spectra are what counts
GASES = ["H2O", "CH4", "Tp"]


def linear(x):
    return x.reshape(len(x), -1) @ WEIGHTS


def run(model=linear, tolerance=None, **options):
    defaults = {"no_spectra": None, "repeat": 20, "rng": 3}
    return sensitivity_map(
        model, None, SPECTRA, ERRORS, np.zeros(3), np.ones(3), x_mean=0.01, x_std=0.002, tolerance=tolerance,
        **defaults | options,
    )  # fmt: skip


def total_error(result, n=None):
    totals = result.per_spectrum[:n].sum(axis=2)
    return totals.std(axis=0, ddof=1) / np.sqrt(len(totals)) / totals.mean(axis=0)


@pytest.mark.parametrize("scheme", ["halving", "single"])
def test_it_stops_at_the_first_spectrum_that_reaches_the_tolerance(scheme):
    whole, stopped = run(scheme=scheme), run(scheme=scheme, tolerance=0.08)
    n = stopped.n_spectra[0]
    assert 10 < n < N
    assert (stopped.n_spectra == n).all()
    assert (total_error(whole, n) <= 0.08).all()
    assert all((total_error(whole, m) > 0.08).any() for m in range(10, n))
    np.testing.assert_array_equal(stopped.per_spectrum, whole.per_spectrum[:n])
    np.testing.assert_allclose(stopped.mean, whole.per_spectrum[:n].mean(axis=0), rtol=1e-12)
    assert stopped.spectra.tolist() == list(range(n))
    np.testing.assert_array_equal(stopped.mean, run(scheme=scheme, no_spectra=n).mean)


def test_where_it_stops_depends_on_neither_chunks_nor_executor_nor_batches():
    first = run(tolerance=0.08)
    for options in ({"chunk_size": 1}, {"chunk_size": 150}, {"keep_spectra": False}):
        np.testing.assert_array_equal(run(tolerance=0.08, **options).mean, first.mean)
    with ThreadPoolExecutor(2) as executor:
        np.testing.assert_array_equal(run(tolerance=0.08, executor=executor, chunk_size=3).mean, first.mean)
    other = run(tolerance=0.08, batch_size=30)
    np.testing.assert_array_equal(other.n_spectra, first.n_spectra)
    np.testing.assert_allclose(other.mean, first.mean, rtol=1e-4)


def test_it_goes_on_from_a_store():
    store = {}
    first = run(tolerance=0.2, store=store, chunk_size=1)
    assert len(store) == first.n_spectra[0]
    np.testing.assert_array_equal(run(tolerance=0.08, store=store).mean, run(tolerance=0.08).mean)


def test_never_fewer_than_ten_spectra_and_never_more_than_there_are():
    assert (run(tolerance=100).n_spectra == 10).all()
    assert (run(tolerance=1e-9).n_spectra == N).all()
    assert (run(tolerance=100, no_spectra=4).n_spectra == 4).all()


def test_a_model_that_answers_always_the_same_stops_at_once():
    result = run(lambda x: np.zeros((len(x), 3)), tolerance=0.01)
    assert (result.n_spectra == 10).all() and (result.mean == 0).all()


def test_each_molecule_needs_its_own_spectra():
    y_test = np.full((N, 3), -8.0)
    y_test[50:, 1] = -5  # only these hold CH4
    result = sensitivity_map(
        linear, y_test, SPECTRA, ERRORS, np.zeros(3), np.ones(3), GASES, None, 20, 0.01, 0.002, {"CH4": (-6, -4)},
        rng=3, tolerance=0.15,
    )  # fmt: skip
    water, methane, temperature = result.n_spectra
    assert methane >= 10 and water == temperature == methane + 50


@pytest.mark.parametrize("tolerance", [0, -0.1, np.nan, np.inf, "small", True])
def test_a_tolerance_that_is_none_is_refused(tolerance):
    with pytest.raises(ValueError, match=r"^tolerance: expected a positive number, received"):
        run(tolerance=tolerance)
