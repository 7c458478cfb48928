"""The layout of this project: one HDF5 file (data/FORMATS.md)."""

import contextlib
import re
from pathlib import Path

import h5py
import numpy as np

from common.files import opened_hdf5
from loaders.dataset import (
    DEPTH_UNITS,
    MICRON,
    Survey,
    Target,
    numbers,
    wavelength_order,
)
from runio.log import InputError

FLAGS = {**dict.fromkeys(("true", "yes", "1", "1.0"), True), **dict.fromkeys(("false", "no", "0", "0.0"), False)}
DEPTH_WORDS = {  # words by which a stated unit is recognised: "transit depth (Rp/Rs)^2, dimensionless" is a fraction
    "percent": (r"%", r"\bper ?cents?\b"),
    "ppm": (r"\bppm\b", r"\bparts per million\b"),
    "fraction": (r"\bfractions?\b", r"\bdimensionless\b", r"^1$", r"^\(?rp/rs\)?(\^|\*\*)2$"),
}


def is_hdf5(path):
    """Whether ``path`` is a file with the HDF5 signature."""
    try:
        return path.is_file() and h5py.is_hdf5(path)
    except (OSError, ValueError):
        return False


def load_own(path):
    """Read this project's own HDF5 layout (data/FORMATS.md)."""
    with _opened(path) as file:
        for name in ("spectra", "errors", "wavelength", "amps"):
            if not isinstance(file.get(name), h5py.Dataset):
                raise InputError(f"{path}: no dataset /{name}; expected /spectra, /errors, /wavelength and /amps")
        spectra = numbers(file["spectra"], f"{path}: /spectra", 2)
        amps = numbers(file["amps"], f"{path}: /amps", 2)
        keys = _texts(file["amps"].attrs, "names", amps.shape[1], path)
        units = _texts(file["amps"].attrs, "units", len(keys), path, optional=True)
        scales = _texts(file["amps"].attrs, "scale", len(keys), path, optional=True)
        targets = {}
        for i, (key, unit, scale) in enumerate(zip(keys, units, scales)):
            if scale not in (None, "log10", "linear"):
                raise InputError(f"{path}: /amps attribute scale of {key} is {scale!r}, expected log10 or linear")
            targets[key] = Target(amps[:, i], unit, scale, stored=scale)
        auxiliary = {}
        if "auxiliary" in file:
            values = numbers(file["auxiliary"], f"{path}: /auxiliary", 2)
            names = _texts(file["auxiliary"].attrs, "names", values.shape[1], path, where="/auxiliary")
            auxiliary = {name: values[:, i] for i, name in enumerate(names)}
        curves = file.get("molecule_curves", {})
        return Survey(
            spectra=spectra,
            errors=numbers(file["errors"], f"{path}: /errors", 2),
            wavelength=_micron(file, "wavelength", path),
            bin_width=_micron(file, "bin_width", path) if "bin_width" in file else None,
            depth_unit=_depth_unit(file, path) or "fraction",
            states_unit=_depth_unit(file, path) is not None,
            targets=targets,
            auxiliary=auxiliary,
            noisy=_flag(file.attrs, "noisy", path),
            test_rows=file["test_rows"][()] if "test_rows" in file else None,
            molecule_curves={k: numbers(v, f"{path}: /molecule_curves/{k}", 1) for k, v in curves.items()},
            name=str(path),
        )


def read_grid(path):
    """Return the number of spectra in a file of this layout, and its wavelengths (n_bins,), micron, ascending."""
    with _opened(path) as file:
        _check_shapes(file, path)
        wavelength = _micron(file, "wavelength", path)
        order = wavelength_order(wavelength, file["spectra"].shape[1], str(path))
        return len(file["spectra"]), wavelength[order]


def read_rows(path, start, stop):
    """Return the spectra and errors (stop - start, n_bins) of the rows from ``start`` to ``stop``; read no others.

    They are fractions, and wavelengths ascend.
    """
    with _opened(path) as file:
        _check_shapes(file, path)
        factor = DEPTH_UNITS[_depth_unit(file, path) or "fraction"]
        order = wavelength_order(_micron(file, "wavelength", path), file["spectra"].shape[1], str(path))
        return tuple(
            numbers(file[name][start:stop], f"{path}: /{name}", 2)[:, order] * factor for name in ("spectra", "errors")
        )


@contextlib.contextmanager
def _opened(path):
    """Open an HDF5 file whose content is all in it."""
    if not is_hdf5(Path(path)):
        raise InputError(f"{path}: expected an HDF5 file of this project's layout (data/FORMATS.md)")
    try:
        with opened_hdf5(path) as file:
            yield file
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _check_shapes(file, path):
    """Refuse a file without spectra, errors and wavelengths of matching shapes."""
    shapes = [getattr(file.get(name), "shape", ()) for name in ("spectra", "errors", "wavelength")]
    if len(shapes[0]) != 2 or 0 in shapes[0] or shapes[1:] != [shapes[0], shapes[0][1:]]:
        raise InputError(f"{path}: /spectra, /errors and /wavelength have shapes {shapes}, expected them to match")


def _text(value, where):
    """Return an attribute that is one text, as a str; refuse any other."""
    value = value[0] if isinstance(value, np.ndarray) and value.shape == (1,) else value
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise InputError(f"{where}: expected one text, received {value}")
    return value.strip()


def _flag(attributes, name, path):
    """Return an attribute that is true or false, or a clear word for it; without the attribute, false."""
    value = attributes.get(name, False)
    value = value.item() if isinstance(value, np.ndarray | np.generic) and value.size == 1 else value
    word = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    word = word.strip().lower()
    if word not in FLAGS:
        raise InputError(f"{path}: attribute {name!r} is {value}, expected true or false (1 or 0)")
    return FLAGS[word]


def _depth_unit(file, path):
    """Return the unit that /spectra states, or None; /errors must state the same unit, or none."""
    units = {}
    for name in ("spectra", "errors"):
        where = f"{path}: /{name} attribute 'unit'"
        stated = _text(file[name].attrs.get("unit", ""), where).lower()
        found = {unit for unit, words in DEPTH_WORDS.items() if any(re.search(word, stated) for word in words)}
        if len(found) > 1 or (stated and not found):
            raise InputError(f"{where} is {stated!r}, expected fraction, percent or ppm")
        units[name] = found.pop() if found else None
    if units["errors"] not in (None, units["spectra"] or "fraction"):
        raise InputError(f"{path}: /errors are in {units['errors']}, /spectra in {units['spectra'] or 'fraction'}")
    return units["spectra"]


def _micron(file, name, path):
    """Return wavelengths or widths in micron; without a stated unit they are in micron."""
    where = f"{path}: /{name} attribute 'unit'"
    unit = _text(file[name].attrs.get("unit", ""), where).lower()
    if unit not in MICRON:
        raise InputError(f"{where} is {unit!r}, expected micron, nm, angstrom or m")
    return numbers(file[name], f"{path}: /{name}", 1) * MICRON[unit]


def _texts(attributes, name, size, path, optional=False, where="/amps"):
    if name not in attributes:
        if optional:
            return [None] * size
        raise InputError(f"{path}: {where} has no attribute {name!r}, expected {size} texts, one per column")
    values = attributes[name]
    if not isinstance(values, np.ndarray):
        values = [values]  # one text: of the only column, never its letters
    good = np.ndim(values) == 1 and all(isinstance(v, str | bytes) for v in values)
    values = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values] if good else str(values)
    if not good or len(values) != size or (len(set(values)) != size and name == "names"):
        raise InputError(f"{path}: {where} attribute {name!r} is {values}, expected {size} texts, one per column")
    return values
