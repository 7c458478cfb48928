"""The limit and the optimal map on a linear-Gaussian toy, where everything has a closed form."""

from types import SimpleNamespace

import numpy as np
import pytest

from studies import information, limit, more_planets, posterior, samplers

RNG = np.random.default_rng(3)
N_AMPS, N_BINS = 3, 7
JACOBIAN = RNG.normal(size=(N_AMPS, N_BINS))
ERROR = RNG.uniform(0.5, 2.0, N_BINS)
VARIANCE = np.array([1.0, 4.0, 1e6])  # AMPs of very different size, as metres beside dex
JACOBIAN[2] /= 1e3


def draw(n, rng):
    """AMPs (n, 3) from the prior and their noisy spectra (n, 7)."""
    amps = rng.standard_normal((n, N_AMPS)) * np.sqrt(VARIANCE)
    return amps, amps @ JACOBIAN + ERROR * rng.standard_normal((n, N_BINS))


def test_laplace_covariance_is_the_textbook_formula():
    covariance, gain = information.laplace(JACOBIAN, ERROR, VARIANCE)
    inverse = JACOBIAN @ np.diag(1 / ERROR**2) @ JACOBIAN.T + np.diag(1 / VARIANCE)
    np.testing.assert_allclose(covariance @ inverse, np.eye(N_AMPS), atol=1e-9)
    np.testing.assert_allclose(gain, np.linalg.inv(inverse) @ JACOBIAN @ np.diag(1 / ERROR**2), rtol=1e-9)


def test_laplace_takes_many_planets_at_once():
    many = np.stack([JACOBIAN, 2 * JACOBIAN])
    covariance, gain = information.laplace(many, np.stack([ERROR, ERROR]), VARIANCE)
    for k in range(2):
        one = information.laplace(many[k], ERROR, VARIANCE)
        np.testing.assert_allclose(covariance[k], one[0])
        np.testing.assert_allclose(gain[k], one[1])


def test_limit_is_the_squared_error_of_the_posterior_mean_and_no_linear_estimator_beats_it():
    amps, spectra = draw(200_000, np.random.default_rng(4))
    covariance, gain = information.laplace(JACOBIAN, ERROR, VARIANCE)
    error = ((spectra @ gain.T - amps) ** 2).mean(axis=0)
    np.testing.assert_allclose(error, np.diag(covariance), rtol=0.02)
    weights = np.linalg.lstsq(spectra, amps, rcond=None)[0]  # the best linear estimator, from the draws alone
    np.testing.assert_allclose(((spectra @ weights - amps) ** 2).mean(axis=0), np.diag(covariance), rtol=0.02)
    assert (((spectra @ (1.1 * gain).T - amps) ** 2).mean(axis=0) > np.diag(covariance)).all()


def test_optimal_map_is_the_sensitivity_of_the_posterior_mean():
    from sensitivity import sensitivity_map

    _, gain = information.laplace(JACOBIAN, ERROR, VARIANCE)
    found = sensitivity_map(
        lambda x: x @ gain.T,
        None,
        np.zeros((1, N_BINS)),
        ERROR[None],
        np.zeros(N_AMPS),
        np.ones(N_AMPS),
        gases=["a", "b", "c"],
        no_spectra=None,
        repeat=20_000,
        x_mean=0.0,
        x_std=1.0,
        scheme="single",
        rng=0,
    )
    np.testing.assert_allclose(found.mean, information.optimal_map(gain, ERROR), rtol=0.06)


def test_without_data_the_limit_is_the_prior():
    covariance, gain = information.laplace(np.zeros_like(JACOBIAN), ERROR, VARIANCE)
    np.testing.assert_allclose(np.diag(covariance), VARIANCE)
    assert not gain.any()


def test_jacobian_of_a_quadratic_model_is_exact():
    amps = np.array([1.0, -2.0, 0.5])
    found = information.jacobian(lambda a: a @ JACOBIAN + (a**2).sum(axis=1)[:, None], amps, np.full(3, 1e-3))
    np.testing.assert_allclose(found, JACOBIAN + 2 * amps[:, None], rtol=1e-6)


def test_planets_are_the_beginning_of_one_order():
    np.testing.assert_array_equal(information.pick_planets(100, 30)[:10], information.pick_planets(100, 10))
    with pytest.raises(ValueError, match="received 101"):
        information.pick_planets(100, 101)


