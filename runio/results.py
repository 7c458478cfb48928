"""The files of a run: results.h5 and the score tables, written whole or not at all, and read back."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from common.files import read_bounded, written_whole
from constants import AMP, VERSION, amp
from runio.config import read_yaml
from runio.log import one_line

FINITE, POSITIVE, SQUARE, ERROR = "finite", "positive", "not negative", "not negative, or NaN"  # kinds of numbers
JUDGED = r"(fold_\d+|ensemble)"
MAP = rf"{JUDGED}/(sensitivity|sensitivity_single)"

ARRAYS = (  # path (a regular expression), shape, numbers, whether it must be there
    (r"wavelength", ("n_bins",), POSITIVE, True),
    (r"bin_width", ("n_bins",), POSITIVE, False),
    (r"test_spectrum", ("n_bins",), FINITE, True),
    (r"test_rows", ("n_test",), SQUARE, True),
    (r"molecule_curves/[^/]+", ("n_bins",), FINITE, False),
    (r"reference/error", ("n_bins",), POSITIVE, False),
    (r"reference/rows", ("n_reference",), SQUARE, False),
    (r"reference/spectra", ("n_reference", "n_bins"), FINITE, False),
    (r"reference/error_level", ("n_reference",), POSITIVE, False),
    (r"reference/auxiliary", ("n_reference", "n_auxiliary"), FINITE, False),
    (rf"{JUDGED}/y_test", ("n_test", "n_amps"), FINITE, True),
    (rf"{JUDGED}/y_pred", ("n_test", "n_amps"), FINITE, True),
    (rf"{JUDGED}/scaler/x_mean", (), FINITE, True),
    (rf"{JUDGED}/scaler/x_std", (), POSITIVE, True),
    (rf"{JUDGED}/scaler/y_mean", ("n_amps",), FINITE, True),
    (rf"{JUDGED}/scaler/y_std", ("n_amps",), POSITIVE, True),
    (rf"{JUDGED}/scaler/auxiliary_mean", ("n_auxiliary",), FINITE, False),
    (rf"{JUDGED}/scaler/auxiliary_std", ("n_auxiliary",), POSITIVE, False),
    (rf"{MAP}/mean", ("n_amps", "n_bins"), SQUARE, False),
    (rf"{MAP}/standard_error", ("n_amps", "n_bins"), ERROR, False),
    (rf"{MAP}/repeat_error", ("n_amps", "n_bins"), ERROR, False),
    (rf"{MAP}/share_error", ("n_amps", "n_bins"), ERROR, False),
    (rf"{MAP}/quadrature_error", ("n_amps", "n_bins"), ERROR, False),
    (rf"{MAP}/slope", ("n_amps", "n_bins"), FINITE, False),
    (rf"{MAP}/curvature", ("n_amps", "n_bins"), FINITE, False),
    (rf"{JUDGED}/response/deviations", ("n_deviations",), FINITE, False),
    (rf"{JUDGED}/response/change", ("n_amps", "n_bins", "n_deviations"), FINITE, False),
    (rf"{JUDGED}/response/spread", ("n_amps", "n_bins", "n_deviations"), SQUARE, False),
)
TEXTS = ("amp_names", "amp_units", "amp_linear_units", "amp_scales")  # attributes of the file, one text for each AMP
HOLDS = {
    FINITE: np.isfinite,
    POSITIVE: lambda values: np.isfinite(values) & (values > 0),
    SQUARE: lambda values: np.isfinite(values) & (values >= 0),
    ERROR: lambda values: np.isnan(values) | (np.isfinite(values) & (values >= 0)),
}


def check_results(file):
    """Refuse an open results file that does not hold what the table says.

    Parameters
    ----------
    file : h5py.File

    Raises
    ------
    ValueError
        With one line: which array or attribute, what was expected and what it holds.
    """
    names = [_texts(file, name) for name in TEXTS]
    keys, scales = names[0], names[-1]
    sizes = {"n_amps": len(keys)}
    for name, texts in zip(TEXTS, names):
        if len(texts) != len(keys):
            raise ValueError(
                f"attribute {name}: expected {len(keys)} texts, as many as amp_names, received {len(texts)}"
            )
    if len(set(keys)) != len(keys) or not all(keys):
        raise ValueError(f"attribute amp_names: expected each name once, received {', '.join(keys)}")
    if not set(scales) <= {"log10", "linear"}:
        raise ValueError(f"attribute amp_scales: expected log10 or linear for each AMP, received {', '.join(scales)}")
    learnt = [amp(key, unit, scale).retrieval_unit for key, unit, scale in zip(keys, names[2], scales)]
    if learnt != names[1]:
        raise ValueError(f"attribute amp_units: expected {learnt} after amp_scales, received {names[1]}")
    _check_flags(file)
    paths = _arrays(file)
    odd = [name for name in file if name.startswith("fold_") and not re.fullmatch(JUDGED, name)]
    if odd:
        raise ValueError(f"{odd[0]}: expected fold_ and a number")
    judged = [name for name in file if re.fullmatch(JUDGED, name)]
    if not any(name.startswith("fold_") for name in judged):
        raise ValueError("it holds no fold")
    for pattern, shape, numbers, needed in ARRAYS:
        found = [path for path in paths if re.fullmatch(pattern, path)]
        for path in found:
            _check_array(file[path], path, shape, numbers, sizes)
        wanted = len(judged) if pattern.startswith(JUDGED) else 1
        if needed and len(found) < wanted:
            raise ValueError(f"{pattern.replace(JUDGED, judged[0])}: expected in the file, and for every fold; missing")
    _check_reference(file)
    _check_scalers(file, judged)
    wavelength = file["wavelength"][()]
    if (np.diff(wavelength) <= 0).any():
        raise ValueError("wavelength: expected ascending numbers")
    for name in judged[1:]:
        if not np.array_equal(file[f"{name}/y_test"][()], file[f"{judged[0]}/y_test"][()]):
            raise ValueError(f"{name}/y_test: expected that of {judged[0]}, received another")


def _check_reference(file):
    """Refuse a reference that is not whole, or that names rows that were not tested."""
    if "reference" not in file:
        return
    names = [pattern.removeprefix("reference/") for pattern, *_ in ARRAYS if pattern.startswith("reference/")]
    missing = [name for name in names if name not in file["reference"] and name != "auxiliary"]
    if missing:
        raise ValueError(f"reference/{missing[0]}: expected in the file, beside the rest of its group; missing")
    rows, n_test = file["reference/rows"][()], len(file["test_rows"])
    if rows.dtype.kind not in "iu" or rows.max() >= n_test or len(np.unique(rows)) < len(rows):
        raise ValueError(f"reference/rows: expected numbers of test spectra below {n_test}, each once")


def _check_scalers(file, judged):
    """Refuse scalers of other names than the table has, or auxiliary inputs that only some of the file knows."""
    known = {pattern.rpartition("/")[2] for pattern, *_ in ARRAYS if "/scaler/" in pattern}
    has_auxiliary = {}
    for name in judged:
        held = set(file[f"{name}/scaler"])
        if held - known:
            raise ValueError(f"{name}/scaler: expected {', '.join(sorted(known))}, received {', '.join(sorted(held))}")
        has_auxiliary |= {f"{name}/scaler/{part}": part in held for part in ("auxiliary_mean", "auxiliary_std")}
    if "reference" in file:
        has_auxiliary["reference/auxiliary"] = "auxiliary" in file["reference"]
    if len(set(has_auxiliary.values())) > 1:
        missing = [path for path, has in has_auxiliary.items() if not has]
        raise ValueError(f"{missing[0]}: expected in the file, which has auxiliary inputs elsewhere; missing")


def _check_flags(file):
    """Refuse a statement about noise that is not true or false: any text would be read as true."""
    groups = [file]
    file.visititems(lambda path, item: groups.append(item) if isinstance(item, h5py.Group) else None)
    for group in groups:
        noisy = group.attrs.get("noisy", False)
        if not (isinstance(noisy, bool | np.bool_ | int | np.integer) and noisy in (0, 1)):
            raise ValueError(f"{group.name}: attribute noisy: expected true or false, received {str(noisy)[:60]}")


def _texts(file, name):
    if name not in file.attrs:
        raise ValueError(f"attribute {name}: expected in the file; missing")
    texts = file.attrs[name]
    if not isinstance(texts, np.ndarray) or texts.ndim != 1 or not all(isinstance(t, str | bytes) for t in texts):
        raise ValueError(f"attribute {name}: expected a list of texts, received {str(texts)[:60]}")
    return [t.decode("utf-8", "replace") if isinstance(t, bytes) else t for t in texts]


def _arrays(file):
    """Return the paths of all arrays of the file."""
    paths = []
    file.visititems(lambda path, item: paths.append(path) if isinstance(item, h5py.Dataset) else None)
    return paths


def _check_array(array, path, shape, numbers, sizes):
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{path}: expected numbers, received {array.dtype}")
    if len(array.shape) == len(shape):
        for name, size in zip(shape, array.shape):
            sizes.setdefault(name, size)
    expected = tuple(sizes.get(name, name) for name in shape)
    if array.shape != expected or 0 in array.shape:
        raise ValueError(f"{path}: expected shape {expected}, received {array.shape}")
    values = np.asarray(array[()], dtype=float)
    bad = ~HOLDS[numbers](values)
    if bad.any():
        first = np.ravel(values)[np.argmax(np.ravel(bad))]
        raise ValueError(f"{path}: expected {numbers} numbers, received {first:g} ({bad.sum()} of {bad.size} are bad)")


ENSEMBLE = "ensemble"  # the name of the mean of the folds among them, and in results.h5
LONGEST_HISTORY = 50_000_000  # bytes
MOST_REFERENCES = 6000  # test spectra that are kept with a run
MAPS = ("sensitivity", "sensitivity_single", "response")


@dataclass
class Fold:
    """What one trained network gave on the test set.

    Attributes
    ----------
    y_pred : ndarray (n_test, n_amps)
        Predictions in retrieval space.
    scaler : dict
        x_mean, x_std (scalars) and y_mean, y_std (n_amps,).
    history : dict of str to ndarray (n_epochs,)
        Columns of history_<fold>.csv: epoch, loss, val_loss, learning_rate.
    sensitivity, sensitivity_single : dict or None
        mean, standard_error (n_amps, n_bins) and the attributes of the map: the published one, and the exact one of
        single bins.
    response : dict or None
        Of the mean of the folds, or of the only fold: deviations (n_deviations,) in standard errors and change (n_amps,
        n_bins, n_deviations), the mean over spectra, in the AMPs' retrieval-space units
        (a ``perturbation.result.ResponseMap``).
    """

    y_pred: np.ndarray
    scaler: dict
    history: dict
    sensitivity: dict | None = None
    sensitivity_single: dict | None = None
    response: dict | None = None


@dataclass
class Run:
    """A finished run, as read from its folder; shapes as in ``results.h5``.

    ``data`` says where the spectra came from: ``data_name``, ``n_spectra`` (all rows, tested or not) and ``noisy``
    (they hold noise themselves); ``test_rows`` (n_test,) which of them were tested. ``reference`` is what an
    observation is held against (`write_reference`); None for a run of an earlier version.
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
    folds: dict[int, Fold]
    data: dict
    ensemble: Fold | None = None
    reference: dict | None = None

    @property
    def best(self):
        """What the run has to say: the mean of its folds, or its only fold."""
        return self.ensemble or self.folds[min(self.folds)]

    @property
    def amp_names(self):
        """Keys of the AMPs, in column order."""
        return tuple(a.key for a in self.amp_table)


