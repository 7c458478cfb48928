"""The forward model: against TauREx 3's own classes, and each term against a closed form."""

import itertools

import numpy as np
import pytest

pytest.importorskip("taurex")

import taurex_reference

from constants import JUPITER_RADIUS, SUN_RADIUS
from simulation import alkali
from simulation.atmosphere import BOLTZMANN, gas_mixture, hydrostatic, layer_pressures, temperature_profile
from simulation.contributions import SCATTERERS, covered, haze, rayleigh
from simulation.design import ARIEL
from simulation.forward_model import ABSENT, ForwardModel

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TauREx's own old names
NAMES = ("H2O", "CO2", "SO2", "Na", "K", "Mp", "Rp", "Tp", "T_gradient", "Pclouds", "cloud_fraction", "haze_factor",
         "haze_slope")  # fmt: skip
PLANET = {"H2O": -3.3, "CO2": -4.0, "Mp": 26.8, "Rp": 8.4e7, "Tp": 1100.0, "Pclouds": 3.1 + 1e-9}
EDGES = np.array([[0.55, 0.65], [0.75, 0.8], [1.3, 1.5], [2.6, 2.7], [3.95, 4.1], [4.2, 4.4], [7.2, 7.6]])
BARE = {"Mp": 28.5, "Rp": JUPITER_RADIUS, "Tp": 1000.0}  # so heavy that gravity hardly falls with height


def model_of(planet, **settings):
    """Return the model of what a planet has, and the planet as it takes it."""
    return ForwardModel(names=tuple(planet), edges=EDGES, **settings), list(planet.values())


def depth_of(planet, **settings):
    model, amps = model_of(planet, **settings)
    return model.depth(amps)


def gas_depth(model, planet, temperature):
    """Optical depths of all rays by our molecules, (n_layers, n_wavenumbers), for TauREx to add the rest to."""
    given = {**ABSENT, **planet}
    mix = {name: 10.0 ** given[name] for name in ("H2O", "CO2") if name in planet}
    _, _, weight = gas_mixture(mix)
    atmosphere = hydrostatic(model._boundaries, model._pressure, temperature, weight, 10 ** planet["Mp"], planet["Rp"])
    column = (atmosphere.column() @ model._between_levels).astype(np.float32)
    light = model._absorption.light(mix, temperature[model._levels], planet["Tp"], column)
    return -np.log(np.maximum(light.T.astype(float), 1e-300))


@pytest.mark.parametrize("gradient", [0.0, 120.0, -60.0])
def test_path_integral_scattering_collisions_and_clouds_are_those_of_taurex(gradient):
    planet = {**PLANET, "T_gradient": gradient}
    model, amps = model_of(planet)
    wavenumber, depth = model.native_depth(amps)
    temperature = temperature_profile(planet["Tp"], gradient, model._pressure)
    given = taurex_reference.GivenDepth(gas_depth(model, planet, temperature))
    expected = taurex_reference.reference(planet, wavenumber, temperature, [given])
    np.testing.assert_allclose(depth, expected, rtol=1e-6 if gradient == 0 else 2e-6)


@pytest.mark.parametrize("gas", SCATTERERS)
def test_rayleigh_cross_sections_are_those_of_taurex(gas):
    from taurex.util.scattering import rayleigh_sigma_from_name

    wavenumber = np.geomspace(1200, 25000, 50)
    np.testing.assert_allclose(rayleigh(gas, wavenumber), rayleigh_sigma_from_name(gas, wavenumber), rtol=1e-9)


def test_what_is_absent_changes_nothing():
    names = (*ARIEL.priors, *(key for key in ABSENT if key not in ARIEL.priors))
    amps = ARIEL.draw_amps(3, 7)
    more = np.column_stack([amps, *(np.full(3, ABSENT[key]) for key in names[9:])])
    np.testing.assert_array_equal(ForwardModel(names=names).depth(more), ForwardModel().depth(amps))


def test_interpolated_rays_and_levels_are_those_left_out(monkeypatch):
    planet = {
        **PLANET,
        "CO": -2.0,
        "Na": -5.0,
        "K": -6.0,
        "T_gradient": 80.0,
        "haze_factor": 2.0,
        "cloud_fraction": 0.4,
    }
    found = depth_of(planet)
    monkeypatch.setattr("simulation.forward_model.RAY_SPACING", 0.0)
    monkeypatch.setattr("simulation.forward_model.LEVEL_SPACING", 0.0)
    monkeypatch.setattr("simulation.forward_model.KINKS", (1e5, 0.0))
    np.testing.assert_allclose(found, depth_of(planet), rtol=2e-7)