def test_posterior_covariance_with_the_model_is_the_derivative_of_the_posterior_mean():
    """The identity the sampled optimal map rests on: d E[AMP | x] / d x = Cov(AMP, model) / error^2."""
    rng = np.random.default_rng(5)
    covariance, gain = information.laplace(JACOBIAN, ERROR, VARIANCE)
    amps = rng.multivariate_normal(np.zeros(N_AMPS), covariance, 400_000)
    found = samplers.summarise(amps, np.full(len(amps), 1 / len(amps)), amps @ JACOBIAN, ERROR)
    unit = np.sqrt(VARIANCE)[:, None]
    np.testing.assert_allclose(found.gain / unit, gain / unit, atol=0.005)
    np.testing.assert_allclose(found.variance, np.diag(covariance), rtol=0.02)


def test_tempered_sampler_finds_a_known_posterior(monkeypatch):
    """A linear model whose posterior lies well inside the priors has a Gaussian posterior and a known evidence."""
    monkeypatch.setattr(samplers, "STEPS", 300)
    rng = np.random.default_rng(6)
    steep, error = RNG.normal(size=(3, 20)), np.full(20, 0.3)
    covariance, _ = information.laplace(steep, error, np.full(3, 1e6))
    spectrum = np.array([0.3, -0.2, 0.5]) @ steep + error * rng.standard_normal(20)
    expected = np.linalg.solve(steep @ steep.T, steep @ spectrum)  # all errors are the same
    limits = np.array([[-3.0] * 3, [3.0] * 3])
    prior = rng.uniform(-3, 3, (5000, 3))
    found = samplers.tempered_posterior(lambda a: a @ steep, spectrum, error, limits, (prior, prior @ steep), rng)
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((found.mean - expected) / deviation, 0, atol=0.2)
    np.testing.assert_allclose(found.variance, deviation**2, rtol=0.25)
    best = -0.5 * (((expected @ steep - spectrum) / error) ** 2).sum()
    evidence = best + 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1] - 3 * np.log(6.0)
    assert found.log_evidence == pytest.approx(evidence, abs=0.5)


def test_walkers_share_two_modes_of_different_weight():
    """Led from the prior, the walkers find two narrow modes in the share of their weights."""
    rng = np.random.default_rng(7)

    def depth(amps):  # nearest mode of two, at -2 and 2; the second weighs three times the first
        return np.where(amps < 0, (amps + 2) / 0.1, np.hypot((amps - 2) / 0.3, 0.0))

    prior = rng.uniform(-6, 6, (4000, 1))
    limits = np.array([[-6.0], [6.0]])
    share = [
        (
            samplers.tempered_posterior(depth, np.zeros(1), np.ones(1), limits, (prior, depth(prior)), rng).draws > 0
        ).mean()
        for _ in range(8)
    ]
    assert np.mean(share) == pytest.approx(0.75, abs=0.08)


def test_nested_sampler_finds_a_known_posterior(monkeypatch):
    """A linear model whose posterior lies well inside the priors has a Gaussian posterior."""
    pytest.importorskip("nestle")
    monkeypatch.setattr(samplers, "LIVE_POINTS", 150)
    rng = np.random.default_rng(6)
    steep = RNG.normal(size=(3, 20))
    error = np.full(20, 0.3)
    covariance, _ = information.laplace(steep, error, np.full(3, 1e6))
    truth = np.array([0.3, -0.2, 0.5])
    spectrum = truth @ steep + error * rng.standard_normal(20)
    expected = np.linalg.solve(steep @ steep.T, steep @ spectrum)  # all errors are the same
    limits = np.array([[-3.0] * 3, [3.0] * 3])
    found = samplers.nested_posterior(lambda a: a @ steep, spectrum, error, limits, rng)
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((found.mean - expected) / deviation, 0, atol=0.25)
    np.testing.assert_allclose(found.variance, deviation**2, rtol=0.35)
    np.testing.assert_allclose(
        found.gain / deviation[:, None], covariance @ steep / 0.09 / deviation[:, None], atol=0.6
    )