def write_results(path, data, model, seed, test_rows, evaluated, noisy):
    """Write ``results.h5``.

    Parameters
    ----------
    path : path-like
    data : preprocessing.Dataset
    model : str
        Name of the network.
    seed : int
    test_rows : ndarray (n_test,) of int
        Rows of the data set that were tested.
    evaluated : dict of int or "ensemble" to dict
        Per fold, and for their mean: ``y_pred`` (n_test, n_amps), ``scaler`` (a dict) and the maps ``sensitivity``,
        ``sensitivity_single`` and ``response``, each None or an object with ``save(group)``.
    noisy : dict of str to bool
        Whether the map of this name was made around spectra with noise.
    """
    text = h5py.string_dtype()
    with written_whole(path) as part, h5py.File(part, "w") as file:
        file.attrs["amp_names"] = np.array(data.amp_names, dtype=text)
        file.attrs["amp_units"] = np.array([a.retrieval_unit for a in data.amp_table], dtype=text)
        file.attrs["amp_scales"] = np.array([a.scale for a in data.amp_table], dtype=text)
        file.attrs["amp_linear_units"] = np.array([a.unit for a in data.amp_table], dtype=text)
        file.attrs["model"] = model
        file.attrs["seed"] = seed
        file.attrs["software_version"] = VERSION
        file.attrs["data_name"] = data.name
        file.attrs["n_spectra"] = len(data)
        file.attrs["noisy"] = data.noisy  # the spectra of the data set hold noise themselves
        file["wavelength"] = data.wavelength
        file["wavelength"].attrs["unit"] = "micron"
        if data.bin_width is not None:
            file["bin_width"] = data.bin_width
        file["test_spectrum"] = np.median(data.spectra[test_rows], axis=0)  # for figures
        file["test_rows"] = test_rows
        for key, curve in data.molecule_curves.items():
            file[f"molecule_curves/{key}"] = curve
        write_reference(file, data, test_rows)
        for k, fold in evaluated.items():
            group = file.create_group(k if k == ENSEMBLE else f"fold_{k}")
            group["y_test"] = data.amps[test_rows]
            group["y_pred"] = fold["y_pred"]
            for key, value in fold["scaler"].items():
                group[f"scaler/{key}"] = value
            for name in MAPS:
                if fold.get(name) is not None:
                    fold[name].save(group.create_group(name))
                    group[name].attrs["noisy"] = noisy[name]
            if "response" in group and fold["response"].n_spectra is not None:
                group["response"].attrs["n_spectra"] = fold["response"].n_spectra
        check_results(file)


