"""Figures of the predictions: errors, credibility, training (Yip et al. 2021, Section 5).

A function takes arrays, with rows in the order of ``amp_table``, and returns the Figure that it drew, ``width`` inches
wide; it computes nothing and writes nothing. Maps over wavelength are in `report.map_figures`.
"""

import numpy as np
from matplotlib.colors import LinearSegmentedColormap

from report import style

DENSE = 1500  # points in a panel above which their density is shown instead of each


@style.our_style()
def true_vs_predicted(y_test, y_pred, amp_table, r2=None, width=style.TWO_COLUMNS):
    """Predicted against true, with the 1:1 line, and R2 (n_amps,) if given."""
    n = len(amp_table)
    row_height = 1.75 if n > 15 or width < style.TWO_COLUMNS else 2.15
    figure, axes = style.panel_grid(n, row_height, width=width, labels=("True", "Predicted"))
    for i, (ax, amp) in enumerate(zip(axes, amp_table)):
        truth, (x, unit, log), y = y_test[:, i], style.plotted(amp, y_test[:, i]), style.plotted(amp, y_pred[:, i])[0]
        room = 0.25 * np.ptp(truth)
        low, high = (float(v) for v in style.plotted(amp, [truth.min() - room, truth.max() + room])[0])
        low, high = max(low, min(x.min(), y.min())), min(high, max(x.max(), y.max()))
        for axis in (ax.xaxis, ax.yaxis):
            style.value_axis(axis, amp, low, high, style.panel_width(ax))
        inside = (y >= ax.get_ylim()[0]) & (y <= ax.get_ylim()[1])
        if inside.sum() > DENSE:
            tint = LinearSegmentedColormap.from_list("tint", ["#DEDEDE", amp.colour])
            scale, limits = "log" if log else "linear", np.concatenate([ax.get_xlim(), ax.get_ylim()])
            ax.hexbin(
                x[inside], y[inside], gridsize=36, bins="log", mincnt=1, cmap=tint, linewidths=0.1,
                xscale=scale, yscale=scale, extent=tuple(np.log10(limits) if log else limits), rasterized=True,
            )  # fmt: skip
            for axis in (ax.xaxis, ax.yaxis):
                style.value_axis(axis, amp, low, high, style.panel_width(ax))
        else:
            ax.scatter(x, y, s=3, color=amp.colour, alpha=0.5, linewidths=0, rasterized=True)
        if high > low:
            ax.axline((low, low), (high, high), color=style.INK, lw=0.7, ls="--")
        ax.set_box_aspect(1)
        style.panel_title(ax, amp, style.with_unit("", unit))
        if not inside.all():
            style.note(ax, f"{(~inside).sum()} off scale", x=0.95, y=0.05)
        if r2 is not None and np.isfinite(r2[i]):
            style.note(ax, f"R² = {style.score(r2[i])}")
    return figure


def _along(results, amp_table, labels, width, change=True, **grid):
    """Return a figure, its panels, and (panel, AMP, `diagnostics.Along` in plot units) where there are bins."""
    figure, axes = style.panel_grid(len(amp_table), width=width, labels=labels, **grid)
    found = []
    for ax, amp, one in zip(axes, amp_table, results):
        factor, unit = style.difference_scale(amp) if change else (1, "")
        x, x_unit, _ = style.plotted(amp, one.centre)
        same = unit in ("", x_unit) or (unit == "dex" and x_unit.startswith("log₁₀"))
        style.panel_title(ax, amp, style.with_unit("", x_unit) + ("" if same else f"; Δ in {unit}"))
        if len(x):
            style.value_axis(ax.xaxis, amp, x.min(), x.max(), style.panel_width(ax))
            found.append((ax, amp, type(one)(x, *(values / factor for values in one[1:4]), one.count)))
            continue
        style.note(ax, "too few test spectra\nfor one bin", x=0.5, y=0.5, ha="center", va="center")
        ax.set(**{"xticks": [], "yticks": []} if change else {"xticks": []})
    return figure, axes, found


@style.our_style()
def bias_variance(results, amp_table, width=style.TWO_COLUMNS):
    """Median error along the truth with its central 68 %, from a `diagnostics.Along` per AMP."""
    labels = "True", "Δ: predicted − true (median, central 68 %)"
    figure, _, panels = _along(results, amp_table, labels, width)
    for ax, amp, one in panels:
        ax.fill_between(one.centre, one.low, one.high, color=amp.colour, alpha=0.25, lw=0)
        ax.plot(one.centre, one.value, color=amp.colour, marker="o", lw=0.9)
        ax.axhline(0, color=style.INK, lw=0.6, ls="--")
    return figure


