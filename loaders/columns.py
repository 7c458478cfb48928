"""What each column of the table of a spectrum holds: told by its name, or else by what its numbers can be."""

import logging
import re

import numpy as np

from loaders.dataset import DEPTH_UNITS, MAX_SIGNAL, MICRON, MIN_SIGNAL, stated_depth_unit
from loaders.tables import SKIP, name_and_unit, read_table
from runio.log import InputError

logger = logging.getLogger(__name__)

# Names as people write them: lower case, without blanks, underscores, hyphens, brackets and units.
NAMES = {
    "wavelength": "wavelength wavelengths wave waves wav wl wls wlc wlgrid lam lambda centralwavelng centralwavelength "
    "um micron microns wavelengthcenter wavelengthcentre wavecenter wavecentre instrumentwlgrid wavenumber wavenumbers",
    "width": "bandwidth width widths binwidth binwidths fullwidth halfwidth binsize hwhm instrumentwidth",
    "depth": "depth depths transitdepth trandep pltrandep trdepth tr trval td rprs2 rp/rs^2 rp/rs**2 rp2/rs2 rp^2/rs^2 "
    "rprs^2 rp/r*^2 rp/rstar^2 rp^2 rp2 rp^2value dppm spectrum instrumentspectrum",
    "ratio": "ratio rprs rp/rs rpr* rp/r* rprstar rp/rstar radiusratio rpvalue plratror ratror ror",
    "error": "error errors err errs sigma uncertainty uncertainties unc noise instrumentnoise std",
    "instrument": "instrument",
}
AFFIXES = {  # words that stand before or after such a name
    "error": "error errors err errs uncertainty uncertainties unc sigma sig std e",
    "width": "d delta half full bin hwhm width widths halfwidth halfwidths fullwidth fullwidths",
    "change": "d delta",
    "high": "1 up upper high hi pos plus +",
    "low": "2 down dn lower low lo neg minus",
    "wave_low": "low lower lo min start left",
    "wave_high": "high higher hi up upper max end right",
}
NAMES, AFFIXES = ({key: set(words.split()) for key, words in table.items()} for table in (NAMES, AFFIXES))
LENGTHS = NAMES["wavelength"] | NAMES["width"]

EDGES, ERRORS = ("wave_low", "wave_high"), ("error", "error_high", "error_low")
ROLES = ("wavelength", *EDGES, "width", "depth", *ERRORS, "ratio", *(f"ratio_{e}" for e in ERRORS), "instrument")

READINGS = {  # orders of columns without known names that are tried, and who writes them
    "wavelength,depth,error": "three columns",
    "wavelength,width,depth,error": "ExoMAST, POSEIDON",
    "wavelength,depth,error,full_width": "TauREx",
    "wave_low,wave_high,depth,error": "edges, PLATON",
    "wavelength,depth,error_high,error_low": "two errors",
    "wavelength,width,depth,error_high,error_low": "a width and two errors",
    "wavelength,depth,error_high,error_low,full_width": "two errors and a width",
    "wave_low,wave_high,depth,error_high,error_low": "edges and two errors",
}
LAYOUTS = {  # what --columns takes instead of names
    "taurex": "wavelength,depth,error,full_width",
    "poseidon": "wavelength,half_width,depth,error",
    "platon": "wave_low,wave_high,depth,error",
}

# Limits of what columns can hold
CLEAR_SIGNAL = 3.0  # below it, depths have to scatter like their errors
MIN_SCATTER = 0.5  # of depths from bin to bin, in errors; noise gives about 1
WIDTH_TO_SPACING = (0.02, 1.3)  # of a column that can hold widths: from sparse bands to bins that overlap a little
TOUCH = 0.1  # edges of neighbours that are this close meet, in half widths of the narrower bin
MAX_SIDES = 3.0  # ratio of the two errors of a depth
DEPTHS = (1e-7, 1.0)  # range of the median depth as a fraction

WAVENUMBERS = {"cm-1", "1/cm", "cm^-1", "cm**-1", "1 / cm"}


def plain(name):
    """Return a column's name in lower case, without its unit and punctuation."""
    name = re.sub(r"[ _-](ppm|percent|um|micron|microns|nm|angstrom|aa)$", "", name.strip().lower())
    return re.sub(r"[ _()\[\]{}$\\-]", "", name)


