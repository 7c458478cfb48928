"""Read one observed transmission spectrum, and bring it to the wavelength grid that a network was trained on."""

import logging
from dataclasses import dataclass, replace

import numpy as np

from loaders.columns import ERRORS, MAX_SIDES, guess_width, misfit, read_columns, stated_depth, stated_length
from loaders.dataset import (
    DEPTH_UNITS,
    FILL,
    MAX_DEPTH_RATIO,
    MAX_ERROR_RATIO,
    MAX_SIGMA_BELOW_ZERO,
    MAX_SIGNAL,
    MICRON,
    MICRON_RANGE,
    MIN_SIGNAL,
    is_far,
    pick_unit,
    refuse_rows,
    wavelength_order,
)
from preprocessing import rows_text
from runio.config import clip
from runio.log import InputError, printable

logger = logging.getLogger(__name__)

RANGES = {"m": (5e-8, 1e-4), "nm": (200.0, 13_000.0), "angstrom": (2000.0, 130_000.0)}  # of wavelengths without a unit
GAP = 1.5  # distances to the two neighbours differ by more than this factor: there is a gap on one side
MIN_ERROR = 1e-8  # of the depths: a smaller error vanishes in float32, and so for a network
SAME = 0.05  # edges that are this close are the same, in widths of the narrower bin


@dataclass(frozen=True)
class Observation:
    """One observed spectrum."""

    wavelength: np.ndarray  # (n_bins,) centres, micron, ascending
    bin_width: np.ndarray | None  # (n_bins,) full widths, micron
    depth: np.ndarray  # (n_bins,) transit depth (Rp/Rs)^2, as a fraction
    error: np.ndarray  # (n_bins,) 1-sigma error of each depth, as a fraction, positive
    name: str  # file it came from
    note: str = ""  # which units and widths the file states and which were guessed, for reports
    instrument: np.ndarray | None = None  # (n_bins,) of str, if the file has a column "instrument"
    assumed_width: bool = False  # the file has no widths, and ``bin_width`` follows from the spacing of the bins
    planet: str = ""  # its name, if a planet file gives it


def read_observation(path, depth_unit="auto", width="auto", columns="auto"):
    """Return the `Observation` in a table of text (data/FORMATS.md); one that was read before is returned as it is.

    ``depth_unit`` ("fraction", "percent", "ppm") and ``width`` ("full", "half") are for files that do not state them.
    ``columns`` names the columns, between commas and with "-" for one to leave out, or is "taurex", "poseidon" or
    "platon". "auto" takes what the file states, and guesses only if it states nothing. Bad tables, and settings that
    contradict the file, raise a ValueError with one line.
    """
    if isinstance(path, Observation):
        return path
    if width not in ("auto", "full", "half"):
        raise InputError(f"width must be auto, full or half; received {width!r}")
    table, roles, kind = read_columns(path, columns, depth_unit)
    instrument = roles.pop("instrument", None)
    measured = [name for role, name in roles.items() if not role.startswith(("wave", "width"))]
    empty = np.all([np.isnan(table.numbers(name)) for name in measured], axis=0)
    if empty.any() and not empty.all():  # bins whose fit failed
        logger.warning("%s: no depth in %s; left out", path, rows_text(empty, table.lines))
        table = table.without(empty)
    values = {role: table.numbers(name) for role, name in roles.items()}
    for role, column in values.items():
        refuse_rows(~np.isfinite(column), f"{path}: column {roles[role]!r} has missing or infinite values", table.lines)
    depth, error, depth_note = _depth_and_error(table, roles, values, depth_unit)
    _check_observed(depth, error, path, table.lines, named=columns != "auto")
    order, wavelength, bin_width, note = _bins(table, roles, values, width, kind)
    assumed = bin_width is None and len(wavelength) > 1
    if assumed:
        bin_width, note = spacing_halves(wavelength).sum(axis=0), "widths from the spacing of the bins"
        logger.warning("%s: no widths in the file: bins are taken to reach half way to their neighbours", path)
    if instrument is not None:  # names short enough for a legend
        instrument = np.array([clip(printable(cell.strip()), 40) for cell in table.columns[instrument]])[order]
    note = f"{depth_note}; {note}"
    return Observation(wavelength, bin_width, depth[order], error[order], str(path), note, instrument, assumed)


