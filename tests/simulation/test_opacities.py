"""The calibrated opacities: tiny k-tables with a closed form, the fit, and the shipped numbers."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from constants import JUPITER_RADIUS
from simulation.atmosphere import HELIUM_RATIO
from simulation.forward_model import NAMES, ForwardModel
from simulation.kdistribution import MOLECULES, KDistributions, effective, pressure_basis, temperature_basis
from simulation.opacities import Opacities, effective_cross_section, part_edges
from simulation.survey import DEPTH_STEP
from studies.fit_couplings import COUPLING_TEMPERATURES, couple, coupled
from studies.fit_opacities import fit, same_rank
from studies.fit_sharing import band_4_3

SHIPPED = Path(__file__).resolve().parents[2] / "data" / "ariel_spectra.h5"
EDGES, WEIGHTS = [1.0, 1.05, 1.1], [0.7, 0.3]  # two cells [micron], two ordinates
MASS, RADIUS, TEMPERATURE = 10**28.5, JUPITER_RADIUS, 1000.0  # kg, m, K: so heavy that gravity hardly falls with height
SUN, BOLTZMANN, GRAVITY, ATOMIC_MASS = 6.957e8, 1.380649e-23, 6.6743e-11, 1.66053907e-27
HEIGHT = BOLTZMANN * TEMPERATURE * RADIUS**2 * (1 + HELIUM_RATIO)
HEIGHT /= (2.016 + HELIUM_RATIO * 4.0026) * ATOMIC_MASS * GRAVITY * MASS
NOTHING = 1e-60  # cm2


def toy(**cross_sections):
    """Opacities whose molecules have the same k_g, (2,) [cm2], in both cells, at every temperature and pressure."""
    coefficients = {}
    for name in MOLECULES:
        coefficients[name] = np.zeros((2, 2, 4, 4))
        coefficients[name][..., 0, 0] = np.log(cross_sections.get(name, [NOTHING, NOTHING]))
    n_parts = len(part_edges(np.array(EDGES))[1])
    shares = np.tile(WEIGHTS, (len(COUPLING_TEMPERATURES), n_parts, 1)).astype(np.float32)
    return Opacities(
        KDistributions(EDGES, WEIGHTS, coefficients), dict.fromkeys(MOLECULES, shares), COUPLING_TEMPERATURES
    )


def height(opacities, *present, clouds=8.0):
    """Height of the apparent edge [scale heights] of a planet with VMR 1e-6 of the molecules that are `present`."""
    model = ForwardModel(opacities, edges=[[1.01, 1.09]], continuum=False)
    amps = [-6.0 if name in present else -np.inf for name in NAMES[:5]]
    depth = model.depth([*amps, np.log10(MASS), RADIUS, TEMPERATURE, clouds])[0]
    return (np.sqrt(depth) * SUN - RADIUS) / HEIGHT


def grey_height(cross_section):
    """The same in closed form: an exponential atmosphere ends where its chord has the optical depth exp(-gamma)."""
    density = 1e6 / (BOLTZMANN * TEMPERATURE)
    chord = cross_section * 1e-4 * 1e-6 * density * np.sqrt(2 * np.pi * RADIUS * HEIGHT)
    return np.log(chord) + np.euler_gamma


def test_grey_gas_ends_at_the_height_of_the_exponential_atmosphere():
    assert height(toy(H2O=[1e-21, 1e-21]), "H2O") == pytest.approx(grey_height(1e-21), abs=0.02)


def test_two_grey_gases_add_up():
    both = toy(H2O=[1e-21, 1e-21], CO=[3e-21, 3e-21])
    assert height(both, "H2O", "CO") == pytest.approx(height(toy(CH4=[4e-21, 4e-21]), "CH4"), abs=1e-3)


def test_box_of_lines_is_the_mean_of_line_and_gap():
    assert height(toy(CO=[NOTHING, 1e-20]), "CO") == pytest.approx(0.3 * grey_height(1e-20), abs=0.02)


def test_boxes_of_two_gases_overlap_at_random():
    both = toy(CO=[NOTHING, 1e-20], CO2=[NOTHING, 2e-20])
    one, other, together = (grey_height(k) for k in (1e-20, 2e-20, 3e-20))
    expected = 0.3 * 0.7 * (one + other) + 0.09 * together
    assert height(both, "CO", "CO2") == pytest.approx(expected, abs=0.02)


def test_clouds_hide_what_lies_below():
    assert height(toy(), "H2O", clouds=4.0) == pytest.approx(np.log(100), abs=0.05)  # two decades above the bottom


def test_native_depth_is_the_depth_of_the_bins():
    model = ForwardModel(toy(H2O=[1e-22, 1e-20]), edges=[[1.0, 1.1]], continuum=False)
    amps = [-6.0, *[-np.inf] * 4, np.log10(MASS), RADIUS, TEMPERATURE, 8.0]
    wavenumber, depth = model.native_depth(amps)
    assert (np.diff(wavenumber) > 0).all()
    np.testing.assert_allclose(model.depth(amps), depth.mean(), rtol=1e-6)


def test_star_radius_scales_the_depth():
    amps = [-6.0, *[-np.inf] * 4, np.log10(MASS), RADIUS, TEMPERATURE, 8.0]
    one, two = (ForwardModel(toy(), edges=[[1.0, 1.1]], star_radius=r).depth(amps) for r in (1.0, 2.0))
    np.testing.assert_allclose(one, 4 * two, rtol=1e-9)


def test_effective_cross_section_of_grey_gas_and_box():
    assert effective(np.array([2e-21, 2e-21]), np.array(WEIGHTS)) == pytest.approx(2e-21)
    column = -np.log((np.exp(-0.56) - 0.5) / 0.5)  # half the bin is empty, half has k = 1
    assert effective(np.array([0.0, 1.0]), np.array([0.5, 0.5])) == pytest.approx(0.56 / column)


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_coupling_keeps_the_distribution_of_the_cell_and_follows_the_band(spread):
    rng = np.random.default_rng(1)
    strength, width = np.exp(spread * rng.standard_normal(12)), np.full(12, 1 / 12)
    k, weights = np.logspace(-26, -20, 8), np.full(8, 1 / 8)
    shares = couple(strength, width, k, weights)
    np.testing.assert_allclose(width @ shares, weights, rtol=1e-12)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    mean = shares @ np.log(k)
    assert np.corrcoef(mean, np.log(strength))[0, 1] > 0.9
    assert (shares >= 0).all()


def test_coupling_of_a_flat_band_is_the_same_everywhere():
    shares = couple(np.full(5, 3.0), np.full(5, 0.2), np.array([1e-24, 1e-20]), np.array(WEIGHTS))
    np.testing.assert_allclose(shares, np.tile(WEIGHTS, (5, 1)))


def test_fit_returns_the_surface_that_made_the_table():
    coefficients = np.random.default_rng(2).normal(size=(3, 2, 4, 4))
    coefficients[..., 0, 0] -= 50.0
    temperature, pressure = np.linspace(500, 2000, 9), np.logspace(-1, 6, 15)
    x, y = temperature_basis(temperature), pressure_basis(pressure)
    k = np.exp(np.einsum("cgab,ta,pb->ctpg", coefficients, x, y))
    found = fit({"temperature": temperature, "pressure": pressure, "k": k})
    np.testing.assert_allclose(found, coefficients, atol=1e-6)


def test_fit_of_hot_gas_is_not_bent_by_cold_gas_that_shows_nothing():
    temperature, pressure = np.array([*np.arange(500.0, 1000.0, 50.0), 1200.0, 1600.0, 2000.0]), np.logspace(-1, 6, 8)
    steep = np.exp(-60.0 - 2e4 * (1 / temperature - 1 / 2000.0) - 9e6 * (1 / temperature - 1 / 2000.0) ** 2)
    k = np.broadcast_to(steep[:, None, None], (1, len(temperature), len(pressure), 1))  # below 1e-33 cm2 at 500 K
    found = fit({"temperature": temperature, "pressure": pressure, "k": k})[0, 0]
    fitted = temperature_basis(temperature) @ found @ pressure_basis(1e3)
    seen = steep > 1e-28
    np.testing.assert_allclose(fitted[seen], np.log(steep)[seen], atol=0.25)


def test_equal_rank_gives_the_wide_bins_distribution_and_keeps_the_order():
    k, share = np.array([5.0, 1.0, 9.0, 3.0]), np.full(4, 0.25)
    found = same_rank(k, share, np.array([1e-25, 1e-24, 1e-23, 1e-22]), np.array([0.125, 0.375, 0.625, 0.875]))
    np.testing.assert_allclose(found, [1e-23, 1e-25, 1e-22, 1e-24], rtol=1e-6)


def test_hot_surface_sets_in_gradually():
    cold, hot = np.zeros((2, 2, 4, 4)), np.zeros((2, 2, 4, 4))
    cold[..., 0, 0], hot[..., 0, 0] = np.log(1e-24), np.log(1e-20)
    distributions = KDistributions(EDGES, WEIGHTS, {"NH3": cold, "NH3_hot": hot})
    found = [distributions.cross_sections("NH3", t, 1e3)[0, 0] for t in (700.0, 1000.0, 1200.0, 1400.0, 2000.0)]
    np.testing.assert_allclose(found, [1e-24, 1e-24, 1e-22, 1e-20, 1e-20])


# Effective cross-sections [cm2] at 1000 K and 1e3 Pa, from the k-tables named in studies/fit_opacities.py.
ANCHORS = [
    ("H2O", 2.6596, 2.9197, 3.34e-22),
    ("H2O", 5.7143, 6.0606, 2.12e-22),
    ("CH4", 3.2394, 3.3179, 7.70e-21),
    ("CO", 4.5455, 4.878, 7.01e-23),
    ("CO2", 4.1719, 4.5455, 6.47e-20),
    ("CO2", 2.6596, 2.9197, 2.38e-21),
    ("NH3", 2.9197, 3.1536, 4.74e-23),
    ("SO2", 4.0096, 4.1719, 9.62e-22),
    ("SO2", 6.8966, 7.4074, 3.13e-20),
]


@pytest.mark.parametrize("molecule, low, high, expected", ANCHORS)
def test_shipped_cross_sections_are_those_of_the_line_lists(molecule, low, high, expected):
    found = effective_cross_section(molecule, [low], [high], 1000.0, 1e3) * 1e4
    np.testing.assert_allclose(np.log10(found), np.log10(expected), atol=0.15)


# The same at 2000 K, the last temperature of the tables, where few of them lie near.
@pytest.mark.parametrize(
    "molecule, cell, pressure, expected",
    [("CO", 6.25, 1e3, 2.220e-27), ("CO", 6.25, 1e4, 1.505e-26), ("CH4", 1.25, 1e3, 1.278e-23)],
)
def test_surfaces_hold_at_the_last_temperature_of_the_tables(molecule, cell, pressure, expected):
    shipped = KDistributions.load()
    k = shipped.cross_sections(molecule, 2000.0, pressure)[np.searchsorted(shipped.edges, cell) - 1]
    np.testing.assert_allclose(np.log10(effective(k, shipped.weights)), np.log10(expected), atol=0.06)


@pytest.mark.parametrize("molecule", MOLECULES)
def test_surfaces_do_not_run_away_where_they_are_extrapolated(molecule):
    shipped = KDistributions.load()
    cold, first, last, hot = (
        np.log10(shipped.cross_sections(molecule, t, 1e3)[:, -1] + 1e-24) for t in (450.0, 500.0, 2000.0, 2500.0)
    )
    assert np.abs(cold - first).max() < 0.7 and np.abs(hot - last).max() < 1.5


def test_pressure_fills_the_gaps_between_lines():
    thin, dense = (effective_cross_section("CO", [4.55], [4.88], 1000.0, p)[0] for p in (1e1, 1e5))
    assert dense > 10 * thin


def test_unknown_molecule_and_bins_that_are_not_covered_are_refused():
    with pytest.raises(ValueError, match="molecule: expected one of H2O"):
        effective_cross_section("HCN", [4.0], [4.1], 1000.0, 1e3)
    with pytest.raises(ValueError, match="low, high: expected bins"):
        effective_cross_section("H2O", [9.0], [11.0], 1000.0, 1e3)


def test_shipped_spectra_are_those_of_this_forward_model():
    with h5py.File(SHIPPED) as file:
        amps, spectra = file["amps"][:3], file["spectra"][:3].astype(float)
    assert np.abs(ForwardModel().depth(amps) - spectra).max() <= 1.01 * DEPTH_STEP


# log10 of the ratio of two bins at 10 mbar, effective cross-sections, from the tables of studies/fit_sharing.py.
# That of CO2 is from the lines that `studies.fit_sharing.band_4_3` counts.
SHARED = [
    ("CO2", 1000.0, 4.232, 4.332, 0.64),
    ("H2O", 1000.0, 2.451, 2.602, 0.84),
    ("H2O", 1500.0, 2.451, 2.602, 0.58),
    ("CH4", 1000.0, 2.219, 2.356, 0.34),
    ("CO", 1500.0, 2.310, 2.452, -0.50),
]


@pytest.fixture(scope="module")
def band_model():
    """Opacities whose band model is not corrected."""
    return coupled(["H2O", "CH4", "CO", "CO2"], sharing={}, temperatures=np.array([1000.0, 1500.0]))


@pytest.mark.parametrize("molecule, temperature, one, other, expected", SHARED)
def test_bins_share_a_cell_as_in_other_line_lists(molecule, temperature, one, other, expected, band_model):
    found = {}
    for name, opacities in {"shipped": Opacities.load(), "band model": band_model}.items():
        k = opacities.distributions.cross_sections(molecule, temperature, 1e3)
        shares = opacities.shares(molecule, temperature)
        middle = np.array([one, other])
        found[name] = np.diff(np.log10(opacities.effective(k, shares, 0.99 * middle, 1.01 * middle)))[0]
    assert abs(found["shipped"] - expected) < 0.15 < abs(found["band model"] - expected)


def test_shipped_couplings_are_those_of_the_band_model_and_its_corrections():
    found = coupled(["CO"], temperatures=COUPLING_TEMPERATURES[2:4]).couplings["CO"]
    np.testing.assert_allclose(found, Opacities.load().couplings["CO"][2:4], atol=1e-6)


def test_a_whole_cell_keeps_the_distribution_of_its_line_list():
    opacities = Opacities.load()
    for name in MOLECULES:
        shares = opacities.shares(name, 1100.0)
        for cell in range(0, len(opacities.distributions.edges) - 1, 6):
            parts = opacities.cell == cell
            width = opacities.width[parts] / opacities.width[parts].sum()
            np.testing.assert_allclose(width @ shares[parts], opacities.distributions.weights, rtol=1e-5)


def test_cold_band_of_co2_has_the_lines_of_every_other_level():
    wavenumber, values = band_4_3(150.0, 2355.0, 2368.0, pressure=1e2)
    peaks = wavenumber[1:-1][
        (values[1:-1] > values[:-2]) & (values[1:-1] > values[2:]) & (values[1:-1] > 0.2 * values.max())
    ]
    b_lower, b_upper = 0.39022, 0.39022 - 0.00309
    j = np.arange(6, 32, 2)
    expected = 2349.14 + b_upper * (j + 1) * (j + 2) - b_lower * j * (j + 1)
    expected = expected[(expected > 2355) & (expected < 2368)]
    np.testing.assert_allclose(peaks, expected, atol=0.01)
