"""The layout of this project: one HDF5 file (data/FORMATS.md)."""

import h5py

from loaders.survey import LayoutError, Survey, Target, numbers


def is_hdf5(path):
    """Whether ``path`` is a file with the HDF5 signature."""
    try:
        return path.is_file() and h5py.is_hdf5(path)
    except (OSError, ValueError):
        return False


def detect_own(path):
    """Take any HDF5 file; its errors then name what is missing."""
    return is_hdf5(path)


def load_own(path):
    """Read this project's own HDF5 layout (data/FORMATS.md)."""
    with h5py.File(path) as file:
        for name in ("spectra", "errors", "wavelength", "amps"):
            if not isinstance(file.get(name), h5py.Dataset):
                raise LayoutError(f"{path}: no dataset /{name}; expected /spectra, /errors, /wavelength and /amps")
        spectra = numbers(file["spectra"], f"{path}: /spectra", 2)
        amps = numbers(file["amps"], f"{path}: /amps", 2)
        keys = _texts(file["amps"].attrs, "names", amps.shape[1], path)
        units = _texts(file["amps"].attrs, "units", len(keys), path, optional=True)
        scales = _texts(file["amps"].attrs, "scale", len(keys), path, optional=True)
        targets = {}
        for i, (key, unit, scale) in enumerate(zip(keys, units, scales)):
            if scale not in (None, "log10", "linear"):
                raise LayoutError(f"{path}: /amps attribute scale of {key} is {scale!r}, expected log10 or linear")
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
            wavelength=numbers(file["wavelength"], f"{path}: /wavelength", 1),
            bin_width=numbers(file["bin_width"], f"{path}: /bin_width", 1) if "bin_width" in file else None,
            depth_unit=_unit_attribute(file["spectra"]),
            targets=targets,
            auxiliary=auxiliary,
            noisy=bool(file.attrs.get("noisy", False)),
            test_rows=file["test_rows"][()] if "test_rows" in file else None,
            molecule_curves={k: numbers(v, f"{path}: /molecule_curves/{k}", 1) for k, v in curves.items()},
            name=str(path),
        )


def _unit_attribute(dataset):
    stated = dataset.attrs.get("unit", "fraction")
    stated = stated.decode() if isinstance(stated, bytes) else str(stated)
    return stated if stated in ("percent", "ppm") else "fraction"


def _texts(attributes, name, size, path, optional=False, where="/amps"):
    if name not in attributes:
        if optional:
            return [None] * size
        raise LayoutError(f"{path}: {where} has no attribute {name!r}, expected {size} texts, one per column")
    values = attributes[name]
    values = [v.decode() if isinstance(v, bytes) else str(v) for v in (values if hasattr(values, "__len__") else [])]
    if len(values) != size or (len(set(values)) != size and name == "names"):
        raise LayoutError(f"{path}: {where} attribute {name!r} is {values}, expected {size} texts, one per column")
    return values
