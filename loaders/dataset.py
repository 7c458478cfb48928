"""What every loader returns, and the way from there to a `preprocessing.Dataset`: units, order, targets, checks."""

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

# Median depth, as stored, for which one unit alone is credible. Transmission spectra are taken of planets with
# depths of about 50 ppm (55 Cnc e is 340 ppm) to 5 % (giants of M dwarfs reach 3 %). What falls between is refused.
CREDIBLE = {"fraction": (1e-5, 0.03), "percent": (0.2, 6.0), "ppm": (50.0, 6e4)}

MICRON = {"micron": 1.0, "microns": 1.0, "um": 1.0, "µm": 1.0, "μm": 1.0, "micrometer": 1.0, "nm": 1e-3}
MICRON |= {"nanometer": 1e-3, "angstrom": 1e-4, "aa": 1e-4, "a": 1e-4, "m": 1e6, "": 1.0, "micrometre": 1.0}

MICRON_RANGE = (0.05, 200.0)  # wavelengths outside are taken for nanometre, angstrom or metre, and refused


class LayoutError(InputError):
    """A message that already says which file, where in it, what was expected and what was received."""


@dataclass(frozen=True)
class Target:
    """One candidate target as a data set stores it.

    Attributes
    ----------
    values : ndarray (N,)
    unit : str or None
        Unit of the linear quantity; None takes it from ``constants``.
    scale : {"log10", "linear"} or None
        How it is to be learnt; None takes it from ``constants``.
    stored : {"log10", "linear"} or None
        What ``values`` are; None means that they already are in retrieval space.
    """

    values: np.ndarray
    unit: str | None = None
    scale: str | None = None
    stored: str | None = None


