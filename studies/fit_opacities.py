"""Fit the k-distributions that the repository ships to public k-tables made from line lists.

    python -m studies.fit_opacities --tables DIR --coarse DIR [--out data/kdistributions.npz]

--tables: `H2O.h5`, `CH4.h5`, `CO.h5`, `CO2.h5`, `NH3.h5`, `SO2.h5` of github.com/Nicholaswogan/photochem_clima_data
(`photochem_clima_data/data/kdistributions`, GPL-3): k-tables made with HELIOS-K from HITEMP 2010 (H2O, CO2), HITEMP
2019 (CO), HITEMP 2020 (CH4) and HITRAN 2016 (NH3, SO2), 8 ordinates, 50-2000 K, 1e-6 to 1e3 bar.
--coarse: `NH3_g8_11.txt` of github.com/ELeeAstro/Exo-FMS_column_ck (`opac_data/ck`): NH3 with hot lines, 11 bins.

The tables are read here and in `check_opacities.py` and are not part of the repository; of every ordinate, a smooth
surface over temperature and pressure is kept, 16 numbers (`kdistribution.py`). HITRAN's NH3 has no hot lines and
none below 0.85 micron. There the coarse table takes over: for hot gas each cross-section that the fine table has at
1000 K is replaced by the one of equal rank in the wide bin (so the wide bin gets the hot table's distribution, and
HITRAN says which wavelength is strong); below 0.85 micron the band model says which cell is strong.
"""

from pathlib import Path

import h5py
import numpy as np

from simulation.kdistribution import (
    HOT_FROM,
    MOLECULES,
    ORDERS,
    PRESSURE_RANGE,
    STORED,
    TEMPERATURE_RANGE,
    effective,
    pressure_basis,
    temperature_basis,
)
from studies.bandmodel import FINE_GRID, cross_section
from studies.command import study_parser

WAVELENGTHS = (0.39, 9.03)  # micron: the cells that are kept
SMALLEST = 1e-33  # cm2, added to every k: far below what a planet shows, and the logarithm stays finite
UNSEEN = 1e-28  # cm2: with it even a ray at 10 bar and a VMR of 1e-2 has an optical depth of 0.1 only
LEAST_WEIGHT = 0.1  # of such a cross-section: enough to keep it small where the surface is extrapolated
NO_LINES_BELOW = 0.85  # micron: HITRAN's NH3
SOURCE = (
    "Own fit to k-tables of github.com/Nicholaswogan/photochem_clima_data (HELIOS-K; HITEMP 2010: H2O, CO2; "
    "HITEMP 2019: CO; HITEMP 2020: CH4; HITRAN 2016: NH3, SO2) and, for NH3 above 1000 K and below 0.85 micron, "
    "of github.com/ELeeAstro/Exo-FMS_column_ck"
)


def read_table(folder, molecule):
    """Read a fine table.

    Returns
    -------
    dict
        edges (n_cells + 1,) micron, weights (n_g,), temperature (n_T,) K, pressure (n_P,) Pa and k (n_cells, n_T,
        n_P, n_g) cm2 per molecule; the cells within WAVELENGTHS, the temperatures within TEMPERATURE_RANGE.
    """
    with h5py.File(Path(folder) / f"{molecule}.h5") as file:
        edges, weights = file["wavelengths"][()].astype(float), file["weights"][()].astype(float)
        temperature, log_pressure = file["T"][()].astype(float), file["log10P"][()].astype(float)
        first, last = np.searchsorted(edges, WAVELENGTHS)
        warm = (temperature >= TEMPERATURE_RANGE[0]) & (temperature <= TEMPERATURE_RANGE[1])
        k = 10.0 ** file["log10k"][first : last - 1, warm].astype(float)
    return {
        "edges": edges[first:last],
        "weights": weights / weights.sum(),
        "temperature": temperature[warm],
        "pressure": 10.0 ** (log_pressure + 5),
        "k": k,
    }


