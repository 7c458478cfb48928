"""The page of one observation: estimates, their errors, consistency with the training set, and sensitivity."""

import html
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.files import written_whole
from common.metrics import shares
from constants import AMP, BANDS
from loaders.observation import Observation
from observation import figures
from observation.compare import INSIDE, OUTSIDE, Consistency
from report.best_estimator import BLUE, WHY_BLUE, half_of_the_map
from report.page import figure_section, grid, page_head, pairs, plain
from report.pictures import Picture, among
from report.share_panels import Steps, panel
from report.style import (
    DPI,
    TWO_COLUMNS,
    amount,
    bin_ends,
    depth_unit,
    difference_scale,
    drawn,
    minus,
    plotted,
    unit_text,
)
from runio.config import flatten

EDGE = 0.05  # of the simulated range: an interval that reaches so near to its end is open there
SMALL, SPAN = 1e-3, 10.0  # smaller values, and those that span a larger factor, are printed with two digits each
MAX_UNIT = 6  # letters of a unit in the title of a panel
MAX_RANGES = 2  # wavelength ranges named in a row
SHARES = "spectrum_shares"  # a figure in the folder; the page shows its numbers as panels
NOT_COMPUTED = "<p>Not computed, because no sensitivity maps were made.</p>"


@dataclass(frozen=True)
class Estimate:
    """What a run says of one observation; AMPs are in retrieval space."""

    observation: Observation  # on the bins of the run
    amp_table: tuple[AMP, ...]
    values: np.ndarray  # (n_amps,)
    intervals: np.ndarray  # (2, 2, n_amps) low and high end at 68 and at 95 %; NaN where not known
    limits: np.ndarray  # (2, n_amps) lowest and highest simulated truth
    consistency: Consistency
    expected: np.ndarray | None = None  # (n_bins,) depth that the other bins predict for each bin
    residuals: np.ndarray | None = None  # (n_bins,) standardised residual from it
    sensitivity: np.ndarray | None = None  # (n_amps, n_bins) exact map, with which the following are given too
    systematics: dict = field(default_factory=dict)  # change (n_amps,) by name, see `observation.apply.systematics`
    redrawn: np.ndarray | None = None  # (n_amps, n_bins) change without a bin, see `observation.apply.removals`
    replaced: np.ndarray | None = None
    made_from: dict = field(default_factory=dict)  # provenance, for the end of the page

    @property
    def shares(self):
        """Share of each bin in its AMP's map, (n_amps, n_bins); None without a map, NaN for a row of zeros."""
        return None if self.sensitivity is None else shares(self.sensitivity)

    @property
    def half_width(self):
        """Half of the 68 % interval, (n_amps,): the error that changes are compared with."""
        return (self.intervals[0, 1] - self.intervals[0, 0]) / 2

    @property
    def ends(self):
        """Lower and upper end of each bin, (n_bins, 2), micron."""
        return bin_ends(self.observation.wavelength, self.observation.bin_width)


def make_pictures(estimate, narrow=False):
    """Draw the figures of an estimate: {file name: `report.pictures.Picture`}; narrow ones are for the page alone."""
    e, seen, width = estimate, estimate.observation, figures.NARROW if narrow else TWO_COLUMNS
    pictures = {
        "answer_intervals": Picture(
            figures.answer_intervals(e.values, e.intervals, e.limits, e.amp_table, width),
            "The estimates with their errors",
            "Circle: the estimate. Thick and thin lines: 68 and 95 % prediction intervals, from test planets with"
            " similar predictions. Each axis spans the range of the simulated planets.",
            "A line across the whole axis means that the spectrum does not constrain the parameter; a line that ends at"
            " or near the edge of the axis is an upper or lower limit.",
        )
    }
    if e.shares is not None and not narrow:
        units = [plotted(amp, 0)[1] for amp in e.amp_table]
        units = [unit if len(unit_text(unit)) < MAX_UNIT else "" for unit in units]
        titles = [f"  {value_text(e, k)} {unit}".rstrip() for k, unit in enumerate(units)]
        figure = figures.spectrum_shares(seen, e.ends, e.shares, e.amp_table, titles)
        pictures[SHARES] = Picture(figure, "Which bins each estimate is sensitive to", "", "")
    lower = "" if e.residuals is None else (
        " Line: the depth that all other bins predict for each bin, given the simulated planets with similar"
        " predictions. Lower panel: the residual from it, in standard deviations (noise and scatter of the planets)."
    )  # fmt: skip
    pictures["expectation"] = Picture(
        figures.expectation(seen, e.ends, e.expected, e.residuals, width),
        "The spectrum, and whether its bins agree with each other",
        f"The observed spectrum with its errors{'' if seen.instrument is None else ', by instrument'}.{lower}",
        "This run keeps no simulated spectra to compare it with."
        if e.residuals is None
        else "Neighbouring bins with residuals of the same sign point to an absorption band, an offset or a systematic"
        " error that no simulated planet has.",
    )
    return pictures