def write_reference(file, data, test_rows):
    """Keep what an observation is later held against: simulated spectra that no network was trained on.

    Of at most `MOST_REFERENCES` test spectra, spread evenly: their ``rows`` in the test set, ``spectra`` (n_reference,
    n_bins) as they are in the data set, ``error_level`` (n_reference,), the median of their errors over ``error``, and
    ``auxiliary`` inputs; ``error`` (n_bins,) is the median over all spectra.

    Parameters
    ----------
    file : h5py.File
        Open for writing.
    data : preprocessing.Dataset
    test_rows : ndarray (n_test,) of int
    """
    kept = np.unique(np.linspace(0, len(test_rows) - 1, MOST_REFERENCES).round().astype(int))
    chosen, group = np.asarray(test_rows)[kept], file.create_group("reference")
    group["rows"] = kept
    group["spectra"] = np.asarray(data.spectra[chosen], np.float32)
    group["error"] = np.median(data.errors, axis=0)
    group["error_level"] = np.median(data.errors[chosen] / group["error"][()], axis=1)
    if data.auxiliary is not None:
        group["auxiliary"] = data.auxiliary[chosen]


def write_run(folder, data, config, test_rows, evaluated):
    """Write ``results.h5``, ``MSE.csv`` and ``R2.csv`` of a run into its folder; ``evaluated`` as in `write_results`.

    Each of ``evaluated`` also holds its scores, ``MSE`` and ``R2`` (n_amps,).
    """
    for name in ("MSE", "R2"):
        scores = {fold: one[name] for fold, one in evaluated.items()}
        write_scores(Path(folder) / f"{name}.csv", data.amp_names, scores)
    noisy = {name: data.noisy or getattr(config, name).noisy for name in ("sensitivity", "sensitivity_single")}
    noisy["response"] = data.noisy
    write_results(Path(folder) / "results.h5", data, config.model.name, config.seed, test_rows, evaluated, noisy)