def test_ranks_are_uniform_for_right_posteriors_and_not_for_narrow_ones():
    """Simulation-based calibration where posteriors are known: a linear model with a Gaussian prior."""
    rng = np.random.default_rng(12)
    covariance, gain = information.laplace(JACOBIAN, ERROR, VARIANCE)
    amps, spectra = draw(300, rng)
    unit, weights = rng.multivariate_normal(np.zeros(N_AMPS), covariance, 200), np.full(200, 1 / 200)
    found = {}
    for width in (1.0, 0.6):
        rows = [posterior.ranks(x @ gain.T + width * unit, weights, truth) for x, truth in zip(spectra, amps)]
        found[width] = posterior.uniformity(rows)
    assert (found[1.0] > 0.01).all()
    assert (found[0.6] < 0.01).all()


def test_rank_is_the_weight_below_the_truth():
    draws, weights = np.array([[1.0], [2.0], [3.0]]), np.array([0.5, 0.3, 0.2])
    assert posterior.ranks(draws, weights, np.array([2.5])) == pytest.approx(0.8)
    assert posterior.ranks(draws, weights, np.array([2.0])) == pytest.approx(0.65)


def test_stored_ranks_are_uniform_and_truths_as_far_as_the_posteriors_say():
    import h5py

    from loaders import load_dataset

    with h5py.File(information.STORED) as file:
        sampled = {key: values[()] for key, values in file["sampler"].items()}
        digest = file.attrs["data_sha256"]
    data = load_dataset(information.STORED.with_name("ariel_spectra.h5"))
    assert digest == data.sha256()
    assert len(sampled["mean"]) >= 300
    assert (posterior.uniformity(sampled["rank"]) > 0.01).all()
    z2 = (data.amps[sampled["rows"]] - sampled["mean"]) ** 2 / sampled["variance"]
    assert (np.abs(z2.mean(axis=0) - 1) < 3 * z2.std(axis=0, ddof=1) / np.sqrt(len(z2))).all()


def test_stored_groups_are_replaced_whole_and_read_back_by_their_planets(tmp_path):
    path = tmp_path / "file.h5"
    posterior.store(path, "sampler", {"index": np.arange(4), "mean": np.ones((4, 2))})
    posterior.store(path, "true", {"index": np.arange(2)})
    posterior.store(path, "sampler", {"index": np.arange(5), "mean": np.zeros((5, 2))})
    found = posterior.read(path, "sampler", np.arange(8))
    assert found["mean"].shape == (5, 2)
    assert not found["mean"].any()
    assert posterior.read(path, "sampler", np.arange(8)[::-1]) == {}  # other planets
    assert len(posterior.read(path, "true", np.arange(1))["index"]) == 1


def test_ratio_is_that_of_the_means_with_the_spread_of_resamples():
    rng = np.random.default_rng(7)
    below = rng.chisquare(1, (2000, 1))
    above = 2 * rng.chisquare(1, (2000, 1))
    ratio, error = limit.ratio_with_error(above, below)
    assert ratio[0] == above.mean() / below.mean()
    expected = ratio[0] * np.sqrt(2 / 2000 * 2)  # variance of a mean of chi2(1): 2 / n, twice
    assert error[0] == pytest.approx(expected, rel=0.15)


def test_excess_over_the_posterior_mean_is_the_excess_error():
    """Mean squared error = posterior variance + squared distance to the posterior mean: what `limit.py` prints."""
    amps, spectra = draw(200_000, np.random.default_rng(8))
    covariance, gain = information.laplace(JACOBIAN, ERROR, VARIANCE)
    clumsy = spectra @ (0.8 * gain.T)
    direct = ((clumsy - amps) ** 2).mean(axis=0) / np.diag(covariance)
    paired = 1 + ((clumsy - spectra @ gain.T) ** 2).mean(axis=0) / np.diag(covariance)
    np.testing.assert_allclose(paired, direct, rtol=0.02)


def test_level_and_depth_are_inverse():
    from studies import emulator

    low, high = emulator.prior_limits()
    amps = low + (high - low) * np.random.default_rng(9).random((50, 9))
    level = np.random.default_rng(10).uniform(0, 18, (50, 52))
    depth = emulator.depth_from_level(level, amps)
    np.testing.assert_allclose(emulator.level_from_depth(depth, amps), level, rtol=1e-9, atol=1e-9)
    slope = (emulator.depth_from_level(level + 1e-5, amps) - emulator.depth_from_level(level - 1e-5, amps)) / 2e-5
    np.testing.assert_allclose(emulator.slope_of_depth(depth, amps), slope, rtol=1e-5)


