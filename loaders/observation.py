"""Read one observed transmission spectrum, and bring it to the wavelength grid that a network was trained on."""

import logging
import re
from dataclasses import dataclass, replace

import numpy as np

from loaders.dataset import (
    DEPTH_UNITS,
    MAX_DEPTH_RATIO,
    MAX_ERROR_RATIO,
    MAX_SIGMA_BELOW_ZERO,
    MICRON,
    depth_factor,
    wavelength_order,
)
from loaders.tables import read_table
from preprocessing import rows_text
from runio.config import clip
from runio.log import InputError, printable

logger = logging.getLogger(__name__)

# Column names as people write them: lower case, without blanks, underscores, brackets and units.
NAMES = {
    "wavelength": "wavelength wave wl wlgrid lambda lam wavelengths centralwavelng centralwavelength microns micron "
    "instrumentwlgrid wav",
    "width": "bandwidth width binwidth fullwidth halfwidth halfbandwidth binhalfwidth dwl dwave dlam dlambda "
    "deltawavelength deltawave wavelengtherr wavelengtherror waveerr wlerr wlwidth instrumentwidth binsize hwhm",
    "depth": "depth transitdepth trandep pltrandep trdepth rprs2 rp/rs^2 rp/rs**2 rp2/rs2 dppm spectrum "
    "instrumentspectrum",
    "error": "error err sigma uncertainty deptherr deptherror transitdeptherr transitdeptherror trdeptherr "
    "deptherrs rprs2err rp/rs^2err noise instrumentnoise unc deltadepth ddepth depthuncertainty "
    "rp/rs^2uncertainty rp/rs^2error",
    "error_high": "pltrandeperr1 errup errhigh errorhigh errorup depthup deptherrup deptherr1 errplus",
    "error_low": "pltrandeperr2 errlow errdown errorlow errordown depthlow deptherrlow deptherr2 errminus",
    "instrument": "instrument",
}
ROLES = {name: role for role, names in NAMES.items() for name in names.split()}

LEAST_ERROR = 1e-8  # of the depths: nothing that float32, and so a network, could tell from no error

STATED_DEPTH = {"%": "percent", "percent": "percent", "ppm": "ppm", "fraction": "fraction", "1": "fraction"}


@dataclass(frozen=True)
class Observation:
    """One observed spectrum.

    Attributes
    ----------
    wavelength : ndarray (n_bins,)
        Bin centres, micron, ascending.
    bin_width : ndarray (n_bins,) or None
        Full widths, micron.
    depth : ndarray (n_bins,)
        Transit depth (Rp/Rs)^2, as a fraction.
    error : ndarray (n_bins,)
        1-sigma error of each depth, as a fraction, positive.
    name : str
        File it came from.
    note : str
        What was stated and what guessed of units and widths, for reports.
    instrument : ndarray (n_bins,) of str or None
        What saw each bin, where the file has a column "instrument"; None without one.
    """

    wavelength: np.ndarray
    bin_width: np.ndarray | None
    depth: np.ndarray
    error: np.ndarray
    name: str
    note: str = ""
    instrument: np.ndarray | None = None