def role_of(name):
    """Return what a column of this name is for, one of ``ROLES``, or None."""
    word = plain(name)
    for role, names in NAMES.items():
        if word in names:
            return role
    for role in ("wave_low", "wave_high"):
        if _without(word, role) & (NAMES["wavelength"] | {"edge", "bin"}):
            return role
    bases = _without(word, "width") | _without(word, "error")
    if bases & LENGTHS or any(_without(base, "width") & LENGTHS for base in bases):
        return "width"
    for side in ("high", "low"):
        for kind in map(_error_of, _without(word, side)):
            if kind:
                return f"{kind}_{side}"
    return _error_of(word)


def _without(word, affixes):
    """Return what may be left of a word without one of the ``AFFIXES`` before it or behind it."""
    before = {word.removeprefix(affix) for affix in AFFIXES[affixes] if word.startswith(affix)}
    return before | {word.removesuffix(affix) for affix in AFFIXES[affixes] if word.endswith(affix)}


def _error_of(word):
    """Return "error", "ratio_error" or None for the plain name of an error."""
    bases = _without(word, "error")
    if word in NAMES["error"] or (bases | _without(word, "change")) & NAMES["depth"]:
        return "error"
    return "ratio_error" if bases & {"rp", *NAMES["ratio"]} else None


def width_kind(name, others=()):
    """Return what a column's name says of its widths: "full", "half", an "error" of the wavelength, or None.

    The names of the other columns may show which tool wrote the table: Eureka! and exoTEDRF write half widths.
    """
    word = plain(name)
    if "half" in word or word == "hwhm" or {plain(o) for o in others} & {"rp^2value", "rpvalue", "dppm"}:
        return "half"
    if _without(word, "error") & NAMES["wavelength"]:
        return "error"
    return "full" if "full" in word or word == "bandwidth" else None


def stated_depth(table, name):
    """Return the unit of depths or errors that a table states for a column, or None."""
    unit = stated_depth_unit(table.units.get(name, ""), f"{table.path}: the unit of column {name!r}")
    if not unit and plain(name).startswith("pltrandep"):
        return "percent"  # the archive's definition of the column
    ending = re.search(r"(ppm|percent)$", re.sub(r"[ _-]?err(or)?s?$", "", name.lower()))
    return unit or (ending[1] if ending else None)


def stated_length(table, name):
    """Return the unit of a column of wavelengths or widths: a key of ``MICRON``, "cm-1", or "" if none is stated."""
    unit = re.sub(r"[$\\{}]", "", table.units.get(name, "")).strip().lower()
    ending = re.search(r"[ _-](um|micron|microns|nm|angstrom|aa)$", name.lower())
    unit = unit or (ending[1] if ending else "")
    if unit in WAVENUMBERS or plain(name) in ("wavenumber", "wavenumbers"):
        return "cm-1"
    if unit not in MICRON:
        raise InputError(f"{table.path}: column {name!r} is in {unit!r}, expected micron, nm, angstrom, m or cm-1")
    return unit


def read_columns(path, columns, depth_unit):
    """Return the table of one spectrum, {role: name} of its columns, and the kind of its widths (`width_kind`).

    ``columns`` are names between commas, or one of ``LAYOUTS``, for the columns of the file; "auto" takes the file's.
    """
    names = None
    if columns != "auto":
        names = [name.strip() for name in LAYOUTS.get(columns.strip().lower(), columns).split(",")]
        unknown = [name for name in names if name != SKIP and not role_of(name_and_unit(name)[0])]
        if unknown:
            raise InputError(
                f"--columns {columns}: {', '.join(unknown)}: unknown; expected for each column, in order, one of "
                f"{', '.join(ROLES)}, or {SKIP} to leave it out; or else one of {', '.join(LAYOUTS)} alone"
            )
    table = read_table(path, names)
    return table, *_find_columns(table, depth_unit)


