"""The bins of an observation: centres and full widths in micron, from any of the forms in which files state them."""

import logging
import re

import numpy as np

from loaders.columns import WIDTH_TO_SPACING, plain
from loaders.dataset import MICRON, MICRON_RANGE, wavelength_order
from preprocessing import rows_text
from runio.log import InputError

logger = logging.getLogger(__name__)

WAVENUMBERS = {"cm-1", "1/cm", "cm^-1", "cm**-1", "1 / cm"}
RANGES = {"m": (5e-8, 1e-4), "nm": (200.0, 13_000.0), "angstrom": (2000.0, 130_000.0)}  # of wavelengths without a unit
GAP = 1.5  # distances to the two neighbours differ by more than this factor: there is a gap on one side
TOUCH = 0.05  # edges of neighbours that are this close meet, in widths of a bin


def read_bins(table, roles, values, width, kind):
    """Return the order in which wavelengths ascend, and in it centres and full widths (micron; or None), and a note."""
    edges = "wave_low" in values
    name = roles["wave_low" if edges else "wavelength"]
    place = (values["wave_low"] + values["wave_high"]) / 2 if edges else values["wavelength"]
    unit = wavelength_unit(table, name, place)
    order = wavelength_order(_micron(place, unit), len(table), str(table.path), table.lines)
    lines, place = np.array(table.lines)[order], place[order]
    values = {role: column[order] for role, column in values.items()}
    if edges:
        low, high = values["wave_low"], values["wave_high"]
        bad = ~(high > low) | (values.get("wavelength", place) < low) | (values.get("wavelength", place) > high)
        if bad.any():
            where = rows_text(bad, lines)
            raise InputError(f"{table.path}: expected lower edge < wavelength < upper edge, not so in {where}, by line")
        full, note = high - low, "widths from the edges (stated)"
    elif "width" in values:
        own = stated_length(table, roles["width"]) or unit
        if (own == "cm-1") != (unit == "cm-1"):
            raise InputError(f"{table.path}: column {roles['width']!r} is in {own}, expected {unit} like {name!r}")
        full = values["width"] * (1.0 if own == unit else MICRON[own] / MICRON[unit])
        share = np.median(full) / np.median(np.abs(np.diff(place))) if len(place) > 1 else np.nan
        guessed = unit != "micron" and not stated_length(table, name)
        if guessed and not WIDTH_TO_SPACING[0] <= share <= WIDTH_TO_SPACING[1]:
            raise InputError(
                f"{table.path}: expected micron, or the units in the names of both columns; received wavelengths "
                f"that look like {unit}, with widths of {share:.2g} of the spacing of the bins"
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


def _full_width(values, place, column, asked, kind, name, lines):
    """Return full widths (n_bins,) and a note that says whether the file holds full or half widths."""
    bad = values <= 0
    if bad.any():
        where = rows_text(bad, lines)
        raise InputError(f"{name}: column {column!r} holds widths that are not positive in {where}, by line")
    stated = kind if kind in ("full", "half") else None
    if stated and asked not in ("auto", stated):
        raise InputError(f"{name}: column {column!r} holds {stated} widths, but data.width is {asked}; expected auto")
    found = stated or (asked if asked != "auto" else _guess_width(values, place, kind, name))
    full = values * (2.0 if found == "half" else 1.0)
    bad = full > 2 * place
    if bad.any():
        where = rows_text(bad, lines)
        raise InputError(f"{name}: column {column!r} holds bins that reach below 0 micron in {where}, by line")
    return full, f"{found} widths ({'stated' if stated or asked != 'auto' else 'guessed'})"


def _guess_width(values, place, kind, name):
    """Return "full" or "half" from the spacing of the bins; refuse widths that may be either.

    Widths of one spacing are full widths of bins that touch (as half widths, they would make bins overlap by half).
    Widths of half a spacing are either half widths of bins that touch, or full widths with gaps as large as the bins.
    They are taken as half widths if bins of unequal widths meet at their edges, or if the column is called an error of
    the wavelength (``kind`` "error", such as wave_err).
    """
    ratio, guess = float("nan"), None
    if len(place) > 1:
        distance, pairs = np.abs(np.diff(place)), np.array([values[1:], values[:-1]])
        ratio = float(np.median(values / np.abs(np.gradient(place))))
        meet = np.abs(distance - pairs.sum(axis=0)) < TOUCH * pairs.min(axis=0)
        unequal = np.ptp(pairs, axis=0) > 2 * TOUCH * pairs.max(axis=0)
        if 0.8 <= ratio <= 1.25 and kind != "error":
            guess = "full"
        elif (kind == "error" and ratio < 0.8) or (meet.mean() > 0.8 and (meet & unequal).sum() > 1):
            guess = "half"
    if guess is None:
        raise InputError(
            f"{name}: whether widths are half or full cannot be guessed (they are {ratio:.2f} of the spacing of the "
            "bins); state width as half or full, or name the column half_width (POSEIDON) or full_width: --columns"
        )
    logger.warning("%s: widths guessed as %s (%.2f of the spacing of the bins)", name, guess, ratio)
    return guess


def spacing_widths(wavelength):
    """Return widths (n_bins,) of bins whose edges are half way between centres; a gap does not widen its neighbours."""
    half = np.diff(wavelength) / 2
    left, right = np.append(half[0], half), np.append(half, half[-1])
    gap = np.maximum(left, right) > GAP * np.minimum(left, right)
    return np.where(gap, 2 * np.minimum(left, right), left + right)


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


def wavelength_unit(table, name, values):
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
        logger.warning("%s: wavelengths from %.6g to %.6g taken as %s", table.path, low, high, fitting[0])
    return fitting[0] if fitting else "micron"