def read_observation(path, depth_unit="auto", width="auto"):
    """Read one spectrum from a table of text: CSV, ECSV, IPAC (.tbl) or columns between blanks.

    Columns are found by name; without names, four are wavelength, width, depth and error (ExoMAST), and three
    wavelength, depth and error. Errors up and down become the mean of their sizes.

    Parameters
    ----------
    path : path-like
    depth_unit : {"auto", "fraction", "percent", "ppm"}
        "auto" believes the file, and guesses only where it states none.
    width : {"auto", "full", "half"}
        What the widths are; "auto" believes the column's name, else compares them with the spacing of the bins.

    Returns
    -------
    Observation

    Raises
    ------
    ValueError
        With one line: missing columns, values that are missing or not numbers, wavelengths out of order, errors
        that are not positive, units or widths that cannot be guessed safely.
    """
    if width not in ("auto", "full", "half"):
        raise InputError(f"width must be auto, full or half; received {width!r}")
    table = read_table(path)
    roles = _roles(table)
    instrument = _instruments(table, roles.pop("instrument", None))
    values = {role: table.numbers(name) for role, name in roles.items()}
    for role, column in values.items():
        bad = ~np.isfinite(column)
        if bad.any():
            raise InputError(
                f"{path}: column {roles[role]!r} has missing or infinite values in "
                f"{rows_text(bad, table.lines)}, by line"
            )
    order = wavelength_order(
        values["wavelength"] * _micron(table, roles["wavelength"]), len(table), str(path), table.lines
    )
    depth, error, unit_note = _depth_and_error(table, roles, values, depth_unit)
    for problem, bad in _implausible(depth, error):
        if bad.any():
            raise InputError(
                f"{path}: {problem} in {rows_text(bad, table.lines)}, by line; is it a fill value, or another unit?"
            )
    wavelength = (values["wavelength"] * _micron(table, roles["wavelength"]))[order]
    bin_width, width_note = None, "no widths"
    if "width" in values:
        column = values["width"] * _micron(table, roles["width"], like=roles["wavelength"])
        bin_width, width_note = _full_width(column[order], wavelength, roles["width"], width, str(path))
    note = f"{unit_note}; {width_note}"
    instrument = None if instrument is None else instrument[order]
    return Observation(wavelength, bin_width, depth[order], error[order], str(path), note, instrument)


def _instruments(table, name):
    """Return the names in the column ``name`` as an array of text, short enough for a legend."""
    return None if name is None else np.array([clip(printable(cell.strip()), 40) for cell in table.columns[name]])


def _roles(table):
    """Return role to column name."""
    roles = {}
    if table.named:
        for name in table.columns:
            role = ROLES.get(_plain(name))
            if role in roles:
                raise InputError(f"{table.path}: columns {roles[role]!r} and {name!r} both look like the {role}")
            if role:
                roles[role] = name
    if not roles and len(table.columns) in (3, 4):
        places = ["wavelength", "width", "depth", "error"]
        if len(table.columns) == 3:
            places.remove("width")
        roles = dict(zip(places, table.columns))
        logger.warning("%s: columns without known names, taken as %s", table.path, ", ".join(places))
    missing = [r for r in ("wavelength", "depth") if r not in roles]
    if not {"error"} & set(roles) and not {"error_high", "error_low"} <= set(roles):
        missing.append("error")
    if missing:
        raise InputError(
            f"{table.path}: no column for {', '.join(missing)} among {', '.join(table.columns)}; "
            "expected columns named wavelength, width (optional), depth and error, or 4 (3) columns in this order"
        )
    if "error" in roles:
        roles.pop("error_high", None), roles.pop("error_low", None)
    return roles


def _plain(name):
    name = re.sub(r"\b(ppm|percent|um|micron|microns|nm)$|_(ppm|percent|um|micron|microns|nm)$", "", name.lower())
    return re.sub(r"[ _()\[\]-]", "", name or "micron")


def _micron(table, name, like=None):
    unit = table.units.get(name, table.units.get(like, "") if like else "").strip().lower()
    if not unit and name.lower().endswith("_nm"):
        unit = "nm"
    if unit not in MICRON:
        raise InputError(f"{table.path}: column {name!r} is in {unit!r}, expected micron, nm, angstrom or m")
    return MICRON[unit]


def _stated_unit(table, name):
    unit = table.units.get(name, "").strip().lower()
    if _plain(name).startswith("pltrandep") and unit in STATED_DEPTH | {"": None}:
        return STATED_DEPTH.get(unit, "percent")  # the archive's definition of the column
    if unit in STATED_DEPTH:
        return STATED_DEPTH[unit]
    if unit and unit not in ("dimensionless", "none", "-"):
        raise InputError(f"{table.path}: column {name!r} is in {unit!r}, expected fraction, percent (%) or ppm")
    ending = re.search(r"(ppm|percent)$", name.lower())
    return ending[1] if ending else "fraction" if unit else None