@np.errstate(all="ignore")  # missing and infinite values are refused later
def _find_columns(table, depth_unit):
    """Return {role: name of the column} of a table of one spectrum, and the kind of its widths.

    Names decide. Columns without known names are read in the one order that is possible. A table that fits no order, or
    more than one, is refused, and so is one whose names contradict its numbers.
    """
    roles = _by_name(table) if table.header else {}
    needed = {"wavelength": ("wavelength", "wave_low"), "depth": ("depth", "ratio"), "error": ERRORS}
    missing = [name for name, any_of in needed.items() if not set(roles) & set(any_of)]
    if not roles or (missing and table.header == "comment"):
        return _by_numbers(table, depth_unit)
    if missing:
        raise InputError(_no_columns(table, missing))
    used = [name for name in table.columns if name in roles.values() and name != roles.get("instrument")]
    columns = [table.numbers(name) for name in used]
    names = [next(role for role in roles if roles[role] == name) for name in used]
    unit = stated_depth(table, roles["depth"]) if "depth" in roles else "fraction"
    unit = unit if depth_unit == "auto" else depth_unit
    objection = _objection(dict(zip(names, columns)), unit)
    readings = _readings(columns, unit).items()
    others = [order for order, why in readings if not why and list(map(role_of, order.split(","))) != names]
    if objection and others:
        raise InputError(
            f"{table.path}: columns {', '.join(used)}: the names contradict the numbers ({objection}), which would fit "
            f"{' or '.join(others)}; other names can be given with --columns"
        )
    return roles, width_kind(roles["width"], used) if "width" in roles else None


def _by_name(table):
    """Return {role: name} of the columns whose names are known, as far as they are needed."""
    roles = {}
    for name in table.columns:
        role = role_of(name)
        if role is None or (role != "instrument" and table.is_empty(name)):
            continue
        if role in roles:
            raise InputError(f"{table.path}: columns {roles[role]!r} and {name!r} both look like the {role}")
        roles[role] = name
    bins = ["instrument", "wavelength", *(EDGES if set(roles) >= set(EDGES) else ["width"])]
    kinds = [("depth", ""), ("ratio", "ratio_"), ("ratio", "")]  # the error of a ratio may be called just that
    measured = [{kind: roles[kind], **_errors(roles, prefix)} for kind, prefix in kinds if kind in roles]
    measured.sort(key=lambda found: len(found) == 1)  # the first that has an error, if any
    return {role: roles[role] for role in bins if role in roles} | (measured[0] if measured else {})


def _errors(roles, prefix):
    """Return {role: name} of the column of errors, or of both columns of errors; an empty dict without."""
    found = {role: roles[prefix + role] for role in ERRORS if prefix + role in roles}
    return {"error": found["error"]} if "error" in found else found if len(found) == 2 else {}


def _no_columns(table, missing=("wavelength", "depth", "error"), reason=""):
    return (
        f"{table.path}: no column for {', '.join(missing)} among {', '.join(table.columns)}; {reason}expected columns "
        "named wavelength, depth, error and perhaps width, or --columns with a name for each"
    )


def _by_numbers(table, depth_unit):
    """Read columns without known names in the one order that is possible."""
    if len(table.columns) not in {len(order.split(",")) for order in READINGS}:
        raise InputError(_no_columns(table))
    readings = _readings([table.numbers(name) for name in table.columns], None if depth_unit == "auto" else depth_unit)
    fitting = [order for order, objection in readings.items() if not objection]
    if len(fitting) != 1:
        reason = f"fit no known order ({'; '.join(f'{order}: {why}' for order, why in readings.items())})"
        if fitting:
            reason = f"fit {' and also '.join(f'{order} ({READINGS[order]})' for order in fitting)}"
        raise InputError(_no_columns(table, reason=f"the numbers {reason}; "))
    names = fitting[0].split(",")
    logger.warning("%s: columns without known names are read as %s (%s)", table.path, fitting[0], READINGS[fitting[0]])
    roles = {role_of(name): column for name, column in zip(names, table.columns)}
    return roles, next((width_kind(name) for name in names if role_of(name) == "width"), None)


def _readings(columns, unit):
    """Return {order of ``READINGS``: objection or None} of columns (n_bins,); if bins touch in one, of that alone."""
    orders = {order: list(map(role_of, order.split(","))) for order in READINGS}
    readings = {order: dict(zip(roles, columns)) for order, roles in orders.items() if len(roles) == len(columns)}
    touching = {order: values for order, values in readings.items() if _touch(values)}
    return {order: _objection(values, unit) for order, values in (touching or readings).items()}


