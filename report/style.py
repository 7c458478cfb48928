"""What all figures share: one style, panel grids, units, numbers in words, axes, and how they become files."""

import contextlib
import io
import logging
import math
import re
from collections import deque

import matplotlib
import numpy as np
from fontTools import subset
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    ScalarFormatter,
    StrMethodFormatter,
)

from common.files import written_whole
from common.processes import process_count, process_pool

ONE_COLUMN, TWO_COLUMNS = 3.4, 7.1  # inches, widths of an AAS journal
DPI = 160  # of PNG files; figures are laid out at it too, so that text is measured once
MAX_TALL = 3  # panels of a narrow figure below each other; more stand in two columns
INK, FAINT = "#222222", "#9A9A9A"
WAVELENGTH = "Wavelength (µm)"
TOUCH = 0.01  # of the widths of two bins: a smaller gap between them is rounding
NBSP = "\N{NO-BREAK SPACE}"
MEMORY = 3e8  # bytes of a process that draws

STYLE = {
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.titley": 1.0,  # a place found anew at every draw costs a fifth of the time
    "axes.labelsize": 7.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "figure.titlesize": 8,
    "figure.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "lines.linewidth": 1.0,
    "lines.markersize": 2.5,
    "errorbar.capsize": 1.5,
    "axes.formatter.limits": (-3, 4),
    "figure.dpi": DPI,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,  # editable text, as journals ask
    "axes.unicode_minus": True,
}
TICKS = {"labelsize": 7, "color": INK, "direction": "in"}
TICKS |= {"major.size": 3, "minor.size": 1.5, "major.width": 0.6, "minor.width": 0.4}
STYLE |= {f"{axis}tick.{key}": value for axis in "xy" for key, value in TICKS.items()}


@contextlib.contextmanager
def our_style():
    """Draw with matplotlib's defaults and ``STYLE`` alone and restore the user's; also a decorator."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


@contextlib.contextmanager
def small_fonts():
    """Leave out tables for ligatures, which matplotlib does not use, from fonts in PDF files: half of their time."""
    default = getattr(subset.Options, "_drop_tables_default", [])
    subset.Options._drop_tables_default = [*default, "GSUB", "GPOS", "GDEF"]
    try:
        yield
    finally:
        subset.Options._drop_tables_default = default


def new_figure(width, height):
    """Return an empty figure that pyplot does not know, so it is freed like any object."""
    return Figure(figsize=(width, height), layout="constrained")


def all_drawn(tasks, processes):
    """Return `drawn` of each task; this process draws from the end of the list what the others have not begun."""
    n = process_count(processes, len(tasks) // 3, MEMORY)  # fewer than three figures are no work for a process
    if n < 2:
        return [drawn(*task) for task in tasks]
    left, there, here = deque(range(len(tasks))), {}, {}
    with process_pool(n - 1, 1) as pool:
        while left:
            while left and sum(not one.done() for one in there.values()) < n:  # what they draw, and one that waits
                first = left.popleft()
                there[first] = pool.submit(drawn, *tasks[first])
            if left:
                last = left.pop()
                here[last] = drawn(*tasks[last])
        return [here[i] if i in here else there[i].result() for i in range(len(tasks))]


def drawn(figure, dpi, with_pdf):
    """Return a figure as PNG and as PDF, bytes each; without a date, so that the same run gives the same files.

    It is laid out once and for all: with a layout engine every file would be drawn twice.
    """
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it reports every font table that it cuts
    png, pdf = io.BytesIO(), io.BytesIO()
    with our_style(), small_fonts():
        if figure.get_layout_engine() is not None:
            figure.get_layout_engine().execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(png, format="png", dpi=dpi)
        if with_pdf:
            figure.savefig(pdf, format="pdf", dpi=200, metadata={"CreationDate": None})
    return png.getvalue(), pdf.getvalue()


def write_figure(folder, name, png, pdf):
    """Write what `drawn` returned into a folder, as ``name``.png and .pdf."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, content in (("png", png), ("pdf", pdf)):
        with written_whole(folder / f"{name}.{kind}") as part:
            part.write_bytes(content)


