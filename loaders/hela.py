"""HELA's layout: a JSON that describes .npy files whose rows hold a noisy spectrum and its parameters."""

import json
import re

import numpy as np

from constants import AMPS
from loaders.paper import COLUMN_NAMES
from loaders.survey import LayoutError, Survey, Target, numbers
from loaders.tables import EMPTY, read_npy, read_text

LONGEST = 1_000_000  # bytes of the description


def _hela_json(path):
    if path.is_dir():
        files = [file for file in sorted(path.glob("*.json")) if _looks_like_hela(file)]
        return files[0] if len(files) == 1 else None
    return path if path.suffix == ".json" and path.is_file() else None


def _looks_like_hela(path):
    try:
        return {"metadata", "training_data"} <= set(json.loads(read_text(path, LONGEST)))
    except (ValueError, TypeError, RecursionError):
        return False


def detect_hela(path):
    """Look for a JSON file with metadata and training_data, or a folder with one."""
    file = _hela_json(path)
    return file is not None and _looks_like_hela(file)


def load_hela(path):
    """Read HELA's layout (Marquez-Neila et al. 2018): rows of [spectrum..., parameters...], already noisy.

    ``wavelength.npy`` and ``error_bars.npy`` lie beside the JSON; the rows of testing_data become the test set.
    """
    source = _hela_json(path)
    if source is None:
        raise LayoutError(f"{path}: expected a JSON file with metadata, training_data and testing_data")
    names, n_bins, ranges, files = _hela_header(source)
    blocks = [_hela_block(source, name, n_bins + len(names)) for name in files]
    values = np.concatenate(blocks)
    spectra = values[:, :n_bins]
    errors = numbers(
        read_npy(source.parent / "error_bars.npy", "the error of each bin"), f"{source}: error_bars.npy", 1
    )
    wavelength = read_npy(source.parent / "wavelength.npy", "the wavelength of each bin, micron")
    if errors.shape != (n_bins,):
        raise LayoutError(f"{source}: error_bars.npy has shape {errors.shape}, expected ({n_bins},)")
    targets = {}
    for i, (name, limits) in enumerate(zip(names, ranges)):
        key, unit = _hela_key(name)
        if key in targets:
            raise LayoutError(f"{source}: two parameters called {key} in metadata names")
        targets[key] = _hela_target(key, unit, values[:, n_bins + i], limits)
    first_test = len(blocks[0])
    return Survey(
        spectra=spectra,
        errors=np.broadcast_to(errors, spectra.shape),
        wavelength=numbers(wavelength, f"{source}: wavelength.npy", 1),
        targets=targets,
        noisy=True,
        test_rows=np.arange(first_test, len(values)) if len(values) > first_test else None,
        name=str(source),
    )


def _hela_header(source):
    try:
        head = json.loads(read_text(source, LONGEST))
        meta = head["metadata"]
        names, n_bins = [str(name) for name in meta["names"]], meta["num_features"]
        ranges = [(float(low), float(high)) for low, high in meta.get("ranges") or [(0, 0)] * len(names)]
        files = [head["training_data"], *([head["testing_data"]] if head.get("testing_data") else [])]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise LayoutError(f"{source}: not a HELA description ({type(error).__name__}: {error})") from error
    if type(n_bins) is not int or n_bins < 1 or not names or len(ranges) != len(names):
        raise LayoutError(
            f"{source}: {len(names)} names, {len(ranges)} ranges and num_features {n_bins!r} do not match"
        )
    if not all(isinstance(name, str) and name for name in files):
        raise LayoutError(f"{source}: training_data and testing_data must be file names")
    return names, n_bins, ranges, files


def _hela_block(source, name, width):
    values = read_npy(source.parent / name, "rows of [spectrum..., parameters...]")
    values = numbers(np.atleast_2d(values), f"{source.parent / name}", 2)
    if values.shape[1] != width:
        raise LayoutError(f"{source.parent / name}: {values.shape[1]} columns, expected num_features + names = {width}")
    return values


def _hela_key(name):
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
