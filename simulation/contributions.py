"""What makes a planet's atmosphere opaque: molecules, scattering, collisions, haze and clouds.

Light and optical depths are those of all rays at all wavenumbers.
"""

import importlib.util
import logging
from pathlib import Path

import numpy as np

from simulation import cia
from simulation.kdistribution import hot_share, pressure_basis, temperature_basis
from simulation.opacities import between

REFRACTION = {  # refractive index n - 1 at wavelengths in micron, and King's correction; CGS at 0 C and 1 atm
    "CO": (lambda micron: 32.7e-5 * (1 + 8.1e-3 / micron**2), 1.016),
    "CH4": (lambda micron: 1e-8 * (46662 + 402 / micron**2), 1.0),
    "NH3": (lambda micron: 37.0e-5 * (1 + 12.0e-3 / micron**2), 1.0),
    "CO2": (
        lambda micron: sum(
            strength / (resonance - micron**-2)
            for strength, resonance in (
                (6.991e-2, 166.175), (1.44720e-3, 79.609), (6.42941e-5, 56.3064), (5.21306e-5, 46.0196),
                (1.46847e-6, 0.0584738),
            )
        ),
        1.1364,
    ),
    "H2O": (
        lambda micron: 0.85 * (0.05792105 / (238.0185 - micron**-2) + 0.00167917 / (57.362 - micron**-2)),
        (6 + 3 * 0.17) / (6 - 7 * 0.17),
    ),
}  # fmt: skip
SCATTERERS = ("H2", "He", *REFRACTION)
LOSCHMIDT = 2.6867805e25  # molecules per m3 at 0 C and 1 atm
HAZE_CROSS_SECTION, HAZE_WAVELENGTH = 5.31e-31, 0.35  # m2 and micron: Rayleigh scattering of H2
PAIR_UNIT = 1e-55  # m5, keeps columns of pairs within single precision
NOTHING = 1e-7  # optical depth of a whole cell that is left out
LOG_UNIT = -55.0  # ln k [cm2] is counted from here, to keep digits in single precision
UNIT = LOG_UNIT * np.eye(1, 16).reshape(4, 4)  # of the coefficients of ln k
THIN = 1e-4  # of the density at the bottom: pairs of thinner gas do not count
TEMPERATURE_STEP = 25.0  # K: CIA along a ray with a temperature gradient is linear in between


def rayleigh(gas, wavenumber):
    """Rayleigh cross-section [m2] of a gas at wavenumbers (n,) [cm-1]; 0 where no refractive index is known.

    H2: Dalgarno & Williams 1962, ApJ 136, 690; He: Chan & Dalgarno 1965, Proc. Phys. Soc. 85, 227; others from the
    refractive indices of Cox 2000, Allen's Astrophysical Quantities, and Sneep & Ubachs 2005, JQSRT 92, 293.
    """
    angstrom, micron = 1e8 / wavenumber, 1e4 / wavenumber
    if gas == "H2":
        return 8.14e-17 * angstrom**-4.0 * (1 + 1.572e6 * angstrom**-2.0 + 1.981e12 * angstrom**-4.0)
    if gas == "He":
        return 5.484e-18 * angstrom**-4.0 * (1 + 2.44e5 * angstrom**-2.0)
    if gas not in REFRACTION:
        return np.zeros(len(wavenumber))
    excess, king = REFRACTION[gas]
    square = (1 + excess(micron)) ** 2
    return 24 * np.pi**3 * king * ((square - 1) / (LOSCHMIDT * (square + 2))) ** 2 / (micron * 1e-6) ** 4


def haze(factor, slope, wavenumber):
    """Cross-section [m2 per molecule of H2] of a haze at wavenumbers (n,) [cm-1].

    ``factor`` times Rayleigh scattering of H2 at 0.35 micron, with the power ``slope`` of the wavelength (-4: like
    Rayleigh scattering); MacDonald & Madhusudhan 2017, MNRAS 469, 1979, equation 12.
    """
    return factor * HAZE_CROSS_SECTION * (1e4 / HAZE_WAVELENGTH / wavenumber) ** slope