# --- depths and errors ---


def _check_observed(depth, error, name, lines, named):
    """Refuse depths and errors (n_bins,) of one observed spectrum that no planet has.

    Errors larger than the depths are possible, but the columns are more probably exchanged, unless they were ``named``.
    """

    def refuse(bad, problem):
        refuse_rows(np.broadcast_to(bad, depth.shape), f"{name}: {problem}", lines, FILL)

    middle, usual = np.median(depth), np.median(error)
    excess = np.maximum(depth - MAX_DEPTH_RATIO * middle, middle / MAX_DEPTH_RATIO - depth)
    beside = f"depths more than {MAX_DEPTH_RATIO:g} times, or less than a tenth of, their median"
    refuse(not 0 < middle < 1, "median depth is not between 0 and 1 (as a fraction; is depth_unit right?)")
    refuse(~(error > 0), "errors are not positive")
    refuse(np.abs(depth) >= 1, "depths of the whole star (1 as a fraction) or more")
    refuse(excess > MAX_SIGMA_BELOW_ZERO * error, beside)
    refuse(error >= 1, "errors of the whole depth of the star (1 as a fraction) or more")
    refuse(is_far(error / usual), f"errors more than a factor {MAX_ERROR_RATIO:g} from their median")
    refuse(error < MIN_ERROR * middle, f"errors below {MIN_ERROR:g} of the depths")
    refuse(usual * MAX_SIGNAL < middle, f"errors below {1 / MAX_SIGNAL:g} of the depths (variances?)")
    exchanged = usual * MIN_SIGNAL > middle and not named
    refuse(exchanged, "errors larger than the depths (exchanged? if not, name the columns with --columns)")


def _depth_and_error(table, roles, values, depth_unit):
    """Return depths and their errors (n_bins,) as fractions, and what was stated, guessed or done."""
    path, ratio = table.path, "ratio" in values
    kind = "ratio" if ratio else "depth"
    name = roles[kind]
    stated = stated_depth(table, name)
    if ratio and not stated and np.median(values[kind]) > 1:
        received = f"received a median of {np.median(values[kind]):.4g}; in per cent? then name it {name} [%]"
        raise InputError(f"{path}: column {name!r}: expected radius ratios below 1, {received}")
    stated = stated or ("fraction" if ratio else None)
    unit = pick_unit(values[kind], stated, depth_unit, f"{path}: column {name!r}", firm=True)
    factor = DEPTH_UNITS[unit]
    note = f"depths in {unit} ({'stated' if stated or depth_unit != 'auto' else 'guessed'})"
    depth, sizes = values[kind] * factor, {}
    for role in (role for role in ERRORS if role in values):
        unit = stated_depth(table, roles[role])
        size = values[role] if role == "error" else np.abs(values[role])  # one of two may have a minus sign
        sizes[role] = size * (DEPTH_UNITS[unit] if unit else factor)
    error = sizes["error"] if "error" in sizes else _mean_error(path, sizes, table.lines)
    if ratio:
        depth, error = depth**2, 2 * depth * error
        note = f"depths are squared radius ratios ({name})"
        logger.warning("%s: column %r holds radius ratios, which are squared to depths, with their errors", path, name)
    return depth, error, note


def _mean_error(path, sizes, lines):
    """Return the mean of two errors (n_bins,); where one is zero, the other. Say so, and which differ by much."""
    high, low = sizes["error_high"], sizes["error_low"]
    zero = (high == 0) != (low == 0)
    if zero.any():
        logger.warning("%s: one of two errors is zero in %s; the other is taken", path, rows_text(zero, lines))
    high, low = np.where(zero, high + low, high), np.where(zero, high + low, low)
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.abs(np.log(high / low)) > np.log(MAX_SIDES)
    if far.any():
        logger.warning(
            "%s: the errors up and down differ by more than a factor %g in %s; their mean is taken",
            path, MAX_SIDES, rows_text(far, lines),
        )  # fmt: skip
    return np.mean([high, low], axis=0)


