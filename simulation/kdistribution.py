"""k-distributions of six molecules in 49 spectral cells: strengths and line structure from line lists.

A cell is a few per cent wide and holds many lines. All that a ray notices of them is how often each cross-section
occurs: sorted by size, k(g) is the cross-section that a share g of the cell does not exceed (the k-distribution),
and the cell's mean transmission is sum_g w_g exp(-k_g u) for a column u. Each k_g depends on temperature and pressure
as

    ln k_g(T, P) = sum_ab c_ab L_a(x) L_b(y),    x from 1/T, y from log P, L: Legendre polynomials.

`kdistributions.npz` holds the c_ab, fitted by `studies/fit_opacities.py` to tables from HITEMP and HITRAN line lists;
nothing else of the tables is kept. NH3 has a second surface for hot gas (`<molecule>_hot` in the file): the
logarithm goes over from one to the other between 1000 and 1400 K. Where the tables come from and how close the fit
is: `data/README.md`.
"""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.polynomial.legendre import legvander

MOLECULES = ("H2O", "CH4", "CO", "CO2", "NH3", "SO2")
STORED = Path(__file__).parents[1] / "data" / "kdistributions.npz"
ORDERS = (4, 4)  # coefficients in 1/T and in log P
TEMPERATURE_RANGE = (500.0, 2000.0)  # K, of the tables; x runs from 1 to -1 and is extrapolated to 2500 K
PRESSURE_RANGE = (0.1, 1e6)  # Pa, of the fit; outside, the value at the edge
EXTRAPOLATED_TO = (450.0, 2500.0)  # K; beyond, the value at the edge
HOT_FROM, HOT_ONLY = 1000.0, 1400.0  # K: where the surface of hot gas sets in, and where it holds alone
CHORD_DEPTH = 0.56  # optical depth along the line of sight at the apparent edge of a planet


def temperature_basis(temperature):
    """Legendre polynomials in 1/T, (..., 4); temperature in K."""
    cold, hot = 1 / np.array(TEMPERATURE_RANGE)
    return _legendre((2 / np.clip(temperature, *EXTRAPOLATED_TO) - cold - hot) / (cold - hot), ORDERS[0])


def pressure_basis(pressure):
    """Legendre polynomials in log P, (..., 4); pressure in Pa."""
    low, high = np.log(PRESSURE_RANGE)
    return _legendre((2 * np.log(np.clip(pressure, *PRESSURE_RANGE)) - low - high) / (high - low), ORDERS[1])


def _legendre(x, order):
    return legvander(x, order - 1).reshape(*np.shape(x), order)


class KDistributions:
    """The fitted k-distributions.

    `edges` (n_cells + 1,) of the cells, ascending [micron]; `weights` (n_g,), the share of a cell that each ordinate
    stands for, of sum 1; `coefficients` {molecule: (n_cells, n_g, 4, 4)} of ln k, k in cm2 per molecule; a molecule may
    have a second surface, "<molecule>_hot".
    """

    def __init__(self, edges, weights, coefficients):
        self.edges = np.asarray(edges, float)
        self.weights = np.asarray(weights, float)
        self.coefficients = {name: np.asarray(values, float) for name, values in coefficients.items()}

    @classmethod
    @cache
    def load(cls, path=STORED):
        """Read the shipped file (once per process)."""
        with np.load(path) as file:
            names = [name for name in file.files if name not in ("edges", "weights", "source")]
            return cls(file["edges"], file["weights"], {name: file[name] for name in names})

    def cross_sections(self, molecule, temperature, pressure):
        """Cross-sections k_g [cm2 per molecule], (n_cells, n_g) at one pressure [Pa], (n, n_cells, n_g) at (n,)."""

        def log_k(key, at):
            x, y = temperature_basis(at), pressure_basis(pressure)  # (4,), (4,) or (n, 4)
            return np.einsum("cgab,a,...b->...cg", self.coefficients[key], x, y, optimize=True)

        part, cold = hot_share(self.coefficients, molecule, temperature)
        if part == 0:
            return np.exp(log_k(molecule, cold))
        return np.exp((1 - part) * log_k(molecule, cold) + part * log_k(f"{molecule}_hot", temperature))


def hot_share(surfaces, molecule, temperature):
    """Share of a molecule's surface of hot gas at a temperature [K], and the temperature of its surface of cold gas."""
    if f"{molecule}_hot" not in surfaces:
        return np.zeros(np.shape(temperature)), temperature
    share = np.clip((temperature - HOT_FROM) / (HOT_ONLY - HOT_FROM), 0, 1)
    return share, np.minimum(temperature, HOT_FROM)


def effective(cross_section, share, depth=CHORD_DEPTH):
    """Effective cross-section: s such that the mean of exp(-k u) is exp(-depth) at the column u = depth / s.

    A grey gas of this cross-section would let the same part of the light through at the apparent edge of a planet.
    `cross_section` and `share` (..., n), with shares that sum to 1 along the last axis, give (...).
    """
    cross_section, share = np.broadcast_arrays(np.asarray(cross_section, float), share)
    low = np.log(depth / np.maximum(cross_section.max(axis=-1), 1e-300))  # ln u: no bin is darker than its largest k
    high = np.log(depth / np.maximum(cross_section.min(axis=-1), 1e-300))
    for _ in range(60):  # bisection
        middle = (low + high) / 2
        light = (share * np.exp(-cross_section * np.exp(middle)[..., None])).sum(axis=-1)
        low, high = np.where(light > np.exp(-depth), middle, low), np.where(light > np.exp(-depth), high, middle)
    return depth * np.exp(-(low + high) / 2)
