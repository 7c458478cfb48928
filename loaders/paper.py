"""The paper's layout: a pair of spectra (N, 3, n_bins) as .npy and the AMPs as CSV."""

import re

import numpy as np

from constants import AMPS, PAPER_AMPS
from loaders.survey import LayoutError, Survey, Target, numbers, rows_text
from loaders.tables import read_csv, read_npy

# Names of the paper's columns as people write them, without blanks, underscores and units, in lower case.
COLUMN_NAMES = {
    **{key.lower(): key for key in AMPS},
    **{
        "mass": "Mp",
        "planetmass": "Mp",
        "radius": "Rp",
        "planetradius": "Rp",
        "temp": "Tp",
        "temperature": "Tp",
    },
    **{
        "t": "Tp",
        "clouds": "Pclouds",
        "cloud": "Pclouds",
        "cloudpressure": "Pclouds",
        "cloudspressure": "Pclouds",
    },
}
SI_MINIMUM = {
    "Mp": 1e20,
    "Rp": 1e5,
}  # kg and m: anything less was stored in masses or radii of Jupiter or Earth


def _pair(path):
    """Return the .npy and the CSV of the paper's layout, or None, None."""
    if path.is_file() and path.suffix == ".npy":
        spectra = path
    else:
        files = sorted(path.glob("*spectra.npy")) if path.is_dir() else []
        if len(files) != 1:
            return None, None
        spectra = files[0]
    prefix = spectra.name.removesuffix("spectra.npy") if spectra.name.endswith("spectra.npy") else ""
    tables = sorted(spectra.parent.glob("*.csv"))
    tables = [t for t in tables if prefix and t.name.startswith(prefix)] or tables
    return spectra, tables[0] if len(tables) == 1 else None


def detect_paper(path):
    """Look for a folder with one ``*spectra.npy`` and a CSV, or the .npy itself with one CSV beside it."""
    spectra, table = _pair(path)
    return spectra is not None and table is not None


def load_paper(path):
    """Read the paper's pair: spectra.npy (N, 3, n_bins) and the CSV of the AMPs in linear units."""
    spectra_path, table_path = _pair(path)
    if spectra_path is None or table_path is None:
        raise LayoutError(f"{path}: expected one *spectra.npy and one CSV beside it; name the .npy if there are more")
    values = numbers(read_npy(spectra_path, "spectra.npy"), str(spectra_path), 3)
    if values.shape[1] != 3:
        raise LayoutError(f"{spectra_path}: shape {values.shape}, expected (N, 3, n_bins): spectrum, error, wavelength")
    if values.size == 0:
        raise LayoutError(f"{spectra_path}: shape {values.shape}, expected at least one row and one bin")
    bad = (values[:, 2] != values[0, 2]).any(axis=1) & ~(np.isnan(values[:, 2]).all(axis=1))
    if bad.any():
        raise LayoutError(f"{spectra_path}: wavelengths differ from those of row 0 in {rows_text(bad)}")
    table = read_csv(table_path)
    if len(table) != len(values):
        raise LayoutError(f"{table_path}: {len(table)} rows for the {len(values)} spectra of {spectra_path.name}")
    targets, auxiliary, defaults = {}, {}, []
    for key, name in _paper_columns(table).items():
        column = table.numbers(name)
        if key in AMPS:
            targets[key] = Target(column, AMPS[key].unit, AMPS[key].scale, "linear")
            if key in SI_MINIMUM and np.nanmedian(column) < SI_MINIMUM[key]:
                raise LayoutError(
                    f"{table_path}: column {name!r} has median {np.nanmedian(column):.4g}, "
                    f"expected {key} in {AMPS[key].unit}"
                )
            defaults.append(key)
        else:
            targets[key], auxiliary[key] = Target(column), column
    return Survey(
        spectra=values[:, 0],
        errors=values[:, 1],
        wavelength=values[0, 2],
        depth_unit="fraction",
        targets=targets,
        default_targets=tuple(defaults),
        auxiliary=auxiliary,
        name=str(spectra_path),
    )


def _paper_columns(table):
    """Return AMP key to column name: by name where the names are known, else by place, in the paper's order."""
    names = [name for name in table.columns if name not in ("", "Unnamed: 0")]
    known = [COLUMN_NAMES.get(re.sub(r"[\[(].*|_(kg|m|k|pa)$|[ _]", "", name.lower())) for name in names]
    if any(known):
        keys = [key for key in known if key]
        if len(set(keys)) != len(keys):
            raise LayoutError(f"{table.path}: two columns for one AMP among {', '.join(names)}")
        return {key or name: name for key, name in zip(known, names)}
    if len(names) < len(PAPER_AMPS):
        raise LayoutError(
            f"{table.path}: {len(names)} columns of unknown names ({', '.join(names)}), "
            f"expected {', '.join(PAPER_AMPS)} in this order"
        )
    extra = ["star_radius", *names[len(PAPER_AMPS) + 1 :]]
    return dict(zip([*PAPER_AMPS, *extra], names))