# --- bins ---


def _bins(table, roles, values, width, kind):
    """Return the order in which wavelengths ascend, and in it centres and full widths (micron; or None), and a note."""
    edges = "wave_low" in values
    name = roles["wave_low" if edges else "wavelength"]
    place = (values["wave_low"] + values["wave_high"]) / 2 if edges else values["wavelength"]
    unit = _wavelength_unit(table, name, place)
    order = wavelength_order(_micron(place, unit), len(table), str(table.path))
    lines, place = np.array(table.lines)[order], place[order]
    values = {role: column[order] for role, column in values.items()}
    if edges:
        low, high, centre = values["wave_low"], values["wave_high"], values.get("wavelength", place)
        bad = ~(high > low) | (centre < low) | (centre > high)
        refuse_rows(bad, f"{table.path}: expected lower edge < wavelength < upper edge, but not", lines)
        full, note = high - low, "widths from the edges (stated)"
    elif "width" in values:
        own = stated_length(table, roles["width"]) or unit
        if (own == "cm-1") != (unit == "cm-1"):
            raise InputError(f"{table.path}: column {roles['width']!r} is in {own}, expected {unit} like {name!r}")
        full = values["width"] * (1.0 if own == unit else MICRON[own] / MICRON[unit])
        if unit != "micron" and not stated_length(table, name) and misfit(place, full):
            raise InputError(
                f"{table.path}: expected micron, or the units in the names of both columns; received wavelengths "
                f"that look like {unit}, with {misfit(place, full)}"
            )
        full, note = _full_width(full, place, roles["width"], width, kind, str(table.path), lines)
    else:
        return order, _micron(place, unit), None, "no widths"
    if unit != "cm-1":
        return order, place * MICRON[unit], full * MICRON[unit], note
    low, high = 1e4 / (place + full / 2), 1e4 / (place - full / 2)
    return order, (low + high) / 2, high - low, note


def _micron(values, unit):
    with np.errstate(divide="ignore"):
        return 1e4 / values if unit == "cm-1" else values * MICRON[unit]


def _wavelength_unit(table, name, values):
    """Return the unit of the wavelengths: as stated, or else the only one in which they are plausible."""
    unit = stated_length(table, name)
    low, high = values.min(), values.max()
    if unit or (MICRON_RANGE[0] <= low and high <= MICRON_RANGE[1]):
        return unit or "micron"
    fitting = [unit for unit, (first, last) in RANGES.items() if first <= low and high <= last]
    if len(fitting) > 1:
        raise InputError(
            f"{table.path}: wavelengths from {low:.6g} to {high:.6g} may be in {' or '.join(fitting)}; "
            "state the unit in the column's name: wavelength [nm]"
        )
    if fitting:
        logger.warning("%s: wavelengths from %.6g to %.6g are taken to be in %s", table.path, low, high, fitting[0])
    return fitting[0] if fitting else "micron"


def _full_width(values, place, column, asked, kind, name, lines):
    """Return full widths (n_bins,) and a note that says whether the file holds full or half widths."""
    where = f"{name}: column {column!r} holds"
    refuse_rows(values <= 0, f"{where} widths that are not positive", lines)
    stated = kind if kind in ("full", "half") else None
    if stated and asked not in ("auto", stated):
        raise InputError(f"{where} {stated} widths, but data.width is {asked}; expected auto")
    found = stated or (asked if asked != "auto" else guess_width(place, values, kind, name))
    full = values * (2.0 if found == "half" else 1.0)
    refuse_rows(full > 2 * place, f"{where} bins that reach below 0 micron", lines)
    return full, f"{found} widths ({'stated' if stated or asked != 'auto' else 'guessed'})"


