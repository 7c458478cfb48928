"""Pairs of arrays and descriptions: the paper's spectra.npy with a CSV of the AMPs, and HELA's rows with a JSON."""

import json
import re

import numpy as np

from constants import AMPS, PAPER_AMPS
from loaders.dataset import Survey, Target, numbers, rows_text
from loaders.tables import EMPTY, read_csv, read_npy, read_text
from runio.log import InputError

# Names of AMPs as people write them, in lower case, without blanks, underscores and units.
COLUMN_NAMES = {key.lower(): key for key in AMPS}
COLUMN_NAMES |= dict.fromkeys(("mass", "planetmass"), "Mp") | dict.fromkeys(("radius", "planetradius"), "Rp")
COLUMN_NAMES |= dict.fromkeys(("temp", "temperature", "t"), "Tp")
COLUMN_NAMES |= dict.fromkeys(("clouds", "cloud", "cloudpressure", "cloudspressure"), "Pclouds")
MAX_JSON_BYTES = 1_000_000


def _pair(path):
    """Return the .npy and the CSV of the paper's layout, or None for what is not there."""
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
    return None not in _pair(path)


def load_paper(path):
    """Read the paper's pair: spectra.npy (N, 3, n_bins) and the CSV of the AMPs in linear units."""
    spectra_path, table_path = _pair(path)
    if spectra_path is None or table_path is None:
        raise InputError(f"{path}: expected one *spectra.npy and one CSV beside it; name the .npy if there are more")
    values = numbers(read_npy(spectra_path, "spectra.npy"), str(spectra_path), 3)
    if values.shape[1] != 3 or values.size == 0:
        raise InputError(f"{spectra_path}: shape {values.shape}, expected (N, 3, n_bins): spectrum, error, wavelength")
    bad = (values[:, 2] != values[0, 2]).any(axis=1) & ~(np.isnan(values[:, 2]).all(axis=1))
    if bad.any():
        raise InputError(f"{spectra_path}: wavelengths differ from those of row 0 in {rows_text(bad)}")
    table = read_csv(table_path)
    if len(table) != len(values):
        raise InputError(f"{table_path}: {len(table)} rows for the {len(values)} spectra of {spectra_path.name}")
    targets, auxiliary = {}, {}
    for key, name in _paper_columns(table).items():
        column = table.numbers(name)
        if key not in AMPS:
            targets[key], auxiliary[key] = Target(column), column
            continue
        targets[key] = Target(column, AMPS[key].unit, AMPS[key].scale, "linear")
    return Survey(
        spectra=values[:, 0],
        errors=values[:, 1],
        wavelength=values[0, 2],
        depth_unit="fraction",
        targets=targets,
        default_targets=tuple(key for key in targets if key in AMPS),
        auxiliary=auxiliary,
        name=str(spectra_path),
    )


def _paper_columns(table):
    """Return AMP key to column name: by name if a name is known, else by place, in the paper's order."""
    names = [name for name in table.columns if name not in ("", "Unnamed: 0")]
    known = [COLUMN_NAMES.get(re.sub(r"[\[(].*|_(kg|m|k|pa)$|[ _]", "", name.lower())) for name in names]
    if any(known):
        keys = [key for key in known if key]
        if len(set(keys)) != len(keys):
            raise InputError(f"{table.path}: two columns for one AMP among {', '.join(names)}")
        return {key or name: name for key, name in zip(known, names)}
    if len(names) < len(PAPER_AMPS):
        raise InputError(
            f"{table.path}: {len(names)} columns of unknown names ({', '.join(names)}), "
            f"expected {', '.join(PAPER_AMPS)} in this order"
        )
    return dict(zip([*PAPER_AMPS, "star_radius", *names[len(PAPER_AMPS) + 1 :]], names))