def value_text(estimate, k):
    """Return an estimate with its 68 % error in report units, with a typographic minus: '−4.78 +0.38 −0.37'."""
    value, low, high = plotted(estimate.amp_table[k], [estimate.values[k], *estimate.intervals[0, :, k]])[0]
    if not np.isfinite([low, high]).all():
        return minus(f"{value:.3g}")
    form, same_form = _form([value, low, high], high - low)
    if not same_form:
        return minus(f"{form(value)} ({form(low)} to {form(high)})")
    return minus(f"{form(value)} +{form(high - value)} -{form(value - low)}")


def _form(values, interval):
    """Return what prints these values, and whether all have the same decimals: two digits of half of the interval.

    Positive values that span more than a factor of ten, and small ones, have two digits each instead.
    """
    sizes = np.abs([value for value in values if np.isfinite(value)])
    if (np.min(values) > 0 and sizes.max() > SPAN * sizes.min()) or (sizes.max() < 1 and sizes.min() < SMALL):
        return amount, False
    digits = _digits(interval / 2)
    return lambda value: f"{value:.{digits}f}", True


def _digits(error):
    """Decimals with which an error has two digits."""
    return int(np.clip(1 - np.floor(np.log10(error)), 0, 8)) if np.isfinite(error) and error > 0 else 3


def constraint(estimate, k):
    """Say whether the 95 % interval is a measurement or a limit; "" where there is none."""
    low, high = estimate.intervals[1, :, k]
    if not np.isfinite([low, high]).all():
        return ""
    lowest, highest = estimate.limits[:, k]
    margin = EDGE * (highest - lowest)
    open_below, open_above = low <= lowest + margin, high >= highest - margin
    if open_below:
        return "not constrained" if open_above else "upper limit"
    return "lower limit" if open_above else "measured"


# --- panels ---


def _panels(estimate):
    """Return a panel per AMP, with the share of each bin in its sensitivity and the numbers of each bin on hovering."""
    e = estimate
    if e.shares is None:
        return NOT_COMPUTED
    texts, articles = _bin_texts(e), []
    halves = [half_of_the_map(share, e.ends)[:MAX_RANGES] for share in e.shares if np.isfinite(share).all()]
    blue = f" {WHY_BLUE}" if any(low < BLUE for ranges in halves for low, *_ in ranges) else ""
    for k, amp in enumerate(e.amp_table):
        share, words, drawing = 100 * e.shares[k], _half_text(e.shares[k], e.ends), ""
        if np.isfinite(share).all():
            own = [text.format(f"{one:.1f} %") for text, one in zip(texts, share)]
            label = f"{amp.key}: share of each bin in the sensitivity of its estimate. Half of it is at {words}"
            drawing = panel(e.ends, [Steps(share, None, amp.colour)], own, label, BANDS.get(amp.key, ()))
            words = f"Half of its sensitivity is at {words}."
        value = f"{value_text(e, k)} {plain(plotted(amp, 0)[1])}"
        words = f"{constraint(e, k)}. {words}".lstrip(". ")
        articles.append(f"<h3>{plain(amp.label)}</h3>\n{drawing}\n<p><strong>{value}</strong>: {words}</p>")
    return grid(articles) + (
        "<p class='key'>Steps: the share of each bin in the sensitivity of the estimate, in per cent. The sensitivity"
        " is the mean squared change of the estimate when that bin alone is redrawn within its error. Grey: known bands"
        f" of the molecule. Point at a bin for its share and its depth.{blue} A high step elsewhere outside"
        " the bands, or at the edge between two instruments, deserves a closer look.</p>"
    )


