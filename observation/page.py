"""The report of one observation: its answers, their errors, where it stands, and which bins each answer rests on."""

import html
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import numpy as np

from common.files import written_whole
from common.metrics import shares
from constants import AMP
from observation import figures as figures
from observation.compare import Standing
from report.best_estimator import half_of_the_map
from report.page import figure_section, pairs, plain, png_of, style_sheet, table
from report.pictures import Picture
from report.style import DPI, amount, bin_edges, difference_scale, our_style, plotted
from runio.config import flatten

EDGE = 0.05  # of the simulated range: an interval that reaches so near to its end is open there
SMALL = 1e-3  # numbers below are printed with an exponent
RANGES = 2  # wavelength ranges that a row names
STATUS = {
    "inside": "Inside: this spectrum looks like those that the network was trained on.",
    "outside": "OUTSIDE: this spectrum does not look like those that the network was trained on.",
    "unknown": "Not known: whether this spectrum looks like those that the network was trained on.",
}


@dataclass(frozen=True)
class Application:
    """What a run says of one observation; shapes as in ``amps.csv``.

    Attributes
    ----------
    name : str
        Of the observation.
    amp_table : sequence of constants.AMP
    wavelength, depth, error : ndarray (n_bins,)
        Micron; transit depth as a fraction.
    answer : ndarray (n_amps,)
        Retrieval space.
    intervals : ndarray (2, 2, n_amps)
        Low and high end at 68 and at 95 %; NaN where not known.
    least, greatest : ndarray (n_amps,)
        Of the simulated truths.
    standing : observation.compare.Standing
    instrument : ndarray (n_bins,) of str, optional
    expected, pulls : ndarray (n_bins,), optional
        See ``observation.compare.Likeness``.
    sensitivity : ndarray (n_amps, n_bins), optional
        Exact map of single bins.
    moved : observation.apply.Systematics, optional
    lost : observation.apply.Removals, optional
    made_from : dict
        What it was made from, for the end of the page.
    bin_width : ndarray (n_bins,), optional
        Micron, full widths.
    """

    name: str
    amp_table: tuple[AMP, ...]
    wavelength: np.ndarray
    depth: np.ndarray
    error: np.ndarray
    answer: np.ndarray
    intervals: np.ndarray
    least: np.ndarray
    greatest: np.ndarray
    standing: Standing
    instrument: np.ndarray | None = None
    expected: np.ndarray | None = None
    pulls: np.ndarray | None = None
    sensitivity: np.ndarray | None = None
    moved: object = None
    lost: object = None
    made_from: dict = field(default_factory=dict)
    bin_width: np.ndarray | None = None

    @property
    def shares(self):
        """Each bin's share of its AMP's map, (n_amps, n_bins); None without a map, NaN for a row of zeros."""
        if self.sensitivity is None:
            return None
        return shares(self.sensitivity)

    @property
    def half_width(self):
        """Half of the 68 % interval, (n_amps,): the error that changes are compared with."""
        return (self.intervals[0, 1] - self.intervals[0, 0]) / 2


def make_pictures(application):
    """Draw the figures of an application; dict of str to ``report.pictures.Picture``, the first one first."""
    a = application
    pictures = {
        "answer_intervals": Picture(
            figures.answer_intervals(a.answer, a.intervals, a.least, a.greatest, a.amp_table),
            "The answers with their errors",
            "Circle: the network's answer; thick and thin lines: the intervals that hold the truth of 68 and of 95 in"
            " 100 test planets that are answered alike. Each axis spans all simulated planets.",
            "A line that fills its axis says that this spectrum does not tell; one that ends at the axis is a limit.",
        )
    }
    if a.shares is not None:
        pictures["spectrum_shares"] = Picture(
            figures.spectrum_shares(
                a.wavelength, a.depth, a.error, a.shares, a.amp_table, [f"  {answer_text(a, k)}" for k in _amps(a)]
            ),
            "Which bins each answer rests on",
            "The observed spectrum with its errors, a panel for each parameter. Each bin is coloured, and its dot"
            " sized, by its share in the answer: the mean squared change of the answer when that bin alone is redrawn"
            " within its error, over the sum of all bins. Shaded: the molecule's known bands.",
            "Dark, large dots carry the answer; each panel says what share its darkest one has. If they lie where the"
            " molecule does not absorb, or at an edge between instruments, ask why before believing the answer.",
        )
    drawn = figures.expectation(
        a.wavelength, a.depth, a.error, a.instrument, a.expected, a.pulls, bin_width=a.bin_width
    )
    below = "" if a.pulls is None else (
        " Line: what all other bins lead one to expect of each bin, from the simulated planets that are answered"
        " alike. Below: the distance from it in standard deviations (noise and spread of the planets)."
    )  # fmt: skip
    pictures["expectation"] = Picture(
        drawn,
        "The spectrum, and whether its bins fit together",
        f"The observed spectrum with its errors{'' if a.instrument is None else ', by instrument'}.{below}",
        "Neighbouring bins that leave zero together are a band, an offset or a systematic error that no simulated"
        " planet has."
        if a.pulls is not None
        else "Nothing to compare it with is kept in this run.",
    )
    return pictures