def _hela_json(path):
    """Return HELA's description: the JSON file itself, or the only one in a folder; None if there is none."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path] if path.suffix == ".json" else []
    files = [file for file in files if _is_hela(file)]
    return files[0] if len(files) == 1 else None


def _is_hela(path):
    try:
        return {"metadata", "training_data"} <= set(json.loads(read_text(path, MAX_JSON_BYTES)))
    except (ValueError, TypeError, RecursionError):
        return False


def detect_hela(path):
    """Look for a JSON file with metadata and training_data, or a folder with one."""
    return _hela_json(path) is not None


def load_hela(path):
    """Read HELA's layout (Marquez-Neila et al. 2018): rows of [spectrum..., parameters...], already noisy.

    ``wavelength.npy`` and ``error_bars.npy`` are beside the JSON; the rows of testing_data become the test set.
    """
    source = _hela_json(path)
    if source is None:
        raise InputError(f"{path}: expected a JSON file with metadata, training_data and testing_data")
    names, n_bins, ranges, files = _hela_header(source)
    blocks = [_hela_block(source.parent / name, n_bins + len(names)) for name in files]
    values = np.concatenate(blocks)
    spectra = values[:, :n_bins]
    per_bin = {
        name: numbers(read_npy(source.parent / f"{name}.npy", what), f"{source}: {name}.npy", 1)
        for name, what in {"error_bars": "the error of each bin", "wavelength": "wavelengths in micron"}.items()
    }
    if per_bin["error_bars"].shape != (n_bins,):
        raise InputError(f"{source}: error_bars.npy has shape {per_bin['error_bars'].shape}, expected ({n_bins},)")
    targets = {}
    for i, (name, limits) in enumerate(zip(names, ranges)):
        key, unit = _hela_key(name)
        if key in targets:
            raise InputError(f"{source}: two parameters called {key} in metadata names")
        targets[key] = _hela_target(key, unit, values[:, n_bins + i], limits)
    return Survey(
        spectra=spectra,
        errors=np.broadcast_to(per_bin["error_bars"], spectra.shape),
        wavelength=per_bin["wavelength"],
        targets=targets,
        noisy=True,
        test_rows=np.arange(len(blocks[0]), len(values)) if len(blocks) > 1 else None,
        name=str(source),
    )


def _hela_header(source):
    """Return the names of the parameters, the number of bins, the ranges of the parameters, and the data files."""
    try:
        head = json.loads(read_text(source, MAX_JSON_BYTES))
        meta = head["metadata"]
        names, n_bins = [str(name) for name in meta["names"]], meta["num_features"]
        ranges = [(float(low), float(high)) for low, high in meta.get("ranges") or [(0, 0)] * len(names)]
        files = [head["training_data"], *([head["testing_data"]] if head.get("testing_data") else [])]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise InputError(f"{source}: not a HELA description ({type(error).__name__}: {error})") from error
    if type(n_bins) is not int or n_bins < 1 or not names or len(ranges) != len(names):
        raise InputError(f"{source}: {len(names)} names, {len(ranges)} ranges and num_features {n_bins!r} do not match")
    if not all(isinstance(name, str) and name for name in files):
        raise InputError(f"{source}: training_data and testing_data must be file names")
    return names, n_bins, ranges, files


def _hela_block(path, width):
    values = numbers(np.atleast_2d(read_npy(path, "rows of [spectrum..., parameters...]")), str(path), 2)
    if values.shape[1] != width:
        raise InputError(f"{path}: {values.shape[1]} columns, expected num_features + names = {width}")
    return values


def _hela_key(name):
    """Return the AMP key and the unit (or None) of a parameter's name, which may hold LaTeX."""
    plain = re.sub(r"[$_{}\\ ]", "", name)
    match = re.fullmatch(r"(.+?)\((.*)\)", plain)
    key, unit = (match[1], match[2]) if match else (plain, None)
    key = COLUMN_NAMES.get(key.lower(), key)
    return key, None if unit is None or unit.lower() in EMPTY else unit


def _hela_target(key, unit, values, limits):
    """HELA stores abundances as log10 (ranges such as -13 to 0); a range above zero means linear values."""
    if key in AMPS and AMPS[key].scale == "log10":
        stored = "linear" if limits[0] >= 0 and limits[1] > 0 else "log10"
        return Target(values, unit, "log10", stored)
    return Target(values, unit)
