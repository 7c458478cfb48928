"""From what a layout's loader returns, a `Survey`, to a checked `preprocessing.Dataset`."""

import logging
import re
from dataclasses import dataclass, field

import h5py
import numpy as np

from constants import AMPS, amp
from preprocessing import Dataset, rows_text
from runio.log import InputError

logger = logging.getLogger(__name__)

DEPTH_UNITS = {"fraction": 1.0, "percent": 1e-2, "ppm": 1e-6}

# Median depth, as stored, for which only one unit is credible. Transmission spectra are taken of planets with
# depths of about 50 ppm (55 Cnc e has 340 ppm) to 5 % (giants of M dwarfs reach 3 %). Values in between are refused.
DEPTH_RANGES = {"fraction": (1e-5, 0.03), "percent": (0.2, 6.0), "ppm": (50.0, 6e4)}

MICRON = {"micron": 1.0, "microns": 1.0, "um": 1.0, "µm": 1.0, "μm": 1.0, "micrometer": 1.0, "nm": 1e-3}
MICRON |= {"nanometer": 1e-3, "angstrom": 1e-4, "aa": 1e-4, "a": 1e-4, "m": 1e6, "": 1.0, "micrometre": 1.0}
MICRON_RANGE = (0.05, 200.0)  # wavelengths outside are not in micron, and are refused

# Limits of the checks of plausibility
MAX_ERROR_RATIO = 1000.0  # of an error to the one expected from its bin and its spectrum, and of that to this
MAX_DEPTH_RATIO = 10.0  # of a depth to the one expected from its bin and its spectrum
MAX_SIGMA_BELOW_ZERO = 10.0  # a depth further below zero than this many errors is not noise
MAX_WIDTHS_AWAY = 50.0  # of a value from its column, in widths of the range that holds nine tenths of the column
MAX_VALUE = 1e35  # of an AMP or an auxiliary input in any unit; the fill value of netCDF is 1e37


@dataclass(frozen=True)
class Target:
    """One candidate target as a data set stores it.

    Attributes
    ----------
    values : ndarray (N,)
    unit : str or None
        Unit of the linear quantity; None takes it from ``constants``.
    scale : {"log10", "linear"} or None
        How the target is to be learnt; None takes it from ``constants``.
    stored : {"log10", "linear"} or None
        How ``values`` are stored; None means that they are in retrieval space already.
    """

    values: np.ndarray
    unit: str | None = None
    scale: str | None = None
    stored: str | None = None


@dataclass(frozen=True)
class Survey:
    """A data set as its layout stores it; attributes are those of ``preprocessing.Dataset`` but for these.

    Attributes
    ----------
    depth_unit : {"fraction", "percent", "ppm"} or None
        Unit that the layout states; None if the unit has to be guessed.
    width : {"full", "half"}
        Whether the layout stores full or half bin widths.
    targets : dict of str to Target
        Every column that may be a target, by AMP key.
    default_targets : tuple of str or None
        Targets that are learnt unless the user names others; None means all.
    auxiliary : dict of str to ndarray (N,)
        Every column that may be a further input.
    labels : sequence of str or None
        Names of the rows for messages; None numbers them from 0.
    """

    spectra: np.ndarray
    errors: np.ndarray
    wavelength: np.ndarray
    targets: dict
    bin_width: np.ndarray | None = None
    depth_unit: str | None = None
    width: str = "full"
    default_targets: tuple[str, ...] | None = None
    auxiliary: dict = field(default_factory=dict)
    noisy: bool = False
    test_rows: np.ndarray | None = None
    molecule_curves: dict = field(default_factory=dict)
    name: str = "data"
    labels: list | None = None


def numbers(values, where, ndim):
    """Return ``values`` (an array or an HDF5 dataset) as float64 with ``ndim`` axes, or refuse them."""
    values = values if hasattr(values, "dtype") else np.asarray(values)
    if values.dtype.kind not in "iuf" or len(values.shape) != ndim:
        raise InputError(f"{where} has type {values.dtype} and shape {values.shape}, expected numbers with {ndim} axes")
    if isinstance(values, h5py.Dataset):
        refuse_empty_promise(values, where)
        values = values[()]
    return np.asarray(values, dtype=np.float64)


