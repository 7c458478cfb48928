"""Transit depth of a planet with an H2/He atmosphere in front of a star.

The geometry is that of TauREx 3 (Al-Refaie et al. 2021, ApJ 917, 37), with which it agrees within 1e-6 of a depth
(`tests/simulation/test_forward_model.py`); all rays are computed at once.
"""

import numpy as np

from constants import SUN_RADIUS
from simulation import contributions
from simulation.alkali import ALKALIS, AlkaliLines
from simulation.ariel import ariel_grid
from simulation.atmosphere import gas_mixture, hydrostatic, layer_pressures, temperature_profile, thinned
from simulation.kdistribution import MOLECULES
from simulation.opacities import Opacities

LAYERS = 200
PRESSURE_RANGE = (1e-4, 1e6)  # Pa, top and bottom; the planet's radius is that of the bottom
STAR_RADIUS = 1.0  # solar radii
# In ln P: light is interpolated between rays, cross-sections of lines between levels that lie so far apart.
RAY_SPACING, LEVEL_SPACING = 0.24, 0.47
KINKS = (1e5, 0.1)  # Pa: where a temperature gradient or the dependence of k on pressure ends
FAINT = 1e-6  # optical depth of haze that is left out
LOWEST = 8  # rays that are left out together if the gas is dark without its lines; products are quick by eights
DARK = 1e-7  # of the planet's disc: light that may be lost in the last of them
GAP = 4  # parts of a gap between bins that are computed on both sides: nothing in the middle of a wide gap
NAMES = ("H2O", "CH4", "CO", "CO2", "NH3", "Mp", "Rp", "Tp", "Pclouds")  # the AMPs of the shipped survey
GASES = (*MOLECULES, *ALKALIS)
ABSENT = {  # AMPs in retrieval space that change nothing
    **dict.fromkeys(GASES, -np.inf),
    "Pclouds": np.inf,
    "cloud_fraction": 1.0,
    "T_gradient": 0.0,
    "haze_factor": -np.inf,
    "haze_slope": -4.0,
}


