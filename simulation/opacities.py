"""Opacities: k-distributions from line lists, spread over the wavelengths of a cell by a band model.

`kdistribution.py` says how strong a cell is and which cross-sections its lines make, not where in the cell they
lie. A cell is as wide as several bins of an instrument, so it is cut into parts of resolution 500, and the band
model (`bandmodel.py`) says how the strength f_i runs over the parts i. With lines spread around it at random,
log k in part i is log f_i plus a scatter, so the table

    coupling[i, g] ~ width_i w_g exp(-(ln k_g - ln f_i - shift)^2 / (2 s^2)),    s^2 = var(ln k) - var(ln f),

scaled until its rows sum to the widths and its columns to the weights (Sinkhorn's iteration), says which share of
part i has the cross-section k_g. Whatever the band model says, the whole cell keeps exactly the k-distribution of
the line lists. For a joint normal distribution this coupling is exact; s is kept from vanishing where the band model
varies more than the table.

`write_tables` stores the band model alone, without lines, in the HDF5 layout that TauREx 3 reads: the opacities
before these.
"""

import hashlib
import os
from functools import cache
from pathlib import Path

import h5py
import numpy as np

from simulation.bandmodel import FINE_GRID, STEP, cross_section
from simulation.kdistribution import STORED, KDistributions, effective
from simulation.molecules import MOLECULES, REFERENCE_TEMPERATURE

__all__ = ["FINE_GRID", "REFERENCE_TEMPERATURE", "STEP", "cross_section"]  # of the band model, for those who ask here

PART_RESOLUTION = 500  # wavenumber over width of the parts of a cell
COUPLING_TEMPERATURES = np.arange(500.0, 2501.0, 250.0)  # K: linear in between
COUPLING_PRESSURE = 1e3  # Pa: 10 mbar, where transmission spectra are formed
SMALLEST_SCATTER = 0.25  # of the variance of ln k: the least that is left to the lines
STORED_COUPLINGS = Path(__file__).parents[1] / "data" / "tables" / "couplings.npz"  # written on first use

TABLE_RESOLUTION = 500  # wavenumber / step of the stored tables
TABLE_RANGE = (1250.0, 20300.0)  # cm-1: 0.49 to 8.0 micron, a little more than the Ariel grid
TABLE_TEMPERATURES = np.arange(500.0, 2501.0, 100.0)  # K
TABLE_PRESSURES = (1e-6, 1e8)  # Pa: two equal slices make a table that does not depend on pressure
SMALLEST_CROSS_SECTION = 1e-40  # cm2: TauREx interpolates the logarithm, zeros are not allowed


# --- parts of a cell ---


def part_edges(edges, resolution=PART_RESOLUTION):
    """Cut cells into parts of equal logarithmic width.

    Parameters
    ----------
    edges : ndarray (n_cells + 1,)
        Ascending [micron].
    resolution : float

    Returns
    -------
    wavenumber : ndarray (n_parts + 1,)
        Edges of the parts, descending [cm-1]: the order of the cells.
    cell : ndarray (n_parts,)
        Cell that each part lies in.
    """
    counts = np.maximum(np.round(np.diff(np.log(edges)) * resolution), 1).astype(int)
    pieces = [1e4 / np.geomspace(low, high, n + 1)[:-1] for low, high, n in zip(edges[:-1], edges[1:], counts)]
    return np.concatenate([*pieces, [1e4 / edges[-1]]]), np.repeat(np.arange(len(counts)), counts)