def refuse_empty_promise(dataset, where):
    """Refuse an HDF5 array whose values are not in its own file: they were never written, or lie in another file."""
    if dataset.external or dataset.is_virtual:
        raise InputError(f"{where} lies in other files, expected its values in this one")
    if dataset.size and not dataset.id.get_storage_size():
        raise InputError(f"{where} has shape {dataset.shape} but was never written")


def depth_factor(depth, stated, asked, name):
    """Return the factor from stored depths to fractions; the file may state a unit, and the user may ask for one."""
    if asked not in ("auto", *DEPTH_UNITS):
        raise InputError(f"depth_unit must be auto, fraction, percent or ppm; received {asked!r}")
    unit = asked if asked != "auto" else stated
    if unit is None:
        finite = depth[np.isfinite(depth)]
        median = float(np.median(finite)) if finite.size else float("nan")
        unit = next((unit for unit, (low, high) in DEPTH_RANGES.items() if low <= median <= high), None)
        if unit is None:
            raise InputError(
                f"{name}: the unit of the depths cannot be guessed from their median {median:.4g}; "
                "state depth_unit as fraction, percent or ppm"
            )
        logger.warning(
            "%s: unit of the depths guessed as %s (median %.4g); state data.depth_unit to be sure", name, unit, median
        )
    return DEPTH_UNITS[unit]


def to_dataset(survey, targets=None, auxiliary=(), depth_unit="auto", width="auto"):
    """Turn a `Survey` into a checked `preprocessing.Dataset`; arguments are those of ``loaders.load_dataset``."""
    name, shape = survey.name, survey.spectra.shape
    if shape != survey.errors.shape:
        raise InputError(f"{name}: errors have shape {survey.errors.shape}, spectra {shape}")
    if 0 in shape:
        raise InputError(f"{name}: spectra have shape {shape}, expected at least one row and one bin")
    factor = depth_factor(survey.spectra, survey.depth_unit, depth_unit, name)
    order = wavelength_order(survey.wavelength, shape[1], name)
    targets = survey.default_targets or survey.targets if targets is None else targets
    columns, table = _targets(survey, list(targets))
    data = Dataset(
        spectra=survey.spectra[:, order] * factor,
        errors=survey.errors[:, order] * factor,
        wavelength=survey.wavelength[order],
        amps=columns,
        amp_table=table,
        bin_width=_full_width(survey, order, width),
        auxiliary=_auxiliary(survey, auxiliary),
        auxiliary_names=tuple(auxiliary),
        noisy=survey.noisy,
        test_rows=_test_rows(survey.test_rows, shape[0], name),
        molecule_curves={
            key: _per_bin(curve, survey.wavelength, f"{name}: molecule curve {key}")[order] * factor
            for key, curve in survey.molecule_curves.items()
        },
        name=name,
    )
    check_dataset(data, survey.labels)
    return data


def wavelength_order(wavelength, n_bins, name, labels=None):
    """Return the slice that makes wavelengths (n_bins,) in micron ascend; refuse those in no order."""
    if wavelength.shape != (n_bins,):
        raise InputError(f"{name}: {wavelength.size} wavelengths for spectra of {n_bins} bins")
    bad = ~np.isfinite(wavelength)
    if bad.any():
        raise InputError(f"{name}: wavelengths are NaN or infinite in {rows_text(bad, labels).replace('row', 'bin')}")
    if wavelength.min() < MICRON_RANGE[0] or wavelength.max() > MICRON_RANGE[1]:
        raise InputError(
            f"{name}: wavelengths from {wavelength.min():.6g} to {wavelength.max():.6g}, expected micron, "
            f"{MICRON_RANGE[0]:g} to {MICRON_RANGE[1]:g}"
        )
    steps = np.diff(wavelength)
    if (steps > 0).all():
        return slice(None)
    if (steps < 0).all():
        logger.info("%s: wavelengths descend, flipped", name)
        return slice(None, None, -1)
    repeated = n_bins - len(np.unique(wavelength))
    if repeated:
        raise InputError(f"{name}: {repeated} duplicate wavelengths, expected none")
    wrong = min(int((steps <= 0).sum()), int((steps >= 0).sum()))
    raise InputError(f"{name}: wavelengths are not sorted ({wrong} bins out of order), expected ascending")


def _per_bin(values, wavelength, what):
    if values.shape != wavelength.shape or not np.isfinite(values).all():
        raise InputError(f"{what} has shape {values.shape}, expected {wavelength.shape} finite values")
    return values