@pytest.mark.parametrize("extra", [{"Pclouds": 7.0}, {"haze_factor": 2.0, "haze_slope": -7.0}])
def test_dark_rays_and_thin_haze_do_not_count(extra, monkeypatch):
    planet = {**PLANET, **extra}
    model = ForwardModel(names=tuple(planet), edges=EDGES[3:])
    found = model.depth(list(planet.values()))
    monkeypatch.setattr("simulation.forward_model.LOWEST", 1000)
    monkeypatch.setattr("simulation.forward_model.FAINT", 0.0)
    all_of_it = model.depth(list(planet.values()))
    np.testing.assert_allclose(found, all_of_it, rtol=1e-7)
    assert (found != all_of_it).any()


def test_gradient_of_zero_is_isothermal_and_1_mbar_keeps_its_temperature():
    np.testing.assert_array_equal(depth_of({**PLANET, "T_gradient": 0.0}), depth_of(PLANET))
    np.testing.assert_allclose(
        temperature_profile(1000.0, 50.0, [1e-4, 1e-1, 1e2, 1e5, 1e6]), [850, 850, 1000, 1150, 1150]
    )


def test_heights_under_a_gradient_are_the_integral_of_the_scale_height():
    boundaries, pressure = layer_pressures(2000, (1e-1, 1e5))
    weight = gas_mixture({})[2]
    atmosphere = hydrostatic(boundaries, pressure, temperature_profile(1000.0, 100.0, pressure), weight, 10**28.5, 7e7)
    gravity = 6.6743e-11 * 10**28.5 / 7e7**2
    mean = 1000.0  # of a profile linear in log P from 1300 K at the bottom to 700 K at the top
    height = BOLTZMANN * mean / (weight * gravity) * np.log(boundaries[0] / boundaries[-1])
    top = np.sqrt(7e7**2 + atmosphere.ring.sum()) - 7e7
    np.testing.assert_allclose(top, height / (1 - height / 7e7), rtol=2e-3)


def scale_height(planet):
    gravity = 6.6743e-11 * 10 ** planet["Mp"] / planet["Rp"] ** 2
    return BOLTZMANN * planet["Tp"] / (gas_mixture({})[2] * gravity)


def end_of(cross_section, planet=BARE):
    """Height [scale heights] where an exponential atmosphere with `cross_section` [m2 per molecule of air] ends."""
    height = scale_height(planet)
    chord = cross_section * 1e6 / (BOLTZMANN * planet["Tp"]) * np.sqrt(2 * np.pi * planet["Rp"] * height)
    return np.log(chord) + np.euler_gamma


def height_of(depth, planet=BARE):
    return (np.sqrt(depth) * SUN_RADIUS - planet["Rp"]) / scale_height(planet)


@pytest.mark.parametrize("slope", [-4.0, -9.0, 0.0])
def test_haze_ends_where_its_power_law_says(slope):
    planet = {**BARE, "haze_factor": 4.0, "haze_slope": slope}
    model = ForwardModel(names=tuple(planet), edges=[[0.6, 0.602], [0.9, 0.9025]], continuum=False)
    hydrogen = gas_mixture({})[0]
    sigma = hydrogen * haze(1e4, slope, 1e4 / np.array([0.601, 0.90125]))
    np.testing.assert_allclose(height_of(model.depth(list(planet.values()))), end_of(sigma), atol=0.03)


def test_a_haze_of_factor_1_scatters_about_as_hydrogen_does():
    wavenumber = np.array([1e4 / 0.35])
    np.testing.assert_allclose(haze(1.0, -4.0, wavenumber), rayleigh("H2", wavenumber), rtol=0.15)


@pytest.mark.parametrize("extra", [{}, {"haze_factor": 3.0, "haze_slope": -6.0}], ids=["clouds", "clouds and haze"])
def test_patchy_clouds_are_the_mean_of_a_clear_and_a_covered_limb(extra):
    covered_limb = depth_of({**PLANET, **extra})
    clear = depth_of({key: value for key, value in PLANET.items() if key != "Pclouds"})
    for fraction in (0.0, 0.3, 1.0):
        found = depth_of({**PLANET, **extra, "cloud_fraction": fraction})
        np.testing.assert_allclose(found, fraction * covered_limb + (1 - fraction) * clear, rtol=3e-8)


def test_a_layer_that_holds_the_cloud_top_is_covered_in_part():
    boundaries = layer_pressures(10, (1e-4, 1e6))[0]
    np.testing.assert_allclose(covered(boundaries, 10**4.5), [1, 0.5, *[0] * 8], atol=1e-12)


