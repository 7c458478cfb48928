"""Fit how the absorption of a coarse cell is shared out among narrow bins.

    python -m studies.fit_sharing --exomolop DIR [--out data/sharing.npz]

--exomolop: H2O.kta, CH4.kta, CO.kta and CO2.kta, correlated-k tables of ExoMolOP (Chubb et al. 2021, A&A 646, A21; line
lists POKAZATEL, YT34to10, Li2015, UCL-4000) on the bins of the shipped data set, public in the history of
github.com/Jingxuan97/nemesispy (commit ea2e1bc, nemesispy/data/ktables/*_Katy_ARIEL_test.kta). They are no part of the
repository.

A cell of the k-distributions holds up to five of the 33 bins of resolution 50 between 1.95 and 3.76 micron. The band
model's strength is multiplied by a factor for every bin, changed step by step until the bins of a cell have the same
ratios of effective cross-sections (at 10 mbar) as the table. The k-distribution of the whole cell stays as it is. Bins
five decades weaker than the strongest are only lowered: blueward of its band head at 2.29 micron CO has no lines, and
what is left there are the wings of those beyond.

In the 4.3 micron band of CO2 the tables have one bin, and the band model, which knows mean cross-sections, is wrong
about what a ray feels: hot bands lie on the red side, so there lines leave fewer gaps. `band_4_3` counts the lines of
the band from the constants of `molecules.py`, with 13CO2, and its effective cross-sections in narrow bins
take the part of the table.
"""

import itertools
import sys
from pathlib import Path

import numpy as np

from common.files import written_whole
from simulation.alkali import ATMOSPHERE, DOPPLER, voigt
from simulation.atmosphere import WEIGHTS
from simulation.kdistribution import effective
from studies.bandmodel import boltzmann
from studies.check_opacities import read_exomolop, table_at
from studies.command import study_parser
from studies.fit_couplings import (
    COUPLING_PRESSURE,
    COUPLING_TEMPERATURES,
    STORED_SHARING,
    band_strength,
    couple_cells,
    coupled,
)
from studies.molecules import MOLECULES

SHARED = ("H2O", "CH4", "CO", "CO2")
FIRST, LAST = 1.95, 3.77  # micron: bins of resolution 50
BAND, BAND_BINS = (4.03, 4.85), 20  # micron: CO2, bins of resolution 108
STEPS, STEP_SIZE = 10, 0.7
WEAKEST = 5 * np.log(10)  # below the strongest bin: weaker bins are left as they are
LARGEST = 9.0  # of a correction's logarithm
PUSH = 0.5 * np.log(10)  # the most by which a weaker bin is lowered in a step


