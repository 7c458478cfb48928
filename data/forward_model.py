"""Transit depth of an H2/He planet with five molecules and a cloud deck, computed by TauREx 3.

`ForwardModel` wires TauREx's own classes together. Two contributions replace TauREx's: the absorbers of an
isothermal, well-mixed atmosphere have one cross-section in every layer, so it is looked up once instead of once
per layer (same numbers, about ten times faster), and the cloud deck has a top that may lie inside a layer.
"""

import logging
import warnings
from pathlib import Path

import astropy.units
import numpy as np
import taurex.log
from taurex.cache import CIACache, GlobalCache, OpacityCache
from taurex.chemistry import ConstantGas, TaurexChemistry
from taurex.contributions import (
    AbsorptionContribution,
    CIAContribution,
    Contribution,
    RayleighContribution,
    SimpleCloudsContribution,
)
from taurex.model import TransmissionModel
from taurex.planet import Planet
from taurex.stellar import BlackbodyStar
from taurex.temperature import Isothermal
from taurex.util.scattering import rayleigh_sigma_from_name

from data.ariel import STAR_TEMPERATURE, ariel_grid
from data.cia import PAIRS, KnotCIA
from data.molecules import MOLECULES
from data.opacities import write_tables

TABLES = Path(__file__).with_name("tables")  # our own opacity tables, written on first use
LAYERS = 100
PRESSURE_RANGE = (1e-4, 1e6)  # Pa, top and bottom; the planet's radius is that of the bottom
HELIUM_RATIO = 0.17  # He/H2 by number
STAR_RADIUS = 1.0  # solar radii


class UniformContribution(Contribution):
    """Opacity source with one cross-section for all layers: isothermal, well mixed, no dependence on pressure."""

    density_power = 1  # absorbers per volume go with density to this power

    def cross_section(self, model, wngrid):
        """Cross-section per molecule of air [m2] (CIA: m5) on `wngrid` [cm-1], shape (n_wavenumbers,)."""
        raise NotImplementedError

    def prepare_each(self, model, wngrid):
        """Yield the cross-section in all layers, (n_layers, n_wavenumbers); TauREx's abstract method."""
        yield self.name, np.broadcast_to(self.cross_section(model, wngrid), (model.nLayers, len(wngrid)))

    def prepare(self, model, wngrid):
        """Look up the cross-section once per spectrum."""
        self._ngrid, self._nlayers = len(wngrid), model.nLayers
        self._row = self.cross_section(model, wngrid)
        self.sigma_xsec = np.broadcast_to(self._row, (self._nlayers, self._ngrid))

    def contribute(self, model, start_layer, end_layer, density_offset, layer, density, tau, path_length=None):
        """Add cross-section times column along the ray through `layer` to its optical depth."""
        inside = density[start_layer + density_offset : end_layer + density_offset]
        column = path_length[start_layer:end_layer] @ inside**self.density_power
        tau[layer] += column * self._row


class MolecularAbsorption(UniformContribution):
    """Absorption by the molecules, from tables that do not depend on pressure."""

    def __init__(self, tables):
        super().__init__("Absorption")
        self._tables = tables  # {molecule: TauREx opacity}

    def cross_section(self, model, wngrid):
        """Sum over molecules of mixing ratio times cross-section [m2]."""
        temperature, pressure = model.temperatureProfile[0], model.pressureProfile[0]
        total = np.zeros(len(wngrid))
        for name, table in self._tables.items():
            mixing_ratio = model.chemistry.get_gas_mix_profile(name)[0]
            if mixing_ratio > 0:
                total += mixing_ratio * table.opacity(temperature, pressure, wngrid)
        return total


class UniformRayleigh(UniformContribution):
    """TauREx's Rayleigh scattering, its cross-sections computed once per wavenumber grid."""

    def __init__(self):
        super().__init__("Rayleigh")
        self._grid, self._sigma = None, {}

    def cross_section(self, model, wngrid):
        """Sum over gases of mixing ratio times Rayleigh cross-section [m2]."""
        if self._grid is not wngrid:
            self._grid = wngrid
            gases = (*model.chemistry.activeGases, *model.chemistry.inactiveGases)
            self._sigma = {gas: rayleigh_sigma_from_name(gas, wngrid) for gas in gases}
        return sum(model.chemistry.get_gas_mix_profile(gas)[0] * sigma for gas, sigma in self._sigma.items())