class Collisions:
    """Collision-induced absorption of H2-H2 and H2-He at the wavenumbers (n,) of a grid [cm-1]."""

    def __init__(self, grid):
        self._knots = {pair: (cia.on_grid(pair, grid) - np.log(PAIR_UNIT)).astype(np.float32) for pair in cia.PAIRS}

    def terms(self, hydrogen, helium, atmosphere):
        """Weights (n_layers, m) of the gas in the layers, and cross-sections (m, n) of their sums; mixing ratios."""
        shares = {"H2-H2": hydrogen**2, "H2-He": hydrogen * helium}
        deep = atmosphere.temperature[atmosphere.density > THIN * atmosphere.density[0]]
        low, high = deep.min(), deep.max()
        nodes = np.linspace(low, high, 1 + int(np.ceil((high - low) / TEMPERATURE_STEP)))
        at_nodes = sum(np.float32(share) * cia.at_temperatures(self._knots[p], nodes) for p, share in shares.items())
        place = np.interp(atmosphere.temperature, nodes, np.arange(len(nodes)))
        weights = np.maximum(1 - np.abs(place - np.arange(len(nodes))[:, None]), 0)  # (m, n_layers)
        return (weights * (atmosphere.density * PAIR_UNIT)).T, at_nodes


def covered(boundaries, cloud_top):
    """Share of each layer (n_layers,), in log pressure, that lies below the top of a cloud deck [Pa].

    A layer that holds the top lets through the rest of the light, so the spectrum is continuous in the cloud-top
    pressure (a deck of whole layers makes it a staircase).
    """
    log_boundary = np.log(boundaries)  # (n_layers + 1,), bottom first
    return np.clip((log_boundary[:-1] - np.log(cloud_top)) / (log_boundary[:-1] - log_boundary[1:]), 0.0, 1.0)


class LineAbsorption:
    """Absorption by the molecules: correlated k with transmissions that multiply.

    A ray through several layers meets the same wavelengths in the same order of strength (correlated k), so the
    optical depth of each ordinate adds up along it; each layer has the k of its own temperature and pressure. Lines of
    different molecules fall where they may: within a part of a cell the transmissions of the molecules multiply (random
    overlap). `parts` of the cells (n_parts,) make the wavenumber grid, from the blue to the red; `pressure` (n_levels,)
    is that of the levels [Pa].
    """

    def __init__(self, opacities, parts, pressure):
        parts = parts[::-1]  # by ascending wavenumber
        self._temperatures = opacities.temperatures
        self._couplings = {name: np.ascontiguousarray(table[:, parts]) for name, table in opacities.couplings.items()}
        cells, counts = np.unique(opacities.cell[parts], return_counts=True)
        ends = np.cumsum(counts[::-1]).tolist()
        self._slices = [slice(end - n, end) for end, n in zip(ends, counts[::-1].tolist())]  # of the parts of each cell
        self._pressure = pressure_basis(pressure)  # (n_levels, 4)
        self._surfaces = {  # ln k is surface (n_cells * n_g, 16) @ basis (16, n_levels)
            name: (values - UNIT)[cells[::-1]].reshape(-1, values.shape[-1] ** 2).astype(np.float32)
            for name, values in opacities.distributions.coefficients.items()
        }

    def _basis(self, temperature):
        """Products (16, n_levels) of the polynomials in 1/T and log P at the levels."""
        both = temperature_basis(temperature).T[:, None] * self._pressure.T
        return both.reshape(-1, len(temperature)).astype(np.float32)

    def _log_k(self, name, temperature, at):
        """Logarithm of k [exp(LOG_UNIT) cm2], (n_cells * n_g, n_levels); ``at`` is the `_basis` of the temperature."""
        part, cold = hot_share(self._surfaces, name, temperature)
        if not part.any():
            return self._surfaces[name] @ at
        part = part.astype(np.float32)
        return (1 - part) * (self._surfaces[name] @ self._basis(cold)) + part * (self._surfaces[f"{name}_hot"] @ at)

    def light(self, mix, temperature, reference, column):
        """Part of the light let through by `mix` {molecule: mixing ratio}, (n_parts, n_rays), by ascending wavenumber.

        `temperature` (n_levels,), `column` (n_rays, n_levels) molecules of air per m2, float32; `reference` [K] says
        which share of a part has which cross-section.
        """
        n_parts = self._slices[-1].stop
        if not mix:
            return np.ones((n_parts, len(column)), np.float32)
        at, size = self._basis(temperature), (len(self._slices), -1, len(temperature))
        k = np.stack([self._log_k(name, temperature, at).reshape(size) for name in mix], axis=1)
        np.exp(k, out=k)  # (n_cells, n_molecules, n_g, n_levels)
        k *= np.array([ratio * 1e-4 * np.exp(LOG_UNIT) for ratio in mix.values()], np.float32)[:, None, None]
        absorbs = (k.reshape(-1, len(temperature)) @ column[0]).reshape(k.shape[:3]).max(axis=2) > NOTHING
        light = k[absorbs].reshape(-1, len(temperature)) @ -column.T  # m2 per molecule of air times molecules per m2
        light = np.exp(light, out=light).reshape(-1, k.shape[2], len(column))
        shares = np.stack([between(self._temperatures, self._couplings[name], reference) for name in mix])
        # Shares of a part sum to 1 within 1e-5, as `couple` leaves them: where a molecule does not absorb, to that.
        total = (shares @ np.ones(k.shape[2], np.float32)).T  # (n_parts, n_molecules)
        absent = np.repeat(~absorbs, [parts.stop - parts.start for parts in self._slices], axis=0)
        result, first = np.empty((n_parts, len(column)), np.float32), 0
        result[:] = np.where(absent, total, 1).prod(axis=1, keepdims=True)
        for parts, present in zip(self._slices, absorbs):
            last = first + int(present.sum())
            result[parts] *= (shares[present, parts] @ light[first:last]).prod(axis=0)
            first = last
        return result


