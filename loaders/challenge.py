"""The Ariel Data Challenge 2022 and 2023 and the ABC database: one HDF5 group for each planet, tables beside it.

Sources: the challenge's documentation (ariel-datachallenge.space/ML/documentation/data), the ABC database (Changeat and
Yip 2023, RASTI 2, 45; zenodo 6770103) and the organisers' baselines, which define the unit of ``planet_radius``: a
Jupiter radius of 69 911 km.
"""

import hashlib
import logging
import os
import re
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5l, h5s, h5t

from common.files import written_whole
from constants import AMPS, JUPITER_RADIUS
from loaders.dataset import Survey, Target, refuse_rows
from loaders.tables import read_csv
from runio.log import InputError

logger = logging.getLogger(__name__)

FIELDS = ("instrument_wlgrid", "instrument_spectrum", "instrument_noise", "instrument_width")
CACHE_VERSION = 2

LEVEL_2 = {  # columns that are AMPs: key, and factor to the unit of constants.AMPS
    "planet_temp": ("Tp", 1.0),
    "planet_radius": ("Rp", JUPITER_RADIUS),
    "planet_radius_m": ("Rp", 1.0),
    "planet_mass_kg": ("Mp", 1.0),
}
TEMPERATURES = ("t", "temp", "temperature", "planet_temp")  # names in level 1


def _folder(path, *names):
    """Return the folder that holds these files: ``path``, or the one of a download that is in it; None if it is not."""
    folders = (path, path / "TrainingData", path / "Level1Data")
    return next((folder for folder in folders if all((folder / name).is_file() for name in names)), None)


def detect_level_2(path):
    """Look for a folder (or its TrainingData) with SpectralData.hdf5."""
    return _folder(path, "SpectralData.hdf5") is not None


def detect_level_1(path):
    """Look for a folder (or its Level1Data) with observations.hdf5 and all_data.csv."""
    return _folder(path, "observations.hdf5", "all_data.csv") is not None


def load_level_2(path):
    """Read a challenge folder: SpectralData.hdf5, AuxillaryTable.csv, Ground Truth Package/FM_Parameter_Table.csv."""
    folder = _need(path, "SpectralData.hdf5")
    truth = folder / "Ground Truth Package" / "FM_Parameter_Table.csv"
    truth = truth if truth.is_file() else folder / "FM_Parameter_Table.csv"
    if not truth.is_file():
        raise InputError(f"{folder}: no Ground Truth Package/FM_Parameter_Table.csv, and so no targets (test data?)")
    extra = folder / "AuxillaryTable.csv"
    planets = _cached(folder / "SpectralData.hdf5", truth, extra if extra.is_file() else None)
    targets = _level_2_targets(_columns(planets, "truth"))
    return _survey(path, planets, targets, _columns(planets, "auxiliary"))


def load_level_1(path):
    """Read ABC level 1: observations.hdf5 and all_data.csv, whose model inputs end in ``_model``."""
    folder = _need(path, "observations.hdf5")
    table = folder / "all_data.csv"
    planets = _cached(folder / "observations.hdf5", table, None)
    columns = _columns(planets, "truth")
    model = {name: values for name, values in columns.items() if name.endswith("_model")}
    if not model:
        raise InputError(f"{table}: no column of numbers ends in _model; it holds {', '.join(columns)}")
    targets = dict(_level_1_target(name, values, table) for name, values in model.items())
    return _survey(path, planets, targets, {name: v for name, v in columns.items() if name not in model})


def _columns(planets, table):
    """Return the columns (N,) that `_read_folder` took from one of the tables, by name."""
    return {name.removeprefix(table + " "): v for name, v in planets.items() if name.startswith(table + " ")}


