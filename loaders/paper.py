"""Pairs of arrays and descriptions: the paper's spectra.npy with a CSV of the AMPs, and HELA's rows with a JSON."""

import json
import re

import numpy as np

from constants import AMPS, PAPER_AMPS
from loaders.dataset import Survey, Target, refuse_rows
from loaders.tables import EMPTY, name_and_unit, read_csv, read_npy, read_text
from runio.log import InputError

# Names of AMPs as people write them, in lower case, without blanks, underscores and units.
COLUMN_NAMES = {key.lower(): key for key in AMPS}
COLUMN_NAMES |= dict.fromkeys(("mass", "planetmass"), "Mp") | dict.fromkeys(("radius", "planetradius"), "Rp")
COLUMN_NAMES |= dict.fromkeys(("temp", "temperature", "t"), "Tp")
COLUMN_NAMES |= dict.fromkeys(("clouds", "cloud", "cloudpressure", "cloudspressure"), "Pclouds")
MAX_JSON_BYTES = 1_000_000


def _pair(path):
    """Return the .npy and the CSV of the paper's layout, None for what is not there or not unique."""
    files = [path] if path.is_file() and path.suffix == ".npy" else sorted(path.glob("*spectra.npy"))
    if len(files) != 1:
        return None, None
    prefix, found, _ = files[0].name.rpartition("spectra.npy")
    tables = sorted(files[0].parent.glob("*.csv"))
    tables = [table for table in tables if found and table.name.startswith(prefix)] or tables
    return files[0], tables[0] if len(tables) == 1 else None


def detect_paper(path):
    """Look for a folder with one ``*spectra.npy`` and a CSV, or the .npy itself with one CSV beside it."""
    return None not in _pair(path)


def load_paper(path):
    """Read the paper's pair: spectra.npy (N, 3, n_bins) and the CSV of the AMPs in linear units."""
    spectra_path, table_path = _pair(path)
    if spectra_path is None or table_path is None:
        raise InputError(f"{path}: expected one *spectra.npy and one CSV beside it; name the .npy if there are more")
    values = read_npy(spectra_path, "spectra.npy", 3)
    if values.shape[1] != 3 or values.size == 0:
        raise InputError(f"{spectra_path}: shape {values.shape}, expected (N, 3, n_bins): spectrum, error, wavelength")
    bad = (values[:, 2] != values[0, 2]).any(axis=1) & ~(np.isnan(values[:, 2]).all(axis=1))
    refuse_rows(bad, f"{spectra_path}: wavelengths differ from those of row 0")
    table = read_csv(table_path)
    if len(table) != len(values):
        raise InputError(f"{table_path}: {len(table)} rows for the {len(values)} spectra of {spectra_path.name}")
    columns = {key: table.numbers(name) for key, name in _paper_columns(table).items()}
    return Survey(
        spectra=values[:, 0],
        errors=values[:, 1],
        wavelength=values[0, 2],
        depth_unit="fraction",
        targets={key: Target(column, stored="linear") for key, column in columns.items()},
        default_targets=tuple(key for key in columns if key in AMPS),
        auxiliary={key: column for key, column in columns.items() if key not in AMPS},
        name=str(spectra_path),
    )


def _paper_columns(table):
    """Return AMP key to column name: by name if a name is known, else by place, in the paper's order."""
    names = list(table.columns)
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
    blocks = [read_npy(source.parent / name, "rows of [spectrum..., parameters...]", 2) for name in files]
    for name, rows in zip(files, blocks):
        if rows.shape[1] != n_bins + len(names):
            expected = f"num_features + names = {n_bins + len(names)}"
            raise InputError(f"{source}: {name} has {rows.shape[1]} columns, expected {expected}")
    error = read_npy(source.parent / "error_bars.npy", "the error of each bin", 1)
    if error.shape != (n_bins,):
        raise InputError(f"{source}: error_bars.npy has shape {error.shape}, expected ({n_bins},)")
    values = np.concatenate(blocks)
    targets = {}
    for i, (name, limits) in enumerate(zip(names, ranges)):
        key, target = _hela_target(name, values[:, n_bins + i], limits)
        if key in targets:
            raise InputError(f"{source}: two parameters called {key} in metadata names")
        targets[key] = target
    return Survey(
        spectra=values[:, :n_bins],
        errors=np.broadcast_to(error, (len(values), n_bins)),
        wavelength=read_npy(source.parent / "wavelength.npy", "wavelengths in micron", 1),
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
    counts = type(n_bins) is int and n_bins > 0 and len(ranges) == len(names) > 0
    if not counts or not all(isinstance(name, str) and name for name in files):
        found = f"{len(names)} names, {len(ranges)} ranges, num_features {n_bins!r} and files {files}"
        raise InputError(f"{source}: expected as many names as ranges, a count and names of files; received {found}")
    return names, n_bins, ranges, files


def _hela_target(name, values, limits):
    """Return the AMP key and the `Target` (N,) of a parameter, whose name may hold LaTeX and a unit in brackets.

    HELA stores abundances as log10 (ranges such as -13 to 0); a range above zero means linear values.
    """
    key, unit = name_and_unit(re.sub(r"[$_{}\\ ]", "", name))
    key, unit = COLUMN_NAMES.get(key.lower(), key), None if unit.lower() in EMPTY else unit
    if key not in AMPS or AMPS[key].scale != "log10":
        return key, Target(values, unit)
    return key, Target(values, unit, "log10", "linear" if limits[0] >= 0 and limits[1] > 0 else "log10")
