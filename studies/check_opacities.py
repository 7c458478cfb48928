"""Compare the shipped opacities with the line-list tables that they were fitted to, where it counts: in transit depth.

    python -m studies.check_opacities [--tables DIR [--coarse DIR]] [--exomolop DIR]

The tables are those of `fit_opacities.py`. For planets of 1 Jupiter mass and 1.2 Jupiter radii with one molecule, or
all, at one volume mixing ratio, and no other absorber, `correlated_k` computes the depth straight from a table on
the table's own cells: an independent path in NumPy, with its own geometry and layers. Against it stands the shipped
forward model. Printed per planet: the rms and the largest difference in scale heights over the cells in which the
atmosphere stands more than one scale height above the bottom, and the largest in ppm. Then log10 of the effective
cross-sections, shipped over table, at 1, 10 and 100 mbar.

Lines of different molecules overlap at random within a whole cell in `correlated_k`, and within each part of a cell in
the shipped model. With all molecules, a model whose parts have the distribution of their cell therefore stands beside
the shipped one: its difference is that of the fit alone.

HITRAN's NH3 is no truth above 1000 K nor below 0.85 micron; with --coarse, NH3 is compared with the coarse table in
its wide bins.

--exomolop: tables of other line lists on the very bins of the shipped data set (`fit_sharing.py` says where they are
from). The opacities take from them how the bins of a cell differ, but not how strong the cell is. Beside the shipped
opacities stands the band model alone, without this correction. With both --tables and --exomolop the two references
are compared with each other on the cells that they have in common.
"""

from pathlib import Path

import numpy as np

from constants import JUPITER_MASS, JUPITER_RADIUS, SUN_RADIUS
from simulation import alkali
from simulation.ariel import ariel_grid
from simulation.atmosphere import gas_mixture
from simulation.forward_model import ForwardModel
from simulation.kdistribution import MOLECULES, effective
from simulation.opacities import Opacities, effective_cross_section
from studies.check_channels import read_k_table
from studies.command import study_parser
from studies.fit_couplings import coupled
from studies.fit_opacities import read_coarse_table, read_table

TEMPERATURES = (700.0, 1000.0, 1400.0, 2000.0)  # K
RATIOS = (1e-6, 1e-4, 1e-3)  # volume mixing ratios
PRESSURES = (1e2, 1e3, 1e4)  # Pa, of the effective cross-sections
RANGE = (0.5, 8.0)  # micron
EXOMOLOP = ("H2O", "CH4", "CO", "CO2")
HITRAN_AMMONIA, HITRAN_AMMONIA_FROM = 1000.0, 0.85  # K and micron: NH3 of the fine table up to, and from
SAME_BORDER = 0.01  # in ln: borders of cells so near to each other are taken for one
TOLERANCE = 0.15  # scale heights, of the model from the tables of the fit
MASS, RADIUS = JUPITER_MASS, 1.2 * JUPITER_RADIUS  # kg, m
BOLTZMANN, GRAVITY = 1.380649e-23, 6.6743e-11


def scale_height(temperature, ratio, molecules):
    """Pressure scale height [m] at the bottom."""
    weight = gas_mixture(dict.fromkeys(molecules, ratio))[2]
    return BOLTZMANN * temperature * RADIUS**2 / (weight * GRAVITY * MASS)


def table_at(table, temperature, pressure):
    """Cross-sections (n_cells, n_levels, n_g) [m2] of a table, the logarithm linear in T and log P."""
    log_k, steps = np.log(table["k"] + 1e-60), []
    wanted = ((1, table["temperature"], [temperature]), (2, np.log(table["pressure"]), np.log(pressure)))
    for axis, grid, value in wanted:
        place = np.interp(value, grid, np.arange(len(grid)))
        below = np.minimum(place.astype(int), len(grid) - 2)
        steps.append((below, place - below, axis))
    for below, part, axis in steps:
        part = np.expand_dims(part, tuple(range(1, log_k.ndim - axis)))
        log_k = (1 - part) * log_k.take(below, axis) + part * log_k.take(below + 1, axis)
    return np.exp(log_k[:, 0]) * 1e-4


