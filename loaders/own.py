"""The layout of this project: one HDF5 file (data/FORMATS.md)."""

import contextlib
from pathlib import Path

import h5py
import numpy as np

from common.files import opened_hdf5
from loaders.dataset import DEPTH_UNITS, MICRON, Survey, Target, numbers, stated_depth_unit, wavelength_order
from runio.log import InputError

FLAGS = dict.fromkeys(("true", "yes", "1", "1.0"), True) | dict.fromkeys(("false", "no", "0", "0.0"), False)


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
        keys, units, scales = (_texts(file["amps"], name, amps.shape[1], path) for name in ("names", "units", "scale"))
        targets = {}
        for i, (key, unit, scale) in enumerate(zip(keys, units, scales)):
            if scale not in (None, "log10", "linear"):
                raise InputError(f"{path}: /amps attribute scale of {key} is {scale!r}, expected log10 or linear")
            targets[key] = Target(amps[:, i], unit, scale, stored=scale)
        auxiliary = {}
        if "auxiliary" in file:
            values = numbers(file["auxiliary"], f"{path}: /auxiliary", 2)
            names = _texts(file["auxiliary"], "names", values.shape[1], path)
            auxiliary = {name: values[:, i] for i, name in enumerate(names)}
        curves, unit = file.get("molecule_curves", {}), _depth_unit(file, path)
        return Survey(
            spectra=spectra,
            errors=numbers(file["errors"], f"{path}: /errors", 2),
            wavelength=_micron(file, "wavelength", path),
            bin_width=_micron(file, "bin_width", path) if "bin_width" in file else None,
            depth_unit=unit or "fraction",
            states_unit=unit is not None,
            targets=targets,
            auxiliary=auxiliary,
            noisy=_is_noisy(file, path),
            test_rows=file["test_rows"][()] if "test_rows" in file else None,
            molecule_curves={k: numbers(v, f"{path}: /molecule_curves/{k}", 1) for k, v in curves.items()},
            name=str(path),
        )


def read_grid(path):
    """Return the number of spectra in a file of this layout, and its wavelengths (n_bins,), micron, ascending."""
    with _opened(path) as file:
        order, wavelength = _order(file, path)
        return len(file["spectra"]), wavelength[order]


def read_rows(path, start, stop):
    """Return the spectra and errors (stop - start, n_bins) of some rows as fractions, by ascending wavelength."""
    with _opened(path) as file:
        order, factor = _order(file, path)[0], DEPTH_UNITS[_depth_unit(file, path) or "fraction"]
        arrays = (numbers(file[name][start:stop], f"{path}: /{name}", 2) for name in ("spectra", "errors"))
        return tuple(values[:, order] * factor for values in arrays)


def _order(file, path):
    """Return the slice that makes the wavelengths (n_bins,) ascend, and these as stored; refuse unequal shapes."""
    shapes = [getattr(file.get(name), "shape", ()) for name in ("spectra", "errors", "wavelength")]
    if len(shapes[0]) != 2 or 0 in shapes[0] or shapes[1:] != [shapes[0], shapes[0][1:]]:
        raise InputError(f"{path}: /spectra, /errors and /wavelength have shapes {shapes}, expected them to match")
    wavelength = _micron(file, "wavelength", path)
    return wavelength_order(wavelength, len(wavelength), str(path)), wavelength


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


def _values(attribute):
    """Return an attribute as a list of Python values, with bytes as text; an array with two axes gives lists in it."""
    values = np.atleast_1d(np.asarray(attribute)).tolist()
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]


def _unit(item, path):
    """Return the attribute "unit" of an array in lower case ("" if it is absent), and how messages call it."""
    where, stored = f"{path}: {item.name} attribute 'unit'", item.attrs.get("unit", "")
    values = _values(stored)
    if len(values) != 1 or not isinstance(values[0], str):
        raise InputError(f"{where}: expected one text, received {stored}")
    return values[0].strip().lower(), where


def _is_noisy(file, path):
    """Return the attribute "noisy" of the file, true or false or a clear word for it; without the attribute, false."""
    stored = file.attrs.get("noisy", False)
    flag = FLAGS.get(" ".join(str(value).strip().lower() for value in _values(stored)))
    if flag is None:
        raise InputError(f"{path}: attribute 'noisy' is {stored}, expected true or false (1 or 0)")
    return flag


def _depth_unit(file, path):
    """Return the unit that /spectra states, or None; /errors must state the same unit, or none."""
    unit, of_errors = (stated_depth_unit(*_unit(file[name], path)) for name in ("spectra", "errors"))
    if of_errors not in (None, unit or "fraction"):
        raise InputError(f"{path}: /errors are in {of_errors}, /spectra in {unit or 'fraction'}")
    return unit


def _micron(file, name, path):
    """Return wavelengths or widths in micron; without a stated unit they are in micron."""
    unit, where = _unit(file[name], path)
    if unit not in MICRON:
        raise InputError(f"{where} is {unit!r}, expected micron, nm, angstrom or m")
    return numbers(file[name], f"{path}: /{name}", 1) * MICRON[unit]


def _texts(item, name, size, path):
    """Return an attribute of an array, one text for each of ``size`` columns; without it, Nones, except for "names"."""
    if name != "names" and name not in item.attrs:
        return [None] * size
    values = _values(item.attrs.get(name, []))
    texts = len(values) == size and all(isinstance(value, str) for value in values)
    if not texts or (name == "names" and len(set(values)) != size):
        raise InputError(f"{path}: {item.name} attribute {name!r} is {values}, expected {size} texts, one per column")
    return values