def spacing_halves(wavelength):
    """Return how far bins whose edges are half way between centres reach down and up (2, n_bins), but into no gap."""
    half = np.diff(wavelength) / 2
    sides = np.array([np.append(half[0], half), np.append(half, half[-1])])
    return np.where(sides.max(axis=0) > GAP * sides.min(axis=0), sides.min(axis=0), sides)


# --- the grid of a trained network ---


def match_grid(observation, wavelength, bin_width=None):
    """Bring an observation to the grid of a trained network, exactly or not at all.

    ``wavelength`` (n_bins,) are the trained centres, ``bin_width`` (n_bins,) their full widths, or None. The same grid
    is taken as it is. A finer one is re-binned only if every trained bin is a union of whole observed bins, edge on
    edge: depth = sum(w d) / sum(w) and error = sqrt(sum(w^2 s^2)) / sum(w) with the widths w, which is the depth that
    the wide bin would have seen if the star were equally bright across it. Any other is refused with a ValueError.
    """
    seen, width = observation.wavelength, None if observation.assumed_width else observation.bin_width
    if _same_grid(seen, width, wavelength, bin_width):
        return replace(observation, wavelength=wavelength, bin_width=bin_width)
    reason = "no bin widths to re-bin by"
    if width is not None and bin_width is not None:
        groups, reason = _groups(seen, width, wavelength, bin_width), "the edges of the bins do not coincide"
        if groups is not None:
            message = "%s: %d bins re-binned to the %d trained ones, edge on edge"
            logger.warning(message, observation.name, len(seen), len(wavelength))
            return _rebinned(observation, wavelength, bin_width, groups)
    raise InputError(
        f"{observation.name}: expected {len(wavelength)} bins from {wavelength[0]:.4g} to {wavelength[-1]:.4g} micron, "
        f"received {len(seen)} from {seen[0]:.4g} to {seen[-1]:.4g} ({reason})"
    )


def _same_grid(seen, width, wavelength, bin_width):
    """Whether both grids are the same: edge by edge if both have widths, else centre by centre, near its neighbour."""
    if seen.shape != wavelength.shape:
        return False
    distance = np.abs(seen - wavelength)
    if width is not None and bin_width is not None:  # the larger of the distances between the edges
        distance, scale = distance + np.abs(width - bin_width) / 2, np.minimum(width, bin_width)
    else:
        steps = np.diff(wavelength) if len(wavelength) > 1 else 0.01 * wavelength
        scale = np.minimum(np.append(steps[0], steps), np.append(steps, steps[-1]))[: len(wavelength)]
        scale = np.minimum.reduce([scale, *(w for w in (width, bin_width) if w is not None)])
    return bool((distance <= SAME * scale).all())


def _groups(seen, width, wavelength, bin_width):
    """Return which observed bins (n_seen,) make up each trained bin; None if one of these is no union of whole bins."""
    low, high, groups = seen - width / 2, seen + width / 2, []
    for left, right in zip(wavelength - bin_width / 2, wavelength + bin_width / 2):
        inside = (left < seen) & (seen < right)
        starts, ends = np.append(low[inside], right), np.append(left, high[inside])  # of bins, and of those before
        if not inside.any() or (np.abs(starts - ends) > SAME * width[inside].min()).any():
            return None
        groups.append(inside)
    return groups


def _rebinned(observation, wavelength, bin_width, groups):
    """Return the observation (n_bins,) averaged over groups of its bins, weighted by their widths."""
    weights = [observation.bin_width[group] / observation.bin_width[group].sum() for group in groups]
    seen = observation.instrument
    if seen is not None:
        seen = np.array([" + ".join(dict.fromkeys(seen[group])) for group in groups])
    return replace(
        observation,
        wavelength=wavelength,
        bin_width=bin_width,
        depth=np.array([w @ observation.depth[group] for w, group in zip(weights, groups)]),
        error=np.array([np.sqrt(w**2 @ observation.error[group] ** 2) for w, group in zip(weights, groups)]),
        note=f"{observation.note}; re-binned from {len(observation.wavelength)} bins",
        instrument=seen,
    )
