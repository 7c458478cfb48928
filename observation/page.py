"""The page of one observation: estimates, their errors, consistency with the training set, and sensitivity."""

import html
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

import numpy as np

from common.files import written_whole
from common.metrics import shares
from constants import AMP
from loaders.observation import Observation
from observation import figures
from observation.compare import INSIDE, Consistency
from report.best_estimator import half_of_the_map
from report.page import figure_section, pairs, plain, style_sheet
from report.pictures import Picture
from report.style import DPI, amount, bin_ends, difference_scale, our_style, plotted, png_of, unit_text
from runio.config import flatten

EDGE = 0.05  # of the simulated range: an interval that reaches so near to its end is open there
SMALL = 1e-3  # smaller numbers are printed with an exponent
MAX_UNIT = 6  # letters of a unit in the title of a panel
MAX_RANGES = 2  # wavelength ranges named in a row
ANCHOR = 0.7  # micron: below, Rayleigh scattering of hydrogen sets the depth of a clear atmosphere
NOT_COMPUTED = "<p>Not computed, because no sensitivity maps were made.</p>"


@dataclass(frozen=True)
class Estimate:
    """What a run says of one observation.

    Attributes
    ----------
    observation : loaders.observation.Observation
        On the bins of the run.
    amp_table : tuple of constants.AMP
    values : ndarray (n_amps,)
        Retrieval space, as are the intervals and limits.
    intervals : ndarray (2, 2, n_amps)
        Low and high end at 68 and at 95 %; NaN where not known.
    limits : ndarray (2, n_amps)
        Lowest and highest simulated truth.
    consistency : observation.compare.Consistency
    expected, residuals : ndarray (n_bins,), optional
        Depth that the other bins predict for each bin, and the standardised residual from it.
    sensitivity : ndarray (n_amps, n_bins), optional
        Exact map of single bins, with which the following are given too.
    systematics : dict of str to ndarray (n_amps,)
        Change along each direction that moves many bins; see `observation.apply.systematics`.
    redrawn, replaced : ndarray (n_amps, n_bins), optional
        Change when a bin is taken away; see `observation.apply.removals`.
    made_from : dict
        Provenance, for the end of the page.
    """

    observation: Observation
    amp_table: tuple[AMP, ...]
    values: np.ndarray
    intervals: np.ndarray
    limits: np.ndarray
    consistency: Consistency
    expected: np.ndarray | None = None
    residuals: np.ndarray | None = None
    sensitivity: np.ndarray | None = None
    systematics: dict = field(default_factory=dict)
    redrawn: np.ndarray | None = None
    replaced: np.ndarray | None = None
    made_from: dict = field(default_factory=dict)

    @property
    def shares(self):
        """Share of each bin in its AMP's map, (n_amps, n_bins); None without a map, NaN for a row of zeros."""
        if self.sensitivity is None:
            return None
        return shares(self.sensitivity)

    @property
    def half_width(self):
        """Half of the 68 % interval, (n_amps,): the error that changes are compared with."""
        return (self.intervals[0, 1] - self.intervals[0, 0]) / 2


def make_pictures(estimate, narrow=False):
    """Draw the figures of an estimate: {file name: `report.pictures.Picture`}, in the order of the page."""
    e, seen = estimate, estimate.observation
    pictures = {
        "answer_intervals": Picture(
            figures.answer_intervals(e.values, e.intervals, e.limits, e.amp_table, narrow),
            "The estimates with their errors",
            "Circle: the estimate. Thick and thin lines: 68 and 95 % prediction intervals, from test planets with"
            " similar predictions. Each axis spans the range of the simulated planets.",
            "A line across the whole axis means that the spectrum does not constrain the parameter; a line that ends at"
            " or near the edge of the axis is an upper or lower limit.",
        )
    }
    if e.shares is not None:
        units = [plotted(amp, 0)[1] for amp in e.amp_table]
        units = [unit if len(unit_text(unit)) < MAX_UNIT else "" for unit in units]
        titles = [f"  {value_text(e, k)} {unit}".rstrip() for k, unit in enumerate(units)]
        pictures["spectrum_shares"] = Picture(
            figures.spectrum_shares(seen, e.shares, e.amp_table, titles, narrow),
            "Which bins each estimate is sensitive to",
            "The observed spectrum with its errors, one panel per parameter. Colour and size of a dot show the bin's"
            " share of the sensitivity: the mean squared change of the estimate when that bin alone is redrawn within"
            " its error, divided by the sum over all bins. Shaded: known bands of the molecule.",
            f"The estimate depends most on the large, dark dots; each panel states the largest share.{_anchor_text(e)}"
            " Any other dark dot outside the bands, or at the edge between two instruments, deserves a closer look.",
        )
    lower = "" if e.residuals is None else (
        " Line: the depth that all other bins predict for each bin, given the simulated planets with similar"
        " predictions. Lower panel: the residual from it, in standard deviations (noise and scatter of the planets)."
    )  # fmt: skip
    pictures["expectation"] = Picture(
        figures.expectation(seen, e.expected, e.residuals, narrow),
        "The spectrum, and whether its bins agree with each other",
        f"The observed spectrum with its errors{'' if seen.instrument is None else ', by instrument'}.{lower}",
        "This run keeps no simulated spectra to compare it with."
        if e.residuals is None
        else "Neighbouring bins with residuals of the same sign point to an absorption band, an offset or a systematic"
        " error that no simulated planet has.",
    )
    return pictures


