"""Figures over wavelength: which bins each prediction is sensitive to (Yip et al. 2021, Section 4).

As in `report.figures`, functions take arrays and return the Figure that they drew. Maps are (n_amps, n_bins),
wavelengths and widths (n_bins,) in micron.
"""

import numpy as np
from matplotlib.colors import Normalize

from constants import BANDS
from report.style import (
    FAINT,
    INK,
    TWO_COLUMNS,
    WAVELENGTH,
    amount,
    bin_edges,
    broken_at_gaps,
    depth_unit,
    difference_scale,
    new_figure,
    note,
    panel_grid,
    panel_title,
    short,
    styled,
    wavelength_axis,
)

SEQUENTIAL, DIVERGING = "magma_r", "RdBu_r"
STRAIGHT = 1e-3  # curvature below this share of the slope is rounding
MANY_BINS = 120  # from which on lines are thinner and dots smaller
CLIP = 95  # percentile at which the colours of dots saturate (the paper's)


@styled
def share_panels(wavelength, shares, error, amp_table, best=None, bands=BANDS, figure=None):
    """Share of each bin in the map of its AMP with its standard error, and the best estimator's; bands are shaded."""
    figure, axes = panel_grid(len(amp_table), figure, row_height=1.5, share_x=True)
    edges = bin_edges(wavelength)
    for k, (ax, amp) in enumerate(zip(axes, amp_table)):
        for low, high in bands.get(amp.key, ()):
            ax.axvspan(max(low, edges[0]), min(high, edges[-1]), color="#ECECEC", lw=0)
        panel_title(ax, amp)
        if not np.isfinite(shares[k]).any():
            note(ax, "not sensitive", x=0.95)
            ax.set_yticks([])
            continue
        if best is not None:
            ax.stairs(100 * best[k], edges, color=INK, lw=0.7, ls=(0, (3, 1.5)), label="best possible estimator")
        low, high = 100 * (shares[k] - error[k]), 100 * (shares[k] + error[k])
        ax.stairs(high, edges, baseline=low, fill=True, color=amp.colour, alpha=0.35, lw=0)
        ax.stairs(100 * shares[k], edges, baseline=None, color=amp.colour, lw=_line(wavelength), label="this network")
        ax.set_ylim(bottom=0)
    wavelength_axis(axes[0], wavelength)
    figure.supxlabel(WAVELENGTH)
    figure.supylabel("Share of the AMP's sensitivity (%)")
    if best is not None:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)
    return figure


@styled
def abundance_panels(wavelength, thirds, ranges, amp_table, figure=None):
    """Map of each molecule for the lowest, middle and highest third of its abundance, a panel per molecule.

    ``thirds`` (n_amps, 3, n_bins) are maps of the molecules in ``amp_table``, ``ranges`` (n_amps, 4) the abundances
    that divide them.
    """
    figure, axes = panel_grid(len(amp_table), figure, row_height=1.9, share_x=True)
    for ax, amp, maps, ends in zip(axes, amp_table, thirds, ranges):
        for values, colour, low, high in zip(maps, ("#56B4E9", "#777777", "#882255"), ends[:-1], ends[1:]):
            label = f"{low:.1f} to {high:.1f}".replace("-", "−")
            ax.stairs(values, bin_edges(wavelength), baseline=None, color=colour, lw=_line(wavelength), label=label)
        panel_title(ax, amp, f" ({difference_scale(amp)[1]}²)" if difference_scale(amp)[1] else "")
        ax.set_ylim(0, 1.5 * max(np.nanmax(maps), 1e-300))
        ax.legend(loc="upper left", handlelength=1.2, borderaxespad=0.2)
    wavelength_axis(axes[0], wavelength)
    figure.supxlabel(WAVELENGTH)
    figure.supylabel("Sensitivity (mean squared change)")
    return figure