def rays(temperature, ratio, molecules, n_levels=200, pressure_range=(1e-4, 1e6)):
    """Rays through an isothermal, hydrostatic atmosphere with falling gravity: r(P) = R / (1 - H ln(P0 / P) / R).

    Returns
    -------
    column : ndarray (n_rays, n_levels)
        Molecules of air per area along each ray in each level [m-2].
    pressure : ndarray (n_levels,)
        Of the levels [Pa].
    ring : ndarray (n_rays,)
        Area over pi of the ring that each ray stands for [m2].
    """
    height = scale_height(temperature, ratio, molecules)
    log_pressure = np.linspace(*np.log(pressure_range[::-1]), 2 * n_levels + 1)  # borders and middles
    radius = RADIUS / (1 - height * (log_pressure[0] - log_pressure) / RADIUS)
    border, middle, pressure = radius[::2], radius[1::2], np.exp(log_pressure[1::2])
    half_chord = np.sqrt(np.maximum(border**2 - middle[:, None] ** 2, 0))
    column = 2 * np.diff(half_chord, axis=1) * pressure / (BOLTZMANN * temperature)
    return column, pressure, 2 * middle * np.diff(border)


def correlated_k(tables, temperature, ratio, share=None):
    """Height (n_cells,) [m] of the apparent edge above the bottom, straight from `tables` {molecule: table}.

    `share` (n, n_cells), rows of sum 1, takes the mean light of several cells first.
    """
    column, pressure, ring = rays(temperature, ratio, tables)
    light = 1.0
    for table in tables.values():  # lines of different molecules overlap at random: transmissions multiply
        optical_depth = np.einsum("rl,clg->crg", ratio * column, table_at(table, temperature, pressure), optimize=True)
        light = light * (np.exp(-optical_depth) @ table["weights"])
    light = light if share is None else share @ light
    return np.sqrt(RADIUS**2 + (1 - light) @ ring) - RADIUS


def forward_model(edges, opacities=None):
    """Return the forward model on bins (n, 2) [micron], with nothing but molecules."""
    return ForwardModel(opacities, names=(*MOLECULES, "Mp", "Rp", "Tp"), edges=edges, continuum=False)


def whole_cells():
    """Return the shipped opacities with the k-distribution of the cell in each of its parts."""
    shipped = Opacities.load()
    weights = shipped.distributions.weights.astype(np.float32)
    shares = {name: np.broadcast_to(weights, table.shape) for name, table in shipped.couplings.items()}
    return Opacities(shipped.distributions, shares, shipped.temperatures)


def planet(temperature, ratio, molecules):
    """AMPs of a cloudless planet, as `forward_model` takes them."""
    mix = [np.log10(ratio) if name in molecules else -np.inf for name in MOLECULES]
    return np.array([*mix, np.log10(MASS), RADIUS, temperature])


def difference(model, reference, temperature, ratio, molecules, hidden=1.0):
    """Difference (n_cells,) in scale heights and in ppm of a model from the `reference` height (n_cells,) [m].

    NaN in cells where neither stands `hidden` scale heights above the bottom.
    """
    depth = model.depth(planet(temperature, ratio, molecules))
    found, height = np.sqrt(depth) * SUN_RADIUS - RADIUS, scale_height(temperature, ratio, molecules)
    hidden = np.maximum(found, reference) < hidden * height
    ppm = (depth - ((RADIUS + reference) / SUN_RADIUS) ** 2) * 1e6
    return np.where(hidden, np.nan, (found - reference) / height), np.where(hidden, np.nan, ppm)


def within(table):
    """Cells of a table inside RANGE: their edges (n, 2) [micron] and the table cut to them."""
    low, high = table["edges"][:-1], table["edges"][1:]
    kept = (low >= RANGE[0]) & (high <= RANGE[1])
    return np.stack([low, high], axis=1)[kept], {**table, "k": table["k"][kept]}