def _depth_and_error(table, roles, values, depth_unit):
    name = str(table.path)
    stated = _stated_unit(table, roles["depth"])
    factor = depth_factor(values["depth"], stated, depth_unit, name)
    unit = next(u for u, f in DEPTH_UNITS.items() if f == factor)
    how = "stated" if stated or depth_unit != "auto" else "guessed"
    depth = values["depth"] * factor
    middle = float(np.median(depth))
    if not 0 < middle < 1:
        raise InputError(f"{name}: median depth is {middle:.4g} as a fraction, expected 0 to 1; is depth_unit right?")
    sizes = []
    for role in ("error", "error_high", "error_low"):
        if role in roles:
            own = _stated_unit(table, roles[role]) if depth_unit == "auto" else None
            sizes.append(np.abs(values[role]) * (DEPTH_UNITS[own] if own else factor) * _sign(role, values[role]))
    error = np.mean(sizes, axis=0)
    bad = ~(error > 0)
    if bad.any():
        raise InputError(f"{name}: errors are not positive in {rows_text(bad, table.lines)}, by line")
    return depth, error, f"depths in {unit} ({how})"


def _implausible(depth, error):
    """Yield (what is wrong, which bins) of depths that no planet has, and error bars that are none."""
    middle, usual = np.median(depth), np.median(error)
    excess = np.maximum(depth - MAX_DEPTH_RATIO * middle, middle / MAX_DEPTH_RATIO - depth)
    yield "depths of the whole star (1 as a fraction) or more", np.abs(depth) >= 1
    yield (
        f"depths more than {MAX_DEPTH_RATIO:g} times, or less than a tenth of, their median",
        excess > MAX_SIGMA_BELOW_ZERO * error,
    )
    yield "errors of the whole depth of the star (1 as a fraction) or more", error >= 1
    yield (
        f"errors a factor {MAX_ERROR_RATIO:g} from their median",
        np.abs(np.log(error / usual)) > np.log(MAX_ERROR_RATIO),
    )
    yield f"errors below {LEAST_ERROR:g} of the depths", error < LEAST_ERROR * middle


def _sign(role, values):
    """Errors up and down may carry a sign; a lone error may not."""
    return np.where(values < 0, -1.0, 1.0) if role == "error" else 1.0


def _full_width(values, wavelength, column, asked, name):
    bad = values <= 0
    if bad.any():
        raise InputError(f"{name}: column {column!r} holds widths that are not positive in {rows_text(bad)}")
    kind, how = asked, "stated"
    if asked == "auto":
        plain = _plain(column)
        kind = "half" if "half" in plain or plain == "hwhm" else "full" if plain in ("bandwidth", "fullwidth") else None
        if kind is None:
            kind, how = _guess_width(values, wavelength, name), "guessed"
    full = values * (2.0 if kind == "half" else 1.0)
    bad = full > 2 * wavelength
    if bad.any():
        raise InputError(f"{name}: column {column!r} holds bins that reach below 0 micron in {rows_text(bad)}")
    return full, f"{kind} widths ({how})"


def _guess_width(values, wavelength, name):
    """Bins that touch have a full width of one spacing; half of that means half widths."""
    ratio = float(np.median(values / np.gradient(wavelength))) if len(wavelength) > 1 else float("nan")
    for kind, low, high in (("half", 0.4, 0.6), ("full", 0.8, 1.25)):
        if low <= ratio <= high:
            logger.warning("%s: widths guessed as %s (%.2f of the spacing of the bins)", name, kind, ratio)
            return kind
    raise InputError(
        f"{name}: whether widths are half or full cannot be guessed (they are {ratio:.2f} of the spacing of the bins); "
        "state width as half or full"
    )