def _amps(application):
    return range(len(application.amp_table))


def answer_text(application, k):
    """Return an answer with its 68 % error as a plot shows it, with the minus of its axes: '−4.78 +0.38 −0.37'."""
    amp = application.amp_table[k]
    value, low, high = plotted(amp, [application.answer[k], *application.intervals[0, :, k]])[0]
    if not np.isfinite([low, high]).all():
        text = f"{value:.3g}"
    elif min(abs(value), abs(low)) < SMALL and max(abs(value), abs(high)) < 1:
        text = f"{value:.2g} ({low:.2g} to {high:.2g})"
    else:
        digits = _digits(max(high - low, 1e-300) / 2)
        text = f"{value:.{digits}f} +{high - value:.{digits}f} -{value - low:.{digits}f}"
    return text.replace("-", "−")


def _digits(error):
    """Decimals with which an error has two digits."""
    return int(np.clip(1 - np.floor(np.log10(error)), 0, 8)) if np.isfinite(error) and error > 0 else 3


def reading(application, k):
    """Say what the 95 % interval amounts to: measured, a limit, or nothing.

    Returns
    -------
    str
        "measured", "upper limit", "lower limit", "not constrained", or "" where no interval is known.
    """
    low, high = application.intervals[1, :, k]
    if not np.isfinite([low, high]).all():
        return ""
    room = EDGE * (application.greatest[k] - application.least[k])
    below, above = low <= application.least[k] + room, high >= application.greatest[k] - room
    return ("not constrained" if above else "upper limit") if below else "lower limit" if above else "measured"


def _answers(application):
    """Return the table that comes first."""
    a, rows = application, []
    edges, shares = bin_edges(a.wavelength), a.shares
    for k, amp in enumerate(a.amp_table):
        ends, unit, _ = plotted(amp, a.intervals[:, :, k])
        digits = _digits((ends[0, 1] - ends[0, 0]) / 2)
        value = plotted(amp, a.answer[k])[0]
        sizes = np.abs([*ends.flat, value])
        form = ".2g" if np.nanmax(sizes) < 1 and np.nanmin(sizes) < SMALL else f".{digits}f"
        cells = [f"<strong>{value:{form}}</strong>"]
        cells += ["not known" if np.isnan(pair).any() else f"{pair[0]:{form}} to {pair[1]:{form}}" for pair in ends]
        where = ""
        if shares is not None and np.isfinite(shares[k]).all():
            ranges = half_of_the_map(shares[k], edges)
            where = " and ".join(f"{low:.3g}–{high:.3g}" for low, high, _ in ranges[:RANGES]) + " µm"
            where += " …" if len(ranges) > RANGES else ""
        rows.append([plain(amp.label), *cells, plain(unit), reading(a, k), where])
    head = ["AMP", "Answer", "68 %", "95 %", "Unit", "Reading", "Half of it rests on"]
    caption = "What the spectrum says, and how sure that is"
    return table(caption, head, rows).replace("<table>", '<table id="answers" class="numbers">')


def _change(value, amp, error):
    """Return a change of an answer in its own unit and in units of its 68 % error."""
    factor, unit = difference_scale(amp)
    text = f"{'−' if value < 0 else '+'}{amount(abs(value / factor))} {plain(unit)}"
    return text if not np.isfinite(error) or error <= 0 else f"{text} ({abs(value) / error:.2f} of its error)"


