"""Diagnostics against closed forms and edge cases."""

import math

import numpy as np
import pytest

from constants import amp
from report import diagnostics

TABLE = (amp("H2O"), amp("Rp"))


def gaussian_answers(n=20000, sigma=(0.3, 1e6), seed=0):
    """Predictions spread evenly, truths off by Gaussian errors that do not depend on the prediction."""
    rng = np.random.default_rng(seed)
    predicted = np.stack([rng.uniform(-8, -2, n), rng.uniform(3e7, 1e8, n)], axis=1)
    return predicted + rng.normal(0, sigma, predicted.shape), predicted


def test_bias_variance_bins_hold_a_hundred_spectra_each():
    truth, predicted = gaussian_answers(1000)
    got = diagnostics.bias_variance(truth, predicted)
    assert len(got) == 2
    for one in got:
        assert one.centre.shape == one.value.shape == one.high.shape == (10,)
        np.testing.assert_array_equal(one.count, 100)
        assert np.all(np.diff(one.centre) > 0)


def test_bias_variance_of_gaussian_errors_is_one_sigma_around_the_bias():
    truth, _ = gaussian_answers()
    error = np.random.default_rng(1).normal(0.1, 0.2, truth.shape)
    got = diagnostics.bias_variance(truth, truth + error, per_bin=5000)
    for one in got:
        np.testing.assert_allclose(one.value, 0.1, atol=0.01)
        np.testing.assert_allclose(one.low, 0.1 - 0.2 * 0.9945, atol=0.01)
        np.testing.assert_allclose(one.high, 0.1 + 0.2 * 0.9945, atol=0.01)


@pytest.mark.parametrize(("n", "bins"), [(1, 1), (19, 1), (60, 5), (499, 5), (700, 7), (799, 7)])
def test_bias_variance_of_a_small_test_set_keeps_every_spectrum(n, bins):
    truth, predicted = gaussian_answers(n)
    got = diagnostics.bias_variance(truth, predicted)
    for one in got:
        assert one.centre.shape == (bins,)
        assert one.count.sum() == n


def test_deviation_of_gaussian_errors_is_1_96_sigma():
    truth, predicted = gaussian_answers()
    first, second = diagnostics.deviation(truth, predicted, width=[1.0, 2e7], min_spectra=1000)
    for got, sigma in ((first, 0.3), (second, 1e6)):
        np.testing.assert_allclose(got.high, 1.96 * sigma, rtol=0.1)
        np.testing.assert_allclose(got.low, -1.96 * sigma, rtol=0.1)
        np.testing.assert_allclose(got.value / sigma, 0, atol=0.1)
    np.testing.assert_allclose(first.centre, [-7.5, -6.5, -5.5, -4.5, -3.5, -2.5])
    assert first.count.sum() == 20000


def test_credibility_of_gaussian_errors_is_an_error_function():
    truth, predicted = gaussian_answers()
    eps = diagnostics.tolerance(TABLE, truth.std(axis=0))
    got = diagnostics.credibility(truth, predicted, eps, width=[1.0, 2e7], min_spectra=1000)
    assert eps[0] == 0.5
    np.testing.assert_allclose(got[0].value, math.erf(0.5 / 0.3 / math.sqrt(2)), atol=0.02)
    np.testing.assert_allclose(got[1].value, math.erf(eps[1] / 1e6 / math.sqrt(2)), atol=0.02)
    for one in got:
        assert np.all((one.low <= one.value) & (one.value <= one.high))
        assert np.all((one.low >= 0) & (one.high <= 1))


def test_wilson_interval_covers_the_true_share():
    rng = np.random.default_rng(3)
    share = rng.binomial(50, 0.9, 4000) / 50
    _, low, high = diagnostics._wilson(share, np.full(4000, 50.0))
    assert np.mean((low <= 0.9) & (high >= 0.9)) == pytest.approx(0.95, abs=0.02)


def test_bins_with_fewer_than_twenty_spectra_are_left_out():
    predicted = np.concatenate([np.full(19, 0.5), np.full(20, 1.5)])[:, None]
    got = diagnostics.credibility(predicted, predicted, [0.5], [1.0])[0]
    np.testing.assert_allclose(got.centre, [1.5])
    assert diagnostics.deviation(predicted[:5], predicted[:5], [1.0])[0].centre.size == 0


def test_predictions_are_credible_from_the_bin_above_the_last_that_is_not():
    bins, ones = np.array([0.2, 0.6, 1.0]), np.ones(3)
    for shares, start in (([0.9, 0.6, 0.8], 1.0), ([0.8, 0.7, 0.7], 0.2), ([0.9, 0.9, 0.6], np.inf)):
        found = diagnostics.Along(bins, np.array(shares), ones, ones, ones)
        assert diagnostics.credible_from(found) == pytest.approx(start)


def test_one_wild_prediction_neither_hangs_nor_hides_the_rest():
    truth, predicted = gaussian_answers(500)
    predicted[0] = 1e12
    got = diagnostics.credibility(truth, predicted, [0.5, 1e6], [0.4, 1e7])
    assert got[0].centre.max() < 0


def test_planet_parameters_get_the_same_share_of_their_std_as_molecules():
    table = (*TABLE, amp("Mp"), amp("Pclouds"))
    std = np.array([6 / math.sqrt(12), 1e7, 0.3, 9.0])
    np.testing.assert_allclose((diagnostics.tolerance(table, std) / std)[:3], 0.5 / std[0])
    np.testing.assert_allclose((diagnostics.binning(table, std) / std)[:3], 0.4 / std[0])
    assert diagnostics.tolerance(table, std)[3] == 0.5  # never more than that of a molecule


def test_calibration_of_many_honest_folds_is_normal():
    rng = np.random.default_rng(2)
    centre = rng.normal(size=(4000, 2))
    folds = centre + rng.normal(0, 0.3, (60, 4000, 2))
    folds += (centre - folds.mean(axis=0)) + rng.normal(0, 0.3, (4000, 2))
    got = diagnostics.calibration(centre, folds)
    np.testing.assert_allclose(got.inside, np.broadcast_to(got.expected, got.inside.shape), atol=0.03)
    assert got.expected[list(got.k).index(1.0)] == pytest.approx(0.6827, abs=1e-4)


def test_loss_band_of_folds_that_stopped_at_different_epochs():
    histories = [{"loss": np.array([4.0, 2.0, 1.0])}, {"loss": np.array([6.0, 4.0])}, {}]
    got = diagnostics.loss_band(histories, "loss")
    np.testing.assert_allclose(got.mean, [5, 3, 1])
    np.testing.assert_allclose(got.low, [4, 2, 1])
    np.testing.assert_allclose(got.high, [6, 4, 1])
    np.testing.assert_array_equal(got.folds, [2, 2, 1])
    assert diagnostics.loss_band(histories, "val_loss") is None


def test_mean_map_error_falls_with_the_root_of_the_folds():
    got = diagnostics.mean_map([np.full((2, 3), 1.0), np.full((2, 3), 3.0)], np.full((2, 2, 3), 0.2))
    np.testing.assert_allclose(got.mean, 2)
    np.testing.assert_allclose(got.standard_error, 0.2 / math.sqrt(2))
    np.testing.assert_allclose([got.low[0, 0], got.high[0, 0], got.folds], [1, 3, 2])