def read_coarse_table(path):
    """Read a coarse table in HELIOS-K's text layout; as `read_table`, with `ordinates` g (n_g,) beside it."""
    lines = [line for line in Path(path).read_text().splitlines() if line.strip()]
    n_temperatures, n_pressures, n_bins, n_g = (int(word) for word in lines[1].split())
    numbers = [np.array(line.split(), float) for line in lines[2:8]]
    temperature, pressure, edges, _, ordinates, weights = numbers
    k = np.loadtxt(lines[8:]).reshape(n_temperatures, n_pressures, n_bins, n_g)
    return {
        "edges": edges[::-1],
        "weights": weights / weights.sum(),
        "ordinates": ordinates,
        "temperature": temperature,
        "pressure": pressure * 1e5,
        "k": k.transpose(2, 0, 1, 3)[::-1],  # from the red to the blue in the file
    }


def same_rank(k, share, coarse_k, coarse_ordinates):
    """Replace each cross-section by the coarse table's of equal rank.

    Parameters
    ----------
    k, share : ndarray (n,)
        Cross-sections of all cells and ordinates of a wide bin, and the share of the bin that each stands for.
    coarse_k, coarse_ordinates : ndarray (n_g,)
        k(g) of the wide bin.

    Returns
    -------
    ndarray, shape (n,)
    """
    order = np.argsort(k, kind="stable")
    rank = np.empty(len(k))
    rank[order] = np.cumsum(share[order]) - share[order] / 2  # the middle of what it stands for
    return np.exp(np.interp(rank, coarse_ordinates, np.log(coarse_k + SMALLEST)))


def _at_pressure(table, pressure):
    """Cross-sections (n_bins, n_T, len(pressure), n_g) of a table, the logarithm linear in log P."""
    place = np.interp(np.log(pressure), np.log(table["pressure"]), np.arange(len(table["pressure"])))
    below = np.minimum(place.astype(int), len(table["pressure"]) - 2)
    part = (place - below)[:, None]
    log_k = np.log(table["k"] + SMALLEST)
    return np.exp((1 - part) * log_k[:, :, below] + part * log_k[:, :, below + 1])


def band_strength(molecule, edges, temperature):
    """Mean of the band model's cross-section [cm2] between successive `edges` (n + 1,) [micron], (n,)."""
    integral = np.concatenate([[0.0], np.cumsum(cross_section(molecule, temperature))])
    at_edges = np.interp(1e4 / edges, np.append(FINE_GRID, FINE_GRID[-1] + 1), integral)
    return np.maximum(-np.diff(at_edges) / -np.diff(1e4 / edges), SMALLEST)


def ammonia(fine, coarse):
    """NH3 in two tables, cold and hot gas, as `read_table`: `fine` where HITRAN has lines, else `coarse`."""
    weights, pressure = fine["weights"], fine["pressure"]
    last = fine["k"][:, fine["temperature"] == HOT_FROM][:, 0]  # (n_cells, n_P, n_g)
    cold_gas, hot_gas = fine["temperature"] <= HOT_FROM, coarse["temperature"] >= HOT_FROM
    cold = {**fine, "temperature": fine["temperature"][cold_gas], "k": fine["k"][:, cold_gas].copy()}
    hot = {**fine, "temperature": coarse["temperature"][hot_gas]}
    hot["k"] = np.repeat(last[:, None], hot_gas.sum(), axis=1)
    coarse_k = _at_pressure(coarse, pressure)  # (n_bins, n_T, n_P, n_g)
    width, middle = np.diff(np.log(fine["edges"])), np.sqrt(fine["edges"][1:] * fine["edges"][:-1])
    for b, (low, high) in enumerate(zip(coarse["edges"][:-1], coarse["edges"][1:], strict=True)):
        cells = np.flatnonzero((middle > low) & (middle < high))
        if not len(cells):
            continue
        share = (width[cells, None] * weights / width[cells].sum()).ravel()
        for table in (cold, hot):
            for t, value in enumerate(table["temperature"]):
                source = coarse_k[b, np.argmin(np.abs(coarse["temperature"] - value))]  # (n_P, n_g)
                if high <= NO_LINES_BELOW:
                    strength = band_strength("NH3", fine["edges"][cells[0] : cells[-1] + 2], value)
                    ranks = strength[:, None, None] * source  # (n_cells, n_P, n_g)
                elif table is hot:
                    ranks = last[cells]
                else:
                    continue
                for p in range(len(pressure)):
                    mapped = same_rank(ranks[:, p].ravel(), share, source[p], coarse["ordinates"])
                    table["k"][cells, t, p] = mapped.reshape(len(cells), -1)
    return cold, hot