@styled
def sensitivity_curves(wavelength, sensitivity, amp_table, molecule_curves, spectrum, figure=None, bin_width=None):
    """Sensitivity as coloured dots on each molecule's own curve; planet parameters on a spectrum.

    Colours run from each panel's least value, which the floor of the halving scheme lifts far above zero, to its 95th
    percentile; a row of NaN gets none. ``molecule_curves`` are transit depths (n_bins,) with one molecule alone, and
    "none" with no molecule; AMPs without a curve are drawn on ``spectrum`` (n_bins,). Lines break at gaps between bins.
    """
    figure, axes = panel_grid(len(amp_table), figure, row_height=1.5, share_x=True)
    norm = Normalize(0, 1)
    base, many = molecule_curves.get("none"), len(wavelength) > MANY_BINS
    for ax, amp, row in zip(axes, amp_table, sensitivity):
        curve = np.asarray(molecule_curves.get(amp.key, spectrum))
        factor, unit = depth_unit(curve)
        if amp.key in molecule_curves and base is not None:
            ax.plot(*broken_at_gaps(wavelength, bin_width, np.asarray(base) * factor), color=FAINT, lw=0.7)
        ax.plot(
            *broken_at_gaps(wavelength, bin_width, curve * factor), color=amp.colour, lw=_line(wavelength), zorder=2
        )
        known = np.isfinite(row)
        if known.any() and np.ptp(row[known]) > 0:
            ax.scatter(
                wavelength[known], curve[known] * factor, c=_shade(row[known]), norm=norm,
                cmap=SEQUENTIAL, s=4 if many else 8, edgecolors=INK, linewidths=0.1 if many else 0.3, zorder=3,
            )  # fmt: skip
        else:
            note(ax, "no spectra" if not known.any() else "all equal" if row[known].any() else "not sensitive", x=0.95)
        panel_title(ax, amp, f" (depth, {unit})")
        ax.margins(y=0.12)
    wavelength_axis(axes[0], wavelength)
    figure.supxlabel(WAVELENGTH)
    _bar(figure, axes, norm, SEQUENTIAL, "Sensitivity (least to 95th percentile)", extend="max")
    return figure


def _line(wavelength):
    """Return a width of lines at which neighbouring steps do not merge, in points."""
    return 0.5 if len(wavelength) > MANY_BINS else 1.0


def _shade(values):
    """Return where values lie between their least (0) and their 95th percentile (1)."""
    least, top = np.min(values), np.percentile(values, CLIP)
    if top == least:  # fewer than one bin in twenty stands out
        return (values > least).astype(float)
    return (values - least) / (top - least)


def _bar(figure, axes, norm, colours, label, **kwargs):
    from matplotlib.cm import ScalarMappable

    tall = len(axes) > 3
    bar = figure.colorbar(
        ScalarMappable(norm, colours), ax=axes, label=label, pad=0.01, aspect=40 if tall else 20,
        shrink=0.6 if tall else 1, **kwargs,
    )  # fmt: skip
    bar.outline.set_linewidth(0.5)
    return bar


@styled
def sensitivity_profiles(wavelength, result, amp_table, figure=None, bin_width=None):
    """Sensitivity of each AMP against wavelength, with standard errors and the range over the folds."""
    figure, axes = panel_grid(len(amp_table), figure, row_height=1.5, share_x=True)
    for i, (ax, amp) in enumerate(zip(axes, amp_table)):
        factor, unit = difference_scale(amp)
        mean, error = result.mean[i] / factor**2, result.standard_error[i] / factor**2
        panel_title(ax, amp, f" ({unit}²)" if unit else "")
        if not np.isfinite(mean).any():
            note(ax, "no spectra", x=0.95)
            ax.set_yticks([])
            continue
        if result.folds > 1:
            low, high = result.low[i] / factor**2, result.high[i] / factor**2
            x, low, high = broken_at_gaps(wavelength, bin_width, low, high)
            ax.fill_between(x, low, high, color=amp.colour, alpha=0.2, lw=0)
        x, y, bar = broken_at_gaps(wavelength, bin_width, mean, error)
        ax.errorbar(x, y, yerr=bar, color=amp.colour, marker="o", lw=0.7, elinewidth=0.6, ms=2)
        if np.nanmin(mean) < 0.5 * np.nanmax(mean):  # else there is a floor, and zero would flatten the rest
            ax.set_ylim(bottom=0)
    wavelength_axis(axes[0], wavelength)
    figure.supxlabel(WAVELENGTH)
    figure.supylabel("Sensitivity (mean squared change)")
    return figure


@styled
def sensitivity_heatmap(wavelength, sensitivity, amp_table, figure=None, bands=BANDS):
    """AMP against wavelength, each row stretched from its least to its greatest; known bands are underlined."""
    sensitivity = np.asarray(sensitivity, float)
    figure = figure or new_figure(TWO_COLUMNS, 0.9 + 0.25 * len(amp_table))
    ax = figure.subplots()
    norm = Normalize(0, 1)
    least = np.nanmin(sensitivity, axis=1, initial=np.inf, keepdims=True, where=np.isfinite(sensitivity))
    _rows(ax, wavelength, sensitivity - np.where(np.isfinite(least), least, 0), amp_table, norm, SEQUENTIAL)
    for y, *ends in bands_in_range(wavelength, amp_table, bands):
        ax.plot(ends, [y + 0.38] * 2, color="white", lw=2.6, solid_capstyle="butt")
        ax.plot(ends, [y + 0.38] * 2, color="#0072B2", lw=1.4, solid_capstyle="butt")
    ax.set_xlabel(WAVELENGTH)
    _bar(figure, [ax], norm, SEQUENTIAL, "Sensitivity (row's range)")
    return figure


