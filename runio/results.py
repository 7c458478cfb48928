"""The files of a run: results.h5 and the score tables, written whole or not at all, and read back.

`NetworkResult` is what one network gave: `write_run` takes one for each fold and for their mean, and `load_run` gives
them back. The table ``ARRAYS`` says what results.h5 holds; it is checked on writing and on reading.
"""

import csv
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from common.files import csv_text, hdf5_written_whole, opened_hdf5, read_bounded, written_whole
from common.metrics import scores
from constants import AMP, VERSION, amp
from perturbation.result import ResponseMap, SensitivityMap
from preprocessing import Scaler
from runio.config import read_yaml
from runio.folder import RESULTS, refuse_changed
from runio.log import InputError, one_line

logger = logging.getLogger(__name__)

ENSEMBLE = "ensemble"  # the mean of the folds: its name among them, in results.h5 and of its network
MAX_HISTORY = 50_000_000  # bytes of a history table
REFERENCE = "reference"  # the group of test spectra to compare observations with; early versions have none
MAX_REFERENCES = 6000  # test spectra that are kept to compare observations with
MAPS = {"sensitivity": SensitivityMap, "sensitivity_single": SensitivityMap, "response": ResponseMap}


@dataclass
class NetworkResult:
    """What one network, or the mean of the folds, gave on the test set.

    Only the mean of the folds, or the only fold, has ``response`` and ``thirds``: the exact map (n_amps, 3, n_bins) of
    the spectra with the lowest, middle and highest values of each AMP, and the values (n_amps, 4) that divide them.
    """

    y_pred: np.ndarray  # (n_test, n_amps) in retrieval space
    scaler: Scaler
    sensitivity: SensitivityMap | None = None  # the published map
    sensitivity_single: SensitivityMap | None = None  # the exact map
    response: ResponseMap | None = None
    thirds: tuple | None = None
    noisy: dict = field(default_factory=dict)  # by map: whether its spectra held noise; early versions do not say
    history: dict = field(default_factory=dict)  # columns of history_<fold>.csv, (n_epochs,) each


@dataclass
class Run:
    """A finished run, as read from its folder; shapes as in ``results.h5``.

    ``data`` says where the spectra came from: ``data_name``, ``n_spectra`` (all rows) and ``noisy`` (they hold noise
    themselves); ``test_rows`` (n_test,) which were tested. ``reference`` is what an observation is compared with; None
    for a run of an early version. ``verified``: the manifest was checked, and networks are to be checked too.
    """

    folder: Path
    config: dict
    wavelength: np.ndarray
    bin_width: np.ndarray | None
    amp_table: tuple[AMP, ...]
    model: str
    seed: int
    test_rows: np.ndarray
    y_test: np.ndarray
    test_spectrum: np.ndarray
    molecule_curves: dict
    folds: dict[int, NetworkResult]
    data: dict
    ensemble: NetworkResult | None = None
    reference: dict | None = None
    verified: bool = True

    @property
    def networks(self):
        """All networks by name: the folds, then their mean if there is one."""
        return {**self.folds, **({ENSEMBLE: self.ensemble} if self.ensemble else {})}

    @property
    def best(self):
        """The network whose predictions are those of the run: the mean of the folds, or the only fold."""
        return self.ensemble or self.folds[min(self.folds)]

    @property
    def amp_names(self):
        """Keys of the AMPs, in column order."""
        return tuple(a.key for a in self.amp_table)

    @property
    def scores(self):
        """MSE and R2 (n_amps,) of each network, by its name."""
        return {name: scores(self.y_test, one.y_pred, one.scaler.y_std) for name, one in self.networks.items()}


def network_file(folder, name):
    """Return the path of the network of a fold, or of the mean of all ("ensemble"), in the folder of a run."""
    return Path(folder) / (f"{ENSEMBLE}.keras" if name == ENSEMBLE else f"model_{name}.keras")