def match_grid(observation, wavelength, bin_width=None, tolerance=0.05):
    """Bring an observation to the grid of a trained network, exactly or not at all.

    The same grid is taken as it is. A finer one is re-binned only if every trained bin is a union of whole observed
    bins, edge on edge: depth = sum(w d) / sum(w) and error = sqrt(sum(w^2 s^2)) / sum(w) with the widths w, which is
    the depth that the wide bin would have seen if the star were equally bright across it.

    Parameters
    ----------
    observation : Observation
    wavelength : ndarray (n_bins,)
        Trained bin centres, micron, ascending.
    bin_width : ndarray (n_bins,) or None
        Trained full widths, micron; without them only the same grid will do.
    tolerance : float
        Largest distance of two centres or edges that still count as the same, in units of the narrower bin's spacing.

    Returns
    -------
    Observation
        On the trained grid.

    Raises
    ------
    ValueError
        With one line, if neither is possible.
    """
    if _same_grid(observation, wavelength, bin_width, tolerance):
        return replace(observation, wavelength=wavelength, bin_width=bin_width)
    reason = "no bin widths to re-bin by" if bin_width is None or observation.bin_width is None else None
    groups = None if reason else _groups(observation, wavelength, bin_width, tolerance)
    if groups is not None:
        logger.warning(
            "%s: %d bins re-binned to the %d trained ones, edge on edge",
            observation.name,
            len(observation.wavelength),
            len(wavelength),
        )
        return _rebinned(observation, wavelength, bin_width, groups)
    reason = reason or "the edges of the bins do not coincide"
    seen = observation.wavelength
    raise InputError(
        f"{observation.name}: expected {len(wavelength)} bins from {wavelength[0]:.4g} to {wavelength[-1]:.4g} micron, "
        f"received {len(seen)} from {seen[0]:.4g} to {seen[-1]:.4g} ({reason})"
    )


def _spacing(wavelength):
    return np.gradient(wavelength) if len(wavelength) > 1 else np.array(wavelength) * 0.01


def _same_grid(observation, wavelength, bin_width, tolerance):
    if observation.wavelength.shape != wavelength.shape:
        return False
    if (np.abs(observation.wavelength - wavelength) > tolerance * _spacing(wavelength)).any():
        return False
    if bin_width is None or observation.bin_width is None:
        return True
    return bool((np.abs(observation.bin_width - bin_width) <= 2 * tolerance * bin_width).all())


def _groups(observation, wavelength, bin_width, tolerance):
    """Return for each trained bin the slice of observed bins it is made of; None if one is not a union of them."""
    low, high = observation.wavelength - observation.bin_width / 2, observation.wavelength + observation.bin_width / 2
    groups = []
    for left, right in zip(wavelength - bin_width / 2, wavelength + bin_width / 2):
        first, last = int(np.argmin(np.abs(low - left))), int(np.argmin(np.abs(high - right)))
        if first > last:
            return None
        slack = tolerance * observation.bin_width[first : last + 1].min()
        edges = np.abs(low[first + 1 : last + 1] - high[first:last])
        if abs(low[first] - left) > slack or abs(high[last] - right) > slack or (edges > slack).any():
            return None
        groups.append(slice(first, last + 1))
    return groups


def _rebinned(observation, wavelength, bin_width, groups):
    depth, error = np.empty(len(groups)), np.empty(len(groups))
    for i, group in enumerate(groups):
        weight = observation.bin_width[group] / observation.bin_width[group].sum()
        depth[i] = weight @ observation.depth[group]
        error[i] = np.sqrt((weight**2) @ (observation.error[group] ** 2))
    note = f"{observation.note}; re-binned from {len(observation.wavelength)} bins"
    seen = observation.instrument
    if seen is not None:
        seen = np.array([" + ".join(dict.fromkeys(seen[group])) for group in groups])
    return replace(
        observation,
        wavelength=wavelength, bin_width=bin_width, depth=depth, error=error, note=note, instrument=seen,
    )  # fmt: skip
