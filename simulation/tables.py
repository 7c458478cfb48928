"""Cross-section tables of the user's own, in the layouts that TauREx 3 reads."""

import importlib.util
import logging
from pathlib import Path

import numpy as np

from simulation.atmosphere import upper_product


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
    """Load the tables of `molecules` from `folder` with TauREx.

    Returns
    -------
    dict
        {molecule: TauREx opacity}. A table is interpolated exponentially in temperature, or linearly if it has zeros.

    Raises
    ------
    ValueError
        If the folder, the table of a molecule or TauREx is missing.
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
