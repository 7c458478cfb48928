"""The best planet for a spectrum: a linear model has a closed form, and offsets cost what they should."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("scipy")

from studies.best_fit import best_fit, covariance_of

N_BINS, ERROR = 12, 1e-4
SLOPES = np.random.default_rng(0).normal(size=(2, N_BINS)) * 1e-3
MIRI = np.arange(N_BINS) > 8


def design(offsets):
    rng = np.random.default_rng(1)
    return SimpleNamespace(
        errors=np.full(N_BINS, ERROR),
        offsets=offsets,
        limits=lambda: np.array([[-2.0, -2.0], [2.0, 2.0]]),
        draw_amps=lambda n, seed: rng.uniform(-2, 2, (n, 2)),
    )


MODEL = SimpleNamespace(depth=lambda amps: 0.02 + np.asarray(amps) @ SLOPES)


def test_best_planet_of_a_linear_model_is_that_of_least_squares():
    depth = MODEL.depth([0.3, -0.7]) + np.random.default_rng(2).normal(0, ERROR, N_BINS)
    found = best_fit(design({}), MODEL, depth)
    expected = np.linalg.lstsq(SLOPES.T, depth - 0.02, rcond=None)[0]
    np.testing.assert_allclose(found.amps, expected, atol=1e-5)
    np.testing.assert_allclose(found.residuals, (depth - MODEL.depth(expected)) / ERROR, atol=1e-4)
    np.testing.assert_allclose(found.chi2, (found.residuals**2).sum(), rtol=1e-6)


def test_offset_of_an_instrument_is_taken_out_and_costs_its_prior():
    depth = MODEL.depth([0.3, -0.7]) + 5e-4 * MIRI
    with_it = best_fit(design({"MIRI": (5e-4, MIRI)}), MODEL, depth)
    assert with_it.chi2 < 1.1 < 10 < best_fit(design({}), MODEL, depth).chi2  # an offset of one standard deviation
    assert np.abs(with_it.residuals).max() < 0.3
    covariance = covariance_of(np.full(N_BINS, ERROR), {"MIRI": (5e-4, MIRI)})
    np.testing.assert_allclose(covariance[10, 11], 25e-8)
    np.testing.assert_allclose(covariance[0, 11], 0)
