"""Figures of the predictions: errors, credibility, training (Yip et al. 2021, Section 5).

A function takes arrays, with rows in the order of ``amp_table``, and returns the Figure or Axes that it drew; it
computes nothing and writes nothing. A figure with a panel per AMP takes an optional ``figure`` (a Figure or SubFigure),
one with a single panel an optional ``ax``. Without one, a new figure of journal width is made. Maps over wavelength are
in `report.map_figures`.
"""

import numpy as np

from report.style import (
    INK,
    amount,
    difference_scale,
    log_axis,
    note,
    panel_grid,
    panel_title,
    panel_width,
    plotted,
    single_axes,
    styled,
    tint,
    value_axis,
    with_unit,
)

DENSE = 1500  # points in a panel above which their density is shown instead of each


@styled
def true_vs_predicted(y_test, y_pred, amp_table, scores=None, figure=None):
    """Predicted against true, a panel per AMP, with the 1:1 line, and R2 from ``scores`` if given."""
    y_pred = np.asarray(y_pred)
    n_folds = y_pred.shape[0] if y_pred.ndim == 3 else 1
    predicted = y_pred.reshape(-1, len(amp_table))
    truth = np.tile(y_test, (n_folds, 1))
    figure, axes = panel_grid(len(amp_table), figure, row_height=2.15 if len(amp_table) <= 12 else 1.75)
    for i, (ax, amp) in enumerate(zip(axes, amp_table)):
        _true_vs_predicted(ax, truth[:, i], predicted[:, i], amp)
        if scores is not None and np.isfinite(scores["R2"][i]):
            note(ax, f"R² = {scores['R2'][i]:.3f}")
    figure.supxlabel("True")
    figure.supylabel("Predicted")
    return figure


def _true_vs_predicted(ax, truth, predicted, amp):
    x, unit, log = plotted(amp, truth)
    y, _, _ = plotted(amp, predicted)
    room = 0.25 * np.ptp(truth)
    low, high = (float(v) for v in plotted(amp, [truth.min() - room, truth.max() + room])[0])
    low, high = max(low, min(x.min(), y.min())), min(high, max(x.max(), y.max()))
    for axis in (ax.xaxis, ax.yaxis):
        value_axis(axis, amp, low, high, panel_width(ax))
    inside = (y >= ax.get_ylim()[0]) & (y <= ax.get_ylim()[1])
    if inside.sum() > DENSE:
        scale = "log" if log else "linear"
        limits = (
            np.concatenate([np.log10(ax.get_xlim()), np.log10(ax.get_ylim())])
            if log
            else (*ax.get_xlim(), *ax.get_ylim())
        )
        ax.hexbin(
            x[inside], y[inside], gridsize=36, bins="log", mincnt=1, cmap=tint(amp.colour), linewidths=0.1,
            xscale=scale, yscale=scale, extent=tuple(limits), rasterized=True,
        )  # fmt: skip
        for axis in (ax.xaxis, ax.yaxis):
            value_axis(axis, amp, low, high, panel_width(ax))
    else:
        ax.scatter(x, y, s=3, color=amp.colour, alpha=0.5, linewidths=0, rasterized=True)
    ax.axline((low, low), (high, high), color=INK, lw=0.7, ls="--") if high > low else None
    ax.set_box_aspect(1)
    panel_title(ax, amp, with_unit("", unit))
    if not inside.all():
        note(ax, f"{(~inside).sum()} off scale", x=0.95, y=0.05)


@styled
def bias_variance(result, amp_table, figure=None):
    """Median error along the truth with its central 68 %, from a `diagnostics.BiasVariance`."""
    figure, axes = panel_grid(len(amp_table), figure)
    for i, (ax, amp) in enumerate(zip(axes, amp_table)):
        factor, unit = difference_scale(amp)
        x, x_unit, _ = plotted(amp, result.truth[i])
        ax.fill_between(x, result.low[i] / factor, result.high[i] / factor, color=amp.colour, alpha=0.25, lw=0)
        ax.plot(x, result.median[i] / factor, color=amp.colour, marker="o", lw=0.9)
        ax.axhline(0, color=INK, lw=0.6, ls="--")
        value_axis(ax.xaxis, amp, x.min(), x.max(), panel_width(ax))
        _title(ax, amp, x_unit, unit)
    figure.supxlabel("True")
    figure.supylabel("Δ: predicted − true (median, central 68 %)")
    return figure


def _title(ax, amp, x_unit, y_unit):
    """Name the AMP, the unit along x in brackets, and the unit of the error where it is another one."""
    same = y_unit in ("", x_unit) or (y_unit == "dex" and x_unit.startswith("log₁₀"))
    panel_title(ax, amp, with_unit("", x_unit) + ("" if same else f"; Δ in {y_unit}"))