def _bin_texts(estimate):
    """Return the wavelengths and the depth of each bin, (n_bins,) texts with {} where the share belongs."""
    seen, (factor, unit), texts = estimate.observation, depth_unit(estimate.observation.depth), []
    for b, (low, high) in enumerate(estimate.ends):
        digits = _digits(factor * seen.error[b])
        text = f"{low:.4g}–{high:.4g} µm: {{}}, depth {factor * seen.depth[b]:.{digits}f}"
        text += f" ± {factor * seen.error[b]:.{digits}f} {unit}"
        if estimate.residuals is not None:
            text += minus(f", residual {estimate.residuals[b]:+.1f} σ")
        name = "" if seen.instrument is None else seen.instrument[b].replace("{", "{{").replace("}", "}}")
        texts.append(f"{text} ({name})" if name else text)
    return texts


def _half_text(shares, ends):
    """Name the wavelengths that hold half of an AMP's sensitivity (n_bins,)."""
    if not np.isfinite(shares).all():
        return "not sensitive to any bin"
    ranges = half_of_the_map(shares, ends)
    named = [f"{low:.3g}–{high:.3g} µm" for low, high, _ in ranges[:MAX_RANGES]]
    return among(named if len(ranges) <= MAX_RANGES else [*named, "elsewhere"])


# --- tables ---


def _table(name, caption, head, rows):
    """Return a table that becomes a list of labelled values on a narrow screen; the first cell heads its row."""
    cells = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f'<td data-label="{label}"><span>{cell}</span></td>' for label, cell in zip(head[1:], row[1:]))
        + "</tr>"
        for row in rows
    )
    return (
        f'<table id="{name}" class="values"><caption>{caption}</caption><thead><tr>{cells}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table>"
    )


def _estimates(estimate):
    """Return the table of estimates and errors."""
    e, rows = estimate, []
    for k, amp in enumerate(e.amp_table):
        ends, unit, _ = plotted(amp, e.intervals[:, :, k])
        value = plotted(amp, e.values[k])[0]
        form, _ = _form([*ends.flat, value], ends[0, 1] - ends[0, 0])
        cells = [f"<strong>{form(value)}</strong>"]
        cells += ["not known" if np.isnan(pair).any() else f"{form(pair[0])} to {form(pair[1])}" for pair in ends]
        rows.append([plain(amp.label), *map(minus, cells), plain(unit), constraint(e, k)])
    head = ["Parameter", "Estimate", "68 % interval", "95 % interval", "Unit", "Constraint"]
    return _table("answers", "Estimates and prediction intervals", head, rows)


def _change(value, amp, error, sign=None):
    """Return a change of an estimate in its own unit, and as a multiple of its 68 % error."""
    factor, unit = difference_scale(amp)
    text = f"{sign or ('−' if value < 0 else '+')}{amount(abs(value / factor))} {plain(unit)}"
    return text if not np.isfinite(error) or error <= 0 else f"{text} ({abs(value) / error:.2f} times its error)"


def _systematics(estimate):
    """Return the table of offsets and tilt."""
    e = estimate
    if e.sensitivity is None:
        return NOT_COMPUTED
    rows = [
        [plain(amp.label), *(_change(change[k], amp, e.half_width[k]) for change in e.systematics.values())]
        for k, amp in enumerate(e.amp_table)
    ]
    text = (
        "<p>Root mean square change of each estimate for one standard deviation of a systematic error. The sign says"
        " where the estimate moves when the transits are deeper (for the tilt: deeper at long wavelengths). In brackets"
        " the change is compared with the error of the estimate, half of the 68 % interval.</p>"
    )
    head = ["Parameter", *map(html.escape, e.systematics)]
    return text + _table("moved", "Effect of an offset and of a tilt", head, rows)


def _removals(estimate):
    """Return the table of single bins that are taken away."""
    e = estimate
    if e.redrawn is None:
        return NOT_COMPUTED
    head = ["Parameter", "Bin with the largest effect", "Change when redrawn within ten times its error"]
    text = (
        "<p>A bin is taken away in two ways. First, it is redrawn within ten times its error; the root mean square"
        " change shows how strongly the estimate depends on the bin."
    )
    if e.replaced is not None:
        head += ["Bin whose value has the largest effect", "Change when replaced by the value expected from the others"]
        text += (
            " Second, it is replaced by the depth that all other bins predict for it; the change shows how strongly the"
            " estimate depends on the value that was measured."
        )
    rows = []
    for k, amp in enumerate(e.amp_table):
        row = [plain(amp.label)]
        for changes, sign in ((e.redrawn, "±"), (e.replaced, None)):
            if changes is not None:
                worst = int(np.abs(changes[k]).argmax())
                wavelength = f"{e.observation.wavelength[worst]:.4g} µm"
                row += [wavelength, _change(changes[k, worst], amp, e.half_width[k], sign)]
        rows.append(row)
    return f"{text}</p>" + _table("lost", "Which single bin, taken away, changes each estimate most", head, rows)


