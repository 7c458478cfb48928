"""Maps as inline SVG, written by hand: steps against wavelength with an error band, and a text for each bin.

The texts are ``<title>`` elements, which browsers show when the pointer rests on a bin. There are no scripts, and
nothing that a strict Content-Security-Policy forbids.
"""

import html
from typing import NamedTuple

import numpy as np

from report.style import plain_ticks

WIDTH, HEIGHT = 360, 104  # units of the drawing, about one pixel each on a telephone
LEFT, RIGHT, TOP, FOOT = 34, 6, 8, 18
INK = "#222222"
TEXT = 12.5


class Steps(NamedTuple):
    """A line of steps: values (n_bins,), their errors (n_bins,) or None, colour, and SVG dashes."""

    values: np.ndarray
    error: np.ndarray | None
    colour: str
    dashes: str = ""


def panel(edges, lines, texts, label, bands=()):
    """Return a panel as SVG text.

    Parameters
    ----------
    edges : ndarray (n_bins + 1,)
        Of the bins, micron.
    lines : sequence of Steps
        Drawn in this order; values in per cent.
    texts : sequence of str (n_bins,)
        What is shown of each bin.
    label : str
        What the panel shows, for readers who cannot see it.
    bands : sequence of (low, high)
        Wavelengths to shade, micron.
    """
    across = np.log(edges)
    x = LEFT + (WIDTH - LEFT - RIGHT) * (across - across[0]) / (across[-1] - across[0])
    top = _top(lines)
    foot = HEIGHT - FOOT

    def down(values):
        return foot - (foot - TOP) * np.clip(np.nan_to_num(values), 0, top) / top

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(label)}">']
    for low, high in bands:
        ends = np.interp(np.log([low, high]), across, x)
        if ends[1] > ends[0]:
            parts.append(_box(ends[0], TOP, ends[1], foot, "#E4E4E4"))
    for line in lines:
        if line.error is not None:
            error = np.nan_to_num(line.error)
            upper, lower = _path(x, down(line.values + error)), _path(x[::-1], down(line.values - error)[::-1])
            parts.append(f'<path d="M{upper}L{lower}Z" fill="{line.colour}" fill-opacity=".3"/>')
    for line in lines:
        dashes = f' stroke-dasharray="{line.dashes}"' if line.dashes else ""
        parts.append(f'<path d="M{_path(x, down(line.values))}" fill="none" stroke="{line.colour}"'
                     f' stroke-width="1.3"{dashes}/>')  # fmt: skip
    parts.append(_axes(edges, x, top, foot))
    for left, right, text in zip(x, x[1:], texts):
        parts.append(f'<rect x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{foot - TOP}">'
                     f"<title>{html.escape(text)}</title></rect>")  # fmt: skip
    return "\n".join([*parts, "</svg>"])


def _top(lines):
    """Return a round upper end of the vertical axis: above all values, and at most a fifth above the strongest bin."""
    greatest = max((float(np.nanmax(np.nan_to_num(one.values + (0 if one.error is None else np.nan_to_num(one.error)))))
                    for one in lines), default=0)  # fmt: skip
    if greatest <= 0:
        return 1.0
    tenth = 10 ** np.floor(np.log10(greatest)) / 10
    return float(next(n * tenth for n in (11, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120) if n * tenth > greatest))


def _path(x, y):
    """Return the corners of steps: every value of ``y`` (n,) from one edge in ``x`` (n + 1,) to the next."""
    corners = np.stack([np.repeat(x, 2)[1:-1], np.repeat(y, 2)], axis=1)
    return "L".join(f"{a:.1f} {b:.1f}" for a, b in corners)


def _box(left, top, right, foot, colour):
    size = f'width="{right - left:.1f}" height="{foot - top:.1f}"'
    return f'<rect x="{left:.1f}" y="{top:.1f}" {size} class="band" fill="{colour}"/>'


def _axes(edges, x, top, foot):
    """Return the frame and the numbers along it."""
    parts = [f'<path d="M{LEFT} {TOP}V{foot}H{WIDTH - RIGHT}" fill="none" stroke="{INK}" stroke-width=".8"/>']
    marks = plain_ticks(edges[0], edges[-1], (WIDTH - LEFT - RIGHT) / 88)
    for mark in marks:
        unit = " µm" if mark == marks[0] else ""
        at = np.interp(np.log(mark), np.log(edges), x)
        parts.append(f'<path d="M{at:.1f} {foot}v4" stroke="{INK}" stroke-width=".8"/>')
        parts.append(f'<text x="{at:.1f}" y="{foot + 15}" text-anchor="middle">{mark:g}{unit}</text>')
    for share in (0, top / 2):
        y = foot - (foot - TOP) * share / top
        parts.append(f'<text x="{LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{share:.3g}</text>')
    parts.append(f'<text x="{LEFT - 4}" y="{TOP + 6}" text-anchor="end">{top:.3g}%</text>')
    return "".join(parts)
