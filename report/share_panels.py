"""Maps as inline SVG, written by hand: steps against wavelength with an error band, and a text for each bin.

The style sheet shows the text of a bin while the pointer is on it, or after a tap. There are no scripts, and nothing
that a strict Content-Security-Policy forbids.
"""

import html
import textwrap
from typing import NamedTuple

import numpy as np

from report.style import INK, NBSP, blocks, have_gaps, plain_ticks

WIDTH, HEIGHT = 360, 104  # units of the drawing, about one pixel each on a telephone
LEFT, RIGHT, TOP, FOOT = 40, WIDTH - 6, 8, HEIGHT - 18  # of the axes in it
KEY = (
    "Steps: the share of each bin in the sensitivity of {whose}, in per cent{lines}. Grey: the molecule's known bands."
    " Point at a bin, or tap it, for its numbers.{gaps}"
)
LETTERS = 44  # of a line in a panel
ROUND = (11, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120)  # upper ends of the vertical axis, but for a power of ten


class Steps(NamedTuple):
    """A line of steps: values (n_bins,), their errors (n_bins,) or None, colour, and SVG dashes."""

    values: np.ndarray
    error: np.ndarray | None
    colour: str
    dashes: str = ""


def legend(ends, whose, lines=""):
    """Return the words below panels of bins with these ``ends``: what they show, and why a line may be broken."""
    return KEY.format(whose=whose, lines=lines, gaps=no_bins(ends))


def no_bins(ends):
    """Return a sentence about breaks of a line where there are gaps between bins with these ``ends``, or ""."""
    return " A line is broken where there are no bins." if have_gaps(ends).any() else ""


def panel(ends, lines, texts, label, bands=()):
    """Return a panel as SVG text: ``lines`` of `Steps`, in per cent, over bins with these ``ends`` (n_bins, 2), micron.

    ``texts`` (n_bins,) are shown of each bin, ``label`` says what the panel shows to readers who cannot see it, and
    ``bands`` (low, high), micron, are shaded.
    """
    first, last, top = ends[0, 0], ends[-1, 1], _top(lines)

    def across(wavelength):
        return LEFT + (RIGHT - LEFT) * np.log(np.clip(wavelength, first, last) / first) / np.log(last / first)

    def down(values):
        return FOOT - (FOOT - TOP) * np.clip(np.nan_to_num(values), 0, top) / top

    x = across(ends)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(label)}">']
    for left, right in (across(band) for band in bands):
        if right > left:
            parts.append(f'<rect {_box(left, right)} class="band" fill="#E4E4E4"/>')
    for line in (one for one in lines if one.error is not None):
        error = np.nan_to_num(line.error)
        high, low = down(line.values + error), down(line.values - error)
        area = "".join(f"M{_corners(x[b], high[b])}L{_corners(x[b][::-1, ::-1], low[b][::-1])}Z" for b in blocks(ends))
        parts.append(f'<path d="{area}" fill="{line.colour}" fill-opacity=".3"/>')
    for line in lines:
        path = "".join(f"M{_corners(x[b], down(line.values[b]))}" for b in blocks(ends))
        dashes = f' stroke-dasharray="{line.dashes}"' if line.dashes else ""
        parts.append(f'<path d="{path}" fill="none" stroke="{line.colour}" stroke-width="1.3"{dashes}/>')
    parts.append(f'<path d="M{LEFT} {TOP}V{FOOT}H{RIGHT}" fill="none" stroke="{INK}" stroke-width=".8"/>')
    marks = plain_ticks(first, last, (RIGHT - LEFT) / 88)
    for mark, unit in zip(marks, [" µm", *[""] * len(marks)]):
        at = f"{across(mark):.1f}"
        parts.append(f'<path d="M{at} {FOOT}v4" stroke="{INK}" stroke-width=".8"/>')
        parts.append(f'<text x="{at}" y="{FOOT + 15}" text-anchor="middle">{mark:g}{unit}</text>')
    for share, y in ((f"{top:.3g}{NBSP}%", TOP + 6), (f"{top / 2:.3g}", (TOP + FOOT) / 2 + 4), ("0", FOOT + 4)):
        parts.append(f'<text x="{LEFT - 4}" y="{y:g}" text-anchor="end">{share}</text>')
    for (left, right), text in zip(x, texts):
        rows = [
            f'<tspan x="{RIGHT}" y="{TOP + 10 + 14 * i}">{html.escape(row)}</tspan>'
            for i, row in enumerate(textwrap.wrap(text, LETTERS))
        ]
        parts.append(f'<rect {_box(left, right)}/><text class="bin" text-anchor="end">{" ".join(rows)}</text>')
    return "\n".join([*parts, "</svg>"])


def _top(lines):
    """Return a round upper end of the vertical axis: above all values, and at most a fifth above the strongest bin."""
    values = [np.nan_to_num(one.values) + (0 if one.error is None else np.nan_to_num(one.error)) for one in lines]
    greatest = np.max(values, initial=0)
    if greatest <= 0:
        return 1.0
    tenth = 10 ** np.floor(np.log10(greatest)) / 10
    return float(next(n * tenth for n in ROUND if n * tenth > greatest))


def _corners(x, y):
    """Return the corners of steps: every value of ``y`` (n,) from one end of its bin in ``x`` (n, 2) to the other."""
    return "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x.ravel(), np.repeat(y, 2)))


def _box(left, right):
    """Return the place of a rectangle as high as the axes."""
    return f'x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{FOOT - TOP}"'
