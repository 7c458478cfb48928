"""Figures over wavelength: where each answer comes from (Yip et al. 2021, Section 4 and its sensitivity figures).

As in `report.figures`: arrays in, Figure out, nothing computed and nothing written.
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
CLIP = 95  # percentile at which the colours of dots saturate (the paper's)


@styled
def share_panels(wavelength, shares, error, amp_table, best=None, bands=BANDS, figure=None):
    """Share of each bin in the map of its AMP, a panel per AMP; known bands are shaded.

    Parameters
    ----------
    wavelength : ndarray (n_bins,)
        Micron.
    shares, error : ndarray (n_amps, n_bins)
        Each bin's share of its row, which sums to 1, and the 1-sigma error of that share.
    amp_table : sequence of constants.AMP
    best : ndarray (n_amps, n_bins), optional
        The same shares for the best possible estimator.
    bands : dict of str to sequence of (low, high)
        Micron, per AMP key.
    figure : Figure or SubFigure, optional

    Returns
    -------
    Figure or SubFigure
    """
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
            ax.stairs(100 * best[k], edges, color=INK, lw=0.7, label="best possible estimator")
        ax.errorbar(
            wavelength, 100 * shares[k], yerr=100 * error[k], fmt="o", color=amp.colour, ms=2, lw=0, elinewidth=0.6,
            label="this network" if k == 0 else None,
        )  # fmt: skip
        ax.set_ylim(bottom=0)
    wavelength_axis(axes[0], wavelength)
    figure.supxlabel(WAVELENGTH)
    figure.supylabel("Share of the AMP's sensitivity (%)")
    if best is not None:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)
    return figure


@styled
def sensitivity_curves(wavelength, sensitivity, amp_table, molecule_curves, spectrum, figure=None, bin_width=None):
    """Sensitivity as coloured dots on each molecule's own curve; planet parameters on a spectrum.

    Colours run from each panel's least value, which the floor of the halving scheme lifts far above zero, to
    its 95th percentile.

    Parameters
    ----------
    wavelength : ndarray (n_bins,)
        Micron.
    sensitivity : ndarray (n_amps, n_bins)
        AMP units squared; a row of NaN is drawn without colours, and said to be unknown.
    amp_table : sequence of constants.AMP
    molecule_curves : dict of str to ndarray (n_bins,)
        Transit depth with one molecule alone, and "none" with no molecule; AMPs not in it are drawn on the spectrum.
    spectrum : ndarray (n_bins,)
        Transit depth.
    figure : Figure or SubFigure, optional
    bin_width : ndarray (n_bins,), optional
        Micron, full widths; with them lines break at gaps between bins.

    Returns
    -------
    Figure or SubFigure
    """
    figure, axes = panel_grid(len(amp_table), figure, row_height=1.5, share_x=True)
    norm = Normalize(0, 1)
    base = molecule_curves.get("none")
    for ax, amp, row in zip(axes, amp_table, sensitivity):
        curve = np.asarray(molecule_curves.get(amp.key, spectrum))
        factor, unit = depth_unit(curve)
        if amp.key in molecule_curves and base is not None:
            ax.plot(*broken_at_gaps(wavelength, bin_width, np.asarray(base) * factor), color=FAINT, lw=0.7)
        ax.plot(*broken_at_gaps(wavelength, bin_width, curve * factor), color=amp.colour, lw=1, zorder=2)
        known = np.isfinite(row)
        if known.any() and np.ptp(row[known]) > 0:
            ax.scatter(
                wavelength[known], curve[known] * factor, c=_shade(row[known]), norm=norm,
                cmap=SEQUENTIAL, s=8, edgecolors=INK, linewidths=0.3, zorder=3,
            )  # fmt: skip
        else:
            note(ax, "no spectra" if not known.any() else "all alike" if row[known].any() else "not sensitive", x=0.95)
        panel_title(ax, amp, f" (depth, {unit})")
        ax.margins(y=0.12)
    wavelength_axis(axes[0], wavelength)
    figure.supxlabel(WAVELENGTH)
    _bar(figure, axes, norm, SEQUENTIAL, "Sensitivity (least to 95th percentile)", extend="max")
    return figure


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
    """Sensitivity of each AMP against wavelength, with standard errors and the range over the folds.

    Parameters
    ----------
    wavelength : ndarray (n_bins,)
        Micron.
    result : evaluation.MeanMap
    amp_table : sequence of constants.AMP
    figure : Figure or SubFigure, optional
    bin_width : ndarray (n_bins,), optional
        As of `sensitivity_curves`.

    Returns
    -------
    Figure or SubFigure
    """
    figure, axes = panel_grid(len(amp_table), figure, row_height=1.5, share_x=True)
    for i, (ax, amp) in enumerate(zip(axes, amp_table)):
        factor, unit = difference_scale(amp)
        mean, error = result.mean[i] / factor**2, result.standard_error[i] / factor**2
        panel_title(ax, amp, f" ({unit}$^2$)" if unit else "")
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
    """AMP against wavelength, each row stretched from its least to its greatest; known bands are underlined.

    Parameters
    ----------
    wavelength : ndarray (n_bins,)
        Micron.
    sensitivity : ndarray (n_amps, n_bins)
    amp_table : sequence of constants.AMP
    figure : Figure or SubFigure, optional
    bands : dict of str to sequence of (low, high)
        Micron, per AMP key.

    Returns
    -------
    Figure or SubFigure
    """
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
    """Slope and curvature of the response, AMP against wavelength, each row divided by its greatest value.

    Parameters
    ----------
    wavelength : ndarray (n_bins,)
        Micron.
    slope, curvature : ndarray (n_amps, n_bins)
        AMP units per standard error, and per its square; retrieval space. A row of curvature below 1/1000 of
        its slope is rounding of 32-bit networks, and drawn as none.
    amp_table : sequence of constants.AMP
    figure : Figure or SubFigure, optional

    Returns
    -------
    Figure or SubFigure
    """
    figure = figure or new_figure(TWO_COLUMNS, 1.2 + 0.44 * len(amp_table))
    axes = figure.subplots(2, 1, sharex=True)
    norm = Normalize(-1, 1)
    slope, curvature = np.asarray(slope, float), np.array(curvature, float)
    curvature[np.abs(curvature).max(axis=1) < STRAIGHT * np.abs(slope).max(axis=1)] = 0
    for ax, values, name, power in ((axes[0], slope, "Slope", ""), (axes[1], curvature, "Curvature", "²")):
        greatest = _rows(ax, wavelength, values, amp_table, norm, DIVERGING)
        right = ax.secondary_yaxis("right")
        right.set_yticks(range(len(amp_table)), [_amount(g, a, power) for g, a in zip(greatest, amp_table)])
        right.tick_params(length=0)
        ax.set_title(f"{name} (right: the row's greatest)")
    axes[1].set_xlabel(WAVELENGTH)
    _bar(figure, list(axes), norm, DIVERGING, "Change / row's greatest")
    return figure


def _amount(value, amp, power=""):
    factor, unit = difference_scale(amp)
    return f"{amount(value / factor)} {unit}/σ{power}".replace(" /", "/")


@styled
def response_map(wavelength, deviations, change, amp_table, figure=None):
    """Change of each AMP when one bin is pushed by a number of its standard errors, with its sign.

    Parameters
    ----------
    wavelength : ndarray (n_bins,)
        Micron.
    deviations : ndarray (n_deviations,)
        Standard errors.
    change : ndarray (n_amps, n_bins, n_deviations)
        Retrieval-space units.
    amp_table : sequence of constants.AMP
    figure : Figure or SubFigure, optional

    Returns
    -------
    Figure or SubFigure
    """
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
    figure.supylabel("Push of one bin (standard errors)")
    _bar(figure, axes, norm, DIVERGING, "Change / panel's greatest")
    return figure