def test_stored_emulator_errs_far_below_the_noise():
    from studies import emulator

    data, _, test = emulator.load_rows()
    rows = test[:500]
    error = (emulator.Emulator.load().depth(data.amps[rows]) - data.spectra[rows]) / data.errors[rows]
    assert np.sqrt((error**2).mean()) < 0.1
    assert np.quantile(np.abs(error), 0.99) < 0.4


def test_stored_information_is_whole():
    import h5py

    with h5py.File(information.STORED) as file:
        n = len(file["rows"])
        assert file["jacobian"].shape == file["optimal_map_per_planet"].shape == (n, 9, 52)
        assert np.isfinite(file["jacobian"][()]).all()
        assert (file["laplace_variance"][()] <= file.attrs["prior_variance"] * (1 + 1e-9)).all()
        data, _, test = information.load_rows()
        np.testing.assert_array_equal(test[file["index"][()]], file["rows"][()])
        error = data.errors[file["rows"][()]].astype(float)
        _, gain = information.laplace(file["jacobian"][()].astype(float), error, file.attrs["prior_variance"])
        np.testing.assert_allclose(information.optimal_map(gain, error).mean(axis=0), file["optimal_map"], rtol=1e-3)


def test_limit_refuses_a_run_that_cannot_be_compared(tmp_path):
    with pytest.raises(ValueError, match=r"no results\.h5"):
        limit.limit_ratio(tmp_path)


def test_more_planets_are_for_training_only(tmp_path):
    import h5py

    from loaders import load_dataset
    from preprocessing import noisy_test_spectra, split_test

    data, _, test = information.load_rows()
    more, merged = tmp_path / "more.h5", tmp_path / "merged.h5"
    rows = np.setdiff1d(np.arange(200), test)[:50]
    with h5py.File(more_planets.SHIPPED) as shipped, h5py.File(more, "w") as file:
        for name in ("spectra", "errors", "amps"):
            file[name] = shipped[name][rows]
            file[name].attrs.update(shipped[name].attrs)
        file["wavelength"], file.attrs["command"] = shipped["wavelength"][()], "made for a test"
    more_planets.merge(more, merged)
    both = load_dataset(merged, auxiliary=["log_error"])
    np.testing.assert_allclose(both.auxiliary[-50:, 0], np.log10(np.median(data.errors[rows], axis=1)), rtol=1e-6)
    assert len(both) == len(data) + 50
    np.testing.assert_array_equal(both.spectra[-50:], data.spectra[rows])
    rest, same = split_test(both, 0.2, 0)
    np.testing.assert_array_equal(same, test)
    assert len(rest) + len(test) == len(both)
    np.testing.assert_array_equal(noisy_test_spectra(both, same, 0), noisy_test_spectra(data, test, 0))

    with h5py.File(more, "a") as file:
        file["wavelength"][0] *= 2
    with pytest.raises(ValueError, match="wavelengths"):
        more_planets.merge(more, merged)


def test_permutation_map_sees_only_the_bins_that_are_used():
    from studies import map_agreement

    rng = np.random.default_rng(11)
    spectra = rng.standard_normal((3000, 3))
    found = map_agreement.permutation_map(lambda x: x[:, [1]], spectra, spectra[:, [1]])
    np.testing.assert_allclose(found, [[0.0, 2.0, 0.0]], atol=0.15)  # twice the variance


def test_the_maps_that_a_run_wrote_are_read_of_the_mean_and_of_the_first_fold(monkeypatch):
    from studies import map_agreement

    exact, published = np.ones((2, 3)), np.full((2, 3), 2.0)
    maps = {"sensitivity_single": SimpleNamespace(mean=exact), "sensitivity": SimpleNamespace(mean=published)}
    maps["noisy"] = {"sensitivity_single": True, "sensitivity": False}
    run = SimpleNamespace(model="mlp", ensemble=SimpleNamespace(**maps), folds={0: SimpleNamespace(**maps)})
    monkeypatch.setattr("runio.results.load_run", lambda folder: run)
    monkeypatch.setattr("studies.limit.refuse_other_test", lambda run, information: None)
    expected = {"exact of the run, noisy": exact, "published of the run": published}
    assert map_agreement.written_maps("a run") == [("mlp, mean of folds", expected), ("mlp", expected)]
    run.ensemble, run.folds[0] = None, SimpleNamespace(sensitivity=None, sensitivity_single=None)
    with pytest.raises(ValueError, match="a run: expected a run with maps"):
        map_agreement.written_maps("a run")
