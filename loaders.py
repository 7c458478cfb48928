"""Read the data sets people have into one in-memory form, `preprocessing.Dataset`.

Each layout is one function ``load(path) -> Survey`` and one row of ``FORMATS``; what all layouts share (units,
order of the wavelengths, choice of the targets, retrieval space, checks) is done once, in ``survey.finish``.
The layouts are described in data/FORMATS.md, and how to add one in CONTRIBUTING.md.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py

from loaders_arrays import detect_hela, detect_paper, load_hela, load_paper
from loaders_challenge import detect_level_1, detect_level_2, load_level_1, load_level_2
from preprocessing import check_dataset
from survey import LayoutError, Survey, Target, finish, numbers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Format:
    """One layout: what to call it, how to know it, and how to read it.

    Attributes
    ----------
    name : str
        Value of ``data.format`` in config.yaml.
    description : str
        What a user's folder must hold, for messages.
    detect : callable
        ``detect(path) -> bool``, quick, from names and signatures alone.
    load : callable
        ``load(path) -> Survey``.
    """

    name: str
    description: str
    detect: Callable
    load: Callable


def load_dataset(path, format="auto", targets=None, auxiliary=(), depth_unit="auto", width="auto"):
    """Read a data set of any known layout.

    Parameters
    ----------
    path : path-like
        A file or a folder, as its layout has it.
    format : str
        "auto", or the name of one of ``FORMATS``.
    targets : sequence of str or None
        Keys of the AMPs to learn, in the order wanted; None takes those of the data set.
    auxiliary : sequence of str
        Names of further inputs, e.g. ``["star_radius"]``.
    depth_unit : {"auto", "fraction", "percent", "ppm"}
        Unit of the depths and errors; "auto" believes the layout, and guesses only where it states none.
    width : {"auto", "full", "half"}
        What a stored bin width is; "auto" believes the layout.

    Returns
    -------
    preprocessing.Dataset
        Checked; depths as fractions, wavelengths ascending in micron, targets in retrieval space.

    Raises
    ------
    ValueError
        With one line that names the file, what was expected, what was found and how many rows are affected.
    """
    path = Path(path)
    layout = _pick_format(path, format)
    try:
        survey = layout.load(path)
        data = finish(survey, targets, auxiliary, depth_unit, width)
        check_dataset(data)
    except ValueError as error:
        raise ValueError(_one_line(path, error)) from error
    except Exception as error:  # whatever a broken file provokes in h5py, csv or json, the user gets one line
        raise ValueError(
            f"{path}: not readable as {layout.name} ({layout.description}): {_one_line(path, error)}"
        ) from error
    logger.info(
        "%s: %d spectra of %d bins, targets %s (%s)",
        path,
        *data.spectra.shape,
        ", ".join(data.amp_names),
        layout.name,
    )
    return data


def _one_line(path, error):
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, LayoutError) or str(path) in text else f"{path}: {text}"


def _pick_format(path, format):
    names = ", ".join(f.name for f in FORMATS)
    if format != "auto" and format not in [f.name for f in FORMATS]:
        raise ValueError(f"data.format must be auto or one of {names}; received {format!r}")
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder")
    if format != "auto":
        return next(f for f in FORMATS if f.name == format)
    for layout in FORMATS:
        if layout.detect(path):
            return layout
    known = "; ".join(f"{f.name}: {f.description}" for f in FORMATS)
    raise ValueError(f"{path}: matches no known layout. Known are {known}. See data/FORMATS.md")


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


FORMATS = (
    Format(
        "challenge",
        "a folder with SpectralData.hdf5, AuxillaryTable.csv and Ground Truth Package/ "
        "(Ariel Data Challenge 2022 or 2023, ABC level 2)",
        detect_level_2,
        load_level_2,
    ),
    Format("abc1", "a folder with observations.hdf5 and all_data.csv (ABC level 1)", detect_level_1, load_level_1),
    Format("paper", "spectra.npy (N, 3, n_bins) and a CSV of the AMPs in one folder", detect_paper, load_paper),
    Format("hela", "a JSON with metadata, training_data and testing_data (HELA)", detect_hela, load_hela),
    Format("hdf5", "an HDF5 file with /spectra, /errors, /wavelength and /amps", detect_own, load_own),
)