def _moved(application):
    """Return the table of offsets and tilt."""
    a = application
    if a.moved is None:
        return "<p>Not computed: the application was made without sensitivity maps.</p>"
    rows = [
        [plain(amp.label), *(_change(value, amp, a.half_width[k]) for value in a.moved.change[k])]
        for k, amp in enumerate(a.amp_table)
    ]
    text = (
        "<p>Root mean square change of each answer for one standard deviation, with the sign that deeper transits (for"
        " the tilt: deeper at long wavelengths) give it; beside it the change over half of the 68 % interval. From 1 on"
        " the systematic error is as large as the error of the answer.</p>"
    )
    caption = "What an offset and a tilt would do"
    return text + table(caption, ["AMP", *map(html.escape, a.moved.names)], rows).replace(
        "<table>", '<table id="moved" class="numbers">'
    )


def _lost(application):
    """Return the table of single bins that are taken away."""
    a = application
    if a.lost is None:
        return "<p>Not computed: the application was made without sensitivity maps.</p>"
    rows = []
    for k, amp in enumerate(a.amp_table):
        worst = int(a.lost.spread[k].argmax())
        row = [
            plain(amp.label),
            f"{a.wavelength[worst]:.4g} µm",
            _change(a.lost.spread[k, worst], amp, a.half_width[k]),
        ]
        row[-1] = row[-1].replace("+", "±", 1)
        if a.lost.shift is not None:
            worst = int(np.abs(a.lost.shift[k]).argmax())
            row += [f"{a.wavelength[worst]:.4g} µm", _change(a.lost.shift[k, worst], amp, a.half_width[k])]
        rows.append(row)
    head = ["AMP", "Bin that matters most", "Change, its error ten times larger"]
    head += (
        ["Bin whose own value matters most", "Change, replaced by what the others say"]
        if a.lost.shift is not None
        else []
    )
    text = (
        "<p>A bin is taken away in two ways. Its error is made ten times larger and the bin redrawn within it: the root"
        " mean square change tells how much hangs on the bin."
    )
    text += "" if a.lost.shift is None else (
        " Or it is replaced by what all other bins lead one to expect: the change tells how much hangs on the value"
        " that was measured."
    )  # fmt: skip
    caption = "Which single bin, taken away, moves each answer most"
    return f"{text}</p>" + table(caption, head, rows).replace("<table>", '<table id="lost" class="numbers">')


def build_answer_page(application, rendered):
    """Return the page as text; ``rendered`` is name to (Picture, PNG bytes), in order."""
    a = application
    verdict = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in a.standing.sentences)
    status = f'<p class="status {a.standing.status}" role="status">{html.escape(STATUS[a.standing.status])}</p>'
    first, *rest = rendered.items()
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        style=style_sheet(),
        title=html.escape(f"{Path(a.name).stem}: {len(a.amp_table)} parameters from {len(a.wavelength)} bins"),
        answers=_answers(a),
        status=status,
        verdict=verdict,
        first=figure_section(first[0], *first[1]),
        figures="\n".join(figure_section(name, *one) for name, one in rest),
        moved=_moved(a),
        lost=_lost(a),
        made_from=pairs(flatten(a.made_from)) if a.made_from else "<p>Not recorded.</p>",
    )


def write_answer_report(folder, application):
    """Write the figures (PNG, PDF) of an application and ``report.html``, one file without outside references.

    Parameters
    ----------
    folder : path-like
        Of the application.
    application : Application

    Returns
    -------
    Path
        Of the report.
    """
    folder, rendered = Path(folder), {}
    with our_style():
        for name, picture in make_pictures(application).items():
            rendered[name] = picture, png_of(picture.figure, DPI)
            with written_whole(folder / f"{name}.png") as part:
                part.write_bytes(rendered[name][1])
            with written_whole(folder / f"{name}.pdf") as part:
                picture.figure.savefig(part, format="pdf", dpi=300, metadata={"CreationDate": None})
    path = folder / "report.html"
    with written_whole(path) as part:
        part.write_text(build_answer_page(application, rendered), encoding="utf-8")
    return path