@style.our_style()
def deviation(results, amp_table, width=style.TWO_COLUMNS):
    """Error against the prediction from a `diagnostics.Along` per AMP: median, 95 % interval, spectra."""
    figure, _, panels = _along(results, amp_table, ("Predicted", "Δ: predicted − true (95 % interval)"), width)
    for ax, amp, one in panels:
        error = [one.value - one.low, one.high - one.value]
        ax.errorbar(one.centre, one.value, yerr=error, color=amp.colour, marker="o", lw=0, elinewidth=0.9, zorder=3)
        ax.axhline(0, color=style.INK, lw=0.6, ls="--")
        low, high = ax.get_ylim()  # below: the number of spectra per bin as grey steps, and the greatest printed
        base = low - 0.4 * (high - low)  # a fifth of it for the steps, the rest for the number above them
        top = base + 0.2 * (high - low) * one.count / np.max(one.count)
        ax.vlines(one.centre, base, top, color="#C4C4C4", lw=2.2, zorder=1)
        ax.set_ylim(base, high)
        style.note(ax, f"n ≤ {np.max(one.count):.0f}", x=0.97, y=0.16, color="#5A5A5A")
    return figure


@style.our_style()
def credibility(results, amp_table, eps, delta, width=style.TWO_COLUMNS):
    """Probability that the truth is within ``eps`` (n_amps,), from a `diagnostics.Along` per AMP; mark ``delta``."""
    labels = "Predicted", "P(|predicted − true| < ε)"
    figure, axes, panels = _along(results, amp_table, labels, width, change=False, share_y=True)
    axes[0].set_ylim(0, 1.04)
    for ax, amp, one in panels:
        error = [one.value - one.low, one.high - one.value]
        ax.errorbar(one.centre, one.value, yerr=error, color=amp.colour, marker="o", lw=0.9, elinewidth=0.6)
    for ax, amp, within in zip(axes, amp_table, eps):
        factor, unit = style.difference_scale(amp)
        style.note(ax, f"ε = {style.amount(within / factor)} {unit}".rstrip(), y=0.05)
        ax.axhline(delta, color=style.INK, lw=0.6, ls="--")
    return figure


@style.our_style()
def calibration(result, amp_table, width=style.TWO_COLUMNS):
    """Fraction of truths within k standard deviations of the mean of the folds, from a `diagnostics.Calibration`."""
    labels = "Standard deviations of the folds, k", "Fraction of truths within k (dashed: normal)"
    figure, axes = style.panel_grid(len(amp_table), 1.45, share_x=True, share_y=True, width=width, labels=labels)
    axes[0].set_ylim(0, 1.04)
    axes[0].set_xlim(result.k.min(), result.k.max())
    for ax, amp, inside in zip(axes, amp_table, result.inside):
        ax.plot(result.k, result.expected, color=style.INK, lw=0.8, ls="--")
        ax.plot(result.k, inside, color=amp.colour, marker="o", lw=0.9, clip_on=False)
        style.panel_title(ax, amp)
    return figure


@style.our_style()
def loss_curves(training, validation, best_epochs, label):
    """Training and validation loss from `diagnostics.LossBand`s (the latter may be None), one column wide.

    ``best_epochs`` (n_folds,) are those that were kept; ``label`` names the loss on the vertical axis.
    """
    figure = style.new_figure(style.ONE_COLUMN, 2.4)
    ax = figure.subplots()
    bands = [("training", training, "#0072B2"), ("validation", validation, "#D55E00")]
    bands = [one for one in bands if one[1] is not None]
    for name, band, colour in bands:
        ax.plot(band.epoch, band.mean, color=colour, label=name, marker="o" if len(band.epoch) == 1 else None)
        if band.folds.max() > 1:
            ax.fill_between(band.epoch, band.low, band.high, color=colour, alpha=0.2, lw=0)
    values = np.concatenate([v for _, band, _ in bands for v in (band.low, band.high)])
    low, high = np.nanmin(values), np.nanmax(values)
    if 0 < low < high:
        style.log_axis(ax.yaxis, low / (high / low) ** 0.12, high * (high / low) ** 0.05, 0.6 * style.panel_width(ax))
    if len(best_epochs):
        foot = np.full(len(best_epochs), 0.03)
        ax.plot(best_epochs, foot, "^", ms=4, color=style.INK, label="kept", transform=ax.get_xaxis_transform())
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.margins(x=0.02)
    ax.set_xlabel("Epoch")
    ax.set_ylabel(label, wrap=True)
    ax.legend()
    return figure
