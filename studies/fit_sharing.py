"""Fit how the absorption of a coarse cell is shared out among narrow bins, to ExoMolOP's tables on the Ariel bins.

    python -m studies.fit_sharing --exomolop DIR [--out data/sharing.npz]

--exomolop: H2O.kta, CH4.kta and CO2.kta, correlated-k tables of ExoMolOP (Chubb et al. 2021, A&A 646, A21; line
lists POKAZATEL, YT34to10, UCL-4000) on the bins of the shipped data set, public in the history of
github.com/Jingxuan97/nemesispy (commit ea2e1bc, nemesispy/data/ktables/*_Katy_ARIEL_test.kta). They are no part of the
repository.

A cell of the k-distributions holds up to five of the 33 bins of resolution 50 between 1.95 and 3.76 micron. The band
model's strength is multiplied by a factor for every bin, changed step by step until the bins of a cell have the same
ratios of effective cross-sections (at 10 mbar) as the table. The k-distribution of the whole cell stays as it is. CO is
left to the band model: its lines are few, and a correction makes it worse below the band head at 2.29 micron.
"""

import sys
from pathlib import Path

import numpy as np

from common.files import written_whole
from simulation.ariel import ariel_grid
from simulation.kdistribution import KDistributions, effective
from simulation.opacities import (
    COUPLING_PRESSURE,
    COUPLING_TEMPERATURES,
    STORED_SHARING,
    Opacities,
    band_strength,
    couple_cells,
)
from studies.check_opacities import read_exomolop, table_at
from studies.command import study_parser

MOLECULES = ("H2O", "CH4", "CO2")
FIRST, LAST = 1.95, 3.77  # micron: bins of resolution 50
STEPS, STEP_SIZE = 10, 0.7
WEAKEST = 5 * np.log(10)  # below the strongest bin: weaker bins are left as they are
LARGEST = 9.0  # of a correction's logarithm


def fit(molecule, table, temperature, opacities):
    """Corrections ln f (n_bins,) of the bins of a table at a temperature [K], and the rms of ln k that is left."""
    distributions, edges = opacities.distributions, table["edges"]
    weights, middle = opacities.overlap(*edges.T), edges.mean(axis=1)
    target = np.log(effective(table_at(table, temperature, [COUPLING_PRESSURE])[:, 0] * 1e4, table["weights"]))
    shows = target > target.max() - WEAKEST
    cell = np.searchsorted(distributions.edges, middle) - 1
    k = distributions.cross_sections(molecule, temperature, COUPLING_PRESSURE)
    strength = band_strength(molecule, temperature, opacities.edges)
    correction, best = np.zeros(len(middle)), (np.inf, None)
    for _ in range(STEPS):
        factor = np.exp(np.interp(opacities.wavelength, middle, correction))
        shares = couple_cells(strength * factor, opacities, k)
        found = [
            effective(k[opacities.cell[row > 0]].ravel(), (row[row > 0, None] * shares[row > 0]).ravel())
            for row in weights
        ]
        error = np.where(shows, target - np.log(found), 0.0)
        best = min(best, (np.sqrt((error[shows] ** 2).mean()), correction.copy()), key=lambda pair: pair[0])
        correction = correction + STEP_SIZE * error
        for c in np.unique(cell):  # what all bins of a cell have in common is the business of the k-distribution
            inside = cell == c
            correction[inside] -= correction[inside & shows].mean() if (inside & shows).any() else 0.0
        correction = np.clip(correction, -LARGEST, LARGEST)
    return best[1], best[0]


def main():
    parser = study_parser("fit_sharing", __doc__)
    parser.add_argument("--exomolop", type=Path, required=True, metavar="DIR", help="folder of the tables")
    parser.add_argument("--out", type=Path, default=STORED_SHARING, help="default: data/sharing.npz")
    arguments = parser.parse_args()
    edges = ariel_grid()[2]
    narrow = (edges[:, 0] > 0.999 * FIRST) & (edges[:, 1] < LAST)
    opacities, found = Opacities(KDistributions.load(), flat=True), {}
    for name in MOLECULES:
        table = read_exomolop(arguments.exomolop, name)
        table = {**table, "edges": edges[narrow], "k": table["k"][narrow]}
        rows = [fit(name, table, temperature, opacities) for temperature in COUPLING_TEMPERATURES]
        found[name] = np.array([row for row, _ in rows], np.float32)
        left = " ".join(f"{rms / np.log(10):.2f}" for _, rms in rows)
        print(
            f"{name:4s} dex left at {COUPLING_TEMPERATURES[0]:.0f}-{COUPLING_TEMPERATURES[-1]:.0f} K: {left}",
            flush=True,
        )
    with written_whole(arguments.out) as part, open(part, "wb") as file:
        np.savez_compressed(
            file,
            temperature=COUPLING_TEMPERATURES,
            wavelength=edges[narrow].mean(axis=1),
            source=np.array(__doc__),
            **found,
        )
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e3:.1f} kB")


if __name__ == "__main__":
    sys.exit(main())
