"""Read one observed transmission spectrum, and bring it to the wavelength grid that a network was trained on."""

import logging
from dataclasses import dataclass, replace

import numpy as np

from loaders.bins import read_bins, spacing_widths
from loaders.checks import MAX_DEPTH_RATIO, MAX_ERROR_RATIO, MAX_SIGMA_BELOW_ZERO
from loaders.columns import MAX_SIDES, MAX_SIGNAL, MIN_SIGNAL, find_columns, parse_columns, stated_depth
from loaders.dataset import DEPTH_UNITS, depth_factor
from loaders.tables import read_table
from preprocessing import rows_text
from runio.config import clip
from runio.log import InputError, printable

logger = logging.getLogger(__name__)

MIN_ERROR = 1e-8  # of the depths: a smaller error vanishes in float32, and so for a network


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
        Which units and widths the file states and which were guessed, for reports.
    instrument : ndarray (n_bins,) of str or None
        Instrument of each bin, if the file has a column "instrument".
    assumed_width : bool
        True if the file has no widths, and ``bin_width`` follows from the spacing of the bins.
    """

    wavelength: np.ndarray
    bin_width: np.ndarray | None
    depth: np.ndarray
    error: np.ndarray
    name: str
    note: str = ""
    instrument: np.ndarray | None = None
    assumed_width: bool = False


def read_observation(path, depth_unit="auto", width="auto", columns="auto"):
    """Read one spectrum from a table of text: CSV, ECSV, IPAC (.tbl), Markdown or columns between blanks.

    Columns are found by name. Columns without known names are read in the one order that their numbers allow, such as
    wavelength, width, depth, error or TauREx's wavelength, depth, error, width. Errors up and down become the mean of
    their sizes, and a radius ratio is squared together with its error. Without widths, bins reach half way to their
    neighbours.

    Parameters
    ----------
    path : path-like
    depth_unit : {"auto", "fraction", "percent", "ppm"}
        "auto" takes the unit that the file states, and guesses only if it states none.
    width : {"auto", "full", "half"}
        What the widths are; "auto" takes what the column's name says, else compares them with the spacing of the bins.
    columns : str
        Names in place of those in the file, one for each column, between commas: "wavelength,depth,error,width", with
        "-" for a column that is not used; or "taurex", "poseidon" or "platon". "auto" takes those of the file.

    Returns
    -------
    Observation

    Raises
    ------
    ValueError
        With one line: missing columns; values that are missing or not numbers; wavelengths out of order; errors that
        are not positive; columns, units or widths that are ambiguous; settings that contradict the file.
    """
    if width not in ("auto", "full", "half"):
        raise InputError(f"width must be auto, full or half; received {width!r}")
    table = read_table(path, parse_columns(columns))
    roles, kind = find_columns(table, depth_unit)
    instrument = roles.pop("instrument", None)
    table = _without_empty_bins(table, roles)
    values = {role: table.numbers(name) for role, name in roles.items()}
    for role, column in values.items():
        bad = ~np.isfinite(column)
        if bad.any():
            where = rows_text(bad, table.lines)
            raise InputError(f"{path}: column {roles[role]!r} has missing or infinite values in {where}, by line")
    depth, error, depth_note = _depth_and_error(table, roles, values, depth_unit)
    for problem, bad in _implausible(depth, error, columns == "auto"):
        if bad.any():
            where = rows_text(bad, table.lines)
            raise InputError(f"{path}: {problem} in {where}, by line; is it a fill value, or another unit?")
    order, wavelength, bin_width, note = read_bins(table, roles, values, width, kind)
    assumed = bin_width is None and len(wavelength) > 1
    if assumed:
        bin_width, note = spacing_widths(wavelength), "widths from the spacing of the bins"
        logger.warning(
            "%s: no widths in the file; guessed from the spacing: bins reach half way to their neighbours", path
        )
    return Observation(
        wavelength=wavelength,
        bin_width=bin_width,
        depth=depth[order],
        error=error[order],
        name=str(path),
        note=f"{depth_note}; {note}",
        instrument=None if instrument is None else _labels(table.columns[instrument])[order],
        assumed_width=assumed,
    )


def _without_empty_bins(table, roles):
    """Leave out bins that hold neither a depth nor an error, as pipelines write for a fit that failed, and say so."""
    measured = [name for role, name in roles.items() if not role.startswith(("wave", "width"))]
    empty = np.all([np.isnan(table.numbers(name)) for name in measured], axis=0)
    if not empty.any() or empty.all():
        return table
    logger.warning("%s: no depth in %s, by line; left out", table.path, rows_text(empty, table.lines))
    return table.without(empty)


def _labels(cells):
    """Return the names of instruments as an array of text, short enough for a legend."""
    return np.array([clip(printable(cell.strip()), 40) for cell in cells])


def _depth_and_error(table, roles, values, depth_unit):
    """Return depths and their errors (n_bins,) as fractions, and what was stated, guessed or done."""
    path = table.path
    ratio = "ratio" in values
    kind = "ratio" if ratio else "depth"
    stated = stated_depth(table, roles[kind])
    if ratio:
        stated = stated or "fraction"
    if stated and depth_unit not in ("auto", stated):
        expected = f"data.depth_unit is {depth_unit}, expected {stated} or auto"
        raise InputError(f"{path}: column {roles[kind]!r} is in {stated}, but {expected}")
    factor = depth_factor(values[kind], stated, depth_unit, str(path))
    unit = next(u for u, f in DEPTH_UNITS.items() if f == factor)
    depth = values[kind] * factor
    sizes = {}
    for role in ("error", "error_high", "error_low"):
        name = role if not ratio else f"ratio_{role}"
        if name in values:
            own = stated_depth(table, roles[name])
            sign = np.where(values[name] < 0, -1.0, 1.0) if role == "error" else 1.0  # only one of two may have a sign
            sizes[role] = np.abs(values[name]) * (DEPTH_UNITS[own] if own else factor) * sign
    error = sizes["error"] if "error" in sizes else _mean_error(path, sizes, table.lines)
    note = f"depths in {unit} ({'stated' if stated or depth_unit != 'auto' else 'guessed'})"
    if ratio:
        depth, error = depth**2, 2 * depth * error
        note = f"depths from radius ratios ({roles[kind]}), squared with their errors"
        logger.warning("%s: column %r holds radius ratios; squared, with their errors", path, roles[kind])
    middle = float(np.median(depth))
    if not 0 < middle < 1:
        raise InputError(f"{path}: median depth is {middle:.4g} as a fraction, expected 0 to 1; is depth_unit right?")
    bad = ~(error > 0)
    if bad.any():
        raise InputError(f"{path}: errors are not positive in {rows_text(bad, table.lines)}, by line")
    return depth, error, note


def _mean_error(path, sizes, lines):
    """Return the mean of two errors (n_bins,); where one is zero, the other. Say so, and which differ by much."""
    high, low = sizes["error_high"], sizes["error_low"]
    zero = (high == 0) != (low == 0)
    if zero.any():
        logger.warning("%s: one of two errors is zero in %s, by line; the other is taken", path, rows_text(zero, lines))
    high, low = np.where(zero, high + low, high), np.where(zero, high + low, low)
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.abs(np.log(high / low)) > np.log(MAX_SIDES)
    if far.any():
        logger.warning(
            "%s: the errors up and down differ by more than a factor %g in %s, by line; their mean is taken",
            path, MAX_SIDES, rows_text(far, lines),
        )  # fmt: skip
    return np.mean([high, low], axis=0)


def _implausible(depth, error, guess):
    """Yield (what is wrong, which bins) of depths that no planet has, and of errors that cannot be any.

    Errors larger than the depths are possible, but more often exchanged with them: taken only if the user names both.
    """
    middle, usual = np.median(depth), np.median(error)
    excess = np.maximum(depth - MAX_DEPTH_RATIO * middle, middle / MAX_DEPTH_RATIO - depth)
    far = excess > MAX_SIGMA_BELOW_ZERO * error
    yield "depths of the whole star (1 as a fraction) or more", np.abs(depth) >= 1
    yield f"depths more than {MAX_DEPTH_RATIO:g} times, or less than a tenth of, their median", far
    yield "errors of the whole depth of the star (1 as a fraction) or more", error >= 1
    far = np.abs(np.log(error / usual)) > np.log(MAX_ERROR_RATIO)
    yield f"errors a factor {MAX_ERROR_RATIO:g} from their median", far
    yield f"errors below {MIN_ERROR:g} of the depths", error < MIN_ERROR * middle
    every = np.ones(len(depth), dtype=bool)
    yield f"errors below {1 / MAX_SIGNAL:g} of the depths (variances?)", every & (usual * MAX_SIGNAL < middle)
    exchanged = guess and usual * MIN_SIGNAL > middle
    yield "errors larger than the depths (exchanged? --columns says that they are not)", every & exchanged


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
        Largest distance of two edges that still count as the same, in widths of the narrower bin. Where widths are not
        known, it holds for the centres, in units of the smaller distance to a neighbour.

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
    known = bin_width is not None and observation.bin_width is not None and not observation.assumed_width
    groups = _groups(observation, wavelength, bin_width, tolerance) if known else None
    if groups is not None:
        logger.warning(
            "%s: %d bins re-binned to the %d trained ones, edge on edge",
            observation.name, len(observation.wavelength), len(wavelength),
        )  # fmt: skip
        return _rebinned(observation, wavelength, bin_width, groups)
    reason = "the edges of the bins do not coincide" if known else "no bin widths to re-bin by"
    seen = observation.wavelength
    raise InputError(
        f"{observation.name}: expected {len(wavelength)} bins from {wavelength[0]:.4g} to {wavelength[-1]:.4g} micron, "
        f"received {len(seen)} from {seen[0]:.4g} to {seen[-1]:.4g} ({reason})"
    )


def _edges(wavelength, width):
    return np.array([wavelength - width / 2, wavelength + width / 2])  # (2, n_bins)


def _same_grid(observation, wavelength, bin_width, tolerance):
    """Whether both grids are the same: edge by edge if both have widths, else centre by centre."""
    seen, width = observation.wavelength, None if observation.assumed_width else observation.bin_width
    if seen.shape != wavelength.shape:
        return False
    if bin_width is not None and width is not None:
        distance, scale = np.abs(_edges(seen, width) - _edges(wavelength, bin_width)), np.minimum(width, bin_width)
    else:
        steps = np.diff(wavelength) if len(wavelength) > 1 else 0.01 * wavelength
        scale = np.minimum(np.append(steps[0], steps), np.append(steps, steps[-1]))[: len(wavelength)]
        widths = [w for w in (bin_width, width) if w is not None]
        distance, scale = np.abs(seen - wavelength), np.minimum.reduce([scale, *widths])
    return bool((distance <= tolerance * scale).all())


def _groups(observation, wavelength, bin_width, tolerance):
    """Return for each trained bin the slice of observed bins that make it up; None if a bin is not such a union."""
    low, high = _edges(observation.wavelength, observation.bin_width)
    groups, used = [], np.zeros(len(low), dtype=bool)
    for left, right in _edges(wavelength, bin_width).T:
        first, last = int(np.argmin(np.abs(low - left))), int(np.argmin(np.abs(high - right)))
        if first > last:
            return None
        slack = tolerance * observation.bin_width[first : last + 1].min()
        edges = np.abs(low[first + 1 : last + 1] - high[first:last])
        if abs(low[first] - left) > slack or abs(high[last] - right) > slack or (edges > slack).any():
            return None
        groups.append(slice(first, last + 1))
        used[first : last + 1] = True
    for left, right in _edges(wavelength, bin_width).T:  # no other observed bin may lie on a trained one
        overlap = np.minimum(high, right) - np.maximum(low, left)
        if (overlap[~used] > tolerance * observation.bin_width[~used]).any():
            return None
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