def _survey(path, planets, targets, auxiliary):
    known = _level_2_targets({name: values for name, values in auxiliary.items() if name in LEVEL_2})
    return Survey(
        **{name: planets[name] for name in ("spectra", "errors", "wavelength", "bin_width")},
        depth_unit="fraction",
        targets={**known, **targets},
        default_targets=tuple(sorted(targets, key=lambda key: list(AMPS).index(key) if key in AMPS else len(AMPS))),
        auxiliary=auxiliary,
        name=str(path),
        labels=list(planets["labels"]),
    )


def _need(path, name):
    folder = _folder(path, name)
    if folder is None:
        raise InputError(f"{path}: expected a folder that holds {name}")
    return folder


def _level_2_targets(columns):
    """Return targets by AMP key: log_X is log10 of an abundance, ``LEVEL_2`` holds the planet's, others stay."""
    targets = {}
    for name, values in columns.items():
        if name in LEVEL_2:
            key, factor = LEVEL_2[name]
            targets[key] = Target(values * factor, stored="linear")
        elif name.startswith("log_"):
            targets[name[4:]] = Target(values, "", "log10", "log10")
        else:
            targets[name] = Target(values)
    return targets


def _level_1_target(name, values, path):
    plain = name.removesuffix("_model")
    plain = "Tp" if plain.lower() in TEMPERATURES else plain
    key = re.sub(r"^log(10)?_", "", plain)
    if plain == key and key not in AMPS:
        return key, Target(values)
    if key in AMPS and AMPS[key].kind == "planet":
        return key, Target(values, stored="linear")
    finite = values[np.isfinite(values)]
    if plain != key or (finite < 0).all():
        return key, Target(values, "", "log10", "log10")
    if (finite >= 0).all() and (finite <= 1).all():
        return key, Target(values, "", "log10", "linear")
    raise InputError(f"{path}: column {name!r} holds neither mixing ratios (0 to 1) nor their log10 (negative)")


def _ids(names, where):
    """Return the numbers of planets; refuse one that repeats. Planet_train12, train12, Planet_12 and 12.0 are one."""
    ids = [name.strip().removeprefix("Planet_").removeprefix("train").removesuffix(".0") for name in names]
    first = {value: i for i, value in reversed(list(enumerate(ids)))}
    refuse_rows([first[value] != i for i, value in enumerate(ids)], f"{where} repeats IDs", ids)
    return ids


def _match(wanted, stored, wanted_path, stored_path):
    """Return the row of each wanted ID among the stored ones; refuse two sets that are not the same."""
    place = {value: i for i, value in enumerate(stored)}
    refuse_rows([i not in place for i in wanted], f"{wanted_path}: planets that {stored_path} does not hold,", wanted)
    known = set(wanted)
    refuse_rows([i not in known for i in stored], f"{stored_path}: planets that {wanted_path} does not hold,", stored)
    return np.array([place[value] for value in wanted])


def _cached(spectra, truth, extra):
    """Read a folder's files, or the copy of these very files that is kept beside them, or else in the user's cache."""
    states = [(path.resolve(), path.stat()) for path in (spectra, truth, extra) if path is not None]
    key = " ".join([str(CACHE_VERSION), *(f"{path} {state.st_size} {state.st_mtime_ns}" for path, state in states)])
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spectra_sensitivity"
    digest = hashlib.sha256(str(spectra.resolve()).encode()).hexdigest()[:16]
    places = (spectra.with_name(f".{spectra.name}.cache.npz"), user / f"{digest}.npz")
    for cache in filter(Path.is_file, places):
        try:
            with np.load(cache, allow_pickle=False) as file:  # a zip archive: checksums guard the content
                planets = {name: file[name] for name in file}
            if str(planets.pop("key")) == key:
                return planets
        except Exception as error:  # a zip reader fails in many ways; the copy can always be made again
            logger.warning("%s: the cached copy is not readable (%s) and is made again", cache, type(error).__name__)
    planets = _read_folder(spectra, truth, extra)
    for cache in places:
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(cache) as part, open(part, "wb") as file:
                np.savez(file, key=np.array(key), **planets)
            break
        except OSError as error:
            logger.info("%s: a cached copy cannot be written there (%s)", cache, error)
    return planets