def print_depths(label, tables, models, edges, temperatures=TEMPERATURES, start=0.0, hidden=1.0):
    """Print a row per temperature and mixing ratio; return the shipped model's largest rms.

    Cells that begin below `start` [micron] are left out.
    """
    worst, unknown = 0.0, edges[:, 0] < 0.99 * start
    for temperature in temperatures:
        for ratio in RATIOS:
            reference, cells = correlated_k(tables, temperature, ratio), []
            for name, model in models.items():
                heights, ppm = difference(model, reference, temperature, ratio, tables, hidden)
                heights[unknown] = ppm[unknown] = np.nan
                if np.isnan(heights).all():
                    cells.append(f"{'nothing shows':>36s}")
                    continue
                rms, at = np.sqrt(np.nanmean(heights**2)), np.nanargmax(np.abs(heights))
                where = np.sqrt(edges[at].prod())
                cells.append(f"{rms:6.2f} {heights[at]:+6.2f} at {where:4.2f} um {np.nanmax(np.abs(ppm)):6.0f} ppm")
                worst = max(worst, rms) if name == "shipped" else worst
            print(f"  {label:8s} {temperature:5.0f} K {ratio:6.0e}  " + "  |".join(cells))
    return worst


def print_effective(name, edges, table, temperatures):
    """Print rms and largest of log10(shipped / table) over the cells within four decades of the strongest."""
    for temperature in temperatures:
        cells = []
        for pressure in PRESSURES:
            reference = effective(table_at(table, temperature, [pressure])[:, 0], table["weights"])
            shows = reference > 1e-4 * reference.max()
            found = effective_cross_section(name, *edges.T, temperature, pressure)
            ratio = np.log10(found / reference)[shows]
            cells.append(f"{np.sqrt((ratio**2).mean()):5.3f} {ratio[np.argmax(np.abs(ratio))]:+5.2f}")
        print(f"  {name:4s} {temperature:5.0f} K  " + "  |  ".join(cells))


def read_exomolop(folder, molecule):
    """Read a table of ExoMolOP on the Ariel bins, as `read_table`; its edges are (52, 2)."""
    wavelength, pressure, temperature, k, weights = read_k_table(Path(folder) / f"{molecule}.kta")
    edges = ariel_grid()[2]
    if wavelength.shape != (len(edges),) or not np.allclose(wavelength, edges.mean(axis=1), rtol=0.01):
        raise ValueError(f"{molecule}.kta: expected the {len(edges)} Ariel bins, received {wavelength}")
    values = {"temperature": temperature, "pressure": pressure, "weights": weights, "k": np.swapaxes(k, 1, 2)}
    return {"edges": edges} | {key: value.astype(float) for key, value in values.items()}


def mean_over(borders, edges):
    """Share of cells with `edges` (n_cells, 2) in each interval of `borders` (n + 1,), rows of sum 1; all in micron."""
    low, high = edges.T
    inside = np.minimum(1 / low, 1 / borders[:-1, None]) - np.maximum(1 / high, 1 / borders[1:, None])
    inside = np.clip(inside, 0, None)
    return inside / inside.sum(axis=1, keepdims=True)


def print_references(tables, folder):
    """Print how far ExoMolOP's tables are from those of the fit, on the cells that both have."""
    bins = ariel_grid()[2]
    print(f"ExoMolOP's tables against those of the fit, on common cells, VMR {RATIOS[1]:.0e}, in scale heights:")
    print(f"rms difference; the least rms on the bins of a model within {TOLERANCE} of the fit's tables in every cell")
    for name in EXOMOLOP:
        theirs, ours = read_exomolop(folder, name), read_table(tables, name)
        edges = ours["edges"]
        borders = edges[np.abs(np.log(edges[:, None, None] / bins)).min(axis=(1, 2)) < SAME_BORDER]
        n_bins = np.histogram(bins.mean(axis=1), borders)[0]
        cells = mean_over(borders, np.column_stack([edges[:-1], edges[1:]]))
        for temperature in TEMPERATURES:
            one = correlated_k({name: theirs}, temperature, RATIOS[1], mean_over(borders, bins))
            other = correlated_k({name: ours}, temperature, RATIOS[1], cells)
            height = scale_height(temperature, RATIOS[1], [name])
            shows = np.maximum(one, other) > 1.5 * height
            apart, weights = np.abs(one - other)[shows] / height, n_bins[shows]
            rms = np.sqrt(np.average(apart**2, weights=weights))
            least = np.sqrt(np.average(np.maximum(apart - TOLERANCE, 0.0) ** 2, weights=weights))
            number = f"{len(apart)} cells, {weights.sum()} bins"
            print(f"  {name:4s} {temperature:5.0f} K  {rms:5.2f} {least:5.2f}  of {number}")


