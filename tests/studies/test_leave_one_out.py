"""Leaving a bin out: weights of posterior draws against the closed form of a linear model."""

import h5py
import numpy as np
import pytest

from studies import information, leave_one_out

RNG = np.random.default_rng(12)
JACOBIAN, ERROR, VARIANCE = RNG.normal(size=(3, 12)), RNG.uniform(3.0, 5.0, 12), np.array([1.0, 4.0, 0.5])


def posterior(error):
    """Mean (3,), covariance (3, 3) and gain (3, 12) for one spectrum, whose bins have these errors."""
    covariance, gain = information.laplace(JACOBIAN, error, VARIANCE)
    return gain @ SPECTRUM, covariance, gain


SPECTRUM = RNG.normal(size=3) * np.sqrt(VARIANCE) @ JACOBIAN + ERROR * RNG.normal(size=12)


def linear_shift():
    """Shift of the posterior mean without each bin, (3, 12): the posterior is computed again without the bin."""
    bins = np.arange(12)
    without = [posterior(np.where(bins == b, 1e9, ERROR))[0] for b in bins]
    return np.stack(without, axis=1) - posterior(ERROR)[0][:, None]


def test_shift_without_a_bin_is_its_residual_times_its_gain_over_one_minus_its_leverage():
    mean, covariance, gain = posterior(ERROR)
    leverage = np.einsum("kb,kl,lb->b", JACOBIAN, covariance, JACOBIAN) / ERROR**2
    expected = -gain * (SPECTRUM - mean @ JACOBIAN) / (1 - leverage)
    np.testing.assert_allclose(linear_shift(), expected, atol=1e-9)


def test_weighted_draws_shift_as_the_closed_form_says():
    pytest.importorskip("arviz_stats")
    mean, covariance, _ = posterior(ERROR)
    draws = np.random.default_rng(13).multivariate_normal(mean, covariance, 20_000)
    found, pareto_k = leave_one_out.without_each_bin(draws, draws @ JACOBIAN, SPECTRUM, ERROR)
    expected = linear_shift()
    assert pareto_k.max() < leave_one_out.LARGEST_K
    deviation = np.sqrt(np.diag(covariance))[:, None]
    np.testing.assert_allclose(found / deviation, expected / deviation, atol=0.06)
    assert np.abs(expected / deviation).max() > 0.3  # there is something to find


def test_a_stored_file_of_another_data_set_is_started_anew(tmp_path):
    path = tmp_path / "loo.h5"
    for digest, left in (("a", []), ("a", ["loo"]), ("b", [])):
        leave_one_out.start_anew(path, digest)
        with h5py.File(path, "a") as file:
            assert (list(file), file.attrs["data_sha256"]) == (left, digest)
            file.require_group("loo")


def test_halves_are_those_of_the_walkers(monkeypatch):
    monkeypatch.setattr(leave_one_out, "WALKERS", 4)
    draws = np.arange(12.0)[:, None]  # three steps of walkers 0, 2 then 1, 3, as samplers.walk returns them
    np.testing.assert_array_equal(leave_one_out.halves(draws)[0, :, 0], [0, 1, 4, 5, 8, 9])
    np.testing.assert_array_equal(leave_one_out.halves(draws)[1, :, 0], [2, 3, 6, 7, 10, 11])


def test_drawn_removal_of_a_linear_model_has_the_expected_square():
    from studies.explanations import sampled_removal

    leverage = np.full((200_000, 2), 0.5)
    drawn = sampled_removal(np.full((200_000, 1, 2), 3.0), leverage).mean(axis=0)
    np.testing.assert_allclose(drawn, [[6.0, 6.0]], rtol=0.03)  # optimal map / (1 - leverage)