class ForwardModel:
    """Noise-free transit depth of a planet with an H2/He atmosphere in front of a star.

    Parameters
    ----------
    opacities : path-like or simulation.opacities.Opacities, optional
        Folder of TauREx cross-section tables (ExoMolOP `.h5`, `.pickle`, ...) of the molecules, or k-distributions.
        None takes the k-distributions that the repository ships.
    names : sequence of str
        AMPs in the order in which they are given: "Mp", "Rp", "Tp" and any of `ABSENT`.
    edges : array-like, shape (n_bins, 2), optional
        Lower and upper edge of each bin [micron], within 0.39 to 9.03; None takes the Ariel grid.
    star_radius : float
        In solar radii of 6.957e8 m.
    continuum : bool
        False leaves out Rayleigh scattering and CIA (for comparison).
    layers, pressure_range : int and (float, float)
        Number of layers, of equal thickness in log pressure, and the pressure at the top and at the bottom [Pa].
    """

    def __init__(
        self,
        opacities=None,
        *,
        names=NAMES,
        edges=None,
        star_radius=STAR_RADIUS,
        continuum=True,
        layers=LAYERS,
        pressure_range=PRESSURE_RANGE,
    ):
        self.names, self._star = tuple(names), star_radius * SUN_RADIUS
        unknown = [name for name in self.names if name not in (*ABSENT, "Mp", "Rp", "Tp")]
        missing = [name for name in ("Mp", "Rp", "Tp") if name not in self.names]
        if unknown or missing:
            raise ValueError(f"names: expected Mp, Rp, Tp and any of {', '.join(ABSENT)}, received {self.names}")
        self.edges = np.array(ariel_grid()[2] if edges is None else edges, float)
        if self.edges.ndim != 2 or self.edges.shape[1] != 2 or not (self.edges[:, 0] > 0).all():
            raise ValueError(f"edges: expected (n_bins, 2) wavelengths in micron, received shape {self.edges.shape}")
        self._boundaries, self._pressure = layer_pressures(layers, pressure_range)
        self._rays, self._between_rays = thinned(self._pressure, RAY_SPACING)
        tables = not (opacities is None or isinstance(opacities, Opacities))
        self._levels, between_levels = thinned(self._pressure, 0.0 if tables else LEVEL_SPACING, KINKS)
        if not tables:  # neither temperature nor k change above the upper kink: one level stands for all
            top = min(np.count_nonzero(self._pressure[self._levels] > KINKS[1]), len(self._levels) - 1)
            self._levels = self._levels[: top + 1]
            between_levels = np.column_stack([between_levels[:, :top], between_levels[:, top:].sum(axis=1)])
        self._between_levels = between_levels.astype(np.float32)
        self._ones = np.ones((len(self._pressure), 1), np.float32)
        levels = self._pressure[self._levels]
        if tables:
            tables = contributions.load_tables(opacities, [name for name in MOLECULES if name in self.names])
            self._grid = contributions.native_grid(tables, self.edges)  # (n,) ascending [cm-1]
            cells = cell_borders(self._grid)
            self._absorption = contributions.TableAbsorption(tables, self._grid, levels)
        else:
            opacities = opacities or Opacities.load()
            # The parts of the cells that the bins, and narrow gaps between them, touch, and one more on both sides.
            touched = (opacities.overlap(*self.edges.T) > 0).any(axis=0)
            first, last = np.flatnonzero(touched)[[0, -1]]
            parts = np.arange(max(first - 1, 0), min(last + 2, len(touched)))
            parts = parts[np.convolve(touched, np.ones(2 * GAP + 1), "same")[parts] > 0]
            middles = (opacities.edges[1:] + opacities.edges[:-1]) / 2
            self._grid, cells = middles[parts][::-1], cell_borders(middles)[parts][::-1]
            self._absorption = contributions.LineAbsorption(opacities, parts, levels)
        self._binning = binning_matrix(self._grid, self.edges)
        atoms = [name for name in ALKALIS if name in self.names]
        self._alkalis = AlkaliLines(atoms, cells, levels) if atoms else None
        self._collisions = contributions.Collisions(self._grid)
        self._rayleigh = {gas: contributions.rayleigh(gas, self._grid) for gas in contributions.SCATTERERS if continuum}

    def depth(self, amps):
        """Transit depth in the bins.

        Parameters
        ----------
        amps : array-like, shape (n_amps,) or (N, n_amps)
            In retrieval space, in the order of `names`: log10 VMR (-inf: none), log10 mass [kg], radius [m] at 1e6 Pa,
            temperature [K], log10 cloud-top pressure [Pa], and so on.

        Returns
        -------
        numpy.ndarray, shape (n_bins,) or (N, n_bins)
            Transit depth (Rp/Rs)^2, dimensionless.
        """
        amps = np.asarray(amps, float)
        if amps.shape[-1:] != (len(self.names),) or amps.ndim > 2:
            n = len(self.names)
            raise ValueError(f"amps: expected shape ({n},) or (N, {n}), received {amps.shape}")
        if amps.ndim == 2:
            return np.array([self.depth(one) for one in amps]).reshape(len(amps), len(self._binning))
        return self._binning @ self.native_depth(amps)[1]

    def native_depth(self, amps):
        """Transit depth (n,) of one planet at the wavenumbers (n,) [cm-1] of the opacities, which come first."""
        given = {**ABSENT, **dict(zip(self.names, np.asarray(amps, float).tolist(), strict=True))}
        mix = {name: 10 ** given[name] for name in GASES if given[name] > -np.inf}
        hydrogen, helium, weight = gas_mixture(mix)
        temperature = temperature_profile(given["Tp"], given["T_gradient"], self._pressure)
        atmosphere = hydrostatic(self._boundaries, self._pressure, temperature, weight, 10 ** given["Mp"], given["Rp"])
        if not atmosphere.distance[-1] < 1e100:  # a gas that is not bound has no edge
            return self._grid, np.full(len(self._grid), np.nan)
        above_deck = 1 - contributions.covered(self._boundaries, 10 ** given["Pclouds"])
        fraction = given["cloud_fraction"]
        # Area over pi (2, n_rays) of the clear and of the covered limb that each ray stands for.
        area = atmosphere.ring * [np.full(len(above_deck), 1 - fraction), fraction * above_deck] @ self._between_rays
        area = area[:, area.any(axis=0).argmax() :].astype(np.float32)  # rays below the deck are dark
        column = atmosphere.column(self._rays[-area.shape[1] :]).astype(np.float32)
        light = self._gas(mix, hydrogen, helium, atmosphere, column, area, given["Tp"])
        clear, covered = area[:, -light.shape[1] :]
        let_through, factor = light @ (clear + covered), 10 ** given["haze_factor"]
        if factor > 0:  # it lies above the deck, scatters the blue, and is thin high up
            sigma = contributions.haze(factor, given["haze_slope"], self._grid).astype(np.float32)
            hydrogens = column[-len(covered) :] @ self._ones[:, 0] * np.float32(hydrogen)
            low, high = (covered != 0).argmax(), len(covered) - (hydrogens * sigma.max() > FAINT)[::-1].argmax()
            blue = (sigma * hydrogens[low] > FAINT).argmax()
            absorbed = -sigma[blue:, None] * hydrogens[low:high]
            absorbed = np.exp(absorbed, out=absorbed)
            absorbed -= 1
            absorbed *= light[blue:, low:high]
            let_through[blue:] += absorbed @ covered[low:high]
        return self._grid, (given["Rp"] ** 2 + atmosphere.ring.sum() - let_through) / self._star**2

    def _gas(self, mix, hydrogen, helium, atmosphere, column, area, reference):
        """Part of the light that the gas lets through, (n_wavenumbers, n_rays), wavenumber ascending, float32.

        The lowest rays of ``column`` are left out if they are dark; ``area`` (2, n_rays) says how much each counts.
        """
        temperature = atmosphere.temperature[self._levels]
        # What has no lines, or only their wings: weights (n_layers, m) of the gas, cross-sections (m, n) of their sums.
        weights, cross_sections = [self._ones], [np.zeros((1, len(self._grid)))]
        if self._rayleigh:
            shares = {"H2": hydrogen, "He": helium, **mix}
            cross_sections[0] += sum(shares.get(gas, 0.0) * sigma for gas, sigma in self._rayleigh.items())
            pairs, collisions = self._collisions.terms(hydrogen, helium, atmosphere)
            weights.append(pairs)
            cross_sections.append(collisions)
        atoms = ALKALIS.keys() & mix.keys()
        if atoms:
            broadening, (by_collisions, natural) = self._alkalis.wings(mix, temperature)
            weights.append(self._between_levels @ broadening)
            cross_sections.append([by_collisions])
            cross_sections[0] += natural
        columns = column @ np.concatenate([self._between_levels, *weights], 1, dtype=np.float32)
        at_levels, columns = columns[:, : len(self._levels)], columns[:, len(self._levels) :]
        cross_sections = np.concatenate(cross_sections, dtype=np.float32)
        if len(columns) > LOWEST:
            lost = area[:, LOWEST - 1].sum() * np.exp(-(columns[LOWEST - 1] @ cross_sections).min())
            if lost < DARK * atmosphere.distance[0] ** 2:
                at_levels, columns = at_levels[LOWEST:], columns[LOWEST:]
        smooth = cross_sections.T @ -columns.T
        smooth = np.exp(smooth, out=smooth)
        molecules = {name: ratio for name, ratio in mix.items() if name in MOLECULES}
        light = self._absorption.light(molecules, temperature, reference, at_levels)
        if atoms and len(self._alkalis.parts):
            light[self._alkalis.parts] *= self._alkalis.light(mix, temperature, at_levels)
        light *= smooth
        return light


def cell_borders(wavenumber):
    """Lower and upper border (n, 2) of the cells around wavenumbers (n,), half way between neighbours."""
    middle = (wavenumber[1:] + wavenumber[:-1]) / 2
    borders = np.concatenate([[2 * wavenumber[0] - middle[0]], middle, [2 * wavenumber[-1] - middle[-1]]])
    return np.sort(np.column_stack([borders[:-1], borders[1:]]))


def binning_matrix(wavenumber, edges=None):
    """Weights (n_bins, n_wavenumbers) of the mean over each bin in wavenumber, as TauREx's FluxBinner takes it.

    `edges` (n_bins, 2) in micron; None takes the Ariel grid.
    """
    edges = ariel_grid()[2] if edges is None else edges
    from_, to = cell_borders(wavenumber).T
    low, high = np.sort(1e4 / edges, axis=1).T[:, :, None]  # (n_bins, 1) each
    weights = np.clip(np.minimum(high, to) - np.maximum(low, from_), 0, None)
    return weights / weights.sum(axis=1, keepdims=True)