def write_run(folder, data, model, seed, test_rows, networks):
    """Write ``results.h5``, ``MSE.csv`` and ``R2.csv`` of a run into its folder.

    ``data`` is a `preprocessing.Dataset` of which ``test_rows`` (n_test,) were tested, ``model`` the name of the
    network, ``networks`` {fold or "ensemble": NetworkResult}.
    """
    folder, y_test = Path(folder), data.amps[test_rows]
    found = {name: scores(y_test, one.y_pred, one.scaler.y_std) for name, one in networks.items()}
    for score in ("MSE", "R2"):
        _write_scores(folder / f"{score}.csv", data.amp_names, {name: one[score] for name, one in found.items()})
    with hdf5_written_whole(folder / RESULTS) as file:
        table = data.amp_table
        texts = ([getattr(one, name) for one in table] for name in ("key", "retrieval_unit", "unit", "scale"))
        for name, column in zip(TEXTS, texts):
            file.attrs[name] = np.array(column, dtype=h5py.string_dtype())
        file.attrs.update(model=model, seed=seed, software_version=VERSION, data_name=data.name, n_spectra=len(data))
        file.attrs["noisy"] = data.noisy  # whether the spectra of the data set hold noise themselves
        file["wavelength"] = data.wavelength
        file["wavelength"].attrs["unit"] = "micron"
        if data.bin_width is not None:
            file["bin_width"] = data.bin_width
        file["test_spectrum"] = np.median(data.spectra[test_rows], axis=0)  # for figures
        file["test_rows"] = test_rows
        for key, curve in data.molecule_curves.items():
            file[f"molecule_curves/{key}"] = curve
        _write_reference(file, data, test_rows)
        for name, one in networks.items():
            group = file.create_group(name if name == ENSEMBLE else f"fold_{name}")
            group["y_test"], group["y_pred"] = y_test, one.y_pred
            for key, value in one.scaler.to_dict().items():
                group[f"scaler/{key}"] = value
            for key in MAPS:
                if getattr(one, key) is not None:
                    getattr(one, key).save(group.create_group(key))
                    group[key].attrs["noisy"] = one.noisy[key]
            if one.thirds is not None:
                group["thirds/maps"], group["thirds/limits"] = one.thirds
        check_results(file)


def _write_reference(file, data, test_rows):
    """Keep at most ``MAX_REFERENCES`` test spectra, evenly spread over the test set, to compare observations with.

    These are their ``rows`` in the test set, their ``spectra`` (n_reference, n_bins) and ``auxiliary`` inputs, and
    ``error_level`` (n_reference,), the median of their errors over ``error`` (n_bins,), the median of all spectra.
    """
    kept = np.unique(np.linspace(0, len(test_rows) - 1, MAX_REFERENCES).round().astype(int))
    chosen, group = np.asarray(test_rows)[kept], file.create_group(REFERENCE)
    group["rows"] = kept
    group["spectra"] = np.asarray(data.spectra[chosen], np.float32)
    group["error"] = np.median(data.errors, axis=0)
    group["error_level"] = np.median(data.errors[chosen] / group["error"][()], axis=1)
    if data.auxiliary is not None:
        group["auxiliary"] = data.auxiliary[chosen]


def _write_scores(path, names, found):
    """Write a score table: a row (n_amps,) for each fold, their mean, and the row of the ensemble."""
    rows = {k: row for k, row in found.items() if k != ENSEMBLE}
    rows["mean"] = np.mean(list(rows.values()), axis=0)
    if ENSEMBLE in found:
        rows["mean of folds"] = found[ENSEMBLE]
    with written_whole(path) as part, open(part, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["fold", *map(csv_text, names)])
        table.writerows([name, *(f"{value:.6g}" for value in row)] for name, row in rows.items())


def read_history(path):
    """Read ``history_<fold>.csv`` into a dict of arrays, one per column; a ValueError if it is no table of numbers."""
    head, *rows = list(csv.reader(read_bounded(path, MAX_HISTORY).decode("utf-8").splitlines())) or [[]]
    if not rows:
        return {}
    if any(len(row) != len(head) for row in rows) or len(set(head)) != len(head):
        raise ValueError(f"{Path(path).name}: expected rows of {len(head)} cells, as in its header")
    return {key: np.array([float(cell) for cell in column]) for key, column in zip(head, zip(*rows))}


