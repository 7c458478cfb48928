"""Figures of one observation: estimates with their errors, and the bins that they are sensitive to.

Arrays in, Figure out; nothing is written. ``ends`` (n_bins, 2) are those of the bins, micron; figures for the screen of
a phone have the ``width`` `NARROW` (inches).
"""

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from observation.compare import LARGE_RESIDUAL
from report import style
from report.map_figures import bands_in_range

INSTRUMENTS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#332288")
MARKERS = "osD^vPX"  # one more than colours, so that pairs repeat only after 42 instruments
COLOURS = "magma_r"
NARROW = 3.2  # inches: 7 points are 11 pixels then on a phone of 400
MANY_BINS = 120  # from which on there are two panels in a row


@style.our_style()
def answer_intervals(values, intervals, limits, amp_table, width=style.TWO_COLUMNS):
    """Draw values (n_amps,) with intervals (n_levels, 2, n_amps) on axes that span the limits (2, n_amps)."""
    columns = 1 if len(amp_table) <= 6 or width < style.TWO_COLUMNS else 2
    rows = -(-len(amp_table) // columns)
    figure = style.new_figure(width, 0.5 * rows + 0.3)
    grid = figure.add_gridspec(rows, columns)
    for k, amp in enumerate(amp_table):
        ax = figure.add_subplot(grid[k % rows, k // rows])
        ends, unit, log = style.plotted(amp, limits[:, k])
        inches, colour = width / columns - 1.6, amp.colour
        for (low, high), thick in zip(intervals[::-1, :, k], (1.2, 4.5)):  # the wider one first
            ax.plot(style.plotted(amp, [low, high])[0], [0, 0], color=colour, lw=thick, solid_capstyle="butt")
        middle = style.plotted(amp, values[k])[0]
        ax.plot(middle, 0, "o", ms=5, mfc="white", mec=colour, mew=1.2, clip_on=False)
        shown = np.concatenate([ends, [middle]])
        low, high = shown.min(), shown.max()
        if log:
            style.log_axis(ax.xaxis, low, high if high > low else 1.5 * low, inches)
        else:
            ax.set_xlim(low, high if high > low else low + 1)
            ax.xaxis.set_major_locator(MaxNLocator(max(3, int(inches / 0.5)), steps=[1, 2, 5, 10]))
        ax.set_ylim(-1, 1)
        ax.set_yticks([])
        for side in ("left", "right", "top"):
            ax.spines[side].set_visible(False)
        ax.set_ylabel(style.with_unit(style.short(amp.label, 18), unit), rotation=0, ha="right", va="center")
    return figure


@style.our_style()
def spectrum_shares(observation, ends, shares, amp_table, titles):
    """Draw the spectrum in a panel per AMP, bins coloured by their shares (n_amps, n_bins); a row of NaN has none."""
    wavelength, depth, error = observation.wavelength, observation.depth, observation.error
    many = len(wavelength) > MANY_BINS
    factor, unit = style.depth_unit(depth)
    figure, axes = style.wavelength_grid(len(amp_table), ends, f"Transit depth ({unit})", 1.55, share_y=True)
    for k, low, high in bands_in_range(ends, amp_table):
        axes[k].axvspan(low, high, color="#EEF3F7", lw=0, zorder=0)
    size = 7 if many else 11 if len(wavelength) > 30 else 20
    for ax, amp, share, title in zip(axes, amp_table, shares, titles):
        ax.errorbar(
            wavelength, depth * factor, yerr=error * factor, fmt="none", ecolor="#B5B5B5",
            elinewidth=0.4 if many else 0.7, capsize=0, zorder=1,
        )  # fmt: skip
        known = np.isfinite(share).all()
        colour = share / share.max() if known else np.zeros(len(wavelength))
        order = np.argsort(colour, kind="stable")  # the largest share on top
        ax.scatter(
            wavelength[order], (depth * factor)[order], c=colour[order], norm=Normalize(0, 1), cmap=COLOURS,
            s=size * (0.5 + colour[order]), edgecolors=style.INK, linewidths=0.12 if many else 0.25, zorder=2,
        )  # fmt: skip
        largest = style.percent(share.max(), 0 if share.max() >= 0.1 else 1)
        style.panel_title(ax, amp, title)
        style.note(ax, f"largest {largest}" if known else "not sensitive", x=0.97)
    low, high = factor * (depth - error).min(), factor * (depth + error).max()
    axes[0].set_ylim(low - 0.06 * (high - low), high + 0.25 * (high - low))  # of all panels; room for the remark
    return figure


@style.our_style()
def expectation(observation, ends, expected=None, residuals=None, width=style.TWO_COLUMNS):
    """Draw the spectrum by instrument with the ``expected`` depths (n_bins,), and the residuals from these below it."""
    wavelength, depth, error = observation.wavelength, observation.depth, observation.error
    figure = style.new_figure(width, 2.4 if residuals is None else 3.9)
    factor, unit = style.depth_unit(depth)
    compared = residuals is not None
    top, *below = np.ravel(figure.subplots(1 + compared, 1, sharex=True, height_ratios=(3, 2)[: 1 + compared]))
    names = np.full(len(depth), "") if observation.instrument is None else observation.instrument
    many = len(wavelength) > MANY_BINS
    for i, name in enumerate(np.unique(names)):
        one = names == name
        marks = {"color": INSTRUMENTS[i % 6], "marker": MARKERS[i % 7], "ms": 2.2 if many else 3.5, "ls": "none"}
        top.errorbar(
            wavelength[one], depth[one] * factor, yerr=error[one] * factor, elinewidth=0.6, capsize=0,
            label=style.short(str(name).replace("$", r"\$"), 40) or None, **marks,
        )  # fmt: skip
        for ax in below:
            ax.plot(wavelength[one], residuals[one], **marks)
    for ax in below:
        line = style.broken_at_gaps(ends, wavelength, expected * factor)
        top.plot(*line, color=style.INK, lw=0.8, label="predicted from the other bins", zorder=0)
        for level, line in ((0, "-"), (-LARGE_RESIDUAL, ":"), (LARGE_RESIDUAL, ":")):
            ax.axhline(level, color=style.FAINT, lw=0.8, ls=line, zorder=0)
        reach = max(1.15 * np.abs(residuals).max(), 1.3 * LARGE_RESIDUAL)
        ax.set_ylim(-reach, reach)
        ax.set_ylabel("Residual (σ)")
    handles = top.get_legend_handles_labels()
    if handles[0]:
        figure.legend(*handles, loc="outside upper center", ncols=2 if width < style.TWO_COLUMNS else 4)
    top.set_ylabel(f"Transit depth ({unit})")
    [top, *below][-1].set_xlabel(style.WAVELENGTH)
    style.log_axis(top.xaxis, ends[0, 0], ends[-1, 1], width - 0.8)
    return figure
