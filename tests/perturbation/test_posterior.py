"""Models that predict a distribution: maps of mean and width against closed forms, and the package sbi where it is."""

import numpy as np
import pytest

from sensitivity import exact_map, posterior_summary

N, N_BINS, N_AMPS = 6, 8, 2
RNG = np.random.default_rng(0)
MEAN, WIDTH = RNG.normal(size=(N_BINS, N_AMPS)), 0.3 * RNG.normal(size=(N_BINS, N_AMPS))
SPECTRA, ERRORS = RNG.normal(size=(N, N_BINS)), RNG.uniform(0.1, 0.3, (N, N_BINS))
NORMALS = RNG.normal(size=(1, 400, N_AMPS))
UNIT = np.array([2.0, 3.0])


class Normal:
    def __init__(self, mean, stddev):
        self.mean, self.stddev = mean, stddev


def gaussian(kind):
    """A Gaussian whose mean and log standard deviation are linear in the spectrum."""

    def model(x):
        mean, width = x @ MEAN, np.exp(x @ WIDTH)
        return {
            "moments": (mean, width), "covariance": [mean, width[:, :, None] ** 2 * np.eye(N_AMPS)],
            "samples": mean[:, None] + width[:, None] * (NORMALS - NORMALS.mean(axis=1)), "normal": Normal(mean, width),
        }[kind]  # fmt: skip

    return model


def closed_form(weights, unit):
    return np.mean((weights.T[None] * ERRORS[:, None]) ** 2, axis=0) * np.reshape(unit, (-1, 1)) ** 2


@pytest.mark.parametrize("kind", ["moments", "covariance", "samples", "normal"])
def test_maps_of_mean_and_width_of_a_gaussian(kind):
    result = exact_map(posterior_summary(gaussian(kind)), SPECTRA, ERRORS, y_data_mean=0, y_data_std=[*UNIT, 1, 1],
                       amp_names=["H2O", "Tp", "ln width of H2O", "ln width of Tp"], input_layout="flat")  # fmt: skip
    np.testing.assert_allclose(result.mean[:N_AMPS], closed_form(MEAN, UNIT), rtol=1e-3)
    np.testing.assert_allclose(result.mean[N_AMPS:], closed_form(WIDTH, 1), rtol=1e-3)
    assert np.array_equal(result["ln width of Tp"], result.mean[3])


@pytest.mark.parametrize(("output", "words"), [
    (lambda x: x @ MEAN, r"expected samples \(rows, n_samples, n_AMPs\), received \(\d+, 2\)"),
    (lambda x: (x @ MEAN,), r"expected a pair \(mean, spread\), received 1 outputs"),
    (lambda x: np.ones((5, len(x), 1)) * np.eye(5, 2)[:, None], "expected .* of 12 rows, received 5: swap the axes"),
    (lambda x: (x @ MEAN, x @ WIDTH), "expected positive standard deviations, received -"),
    (lambda x: (x @ MEAN, np.exp(x)), r"expected means and standard deviations \(rows, n_AMPs\), received"),
])  # fmt: skip
def test_what_is_no_distribution_is_refused(output, words):
    with pytest.raises(ValueError, match=f"^model: {words}"):
        exact_map(posterior_summary(output), SPECTRA, ERRORS, input_layout="flat")


@pytest.mark.slow
def test_a_posterior_of_sbi_has_the_map_of_the_linear_gaussian_problem():
    """Parameters theta ~ N(0, 1) in each AMP, spectra A theta + noise: the posterior mean is linear in the spectrum."""
    torch, inference = pytest.importorskip("torch"), pytest.importorskip("sbi.inference")
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    response, noise = rng.normal(size=(N_BINS, N_AMPS)), np.full(N_BINS, 0.7)
    theta = rng.normal(size=(4000, N_AMPS))
    spectra = theta @ response.T + noise * rng.normal(size=(4000, N_BINS))
    gain = np.linalg.solve(np.eye(N_AMPS) + response.T / noise**2 @ response, response.T / noise**2)  # (n_AMPs, n_bins)

    as_tensor = lambda x: torch.as_tensor(x, dtype=torch.float32)  # noqa: E731
    prior = torch.distributions.MultivariateNormal(torch.zeros(N_AMPS), torch.eye(N_AMPS))
    trainer = inference.NPE(prior, density_estimator="maf", show_progress_bars=False)
    trainer.append_simulations(as_tensor(theta), as_tensor(spectra)).train(max_num_epochs=40)
    posterior = trainer.build_posterior()

    def samples(x):  # (rows, n_bins) to (rows, 500, n_AMPs)
        drawn = posterior.sample_batched((500,), x=torch.as_tensor(x), show_progress_bars=False)
        return drawn.swapaxes(0, 1)

    result = exact_map(posterior_summary(samples), spectra[:8], noise, input_layout="flat", stochastic="subtract",
                       batch_size=200)  # fmt: skip
    truth = (gain * noise) ** 2
    assert np.abs(result.mean[:N_AMPS] - truth).sum() < 0.25 * truth.sum()
    assert result.mean[N_AMPS:].max() < 0.05 * 1  # the width does not depend on the spectrum