@styled
def deviation(results, amp_table, figure=None):
    """Error against the prediction from a `diagnostics.Deviation` per AMP: median, 95 % interval, spectra per bin."""
    figure, axes = panel_grid(len(amp_table), figure)
    for ax, amp, one in zip(axes, amp_table, results):
        factor, unit = difference_scale(amp)
        x, x_unit, _ = plotted(amp, one.predicted)
        _title(ax, amp, x_unit, unit)
        if not _enough(ax, x):
            continue
        y = one.median / factor
        error = [y - one.low / factor, one.high / factor - y]
        ax.errorbar(x, y, yerr=error, color=amp.colour, marker="o", lw=0, elinewidth=0.9, zorder=3)
        ax.axhline(0, color=INK, lw=0.6, ls="--")
        value_axis(ax.xaxis, amp, x.min(), x.max(), panel_width(ax))
        _counts(ax, x, one.count)
    figure.supxlabel("Predicted")
    figure.supylabel("Δ: predicted − true (95 % interval)")
    return figure


def _enough(ax, x):
    """Return whether a panel has a bin with enough spectra; if not, say so in it."""
    if len(x):
        return True
    note(ax, "too few test spectra\nfor one bin", x=0.5, y=0.5, ha="center", va="center")
    ax.set_xticks([])
    ax.set_yticks([])
    return False


def _counts(ax, x, count):
    """Draw the number of spectra per bin as grey steps along the foot of a panel, and print the greatest."""
    low, high = ax.get_ylim()
    base = low - 0.4 * (high - low)  # a fifth of it for the steps, the rest for the number above them
    top = base + 0.2 * (high - low) * np.asarray(count) / np.max(count)
    ax.vlines(x, base, top, color="#C4C4C4", lw=2.2, zorder=1)
    ax.set_ylim(base, high)
    note(ax, f"n ≤ {np.max(count):.0f}", x=0.97, y=0.16, color="#5A5A5A")


@styled
def credibility(results, amp_table, delta=None, figure=None):
    """Probability that the truth is within eps of the prediction, from a `diagnostics.Credibility` per AMP.

    ``delta`` is a threshold to mark.
    """
    figure, axes = panel_grid(len(amp_table), figure, share_y=True)
    axes[0].set_ylim(0, 1.04)
    for ax, amp, one in zip(axes, amp_table, results):
        factor, unit = difference_scale(amp)
        x, x_unit, _ = plotted(amp, one.predicted)
        eps = f"{amount(one.eps / factor)} {unit}".strip()
        panel_title(ax, amp, with_unit("", x_unit) + f"; ε = {eps}")
        if len(x):
            error = [one.probability - one.low, one.high - one.probability]
            ax.errorbar(x, one.probability, yerr=error, color=amp.colour, marker="o", lw=0.9, elinewidth=0.6)
            value_axis(ax.xaxis, amp, x.min(), x.max(), panel_width(ax))
        else:
            note(ax, "too few test spectra\nfor one bin", x=0.5, y=0.5, ha="center", va="center")
            ax.set_xticks([])
        if delta is not None:
            ax.axhline(delta, color=INK, lw=0.6, ls="--")
    figure.supxlabel("Predicted")
    figure.supylabel("P(|predicted − true| < ε)")
    return figure


@styled
def calibration(result, amp_table, figure=None):
    """Fraction of truths within k standard deviations of the mean of the folds, from a `diagnostics.Calibration`."""
    figure, axes = panel_grid(len(amp_table), figure, share_x=True, share_y=True, row_height=1.45)
    axes[0].set_ylim(0, 1.04)
    axes[0].set_xlim(result.k.min(), result.k.max())
    for ax, amp, inside in zip(axes, amp_table, result.inside):
        ax.plot(result.k, result.expected, color=INK, lw=0.8, ls="--")
        ax.plot(result.k, inside, color=amp.colour, marker="o", lw=0.9, clip_on=False)
        panel_title(ax, amp)
    figure.supxlabel("Standard deviations of the folds, k")
    figure.supylabel("Fraction of truths within k (dashed: normal)")
    return figure


@styled
def loss_curves(training, validation=None, best_epochs=(), ax=None, label="Loss"):
    """Training and validation loss from `diagnostics.LossBand`s, with the epochs (n_folds,) that were kept.

    ``label`` names the loss on the vertical axis.
    """
    ax = single_axes(ax)
    for band, name, colour in ((training, "training", "#0072B2"), (validation, "validation", "#D55E00")):
        if band is None:
            continue
        marker = "o" if len(band.epoch) == 1 else None
        ax.plot(band.epoch, band.mean, color=colour, label=name, marker=marker)
        if band.folds.max() > 1:
            ax.fill_between(band.epoch, band.low, band.high, color=colour, alpha=0.2, lw=0)
    values = np.concatenate([v for b in (training, validation) if b is not None for v in (b.low, b.high)])
    low, high = np.nanmin(values), np.nanmax(values)
    if 0 < low < high:
        log_axis(ax.yaxis, low / (high / low) ** 0.12, high * (high / low) ** 0.05, 0.6 * panel_width(ax))
    if len(best_epochs):
        foot = np.full(len(best_epochs), 0.03)
        ax.plot(best_epochs, foot, "^", ms=4, color=INK, label="kept", transform=ax.get_xaxis_transform())
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.margins(x=0.02)
    ax.set_xlabel("Epoch")
    ax.set_ylabel(label, wrap=True)
    ax.legend()
    return ax