def print_tables(arguments):
    """Print the comparison with the tables that the opacities were fitted to."""
    cut = {name: within(read_table(arguments.tables, name)) for name in MOLECULES}
    edges, tables = cut["H2O"][0], {name: table for name, (_, table) in cut.items()}
    models = {"shipped": forward_model(edges)}
    print(f"depth against correlated k from the tables, {len(edges)} cells:")
    print("rms and largest difference in scale heights, and the largest in ppm")
    for name, table in tables.items():
        cold = [t for t in TEMPERATURES if name != "NH3" or t <= HITRAN_AMMONIA]
        start = HITRAN_AMMONIA_FROM if name == "NH3" else 0.0
        worst = print_depths(name, {name: table}, models, edges, cold, start)
        print(f"  {name:8s} largest rms of the shipped opacities: {worst:.2f}")
    cold = [t for t in TEMPERATURES if t <= HITRAN_AMMONIA]
    models["whole cells"] = forward_model(edges, whole_cells())
    print("several molecules: the shipped opacities, and those whose parts have the distribution of their cell")
    print_depths("all", tables, models, edges, cold, HITRAN_AMMONIA_FROM)
    others = {name: table for name, table in tables.items() if name != "NH3"}
    print_depths("no NH3", others, models, edges, [t for t in TEMPERATURES if t > HITRAN_AMMONIA])
    print(f"log10 of effective cross-sections, shipped / table, at {PRESSURES} Pa: rms, largest")
    for name, table in tables.items():
        print_effective(name, edges, table, [t for t in TEMPERATURES if name != "NH3" or t <= HITRAN_AMMONIA])
    if arguments.coarse:
        print("NH3 against the coarse table in its wide bins")
        table = read_coarse_table(arguments.coarse / "NH3_g8_11.txt")
        wide, table = within(table)
        hot = [1400.0, 1900.0]
        print_depths("NH3", {"NH3": table}, {"shipped": forward_model(wide)}, wide, [700.0, *hot])
        print_effective("NH3", wide, table, [700.0, 1000.0, *hot])


def print_exomolop(folder):
    """Print the comparison with ExoMolOP's tables on the Ariel bins, and that of the band model alone."""
    edges = ariel_grid()[2]
    models = {"shipped": forward_model(edges), "band model": forward_model(edges, coupled(sharing={}))}
    print("depth against correlated k from ExoMolOP's tables on the 52 Ariel bins, where 1.5 scale heights show:")
    print("rms and largest difference in scale heights, of the shipped opacities and of the band model alone")
    for name in EXOMOLOP:
        print_depths(name, {name: read_exomolop(folder, name)}, models, edges, hidden=1.5)
    table = read_exomolop(folder, "Na")
    print(f"log10 of the effective cross-section of Na, ours / ExoMolOP, at {PRESSURES} Pa")
    for b in (0, 1):
        wavenumber = np.linspace(*(1e4 / edges[b])[::-1], 100_001)
        for temperature in TEMPERATURES:
            theirs = [table_at(table, temperature, [pressure])[b, 0] * 1e4 for pressure in PRESSURES]
            ours = [alkali.cross_section("Na", wavenumber, temperature, pressure) for pressure in PRESSURES]
            ratio = [
                np.log10(effective(k, np.full(len(k), 1 / len(k))) / effective(t, table["weights"]))
                for k, t in zip(ours, theirs)
            ]
            print(
                f"  {edges[b, 0]:.1f}-{edges[b, 1]:.1f} micron {temperature:5.0f} K  "
                + "  ".join(f"{r:+.2f}" for r in ratio)
            )


def main():
    """Print everything; about a minute."""
    parser = study_parser("check_opacities", __doc__)
    parser.add_argument("--tables", type=Path, metavar="DIR", help="folder of the fine tables of the fit")
    parser.add_argument("--coarse", type=Path, metavar="DIR", help="folder of NH3_g8_11.txt")
    parser.add_argument("--exomolop", type=Path, metavar="DIR", help="folder of ExoMolOP's tables on the Ariel bins")
    arguments = parser.parse_args()
    if not (arguments.tables or arguments.exomolop):
        parser.error("expected --tables DIR, --exomolop DIR or both")
    if arguments.tables:
        print_tables(arguments)
    if arguments.tables and arguments.exomolop:
        print_references(arguments.tables, arguments.exomolop)
    if arguments.exomolop:
        print_exomolop(arguments.exomolop)


if __name__ == "__main__":
    main()