@dataclass(frozen=True)
class Survey:
    """A data set as its layout stores it; attributes as in ``preprocessing.Dataset`` but for these.

    Attributes
    ----------
    depth_unit : {"fraction", "percent", "ppm"} or None
        What the layout states; None leaves it to a guess.
    width : {"full", "half"}
        What the layout's bin widths are.
    targets : dict of str to Target
        Every column that may be a target, by AMP key.
    default_targets : tuple of str or None
        Those learnt unless the user names others; None means all.
    auxiliary : dict of str to ndarray (N,)
        Every column that may be a further input.
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


def numbers(values, where, ndim):
    """Return ``values`` (an array or an HDF5 dataset) as float64 with ``ndim`` axes, or say where they are not."""
    shape, dtype = (
        np.shape(values),
        np.asarray(values).dtype if not hasattr(values, "dtype") else values.dtype,
    )
    if dtype.kind not in "iuf" or len(shape) != ndim:
        raise LayoutError(f"{where} has type {dtype} and shape {shape}, expected numbers with {ndim} axes")
    if isinstance(values, h5py.Dataset):
        refuse_empty_promise(values, where)
        values = values[()]
    return np.asarray(values, dtype=np.float64)


def refuse_empty_promise(dataset, where):
    """Refuse an array of which the file holds nothing: one never written fills the memory, one elsewhere may wait."""
    if dataset.external or dataset.is_virtual:
        raise LayoutError(f"{where} lies in other files, expected its values in this one")
    if dataset.size and not dataset.id.get_storage_size():
        raise LayoutError(f"{where} has shape {dataset.shape} but was never written")


def guess_depth_unit(depth, name):
    """Guess the unit of depths from their median; say so in the log, refuse what two units could explain.

    Parameters
    ----------
    depth : ndarray
        Depths as stored, any shape.
    name : str
        For messages.

    Returns
    -------
    {"fraction", "percent", "ppm"}
    """
    finite = depth[np.isfinite(depth)]
    middle = float(np.median(finite)) if finite.size else float("nan")
    for unit, (low, high) in CREDIBLE.items():
        if low <= middle <= high:
            logger.warning(
                "%s: unit of the depths guessed as %s (median %.4g); state data.depth_unit to be sure",
                name,
                unit,
                middle,
            )
            return unit
    raise LayoutError(
        f"{name}: the unit of the depths cannot be guessed from their median {middle:.4g}; "
        "state depth_unit as fraction, percent or ppm"
    )


def depth_factor(depth, stated, asked, name):
    """Return what turns stored depths into fractions; ``stated`` by the file (or None), ``asked`` by the user."""
    if asked not in ("auto", *DEPTH_UNITS):
        raise LayoutError(f"depth_unit must be auto, fraction, percent or ppm; received {asked!r}")
    unit = asked if asked != "auto" else stated or guess_depth_unit(depth, name)
    return DEPTH_UNITS[unit]


def finish(survey, targets=None, auxiliary=(), depth_unit="auto", width="auto"):
    """Turn a `Survey` into a `preprocessing.Dataset`; arguments as in ``loaders.load_dataset``.

    Raises
    ------
    LayoutError
        For units, wavelengths, targets or auxiliary inputs that cannot be used.
    """
    name, n_rows = survey.name, len(survey.spectra)
    if survey.spectra.shape != survey.errors.shape:
        raise LayoutError(f"{name}: errors have shape {survey.errors.shape}, spectra {survey.spectra.shape}")
    if survey.spectra.size == 0:
        raise LayoutError(f"{name}: spectra have shape {survey.spectra.shape}, expected at least one row and one bin")
    factor = depth_factor(survey.spectra, survey.depth_unit, depth_unit, name)
    _check_depth(survey.spectra, factor, name)
    order = wavelength_order(survey.wavelength, survey.spectra.shape[1], name)
    names = list(targets if targets is not None else survey.default_targets or survey.targets)
    columns, table = _targets(survey, names)
    return Dataset(
        spectra=survey.spectra[:, order] * factor,
        errors=survey.errors[:, order] * factor,
        wavelength=survey.wavelength[order],
        amps=columns,
        amp_table=table,
        bin_width=_full_width(survey, order, width),
        auxiliary=_auxiliary(survey, auxiliary),
        auxiliary_names=tuple(auxiliary),
        noisy=survey.noisy,
        test_rows=_test_rows(survey.test_rows, n_rows, name),
        molecule_curves={
            key: _per_bin(curve, survey.wavelength, f"{name}: molecule curve {key}")[order] * factor
            for key, curve in survey.molecule_curves.items()
        },
        name=name,
    )


def _check_depth(spectra, factor, name):
    with np.errstate(all="ignore"):
        middle = np.median(spectra, axis=1) * factor
    bad = (middle <= 0) | (middle >= 1)
    if bad.any():
        raise LayoutError(
            f"{name}: median depth is not between 0 and 1 (as a fraction) in {rows_text(bad)}; is depth_unit right?"
        )


def wavelength_order(wavelength, n_bins, name, labels=None):
    """Return the slice that makes wavelengths ascend; refuse what is neither ascending nor descending.

    Parameters
    ----------
    wavelength : ndarray (n_bins,)
        Micron.
    n_bins : int
        Bins of the spectra.
    name : str
        For messages.
    labels : sequence or None
        What to call each bin in messages; None counts from 0.

    Returns
    -------
    slice
    """
    if wavelength.shape != (n_bins,):
        raise LayoutError(f"{name}: {wavelength.size} wavelengths for spectra of {n_bins} bins")
    bad = ~np.isfinite(wavelength)
    if bad.any():
        raise LayoutError(f"{name}: wavelengths are NaN or infinite in {rows_text(bad).replace('row', 'bin')}")
    bad = (wavelength < MICRON_RANGE[0]) | (wavelength > MICRON_RANGE[1])
    if bad.any():
        raise LayoutError(
            f"{name}: wavelengths from {wavelength.min():.6g} to {wavelength.max():.6g}, expected micron, "
            f"{MICRON_RANGE[0]:g} to {MICRON_RANGE[1]:g}"
        )
    steps = np.diff(wavelength)
    if (steps > 0).all():
        return slice(None)
    if (steps < 0).all():
        logger.info("%s: wavelengths descend, flipped", name)
        return slice(None, None, -1)
    if len(np.unique(wavelength)) < n_bins:
        raise LayoutError(f"{name}: {n_bins - len(np.unique(wavelength))} duplicate wavelengths, expected none")
    wrong = min(int((steps <= 0).sum()), int((steps >= 0).sum()))
    raise LayoutError(f"{name}: wavelengths are not sorted ({wrong} bins out of order), expected ascending")


def _per_bin(values, wavelength, what):
    if values.shape != wavelength.shape or not np.isfinite(values).all():
        raise LayoutError(f"{what} has shape {values.shape}, expected {wavelength.shape} finite values")
    return values


def _full_width(survey, order, width):
    if width not in ("auto", "full", "half"):
        raise LayoutError(f"width must be auto, full or half; received {width!r}")
    if survey.bin_width is None:
        return None
    values = _per_bin(survey.bin_width, survey.wavelength, f"{survey.name}: bin_width")[order]
    if (values <= 0).any():
        raise LayoutError(f"{survey.name}: bin_width must be positive, {int((values <= 0).sum())} are not")
    return values * (2.0 if (survey.width if width == "auto" else width) == "half" else 1.0)


def _targets(survey, names):
    if not names:
        raise LayoutError(f"{survey.name}: no targets, expected at least one of {', '.join(survey.targets)}")
    if len(set(names)) != len(names):
        raise LayoutError(f"targets must not repeat; received {', '.join(names)}")
    missing = [key for key in names if key not in survey.targets]
    if missing:
        raise LayoutError(f"{survey.name}: no target {', '.join(missing)}; it holds {', '.join(survey.targets)}")
    table = tuple(amp(key, survey.targets[key].unit, survey.targets[key].scale) for key in names)
    return np.column_stack([_retrieval_space(survey, key, a.scale) for key, a in zip(names, table)]), table


def _retrieval_space(survey, key, scale):
    values, stored = survey.targets[key].values, survey.targets[key].stored or scale
    if values.shape != (len(survey.spectra),):
        raise LayoutError(f"{survey.name}: {values.size} values of {key} for {len(survey.spectra)} spectra")
    _refuse_missing(values, f"{survey.name}: target {key}")
    if len(values) > 1 and (values == values[0]).all():
        raise LayoutError(f"{survey.name}: target {key} is {values[0]:g} in all {len(values)} rows; nothing to learn")
    if stored == scale:
        return values
    if scale == "linear":
        return 10.0**values
    bad = values <= 0
    if bad.any():
        raise LayoutError(f"{survey.name}: {key} is learnt as log10 but is not positive in {rows_text(bad)}")
    return np.log10(values)


def _refuse_missing(values, what):
    bad = ~np.isfinite(values)
    if bad.any():
        raise LayoutError(f"{what} is NaN or infinite in {rows_text(bad)}")


def _auxiliary(survey, names):
    if not names:
        return None
    plain = {re.sub(r"_(m|kg|k)$", "", name): name for name in survey.auxiliary}
    names = [name if name in survey.auxiliary else plain.get(name, name) for name in names]
    missing = [name for name in names if name not in survey.auxiliary]
    if missing:
        known = ", ".join(survey.auxiliary) or "none"
        raise LayoutError(f"{survey.name}: no auxiliary input {', '.join(missing)}; it holds {known}")
    columns = [survey.auxiliary[name] for name in names]
    if any(len(column) != len(survey.spectra) for column in columns):
        raise LayoutError(
            f"{survey.name}: auxiliary inputs do not have one row for each of {len(survey.spectra)} spectra"
        )
    for name, column in zip(names, columns):
        _refuse_missing(column, f"{survey.name}: auxiliary input {name}")
    return np.column_stack(columns)


def _test_rows(rows, n_rows, name):
    if rows is None:
        return None
    rows = np.asarray(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or ((rows < 0) | (rows >= n_rows)).any():
        raise LayoutError(f"{name}: test_rows must be row numbers from 0 to {n_rows - 1}")
    return np.unique(rows)


FAR_ERROR = 1000.0  # times the error that its bin and its spectrum let expect, beyond which it is no error bar
FAR_DEPTH = 10.0  # times the depth that its bin and its spectrum let expect, beyond which it is no depth
FAR_BELOW = 10.0  # errors below zero, beyond which a negative depth is not noise
FAR_VALUE = 50.0  # widths of the range of nine tenths of a column, beyond which a value does not belong to it
LARGEST_VALUE = 1e35  # of an AMP or an auxiliary input in any unit; the fill value of netCDF is 1e37


def check_dataset(data):
    """Refuse a data set that would poison a run.

    Raises
    ------
    ValueError
        With one line: what is wrong, what was expected, and how many rows are affected.
    """
    n, n_bins = data.spectra.shape
    shapes = {
        "errors": (data.errors.shape, (n, n_bins)),
        "wavelength": (data.wavelength.shape, (n_bins,)),
        "amps": (data.amps.shape, (n, len(data.amp_table))),
    }
    for what, (received, expected) in shapes.items():
        if received != expected:
            raise ValueError(f"{data.name}: {what} has shape {received}, expected {expected} to match the spectra")
    if n_bins == 0 or data.amps.shape[1] == 0:
        raise ValueError(f"{data.name}: {n_bins} bins and {data.amps.shape[1]} AMPs, expected at least one of each")
    if not np.all(np.isfinite(data.wavelength)) or np.any(data.wavelength <= 0):
        raise ValueError(f"{data.name}: wavelength must be finite and positive (micron)")
    if np.any(np.diff(data.wavelength) <= 0):
        raise ValueError(f"{data.name}: wavelength must ascend without duplicates")
    for what, values in (("spectra", data.spectra), ("errors", data.errors), ("amps", data.amps)):
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            raise ValueError(f"{data.name}: {what} hold NaN or infinite values in {rows_text(bad)}")
    bad = (data.errors <= 0).any(axis=1)
    if bad.any():
        raise ValueError(f"{data.name}: errors must be positive; they are not in {rows_text(bad)}")
    if data.auxiliary is not None and not np.isfinite(data.auxiliary).all():
        bad = ~np.isfinite(data.auxiliary).all(axis=1)
        raise ValueError(f"{data.name}: auxiliary inputs hold NaN or infinite values in {rows_text(bad)}")
    _check_texts(data)
    check_spectra(data.spectra, data.errors, data.wavelength, data.name)
    for problem, bad in _implausible_columns(data):
        if bad.any():
            raise ValueError(f"{data.name}: {problem} in {rows_text(bad)}; is it a fill value, or another unit?")


def check_spectra(spectra, errors, wavelength, name):
    """Refuse depths that no planet has, and error bars that are none.

    Parameters
    ----------
    spectra, errors : ndarray (N, n_bins)
        Transit depths as fractions, and their 1-sigma errors.
    wavelength : ndarray (n_bins,)
        Micron; for messages, as is ``name``.

    Raises
    ------
    ValueError
        With one line: what is wrong, and in which rows.
    """
    for problem, bad in (*_implausible_errors(errors, wavelength), *_implausible_depths(spectra, errors)):
        if bad.any():
            raise ValueError(f"{name}: {problem} in {rows_text(bad)}; is it a fill value, or another unit?")


def _check_texts(data):
    """Refuse names that cannot be printed, or written to the files of a run when its work is done."""
    labels = {"file": [data.name], "AMP": data.amp_names, "unit": [amp.unit for amp in data.amp_table]}
    labels |= {"auxiliary input": data.auxiliary_names, "molecule curve": tuple(data.molecule_curves)}
    for what, names in labels.items():
        for name in names:
            longest = 4096 if what == "file" else 200
            if not name.isprintable() or len(name) > longest or not (name.strip() or what == "unit"):
                shown = ascii(name if len(name) <= 60 else name[:60] + "...")
                raise ValueError(f"{what} {shown}: expected printable text of at most {longest} letters")


def _implausible_errors(errors, wavelength):
    """Yield (what is wrong, which rows) of error bars that are none, however many there are of them."""
    yield "errors of the whole depth of the star (1 as a fraction) or more", (errors >= 1).any(axis=1)
    of_bin, of_row, of_all = np.median(errors, axis=0), np.median(errors, axis=1), np.median(errors)
    with np.errstate(divide="ignore", invalid="ignore"):  # errors of zero
        far_bin, far_row = _far(of_bin / of_all, FAR_ERROR), _far(of_row / of_all, FAR_ERROR)
        far = _far(errors / (of_row[:, None] * (of_bin / of_all)), FAR_ERROR).any(axis=1)
    where = ", ".join(f"{micron:.4g}" for micron in wavelength[far_bin][:5])
    every = np.full(len(errors), far_bin.any())
    yield f"errors at {where} micron a factor {FAR_ERROR:g} from those of all bins", every
    yield f"errors a factor {FAR_ERROR:g} from those of all spectra", far_row
    yield f"errors a factor {FAR_ERROR:g} from those of the same bin and the same spectrum", far


def _implausible_depths(spectra, errors):
    """Yield (what is wrong, which rows) of depths that no planet has."""
    yield "depths of the whole star (1 as a fraction) or more", (np.abs(spectra) >= 1).any(axis=1)
    yield f"depths below zero by more than {FAR_BELOW:g} errors", (spectra < -FAR_BELOW * errors).any(axis=1)
    of_row = np.median(spectra, axis=1, keepdims=True)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        relative = spectra / of_row  # (N, n_bins)
        far = relative > FAR_DEPTH * np.maximum(np.median(relative, axis=0), 1)
    far &= (of_row > 0) & (spectra - FAR_DEPTH * of_row > FAR_BELOW * errors)
    yield f"depths more than {FAR_DEPTH:g} times those beside them", far.any(axis=1)


def _implausible_columns(data):
    """Yield (what is wrong, which rows) of AMPs and auxiliary inputs that lie far from the rest of their column."""
    columns = [(f"AMP {amp.key}", values) for amp, values in zip(data.amp_table, data.amps.T)]
    if data.auxiliary is not None:
        columns += [(f"auxiliary input {n}", values) for n, values in zip(data.auxiliary_names, data.auxiliary.T)]
    for what, values in columns:
        yield f"{what} beyond {LARGEST_VALUE:g}", np.abs(values) > LARGEST_VALUE
        low, high = np.quantile(values, 0.05, method="higher"), np.quantile(values, 0.95, method="lower")
        width = max(high - low, 0.0)
        far = (values < low - FAR_VALUE * width) | (values > high + FAR_VALUE * width)
        yield f"{what} far from {low:.4g} to {high:.4g}, where nine tenths of its values are,", far & (width > 0)
    for parameter, values in zip(data.amp_table, data.amps.T):
        if parameter.scale == "linear" and parameter.key in AMPS:  # a radius, a temperature
            yield f"AMP {parameter.key} not positive", (values <= 0) & (np.quantile(values, 0.05, method="higher") > 0)


def _far(ratio, factor):
    return (ratio > factor) | (ratio < 1 / factor)
