"""Checks of a data set: what would spoil a run is refused, with one line that says what, and in which rows."""

import logging

import numpy as np

from constants import AMPS, JUPITER_MASS, JUPITER_RADIUS
from preprocessing import rows_text
from runio.log import InputError

logger = logging.getLogger(__name__)

# Limits of the checks of plausibility
MAX_ERROR_RATIO = 1000.0  # of an error to the one expected from its bin and its spectrum, and of that to this
MAX_DEPTH_RATIO = 10.0  # of a depth to the one expected from its bin and its spectrum
MAX_SIGMA_BELOW_ZERO = 10.0  # a depth further below zero than this many errors is not noise
MAX_WIDTHS_AWAY = 50.0  # of a value from its column, in widths of the range that holds nine tenths of the column
MAX_VALUE = 1e35  # of an AMP or an auxiliary input in any unit; the fill value of netCDF is 1e37

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
    _refuse_first(data.name, _implausible_columns(columns), labels)
    _check_amps(data, labels)
    _warn_if_coarse(data)


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


def _implausible_columns(columns):
    """Yield (what is wrong, which rows) of AMPs and auxiliary inputs that lie far from the rest of their column."""
    for what, values in columns:
        yield f"{what} beyond {MAX_VALUE:g}", np.abs(values) > MAX_VALUE
        low, high = np.quantile(values, 0.05, method="higher"), np.quantile(values, 0.95, method="lower")
        width = max(high - low, 0.0)
        far = (values < low - MAX_WIDTHS_AWAY * width) | (values > high + MAX_WIDTHS_AWAY * width)
        yield f"{what} far from {low:.4g} to {high:.4g}, where nine tenths of its values are,", far & (width > 0)


def _warn_if_coarse(data):
    """Say that depths are stored in steps larger than their errors (such as float16)."""
    sample = data.spectra[:: max(1, data.spectra.size // 200_000)]
    values = np.unique(sample)
    if 1 < len(values) < sample.size / 2:
        step, error = float(np.median(np.diff(values))), float(np.median(data.errors))
        if step > error:
            logger.warning(
                "%s: depths are stored in steps of %.2g, coarser than their errors of %.2g", data.name, step, error
            )


def _check_amps(data, labels):
    """Refuse known AMPs beyond what any planet has, and name the unit that they may be in instead."""
    for parameter, values in zip(data.amp_table, data.amps.T):
        known = AMPS.get(parameter.key)
        kind = "VMR" if known and known.kind == "molecule" else parameter.key
        if kind not in PLAUSIBLE or parameter.unit != known.unit:
            continue
        (low, high), log = PLAUSIBLE[kind], parameter.scale == "log10"
        with np.errstate(over="ignore", under="ignore"):
            linear = 10.0**values if log else values
        bad = (linear < low) | (linear > high)
        if bad.any():
            unit = known.unit or "mixing ratio"
            likely = _likely_units(kind, values, log, unit)
            raise InputError(
                f"{data.name}: AMP {parameter.key} from {values[bad].min():.4g} to {values[bad].max():.4g} in "
                f"{rows_text(bad, labels)}, expected {parameter.key} in {unit}, {'log10 of ' if log else ''}{low:g} to "
                f"{high:g}{likely and '; received ' + likely + '?'}"
            )


def _likely_units(kind, values, log, unit):
    """Return the units in which a column would lie within the plausible range, as text; "" without any."""
    (low, high), found = PLAUSIBLE[kind], []
    for name, factor in {unit: 1.0, **OTHER_UNITS.get(kind, {})}.items():
        with np.errstate(over="ignore", under="ignore"):
            readings = {name: values, f"log10 of {name}": 10.0**values}
        readings.pop(f"log10 of {unit}" if log else unit, None)
        found += [
            what
            for what, linear in readings.items()
            if (linear * factor > low).all() and (linear * factor <= high).all()
        ]
        if found and name == unit:
            break
    return " or ".join(found[:2])
