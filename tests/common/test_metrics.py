"""Scores, rank correlation and shares against closed forms, SciPy and edge cases."""

import warnings

import numpy as np
import pytest

from common.metrics import band_share, scores, shares, spearman

BINS = np.arange(1.0, 6.0)


def test_scores_of_a_known_error():
    truth = np.array([[0.0, 10.0], [2.0, 20.0], [4.0, 30.0]])
    for std in ([2.0, 10.0], [[2.0, 10.0]]):
        got = scores(truth, truth + np.array([1.0, -5.0]), std)
        np.testing.assert_allclose(got["MSE"], [0.25, 0.25])
        np.testing.assert_allclose(got["R2"], [1 - 3 / 8, 1 - 75 / 200])


def test_predicting_the_mean_has_r2_of_zero_and_mse_of_one():
    truth = np.random.default_rng(0).normal(size=(1000, 2)) * [0.3, 1e6]
    got = scores(truth, np.broadcast_to(truth.mean(axis=0), truth.shape), truth.std(axis=0))
    np.testing.assert_allclose(got["R2"], 0, atol=1e-12)
    np.testing.assert_allclose(got["MSE"], 1)


def test_r2_of_a_constant_truth_is_nan_without_a_warning():
    truth = np.column_stack([np.full(10, 0.1), np.arange(10.0)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = scores(truth, truth + 1, [1.0, 1.0])
    assert np.isnan(got["R2"][0]) and np.isfinite(got["R2"][1])
    np.testing.assert_allclose(got["MSE"], 1)


def test_rank_correlation_is_that_of_scipy_with_ties():
    stats = pytest.importorskip("scipy.stats")
    a, b = np.random.default_rng(0).integers(0, 6, (2, 3, 20))
    np.testing.assert_allclose(spearman(a, b), [stats.spearmanr(x, y).statistic for x, y in zip(a, b)], rtol=1e-12)
    assert spearman(BINS, BINS**3) == pytest.approx(1) and spearman(BINS, -BINS) == pytest.approx(-1)
    assert np.isnan(spearman(BINS, np.ones(5)))


def test_shares_of_maps():
    assert np.isnan(shares(np.array([[1.0, 3.0], [0.0, 0.0]]))[1]).all()
    np.testing.assert_allclose(shares(np.array([1.0, 3.0])), [0.25, 0.75])
    assert band_share(BINS, BINS, [(1.5, 2.5), (3.9, 9)]) == pytest.approx(11 / 15)