def _anchor_text(estimate):
    """Say why the shortest wavelengths matter for every abundance, where the spectrum reaches them."""
    if estimate.observation.wavelength[0] > ANCHOR:
        return ""
    return (
        " The shortest wavelengths, near 0.55 µm, matter for every abundance, although few molecules absorb there: the"
        " Rayleigh scattering of hydrogen fixes which radius belongs to which pressure, and all bands are measured"
        " against that."
    )


def value_text(estimate, k):
    """Return an estimate with its 68 % error in report units, with a typographic minus: '−4.78 +0.38 −0.37'."""
    value, low, high = plotted(estimate.amp_table[k], [estimate.values[k], *estimate.intervals[0, :, k]])[0]
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
    bins, shares = bin_ends(e.observation.wavelength, e.observation.bin_width), e.shares
    for k, amp in enumerate(e.amp_table):
        ends, unit, _ = plotted(amp, e.intervals[:, :, k])
        value = plotted(amp, e.values[k])[0]
        sizes = np.abs([*ends.flat, value])
        small = np.nanmax(sizes) < 1 and np.nanmin(sizes) < SMALL
        form = ".2g" if small else f".{_digits((ends[0, 1] - ends[0, 0]) / 2)}f"
        cells = [f"<strong>{value:{form}}</strong>"]
        cells += ["not known" if np.isnan(pair).any() else f"{pair[0]:{form}} to {pair[1]:{form}}" for pair in ends]
        cells += [plain(unit), constraint(e, k)]
        if shares is not None:
            cells.append(_half_text(shares[k], bins))
        rows.append([plain(amp.label), *(cell.replace("-", "−") if k < 3 else cell for k, cell in enumerate(cells))])
    head = ["Parameter", "Estimate", "68 % interval", "95 % interval", "Unit", "Constraint"]
    head += [] if shares is None else ["Most sensitive at"]
    return _table("answers", "Estimates and prediction intervals", head, rows)


def _half_text(shares, bins):
    """Name the wavelengths that hold half of an AMP's sensitivity (n_bins,)."""
    if not np.isfinite(shares).all():
        return "not sensitive to any bin"
    ranges = half_of_the_map(shares, bins)
    text = " and ".join(f"{low:.3g}–{high:.3g}" for low, high, _ in ranges[:MAX_RANGES]) + " µm"
    return text + (" …" if len(ranges) > MAX_RANGES else "")


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


def build_page(estimate, rendered):
    """Return the page as text; ``rendered`` is {name: (Picture, PNG bytes, PNG bytes for a phone)}, in order."""
    e = estimate
    judged, n_bins = e.consistency, len(e.observation.wavelength)
    headline, *reasons = (html.escape(sentence) for sentence in judged.sentences)
    reasons = "".join(f"<p>{sentence}</p>" for sentence in reasons)
    if judged.status == INSIDE:  # when all is well, the numbers are folded away
        reasons = f"<details><summary>How this was found</summary>{reasons}</details>"
    first, *rest = rendered.items()
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        style=style_sheet(),
        title=html.escape(f"{Path(e.observation.name).stem}: {len(e.amp_table)} parameters from {n_bins} bins"),
        estimates=_estimates(e),
        status=f'<p class="status {judged.status}" role="status">{headline}</p>',
        reasons=reasons,
        first=figure_section(first[0], *first[1]),
        figures="\n".join(figure_section(name, *one) for name, one in rest),
        systematics=_systematics(e),
        removals=_removals(e),
        made_from=pairs(flatten(e.made_from)) if e.made_from else "<p>Not recorded.</p>",
    )


def write_page(folder, estimate):
    """Write the figures of an estimate (PNG, PDF) and ``report.html``, one file without outside references."""
    folder, rendered = Path(folder), {}
    with our_style():
        narrow = make_pictures(estimate, narrow=True)
        for name, picture in make_pictures(estimate).items():
            rendered[name] = picture, png_of(picture.figure, DPI), png_of(narrow[name].figure, 2 * DPI)
            with written_whole(folder / f"{name}.png") as part:
                part.write_bytes(rendered[name][1])
            with written_whole(folder / f"{name}.pdf") as part:
                picture.figure.savefig(part, format="pdf", dpi=300, metadata={"CreationDate": None})
    with written_whole(folder / "report.html") as part:
        part.write_text(build_page(estimate, rendered), encoding="utf-8")