def couple(strength, width, k, weights, smallest_scatter=SMALLEST_SCATTER):
    """Say which share of each part of a cell has which cross-section (formula above).

    Parameters
    ----------
    strength : ndarray (n_parts,)
        Of the band model, in any unit.
    width : ndarray (n_parts,)
        Of the parts; the sum is 1.
    k, weights : ndarray (n_g,)
        k-distribution of the cell.
    smallest_scatter : float
        The least scatter of the lines, as a fraction of the variance of ln k.

    Returns
    -------
    ndarray, shape (n_parts, n_g)
        Rows sum to 1; the mean over parts, weighted by `width`, is `weights`.
    """
    log_k, log_f = np.log(k), np.log(strength)
    log_k, log_f = log_k - weights @ log_k, log_f - width @ log_f
    variance = weights @ log_k**2
    if len(width) == 1 or variance < 1e-12 or width @ log_f**2 < 1e-12:
        return np.tile(weights, (len(width), 1))
    scatter = max(variance - width @ log_f**2, smallest_scatter * variance)
    exponent = -((log_k - log_f[:, None]) ** 2) / (2 * scatter)
    joint = weights * np.exp(exponent - exponent.max(axis=1, keepdims=True))
    for _ in range(200):
        joint *= weights / (width @ joint)
        total = joint.sum(axis=1, keepdims=True)
        joint /= total
        if np.abs(total - 1).max() < 1e-6:
            break
    return joint * (weights / (width @ joint))  # the cell's distribution is kept to the last digit


class Opacities:
    """Cross-sections of all molecules on the parts of the cells.

    Attributes
    ----------
    distributions : KDistributions
    edges : ndarray (n_parts + 1,)
        Edges of the parts, descending [cm-1].
    cell : ndarray (n_parts,)
    temperatures : ndarray (n_temperatures,)
    couplings : dict
        {molecule: (n_temperatures, n_parts, n_g) float32}.
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
    ):
        """Couple the parts of resolution `resolution` to their cells; `flat` leaves the band model's shape out."""
        self.distributions = distributions
        self.edges, self.cell = part_edges(distributions.edges, resolution)
        self.width = -np.diff(self.edges)  # cm-1
        self.temperatures = temperatures
        self.couplings = couplings or {name: self._couplings(name, pressure, flat) for name in MOLECULES}

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
        draft = STORED_COUPLINGS.with_name(f".couplings.{os.getpid()}.part")
        with open(draft, "wb") as file:
            np.savez(file, version=np.array(version), **opacities.couplings)
        os.replace(draft, STORED_COUPLINGS)
        return opacities

    def _couplings(self, molecule, pressure, flat):
        """Shares of a molecule, (n_temperatures, n_parts, n_g)."""
        weights = self.distributions.weights
        shares = np.tile(weights.astype(np.float32), (len(self.temperatures), len(self.cell), 1))
        transitions = {}
        for t, temperature in enumerate(() if flat else self.temperatures):
            strength = _means(cross_section(molecule, temperature, transitions), self.edges[::-1])[::-1]
            strength = np.maximum(strength, 1e-8 * strength.max())  # where the band model has no band it knows nothing
            k = self.distributions.cross_sections(molecule, temperature, pressure)
            for c in range(len(k)):
                parts = self.cell == c
                width = self.width[parts] / self.width[parts].sum()
                shares[t, parts] = couple(strength[parts], width, k[c], weights)
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


def effective_cross_section(molecule, low, high, temperature, pressure):
    """Effective cross-section of a molecule in spectral bins: that of a grey gas as dark as the bin to a ray.

    The mean of exp(-k u) over the bin is exp(-0.56) at the column u = 0.56 / s; 0.56 is the optical depth along the
    line of sight at the apparent edge of a planet.

    Parameters
    ----------
    molecule : str
        "H2O", "CH4", "CO", "CO2" or "NH3".
    low, high : array-like, shape (n,)
        Edges of the bins [micron], within 0.39 to 9.03.
    temperature : float
        In K, 500 to 2500.
    pressure : float
        In Pa.

    Returns
    -------
    ndarray, shape (n,)
        m2 per molecule.

    Raises
    ------
    ValueError
        If the molecule is unknown or a bin is not covered.
    """
    if molecule not in MOLECULES:
        raise ValueError(f"molecule: expected one of {', '.join(MOLECULES)}, received {molecule!r}")
    opacities = Opacities.load()
    k = opacities.distributions.cross_sections(molecule, temperature, pressure)  # (n_cells, n_g)
    weights = opacities.overlap(np.atleast_1d(low), np.atleast_1d(high))  # (n, n_parts)
    shares = opacities.shares(molecule, temperature)
    found = []
    for row in weights:
        parts = row > 0
        found.append(effective(k[opacities.cell[parts]].ravel(), (row[parts, None] * shares[parts]).ravel()))
    return np.array(found) * 1e-4  # cm2 to m2


