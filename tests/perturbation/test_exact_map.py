"""The plain function: the numbers of `sensitivity_map`, raw units where no scaling is given, names, one spectrum."""

import inspect

import numpy as np
import pytest

from sensitivity import exact_map, sensitivity_map

N, N_BINS = 4, 10
RNG = np.random.default_rng(0)
W = RNG.normal(size=(N_BINS, 2))
SPECTRA, ERRORS = RNG.normal(0.01, 0.002, (N, N_BINS)), RNG.uniform(2e-4, 6e-4, (N, N_BINS))
RAW = np.mean((W.T[None] * ERRORS[:, None]) ** 2, axis=0)


def linear(x):
    return x.reshape(len(x), -1) @ W


def test_it_is_the_map_of_single_bins_or_directions_bit_for_bit():
    scaling = {"x_mean": 0.01, "x_std": 0.002, "y_data_mean": [1, 2], "y_data_std": [3, 4]}
    for how in ({}, {"directions": RNG.normal(0, 1e-4, (3, N_BINS))}, {"nodes": 9}):
        result = exact_map(linear, SPECTRA, ERRORS, amp_names=["H2O", "Tp"], **scaling, **how)
        same = sensitivity_map(linear, None, SPECTRA, ERRORS, **scaling, gases=["H2O", "Tp"], no_spectra=None,
                               scheme="single", **how)  # fmt: skip
        for name, value in vars(same).items():
            if name != "seed":
                np.testing.assert_equal(getattr(result, name), value)


def test_no_scaling_means_raw_numbers_in_and_out():
    np.testing.assert_allclose(exact_map(linear, SPECTRA, ERRORS).mean, RAW, rtol=1e-3)
    found = exact_map(linear, SPECTRA, ERRORS, y_data_mean=5, y_data_std=2).mean
    np.testing.assert_allclose(found, 4 * RAW, rtol=1e-3)


def test_a_single_spectrum_may_come_flat():
    flat, rows = exact_map(linear, SPECTRA[0], ERRORS[0]), exact_map(linear, SPECTRA[:1], ERRORS[:1])
    assert np.array_equal(flat.mean, rows.mean) and flat.n_spectra.tolist() == [1, 1]


def test_directions_need_no_errors():
    offset = np.full((1, N_BINS), 1e-4)
    result = exact_map(linear, SPECTRA, directions=offset)
    np.testing.assert_allclose(result.mean[:, 0], (offset @ W)[0] ** 2, rtol=1e-3)


@pytest.mark.parametrize(("how", "words"), [
    ({"x_mean": 0.01}, "x_std: expected a number, as x_mean is given, received None"),
    ({"y_data_mean": 0.01}, "y_data_std: expected a number, as y_data_mean is given, received None"),
    ({"nodes": None}, "nodes: expected a number from 2 to 200, received None"),
    ({"errors": None}, "errors: expected"),
    ({"spectra": np.full((N, N_BINS), 1e39)}, "spectra, scaled by x_mean and x_std: expected"),
    ({"model": None}, "model: expected .predict, or a callable, received NoneType"),
    ({"amp_names": ["H2O"]}, "amp_names: expected the names of the model's 2 AMPs"),
])  # fmt: skip
def test_wrong_arguments_are_refused(how, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        exact_map(**{"model": linear, "spectra": SPECTRA, "errors": ERRORS, **how})


def test_its_options_are_those_of_sensitivity_map():
    own = {"spectra", "errors", "amp_names"}
    assert set(inspect.signature(exact_map).parameters) - own <= set(inspect.signature(sensitivity_map).parameters)
