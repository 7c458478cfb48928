"""Figures over wavelength: which bins each prediction is sensitive to (Yip et al. 2021, Section 4).

As in `report.figures`, functions take arrays and return the Figure that they drew, ``width`` inches wide. Maps are
(n_amps, n_bins); wavelengths and full widths of the bins (n_bins,), which may be None, are in micron.
"""

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from constants import BANDS
from report import style

SEQUENTIAL, DIVERGING = "magma_r", "RdBu_r"
POSITIVE, SIGNED = Normalize(0, 1), Normalize(-1, 1)
STRAIGHT = 1e-3  # curvature below this share of the slope is rounding
MANY_BINS = 120  # from which on lines are thinner and dots smaller
MAX_STEPS = 60  # of three lines in one panel
CLIP = 95  # percentile at which the colours of dots saturate (the paper's)


@style.our_style()
def share_panels(wavelength, bin_width, shares, error, amp_table, best=None, width=style.TWO_COLUMNS):
    """Share of each bin in the map of its AMP with its standard error, and the best estimator's; bands are shaded."""
    ends = style.bin_ends(wavelength, bin_width)
    figure, axes = style.wavelength_grid(len(amp_table), ends, "Share of the AMP's sensitivity (%)", width=width)
    for y, low, high in bands_in_range(ends, amp_table):
        axes[y].axvspan(low, high, color="#ECECEC", lw=0)
    for k, (ax, amp) in enumerate(zip(axes, amp_table)):
        style.panel_title(ax, amp)
        if not np.isfinite(shares[k]).any():
            style.note(ax, "not sensitive", x=0.95)
            ax.set_yticks([])
            continue
        if best is not None:
            dashes = {"ls": (0, (3, 1.5)), "label": "best possible estimator"}
            style.steps(ax, ends, 100 * best[k], color=style.INK, lw=0.7, **dashes)
        low, high = 100 * (shares[k] - error[k]), 100 * (shares[k] + error[k])
        style.steps(ax, ends, high, low, fill=True, color=amp.colour, alpha=0.35, lw=0)
        style.steps(ax, ends, 100 * shares[k], color=amp.colour, lw=_line(wavelength), label="this network")
        ax.set_ylim(bottom=0)
    if best is not None:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)
    return figure


@style.our_style()
def abundance_panels(wavelength, bin_width, thirds, ranges, amp_table, width=style.TWO_COLUMNS):
    """Map of each molecule for the lowest, middle and highest third of its abundance, a panel per molecule.

    ``thirds`` (n_amps, 3, n_bins) are maps of the molecules in ``amp_table``, ``ranges`` (n_amps, 4) the abundances
    that divide them. Where there are many bins, neighbours are averaged (`bins_averaged`).
    """
    ends, first = style.bin_ends(wavelength, bin_width), np.arange(0, len(wavelength), bins_averaged(wavelength))
    count = np.diff([*first, len(wavelength)])
    ends = np.stack([ends[first, 0], ends[first + count - 1, 1]], axis=1)
    figure, axes = style.wavelength_grid(len(amp_table), ends, "Sensitivity (mean squared change)", 1.9, width=width)
    for ax, amp, maps, limits in zip(axes, amp_table, thirds, ranges):
        maps = np.add.reduceat(maps, first, axis=1) / count
        for i, (values, colour) in enumerate(zip(maps, ("#0072B2", "#E69F00", "#882255"))):
            thirds = {"label": style.minus(f"{limits[i]:.1f} to {limits[i + 1]:.1f}"), "color": colour}
            style.steps(ax, ends, values, lw=0.7 + 0.7 * i, zorder=3 - i, **thirds)  # thin lines on thick ones
        style.panel_title(ax, amp, f" ({style.difference_scale(amp)[1]}²)" if style.difference_scale(amp)[1] else "")
        ax.set_ylim(0, 1.6 * max(np.nanmax(maps), 1e-300))
        ax.legend(loc="upper left", handlelength=1.2, borderaxespad=0.2)
    return figure