# --- tables of the user's own, in the layouts that TauREx 3 reads ---


class TableAbsorption:
    """Absorption by the molecules from tables {molecule: TauREx opacity}, at the wavenumbers (n,) of a grid [cm-1]."""

    def __init__(self, tables, grid, pressure):
        self._tables, self._grid, self._pressure = tables, grid, pressure
        self._uniform = all(np.array_equal(table.xsecGrid[0], table.xsecGrid[-1]) for table in tables.values())

    def light(self, mix, temperature, reference, column):
        """Part of the light let through, (n, n_rays); arguments as of `LineAbsorption.light`."""
        if self._uniform and np.ptp(temperature) == 0:  # one cross-section in all layers
            depth = np.outer(self._cross_section(mix, temperature[0], self._pressure[0]), column.sum(axis=1))
        else:
            rows = [self._cross_section(mix, *layer) for layer in zip(temperature, self._pressure, strict=True)]
            depth = np.transpose(rows) @ column.T
        return np.exp(-depth)

    def _cross_section(self, mix, temperature, pressure):
        """Sum over molecules of mixing ratio times cross-section [m2], (n,) float32."""
        total = np.zeros(len(self._grid))
        for name, ratio in mix.items():
            total += ratio * self._tables[name].opacity(temperature, pressure, self._grid)
        return total.astype(np.float32)


def load_tables(folder, molecules):
    """Load {molecule: TauREx opacity} of `molecules` from `folder`; ValueError if one, the folder or TauREx is missing.

    A table is interpolated exponentially in temperature, or linearly if it has zeros.
    """
    if importlib.util.find_spec("taurex") is None:
        raise ValueError("opacities: tables of your own need TauREx 3: pip install taurex")
    import taurex.log

    taurex.log.setLogLevel(logging.CRITICAL)
    from taurex.cache import GlobalCache, OpacityCache

    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"opacities: expected a folder of TauREx tables, received {folder}")
    cache = OpacityCache()
    cache.clear_cache()
    GlobalCache()["xsec_interpolation"] = "exp"
    cache.set_opacity_path(str(folder))
    missing = sorted(set(molecules) - set(cache.find_list_of_molecules()))
    if missing:
        raise ValueError(f"opacities: {folder} has no table for {', '.join(missing)}")
    tables = {name: cache[name] for name in molecules}
    for table in tables.values():
        if not np.min(table.xsecGrid) > 0:  # "exp" interpolates the logarithm in temperature: no zeros allowed
            table.set_interpolation_mode("linear")
    return tables


def native_grid(tables, edges):
    """Wavenumber grid [cm-1] of the finest table, cut to the bins with `edges` (n_bins, 2) [micron]."""
    finest = max((table.wavenumberGrid for table in tables.values()), key=len)
    edges = 1e4 / edges
    margin = 1.01
    grid = finest[(finest > edges.min() / margin) & (finest < edges.max() * margin)]
    for name, table in tables.items():
        covered = table.wavenumberGrid
        if covered.min() > edges.min() or covered.max() < edges.max():
            raise ValueError(
                f"opacities: the table of {name} covers {1e4 / covered.max():.2f}-{1e4 / covered.min():.2f} micron, "
                f"expected at least {1e4 / edges.max():.2f}-{1e4 / edges.min():.2f}"
            )
    return np.sort(grid)