def band_4_3(temperature, low, high, pressure=COUPLING_PRESSURE):
    """Cross-section of CO2's antisymmetric stretch with its hot bands, in any unit: wavenumber [cm-1] and values (n,).

    Lines of all vibrational levels below 9000 cm-1, P and R branches, of one width (0.08 cm-1 per atm at 296 K), wings
    to 25 cm-1; 13CO2 is 1.1 % of the gas and lies 65.9 cm-1 lower.
    """
    molecule, step, wing = MOLECULES["CO2"], 0.004, 25.0
    frequencies = np.array([frequency for frequency, _ in molecule.modes])
    (x11, x12, x13), (x22, x23), (x33,) = molecule.anharmonicity
    loss, (b_ground,) = np.array(molecule.rotation_vibration)[:, 0], molecule.rotational_constants
    grid = np.arange(low - wing - 70, high + wing + 70, step)
    lines = np.zeros(len(grid))
    for v in itertools.product(range(7), range(14), range(4)):
        v1, v2, v3 = v
        energy = v @ frequencies + x11 * v1**2 + x12 * v1 * v2 + x13 * v1 * v3
        energy += x22 * v2**2 + x23 * v2 * v3 + x33 * v3**2
        if energy > 9000:
            continue
        origin = frequencies[2] + x13 * v1 + x23 * v2 + 2 * x33 * v3
        b_lower = b_ground - v @ loss
        b_upper = b_lower - loss[2]
        for momentum in range(v2 % 2, v2 + 1, 2):
            j = np.arange(momentum, 170)
            spin = 2.0 if momentum else np.where((j + v3) % 2 == 0, 2.0, 0.0)  # every other J of the linear levels
            strength = (v3 + 1) * spin * boltzmann(energy + b_lower * j * (j + 1), temperature)
            for upper, factor in ((j + 1, j + 1), (j - 1, j)):
                position = origin + b_upper * upper * (upper + 1) - b_lower * j * (j + 1)
                for shift, abundance in ((0.0, 0.989), (65.9, 0.011)):
                    index = np.rint((position - shift - grid[0]) / step).astype(int)
                    inside = (upper >= 0) & (index >= 0) & (index < len(grid))
                    np.add.at(lines, index[inside], (abundance * strength * factor)[inside])
    half_width = 0.08 * pressure / ATMOSPHERE * (296 / temperature) ** 0.7
    deviation = origin * DOPPLER * np.sqrt(temperature / WEIGHTS["CO2"]) / 2.35482
    profile = voigt(np.abs(np.arange(-wing, wing + step, step)), deviation, half_width)
    size = len(lines) + len(profile)
    values = np.fft.irfft(np.fft.rfft(lines, size) * np.fft.rfft(profile, size), size)[len(profile) // 2 :][: len(grid)]
    inside = (grid >= low) & (grid <= high)
    return grid[inside], np.maximum(values[inside], 1e-12 * values.max())


def fit(molecule, edges, target, temperature, opacities):
    """Corrections ln f (n_bins,) of bins with `edges` (n_bins, 2) [micron], and the rms of ln k that is left.

    `target` (n_bins,) is ln of the effective cross-section, of which only ratios within a cell count.
    """
    distributions, middle = opacities.distributions, edges.mean(axis=1)
    shows = target > target.max() - WEAKEST
    cell = np.searchsorted(distributions.edges, middle) - 1
    fitted = np.isin(cell, cell[shows])
    nearest = np.abs(middle[:, None] - np.where(fitted, middle, np.inf)).argmin(axis=1)
    k = distributions.cross_sections(molecule, temperature, COUPLING_PRESSURE)
    strength = band_strength(molecule, temperature, opacities.edges)
    correction, best = np.zeros(len(middle)), (np.inf, None)
    for _ in range(STEPS):
        factor = np.exp(np.interp(opacities.wavelength, middle, correction))
        shares = couple_cells(strength * factor, opacities, k)
        error = target - np.log(opacities.effective(k, shares, *edges.T))
        error = np.where(shows, error, np.clip(error, -PUSH, 0.0))
        for c in np.unique(cell):  # what all bins of a cell have in common is the business of the k-distribution
            inside = (cell == c) & shows
            error[inside] -= error[inside].mean() if inside.any() else 0.0
        best = min(best, (np.sqrt((error[shows] ** 2).mean()), correction.copy()), key=lambda pair: pair[0])
        correction = np.clip(correction + STEP_SIZE * error, -LARGEST, LARGEST)[nearest]
    return best[1], best[0]


def targets(name, folder, temperature):
    """Bins (n, 2) [micron] that a correction is fitted to, and ln of their effective cross-sections (n,)."""
    table = read_exomolop(folder, name)
    edges = table["edges"]
    narrow = (edges[:, 0] > 0.999 * FIRST) & (edges[:, 1] < LAST)
    k = table_at({**table, "k": table["k"][narrow]}, temperature, [COUPLING_PRESSURE])[:, 0] * 1e4
    edges, target = edges[narrow], np.log(effective(k, table["weights"]))
    if name != "CO2":
        return edges, target
    borders = np.geomspace(*BAND, BAND_BINS + 1)
    wavenumber, values = band_4_3(temperature, *(1e4 / np.array(BAND[::-1])))
    inside = [values[(wavenumber > 1e4 / high) & (wavenumber < 1e4 / low)] for low, high in itertools.pairwise(borders)]
    more = np.log([effective(one, np.full(len(one), 1 / len(one))) for one in inside])
    edges = np.concatenate([edges, np.column_stack([borders[:-1], borders[1:]])])
    return edges, np.concatenate([target, more - more.max() + target.max()])


def main():
    parser = study_parser("fit_sharing", __doc__)
    parser.add_argument("--exomolop", type=Path, required=True, metavar="DIR", help="folder of the tables")
    parser.add_argument("--out", type=Path, default=STORED_SHARING, help="default: data/sharing.npz")
    arguments = parser.parse_args()
    opacities, found = coupled(molecules=()), {}
    for name in SHARED:
        rows = []
        for temperature in COUPLING_TEMPERATURES:
            edges, target = targets(name, arguments.exomolop, temperature)
            rows.append(fit(name, edges, target, temperature, opacities))
        found[name] = np.array([row for row, _ in rows], np.float32)
        found[f"{name}_wavelength"] = edges.mean(axis=1).astype(np.float32)
        left = " ".join(f"{rms / np.log(10):.2f}" for _, rms in rows)
        print(f"{name:4s} rms left [dex], from {COUPLING_TEMPERATURES[0]:.0f} K up: {left}", flush=True)
    with written_whole(arguments.out) as part, open(part, "wb") as file:
        np.savez_compressed(file, temperature=COUPLING_TEMPERATURES, source=np.array(__doc__), **found)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e3:.1f} kB")


if __name__ == "__main__":
    sys.exit(main())