def load_run(folder, unverified=False):
    """Return the finished `Run` in a folder; a ValueError if it holds no readable results, or they were changed.

    ``unverified``: also read results that are not known to be as the run wrote them, because manifest.json is missing
    or holds another SHA-256 of results.h5 or config.yaml.
    """
    folder, path = Path(folder), Path(folder) / RESULTS
    if not path.is_file():
        inner = f", for instance {folder / 'run'}" if (folder / "run" / RESULTS).is_file() else ""
        raise ValueError(f"{folder}: no results.h5 here, expected the folder of a finished run{inner}")
    config = read_yaml(folder / "config.yaml")
    if not unverified:
        refuse_changed(folder, RESULTS, "config.yaml")
    try:
        with opened_hdf5(path) as file:
            check_results(file)
            run = _read_run(folder, file, config, not unverified)
    except Exception as error:  # a damaged file provokes all kinds in h5py and NumPy
        reason = str(error) if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: not a readable results file ({reason})") from error
    _check_settings(run)
    return run


def _check_settings(run):
    """Refuse settings that do not belong to the results beside them."""
    path, settings = run.folder / "config.yaml", run.config if isinstance(run.config, dict) else {"data": None}
    sections = [settings.get(name, {}) for name in ("data", "model", "training")]
    if not all(isinstance(section, dict) for section in sections):
        raise InputError(f"{path}: expected settings as 'name: value'")
    stated = sections[1].get("name", run.model)
    if stated != run.model:
        raise InputError(f"{path}: model.name is {stated!r}, but results.h5 is of {run.model!r}")
    names, mean = sections[0].get("auxiliary") or [], run.best.scaler.auxiliary_mean
    n_auxiliary = 0 if mean is None else len(mean)
    if not isinstance(names, list) or len(names) != n_auxiliary:
        raise InputError(f"{path}: data.auxiliary: expected {n_auxiliary} names, as results.h5 has, received {names}")


def _read_run(folder, file, config, verified):
    table = zip(*([str(v) for v in file.attrs[name]] for name in ("amp_names", "amp_linear_units", "amp_scales")))
    numbers = sorted(int(name.removeprefix("fold_")) for name in file if name.startswith("fold_"))
    return Run(
        folder=folder,
        config=config,
        wavelength=file["wavelength"][()],
        bin_width=file["bin_width"][()] if "bin_width" in file else None,
        amp_table=tuple(amp(*row) for row in table),
        model=str(file.attrs["model"]),
        seed=int(file.attrs["seed"]),
        test_rows=file["test_rows"][()],
        y_test=file[f"fold_{numbers[0]}/y_test"][()],
        test_spectrum=file["test_spectrum"][()],
        molecule_curves={k: v[()] for k, v in file.get("molecule_curves", {}).items()},
        folds={k: _read_network(file[f"fold_{k}"], read_history(folder / f"history_{k}.csv")) for k in numbers},
        ensemble=_read_network(file[ENSEMBLE], {}) if ENSEMBLE in file else None,
        reference={key: value[()] for key, value in file[REFERENCE].items()} if REFERENCE in file else None,
        data={key: file.attrs[key] for key in ("data_name", "n_spectra", "noisy") if key in file.attrs},
        verified=verified,
    )


def _read_network(group, history):
    maps = {name: kind.load(group[name]) for name, kind in MAPS.items() if name in group}
    return NetworkResult(
        y_pred=group["y_pred"][()],
        scaler=Scaler(**{key: value[()] for key, value in group["scaler"].items()}),
        noisy={name: bool(group[name].attrs["noisy"]) for name in maps if "noisy" in group[name].attrs},
        history=history,
        thirds=(group["thirds/maps"][()], group["thirds/limits"][()]) if "thirds" in group else None,
        **maps,
    )


def kept_map(path, n_spectra=None):
    """Return the map that an interrupted command left; None if there is none or, with a warning, it is damaged."""
    if not path.is_file():
        return None
    try:
        found = SensitivityMap.load(path)  # where n_spectra is known, none of them may be missing
        if n_spectra is None or ((found.n_spectra == n_spectra).all() and np.isfinite(found.mean).all()):
            return found
        reason = "it is not the map of all its spectra"
    except Exception as error:  # whatever a damaged file provokes in h5py or NumPy
        reason = one_line(error, 200)
    logger.warning("%s: damaged, and made again (%s)", path, reason)
    return None