def write_scores(path, names, scores):
    """Write a score table: a row per fold, then the mean of these rows, then the mean of the folds' answers.

    Parameters
    ----------
    path : path-like
    names : sequence of str
        AMP keys.
    scores : dict of int or "ensemble" to ndarray (n_amps,)
    """
    folds = {k: row for k, row in scores.items() if k != ENSEMBLE}
    with written_whole(path) as part, open(part, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["fold", *names])
        rows = {**folds, "mean": np.mean(list(folds.values()), axis=0)}
        if ENSEMBLE in scores:
            rows["mean of folds"] = scores[ENSEMBLE]
        table.writerows([name, *(f"{value:.6g}" for value in row)] for name, row in rows.items())


def read_history(path):
    """Read ``history_<fold>.csv`` into a dict of arrays, one per column.

    Raises
    ------
    ValueError
        If it is no table of numbers.
    OSError
        If it cannot be read.
    """
    rows = list(csv.reader(read_bounded(path, LONGEST_HISTORY).decode("utf-8").splitlines()))
    if len(rows) < 2:
        return {}
    head, *rows = rows
    if any(len(row) != len(head) for row in rows) or len(set(head)) != len(head):
        raise ValueError(f"{Path(path).name}: expected rows of {len(head)} cells, as in its header")
    return {key: np.array([float(cell) for cell in column]) for key, column in zip(head, zip(*rows))}