def _full_width(survey, order, width):
    if width not in ("auto", "full", "half"):
        raise InputError(f"width must be auto, full or half; received {width!r}")
    if survey.bin_width is None:
        return None
    values = _per_bin(survey.bin_width, survey.wavelength, f"{survey.name}: bin_width")[order]
    if (values <= 0).any():
        raise InputError(f"{survey.name}: bin_width must be positive, {int((values <= 0).sum())} are not")
    return values * (2.0 if (survey.width if width == "auto" else width) == "half" else 1.0)


def _targets(survey, names):
    """Return the targets in retrieval space (N, n_amps), and their rows of the table of AMPs."""
    if not names:
        raise InputError(f"{survey.name}: no targets, expected at least one of {', '.join(survey.targets)}")
    if len(set(names)) != len(names):
        raise InputError(f"targets must not repeat; received {', '.join(names)}")
    missing = [key for key in names if key not in survey.targets]
    if missing:
        raise InputError(f"{survey.name}: no target {', '.join(missing)}; it holds {', '.join(survey.targets)}")
    table = tuple(amp(key, survey.targets[key].unit, survey.targets[key].scale) for key in names)
    return np.column_stack([_retrieval_space(survey, a.key, a.scale) for a in table]), table


def _retrieval_space(survey, key, scale):
    values, stored = survey.targets[key].values, survey.targets[key].stored or scale
    if values.shape != (len(survey.spectra),):
        raise InputError(f"{survey.name}: {values.size} values of {key} for {len(survey.spectra)} spectra")
    if len(values) > 1 and (values == values[0]).all():
        raise InputError(f"{survey.name}: target {key} is {values[0]:g} in all {len(values)} rows; nothing to learn")
    if stored == scale:
        return values
    if scale == "linear":
        return 10.0**values
    bad = values <= 0
    if bad.any():
        where = rows_text(bad, survey.labels)
        raise InputError(f"{survey.name}: {key} is learnt as log10 but is not positive in {where}")
    return np.log10(values)


def _auxiliary(survey, names):
    if not names:
        return None
    plain = {re.sub(r"_(m|kg|k)$", "", name): name for name in survey.auxiliary}
    names = [name if name in survey.auxiliary else plain.get(name, name) for name in names]
    missing = [name for name in names if name not in survey.auxiliary]
    if missing:
        known = ", ".join(survey.auxiliary) or "none"
        raise InputError(f"{survey.name}: no auxiliary input {', '.join(missing)}; it holds {known}")
    columns = [survey.auxiliary[name] for name in names]
    if any(len(column) != len(survey.spectra) for column in columns):
        raise InputError(
            f"{survey.name}: auxiliary inputs do not have one row for each of {len(survey.spectra)} spectra"
        )
    return np.column_stack(columns)


