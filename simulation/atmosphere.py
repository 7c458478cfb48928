"""The structure of a hydrostatic atmosphere: temperature, heights and the gas along every ray.

Layers have equal thickness in log pressure. As in TauREx 3 (Al-Refaie et al. 2021, ApJ 917, 37), a layer has the
scale height of its lower boundary, gravity falls with height, and the ray through a layer is tangent to its middle.
"""

from dataclasses import dataclass

import numpy as np

from constants import GRAVITATIONAL_CONSTANT
from simulation.molecules import HELIUM_RATIO, WEIGHTS

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


@dataclass(frozen=True)
class Atmosphere:
    """The layers of one planet, from the bottom to the top."""

    temperature: np.ndarray  # (n_layers,) in the middle of each layer [K]
    density: np.ndarray  # (n_layers,) molecules per m3
    column: np.ndarray  # (n_layers, n_layers) molecules per m2 that the ray through a layer (row) meets in each layer
    ring: np.ndarray  # (n_layers,) area over pi of the ring that the ray through each layer stands for [m2]

    def above(self, first):
        """Return the layers from number `first` on, with the rays through them."""
        one = slice(first, None)
        return Atmosphere(self.temperature[one], self.density[one], self.column[one, one], self.ring[one])


def hydrostatic(boundaries, pressure, temperature, weight, mass, radius):
    """Return the `Atmosphere` of a planet of `mass` [kg] and `radius` [m] of the bottom; heights may be infinite.

    Pressures are those of `layer_pressures`, `temperature` (n_layers,) [K], `weight` the mean mass of a molecule [kg].
    """
    thickness = np.log(boundaries[:-1] / boundaries[1:]).tolist()
    height_factor = (BOLTZMANN * temperature / (weight * GRAVITATIONAL_CONSTANT * mass)).tolist()  # 1 / m
    distance, heights = float(radius), []
    for factor, step in zip(height_factor, thickness):
        heights.append(distance)
        distance += factor * distance * distance * step
    distance = np.array([*heights, distance])  # from the centre to the boundaries
    density = pressure / (BOLTZMANN * temperature)
    with np.errstate(invalid="ignore", over="ignore"):
        step = np.diff(distance)
        tangent = distance[:-1] + step[0] / 2
        outer = (tangent + step / 2) ** 2
        half_chord = np.sqrt(np.maximum(outer - tangent[:, None] ** 2, 0.0))  # (n_rays, n_layers)
        path = 2 * np.diff(half_chord, axis=1, prepend=0.0)
        return Atmosphere(temperature, density, path * density, 2 * distance[:-1] * step)


def upper_product(column, values, block=50):
    """Product of ``column`` (n, n), which is zero below its diagonal, and ``values`` (n, m)."""
    result = np.empty((len(column), values.shape[1]), values.dtype)
    for start in range(0, len(column), block):
        np.matmul(column[start : start + block, start:], values[start:], out=result[start : start + block])
    return result
