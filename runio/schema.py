"""What results.h5 holds, as one table: it is checked when a run writes the file and whenever the file is read.

A row of ``ARRAYS`` is a path, the shape in named sizes, and what the numbers must be. ``*`` stands for any name, and
``JUDGED`` for each fold and the mean of the folds. A size has one value in the whole file; the first array that has it
settles it. Arrays that the table does not name are not looked at. To add one, add a row.
"""

import re

import h5py
import numpy as np

from constants import amp

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