def _test_rows(rows, n_rows, name):
    if rows is None:
        return None
    rows = np.asarray(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or ((rows < 0) | (rows >= n_rows)).any():
        raise InputError(f"{name}: test_rows must be row numbers from 0 to {n_rows - 1}")
    return np.unique(rows)


def check_dataset(data, labels=None):
    """Refuse a data set that would spoil a run, with one line: what is wrong, and in which rows.

    Together with the check of a network's input (``preprocessing.Scaler``), this is where NaN is looked for.
    """
    _check_texts(data)
    amps = [(f"AMP {parameter.key}", values) for parameter, values in zip(data.amp_table, data.amps.T)]
    auxiliary = [] if data.auxiliary is None else zip(data.auxiliary_names, data.auxiliary.T)
    columns = amps + [(f"auxiliary input {name}", values) for name, values in auxiliary]
    with np.errstate(invalid="ignore"):  # NaN is found first
        for problem, bad in (
            ("spectra hold NaN or infinite values", ~np.isfinite(data.spectra).all(axis=1)),
            ("errors hold NaN or infinite values", ~np.isfinite(data.errors).all(axis=1)),
            *((f"{what} is NaN or infinite", ~np.isfinite(values)) for what, values in columns),
            ("errors must be positive; they are not", (data.errors <= 0).any(axis=1)),
        ):
            if bad.any():
                raise InputError(f"{data.name}: {problem} in {rows_text(bad, labels)}")
    check_spectra(data.spectra, data.errors, data.wavelength, data.name, labels)
    _refuse_first(data.name, _implausible_columns(data, columns), labels)


def check_spectra(spectra, errors, wavelength, name, labels=None):
    """Refuse depths (N, n_bins) that no planet has, and error bars that cannot be any."""
    problems = (*_implausible_errors(errors, wavelength), *_implausible_depths(spectra, errors))
    _refuse_first(name, problems, labels)


def _refuse_first(name, problems, labels):
    for problem, bad in problems:
        if bad.any():
            raise InputError(f"{name}: {problem} in {rows_text(bad, labels)}; is it a fill value, or another unit?")


def _check_texts(data):
    """Refuse names that cannot be printed, or written to the files of a run when its work is done."""
    labels = {"file": [data.name], "AMP": data.amp_names, "unit": [amp.unit for amp in data.amp_table]}
    labels |= {"auxiliary input": data.auxiliary_names, "molecule curve": tuple(data.molecule_curves)}
    for what, names in labels.items():
        for name in names:
            longest = 4096 if what == "file" else 200
            if not name.isprintable() or len(name) > longest or not (name.strip() or what == "unit"):
                shown = ascii(name if len(name) <= 60 else name[:60] + "...")
                raise InputError(f"{what} {shown}: expected printable text of at most {longest} letters")


def _implausible_errors(errors, wavelength):
    """Yield (what is wrong, which rows) of errors (N, n_bins)."""
    yield "errors of the whole depth of the star (1 as a fraction) or more", (errors >= 1).any(axis=1)
    of_bin, of_row, of_all = np.median(errors, axis=0), np.median(errors, axis=1), np.median(errors)
    with np.errstate(divide="ignore", invalid="ignore"):  # errors of zero
        far_bin, far_row = _is_far(of_bin / of_all), _is_far(of_row / of_all)
        far = _is_far(errors / (of_row[:, None] * (of_bin / of_all))).any(axis=1)
    where = ", ".join(f"{micron:.4g}" for micron in wavelength[far_bin][:5])
    every = np.full(len(errors), far_bin.any())
    yield f"errors at {where} micron a factor {MAX_ERROR_RATIO:g} from those of all bins", every
    yield f"errors a factor {MAX_ERROR_RATIO:g} from those of all spectra", far_row
    yield f"errors a factor {MAX_ERROR_RATIO:g} from those of the same bin and the same spectrum", far


def _is_far(ratio):
    return (ratio > MAX_ERROR_RATIO) | (ratio < 1 / MAX_ERROR_RATIO)


def _implausible_depths(spectra, errors):
    """Yield (what is wrong, which rows) of depths (N, n_bins)."""
    of_row = np.median(spectra, axis=1, keepdims=True)
    bad = (of_row[:, 0] <= 0) | (of_row[:, 0] >= 1)
    yield "median depth is not between 0 and 1 (as a fraction; is depth_unit right?)", bad
    yield "depths of the whole star (1 as a fraction) or more", (np.abs(spectra) >= 1).any(axis=1)
    below = (spectra < -MAX_SIGMA_BELOW_ZERO * errors).any(axis=1)
    yield f"depths below zero by more than {MAX_SIGMA_BELOW_ZERO:g} errors", below
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        relative = spectra / of_row  # (N, n_bins)
        far = relative > MAX_DEPTH_RATIO * np.maximum(np.median(relative, axis=0), 1)
    far &= (of_row > 0) & (spectra - MAX_DEPTH_RATIO * of_row > MAX_SIGMA_BELOW_ZERO * errors)
    yield f"depths more than {MAX_DEPTH_RATIO:g} times those beside them", far.any(axis=1)


def _implausible_columns(data, columns):
    """Yield (what is wrong, which rows) of AMPs and auxiliary inputs that lie far from the rest of their column."""
    for what, values in columns:
        yield f"{what} beyond {MAX_VALUE:g}", np.abs(values) > MAX_VALUE
        low, high = np.quantile(values, 0.05, method="higher"), np.quantile(values, 0.95, method="lower")
        width = max(high - low, 0.0)
        far = (values < low - MAX_WIDTHS_AWAY * width) | (values > high + MAX_WIDTHS_AWAY * width)
        yield f"{what} far from {low:.4g} to {high:.4g}, where nine tenths of its values are,", far & (width > 0)
    for parameter, values in zip(data.amp_table, data.amps.T):
        if parameter.scale == "linear" and parameter.key in AMPS:  # a radius, a temperature
            yield f"AMP {parameter.key} not positive", (values <= 0) & (np.quantile(values, 0.05, method="higher") > 0)