class PlainNumbers(ScalarFormatter):
    """Tick labels as plain text, which is drawn many times faster than mathtext, with an offset as a power of ten."""

    def get_offset(self):
        """Return the power of ten by which all labels are to be multiplied."""
        text = super().get_offset().replace("−", "-")
        return "×" + power_of_ten(float(text)) if text else ""


def panel_grid(n, row_height=1.75, share_x=False, share_y=False, width=TWO_COLUMNS, labels=("", "")):
    """Return a figure, ``width`` inches wide, and exactly ``n`` panels in it, row by row.

    A narrow figure has one panel in a row, or two where that is too long; ``labels`` are along x and y of all panels.
    """
    columns = n if n <= 3 else 2 if n == 4 else 3 if n <= 15 else 4
    if width < TWO_COLUMNS:
        columns = 1 if n <= MAX_TALL else 2
    rows = math.ceil(n / columns)
    figure = new_figure(ONE_COLUMN if n == 1 else width, max(rows * row_height + 0.35, 2.2))
    if width < TWO_COLUMNS:
        figure.get_layout_engine().set(w_pad=0.07)  # room for labels that grow by a digit when panels shrink
    figure.supxlabel(labels[0])
    figure.supylabel(labels[1])
    axes = figure.subplots(rows, columns, sharex=share_x, sharey=share_y, squeeze=False).ravel().tolist()
    for ax in axes[n:]:
        ax.remove()
    for i, ax in enumerate(axes[:n]):
        if share_x and i + columns >= n:
            ax.tick_params(labelbottom=True, which="both")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(PlainNumbers(useOffset=False))
    return figure, axes[:n]


def panel_width(ax):
    """Width that a panel will have, roughly, in inches (layout is not done yet)."""
    columns = ax.get_subplotspec().get_gridspec().ncols
    return max(ax.figure.get_figwidth() / columns - 0.5, 0.8)


def plain_ticks(low, high, inches):
    """Choose round numbers between ``low`` and ``high`` for a log axis, far enough apart to be printed plainly."""
    span = math.log10(high / low)
    if span < 0.4:  # evenly spaced numbers look right
        ticks = MaxNLocator(max(2, int(inches / 0.4)), steps=[1, 2, 5, 10]).tick_values(low, high)
        return [t for t in ticks if low <= t <= high]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    chosen = []
    for digit in (1, 2, 5, 3, 8, 4, 6, 7, 1.5):  # in the order in which they are wanted
        for value in (digit * 10.0**d for d in decades):
            gap = 0.25 if value >= 1 and value == round(value) and value < 10 else 0.34  # inches; "0.5" is wider
            near = any(abs(math.log10(value / other)) * inches / span < gap for other in chosen)
            if low <= value <= high and not near:
                chosen.append(value)
    return sorted(chosen)


def power_of_ten(value, _=None):
    """Print a power of ten in Unicode, which is drawn many times faster than mathtext."""
    return "10" + f"{round(math.log10(value)):d}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def without_mathtext(label):
    """Return a label with digits as Unicode subscripts where it has them as LaTeX: H$_2$O becomes H₂O."""
    return re.sub(r"\$_(\d)\$", lambda found: chr(0x2080 + int(found[1])), label)