class UniformCIA(UniformContribution):
    """Collision-induced absorption of H2-H2 and H2-He."""

    density_power = 2

    def __init__(self):
        super().__init__("CIA")
        self._pairs = [KnotCIA(pair) for pair in PAIRS]

    def cross_section(self, model, wngrid):
        """Sum over pairs of both mixing ratios times the absorption coefficient [m5]."""
        temperature, mix = model.temperatureProfile[0], model.chemistry.get_gas_mix_profile
        return sum(mix(cia.pairOne)[0] * mix(cia.pairTwo)[0] * cia.cia(temperature, wngrid) for cia in self._pairs)


class PartialClouds(SimpleCloudsContribution):
    """Grey cloud deck whose top may lie inside a layer.

    TauREx's SimpleClouds makes whole layers opaque, so the spectrum is a staircase in cloud-top pressure. Here the
    layer that holds the top passes a fraction 1 - f of the light, f being the part of the layer (in log pressure)
    below the top. With the top on a layer's boundary the two agree.
    """

    def prepare_each(self, model, wngrid):
        """Yield the optical depth of the cloud in each layer, (n_layers, n_wavenumbers)."""
        log_level = np.log(model.pressure.pressure_profile_levels)  # (n_layers + 1,), bottom first
        covered = (log_level[:-1] - np.log(self._cloud_pressure)) / (log_level[:-1] - log_level[1:])
        with np.errstate(divide="ignore"):
            optical_depth = -np.log1p(-np.clip(covered, 0.0, 1.0))  # inf where the layer is covered
        yield "Clouds", np.repeat(optical_depth[:, None], len(wngrid), axis=1)


class ForwardModel:
    """Noise-free transit depth of an isothermal H2/He planet in front of a Sun-like star.

    Parameters
    ----------
    opacities : path-like, optional
        Folder of TauREx cross-section tables (ExoMolOP `.h5`, `.pickle`, ...) of all five molecules. None takes our
        band-model opacities, written to `data/tables` on first use (seconds).
    clouds : taurex Contribution, optional
        Cloud deck with a "clouds_pressure" [Pa]; None takes `PartialClouds`.
    stock : bool
        Use TauREx's own Rayleigh, CIA and absorption for everything (slow, for comparison).
    layers : int
        Number of layers, of equal thickness in log pressure.
    pressure_range : (float, float)
        Pressure at the top and at the bottom [Pa].

    Notes
    -----
    TauREx keeps its opacities in a process-wide cache: with tables of your own, use one folder per process.
    """

    def __init__(self, opacities=None, *, clouds=None, stock=False, layers=LAYERS, pressure_range=PRESSURE_RANGE):
        taurex.log.setLogLevel(logging.CRITICAL)
        tables = load_tables(write_tables(TABLES) if opacities is None else opacities)
        grid = native_grid(tables)
        chemistry = TaurexChemistry(fill_gases=["H2", "He"], ratio=HELIUM_RATIO)
        for name in MOLECULES:
            chemistry.addGas(ConstantGas(name, mix_ratio=1e-6))
        self._planet, self._clouds = Planet(), clouds or PartialClouds()
        self._model = TransmissionModel(
            planet=self._planet,
            star=BlackbodyStar(temperature=STAR_TEMPERATURE, radius=STAR_RADIUS),
            temperature_profile=Isothermal(T=1500.0),
            chemistry=chemistry,
            nlayers=layers,
            atm_min_pressure=pressure_range[0],
            atm_max_pressure=pressure_range[1],
        )
        for contribution in self._contributions(tables, opacities is None, stock):
            self._model.add_contribution(contribution)
        self._model.build()
        self._model.set_native_grid(grid * astropy.units.k)  # k is the kayser, cm-1
        self._binning = binning_matrix(grid)

    def _contributions(self, tables, pressure_independent, stock):
        """Opacity sources, the cloud deck last."""
        if stock:
            CIACache().cia_dict.update({pair: KnotCIA(pair) for pair in PAIRS})
            return (
                AbsorptionContribution(),
                RayleighContribution(),
                CIAContribution(list(PAIRS)),
                self._clouds,
            )
        absorption = MolecularAbsorption(tables) if pressure_independent else AbsorptionContribution()
        return absorption, UniformRayleigh(), UniformCIA(), self._clouds

    def depth(self, amps):
        """Transit depth in the 52 bins.

        Parameters
        ----------
        amps : array-like, shape (9,) or (N, 9)
            log10 VMR of H2O, CH4, CO, CO2, NH3 (-inf: none), log10 mass [kg], radius [m] at 1e6 Pa,
            temperature [K], log10 cloud-top pressure [Pa].

        Returns
        -------
        numpy.ndarray, shape (52,) or (N, 52)
            Transit depth (Rp/Rs)^2, dimensionless.
        """
        amps = np.asarray(amps, float)
        if amps.shape[-1:] != (len(MOLECULES) + 4,) or amps.ndim > 2:
            raise ValueError(f"amps: expected shape (9,) or (N, 9), received {amps.shape}")
        if amps.ndim == 2:
            return np.array([self.depth(one) for one in amps]).reshape(len(amps), len(self._binning))
        return self._binning @ self.native_depth(amps)[1]

    def native_depth(self, amps):
        """Wavenumber [cm-1] and transit depth on the grid of the opacity tables; `amps` (9,) as in `depth`."""
        *mixing_ratios, log_mass, radius, temperature, log_clouds = np.asarray(amps, float)
        for name, log_ratio in zip(MOLECULES, mixing_ratios, strict=True):
            self._model[name] = 10**log_ratio
        self._planet.set_planet_mass(10**log_mass, unit="kg")  # SI: TauREx's Jupiter is not everybody's
        self._planet.set_planet_radius(radius, unit="m")
        self._model["T"] = temperature
        self._model["clouds_pressure"] = 10**log_clouds
        with warnings.catch_warnings():  # TauREx uses its own deprecated names
            warnings.simplefilter("ignore", DeprecationWarning)
            wavenumber, depth, _, _ = self._model.model()
        return wavenumber, depth


