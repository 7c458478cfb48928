"""Deletion curves and the un-mixing of the halving scheme, on models whose answer is known."""

import numpy as np
import pytest

pytest.importorskip("scipy")

from sensitivity import halving_sizes, sensitivity_map
from studies import faithfulness, repeats, unmixing

N_BINS = 52
WEIGHTS = np.random.default_rng(0).normal(size=(N_BINS, 2)) * np.linspace(0.1, 2, N_BINS)[:, None]


def linear(x):
    return x @ WEIGHTS


@pytest.mark.parametrize("name", ["ols", "wls"])
def test_regression_on_the_masks_gives_the_effect_of_each_bin_of_a_linear_model(name):
    rng = np.random.default_rng(1)
    runs = []
    for _ in range(12):
        noise = np.ones((1, N_BINS))
        runs.append(unmixing.unmixed_by_regression(linear, np.zeros((1, N_BINS)), noise, 300, rng)[name])
    error = np.std(runs, axis=0, ddof=1) / np.sqrt(len(runs))
    deviation = (np.mean(runs, axis=0) - WEIGHTS.T**2) / error
    assert np.abs(deviation).max() < 7 and np.sqrt(np.mean(deviation**2)) < 1.5  # Student t of 11


@pytest.mark.parametrize("n_bins", [2, 3, 8, 13, 52, 64])
def test_closed_form_gives_the_effects_back_and_keeps_the_ranking(n_bins):
    sizes = halving_sizes(n_bins)
    effects = np.random.default_rng(n_bins).random((2, n_bins))
    p = sum(n * (n - 1) for n in sizes) / (n_bins * (n_bins - 1))
    mixed = effects + p * (effects.sum(axis=1, keepdims=True) - effects)
    found = unmixing.unmixed(mixed, sizes)
    np.testing.assert_allclose(found, effects, rtol=1e-10)
    np.testing.assert_array_equal(np.argsort(found), np.argsort(mixed))
    np.testing.assert_array_equal(unmixing.unmixed(mixed, [1] * n_bins), mixed)  # single bins mix nothing


def test_closed_form_of_a_map_of_a_linear_model():
    result = sensitivity_map(
        linear, None, np.zeros((1, N_BINS)), np.ones((1, N_BINS)), np.zeros(2), np.ones(2), no_spectra=None,
        repeat=100_000, x_mean=0, x_std=1, rng=0, input_layout="flat",
    )  # fmt: skip
    found = unmixing.unmixed(result.mean, halving_sizes(N_BINS))
    p = 862 / 2652
    assert np.abs((found - WEIGHTS.T**2) * (1 - p) / result.repeat_error).max() < 5


def test_cost_of_a_contrast_is_what_a_simulation_costs():
    rng = np.random.default_rng(7)
    sizes, repeats_each = halving_sizes(N_BINS), 400
    equal = np.ones((N_BINS, 1))
    zero, one = np.zeros((1, N_BINS)), np.ones((1, N_BINS))
    found = {"halving": [], "ols": [], "wls": []}
    for seed in range(40):
        published = sensitivity_map(
            lambda x: x @ equal, None, zero, one, [0], [1], no_spectra=None, repeat=repeats_each, x_mean=0, x_std=1,
            rng=seed, input_layout="flat",
        ).mean  # fmt: skip
        found["halving"].append(unmixing.unmixed(published, sizes))
        regressed = unmixing.unmixed_by_regression(lambda x: x @ equal, zero, one, repeats_each, rng)
        for name, value in regressed.items():
            found[name].append(value)
    for name, cost in unmixing.cost_of_a_contrast(sizes).items():
        contrast = np.var(found[name], axis=-1, ddof=1).mean()  # of the bins of one map
        np.testing.assert_allclose(contrast * repeats_each * len(sizes) / (2 * N_BINS), cost, rtol=0.15)
    np.testing.assert_allclose(list(unmixing.cost_of_a_contrast([1] * N_BINS).values()), 1)


