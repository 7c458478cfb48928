"""Why correlated k: how far is the best statistical narrow-band model from the same tables, in transit depth?

    python -m studies.check_malkmus --tables DIR

Malkmus' model (1967, J. Opt. Soc. Am. 57, 323) gives a cell two numbers, the mean cross-section S and the width of
the lines over their distance B: the optical depth of a column u is 2 B (sqrt(1 + S u / B) - 1). Here both are fitted
to the table's own transmissions at every temperature and pressure, so no formula for either could do better; along a
ray S u adds up and B is its mean weighted by it (Curtis-Godson). Planets and tables are those of
`check_opacities.py`. Printed: the rms and the largest difference from correlated k, in scale heights, over the cells
that stand one scale height above the bottom.
"""

from pathlib import Path

import numpy as np

from simulation.kdistribution import MOLECULES
from studies.check_opacities import (
    HITRAN_AMMONIA,
    HITRAN_AMMONIA_FROM,
    RADIUS,
    RATIOS,
    correlated_k,
    rays,
    scale_height,
)
from studies.check_opacities import within as cut
from studies.command import study_parser
from studies.fit_opacities import SMALLEST, read_table

TEMPERATURES = (700.0, 1000.0, 1400.0, 2000.0)  # K, nodes of the tables
PRESSURES = slice(2, 15, 2)  # every second of the tables', 1e-5 to 10 bar
COLUMNS = np.logspace(14, 32, 37)  # molecules per cm2
LOG_B, LOG_S = np.linspace(-10, 2, 25), np.linspace(-4, 0.5, 28)  # ln B and ln S over the mean, all pairs are tried


def optical_depth(strength, width):
    """Malkmus' optical depth for S u = `strength` and B = `width`."""
    return 2 * width * (np.sqrt(1 + strength / width) - 1)


def fit(k, weights):
    """S [unit of k] and B, (n,) each, that are nearest to the transmissions of k-distributions (n, n_g)."""
    light = np.exp(-k[:, None, :] * COLUMNS[:, None]) @ weights  # (n, n_columns)
    counts = light * (1 - light) + 1e-6  # neither clear nor dark says anything
    mean = k @ weights
    smallest, strength, width = np.full(len(k), np.inf), mean.copy(), np.ones(len(k))
    for b in np.exp(LOG_B):
        for s in np.exp(LOG_S):
            error = (counts * (np.exp(-optical_depth(s * mean[:, None] * COLUMNS, b)) - light) ** 2).sum(axis=1)
            nearer = error < smallest
            smallest[nearer], strength[nearer], width[nearer] = error[nearer], s * mean[nearer], b
    return strength, width


def malkmus(table, fitted, molecule, temperature, ratio):
    """Height (n_cells,) [m] of the apparent edge; `fitted` ln S [cm2] and ln B, (n_cells, n_pressures) each."""
    column, pressure, ring = rays(temperature, ratio, [molecule])
    nodes = np.log(table["pressure"][PRESSURES])
    strength, width = (np.exp([np.interp(np.log(pressure), nodes, row) for row in values]) for values in fitted)
    total = ratio * column @ strength.T * 1e-4  # (n_rays, n_cells)
    weighted = ratio * column @ (strength * width).T * 1e-4 / total
    return np.sqrt(RADIUS**2 + ring @ (1 - np.exp(-optical_depth(total, weighted)))) - RADIUS


def main():
    """Print a row per molecule and temperature; a quarter of a minute."""
    parser = study_parser("check_malkmus", __doc__)
    parser.add_argument("--tables", type=Path, required=True, metavar="DIR", help="folder of the fine tables")
    tables = parser.parse_args().tables
    for name in MOLECULES:
        edges, table = cut(read_table(tables, name))
        believed = edges[:, 0] > 0.99 * HITRAN_AMMONIA_FROM if name == "NH3" else np.full(len(edges), True)
        for temperature in (t for t in TEMPERATURES if name != "NH3" or t <= HITRAN_AMMONIA):
            at = np.argmin(np.abs(table["temperature"] - temperature))
            k = np.maximum(table["k"][:, at, PRESSURES], SMALLEST)
            fitted = [np.log(v).reshape(k.shape[:2]) for v in fit(k.reshape(-1, k.shape[-1]), table["weights"])]
            cells = []
            for ratio in RATIOS:
                reference = correlated_k({name: table}, temperature, ratio)
                found = malkmus(table, fitted, name, temperature, ratio)
                height = scale_height(temperature, ratio, [name])
                shown = believed & (np.maximum(found, reference) > height)
                difference = (found - reference)[shown] / height
                cells.append(f"{np.sqrt((difference**2).mean()):5.2f} {np.abs(difference).max():5.2f}")
            print(f"  {name:4s} {temperature:5.0f} K  " + "  |  ".join(cells))


if __name__ == "__main__":
    main()