def _objection(values, unit):
    """Return why columns {role: (n_bins,)} cannot be what they are called, or None if they can."""
    ratio = "ratio" in values
    depth = values["ratio"] ** 2 if ratio else values["depth"]
    median = _median(depth)
    low, high = DEPTHS[0] / DEPTH_UNITS[unit or "fraction"], DEPTHS[1] / DEPTH_UNITS[unit or "ppm"]
    if not low <= median <= high:
        return f"a median depth of {median:.4g}; is depth_unit right?"
    errors = [_median(np.abs(values[e]) * (2 * values["ratio"] if ratio else 1)) for e in ERRORS if e in values]
    if any(not median / MAX_SIGNAL <= error <= median / MIN_SIGNAL for error in errors):
        return f"errors of {max(errors):.2g} for depths of {median:.2g}"
    if len(errors) == 2 and not max(errors) < MAX_SIDES * min(errors):
        return f"errors up and down of {errors[0]:.2g} and {errors[1]:.2g}"
    scatter = _median(np.abs(np.diff(depth))) / 0.954  # of the difference of two normal numbers, to their sigma
    if len(depth) > 4 and median / max(errors) < CLEAR_SIGNAL and scatter < MIN_SCATTER * max(errors):
        return "depths that scatter less than their errors"
    place, width = _bins(values)
    return None if width is None else misfit(place, width)


def _bins(values):
    """Return centres and widths (n_bins,), which may be full or half; None without widths."""
    if "wave_low" in values:
        return (values["wave_low"] + values["wave_high"]) / 2, values["wave_high"] - values["wave_low"]
    return values["wavelength"], values.get("width")


def _touch(values):
    """Whether columns {role: (n_bins,)} make bins of which nearly all neighbours meet: only true widths do that."""
    place, width = _bins(values)
    if width is None or len(place) < 4:
        return False
    return any(_meet(place, factor * width).mean() > 0.8 for factor in (0.5, 1))


def _meet(place, half):
    """Say which bins of these centres and half widths (n_bins,) meet the next one at their edge, (n_bins - 1,)."""
    pairs = np.array([half[1:], half[:-1]])
    return np.abs(np.abs(np.diff(place)) - pairs.sum(axis=0)) < TOUCH * pairs.min(axis=0)


def _spacing_share(place, width):
    """Return the median width of bins (n_bins,) as a share of their spacing; NaN for one bin."""
    return _median(width / np.abs(np.gradient(place))) if len(place) > 1 else np.nan


def misfit(place, width):
    """Say what is wrong if a column (n_bins,) cannot hold the widths of bins at these places; None if it can."""
    share, (low, high) = _spacing_share(place, width), WIDTH_TO_SPACING
    return None if low <= share <= high else f"widths of {share:.2g} of the spacing of the bins"


def guess_width(place, width, kind, name):
    """Return "full" or "half" for widths (n_bins,) from the spacing of the bins; refuse those that may be either.

    Full widths of bins that touch are as large as the spacing. Widths of half the spacing are half widths of bins that
    touch, or full widths with gaps as large as the bins. They are half widths if bins of unequal widths meet, or if the
    column is called an error of the wavelength (``kind`` "error", such as wave_err).
    """
    share, touching = _spacing_share(place, width), _meet(place, width)
    unequal = np.abs(np.diff(width)) > 2 * TOUCH * np.maximum(width[1:], width[:-1])
    if 0.8 <= share <= 1.25 and kind != "error":
        guess = "full"
    elif (kind == "error" and share < 0.8) or (touching.sum() > 0.8 * len(touching) and (touching & unequal).sum() > 1):
        guess = "half"
    else:
        raise InputError(
            f"{name}: whether widths are half or full cannot be guessed (they are {share:.2f} of the spacing of the "
            "bins); state data.width as half or full, or name the column half_width or full_width with --columns"
        )
    logger.warning("%s: widths are guessed to be %s widths (%.2f of the spacing of the bins)", name, guess, share)
    return guess


def _median(values):
    """Return the median of the finite numbers among values; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else np.nan