def load_tables(folder):
    """Load the tables of all five molecules from `folder` into TauREx.

    Returns
    -------
    dict
        {molecule: TauREx opacity}. A table is interpolated exponentially in temperature, or linearly if it has zeros.

    Raises
    ------
    ValueError
        If the folder or the table of a molecule is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"opacities: expected a folder of TauREx tables, received {folder}")
    cache = OpacityCache()
    cache.clear_cache()
    GlobalCache()["xsec_interpolation"] = "exp"
    cache.set_opacity_path(str(folder))
    missing = sorted(MOLECULES.keys() - cache.find_list_of_molecules())
    if missing:
        raise ValueError(f"opacities: {folder} has no table for {', '.join(missing)}")
    tables = {name: cache[name] for name in MOLECULES}
    for table in tables.values():
        if not np.min(table.xsecGrid) > 0:  # "exp" interpolates the logarithm in temperature: no zeros allowed
            table.set_interpolation_mode("linear")
    return tables


def native_grid(tables):
    """Wavenumber grid [cm-1] of the finest table, cut to the Ariel bins."""
    finest = max((table.wavenumberGrid for table in tables.values()), key=len)
    edges = 1e4 / ariel_grid()[2]
    margin = 1.01
    grid = finest[(finest > edges.min() / margin) & (finest < edges.max() * margin)]
    for name, table in tables.items():
        covered = table.wavenumberGrid
        if covered.min() > edges.min() or covered.max() < edges.max():
            raise ValueError(
                f"opacities: the table of {name} covers {1e4 / covered.max():.2f}-{1e4 / covered.min():.2f} micron, "
                f"expected at least {1e4 / edges.max():.2f}-{1e4 / edges.min():.2f}"
            )
    return np.sort(grid)


def binning_matrix(wavenumber):
    """Weights (52, n_wavenumbers) of the mean over each bin in wavenumber, as TauREx's FluxBinner takes it."""
    middle = (wavenumber[1:] + wavenumber[:-1]) / 2
    cells = np.concatenate([[2 * wavenumber[0] - middle[0]], middle, [2 * wavenumber[-1] - middle[-1]]])
    low, high = np.sort(1e4 / ariel_grid()[2], axis=1).T[:, :, None]  # (52, 1) each
    weights = np.clip(np.minimum(high, cells[1:]) - np.maximum(low, cells[:-1]), 0, None)
    return weights / weights.sum(axis=1, keepdims=True)