def load_run(folder):
    """Read a finished run from its folder.

    Raises
    ------
    ValueError
        If the folder holds no readable results.
    """
    folder = Path(folder)
    path = folder / "results.h5"
    if not path.is_file():
        raise ValueError(f"{folder}: no results.h5 here, expected the folder of a finished run")
    config = read_yaml(folder / "config.yaml")
    try:
        with h5py.File(path) as file:
            check_results(file)
            run = _read_run(folder, file, config)
    except Exception as error:  # whatever a damaged file provokes in h5py or NumPy, the user gets one line
        reason = str(error) if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {error}"
        raise ValueError(one_line(f"{path}: not a readable results file ({reason})")) from error
    _check_settings(run)
    return run


def _check_settings(run):
    """Refuse settings that are not those of the results beside them."""
    settings = run.config if isinstance(run.config, dict) else None
    sections = {name: settings.get(name, {}) for name in ("data", "model", "training")} if settings is not None else {}
    if settings is None or not all(isinstance(section, dict) for section in sections.values()):
        raise ValueError(f"{run.folder / 'config.yaml'}: expected settings as 'name: value'")
    stated = sections["model"].get("name", run.model)
    if stated != run.model:
        raise ValueError(
            one_line(f"{run.folder / 'config.yaml'}: model.name is {stated!r}, but results.h5 is of {run.model!r}")
        )
    names, n_auxiliary = sections["data"].get("auxiliary") or [], np.size(run.best.scaler.get("auxiliary_mean", ()))
    if not isinstance(names, list) or len(names) != n_auxiliary:
        raise ValueError(
            one_line(
                f"{run.folder / 'config.yaml'}: data.auxiliary: expected {n_auxiliary} names, as results.h5 has, "
                f"received {names}"
            )
        )


def _read_run(folder, file, config):
    keys, units, scales = (
        [str(v) for v in file.attrs[name]] for name in ("amp_names", "amp_linear_units", "amp_scales")
    )
    numbers = sorted(int(name.removeprefix("fold_")) for name in file if name.startswith("fold_"))
    folds = {k: _read_fold(file[f"fold_{k}"], read_history(folder / f"history_{k}.csv")) for k in numbers}
    if not folds:
        raise ValueError("it holds no fold")
    return Run(
        folder=folder,
        config=config,
        wavelength=file["wavelength"][()],
        bin_width=file["bin_width"][()] if "bin_width" in file else None,
        amp_table=tuple(amp(k, u, s) for k, u, s in zip(keys, units, scales)),
        model=str(file.attrs["model"]),
        seed=int(file.attrs["seed"]),
        test_rows=file["test_rows"][()],
        y_test=file[f"fold_{min(folds)}/y_test"][()],
        test_spectrum=file["test_spectrum"][()],
        molecule_curves={k: v[()] for k, v in file.get("molecule_curves", {}).items()},
        folds=folds,
        ensemble=_read_fold(file[ENSEMBLE], {}) if ENSEMBLE in file else None,
        reference={key: value[()] for key, value in file["reference"].items()} if "reference" in file else None,
        data={key: file.attrs[key] for key in ("data_name", "n_spectra", "noisy") if key in file.attrs},
    )


def _read_fold(group, history):
    return Fold(
        y_pred=group["y_pred"][()],
        scaler={key: value[()] for key, value in group["scaler"].items()},
        history=history,
        **{name: _read_map(group, name) for name in MAPS},
    )


def _read_map(fold, name):
    """Return the arrays and attributes of a map as a dict; None where the fold has no such map."""
    if name not in fold:
        return None
    arrays = {key: value[()] for key, value in fold[name].items() if isinstance(value, h5py.Dataset)}
    return {**arrays, **fold[name].attrs}