def bands_in_range(wavelength, amp_table, bands=BANDS):
    """Return (number of the AMP, low, high), micron, for every known band, cut to the range of the wavelengths."""
    edges = bin_edges(wavelength)
    ends = [
        (y, max(a, edges[0]), min(b, edges[-1])) for y, amp in enumerate(amp_table) for a, b in bands.get(amp.key, ())
    ]
    return [(y, low, high) for y, low, high in ends if low < high]


def _rows(ax, wavelength, values, amp_table, norm, colours):
    """Draw a table, each row divided by its greatest absolute value; return those values."""
    greatest = np.nanmax(np.abs(values), axis=1, initial=0, where=np.isfinite(values))
    shown = np.divide(values, greatest[:, None], out=np.full(values.shape, np.nan), where=greatest[:, None] > 0)
    ax.set_facecolor("#E6E6E6")  # shows where a row has no value
    y = np.arange(len(amp_table) + 1) - 0.5
    ax.pcolormesh(bin_edges(wavelength), y, shown, norm=norm, cmap=colours, rasterized=True)
    wavelength_axis(ax, wavelength)
    ax.set_yticks(range(len(amp_table)), [short(amp.label) for amp in amp_table])
    ax.set_ylim(len(amp_table) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.hlines(y[1:-1], *ax.get_xlim(), color="white", lw=0.8)
    return greatest


@styled
def response_slopes(wavelength, slope, curvature, amp_table, figure=None):
    """Slope and curvature (n_amps, n_bins) per standard error and its square, each row divided by its greatest value.

    A row of curvature below 1/1000 of its slope is the rounding of 32-bit networks and drawn as none.
    """
    figure = figure or new_figure(TWO_COLUMNS, 1.2 + 0.44 * len(amp_table))
    axes = figure.subplots(2, 1, sharex=True)
    norm = Normalize(-1, 1)
    slope, curvature = np.asarray(slope, float), np.array(curvature, float)
    curvature[np.abs(curvature).max(axis=1) < STRAIGHT * np.abs(slope).max(axis=1)] = 0
    for ax, values, name, power in ((axes[0], slope, "Slope", ""), (axes[1], curvature, "Curvature", "²")):
        greatest = _rows(ax, wavelength, values, amp_table, norm, DIVERGING)
        for y, (value, amp) in enumerate(zip(greatest, amp_table)):
            place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 7}
            ax.annotate(_amount(value, amp, power), (1, y), (3, 0), va="center", **place)
        ax.set_title(f"{name} (right: the row's greatest)")
    axes[1].set_xlabel(WAVELENGTH)
    _bar(figure, list(axes), norm, DIVERGING, "Change / row's greatest")
    return figure


def _amount(value, amp, power=""):
    factor, unit = difference_scale(amp)
    return f"{amount(value / factor)} {unit}/σ{power}".replace(" /", "/")


@styled
def response_map(wavelength, deviations, change, amp_table, figure=None):
    """Change (n_amps, n_bins, n_deviations) of each AMP when one bin is moved by ``deviations`` standard errors."""
    figure, axes = panel_grid(len(amp_table), figure, row_height=1.4, share_x=True, share_y=True)
    norm = Normalize(-1, 1)
    order = np.argsort(deviations)
    steps = np.asarray(deviations, float)[order]
    middle = (steps[1:] + steps[:-1]) / 2
    half = middle[0] - steps[0] if len(steps) > 1 else 0.5
    edges = np.concatenate([[steps[0] - half], middle, [steps[-1] + half]])
    for ax, amp, one in zip(axes, amp_table, change):
        factor, unit = difference_scale(amp)
        greatest = np.max(np.abs(one), initial=0, where=np.isfinite(one))
        scaled = one[:, order].T / (greatest or 1)
        ax.pcolormesh(bin_edges(wavelength), edges, scaled, norm=norm, cmap=DIVERGING, rasterized=True)
        panel_title(ax, amp, f" (±{amount(greatest / factor)} {unit})".replace(" )", ")"))
    wavelength_axis(axes[0], wavelength)
    figure.supxlabel(WAVELENGTH)
    figure.supylabel("Shift of one bin (standard errors)")
    _bar(figure, axes, norm, DIVERGING, "Change / panel's greatest")
    return figure
