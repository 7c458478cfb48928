"""Opacities: k-distributions from line lists, spread over the wavelengths of a cell.

`kdistribution.py` says how strong a cell is and which cross-sections its lines make, not where in the cell they lie. A
cell is as wide as several bins of an instrument, so it is cut into parts of resolution 500, and `data/couplings.npz`
says which share of each part has which cross-section. These are from a band model, corrected where ExoMolOP's tables
say how narrow bins share a cell (`studies/fit_couplings.py`). Whatever they are, the whole cell keeps exactly the
k-distribution of the line lists.
"""

from functools import cache
from pathlib import Path

import numpy as np

from common.files import digest
from simulation.kdistribution import MOLECULES, STORED, KDistributions, effective

PART_RESOLUTION = 500  # wavenumber over width of the parts of a cell
STORED_COUPLINGS = STORED.with_name("couplings.npz")


def part_edges(edges, resolution=PART_RESOLUTION):
    """Cut cells (n_cells + 1,) ascending [micron] into parts: edges (n_parts + 1,) descending [cm-1], cell of each."""
    counts = np.maximum(np.round(np.diff(np.log(edges)) * resolution), 1).astype(int)
    pieces = [1e4 / np.geomspace(low, high, n + 1)[:-1] for low, high, n in zip(edges[:-1], edges[1:], counts)]
    return np.concatenate([*pieces, [1e4 / edges[-1]]]), np.repeat(np.arange(len(counts)), counts)


class Opacities:
    """Cross-sections of all molecules on the parts of the cells.

    `distributions` are those of the cells, `cell` (n_parts,) the cell of each part, `edges` (n_parts + 1,) of the parts
    descending [cm-1], `couplings` {molecule: (n_temperatures, n_parts, n_g) float32}, linear between `temperatures`.
    """

    def __init__(self, distributions, couplings, temperatures, resolution=PART_RESOLUTION):
        self.distributions, self.couplings, self.temperatures = distributions, couplings, temperatures
        self.edges, self.cell = part_edges(distributions.edges, resolution)
        self.width = -np.diff(self.edges)  # cm-1
        self.wavelength = 2e4 / (self.edges[1:] + self.edges[:-1])  # micron, of the middles of the parts

    @classmethod
    @cache
    def load(cls):
        """Opacities that the repository ships."""
        with np.load(STORED_COUPLINGS) as file:
            return cls(KDistributions.load(), {name: file[name] for name in MOLECULES}, file["temperature"])

    def shares(self, molecule, temperature):
        """Share of each part that has the cell's cross-section k_g, (n_parts, n_g)."""
        return between(self.temperatures, self.couplings[molecule], temperature)

    def overlap(self, low, high):
        """Share of each part in each bin, (n_bins, n_parts), rows of sum 1; edges (n_bins,) of the bins in micron."""
        low, high = np.asarray(low, float)[:, None], np.asarray(high, float)[:, None]
        first, last = self.distributions.edges[[0, -1]]
        if not (low < high).all() or low.min() < first or high.max() > last:
            raise ValueError(
                f"low, high: expected bins with low < high within {first:.2f} to {last:.2f} micron, "
                f"received {low.min():g} to {high.max():g}"
            )
        inside = np.minimum(1e4 / low, self.edges[:-1]) - np.maximum(1e4 / high, self.edges[1:])
        inside = np.clip(inside, 0, None)
        return inside / inside.sum(axis=1, keepdims=True)

    def effective(self, k, shares, low, high):
        """Effective cross-section (n_bins,) of bins in the unit of `k` (n_cells, n_g); `shares` (n_parts, n_g)."""
        found = []
        for row in self.overlap(low, high):
            parts = row > 0
            found.append(effective(k[self.cell[parts]].ravel(), (row[parts, None] * shares[parts]).ravel()))
        return np.array(found)


def between(temperatures, table, temperature):
    """Interpolate a table (n, ...) at `temperatures` (n,) linearly to one temperature."""
    place = np.interp(temperature, temperatures, np.arange(len(temperatures)))
    below = min(int(place), len(temperatures) - 2)
    part = np.float32(place - below)
    return (1 - part) * table[below] + part * table[below + 1]


def effective_cross_section(molecule, low, high, temperature, pressure):
    """Effective cross-section (n,) [m2 per molecule] of a molecule in bins: that of a grey gas as dark to a ray.

    `low` and `high` (n,) are the edges of the bins [micron], within 0.39 to 9.03; temperature in K, pressure in Pa.
    """
    if molecule not in MOLECULES:
        raise ValueError(f"molecule: expected one of {', '.join(MOLECULES)}, received {molecule!r}")
    opacities = Opacities.load()
    k = opacities.distributions.cross_sections(molecule, temperature, pressure)  # (n_cells, n_g)
    return opacities.effective(k, opacities.shares(molecule, temperature), low, high) * 1e-4  # cm2 to m2


def code_version():
    """Short hash of the files that decide what the opacities are."""
    files = (Path(__file__), Path(__file__).with_name("kdistribution.py"), STORED, STORED_COUPLINGS)
    return digest(*files)[:12]