FINITE, POSITIVE, SQUARE = "finite numbers", "positive numbers", "not negative numbers"
ERROR, ROWS = "not negative numbers or NaN", "not negative numbers, or a row of NaN"
HOLDS = {
    FINITE: np.isfinite,
    POSITIVE: lambda values: np.isfinite(values) & (values > 0),
    SQUARE: lambda values: np.isfinite(values) & (values >= 0),
    ERROR: lambda values: np.isnan(values) | HOLDS[SQUARE](values),
    ROWS: lambda values: np.isnan(values).all(axis=1, keepdims=True) | HOLDS[SQUARE](values),
}
NETWORK = r"(fold_\d+|ensemble)"
MAP = rf"{NETWORK}/(sensitivity|sensitivity_single)"
SCALER, MAP_SHAPE = rf"{NETWORK}/scaler", ("n_amps", "n_bins")

ARRAYS = (  # path (a regular expression), shape, numbers, whether it must be there (unless there is no reference)
    (r"wavelength", ("n_bins",), POSITIVE, True),
    (r"bin_width", ("n_bins",), POSITIVE, False),
    (r"test_spectrum", ("n_bins",), FINITE, True),
    (r"test_rows", ("n_test",), SQUARE, True),
    (r"molecule_curves/[^/]+", ("n_bins",), FINITE, False),
    (rf"{REFERENCE}/error", ("n_bins",), POSITIVE, True),
    (rf"{REFERENCE}/rows", ("n_reference",), SQUARE, True),
    (rf"{REFERENCE}/spectra", ("n_reference", "n_bins"), FINITE, True),
    (rf"{REFERENCE}/error_level", ("n_reference",), POSITIVE, True),
    (rf"{REFERENCE}/auxiliary", ("n_reference", "n_auxiliary"), FINITE, False),
    (rf"{NETWORK}/y_test", ("n_test", "n_amps"), FINITE, True),
    (rf"{NETWORK}/y_pred", ("n_test", "n_amps"), FINITE, True),
    (rf"{SCALER}/x_mean", (), FINITE, True),
    (rf"{SCALER}/x_std", (), POSITIVE, True),
    (rf"{SCALER}/y_mean", ("n_amps",), FINITE, True),
    (rf"{SCALER}/y_std", ("n_amps",), POSITIVE, True),
    (rf"{SCALER}/auxiliary_mean", ("n_auxiliary",), FINITE, False),
    (rf"{SCALER}/auxiliary_std", ("n_auxiliary",), POSITIVE, False),
    (rf"{MAP}/mean", MAP_SHAPE, ROWS, False),  # NaN: the abundance cut left no spectrum
    *((rf"{MAP}/{kind}_error", MAP_SHAPE, ERROR, False) for kind in ("standard", "repeat", "share", "quadrature")),
    (rf"{MAP}/slope", MAP_SHAPE, FINITE, False),
    (rf"{MAP}/curvature", MAP_SHAPE, FINITE, False),
    (rf"{NETWORK}/thirds/maps", ("n_amps", "n_thirds", "n_bins"), SQUARE, False),
    (rf"{NETWORK}/thirds/limits", ("n_amps", "n_limits"), FINITE, False),
    (rf"{NETWORK}/response/deviations", ("n_deviations",), FINITE, False),
    (rf"{NETWORK}/response/change", (*MAP_SHAPE, "n_deviations"), FINITE, False),
    (rf"{NETWORK}/response/spread", (*MAP_SHAPE, "n_deviations"), SQUARE, False),
)
TEXTS = ("amp_names", "amp_units", "amp_linear_units", "amp_scales")  # attributes of the file, one text for each AMP


