"""Say how the absorption of a coarse cell is shared out among its parts, by a band model.

    python -m studies.fit_couplings [--out data/couplings.npz]

Run it after `fit_opacities.py` or `fit_sharing.py`; it takes some seconds. A cell of the k-distributions is cut into
parts, and the band model (`bandmodel.py`) says how the strength f_i runs over the parts i. With lines spread around it
at random, log k in part i is log f_i plus a scatter, so the table

    coupling[i, g] ~ width_i w_g exp(-(ln k_g - ln f_i - shift)^2 / (2 s^2)),    s^2 = var(ln k) - var(ln f),

scaled until its rows sum to the widths and its columns to the weights (Sinkhorn's iteration), says which share of
part i has the cross-section k_g. Whatever the band model says, the whole cell keeps exactly the k-distribution of
the line lists. For a joint normal distribution this coupling is exact; s is kept from vanishing where the band model
varies more than the table. In the bins where ExoMolOP's tables say how narrow bins share a cell, the band model is
corrected first (`fit_sharing.py`).
"""

import sys
from functools import cache
from pathlib import Path

import numpy as np

from common.files import written_whole
from simulation.kdistribution import MOLECULES, STORED, KDistributions
from simulation.opacities import PART_RESOLUTION, STORED_COUPLINGS, Opacities
from studies.bandmodel import FINE_GRID, STEP, cross_section
from studies.command import study_parser

COUPLING_TEMPERATURES = np.arange(500.0, 2501.0, 250.0)  # K: linear in between
COUPLING_PRESSURE = 1e3  # Pa: 10 mbar, where transmission spectra are formed
SMALLEST_SCATTER = 0.25  # of the variance of ln k: the least that is left to the lines
STORED_SHARING = STORED.with_name("sharing.npz")


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
    strength = means(cross_section(molecule, temperature), edges[::-1])[::-1]
    return np.maximum(strength, 1e-8 * strength.max())  # where the band model has no band it gives no shape


def couple_cells(strength, opacities, k):
    """Shares (n_parts, n_g) of the parts of all cells; `strength` (n_parts,), `k` (n_cells, n_g)."""
    shares = np.empty((len(strength), k.shape[1]))
    for c in range(len(k)):
        parts = opacities.cell == c
        width = opacities.width[parts] / opacities.width[parts].sum()
        shares[parts] = couple(strength[parts], width, k[c], opacities.distributions.weights)
    return shares


def means(sigma, edges):
    """Mean of `sigma` (on FINE_GRID) between successive `edges`, ascending [cm-1]."""
    integral = np.concatenate([[0.0], np.cumsum((sigma[1:] + sigma[:-1]) / 2 * STEP)])
    return np.diff(np.interp(edges, FINE_GRID, integral)) / np.diff(edges)


@cache
def load_sharing():
    """Read the corrections of `studies/fit_sharing.py`."""
    with np.load(STORED_SHARING) as file:
        return {name: file[name] for name in file.files}


def coupled(
    molecules=MOLECULES,
    *,
    resolution=PART_RESOLUTION,
    temperatures=COUPLING_TEMPERATURES,
    pressure=COUPLING_PRESSURE,
    flat=False,
    sharing=None,
):
    """Return `Opacities` whose parts of resolution `resolution` are coupled to the shipped k-distributions.

    `flat` leaves the band model's shape out; `sharing` has its corrections, those of `fit_sharing.py` by default.
    """
    distributions = KDistributions.load()
    opacities = Opacities(distributions, {}, temperatures, resolution)
    sharing = load_sharing() if sharing is None else sharing
    for molecule in molecules:
        shape = len(temperatures), len(opacities.cell), 1
        shares = opacities.couplings[molecule] = np.tile(distributions.weights.astype(np.float32), shape)
        for t, temperature in enumerate(() if flat else temperatures):
            strength = band_strength(molecule, temperature, opacities.edges)
            if molecule in sharing:
                rows = [np.interp(temperature, sharing["temperature"], column) for column in sharing[molecule].T]
                strength = strength * np.exp(np.interp(opacities.wavelength, sharing[f"{molecule}_wavelength"], rows))
            shares[t] = couple_cells(strength, opacities, distributions.cross_sections(molecule, temperature, pressure))
    return opacities


def main():
    parser = study_parser("fit_couplings", __doc__)
    parser.add_argument("--out", type=Path, default=STORED_COUPLINGS, help="default: data/couplings.npz")
    arguments = parser.parse_args()
    opacities = coupled()
    with written_whole(arguments.out) as part, open(part, "wb") as file:
        np.savez_compressed(file, temperature=opacities.temperatures, **opacities.couplings)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