def _read_folder(spectra, truth, extra):
    """Return arrays by name, a row for each planet of the truth table; columns as "truth NAME", "auxiliary NAME"."""
    table = read_csv(truth)
    ids = _ids(table.cells("planet_ID"), f"{truth}: column 'planet_ID'")
    columns = {f"truth {name}": values for name, values in _numeric_columns(table).items()}
    if extra is not None:
        extra = read_csv(extra)
        rows = _match(ids, _ids(extra.cells("planet_ID"), f"{extra.path}: column 'planet_ID'"), truth, extra.path)
        columns |= {f"auxiliary {name}": values[rows] for name, values in _numeric_columns(extra).items()}
    names, depth, error, wavelength, bin_width = _read_planets(spectra)
    rows = _match(ids, _ids(names, f"{spectra}: group names"), truth, spectra)
    per_planet = {"labels": np.array(names)[rows], "spectra": depth[rows], "errors": error[rows]}
    return {**per_planet, "wavelength": wavelength, "bin_width": bin_width, **columns}


def _numeric_columns(table):
    """Return the columns of numbers; columns of text are left out, but refused if they should hold a target."""
    names = [name for name in table.columns if name != "planet_ID"]
    must = [name for name in names if name.startswith("log_") or name.endswith("_model") or name in LEVEL_2]
    return {name: table.numbers(name) for name in names if name in must or table.is_numeric(name)}


def _read_planets(path):
    """Return names of groups, spectra, errors, wavelength and bin width, in the order of the file."""
    if not h5py.is_hdf5(path):
        raise InputError(f"{path}: not an HDF5 file, or an incomplete one")
    with h5py.File(path) as file:
        names = list(file)
        if not names:
            raise InputError(f"{path}: no groups, expected one for each planet (Planet_<id> or train<id>)")
        name, field = names[0], FIELDS[0]
        try:  # low-level calls: three times as fast as file[name][()]
            shape = _opened(file.id, name, field, path).shape
            if len(shape) != 1 or shape == (0,):
                raise InputError(f"{path}: {name}/{field} has shape {shape}, expected a list of wavelengths")
            values = {field: np.empty((len(names), *shape)) for field in FIELDS}
            for row, name in enumerate(names):
                for field, rows in values.items():
                    stored = _opened(file.id, name, field, path)
                    if stored.shape != shape:
                        raise InputError(f"{path}: {name}/{field} has shape {stored.shape}, expected {shape}")
                    stored.read(h5s.ALL, h5s.ALL, rows[row], h5t.NATIVE_DOUBLE)
        except InputError:
            raise
        except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{path}: {name} has no readable {field} ({error})") from error
    wavelength, depth, error, width = values.values()
    for field, rows in ((FIELDS[0], wavelength), (FIELDS[3], width)):
        same = (rows == rows[0]) | (np.isnan(rows) & np.isnan(rows[0]))
        refuse_rows(~same.all(axis=1), f"{path}: {field} differs from that of {names[0]}", names)
    return names, depth, error, wavelength[0], width[0]


def _opened(file, name, field, path):
    """Open an array of a planet, whose values must be in this file; a link is refused without following it."""
    for link in (name, f"{name}/{field}"):
        if file.links.get_info(link.encode()).type != h5l.TYPE_HARD:
            raise InputError(f"{path}: {link} is a link, expected its values in this place")
    stored = h5d.open(file, f"{name}/{field}".encode())
    if stored.get_offset() is None:  # the values are not in one place of this file
        properties = stored.get_create_plist()
        if properties.get_external_count() or properties.get_layout() == h5d.VIRTUAL:
            raise InputError(f"{path}: {name}/{field} lies in other files, expected its values in this one")
        if not stored.get_storage_size():
            raise InputError(f"{path}: {name}/{field} was never written")
    return stored