def check_results(file):
    """Raise a ValueError for an open results file that does not hold what ``ARRAYS`` says."""
    items = {"/": file}
    file.visititems(items.__setitem__)
    sizes = {"n_amps": _check_names(file)}
    for path, item in items.items():  # any text would be read as true
        noisy = item.attrs.get("noisy", False)
        if not (isinstance(noisy, bool | np.bool_ | int | np.integer) and noisy in (0, 1)):
            raise ValueError(f"/{path}: attribute noisy: expected true or false, received {str(noisy)[:60]}")
    networks = [name for name in file if name.startswith("fold_") or name == ENSEMBLE]
    for name in networks:
        if not re.fullmatch(NETWORK, name):
            raise ValueError(f"{name}: expected fold_ and a number")
    if set(networks) <= {ENSEMBLE}:
        raise ValueError("it holds no fold")
    arrays = {path: item for path, item in items.items() if isinstance(item, h5py.Dataset)}
    needed = []
    for pattern, shape, numbers, is_needed in ARRAYS:
        for path in filter(re.compile(pattern).fullmatch, arrays):
            _check_array(arrays[path], path, shape, numbers, sizes)
        if is_needed and (REFERENCE in file or not pattern.startswith(REFERENCE)):
            needed += sorted({pattern.replace(NETWORK, name) for name in networks})
    auxiliary = [f"{name}/scaler/auxiliary_{part}" for name in networks for part in ("mean", "std")]
    if REFERENCE in file:
        auxiliary.append(f"{REFERENCE}/auxiliary")
    if any(path in arrays for path in auxiliary):  # then in all parts of the file
        needed += auxiliary
    for path in needed:
        if path not in arrays:
            raise ValueError(f"{path}: expected in the file; missing")
    if REFERENCE in file:
        rows, n_test = file[f"{REFERENCE}/rows"][()], len(file["test_rows"])
        if rows.dtype.kind not in "iu" or rows.max() >= n_test or len(np.unique(rows)) < len(rows):
            raise ValueError(f"{REFERENCE}/rows: expected numbers of test spectra below {n_test}, each once")
    if (np.diff(file["wavelength"][()]) <= 0).any():
        raise ValueError("wavelength: expected ascending numbers")
    for name in networks[1:]:
        if not np.array_equal(file[f"{name}/y_test"][()], file[f"{networks[0]}/y_test"][()]):
            raise ValueError(f"{name}/y_test: expected that of {networks[0]}, received another")


def _check_names(file):
    """Refuse a table of AMPs (`TEXTS`) that cannot be right; return how many AMPs there are."""
    columns = []
    for name in TEXTS:
        texts = file.attrs.get(name)
        if not isinstance(texts, np.ndarray) or texts.ndim != 1 or not all(isinstance(t, str | bytes) for t in texts):
            raise ValueError(f"attribute {name}: expected a list of texts, received {str(texts)[:60]}")
        columns.append([t.decode("utf-8", "replace") if isinstance(t, bytes) else t for t in texts])
        if len(columns[-1]) != len(columns[0]):
            raise ValueError(f"attribute {name}: expected {len(columns[0])} texts, as many as amp_names")
    keys, units, linear_units, scales = columns
    if len(set(keys)) != len(keys) or not all(keys):
        raise ValueError(f"attribute amp_names: expected each name once, received {', '.join(keys)}")
    if not set(scales) <= {"log10", "linear"}:
        raise ValueError(f"attribute amp_scales: expected log10 or linear for each AMP, received {', '.join(scales)}")
    learnt = [amp(*row).retrieval_unit for row in zip(keys, linear_units, scales)]
    if learnt != units:
        raise ValueError(f"attribute amp_units: expected {learnt} after amp_scales, received {units}")
    return len(keys)


def _check_array(array, path, shape, numbers, sizes):
    """Refuse an array of another shape or with other numbers; ``sizes`` {name: size} receives what was unknown."""
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{path}: expected numbers, received {array.dtype}")
    if len(array.shape) == len(shape):
        for name, size in zip(shape, array.shape):
            sizes.setdefault(name, size)
    expected = tuple(sizes.get(name, name) for name in shape)
    if array.shape != expected or 0 in array.shape:
        raise ValueError(f"{path}: expected shape {expected}, received {array.shape}")
    values = np.asarray(array[()], dtype=float)
    bad = values[~HOLDS[numbers](values)]
    if bad.size:
        raise ValueError(f"{path}: expected {numbers}, received {bad[0]:g} ({bad.size} of {values.size} are bad)")