def fit(table, pressure_range=PRESSURE_RANGE):
    """Surfaces of ln k over temperature and pressure by weighted least squares, (n_cells, n_g, 4, 4).

    Temperatures are weighted by the root of their distance, so that the many of cold gas do not outvote the few of hot
    gas. Cross-sections below UNSEEN, which hardly show, count a tenth: they fall so steeply in cold gas that a
    surface which followed them would miss the larger ones of hot gas.
    """
    kept = (table["pressure"] > 0.99 * pressure_range[0]) & (table["pressure"] < 1.01 * pressure_range[1])
    x = temperature_basis(table["temperature"])  # (n_T, 4)
    y = pressure_basis(table["pressure"][kept])  # (n_P, 4)
    k = np.moveaxis(table["k"][:, :, kept], 3, 1) + SMALLEST  # (n_cells, n_g, n_T, n_P)
    weight = np.sqrt(np.gradient(table["temperature"]))[:, None] * (k / (k + UNSEEN) + LEAST_WEIGHT)
    basis = np.einsum("ta,pb->tpab", x, y).reshape(-1, x.shape[1] * y.shape[1])
    n_cells, n_g = k.shape[:2]
    weight, log_k = weight.reshape(n_cells, n_g, -1), np.log(k).reshape(n_cells, n_g, -1)
    q, r = np.linalg.qr(weight[..., None] * basis)
    found = np.linalg.solve(r, np.einsum("cgni,cgn->cgi", q, weight * log_k)[..., None])
    return found.reshape(n_cells, n_g, x.shape[1], y.shape[1])


def main():
    """Fit all molecules and write the file."""
    parser = study_parser("fit_opacities", __doc__)
    parser.add_argument("--tables", type=Path, required=True, metavar="DIR", help="folder of the fine tables")
    parser.add_argument("--coarse", type=Path, required=True, metavar="DIR", help="folder of NH3_g8_11.txt")
    parser.add_argument("--out", type=Path, default=STORED, help="default: data/kdistributions.npz")
    arguments = parser.parse_args()
    tables = {name: read_table(arguments.tables, name) for name in MOLECULES}
    coarse = read_coarse_table(arguments.coarse / "NH3_g8_11.txt")
    tables["NH3"], tables["NH3_hot"] = ammonia(tables["NH3"], coarse)
    fitted = {name: fit(table) for name, table in tables.items()}
    for name, table in tables.items():
        truth = effective(table["k"], table["weights"])  # (n_cells, n_T, n_P)
        left = np.log10(effective(np.exp(surface(fitted[name], table)), table["weights"]) / truth)
        seen = (truth > 1e-4 * truth.max(axis=0)) & (table["pressure"] < 1.01 * PRESSURE_RANGE[1])
        print(
            f"{name:7s} {fitted[name].size} numbers; rms of log10(fit / table) of the effective cross-section "
            f"{np.sqrt((left[seen] ** 2).mean()):.3f}, where within four decades of the strongest cell"
        )
    table = tables["H2O"]
    arrays = {name: values.astype(np.float32) for name, values in fitted.items()}
    np.savez_compressed(
        arguments.out, edges=table["edges"], weights=table["weights"], source=np.array(SOURCE), **arrays
    )
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e3:.0f} kB, orders {ORDERS}")


def surface(coefficients, table):
    """Fitted ln k at the table's temperatures and pressures, as table["k"]."""
    x, y = temperature_basis(table["temperature"]), pressure_basis(table["pressure"])
    return np.einsum("cgab,ta,pb->ctpg", coefficients, x, y, optimize=True)


if __name__ == "__main__":
    main()
