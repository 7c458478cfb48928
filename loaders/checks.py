"""What no data set may hold: values, depths and errors that would poison a run are refused in one line."""

import numpy as np

from constants import AMPS
from preprocessing import rows_text

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
    for amp, values in zip(data.amp_table, data.amps.T):
        if amp.scale == "linear" and amp.key in AMPS:  # a radius, a temperature
            yield f"AMP {amp.key} not positive", (values <= 0) & (np.quantile(values, 0.05, method="higher") > 0)


def _far(ratio, factor):
    return (ratio > factor) | (ratio < 1 / factor)
