"""Opacities: k-distributions from line lists, spread over the wavelengths of a cell by a band model.

`kdistribution.py` says how strong a cell is and which cross-sections its lines make, not where in the cell they
lie. A cell is as wide as several bins of an instrument, so it is cut into parts of resolution 500, and the band
model (`bandmodel.py`) says how the strength f_i runs over the parts i. With lines spread around it at random,
log k in part i is log f_i plus a scatter, so the table

    coupling[i, g] ~ width_i w_g exp(-(ln k_g - ln f_i - shift)^2 / (2 s^2)),    s^2 = var(ln k) - var(ln f),

scaled until its rows sum to the widths and its columns to the weights (Sinkhorn's iteration), says which share of
part i has the cross-section k_g. Whatever the band model says, the whole cell keeps exactly the k-distribution of
the line lists. For a joint normal distribution this coupling is exact; s is kept from vanishing where the band model
varies more than the table. In the bins where ExoMolOP's tables say how narrow bins share a cell, the band model is
corrected first (`studies/fit_sharing.py`).
"""

from functools import cache
from pathlib import Path

import numpy as np

from common.files import digest, written_whole
from simulation.bandmodel import FINE_GRID, STEP, cross_section
from simulation.kdistribution import STORED, KDistributions, effective
from simulation.molecules import MOLECULES

PART_RESOLUTION = 500  # wavenumber over width of the parts of a cell
COUPLING_TEMPERATURES = np.arange(500.0, 2501.0, 250.0)  # K: linear in between
COUPLING_PRESSURE = 1e3  # Pa: 10 mbar, where transmission spectra are formed
SMALLEST_SCATTER = 0.25  # of the variance of ln k: the least that is left to the lines
STORED_COUPLINGS = Path(__file__).parents[1] / "data" / "tables" / "couplings.npz"  # written on first use
STORED_SHARING = STORED.with_name("sharing.npz")


# --- parts of a cell ---


def part_edges(edges, resolution=PART_RESOLUTION):
    """Cut cells (n_cells + 1,) ascending [micron] into parts: edges (n_parts + 1,) descending [cm-1], cell of each."""
    counts = np.maximum(np.round(np.diff(np.log(edges)) * resolution), 1).astype(int)
    pieces = [1e4 / np.geomspace(low, high, n + 1)[:-1] for low, high, n in zip(edges[:-1], edges[1:], counts)]
    return np.concatenate([*pieces, [1e4 / edges[-1]]]), np.repeat(np.arange(len(counts)), counts)


def couple(strength, width, k, weights):
    """Return which share of each part of a cell has which cross-section (formula above), (n_parts, n_g).

    `strength` (n_parts,) of the band model in any unit, `width` (n_parts,) with sum 1, `k` and `weights` (n_g,) of the
    cell. Rows sum to 1, and the mean over parts, weighted by `width`, is `weights`.
    """
    log_k, log_f = np.log(k), np.log(strength)
    log_k, log_f = log_k - weights @ log_k, log_f - width @ log_f
    variance = weights @ log_k**2
    if len(width) == 1 or variance < 1e-12 or width @ log_f**2 < 1e-12:
        return np.tile(weights, (len(width), 1))
    scatter = max(variance - width @ log_f**2, SMALLEST_SCATTER * variance)
    exponent = -((log_k - log_f[:, None]) ** 2) / (2 * scatter)
    joint = weights * np.exp(exponent - exponent.max(axis=1, keepdims=True))
    for _ in range(200):
        joint *= weights / (width @ joint)
        total = joint.sum(axis=1, keepdims=True)
        joint /= total
        if np.abs(total - 1).max() < 1e-6:
            break
    return joint * (weights / (width @ joint))  # the cell's distribution is kept to the last digit


def band_strength(molecule, temperature, edges):
    """Strength of the band model in parts with `edges` (n_parts + 1,), descending [cm-1]: (n_parts,) [cm2]."""
    strength = _means(cross_section(molecule, temperature), edges[::-1])[::-1]
    return np.maximum(strength, 1e-8 * strength.max())  # where the band model has no band it gives no shape


def couple_cells(strength, opacities, k):
    """Shares (n_parts, n_g) of the parts of all cells; `strength` (n_parts,), `k` (n_cells, n_g)."""
    shares = np.empty((len(strength), k.shape[1]))
    for c in range(len(k)):
        parts = opacities.cell == c
        width = opacities.width[parts] / opacities.width[parts].sum()
        shares[parts] = couple(strength[parts], width, k[c], opacities.distributions.weights)
    return shares


