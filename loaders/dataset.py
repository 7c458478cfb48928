"""From what a layout's loader returns, a `Survey`, to a checked `preprocessing.Dataset`."""

import logging
import re
from dataclasses import dataclass, field

import numpy as np

from constants import amp
from loaders.checks import check_dataset
from preprocessing import Dataset, rows_text
from runio.log import InputError

logger = logging.getLogger(__name__)

DEPTH_UNITS = {"fraction": 1.0, "percent": 1e-2, "ppm": 1e-6}

# Median depth, as stored, for which only one unit is credible. Transmission spectra are taken of planets with
# depths of about 50 ppm (55 Cnc e has 340 ppm) to 5 % (giants of M dwarfs reach 3 %). Values in between are refused.
DEPTH_RANGES = {"fraction": (1e-5, 0.03), "percent": (0.2, 6.0), "ppm": (50.0, 6e4)}

MICRON = {"micron": 1.0, "microns": 1.0, "um": 1.0, "µm": 1.0, "μm": 1.0, "micrometer": 1.0, "nm": 1e-3}
MICRON |= {
    "nanometer": 1e-3,
    "angstrom": 1e-4,
    "aa": 1e-4,
    "a": 1e-4,
    "m": 1e6,
    "": 1.0,
    "micrometre": 1.0,
    "mum": 1.0,
    "å": 1e-4,
}
MICRON_RANGE = (0.05, 200.0)  # wavelengths outside are not in micron, and are refused


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
    """A data set as its layout stores it; attributes are those of ``preprocessing.Dataset`` except for these.

    Attributes
    ----------
    depth_unit : {"fraction", "percent", "ppm"} or None
        Unit of the depths by the layout; None if the unit has to be guessed.
    states_unit : bool
        Whether the file itself states the unit, so that no setting may contradict it.
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
    states_unit: bool = False
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
    return np.asarray(values, dtype=np.float64)


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
    if survey.states_unit and depth_unit not in ("auto", survey.depth_unit):
        raise InputError(
            f"{name}: depths are in {survey.depth_unit}, but data.depth_unit is {depth_unit}; expected auto"
        )
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
    if rows.shape == (n_rows,) and n_rows > 2 and np.isin(rows, (0, 1)).all():
        raise InputError(f"{name}: test_rows is a mask of 0 and 1; it must be row numbers from 0 to {n_rows - 1}")
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or ((rows < 0) | (rows >= n_rows)).any():
        raise InputError(f"{name}: test_rows must be row numbers from 0 to {n_rows - 1}")
    if rows.size == 0:
        raise InputError(f"{name}: test_rows is empty; it must be row numbers from 0 to {n_rows - 1}, or left out")
    return np.unique(rows)