def bins_averaged(wavelength):
    """Return how many neighbouring bins are averaged in `abundance_panels`."""
    return -(-len(wavelength) // MAX_STEPS)


@style.our_style()
def sensitivity_curves(
    wavelength, bin_width, sensitivity, amp_table, molecule_curves, spectrum, width=style.TWO_COLUMNS
):  # fmt: skip
    """Sensitivity as coloured dots on each molecule's own curve; planet parameters on a spectrum.

    Colours run from each panel's least value (the floor of the halving scheme) to its 95th percentile. The depths
    ``molecule_curves`` (n_bins,) are with one molecule, "none" with none; other AMPs lie on ``spectrum`` (n_bins,).
    """
    ends = style.bin_ends(wavelength, bin_width)
    figure, axes = style.wavelength_grid(len(amp_table), ends, "", width=width)
    base, many = molecule_curves.get("none"), len(wavelength) > MANY_BINS
    for ax, amp, row in zip(axes, amp_table, sensitivity):
        curve = np.asarray(molecule_curves.get(amp.key, spectrum))
        factor, unit = style.depth_unit(curve)
        lines = [(curve, amp.colour, _line(wavelength))]
        if amp.key in molecule_curves and base is not None:
            lines.insert(0, (np.asarray(base), style.FAINT, 0.7))
        for depth, colour, line in lines:
            ax.plot(*style.broken_at_gaps(ends, wavelength, depth * factor), color=colour, lw=line, zorder=2)
        known = np.isfinite(row)
        if known.any() and np.ptp(row[known]) > 0:
            least, top = np.min(row[known]), np.percentile(row[known], CLIP)
            top = top if top > least else np.max(row[known])  # fewer than one bin in twenty stands out
            ax.scatter(
                wavelength[known], curve[known] * factor, c=row[known], norm=Normalize(least, top), cmap=SEQUENTIAL,
                s=4 if many else 8, edgecolors=style.INK, linewidths=0.1 if many else 0.3, zorder=3,
            )  # fmt: skip
        else:
            why = "no spectra" if not known.any() else "all equal" if row[known].any() else "not sensitive"
            style.note(ax, why, x=0.95)
        style.panel_title(ax, amp, f" (depth, {unit})")
        ax.margins(y=0.12)
    _bar(figure, axes, POSITIVE, SEQUENTIAL, "Sensitivity (least to 95th percentile)", extend="max")
    return figure


def _line(wavelength):
    """Return a width of lines at which neighbouring steps do not merge, in points."""
    return 0.5 if len(wavelength) > MANY_BINS else 1.0


def _bar(figure, axes, norm, colours, label, **kwargs):
    """Add a colour bar: at the right of a wide figure, at the foot of a narrow one."""
    narrow, tall = figure.get_figwidth() < style.TWO_COLUMNS, len(axes) > 3
    shape = {"location": "bottom", "aspect": 40} if narrow else {"aspect": 20 + 20 * tall, "shrink": 1 - 0.4 * tall}
    bar = figure.colorbar(ScalarMappable(norm, colours), ax=axes, label=label, pad=0.01, **shape, **kwargs)
    bar.outline.set_linewidth(0.5)


@style.our_style()
def sensitivity_profiles(wavelength, bin_width, result, amp_table, width=style.TWO_COLUMNS):
    """Sensitivity of each AMP against wavelength, with standard errors and the range over the folds."""
    ends = style.bin_ends(wavelength, bin_width)
    figure, axes = style.wavelength_grid(len(amp_table), ends, "Sensitivity (mean squared change)", width=width)
    for i, (ax, amp) in enumerate(zip(axes, amp_table)):
        factor, unit = style.difference_scale(amp)
        mean, error = result.mean[i] / factor**2, result.standard_error[i] / factor**2
        style.panel_title(ax, amp, f" ({unit}²)" if unit else "")
        if not np.isfinite(mean).any():
            style.note(ax, "no spectra", x=0.95)
            ax.set_yticks([])
            continue
        if result.folds > 1:
            low, high = result.low[i] / factor**2, result.high[i] / factor**2
            x, low, high = style.broken_at_gaps(ends, wavelength, low, high)
            ax.fill_between(x, low, high, color=amp.colour, alpha=0.2, lw=0)
        x, y, bar = style.broken_at_gaps(ends, wavelength, mean, error)
        ax.errorbar(x, y, yerr=bar, color=amp.colour, marker="o", lw=0.7, elinewidth=0.6, ms=2)
        if np.nanmin(mean) < 0.5 * np.nanmax(mean):  # else there is a floor, and zero would flatten the rest
            ax.set_ylim(bottom=0)
    return figure


@style.our_style()
def sensitivity_heatmap(wavelength, bin_width, sensitivity, amp_table, width=style.TWO_COLUMNS):
    """AMP against wavelength, each row stretched from its least to its greatest; known bands are underlined."""
    sensitivity = np.asarray(sensitivity, float)
    figure = style.new_figure(width, 0.9 + 0.25 * len(amp_table))
    ax = figure.subplots()
    least = np.nanmin(sensitivity, axis=1, initial=np.inf, keepdims=True, where=np.isfinite(sensitivity))
    shown = sensitivity - np.where(np.isfinite(least), least, 0)
    ends = style.bin_ends(wavelength, bin_width)
    _rows(ax, ends, shown, amp_table, POSITIVE, SEQUENTIAL)
    for y, low, high in bands_in_range(ends, amp_table):
        ax.plot([low, high], [y + 0.38] * 2, color="white", lw=2.6, solid_capstyle="butt")
        ax.plot([low, high], [y + 0.38] * 2, color="#0072B2", lw=1.4, solid_capstyle="butt")
    ax.set_xlabel(style.WAVELENGTH)
    _bar(figure, [ax], POSITIVE, SEQUENTIAL, "Sensitivity (row's range)")
    return figure


def bands_in_range(ends, amp_table):
    """Return (number of the AMP, low, high), micron, for every known band, cut to the range of the bins' ends."""
    first, last = ends[0, 0], ends[-1, 1]
    bands = [(y, max(a, first), min(b, last)) for y, amp in enumerate(amp_table) for a, b in BANDS.get(amp.key, ())]
    return [(y, low, high) for y, low, high in bands if low < high]


def _rows(ax, ends, values, amp_table, norm, colours):
    """Draw a table, each row divided by its greatest absolute value; return those values."""
    greatest = np.nanmax(np.abs(values), axis=1, initial=0, where=np.isfinite(values))
    shown = np.divide(values, greatest[:, None], out=np.full(values.shape, np.nan), where=greatest[:, None] > 0)
    ax.set_facecolor("#E6E6E6")  # shows where a row has no value
    y = np.arange(len(amp_table) + 1) - 0.5
    ax.pcolormesh(style.joined(ends), y, shown, norm=norm, cmap=colours, rasterized=True)
    style.wavelength_axis(ax, ends)
    ax.set_yticks(range(len(amp_table)), [style.short(amp.label) for amp in amp_table])
    ax.set_ylim(len(amp_table) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.hlines(y[1:-1], *ax.get_xlim(), color="white", lw=0.8)
    return greatest


@style.our_style()
def response_slopes(wavelength, bin_width, slope, curvature, amp_table, width=style.TWO_COLUMNS):
    """Slope and curvature (n_amps, n_bins) per standard error and its square, each row divided by its greatest value.

    A row of curvature below 1/1000 of its slope is the rounding of 32-bit networks and drawn as none.
    """
    figure = style.new_figure(width, 1.2 + 0.44 * len(amp_table))
    axes = figure.subplots(2, 1, sharex=True)
    slope, curvature = np.asarray(slope, float), np.array(curvature, float)
    curvature[np.abs(curvature).max(axis=1) < STRAIGHT * np.abs(slope).max(axis=1)] = 0
    for ax, values, name, power in ((axes[0], slope, "Slope", ""), (axes[1], curvature, "Curvature", "²")):
        greatest = _rows(ax, style.bin_ends(wavelength, bin_width), values, amp_table, SIGNED, DIVERGING)
        for y, (value, amp) in enumerate(zip(greatest, amp_table)):
            factor, unit = style.difference_scale(amp)
            text = f"{style.amount(value / factor)} {unit}/σ{power}".replace(" /", "/")
            place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 7}
            ax.annotate(text, (1, y), (3, 0), va="center", **place)
        ax.set_title(f"{name} (right: the row's greatest)")
    axes[1].set_xlabel(style.WAVELENGTH)
    _bar(figure, list(axes), SIGNED, DIVERGING, "Change / row's greatest")
    return figure


@style.our_style()
def response_map(wavelength, bin_width, deviations, change, amp_table, width=style.TWO_COLUMNS):
    """Change (n_amps, n_bins, n_deviations) of each AMP when one bin is moved by ``deviations`` standard errors."""
    order, ends = np.argsort(deviations), style.bin_ends(wavelength, bin_width)
    label = "Shift of one bin (standard errors)"
    figure, axes = style.wavelength_grid(len(amp_table), ends, label, 1.4, share_y=True, width=width)
    shifts = np.asarray(deviations, float)[order]
    middle = (shifts[1:] + shifts[:-1]) / 2
    half = middle[0] - shifts[0] if len(shifts) > 1 else 0.5
    edges = np.concatenate([[shifts[0] - half], middle, [shifts[-1] + half]])
    for ax, amp, one in zip(axes, amp_table, change):
        factor, unit = style.difference_scale(amp)
        greatest = np.max(np.abs(one), initial=0, where=np.isfinite(one))
        scaled = one[:, order].T / (greatest or 1)
        ax.pcolormesh(style.joined(ends), edges, scaled, norm=SIGNED, cmap=DIVERGING, rasterized=True)
        style.panel_title(ax, amp, f" (±{style.amount(greatest / factor)} {unit})".replace(" )", ")"))
    _bar(figure, axes, SIGNED, DIVERGING, "Change / panel's greatest")
    return figure
