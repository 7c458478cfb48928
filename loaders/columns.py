"""What each column of a table of one spectrum holds: by its name, and without known names by what is possible."""

import logging
import re

import numpy as np

from loaders.dataset import DEPTH_UNITS, MICRON
from loaders.tables import SKIP, name_and_unit
from runio.log import InputError

logger = logging.getLogger(__name__)

# Names as people write them: lower case, without blanks, underscores, hyphens, brackets and units.
NAMES = {
    "wavelength": "wavelength wavelengths wave waves wav wl wls wlc wlgrid lam lambda centralwavelng centralwavelength "
    "um micron microns wavelengthcenter wavelengthcentre wavecenter wavecentre instrumentwlgrid wavenumber wavenumbers",
    "width": "bandwidth width widths binwidth binwidths fullwidth halfwidth binsize hwhm instrumentwidth",
    "depth": "depth depths transitdepth trandep pltrandep trdepth tr trval td rprs2 rp/rs^2 rp/rs**2 rp2/rs2 rp^2/rs^2 "
    "rprs^2 rp/r*^2 rp/rstar^2 rp^2 rp2 rp^2value dppm spectrum instrumentspectrum",
    "ratio": "rprs rp/rs rpr* rp/r* rprstar rp/rstar radiusratio rpvalue plratror ratror ror",
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

EDGES, ERRORS = {"wave_low", "wave_high"}, ("error", "error_high", "error_low")
ROLES = (
    "wavelength",
    *sorted(EDGES),
    "width",
    "depth",
    *ERRORS,
    "ratio",
    *(f"ratio_{e}" for e in ERRORS),
    "instrument",
)

READINGS = {  # orders of columns without known names that are tried, and who writes them
    "wavelength,depth,error": "three columns",
    "wavelength,width,depth,error": "ExoMAST, POSEIDON",
    "wavelength,depth,error,full_width": "TauREx",
    "wave_low,wave_high,depth,error": "edges, as PLATON has them",
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

# Limits of what is possible
MAX_SIGNAL = 1e5  # of a depth to its error; the best spectra of JWST stay below 1e4
MIN_SIGNAL = 1.0  # a median below it is that of errors that were taken for depths
CLEAR_SIGNAL = 3.0  # below it, depths have to scatter like their errors
MIN_SCATTER = 0.5  # of depths from bin to bin, in errors; noise gives about 1
WIDTH_TO_SPACING = (0.02, 1.3)  # of a column that can hold widths: from sparse bands to bins that overlap a little
MAX_SIDES = 3.0  # ratio of the two errors of a depth
DEPTHS = (1e-7, 1.0)  # range of the median depth as a fraction

WAVENUMBERS = {"cm-1", "1/cm", "cm^-1", "cm**-1", "1 / cm"}
STATED_UNITS = {"%": "percent", "percent": "percent", "per cent": "percent", "0.01": "percent"}
STATED_UNITS |= dict.fromkeys(("ppm", "1e-06", "parts per million"), "ppm")
STATED_UNITS |= dict.fromkeys(("fraction", "1", "dimensionless", "none", "-"), "fraction")


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
    """Return whether a column's name says that it holds "full" or "half" widths, or an "error" of the wavelength.

    None if it does not say. The names of the other columns may show which tool wrote the table: Eureka! and exoTEDRF
    write half widths.
    """
    word = plain(name)
    if "half" in word or word == "hwhm" or {plain(o) for o in others} & {"rp^2value", "rpvalue", "dppm"}:
        return "half"
    if _without(word, "error") & NAMES["wavelength"]:
        return "error"
    return "full" if "full" in word or word == "bandwidth" else None


def stated_depth(table, name):
    """Return the unit of depths or errors that a table states for a column, or None."""
    unit = table.units.get(name, "").strip().lower()
    if plain(name).startswith("pltrandep") and unit in ("", *STATED_UNITS):
        return STATED_UNITS.get(unit, "percent")  # the archive's definition of the column
    if unit and unit not in STATED_UNITS:
        raise InputError(f"{table.path}: column {name!r} is in {unit!r}, expected fraction, percent (%) or ppm")
    ending = re.search(r"(ppm|percent)$", re.sub(r"[ _-]?err(or)?s?$", "", name.lower()))
    return STATED_UNITS[unit] if unit else ending[1] if ending else None


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


def parse_columns(text):
    """Return the names that ``--columns`` gives, between commas or as one of ``LAYOUTS``; None for "auto"."""
    if text == "auto":
        return None
    names = [name.strip() for name in LAYOUTS.get(text.strip().lower(), text).split(",")]
    unknown = [name for name in names if name != SKIP and not role_of(name_and_unit(name)[0])]
    if unknown:
        raise InputError(
            f"--columns {text}: {', '.join(unknown)}: unknown; expected for each column, in order, {', '.join(ROLES)} "
            f"or {SKIP} for none; or one of {', '.join(LAYOUTS)}"
        )
    return names


@np.errstate(all="ignore")  # missing and infinite values are refused later
def find_columns(table, depth_unit="auto"):
    """Return {role: name of the column} of a table of one spectrum, and "full", "half" or None for its widths.

    Names decide. Columns without known names are read in the one order that is possible. A table that fits no order, or
    more than one, is refused, and so is one whose names contradict its numbers.
    """
    roles = _by_name(table) if table.header else {}
    missing = _missing(roles)
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
    others = [order for order in _fitting(columns, unit) if list(map(role_of, order.split(","))) != names]
    if objection and others:
        raise InputError(
            f"{table.path}: columns {', '.join(used)}: the names contradict the numbers ({objection}), which would fit "
            f"{' or '.join(others)}; --columns gives other names"
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
    if "ratio" in roles and "depth" not in roles:  # its error may be called just that
        roles = {f"ratio_{role}" if role in ERRORS else role: name for role, name in roles.items()}
    keep = ["instrument", "wavelength", *(EDGES if set(roles) >= EDGES else ["width"])]
    for prefix, kind in (("", "depth"), ("ratio_", "ratio")):
        if kind in roles and _error_roles(roles, prefix):
            keep += [kind, *_error_roles(roles, prefix)]
            break
    else:
        keep += ["depth", "ratio"]
    return {role: roles[role] for role in keep if role in roles}


def _error_roles(roles, prefix):
    """Return the roles of the error, or of the two errors, that there are; an empty list without."""
    one, *two = [prefix + role for role in ERRORS]
    return [one] if one in roles else two if set(two) <= set(roles) else []


def _missing(roles):
    """Return the names of what a spectrum needs and these roles lack."""
    has = {
        "wavelength": "wavelength" in roles or set(roles) >= EDGES,
        "depth": "depth" in roles or "ratio" in roles,
        "error": bool(_error_roles(roles, "") or _error_roles(roles, "ratio_")),
    }
    return [name for name, there in has.items() if not there]


def _no_columns(table, missing=("wavelength", "depth", "error"), reason=""):
    return (
        f"{table.path}: no column for {', '.join(missing)} among {', '.join(table.columns)}; {reason}expected columns "
        "named wavelength, depth, error and perhaps width, or --columns with a name for each"
    )


def _by_numbers(table, depth_unit):
    """Read columns without known names in the one order that is possible."""
    orders = [order for order in READINGS if len(order.split(",")) == len(table.columns)]
    if not orders:
        raise InputError(_no_columns(table))
    columns = [table.numbers(name) for name in table.columns]
    unit = None if depth_unit == "auto" else depth_unit
    fitting = _fitting(columns, unit)
    if len(fitting) != 1:
        if fitting:
            reason = f"the numbers fit {' and also '.join(f'{o} ({READINGS[o]})' for o in fitting)}; "
        else:
            reasons = [f"{o}: {_objection(_named(o, columns), unit)}" for o in orders]
            reason = f"the numbers fit no known order ({'; '.join(reasons)}); "
        raise InputError(_no_columns(table, reason=reason))
    names = fitting[0].split(",")
    logger.warning("%s: columns without known names, read as %s (%s)", table.path, fitting[0], READINGS[fitting[0]])
    roles = {role_of(name): column for name, column in zip(names, table.columns)}
    return roles, next((width_kind(name) for name in names if role_of(name) == "width"), None)


def _named(order, columns):
    """Return {role: column} of columns in one of the orders of ``READINGS``."""
    return {role_of(name): column for name, column in zip(order.split(","), columns)}


def _fitting(columns, unit):
    """Return the orders of ``READINGS`` in which columns (n_bins,) are possible; if bins touch in one, no other is."""
    readings = {order: _named(order, columns) for order in READINGS if len(order.split(",")) == len(columns)}
    touching = {order: values for order, values in readings.items() if _touch(values)}
    return [order for order, values in (touching or readings).items() if not _objection(values, unit)]


def _objection(values, unit):
    """Return why columns {role: (n_bins,)} cannot be what they are called, or None if they can."""
    ratio = "ratio" in values
    depth = values["ratio"] ** 2 if ratio else values["depth"]
    median = _median(depth)
    low, high = DEPTHS[0] / DEPTH_UNITS[unit or "fraction"], DEPTHS[1] / DEPTH_UNITS[unit or "ppm"]
    if not low <= median <= high:
        return f"a median depth of {median:.4g}; is depth_unit right?"
    names = [("ratio_" if ratio else "") + name for name in ERRORS]
    errors = [_median(np.abs(values[name]) * (2 * values["ratio"] if ratio else 1)) for name in names if name in values]
    if any(not median / MAX_SIGNAL <= error <= median / MIN_SIGNAL for error in errors):
        return f"errors of {max(errors):.2g} for depths of {median:.2g}"
    if len(errors) == 2 and not max(errors) < MAX_SIDES * min(errors):
        return f"errors up and down of {errors[0]:.2g} and {errors[1]:.2g}"
    scatter = _median(np.abs(np.diff(depth))) / 0.954  # of the difference of two normal numbers, to their sigma
    if len(depth) > 4 and median / max(errors) < CLEAR_SIGNAL and scatter < MIN_SCATTER * max(errors):
        return "depths that scatter less than their errors"
    place, width = _bins(values)
    if width is not None:
        spacing = _median(np.abs(np.diff(place)))
        share = np.divide(_median(width), spacing) if spacing else np.nan
        if not WIDTH_TO_SPACING[0] <= share <= WIDTH_TO_SPACING[1]:
            return f"widths of {share:.2g} of the spacing of the bins"
    return None


def _bins(values):
    """Return centres and widths (n_bins,), which may be full or half; None without widths."""
    if "wave_low" in values:
        return (values["wave_low"] + values["wave_high"]) / 2, values["wave_high"] - values["wave_low"]
    return values["wavelength"], values.get("width")


def _touch(values):
    """Whether the columns {role: (n_bins,)} make bins of which nearly all neighbours meet: no other column does."""
    place, width = _bins(values)
    if width is None or len(place) < 4:
        return False
    distance, pairs = np.abs(np.diff(place)), np.array([width[1:], width[:-1]])
    return any((np.abs(distance - f * pairs.sum(axis=0)) < 0.1 * pairs.min(axis=0)).mean() > 0.8 for f in (0.5, 1))


def _median(values):
    """Return the median of the finite numbers among values; NaN if there are none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else np.nan
