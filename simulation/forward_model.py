"""Transit depth of an H2/He planet with five molecules and a cloud deck, computed by TauREx 3.

`ForwardModel` wires TauREx's classes together, with contributions of our own (`simulation/contributions.py`).
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
    RayleighContribution,
)
from taurex.model import TransmissionModel
from taurex.planet import Planet
from taurex.stellar import BlackbodyStar
from taurex.temperature import Isothermal

from simulation.ariel import STAR_TEMPERATURE, ariel_grid
from simulation.cia import PAIRS, KnotCIA
from simulation.contributions import LineAbsorption, MolecularAbsorption, PartialClouds, UniformCIA, UniformRayleigh
from simulation.molecules import HELIUM_RATIO, MOLECULES
from simulation.opacities import Opacities

LAYERS = 200
PRESSURE_RANGE = (1e-4, 1e6)  # Pa, top and bottom; the planet's radius is that of the bottom
STAR_RADIUS = 1.0  # solar radii


class ForwardModel:
    """Noise-free transit depth of an isothermal H2/He planet in front of a star.

    Parameters
    ----------
    opacities : path-like or simulation.opacities.Opacities, optional
        Folder of TauREx cross-section tables (ExoMolOP `.h5`, `.pickle`, ...) of all five molecules, or
        k-distributions. None takes the k-distributions that the repository ships.
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
        if opacities is None or isinstance(opacities, Opacities):
            shipped = opacities or Opacities.load()
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