def log_axis(axis, low, high, inches):
    """Make an axis logarithmic, with plain numbers where they fit and powers of ten where they do not."""
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})
    if math.log10(high / low) <= 2.3:
        axis.set_major_locator(FixedLocator(plain_ticks(low, high, inches)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    else:
        axis.set_major_locator(LogLocator(numticks=max(3, int(inches / 0.3))))
        axis.set_major_formatter(FuncFormatter(power_of_ten))
    axis.set_minor_locator(LogLocator(subs=range(2, 10), numticks=20) if high / low > 2.5 else NullLocator())
    axis.set_minor_formatter(NullFormatter())


def bin_ends(wavelength, width=None):
    """Lower and upper end of bins (n_bins, 2) from their centres and full widths (n_bins,), micron.

    Without widths the ends lie between the centres on a log axis.
    """
    if width is not None:
        half = np.asarray(width, float) / 2
        return np.stack([wavelength - half, wavelength + half], axis=1)
    centre = np.log(np.asarray(wavelength, float))
    if len(centre) == 1:
        return np.exp(centre + np.array([[-0.05, 0.05]]))
    middle = (centre[1:] + centre[:-1]) / 2
    edges = np.exp([2 * centre[0] - middle[0], *middle, 2 * centre[-1] - middle[-1]])
    return np.stack([edges[:-1], edges[1:]], axis=1)


def joined(ends):
    """Return edges (n_bins + 1,) without gaps from the ends of bins (n_bins, 2): a gap or an overlap is halved."""
    return np.concatenate([ends[:1, 0], (ends[:-1, 1] + ends[1:, 0]) / 2, ends[-1:, 1]])


def have_gaps(ends, least=TOUCH):
    """Say which bins with ``ends`` (n_bins, 2) have a gap above ``least`` of their width behind them, (n_bins - 1,)."""
    width = ends[:, 1] - ends[:, 0]
    return ends[1:, 0] - ends[:-1, 1] > least * (width[1:] + width[:-1]) / 2


def blocks(ends):
    """Return slices of neighbouring bins without a gap between their ``ends`` (n_bins, 2)."""
    gaps = np.flatnonzero(have_gaps(ends)) + 1
    return [slice(a, b) for a, b in zip([0, *gaps], [*gaps, len(ends)])]


def steps(ax, ends, values, baseline=None, label=None, **kwargs):
    """Draw values (n_bins,) as steps that break at gaps between bins; with a ``baseline``, the area above it."""
    for part in blocks(ends):
        foot = None if baseline is None else baseline[part]
        ax.stairs(values[part], joined(ends[part]), baseline=foot, label=label, **kwargs)
        label = None  # once in a legend


def broken_at_gaps(ends, *columns):
    """Return columns (n_bins,) with NaN at every gap between ``ends`` (n_bins, 2) that has room for a bin."""
    gaps = np.flatnonzero(have_gaps(ends, 1)) + 1
    return [np.insert(np.asarray(column, float), gaps, np.nan) for column in columns]


def wavelength_grid(n, ends, label, row_height=1.5, **others):
    """Return a `panel_grid` of ``n`` panels with one wavelength axis, for bins with these ``ends`` (n_bins, 2)."""
    figure, axes = panel_grid(n, row_height, share_x=True, labels=(WAVELENGTH, label), **others)
    wavelength_axis(axes[0], ends)
    return figure, axes


def wavelength_axis(ax, bins):
    """Give ``ax`` a logarithmic axis in micron for bins, given by their ends (n_bins, 2) or their centres."""
    ends = bins if np.ndim(bins) == 2 else bin_ends(bins)
    log_axis(ax.xaxis, ends[0, 0], ends[-1, 1], panel_width(ax))


def depth_unit(depth):
    """Return (factor, unit) that make transit depths readable: ppm below 0.1 %, else per cent."""
    return (1e6, "ppm") if np.nanmax(np.abs(depth)) < 1e-3 else (1e2, "%")


def plotted(amp, values):
    """Return retrieval-space values of an AMP as its axis shows them, their unit, and whether the axis is logarithmic.

    Planet mass and cloud-top pressure have a logarithmic axis; mixing ratios are shown as log10.
    """
    values = np.asarray(values, float)
    if amp.scale == "log10" and amp.kind == "molecule":
        return values, "log₁₀ VMR", False
    if amp.scale == "log10":
        return 10 ** np.clip(values - math.log10(amp.plot_factor), -300, 300), amp.plot_unit, True
    unit = "VMR" if amp.kind == "molecule" else amp.plot_unit
    return values / amp.plot_factor, unit, False


def as_text(label):
    """Return a plot label or unit as people type it: M_J for the LaTeX of figures."""
    plain = re.sub(r"\\mathrm|(?<!\\)\$|[{}]", "", label.replace("log$_{10}$", "log10"))
    return plain.replace(r"\$", "$").replace("₁₀", "10")


def difference_scale(amp):
    """Return (factor, unit) of a difference in retrieval space: differences are divided by the factor."""
    return (1.0, "dex") if amp.scale == "log10" else (amp.plot_factor, amp.plot_unit)


def amount(value, digits=2):
    """Print a number with so many digits, never as 1e+02, and one below 0.001 with a power of ten."""
    if 0 < abs(value) < 1e-3:
        number, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{number}×{power_of_ten(10.0 ** int(exponent))}"
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e" in text else text


def minus(text):
    """Return a text whose hyphens are minus signs."""
    return text.replace("-", "−")


def percent(share, digits=0):
    """Print a share in per cent, with a space that does not break."""
    return f"{100 * share:.{digits}f}{NBSP}%"


def score(r2, digits=3):
    """Print R2 with so many decimals, or with as many as it needs not to be rounded to 1."""
    if 0 < 1 - r2 < 0.5 * 10.0**-digits:
        digits = min(math.ceil(-math.log10(1 - r2)), 9)
    return minus(f"{r2:.{digits}f}")


def with_error(value, error):
    """Print a value and its error with the same decimals, at most four: one digit of an error above 0.354, else two."""
    place = math.floor(math.log10(error)) if 0 < error < np.inf else -2
    decimals = min(max((0 if error / 10.0**place > 3.54 else 1) - place, 0), 4)
    return minus(f"{value:.{decimals}f} ±{NBSP}{error:.{decimals}f}")


def with_unit(text, unit):
    """Return 'text (unit)', or the text alone for a quantity without a unit."""
    return f"{text} ({unit})" if unit else text


def value_axis(axis, amp, low, high, inches):
    """Set the range of an axis that shows an AMP, logarithmic where the AMP is shown so."""
    if plotted(amp, low)[2]:
        pad = (high / low) ** 0.03 if high > low else 1.5
        log_axis(axis, low / pad, high * pad, inches)
        return
    pad = 0.03 * (high - low) if high > low else abs(high) * 0.1 or 1.0
    axis.axes.set(**{f"{axis.axis_name}lim": (low - pad, high + pad)})
    room = 0.34 if max(abs(low), abs(high)) < 1000 else 0.5  # inches of a number
    axis.set_major_locator(MaxNLocator(max(2, int(inches / room)), steps=[1, 2, 4, 5, 10]))


def short(label, room=24):
    """Return a label cut to ``room`` characters; those of the AMP table, which hold LaTeX, fit as they are."""
    text = label.replace(r"\$", "$")
    if "$" in label.replace(r"\$", "") or len(text) <= max(room, 4):
        return without_mathtext(label)
    return (text[: max(room - 1, 3)].rstrip() + "…").replace("$", r"\$")


def panel_title(ax, amp, rest=""):
    """Title a panel with the AMP and ``rest``, cutting a long foreign name so that it keeps to its panel."""
    letters = len(re.sub(r"\\mathrm|[${}_^\\]", "", rest))
    ax.set_title(short(amp.label, int((panel_width(ax) + 0.4) / 0.068) - letters) + rest)


def note(ax, text, x=0.05, y=0.95, **kwargs):
    """Write a small remark into a corner of a panel."""
    align = {"ha": "left" if x < 0.5 else "right", "va": "top" if y > 0.5 else "bottom"}
    ax.text(x, y, text, transform=ax.transAxes, fontsize=7, **{**align, **kwargs})