# --- tables of the band model on disk ---


def table_grid(resolution=TABLE_RESOLUTION):
    """Wavenumber grid of the tables, ascending, constant resolution [cm-1]."""
    low, high = TABLE_RANGE
    return np.geomspace(low, high, round(np.log(high / low) * resolution) + 1)


def _means(sigma, edges):
    """Mean of `sigma` (on FINE_GRID) between successive `edges`, ascending [cm-1]."""
    integral = np.concatenate([[0.0], np.cumsum((sigma[1:] + sigma[:-1]) / 2 * STEP)])
    return np.diff(np.interp(edges, FINE_GRID, integral)) / np.diff(edges)


def _cell_means(sigma, wavenumber):
    """Mean of `sigma` (on FINE_GRID) over the cells around `wavenumber` (edges half way between neighbours)."""
    middle = (wavenumber[1:] + wavenumber[:-1]) / 2
    edges = np.concatenate([[1.5 * wavenumber[0] - 0.5 * wavenumber[1]], middle,
                            [1.5 * wavenumber[-1] - 0.5 * wavenumber[-2]]])  # fmt: skip
    return _means(sigma, edges)


def code_version():
    """Short hash of the files that decide what the opacities are."""
    digest = hashlib.sha256()
    files = ("opacities.py", "bandmodel.py", "molecules.py", "rotors.py", "kdistribution.py")
    for path in (*(Path(__file__).with_name(name) for name in files), STORED):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def write_tables(folder, molecules=tuple(MOLECULES), temperatures=TABLE_TEMPERATURES, resolution=TABLE_RESOLUTION):
    """Write one TauREx cross-section table per molecule, `<folder>/<molecule>.h5`; tables already there are kept.

    Parameters
    ----------
    folder : path-like
        Made if missing. A table that another version of this code wrote is replaced.
    molecules : sequence of str
        Keys of `simulation.molecules.MOLECULES`.
    temperatures : sequence of float
        Temperature grid [K], ascending.
    resolution : float
        Wavenumber over grid step.

    Returns
    -------
    pathlib.Path
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    wavenumber, version = table_grid(resolution), code_version()
    for name in molecules:
        path = folder / f"{name}.h5"
        if path.exists() and _table_version(path) == version:
            continue
        transitions = {}
        sigma = np.array([_cell_means(cross_section(name, t, transitions), wavenumber) for t in temperatures])
        sigma = np.maximum(sigma, SMALLEST_CROSS_SECTION)  # (n_temperatures, n_wavenumbers)
        draft = folder / f".{name}.{os.getpid()}.part"  # moved into place whole
        with h5py.File(draft, "w") as file:
            file["mol_name"] = np.array([name.encode()])
            file["bin_edges"] = wavenumber  # TauREx's name of the wavenumber grid [cm-1]
            file["t"] = np.asarray(temperatures, float)
            file["p"] = np.array(TABLE_PRESSURES)
            file["p"].attrs["units"] = "Pa"
            file["xsecarr"] = np.broadcast_to(sigma, (len(TABLE_PRESSURES), *sigma.shape))  # (P, T, wavenumber) cm2
            file.attrs["opacities"] = "band-model opacities"
            file.attrs["version"] = version
        os.replace(draft, path)
    return folder


def _table_version(path):
    """Version of the code that wrote a table, or None."""
    try:
        with h5py.File(path, "r") as file:
            return file.attrs.get("version")
    except OSError:
        return None
