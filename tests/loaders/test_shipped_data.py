"""The shipped data set: layout, provenance, and whether the spectra look like the physics they claim."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from simulation.ariel import ariel_grid
from simulation.design import ARIEL

PATH = Path(__file__).resolve().parents[2] / "data" / "ariel_spectra.h5"
NAMES = ["H2O", "CH4", "CO", "CO2", "NH3", "Mp", "Rp", "Tp", "Pclouds"]
SUN = 6.957e8  # m

# Where each molecule must absorb [micron], and a window where it must be clearer than in the bands beside it.
BANDS = {
    "H2O": ([1.4, 1.9, 2.7, 6.3], 2.22),
    "CH4": ([1.7, 2.3, 3.3, 7.3], 1.97),  # 7.3: the grid ends inside the 7.7 micron band
    "CO": ([2.35, 4.7], 3.3),
    "CO2": ([2.0, 2.7, 4.3], 3.5),
    "NH3": ([1.5, 2.0, 2.3, 3.0, 6.1], 1.0),
}


@pytest.fixture(scope="module")
def data():
    with h5py.File(PATH) as file:
        values = {key: file[key][()] for key in ("spectra", "errors", "wavelength", "bin_width", "amps")}
        values["curves"] = {key: curve[()] for key, curve in file["molecule_curves"].items()}
        values["attributes"] = dict(file.attrs)
        values["amp_attributes"] = dict(file["amps"].attrs)
        values["reference"] = json.loads(file["molecule_curves"].attrs["reference_planet"])
    values["column"] = {name: values["amps"][:, i] for i, name in enumerate(NAMES)}
    return values


def at(data, wavelength):
    """Index of the bin nearest to a wavelength [micron]."""
    return int(np.argmin(np.abs(data["wavelength"] - wavelength)))


def test_layout_and_size(data):
    n_spectra, n_bins = data["spectra"].shape
    assert (n_spectra, n_bins) == (30000, 52)
    assert data["errors"].shape == (n_spectra, n_bins)
    assert data["amps"].shape == (n_spectra, len(NAMES))
    assert data["spectra"].dtype == data["errors"].dtype == np.float32
    assert data["wavelength"].dtype == data["bin_width"].dtype == data["amps"].dtype == np.float64
    assert PATH.stat().st_size < 10e6


def test_grid_is_the_one_of_the_code(data):
    wavelength, bin_width, edges = ariel_grid()
    np.testing.assert_allclose(data["wavelength"], wavelength, rtol=1e-14)  # NumPy 1 and 2 round powers differently
    np.testing.assert_allclose(data["bin_width"], bin_width, rtol=1e-12)
    assert (np.diff(wavelength) > 0).all()
    assert (bin_width > 0).all()
    assert edges.shape == (52, 2)


def test_amps_are_described(data):
    assert list(data["amp_attributes"]["names"]) == NAMES
    assert list(data["amp_attributes"]["units"]) == ["", "", "", "", "", "kg", "m", "K", "Pa"]
    assert list(data["amp_attributes"]["scale"]) == ["log10"] * 6 + ["linear"] * 2 + ["log10"]


def test_amps_and_errors_are_those_that_the_seed_draws(data):
    seed = int(data["attributes"]["seed"])
    np.testing.assert_array_equal(data["amps"][:50], ARIEL.draw_amps(50, seed))
    np.testing.assert_array_equal(data["errors"][:50], ARIEL.draw_errors(50, seed).astype(np.float32))


def test_amps_fill_their_priors_and_are_independent(data):
    priors = json.loads(data["attributes"]["priors"])
    assert list(priors) == NAMES
    for name, prior in priors.items():
        low, high = np.log10(prior["range"]) if prior["scale"] == "log10" else prior["range"]
        uniform = (data["column"][name] - low) / (high - low)
        assert uniform.min() > -1e-6
        assert uniform.max() < 1 + 1e-6
        # Kolmogorov-Smirnov distance; 1.95 / sqrt(N) is the 0.1 % point
        ordered = np.sort(uniform)
        assert np.abs(ordered - (np.arange(len(ordered)) + 0.5) / len(ordered)).max() < 1.95 / np.sqrt(len(ordered))
    correlation = np.corrcoef(data["amps"].T) - np.eye(len(NAMES))
    assert np.abs(correlation).max() < 5 / np.sqrt(len(data["amps"]))


def test_provenance_is_stated(data):
    attributes = data["attributes"]
    assert attributes["opacities"].startswith("correlated k, fitted to tables from HITEMP")
    assert attributes["layers"] == 200
    for key in ("command", "versions", "priors", "star", "atmosphere", "noise", "licence", "citation"):
        assert attributes[key]


def test_depths_are_finite_and_larger_than_the_bare_planet(data):
    bare = (data["column"]["Rp"] / SUN)[:, None] ** 2
    assert np.isfinite(data["spectra"]).all()
    assert (data["spectra"] > bare).all()  # the radius is that of the bottom of the atmosphere
    assert (data["spectra"] < 5 * bare).all()


def test_errors_are_positive_and_as_described(data):
    ppm = data["errors"] * 1e6
    assert (ppm >= 20).all()  # the floor
    np.testing.assert_allclose(np.percentile(ppm, [5, 50, 95]), [21, 40, 79], rtol=0.05)


@pytest.mark.parametrize("molecule", BANDS)
def test_molecule_absorbs_in_its_bands(data, molecule):
    bands, window = BANDS[molecule]
    excess = (data["curves"][molecule] - data["curves"]["none"]) * 1e6  # ppm
    assert (excess > -3).all()  # a heavier gas shrinks the atmosphere a little
    for band in bands:
        assert excess[at(data, band)] > 40, f"{molecule} at {band} micron"
        assert excess[at(data, band)] > 2 * excess[at(data, window)], f"{molecule} at {band} micron"


@pytest.mark.parametrize(
    "molecule, peak",
    [("H2O", (2.5, 3.0)), ("CH4", (3.2, 3.5)), ("CO", (4.5, 5.0)), ("CO2", (4.2, 4.4)), ("NH3", (2.85, 3.1))],
)
def test_strongest_bin_below_5_micron_is_the_strongest_band(data, molecule, peak):
    near = data["wavelength"] < 5  # of the depth itself: collisions of H2 fill the gaps around 2.4 micron
    assert peak[0] < data["wavelength"][near][np.argmax(data["curves"][molecule][near])] < peak[1]


def test_rayleigh_slope_rises_to_the_blue(data):
    bare = data["curves"]["none"]
    assert bare[0] > bare[1] > bare[2]


def test_reference_planet_is_stated(data):
    assert list(data["reference"]) == NAMES
    assert data["reference"]["Tp"] == 1500.0
    bare = (data["reference"]["Rp"] / SUN) ** 2
    assert bare < data["curves"]["none"].min() < 1.1 * bare


@pytest.mark.parametrize("molecule, band, beside", [
    ("H2O", 1.41, 1.27), ("CH4", 3.37, 3.05), ("CO", 4.75, 3.95), ("CO2", 4.3, 3.95), ("NH3", 3.0, 2.55),
])  # fmt: skip
def test_abundant_molecule_raises_its_band(data, molecule, band, beside):
    """Depth in the band against beside it, in scale heights of each planet: averages out all the other AMPs."""
    contrast = (data["spectra"][:, at(data, band)] - data["spectra"][:, at(data, beside)]).astype(float)
    contrast /= scale_height_depth(data)
    log_ratio = data["column"][molecule]
    low, high = np.quantile(log_ratio, [0.25, 0.75])
    rich, poor = contrast[log_ratio > high], contrast[log_ratio < low]
    error = np.hypot(rich.std() / np.sqrt(len(rich)), poor.std() / np.sqrt(len(poor)))
    assert rich.mean() - poor.mean() > 10 * error


def scale_height_depth(data):
    """Depth of an annulus one scale height thick, (N,)."""
    radius, mass, temperature = data["column"]["Rp"], 10 ** data["column"]["Mp"], data["column"]["Tp"]
    gravity = 6.674e-11 * mass / radius**2
    height = 1.381e-23 * temperature / (2.3 * 1.661e-27 * gravity)
    return 2 * radius * height / SUN**2


def test_depth_grows_with_temperature_and_falls_with_mass(data):
    """Regression of the height of the atmosphere above the bottom, relative to the radius, on the AMPs."""
    height = np.log(np.sqrt(data["spectra"].astype(float)).mean(axis=1) * SUN / data["column"]["Rp"] - 1)
    predictors = [np.log(data["column"]["Tp"]), np.log(10) * data["column"]["Mp"], np.log(data["column"]["Rp"])]
    slopes = np.linalg.lstsq(np.column_stack([*predictors, np.ones(len(height))]), height, rcond=None)[0]
    # height / radius ~ T R / M: slopes near 1, -1, 1, and steeper where the atmosphere is not thin
    np.testing.assert_allclose(slopes[:3], [1, -1, 1], atol=0.35)


def test_high_clouds_flatten_the_spectrum(data):
    spread = np.ptp(data["spectra"].astype(float), axis=1) / scale_height_depth(data)
    high, low = data["column"]["Pclouds"] < 3.5, data["column"]["Pclouds"] > 5.5
    assert np.median(spread[high]) < 0.8 * np.median(spread[low])
