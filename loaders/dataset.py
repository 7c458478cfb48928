"""From what a layout's loader returns, a `Survey`, to a checked `preprocessing.Dataset`."""

import logging
import re
from dataclasses import dataclass, field

import numpy as np

from constants import AMPS, JUPITER_MASS, JUPITER_RADIUS, amp
from preprocessing import Dataset, rows_text
from runio.log import InputError

logger = logging.getLogger(__name__)

DEPTH_UNITS = {"fraction": 1.0, "percent": 1e-2, "ppm": 1e-6}
DEPTH_WORDS = {  # by which a stated unit is recognised: "transit depth (Rp/Rs)^2, dimensionless" is a fraction
    "percent": r"(?<!\w)%|\bper ?cents?\b|^0\.01$",
    "ppm": r"\bppm\b|\bparts per million\b|^1e-06$",
    "fraction": r"\bfractions?\b|\bdimensionless\b|^1$|^\(?rp/rs\)?(\^|\*\*)2$|^none$|^-$",
}

# Median depth, as stored, for which only one unit is credible. Transmission spectra are taken of planets with
# depths of about 50 ppm (55 Cnc e has 340 ppm) to 5 % (giants of M dwarfs reach 3 %). Values in between are refused.
DEPTH_RANGES = {"fraction": (1e-5, 0.03), "percent": (0.2, 6.0), "ppm": (50.0, 6e4)}