def test_bins_beside_a_wide_gap_are_those_of_bins_without_gaps():
    amps = [*PLANET.values()]
    ends, middle = [[0.55, 0.65], [4.2, 4.4]], [[1.3, 1.5]]
    apart, together = (ForwardModel(names=tuple(PLANET), edges=edges) for edges in (ends, [*ends, *middle, [0.6, 4.3]]))
    np.testing.assert_allclose(apart.depth(amps), together.depth(amps)[:2], rtol=1e-7)
    assert len(apart.native_depth(amps)[0]) < 0.2 * len(together.native_depth(amps)[0])


# --- sodium and potassium ---


@pytest.mark.parametrize("lorentz", [1e-4, 1e-2, 1.0])
def test_voigt_profile_is_scipy_s(lorentz):
    special = pytest.importorskip("scipy.special")
    distance = np.concatenate([[0.0], np.geomspace(1e-3, 100, 60)])
    expected = special.voigt_profile(distance, 0.03, lorentz)
    np.testing.assert_allclose(alkali.voigt(distance, 0.03, lorentz), expected, rtol=1e-3)


@pytest.mark.parametrize("atom", ["Na", "K"])
def test_doublet_integrates_to_its_oscillator_strengths(atom):
    lines = alkali.ALKALIS[atom]
    away = np.concatenate([-np.geomspace(1e-4, 4499, 4000)[::-1], np.geomspace(1e-4, 4499, 4000)])
    wavenumber = np.unique(np.concatenate([centre + away for centre in lines.wavenumber]))
    total = np.trapezoid(alkali.cross_section(atom, wavenumber, 1500.0, 1e4), wavenumber)
    np.testing.assert_allclose(total, alkali.LINE_STRENGTH * sum(lines.strength), rtol=5e-3)


def test_strengths_of_potassium_follow_from_the_lifetimes_of_its_levels():
    potassium = alkali.ALKALIS["K"]
    decays = 1 / np.array([26.72e-9, 26.37e-9])  # 1 / s: Tiecke, Properties of Potassium, 2011
    integral = np.array([1, 2]) * decays / (8 * np.pi * 2.99792458e10 * np.square(potassium.wavenumber))
    np.testing.assert_allclose(potassium.strength, integral / alkali.LINE_STRENGTH, rtol=4e-3)
    np.testing.assert_allclose(potassium.natural, decays / (4 * np.pi * 2.99792458e10), rtol=2e-2)


def test_wings_of_sodium_end_where_their_lorentz_profile_says():
    planet = {**BARE, "Na": -6.0}
    model = ForwardModel(names=tuple(planet), edges=[[0.65, 0.652]], continuum=False)
    height = height_of(model.depth(list(planet.values())))
    at_bottom = alkali.cross_section("Na", np.array([1e4 / 0.651]), 1000.0, 1e6) * 1e-4 * 1e-6
    # The cross-section is proportional to pressure, so the absorbers fall off with half the scale height.
    expected = (end_of(at_bottom[0]) - np.log(2) / 2) / 2
    np.testing.assert_allclose(height, expected, atol=0.03)


def test_light_through_a_doublet_is_its_mean_over_wavenumber():
    boundaries, pressure = layer_pressures(200, (1e-4, 1e6))
    edges = 1e4 / np.geomspace(0.5912, 0.5870, 4)
    fine = alkali.AlkaliLines(["Na"], np.column_stack([edges[:-1], edges[1:]]), pressure)
    atmosphere = hydrostatic(boundaries, pressure, np.full(200, 1000.0), gas_mixture({})[2], 10**26.8, 8e7)
    light = fine.light({"Na": 1e-6}, atmosphere.temperature, atmosphere.column([60]).astype(np.float32))[:, 0]
    exact = []
    for low, high in itertools.pairwise(edges):
        sigma = alkali.cross_section("Na", np.linspace(low, high, 4001), 1000.0, pressure[:, None])
        exact.append(np.exp(-(atmosphere.column([60])[0] @ sigma) * 1e-10).mean())
    np.testing.assert_allclose(light, exact, atol=0.01)


# --- what is refused ---


@pytest.mark.parametrize("names", [("H2O", "Mp", "Rp"), ("Mp", "Rp", "Tp", "TiO")])
def test_unknown_and_missing_amps_are_named(names):
    with pytest.raises(ValueError, match="names: expected Mp, Rp, Tp and any of H2O"):
        ForwardModel(names=names)


def test_a_gas_that_is_not_bound_has_no_edge():
    assert not np.isfinite(depth_of({**PLANET, "Mp": 24.0})).any()
