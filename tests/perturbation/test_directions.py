"""Directions in the space of spectra: each helper against the closed form of a linear model, (w . d)^2."""

import doctest

import numpy as np
import pytest

from perturbation import directions
from sensitivity import dragged, modes, offsets, sensitivity_map, tilt

N_BINS = 8
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(N_BINS, 2))
ROOT = RNG.normal(size=(N_BINS, N_BINS)) * 1e-4
COVARIANCE = ROOT @ ROOT.T
WAVELENGTH = np.geomspace(0.6, 5, N_BINS)


def mapped(along):
    """Map of a linear model for these directions, (2, K)."""
    return sensitivity_map(
        lambda x: x @ WEIGHTS, None, np.zeros((1, N_BINS)), None, np.zeros(2), np.ones(2), no_spectra=None, x_mean=0,
        x_std=1, directions=along, input_layout="flat",
    ).mean  # fmt: skip


def test_offset_moves_the_bins_of_a_channel_together():
    channel = np.array([5, 5, 5, 2, 2, 9, 9, 9])
    along = offsets(channel, [1e-4, 2e-4, 3e-4])  # channels 2, 5, 9
    truth = [(sigma * WEIGHTS[channel == c].sum(axis=0)) ** 2 for c, sigma in ((2, 1e-4), (5, 2e-4), (9, 3e-4))]
    np.testing.assert_allclose(mapped(along).T, truth, rtol=1e-5)
    assert offsets(["a"] * N_BINS, 1e-4).shape == (1, N_BINS)


def test_tilt_is_a_line_in_log_wavelength():
    along = tilt(WAVELENGTH, 2e-4)
    np.testing.assert_allclose(along, [np.linspace(-2e-4, 2e-4, N_BINS)], atol=1e-18)
    np.testing.assert_allclose(mapped(along)[:, 0], (along @ WEIGHTS)[0] ** 2, rtol=1e-5)


def test_all_modes_together_do_what_the_noise_does():
    along = modes(COVARIANCE, N_BINS)
    np.testing.assert_allclose(along.T @ along, COVARIANCE, atol=1e-20)
    total = np.einsum("ba,bc,ca->a", WEIGHTS, COVARIANCE, WEIGHTS)
    np.testing.assert_allclose(mapped(along).sum(axis=1), total, rtol=1e-4)
    strength = np.square(along).sum(axis=1)
    assert (np.diff(strength) <= 0).all()
    assert np.array_equal(modes(COVARIANCE, 3), along[:3])
    assert np.array_equal(modes(np.stack([COVARIANCE, COVARIANCE]), 3)[1], along[:3])


def test_dragged_bin_takes_the_others_to_where_they_are_expected():
    np.testing.assert_allclose(mapped(dragged(COVARIANCE)),
                               (WEIGHTS.T @ COVARIANCE) ** 2 / np.diag(COVARIANCE), rtol=1e-4)  # fmt: skip
    errors = RNG.uniform(1e-5, 2e-5, (3, N_BINS))
    along = dragged(COVARIANCE, errors)
    np.testing.assert_allclose(np.diagonal(along, axis1=1, axis2=2), errors)  # a bin itself moves by its error
    np.testing.assert_allclose(dragged(np.diag(errors[0] ** 2)), np.diag(errors[0]))


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_covariances_are_taken_in_any_unit_and_rounding_errors_allowed(scale):
    """Of three bins: the smallest eigenvalue, the asymmetry and the largest correlation, just inside and outside."""
    turn = np.linalg.qr(RNG.normal(size=(3, 3)))[0]

    def of(smallest):
        return turn @ np.diag([smallest, 0.5, 1]) @ turn.T * scale

    assert modes(of(-2e-8), 3).shape == (3, 3)
    with pytest.raises(ValueError, match=r"^covariance: expected no negative eigenvalue, received -4"):
        modes(of(-4e-8), 1)
    uneven = np.triu(np.full((3, 3), scale), 1)
    assert modes(of(0.1) + 0.5e-8 * uneven * np.abs(of(0.1)).max() / scale, 1).shape == (1, 3)
    with pytest.raises(ValueError, match=r"^covariance: expected a symmetric covariance, received one that is not$"):
        modes(of(0.1) + 2e-8 * uneven * np.abs(of(0.1)).max() / scale, 1)
    deviation = np.array([1.0, 2, 5])
    correlation = np.eye(3)
    for largest in (1 + 0.5e-6, -1 - 0.5e-6):
        correlation[0, 2] = correlation[2, 0] = largest
        dragged(correlation * np.outer(deviation, deviation) * scale)
    for largest in (1.01, -1.01):
        correlation[0, 2] = correlation[2, 0] = largest
        with pytest.raises(ValueError, match=r"^covariance: expected correlations of 1 at most, received 1\.01$"):
            dragged(correlation * np.outer(deviation, deviation) * scale)


