"""What makes a planet's atmosphere opaque: molecules, scattering, collisions, haze and clouds.

Everything here says which part of the light a ray lets through, for all rays (rows) at all wavenumbers (columns).
"""

import importlib.util
import logging
from pathlib import Path

import numpy as np

from simulation import cia
from simulation.atmosphere import upper_product
from simulation.kdistribution import basis, hot_share

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
    return factor * HAZE_CROSS_SECTION * (1e4 / wavenumber / HAZE_WAVELENGTH) ** slope


class Collisions:
    """Collision-induced absorption of H2-H2 and H2-He at the wavenumbers (n,) of a grid [cm-1]."""

    def __init__(self, grid):
        self._knots = {pair: (cia.on_grid(pair, grid) - np.log(PAIR_UNIT)).astype(np.float32) for pair in cia.PAIRS}

    def optical_depth(self, hydrogen, helium, atmosphere):
        """Optical depth (n_rays, n) of all rays, float32; mixing ratios of both gases."""
        shares = {"H2-H2": hydrogen**2, "H2-He": hydrogen * helium}
        low, high = atmosphere.temperature.min(), atmosphere.temperature.max()
        n_nodes = 1 + int(np.ceil((high - low) / TEMPERATURE_STEP))
        nodes = np.linspace(low, high, n_nodes)
        at_nodes = sum(np.float32(share) * cia.at_temperatures(self._knots[p], nodes) for p, share in shares.items())
        pairs = atmosphere.column * (atmosphere.density * PAIR_UNIT)
        if n_nodes == 1:
            return pairs.sum(axis=1, keepdims=True).astype(np.float32) @ at_nodes
        place = (atmosphere.temperature - low) / (nodes[1] - nodes[0])
        weights = np.maximum(1 - np.abs(place[:, None] - np.arange(n_nodes)), 0)  # (n_layers, n_nodes)
        return (pairs @ weights).astype(np.float32) @ at_nodes


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
    overlap). `parts` of the cells (n_parts,) make the wavenumber grid, from the blue to the red; `pressure` (n_layers,)
    is that of the layers [Pa].
    """

    def __init__(self, opacities, parts, pressure):
        self._opacities, self._parts = opacities, parts[::-1]  # by ascending wavenumber
        cells, first, counts = np.unique(opacities.cell[parts], return_index=True, return_counts=True)
        self._slices = [slice(len(parts) - i - n, len(parts) - i) for i, n in zip(first, counts, strict=True)]
        self._pressure = basis(1000.0, pressure)[1]  # (n_layers, 4)
        coefficients = opacities.distributions.coefficients
        self._surfaces = {  # ln k is basis (n_layers, 16) @ surface (16, n_cells * n_g)
            name: (values - UNIT)[cells].reshape(-1, values.shape[-1] ** 2).T.astype(np.float32)
            for name, values in coefficients.items()
        }

    def _basis(self, temperature):
        """Products (n_layers, 16) of the polynomials in 1/T and log P, of the highest ``len(temperature)`` layers."""
        pressure = self._pressure[-len(temperature) :]
        both = basis(temperature, 1.0)[0][:, :, None] * pressure[:, None, :]
        return both.reshape(len(temperature), -1).astype(np.float32)

    def _cross_sections(self, name, temperature, at):
        """Cross-sections [exp(LOG_UNIT) cm2], (n_layers, n_cells * n_g); ``at`` is the `_basis` of the temperature."""
        part, cold = hot_share(self._surfaces, name, temperature)
        if not part.any():
            return np.exp(at @ self._surfaces[name])
        part = part[:, None].astype(np.float32)
        log_k = self._basis(cold) @ self._surfaces[name], at @ self._surfaces[f"{name}_hot"]
        return np.exp((1 - part) * log_k[0] + part * log_k[1])

    def light(self, mix, temperature, reference, column):
        """Part of the light let through by `mix` {molecule: mixing ratio}, (n_rays, n_parts), by ascending wavenumber.

        `temperature` (n_layers,) is that of the layers of `column` (n_rays, n_layers), molecules of air per m2 in
        float32, the highest of those that this was made for; `reference` [K] says which share of a part has which
        cross-section.
        """
        result = np.ones((len(column), len(self._parts)), np.float32)
        n_rays, n_g = len(column), len(self._opacities.distributions.weights)
        most, at = column.sum(axis=1).max(), self._basis(temperature)
        for name, ratio in mix.items():
            k = self._cross_sections(name, temperature, at)
            k *= np.float32(ratio * 1e-4 * np.exp(LOG_UNIT))  # m2 per molecule of air
            absorbs = np.flatnonzero(most * k.max(axis=0).reshape(-1, n_g).max(axis=1) > NOTHING)
            k = k.reshape(len(k), -1, n_g)
            light = upper_product(column, k[:, absorbs].reshape(len(k), -1))
            np.exp(np.negative(light, out=light), out=light)
            light = light.reshape(n_rays, -1, n_g)
            shares = self._opacities.shares(name, reference)[self._parts].T  # (n_g, n_parts)
            part = np.empty_like(result)
            part[:] = shares.sum(axis=0)  # 1 within 1e-5, as `couple` leaves it
            for place, cell in enumerate(absorbs.tolist()):
                parts = self._slices[cell]
                np.matmul(light[:, place], shares[:, parts], out=part[:, parts])
            result *= part
        return result


# --- tables of the user's own, in the layouts that TauREx 3 reads ---


class TableAbsorption:
    """Absorption by the molecules from tables {molecule: TauREx opacity}, at the wavenumbers (n,) of a grid [cm-1]."""

    def __init__(self, tables, grid, pressure):
        self._tables, self._grid, self._pressure = tables, grid, pressure
        self._uniform = all(np.array_equal(table.xsecGrid[0], table.xsecGrid[-1]) for table in tables.values())

    def light(self, mix, temperature, reference, column):
        """Part of the light let through, (n_rays, n); arguments as of `LineAbsorption.light`."""
        pressure = self._pressure[-len(temperature) :]
        if self._uniform and np.ptp(temperature) == 0:  # one cross-section in all layers
            depth = np.outer(column.sum(axis=1), self._cross_section(mix, temperature[0], pressure[0]))
        else:
            rows = [self._cross_section(mix, *layer) for layer in zip(temperature, pressure, strict=True)]
            depth = upper_product(column, np.array(rows))
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
