"""The structure of a hydrostatic atmosphere: temperature, heights and the gas along every ray.

Layers have equal thickness in log pressure. As in TauREx 3 (Al-Refaie et al. 2021, ApJ 917, 37), a layer has the
scale height of its lower boundary, gravity falls with height, and the ray through a layer is tangent to its middle.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from constants import GRAVITATIONAL_CONSTANT

HELIUM_RATIO = 0.17  # He/H2 by number, of the gas that the molecules are mixed into
WEIGHTS = {  # atomic mass units
    "H2O": 18.01528, "CH4": 16.04276, "CO": 28.0104, "CO2": 44.0098, "NH3": 17.03056, "SO2": 64.0648,
    "Na": 22.989768, "K": 39.0983, "H2": 2.01588, "He": 4.002602,
}  # fmt: skip
BOLTZMANN = 1.380649e-23  # J / K
ATOMIC_MASS = 1.66053906892e-27  # kg
MILLIBAR = 1e2  # Pa: where `temperature` holds if there is a gradient
GRADIENT_RANGE = (1e-1, 1e5)  # Pa, 1 microbar to 1 bar: the temperature changes between these, and is constant outside


def layer_pressures(layers, pressure_range):
    """Pressures [Pa] of the boundaries (layers + 1,) and of the middles (layers,), from the bottom to the top."""
    boundaries = np.geomspace(*pressure_range[::-1], layers + 1)
    return boundaries, np.sqrt(boundaries[1:] * boundaries[:-1])


def temperature_profile(temperature, gradient, pressure):
    """Temperature [K] at pressures (n,) [Pa]: `temperature` at 1 mbar, `gradient` K more for every decade deeper."""
    return temperature + gradient * np.log10(np.clip(pressure, *GRADIENT_RANGE) / MILLIBAR)


def gas_mixture(mix):
    """Volume mixing ratios of H2 and He, and the mean mass of a molecule [kg]; `mix` {molecule: mixing ratio}."""
    rest = 1 - sum(mix.values())
    hydrogen = rest / (1 + HELIUM_RATIO)
    helium = rest - hydrogen
    weight = sum(ratio * WEIGHTS[name] for name, ratio in mix.items())
    weight += hydrogen * WEIGHTS["H2"] + helium * WEIGHTS["He"]
    return hydrogen, helium, weight * ATOMIC_MASS


def thinned(pressure, spacing, kinks=()):
    """Numbers (m,) of layers `spacing` or less apart in ln P, and the matrix (n, m) that interpolates from them to all.

    Lagrange's polynomials through eight of them, on one side of each of the pressures `kinks` [Pa]; `pressure` (n,).
    All of the highest eight layers are among them: there the column along a ray goes to zero.
    """
    step = max(int(spacing / np.log(pressure[0] / pressure[1])), 1)
    borders = [0, *np.searchsorted(-pressure, np.negative(kinks)), len(pressure)]
    pieces = [np.unique([*range(low, high, step), high - 1]) for low, high in itertools.pairwise(borders) if high > low]
    pieces[-1] = np.union1d(pieces[-1], np.arange(len(pressure))[-8:])
    chosen = np.concatenate(pieces)
    matrix = np.zeros((len(pressure), len(chosen)))
    for piece in pieces:
        for layer in range(piece[0], piece[-1] + 1):
            first = np.clip(np.searchsorted(piece, layer) - 4, 0, max(len(piece) - 8, 0))
            for node in piece[first : first + 8]:
                others = np.setdiff1d(piece[first : first + 8], node)
                matrix[layer, chosen == node] = np.prod((layer - others) / (node - others))
    return chosen, matrix


@dataclass(frozen=True)
class Atmosphere:
    """The layers of one planet, from the bottom to the top."""

    temperature: np.ndarray  # (n_layers,) in the middle of each layer [K]
    density: np.ndarray  # (n_layers,) molecules per m3
    distance: np.ndarray  # (n_layers + 1,) of the boundaries from the centre [m]

    @property
    def ring(self):
        """Area over pi (n_layers,) of the ring that the ray through each layer stands for [m2]."""
        return 2 * self.distance[:-1] * np.diff(self.distance)

    def column(self, rays=slice(None)):
        """Molecules per m2 that the rays through some layers meet in every layer, (n_rays, n_layers)."""
        step = np.diff(self.distance)
        tangent = self.distance[:-1] + step[0] / 2
        half_chord = np.sqrt(np.maximum((tangent + step / 2) ** 2 - tangent[rays, None] ** 2, 0.0))
        path = half_chord.copy()  # (n_rays, n_layers)
        path[:, 1:] -= half_chord[:, :-1]
        path *= 2 * self.density
        return path


def hydrostatic(boundaries, pressure, temperature, weight, mass, radius):
    """Return the `Atmosphere` of a planet of `mass` [kg] and `radius` [m] of the bottom; heights may be infinite.

    Pressures are those of `layer_pressures`, `temperature` (n_layers,) [K], `weight` the mean mass of a molecule [kg].
    """
    thickness = np.log(boundaries[:-1] / boundaries[1:]).tolist()
    height_factor = (BOLTZMANN * temperature / (weight * GRAVITATIONAL_CONSTANT * mass)).tolist()  # 1 / m
    distance = [float(radius)]  # from the centre to the boundaries
    for factor, step in zip(height_factor, thickness):
        distance.append(distance[-1] + factor * distance[-1] * distance[-1] * step)
    return Atmosphere(temperature, pressure / (BOLTZMANN * temperature), np.array(distance))
