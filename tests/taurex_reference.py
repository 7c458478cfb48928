"""The same planet by TauREx 3's own classes: the check of our forward model."""

import logging
import warnings

import astropy.units
import h5py
import numpy as np
import taurex.log
from taurex.cache import CIACache
from taurex.chemistry import ConstantGas, TaurexChemistry
from taurex.cia import CIA
from taurex.contributions import (
    AbsorptionContribution,
    CIAContribution,
    Contribution,
    RayleighContribution,
    SimpleCloudsContribution,
)
from taurex.data.profiles.temperature.temparray import TemperatureArray
from taurex.model import TransmissionModel
from taurex.planet import Planet
from taurex.stellar import BlackbodyStar

from simulation import cia
from simulation.atmosphere import HELIUM_RATIO
from simulation.forward_model import LAYERS, PRESSURE_RANGE
from studies.bandmodel import FINE_GRID, cross_section

taurex.log.setLogLevel(logging.CRITICAL)


class OurCIA(CIA):
    """Our CIA knots as TauREx takes them."""

    def __init__(self, pair):
        super().__init__("knots", pair)

    wavenumberGrid = property(lambda self: cia.WAVENUMBER)
    temperatureGrid = property(lambda self: cia.TEMPERATURE)

    def cia(self, temperature, wngrid=None):
        return cia.coefficient(self.pairName, temperature, cia.WAVENUMBER if wngrid is None else wngrid)

    def compute_cia(self, temperature):
        return self.cia(temperature)


class GivenDepth(Contribution):
    """Optical depths of all rays (n_layers, n_wavenumbers) that somebody else computed."""

    def __init__(self, optical_depth):
        super().__init__("Given")
        self._optical_depth = optical_depth

    def prepare_each(self, model, wngrid):
        return iter(())

    def prepare(self, model, wngrid):
        pass

    def contribute(self, model, start_layer, end_layer, density_offset, layer, density, tau, path_length=None):
        tau[layer] += self._optical_depth[layer]


def reference(planet, grid, temperature, contributions=(), clouds=True, continuum=True):
    """Native depth (n_wavenumbers,) of a planet {AMP: value in retrieval space} on a grid [cm-1].

    `temperature` (n_layers,) from the bottom up; `contributions` of TauREx, or "tables" for its own absorption.
    """
    chemistry = TaurexChemistry(fill_gases=["H2", "He"], ratio=HELIUM_RATIO)
    for name in ("H2O", "CH4", "CO", "CO2", "NH3", "SO2", "Na", "K"):
        if planet.get(name, -np.inf) > -np.inf:
            chemistry.addGas(ConstantGas(name, mix_ratio=10 ** planet[name]))
    body = Planet()
    body.set_planet_mass(10 ** planet["Mp"], unit="kg")
    body.set_planet_radius(planet["Rp"], unit="m")
    model = TransmissionModel(
        planet=body,
        star=BlackbodyStar(temperature=5800, radius=1.0),
        temperature_profile=TemperatureArray(tp_array=temperature),
        chemistry=chemistry,
        nlayers=LAYERS,
        atm_min_pressure=PRESSURE_RANGE[0],
        atm_max_pressure=PRESSURE_RANGE[1],
    )
    for contribution in [AbsorptionContribution()] if contributions == "tables" else contributions:
        model.add_contribution(contribution)
    if continuum:
        CIACache().cia_dict.update({pair: OurCIA(pair) for pair in cia.PAIRS})
        model.add_contribution(RayleighContribution())
        model.add_contribution(CIAContribution(list(cia.PAIRS)))
    if clouds:
        model.add_contribution(SimpleCloudsContribution(clouds_pressure=10 ** planet["Pclouds"]))
    model.build()
    model.set_native_grid(grid * astropy.units.k)  # k is the kayser, cm-1
    with warnings.catch_warnings():  # TauREx uses its own deprecated names
        warnings.simplefilter("ignore")
        wavenumber, depth, _, _ = model.model()
    np.testing.assert_array_equal(wavenumber, grid)
    return depth


def write_tables(folder, temperatures=(700.0, 1400.0, 2000.0), molecules=("H2O", "CH4", "CO", "CO2", "NH3")):
    """Write tables of the band model, as a user would bring tables, `<folder>/<molecule>.h5`; returns the folder."""
    wavenumber = np.geomspace(1250.0, 20300.0, 1395)
    for name in molecules:
        sigma = [np.interp(wavenumber, FINE_GRID, cross_section(name, temperature)) for temperature in temperatures]
        sigma = np.maximum(sigma, 1e-40)  # TauREx interpolates the logarithm: no zeros
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["mol_name"] = np.array([name.encode()])
            file["bin_edges"] = wavenumber  # TauREx's name of the wavenumber grid [cm-1]
            file["t"], file["p"] = np.array(temperatures), np.array([1e-6, 1e8])
            file["p"].attrs["units"] = "Pa"
            file["xsecarr"] = np.stack([sigma, sigma])  # (P, T, wavenumber) cm2: no dependence on pressure
    return folder