def test_small_groups_know_more():
    rng = np.random.default_rng(2)
    found = [
        unmixing.unmixed_by_regression(linear, np.zeros((1, N_BINS)), np.ones((1, N_BINS)), 300, rng) for _ in range(20)
    ]
    error = {name: np.mean([(f[name] - WEIGHTS.T**2) ** 2 for f in found]) for name in ("ols", "wls")}
    assert error["wls"] < 0.7 * error["ols"]


def test_deletion_in_the_right_order_takes_more_of_the_skill_than_in_the_wrong_one():
    rng = np.random.default_rng(3)
    spectra = rng.normal(size=(400, N_BINS))
    amps = linear(spectra)
    corrupt = faithfulness.another_planet(spectra, 3, rng)
    right = faithfulness.ranking(WEIGHTS.T**2)
    curves = [faithfulness.deletion_curve(linear, spectra, amps, o, corrupt, 3) for o in (right, right[:, ::-1])]
    for curve in curves:
        np.testing.assert_allclose(curve[:, 0], 1)
        np.testing.assert_allclose(curve[:, -1], -1, atol=0.2)  # all bins of another planet
    assert (np.diff(curves[0], axis=1) < 0).all()
    assert (faithfulness.area(curves[0]) > faithfulness.area(curves[1]) + 0.2).all()


def test_area_is_the_share_of_r2_lost():
    counts = (0, 1, 3, 7)  # evenly spaced in log2(1 + k)
    np.testing.assert_allclose(faithfulness.area(np.array([[0.8, 0.4, 0.0, -9.0]]), counts), [(0.25 + 0.75 + 1) / 3])
    np.testing.assert_allclose(faithfulness.area(np.array([[0.5, 0.5, 0.5, 0.6]]), counts), [0])


def test_bins_drawn_given_the_rest_belong_to_the_data():
    rng = np.random.default_rng(4)
    training = rng.normal(size=(20000, 5)) @ rng.normal(size=(5, 5))
    spectra, bins = training[:10000], np.array([3, 0])
    moved = np.tile(spectra, (2, 1, 1))
    moved[:, :, bins] = faithfulness.given_the_rest(spectra, training, 2, rng)(bins)
    expected = np.cov(training, rowvar=False)
    np.testing.assert_allclose(np.cov(moved[0], rowvar=False), expected, atol=0.05 * np.diag(expected).max())
    assert np.corrcoef(moved[0, :, 3], moved[1, :, 3])[0, 1] < 0.9999
    all_bins = faithfulness.given_the_rest(spectra, training, 2, rng)(np.arange(5))
    np.testing.assert_allclose(np.cov(all_bins[1], rowvar=False), expected, atol=0.05 * np.diag(expected).max())


def test_worse_noise_has_the_error_asked_for():
    rng = np.random.default_rng(5)
    errors = np.array([1.0, 3.0])
    noisy = errors * rng.standard_normal((40000, 2))
    worse = faithfulness.worse_noise(noisy, errors, 1, rng)(np.array([0, 1]))[0]
    np.testing.assert_allclose(worse.std(axis=0), faithfulness.WORSE * errors, rtol=0.02)


def test_error_of_a_map_against_its_reference():
    rng = np.random.default_rng(6)
    truth = np.linspace(1, 3, N_BINS)
    maps = [truth * rng.lognormal(0, 0.3, (n, 2, 1)) * rng.lognormal(0, 0.3, (n, 2, N_BINS)) for n in (100, 1000)]
    numbers = repeats.compare(maps[0], maps[1], maps[1])
    assert (numbers["error"] < 0.1).all() and (numbers["spearman"] > 0.9).all() and (numbers["top_ten"] >= 6).all()
    assert (numbers["z"] < 3).all() and (numbers["z"] > 0.3).all()
    np.testing.assert_allclose(repeats.compare(maps[1], maps[1], maps[1])["error"], 0)
