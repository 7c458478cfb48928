"""Transit depth of an H2/He planet with five molecules and a cloud deck, computed by TauREx 3.

`ForwardModel` wires TauREx's own classes together. Three contributions are our own: the molecules absorb by correlated
k (`data/opacities.py`); whatever has one cross-section in every layer of an isothermal, well-mixed atmosphere is looked up once
instead of once per layer (same numbers, quicker); and the cloud deck has a top that may lie inside a layer.
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
from data.opacities import Opacities

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


class LineAbsorption(Contribution):
    """Absorption by the molecules, lines and all: correlated k with band transmissions that multiply.

    A ray through several layers meets the same wavelengths in the same order of strength (correlated k), so the optical depth of
    each ordinate adds up along it. Lines of different molecules fall where they may: within a part of a cell the
    transmissions of the molecules multiply (random overlap).

    Parameters
    ----------
    opacities : data.opacities.Opacities
    parts : ndarray of int
        Parts of the cells that make the wavenumber grid, from the blue to the red.
    """

    def __init__(self, opacities, parts):
        super().__init__("Absorption")
        self._distributions, self._opacities, self._parts = opacities.distributions, opacities, parts
        cells, first, counts = np.unique(opacities.cell[parts], return_index=True, return_counts=True)
        self._cells, self._slices = cells, [slice(i, i + n) for i, n in zip(first, counts, strict=True)]
        self._pressure = self._surfaces = None

    def prepare_each(self, model, wngrid):
        """TauREx's abstract method: nothing, a layer by itself has no cross-section here."""
        return iter(())

    def prepare(self, model, wngrid):
        """Look up cross-sections and shares once per spectrum."""
        temperature = model.temperatureProfile[0]
        mix = {name: model.chemistry.get_gas_mix_profile(name)[0] for name in MOLECULES}
        present = [name for name in MOLECULES if mix[name] > 0]
        k = [self._at_levels(name, temperature, model.pressureProfile) * (mix[name] * 1e-4) for name in present]
        self._k = np.stack(k, axis=1) if k else None  # (n_layers, n_molecules, n_cells, n_g) m2 per molecule of air
        shares = [self._opacities.shares(name, temperature)[self._parts] for name in present]
        self._shares = np.array(shares, float).transpose(0, 2, 1) if k else None  # (n_molecules, n_g, n_parts)
        self._optical_depth = None

    def _at_levels(self, name, temperature, pressure):
        """Cross-sections [cm2] of the cells in all layers, (n_layers, n_cells, n_g)."""
        return self._distributions.cross_sections(name, temperature, pressure)[:, self._cells]

    def contribute(self, model, start_layer, end_layer, density_offset, layer, density, tau, path_length=None):
        """Add the optical depth along the ray through `layer`; that of all rays is computed with the first."""
        if self._k is None:
            return
        if self._optical_depth is None:
            self._optical_depth = -np.log(np.maximum(self._transmission(model.path_length, density), 1e-300))
        tau[layer] += self._optical_depth[layer]

    def _transmission(self, path_length, density):
        """Part of the light that the molecules let through, (n_layers, n_wavenumbers), wavenumber ascending."""
        column = np.zeros((len(density), len(density)))  # of the ray through a layer in the layers above
        for layer, path in enumerate(path_length):
            column[layer, layer:] = path * density[layer:]
        light = np.exp(-(column @ self._k.reshape(len(density), -1))).reshape(self._k.shape)
        light = light.transpose(2, 1, 0, 3)  # (n_cells, n_molecules, n_layers, n_g)
        result = np.empty((len(density), len(self._parts)))
        for cell, parts in zip(light, self._slices, strict=True):
            result[:, parts] = (cell @ self._shares[:, :, parts]).prod(axis=0)
        return result[:, ::-1]


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
    """Noise-free transit depth of an isothermal H2/He planet in front of a star.

    Parameters
    ----------
    opacities : path-like, optional
        Folder of TauREx cross-section tables (ExoMolOP `.h5`, `.pickle`, ...) of all five molecules. None takes the
        k-distributions that the repository ships.
    edges : array-like, shape (n_bins, 2), optional
        Lower and upper edge of each bin [micron], within 0.39 to 9.03; None takes the Ariel grid.
    star_radius : float
        In solar radii of 6.957e8 m.
    star_temperature : float
        In K; changes nothing in a transit depth.
    clouds : taurex Contribution, optional
        Cloud deck with a "clouds_pressure" [Pa]; None takes `PartialClouds`.
    stock : bool
        Use TauREx's own Rayleigh scattering and CIA and, with tables, its own absorption (slow, for comparison).
    continuum : bool
        False leaves out Rayleigh scattering and CIA (for comparison).
    layers : int
        Number of layers, of equal thickness in log pressure.
    pressure_range : (float, float)
        Pressure at the top and at the bottom [Pa].

    Notes
    -----
    TauREx keeps its opacities in a process-wide cache: with tables of your own, use one folder per process.
    """

    def __init__(
        self,
        opacities=None,
        *,
        edges=None,
        star_radius=STAR_RADIUS,
        star_temperature=STAR_TEMPERATURE,
        clouds=None,
        stock=False,
        continuum=True,
        layers=LAYERS,
        pressure_range=PRESSURE_RANGE,
    ):
        taurex.log.setLogLevel(logging.CRITICAL)
        self.edges = np.array(ariel_grid()[2] if edges is None else edges, float)
        if self.edges.ndim != 2 or self.edges.shape[1] != 2 or not (self.edges[:, 0] > 0).all():
            raise ValueError(f"edges: expected (n_bins, 2) wavelengths in micron, received shape {self.edges.shape}")
        absorption, grid = self._absorption(opacities, stock)
        chemistry = TaurexChemistry(fill_gases=["H2", "He"], ratio=HELIUM_RATIO)
        for name in MOLECULES:
            chemistry.addGas(ConstantGas(name, mix_ratio=1e-6))
        self._planet = Planet()
        self._model = TransmissionModel(
            planet=self._planet,
            star=BlackbodyStar(temperature=star_temperature, radius=star_radius),
            temperature_profile=Isothermal(T=1500.0),
            chemistry=chemistry,
            nlayers=layers,
            atm_min_pressure=pressure_range[0],
            atm_max_pressure=pressure_range[1],
        )
        self._model.add_contribution(absorption)
        for contribution in self._continuum(stock) if continuum else ():
            self._model.add_contribution(contribution)
        self._model.add_contribution(clouds or PartialClouds())
        self._model.build()
        self._model.set_native_grid(grid * astropy.units.k)  # k is the kayser, cm-1
        self._binning = binning_matrix(grid, self.edges)

    def _absorption(self, opacities, stock):
        """Absorption by the molecules and the wavenumber grid [cm-1] that it is computed on."""
        if opacities is None:
            shipped = Opacities.load()
            parts = np.flatnonzero((shipped.overlap(*self.edges.T) > 0).any(axis=0))
            parts = np.arange(max(parts[0] - 1, 0), min(parts[-1] + 2, len(shipped.cell)))  # gaps between bins included
            return LineAbsorption(shipped, parts), ((shipped.edges[1:] + shipped.edges[:-1]) / 2)[parts][::-1]
        tables = load_tables(opacities)
        uniform = all(np.array_equal(table.xsecGrid[0], table.xsecGrid[-1]) for table in tables.values())
        absorption = MolecularAbsorption(tables) if uniform and not stock else AbsorptionContribution()
        return absorption, native_grid(tables, self.edges)

    @staticmethod
    def _continuum(stock):
        """Rayleigh scattering and CIA."""
        if not stock:
            return UniformRayleigh(), UniformCIA()
        CIACache().cia_dict.update({pair: KnotCIA(pair) for pair in PAIRS})
        return RayleighContribution(), CIAContribution(list(PAIRS))

    def depth(self, amps):
        """Transit depth in the bins.

        Parameters
        ----------
        amps : array-like, shape (9,) or (N, 9)
            log10 VMR of H2O, CH4, CO, CO2, NH3 (-inf: none), log10 mass [kg], radius [m] at 1e6 Pa,
            temperature [K], log10 cloud-top pressure [Pa].

        Returns
        -------
        numpy.ndarray, shape (n_bins,) or (N, n_bins)
            Transit depth (Rp/Rs)^2, dimensionless.
        """
        amps = np.asarray(amps, float)
        if amps.shape[-1:] != (len(MOLECULES) + 4,) or amps.ndim > 2:
            raise ValueError(f"amps: expected shape (9,) or (N, 9), received {amps.shape}")
        if amps.ndim == 2:
            return np.array([self.depth(one) for one in amps]).reshape(len(amps), len(self._binning))
        return self._binning @ self.native_depth(amps)[1]

    def native_depth(self, amps):
        """Transit depth on the fine grid of the opacities.

        Parameters
        ----------
        amps : array-like, shape (9,)
            As in `depth`.

        Returns
        -------
        wavenumber : numpy.ndarray, shape (n,)
            Ascending [cm-1], resolution 500.
        depth : numpy.ndarray, shape (n,)
            Mean over lines and gaps around each wavenumber.
        """
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


def native_grid(tables, edges):
    """Wavenumber grid [cm-1] of the finest table, cut to the bins with `edges` (n_bins, 2) [micron]."""
    finest = max((table.wavenumberGrid for table in tables.values()), key=len)
    edges = 1e4 / edges
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


def binning_matrix(wavenumber, edges=None):
    """Weights (n_bins, n_wavenumbers) of the mean over each bin in wavenumber, as TauREx's FluxBinner takes it.

    `edges` (n_bins, 2) in micron; None takes the Ariel grid.
    """
    edges = ariel_grid()[2] if edges is None else edges
    middle = (wavenumber[1:] + wavenumber[:-1]) / 2
    cells = np.concatenate([[2 * wavenumber[0] - middle[0]], middle, [2 * wavenumber[-1] - middle[-1]]])
    low, high = np.sort(1e4 / edges, axis=1).T[:, :, None]  # (n_bins, 1) each
    weights = np.clip(np.minimum(high, cells[1:]) - np.maximum(low, cells[:-1]), 0, None)
    return weights / weights.sum(axis=1, keepdims=True)
