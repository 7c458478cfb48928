"""The signed response map against closed forms and edge cases."""

import numpy as np
import pytest
from problems import slope_and_curvature

from perturbation.result import ResponseMap, response_map

RNG = np.random.default_rng(5)
WEIGHTS = RNG.normal(size=(6, 2))
SPECTRA = RNG.normal(size=(7, 6))
ERRORS = RNG.uniform(0.5, 2, size=(7, 6))


def slope_of(response):
    return slope_and_curvature(response.deviations, response.change)[0]


def curvature_of(response):
    return slope_and_curvature(response.deviations, response.change)[1]


def linear(x):
    return x @ WEIGHTS + 3.0


def test_response_of_a_linear_network_is_weight_times_error():
    got = response_map(linear, SPECTRA, ERRORS)
    expected = WEIGHTS.T * ERRORS.mean(axis=0)  # (n_amps, n_bins)
    np.testing.assert_allclose(slope_of(got), expected)
    np.testing.assert_allclose(curvature_of(got), 0, atol=1e-12)
    np.testing.assert_allclose(got.change, expected[..., None] * got.deviations, atol=1e-12)
    np.testing.assert_allclose(got.change[..., 6], 0, atol=0)


def test_response_of_one_spectrum_has_no_spread():
    got = response_map(linear, SPECTRA[0], ERRORS[0])
    assert got.change.shape == (2, 6, 13)
    np.testing.assert_allclose(got.spread, 0, atol=1e-7)
    np.testing.assert_allclose(slope_of(got), WEIGHTS.T * ERRORS[0])


def test_curvature_of_a_quadratic_network_is_exact():
    got = response_map(lambda x: x**2 @ WEIGHTS, np.zeros(6), np.full(6, 0.5))
    np.testing.assert_allclose(curvature_of(got), 2 * WEIGHTS.T * 0.25)
    np.testing.assert_allclose(slope_of(got), 0, atol=1e-12)


def test_spread_is_the_standard_deviation_over_spectra():
    got = response_map(lambda x: x**2, SPECTRA, np.ones(6), [1.0])
    each = 2 * SPECTRA + 1  # (x + 1)^2 - x^2
    np.testing.assert_allclose(np.diagonal(got.change[..., 0]), each.mean(axis=0))
    np.testing.assert_allclose(np.diagonal(got.spread[..., 0]), each.std(axis=0))


def test_response_does_not_depend_on_the_batch_size_and_is_one_call():
    calls = []

    def counted(x):
        calls.append(len(x))
        return np.tanh(x @ WEIGHTS)

    whole = response_map(counted, SPECTRA, ERRORS)
    assert calls == [7 * (6 * 13 + 1)]
    parts = response_map(counted, SPECTRA, ERRORS, rows_per_call=1)
    assert len(calls) == 1 + 7
    np.testing.assert_allclose(whole.change, parts.change, atol=1e-14)


@pytest.mark.parametrize("rows_per_call, calls", [(10**6, [7 * 79]), (3 * 79, [3 * 79, 3 * 79, 79]), (78, [79] * 7)])
def test_calls_are_as_large_as_they_may_be(rows_per_call, calls):
    sizes = []
    response_map(lambda x: sizes.append(len(x)) or linear(x), SPECTRA, ERRORS, rows_per_call=rows_per_call)
    assert sizes == calls


def test_lists_of_integers_and_errors_for_all_are_taken_in_any_number_of_calls():
    spectra = [[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [0, 0, 1, 0, 2, 0]]
    expected = response_map(linear, np.array(spectra, float), np.full((3, 6), 0.25), [0.5, 2.0])
    for rows_per_call in (1, 26, 10**6):
        got = response_map(lambda x: linear(x).tolist(), spectra, [0.25] * 6, [0.5, 2], rows_per_call=rows_per_call)
        np.testing.assert_allclose(got.change, expected.change, rtol=1e-12)


def test_response_map_is_saved_and_read_back(tmp_path):
    h5py = pytest.importorskip("h5py")
    got = response_map(linear, SPECTRA, ERRORS)
    with h5py.File(tmp_path / "map.h5", "w") as group:
        got.save(group)
        again = ResponseMap.load(group)
        assert list(group) == ["change", "deviations", "spread"]
    assert again.n_spectra == got.n_spectra == 7
    assert all(np.array_equal(getattr(again, name), getattr(got, name)) for name in ("deviations", "change", "spread"))