MICRON = {  # of each unit of wavelengths that people write
    **dict.fromkeys(("", "micron", "microns", "um", "µm", "μm", "mum", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer"), 1e-3),
    **dict.fromkeys(("angstrom", "aa", "a", "å"), 1e-4),
    "m": 1e6,
}
MICRON_RANGE = (0.05, 200.0)  # wavelengths outside are not in micron, and are refused

# Limits of the checks of plausibility
MAX_ERROR_RATIO = 1000.0  # of an error to the one expected from its bin and its spectrum, and of medians to each other
MAX_DEPTH_RATIO = 10.0  # of a depth to the one expected from its bin and its spectrum
LEAST_DEPTH = 1e-6  # median of a spectrum; that of Mercury in front of the Sun is 12 times as large
MAX_SIGMA_BELOW_ZERO = 10.0  # a depth further below zero than this many errors is not noise
MAX_WIDTHS_AWAY = 50.0  # of a value from its column, in widths of the range that holds nine tenths of the column
MAX_VALUE = 1e35  # of an AMP or an auxiliary input in any unit; the fill value of netCDF is 1e37
MAX_SIGNAL = 1e5  # of a depth to its error; the best spectra of JWST stay below 1e4
MIN_SIGNAL = 1.0  # of the median depth to the median error; below it, the two columns are probably exchanged
FILL = "; is it a fill value, or in another unit?"

# Lowest and highest value of known AMPs, in the unit of constants.AMPS; VMR stands for all molecules
PLAUSIBLE = {
    "VMR": (0.0, 1.0), "Mp": (1e21, 2e29), "Rp": (5e5, 5e8), "Tp": (10.0, 1e4), "Pclouds": (1e-6, 1e10),
    "haze_factor": (0.0, 1e20), "haze_slope": (-50.0, 20.0), "cloud_fraction": (0.0, 1.0), "T_gradient": (-2e3, 2e3),
}  # fmt: skip
OTHER_UNITS = {  # that people use without saying so
    "VMR": {"ppm": 1e-6, "per cent": 1e-2},
    "Mp": {"Jupiter masses": JUPITER_MASS, "Earth masses": 5.972e24, "g": 1e-3},
    "Rp": {"Jupiter radii": JUPITER_RADIUS, "Earth radii": 6.371e6, "km": 1e3},
    "Pclouds": {"bar": 1e5},
}


@dataclass(frozen=True)
class Target:
    """One candidate target as a data set stores it; None takes the unit and the scale of ``constants``."""

    values: np.ndarray  # (N,)
    unit: str | None = None  # of the linear quantity
    scale: str | None = None  # "log10" or "linear": how the target is to be learnt
    stored: str | None = None  # "log10" or "linear": the scale of ``values``; None: that in which they are learnt


@dataclass(frozen=True)
class Survey:
    """A data set as its layout stores it; what has no comment is as in `preprocessing.Dataset`."""

    spectra: np.ndarray
    errors: np.ndarray
    wavelength: np.ndarray
    targets: dict  # a `Target` for each column that may be one, by AMP key
    bin_width: np.ndarray | None = None
    depth_unit: str | None = None  # "fraction", "percent" or "ppm", from the layout or the file; None: guessed
    states_unit: bool = False  # whether the file itself states the unit, so that no setting may contradict it
    default_targets: tuple[str, ...] | None = None  # learnt unless the user names others; None: all
    auxiliary: dict = field(default_factory=dict)  # each column (N,) that may be a further input, by name
    noisy: bool = False
    test_rows: np.ndarray | None = None
    molecule_curves: dict = field(default_factory=dict)
    name: str = "data"
    labels: list | None = None  # names of the rows for messages; None numbers them from 0


def numbers(values, where, ndim):
    """Return ``values`` (an array or an HDF5 dataset) as float64 with ``ndim`` axes, or refuse them."""
    values = values if hasattr(values, "dtype") else np.asarray(values)
    if values.dtype.kind not in "iuf" or len(values.shape) != ndim:
        raise InputError(f"{where} has type {values.dtype} and shape {values.shape}, expected numbers with {ndim} axes")
    return np.asarray(values, dtype=np.float64)


def refuse_rows(bad, message, labels=None, end=""):
    """Refuse the rows that are ``bad``, (N,) of bool, and name them between the message and its end."""
    if np.any(bad):
        raise InputError(f"{message} in {rows_text(bad, labels)}{end}")


def stated_depth_unit(text, where):
    """Return "fraction", "percent" or "ppm" as a text states it, None for an empty text; refuse any other."""
    text = text.strip().lower()
    found = [unit for unit, words in DEPTH_WORDS.items() if re.search(words, text)]
    if len(found) > 1 or (text and not found):
        raise InputError(f"{where} is {text!r}, expected fraction, percent or ppm")
    return found[0] if found else None


def pick_unit(depth, stated, asked, name, firm):
    """Return the unit of depths: as asked for, else as stated (a firm one may not be contradicted), else as guessed."""
    if asked not in ("auto", *DEPTH_UNITS):
        raise InputError(f"depth_unit must be auto, fraction, percent or ppm; received {asked!r}")
    if stated and firm and asked not in ("auto", stated):
        raise InputError(f"{name}: depths are in {stated}, but data.depth_unit is {asked}; expected auto")
    unit = asked if asked != "auto" else stated
    if unit is None:
        finite = depth[np.isfinite(depth)]
        median = float(np.median(finite)) if finite.size else float("nan")
        unit = next((unit for unit, (low, high) in DEPTH_RANGES.items() if low <= median <= high), None)
        if unit is None:
            ratio = "rprs" if median < 1 else "rprs [%]"
            hint = f"; if these are radius ratios, give --columns 'wavelength,{ratio},error'" * firm  # one spectrum
            raise InputError(
                f"{name}: the unit of the depths cannot be guessed from their median {median:.4g}; "
                f"state depth_unit as fraction, percent or ppm{hint}"
            )
        logger.warning(
            "%s: depth unit guessed as %s (median %.4g); state data.depth_unit to be sure", name, unit, median
        )
    return unit


def to_dataset(survey, targets=None, auxiliary=(), depth_unit="auto", width="auto"):
    """Turn a `Survey` into a checked `preprocessing.Dataset`; arguments are those of ``loaders.load_dataset``."""
    name, shape = survey.name, survey.spectra.shape
    if shape != survey.errors.shape:
        raise InputError(f"{name}: errors have shape {survey.errors.shape}, spectra {shape}")
    if 0 in shape:
        raise InputError(f"{name}: spectra have shape {shape}, expected at least one row and one bin")
    unit = pick_unit(survey.spectra, survey.depth_unit, depth_unit, name, survey.states_unit)
    factor = DEPTH_UNITS[unit]
    for column, values in {
        **{key: target.values for key, target in survey.targets.items()},
        **survey.auxiliary,
    }.items():
        if len(values) != shape[0]:
            raise InputError(f"{name}: {len(values)} values of {column} for {shape[0]} spectra")
    order = wavelength_order(survey.wavelength, shape[1], name)
    columns, table = _targets(survey, list((survey.default_targets or survey.targets) if targets is None else targets))
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


def wavelength_order(wavelength, n_bins, name):
    """Return the slice that makes wavelengths (n_bins,) in micron ascend; refuse those in no order."""
    if wavelength.shape != (n_bins,):
        raise InputError(f"{name}: {wavelength.size} wavelengths for spectra of {n_bins} bins")
    if not (wavelength.min() >= MICRON_RANGE[0] and wavelength.max() <= MICRON_RANGE[1]):  # nor is NaN
        raise InputError(
            f"{name}: wavelengths from {wavelength.min():.6g} to {wavelength.max():.6g}, expected micron, "
            f"{MICRON_RANGE[0]:g} to {MICRON_RANGE[1]:g}"
        )
    steps = np.diff(wavelength)
    if (steps > 0).all():
        return slice(None)
    if (steps < 0).all():
        logger.info("%s: wavelengths descend; their order is reversed", name)
        return slice(None, None, -1)
    wrong, repeated = min((steps <= 0).sum(), (steps >= 0).sum()), n_bins - len(np.unique(wavelength))
    raise InputError(
        f"{name}: wavelengths are not sorted: {wrong} bins out of order and {repeated} duplicate, expected ascending"
    )


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
    return values * (2.0 if width == "half" else 1.0)


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
    if len(values) > 1 and (values == values[0]).all():
        raise InputError(f"{survey.name}: target {key} is {values[0]:g} in all {len(values)} rows; nothing to learn")
    if stored == scale:
        return values
    if scale == "linear":
        return 10.0**values
    refuse_rows(values <= 0, f"{survey.name}: {key} is learnt as log10 but is not positive", survey.labels)
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
    return np.column_stack([survey.auxiliary[name] for name in names])


def _test_rows(rows, n_rows, name):
    if rows is None:
        return None
    rows = np.asarray(rows)
    is_mask = rows.shape == (n_rows,) and n_rows > 2 and np.isin(rows, (0, 1)).all()
    good = rows.ndim == 1 and rows.dtype.kind in "iu" and rows.size and rows.min() >= 0 and rows.max() < n_rows
    if is_mask or not good:
        raise InputError(
            f"{name}: test_rows must be row numbers from 0 to {n_rows - 1}, received "
            f"{'a mask of 0 and 1' if is_mask else f'{rows.dtype} of shape {rows.shape}'}"
        )
    return np.unique(rows)


# --- checks ---


def check_dataset(data, labels=None):
    """Refuse a data set that cannot be used, with one line: what is wrong, and in which rows.

    NaN is looked for here and in the input of a network (``preprocessing.Scaler``), and nowhere else.
    """
    _check_texts(data)
    auxiliary = [] if data.auxiliary is None else zip(data.auxiliary_names, data.auxiliary.T)
    columns = {f"AMP {key}": values for key, values in zip(data.amp_names, data.amps.T)}
    columns |= {f"auxiliary input {name}": values for name, values in auxiliary}
    for name, values in (("spectra", data.spectra), ("errors", data.errors)):
        refuse_rows(~np.isfinite(values).all(axis=1), f"{data.name}: {name} hold NaN or infinite values", labels)
    for what, values in columns.items():
        refuse_rows(~np.isfinite(values), f"{data.name}: {what} is NaN or infinite", labels)
    refuse_rows((data.errors <= 0).any(axis=1), f"{data.name}: errors must be positive, but are not", labels)
    check_spectra(data.spectra, data.errors, data.wavelength, data.name, labels)
    for what, values in columns.items():
        _check_column(values, f"{data.name}: {what}", labels)
    for parameter, values in zip(data.amp_table, data.amps.T):
        _check_amp(parameter, values, data.name, labels)
    _warn_if_coarse(data)


def _check_texts(data):
    """Refuse names that cannot be printed, or that could not be written to the result files at the end of a run."""
    labels = {"file": [data.name], "AMP": data.amp_names, "unit": [amp.unit for amp in data.amp_table]}
    labels |= {"auxiliary input": data.auxiliary_names, "molecule curve": tuple(data.molecule_curves)}
    for what, names in labels.items():
        for name in names:
            longest = 4096 if what == "file" else 200
            if not name.isprintable() or len(name) > longest or not (name.strip() or what == "unit"):
                shown = ascii(name if len(name) <= 60 else name[:60] + "...")
                raise InputError(f"{what} {shown}: expected printable text of at most {longest} letters")


def check_spectra(spectra, errors, wavelength, name, labels=None):
    """Refuse depths and errors (N, n_bins) that no planet has."""

    def refuse(bad, problem):
        refuse_rows(bad, f"{name}: {problem}", labels, FILL)

    refuse((errors >= 1).any(axis=1), "errors of the whole depth of the star (1 as a fraction) or more")
    of_bin, of_row, of_all = np.median(errors, axis=0), np.median(errors, axis=1), np.median(errors)
    with np.errstate(divide="ignore", invalid="ignore"):  # errors of zero
        far_bin, far_row = is_far(of_bin / of_all), is_far(of_row / of_all)
        far = is_far(errors / (of_row[:, None] * (of_bin / of_all))).any(axis=1)
    where = ", ".join(f"{micron:.4g}" for micron in wavelength[far_bin][:5])
    factor = f"more than a factor {MAX_ERROR_RATIO:g}"
    refuse(np.full(len(errors), far_bin.any()), f"errors at {where} micron {factor} from those of all bins")
    refuse(far_row, f"errors {factor} from those of all spectra")
    refuse(far, f"errors {factor} from those of the same bin and the same spectrum")
    of_row = np.median(spectra, axis=1, keepdims=True)
    bad = (of_row[:, 0] <= 0) | (of_row[:, 0] >= 1)
    refuse(bad, "median depth is not between 0 and 1 (as a fraction; is depth_unit right?)")
    refuse(of_row[:, 0] < LEAST_DEPTH, "median depth is below 1 ppm (is depth_unit right?)")
    refuse((np.abs(spectra) >= 1).any(axis=1), "depths of the whole star (1 as a fraction) or more")
    below = (spectra < -MAX_SIGMA_BELOW_ZERO * errors).any(axis=1)
    refuse(below, f"depths below zero by more than {MAX_SIGMA_BELOW_ZERO:g} errors")
    with np.errstate(over="ignore"):
        relative = spectra / of_row  # (N, n_bins)
    far = relative > MAX_DEPTH_RATIO * np.maximum(np.median(relative, axis=0), 1)
    far &= spectra - MAX_DEPTH_RATIO * of_row > MAX_SIGMA_BELOW_ZERO * errors
    refuse(far.any(axis=1), f"depths more than {MAX_DEPTH_RATIO:g} times those beside them")


def is_far(ratio):
    """Whether an error is too many times the one expected, or too small a part of it."""
    return (ratio > MAX_ERROR_RATIO) | (ratio < 1 / MAX_ERROR_RATIO)


def _check_column(values, what, labels):
    """Refuse values (N,) of an AMP or an auxiliary input that lie far from the rest of their column."""
    refuse_rows(np.abs(values) > MAX_VALUE, f"{what} is beyond {MAX_VALUE:g}", labels, FILL)
    low, high = np.quantile(values, 0.05, method="higher"), np.quantile(values, 0.95, method="lower")
    if high > low:
        far = np.abs(values - np.clip(values, low, high)) > MAX_WIDTHS_AWAY * (high - low)
        refuse_rows(far, f"{what} is far from {low:.4g} to {high:.4g}, where nine tenths of it lie,", labels, FILL)


def _check_amp(parameter, values, name, labels):
    """Refuse values (N,) of a known AMP beyond what any planet has, and name the unit that they may be in instead."""
    known = AMPS.get(parameter.key)
    kind = "VMR" if known and known.kind == "molecule" else parameter.key
    if kind not in PLAUSIBLE or parameter.unit != known.unit:
        return
    (low, high), log = PLAUSIBLE[kind], parameter.scale == "log10"
    linear = _power(values) if log else values
    bad = (linear < low) | (linear > high)
    if bad.any():
        unit = known.unit or "mixing ratio"
        refuse_rows(
            bad, f"{name}: AMP {parameter.key} from {values[bad].min():.4g} to {values[bad].max():.4g}", labels,
            f", expected {parameter.key} in {unit}, {'log10 of ' if log else ''}{low:g} to {high:g}"
            f"{_likely_units(kind, values, log, unit)}",
        )  # fmt: skip


def _likely_units(kind, values, log, unit):
    """Return "; received UNIT?" with the units in which a column (N,) would be plausible; "" if there are none."""
    (low, high), found = PLAUSIBLE[kind], []
    for name, factor in {unit: 1.0, **OTHER_UNITS.get(kind, {})}.items():
        for what, linear in ((name, values), (f"log10 of {name}", _power(values))):
            as_read = what == (f"log10 of {unit}" if log else unit)
            if not as_read and (linear * factor > low).all() and (linear * factor <= high).all():
                found.append(what)
        if found and name == unit:
            break
    return f"; received {' or '.join(found[:2])}?" if found else ""


def _power(values):
    with np.errstate(over="ignore", under="ignore"):
        return 10.0**values


def _warn_if_coarse(data):
    """Warn of depths that are rounded to steps larger than their errors, as those in float16 are."""
    sample = data.spectra[:: max(1, data.spectra.size // 200_000)]
    values = np.unique(sample)
    if 1 < len(values) < sample.size / 2:
        step, error = float(np.median(np.diff(values))), float(np.median(data.errors))
        if step > error:
            message = "%s: depths are stored in steps of %.2g, coarser than their errors of %.2g"
            logger.warning(message, data.name, step, error)