class Opacities:
    """Cross-sections of all molecules on the parts of the cells.

    `distributions` are those of the cells, `cell` (n_parts,) the cell of each part, `edges` (n_parts + 1,) of the parts
    descending [cm-1], `couplings` {molecule: (n_temperatures, n_parts, n_g) float32}.
    """

    def __init__(
        self,
        distributions,
        couplings=None,
        *,
        resolution=PART_RESOLUTION,
        temperatures=COUPLING_TEMPERATURES,
        pressure=COUPLING_PRESSURE,
        flat=False,
        sharing=None,
    ):
        """Couple the parts of resolution `resolution` to their cells; `flat` leaves the band model's shape out.

        `sharing` has the corrections of the band model, those of `studies/fit_sharing.py` by default.
        """
        self.distributions = distributions
        self.edges, self.cell = part_edges(distributions.edges, resolution)
        self.width = -np.diff(self.edges)  # cm-1
        self.wavelength = 2e4 / (self.edges[1:] + self.edges[:-1])  # micron, of the middles of the parts
        self.temperatures = temperatures
        self.couplings = couplings or {name: self._couplings(name, pressure, flat, sharing) for name in MOLECULES}

    @classmethod
    @cache
    def load(cls):
        """Opacities that the repository ships; the couplings are computed on first use (seconds) and kept."""
        distributions, version = KDistributions.load(), code_version()
        try:
            with np.load(STORED_COUPLINGS) as file:
                if str(file["version"]) == version:
                    return cls(distributions, {name: file[name] for name in MOLECULES})
        except (OSError, KeyError, ValueError):
            pass
        opacities = cls(distributions)
        STORED_COUPLINGS.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(STORED_COUPLINGS) as part, open(part, "wb") as file:
            np.savez(file, version=np.array(version), **opacities.couplings)
        return opacities

    def _couplings(self, molecule, pressure, flat, sharing):
        """Shares of a molecule, (n_temperatures, n_parts, n_g)."""
        sharing = load_sharing() if sharing is None and not flat else sharing
        shares = np.tile(self.distributions.weights.astype(np.float32), (len(self.temperatures), len(self.cell), 1))
        for t, temperature in enumerate(() if flat else self.temperatures):
            strength = band_strength(molecule, temperature, self.edges)
            if molecule in sharing:
                rows = [np.interp(temperature, sharing["temperature"], column) for column in sharing[molecule].T]
                strength = strength * np.exp(np.interp(self.wavelength, sharing[f"{molecule}_wavelength"], rows))
            shares[t] = couple_cells(strength, self, self.distributions.cross_sections(molecule, temperature, pressure))
        return shares

    def shares(self, molecule, temperature):
        """Share of each part that has the cell's cross-section k_g, (n_parts, n_g)."""
        place = np.interp(temperature, self.temperatures, np.arange(len(self.temperatures)))
        below = min(int(place), len(self.temperatures) - 2)
        table, part = self.couplings[molecule], np.float32(place - below)
        return (1 - part) * table[below] + part * table[below + 1]

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


def effective_cross_section(molecule, low, high, temperature, pressure):
    """Effective cross-section (n,) [m2 per molecule] of a molecule in bins: that of a grey gas as dark to a ray.

    `low` and `high` (n,) are the edges of the bins [micron], within 0.39 to 9.03; temperature in K, pressure in Pa.
    """
    if molecule not in MOLECULES:
        raise ValueError(f"molecule: expected one of {', '.join(MOLECULES)}, received {molecule!r}")
    opacities = Opacities.load()
    k = opacities.distributions.cross_sections(molecule, temperature, pressure)  # (n_cells, n_g)
    return opacities.effective(k, opacities.shares(molecule, temperature), low, high) * 1e-4  # cm2 to m2


def _means(sigma, edges):
    """Mean of `sigma` (on FINE_GRID) between successive `edges`, ascending [cm-1]."""
    integral = np.concatenate([[0.0], np.cumsum((sigma[1:] + sigma[:-1]) / 2 * STEP)])
    return np.diff(np.interp(edges, FINE_GRID, integral)) / np.diff(edges)


@cache
def load_sharing():
    """Read the corrections of `studies/fit_sharing.py`."""
    with np.load(STORED_SHARING) as file:
        return {name: file[name] for name in file.files}


def code_version():
    """Short hash of the files that decide what the opacities are."""
    files = ("opacities.py", "bandmodel.py", "molecules.py", "kdistribution.py")
    return digest(*(Path(__file__).with_name(name) for name in files), STORED, STORED_SHARING)[:12]