def test_greatest_component_of_a_mode_is_positive():
    for seed in range(5):
        root = np.random.default_rng(seed).normal(size=(3, N_BINS, N_BINS))
        along = modes(root @ np.swapaxes(root, 1, 2), N_BINS)  # (3, n, n_bins)
        greatest = np.take_along_axis(along, np.abs(along).argmax(axis=-1)[..., None], axis=-1)
        assert (greatest > 0).all() and (along < 0).any()


def test_no_displacement_is_one_too():
    assert not offsets([0, 1], 0).any() and not tilt([1, 2], 0).any() and not dragged(np.eye(2), [0, 0]).any()


def test_refusals_say_the_argument_and_the_shape():
    cases = {
        r"^sigma: expected real numbers of shape \(\) or \(2,\), received": lambda: offsets([0, 1], "wide"),
        r"^sigma: expected real numbers of shape \(\), received": lambda: tilt([1, 2], "wide"),
        "^sigma: expected numbers >= 0, received -3$": lambda: tilt([1, 2], -3),
        r"^covariance: expected real numbers of shape \(n_bins, n_bins\) or \(N, n_bins, n_bins\), received":
            lambda: modes("wide", 1),
        r"^covariance: expected shape \(n_bins, n_bins\) or \(N, n_bins, n_bins\), received \(2, 3, 2\)$":
            lambda: modes(np.ones((2, 3, 2)), 1),
        r"^errors: expected real numbers of shape \(2,\) or \(5, 2\), received":
            lambda: dragged(np.tile(np.eye(2), (5, 1, 1)), "wide"),
        r"^errors: expected shape \(2,\) or \(1, 2\), received \(1, 1, 2\)$":
            lambda: dragged(np.eye(2), np.ones((1, 1, 2))),
        r"^errors: expected shape \(2,\) or \(3, 2\), received \(4, 2\)$":
            lambda: dragged(np.tile(np.eye(2), (3, 1, 1)), np.ones((4, 2))),
        r"^n: expected a positive integer up to 2, received 3$": lambda: modes(np.tile(np.eye(2), (5, 1, 1)), 3),
    }  # fmt: skip
    for line, call in cases.items():
        with pytest.raises(ValueError, match=line):
            call()


def test_directions_are_put_together():
    along = np.concatenate([offsets([0] * 4 + [1] * 4, 1e-4), tilt(WAVELENGTH, 1e-4), modes(COVARIANCE, 2)])
    np.testing.assert_allclose(mapped(along), ((along @ WEIGHTS) ** 2).T, rtol=1e-3)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: offsets([], 1), "channel_of_bin"),
        (lambda: offsets([0, 1], [1, 2, 3]), "sigma"),
        (lambda: offsets([0, 1], -1), "sigma"),
        (lambda: tilt([1, 1], 1), "wavelength"),
        (lambda: tilt([0, 1], 1), "wavelength"),
        (lambda: tilt([1, 2], [1, 2]), "sigma"),
        (lambda: modes(np.ones((2, 3)), 1), "covariance"),
        (lambda: modes(-np.eye(2), 1), "covariance"),
        (lambda: modes(np.triu(np.ones((2, 2))), 1), "covariance"),
        (lambda: modes(np.eye(2), 3), "n"),
        (lambda: dragged(np.zeros((2, 2))), "covariance"),
        (lambda: dragged(np.eye(2), [1, 2, 3]), "errors"),
        (lambda: dragged(np.eye(2), [1, -2]), "errors"),
    ],
)
def test_bad_input_is_refused_by_name(call, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: expected .*received"):
        call()


def test_examples():
    assert doctest.testmod(directions).failed == 0