# --- the page ---


def _result(estimate):
    """Return which parameters are measured and which are not, or that nothing can be relied on."""
    if estimate.consistency.status == OUTSIDE:
        return "This spectrum is unlike those in training: <strong>no estimate can be relied on</strong>."
    kinds = {}
    for k, amp in enumerate(estimate.amp_table):
        kinds.setdefault(constraint(estimate, k), []).append(plain(amp.label))
    order = ("measured", "upper limit", "lower limit", "not constrained")
    clauses = [f"<strong>{kind.capitalize()}</strong>: {', '.join(kinds[kind])}." for kind in order if kind in kinds]
    return " ".join(clauses) or "There are too few test planets for intervals."


def build_page(estimate, rendered):
    """Return the page as text; ``rendered`` is {name: (Picture, PNG bytes, PNG bytes for a phone)}, in order."""
    e = estimate
    headline, *reasons = (html.escape(sentence) for sentence in e.consistency.sentences)
    reasons = "".join(f"<p>{sentence}</p>" for sentence in reasons)
    if e.consistency.status == INSIDE:  # when all is well, the numbers are folded away
        reasons = f"<details><summary>How this was found</summary>{reasons}</details>"
    sections = {name: figure_section(name, *one) for name, one in rendered.items() if name != SHARES}
    title = f"{Path(e.observation.name).stem}: {len(e.amp_table)} parameters from {len(e.observation.wavelength)} bins"
    return f"""{page_head(title, _result(e))}
<section aria-labelledby="answer"><h2 id="answer">What does the spectrum say, and should you believe it?</h2>
<p class="status {e.consistency.status}" role="status">{headline}</p>
{reasons}
{_estimates(e)}</section>
<nav aria-label="Contents"><ul><li><a href="#{SHARES}">Which bins each estimate is sensitive to</a></li>
<li><a href="#answer_intervals">The estimates with their errors</a></li>
<li><a href="#expectation">The spectrum, and whether its bins agree</a></li>
<li><a href="#together">Offsets and a tilt</a></li>
<li><a href="#single">Leaving one bin out</a></li><li><a href="#how">How this page was made</a></li></ul></nav>
<section aria-labelledby="{SHARES}"><h2 id="{SHARES}">Which bins each estimate is sensitive to</h2>
{_panels(e)}</section>
<section aria-labelledby="figures"><h2 id="figures">Figures</h2>
{"".join(sections.values())}</section>
<section aria-labelledby="together"><h2 id="together">Offsets between instruments, and a tilt</h2>
{_systematics(e)}</section>
<section aria-labelledby="single"><h2 id="single">Leaving one bin out</h2>
{_removals(e)}</section>
<section aria-labelledby="how"><h2 id="how">How this page was made</h2>
<details><summary>Run, observation, versions and every setting</summary>
{pairs(flatten(e.made_from))}
</details></section>
</main>
</body>
</html>
"""


def write_figure(folder, name, figure):
    """Write a figure as PNG and PDF; return the PNG, bytes."""
    png, pdf = drawn(figure, DPI, True)
    for kind, content in (("png", png), ("pdf", pdf)):
        with written_whole(Path(folder) / f"{name}.{kind}") as part:
            part.write_bytes(content)
    return png


def write_page(folder, estimate):
    """Write the figures of an estimate (PNG, PDF) and ``report.html``, one file without outside references."""
    narrow, rendered = make_pictures(estimate, narrow=True), {}
    for name, picture in make_pictures(estimate).items():
        small = drawn(narrow[name].figure, 2 * DPI, False)[0] if name in narrow else None
        rendered[name] = picture, write_figure(folder, name, picture.figure), small
    with written_whole(Path(folder) / "report.html") as part:
        part.write_text(build_page(estimate, rendered), encoding="utf-8")
