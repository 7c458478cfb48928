"""The page of one observation: estimates, their errors, consistency with the training set, and sensitivity."""

import html
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.files import written_whole
from common.metrics import shares
from constants import AMP, BANDS
from loaders.observation import Observation, spacing_halves
from observation import figures
from observation.compare import INSIDE, OUTSIDE, Consistency
from report import style
from report.best_estimator import BLUE, DISTRUST, MAX_RANGES, WHY_BLUE, half_of_the_map
from report.page import CLASSES, figure_section, grid, pairs, plain, table, trusted, whole_page
from report.pictures import Picture, among
from report.share_panels import Steps, legend, no_bins, panel
from runio.config import flatten

EDGE = 0.05  # of the trained range: an interval that reaches so near to its end is open there
EXCLUDED = 1 / 3  # of the trained range, which a limit has to exclude
SMALL, SPAN = 1e-3, 10.0  # smaller values, and those that span a larger factor, are printed with two digits each
ENOUGH = 400  # test planets for intervals: of fewer, more than half count as similar
MAX_UNIT = 6  # letters of a unit in the title of a panel
NOT_COMPUTED = "<p>Not computed, because no sensitivity maps were made.</p>"
MEASURED, UPPER, LOWER, OPEN = "measured", "upper limit (95 %)", "lower limit (95 %)", "not constrained"
ENDS_HERE = "the trained range ends here"
RULE = (
    "<p class='key'>A value is measured if its 95 % interval ends more than 5 % of the trained range away from the"
    " edges of this range. An interval that is open at one edge gives a limit at the other: 95 % of the test planets"
    " with similar predictions lie on its allowed side. An upper limit of an abundance is always given. Any other limit"
    " has to exclude a third of the trained range; otherwise the parameter is not constrained, because the interval"
    " ends only where the trained range does.</p>"
)


@dataclass(frozen=True)
class Estimate:
    """What a run says of one observation; AMPs are in retrieval space."""

    observation: Observation  # on the bins of the run
    amp_table: tuple[AMP, ...]
    values: np.ndarray  # (n_amps,)
    intervals: np.ndarray  # (2, 2, n_amps) low and high end at 68 and at 95 %; NaN where not known
    one_sided: np.ndarray  # (2, n_amps) value above which, and value below which, the truth lies with 95 %
    limits: np.ndarray  # (2, n_amps) lowest and highest simulated truth
    consistency: Consistency
    verdicts: list  # `report.best_estimator.Verdict` of the run on each AMP
    expected: np.ndarray | None = None  # (n_bins,) depth that the other bins predict for each bin
    residuals: np.ndarray | None = None  # (n_bins,) standardised residual from it
    sensitivity: np.ndarray | None = None  # (n_amps, n_bins) exact map, with which the following are given too
    systematics: dict = field(default_factory=dict)  # change (n_amps,) by name, see `observation.apply.systematics`
    redrawn: np.ndarray | None = None  # (n_amps, n_bins) change without a bin, see `observation.apply.removals`
    replaced: np.ndarray | None = None
    made_from: dict = field(default_factory=dict)  # provenance, for the end of the page
    n_planets: int = 0  # test planets that the intervals come from

    @property
    def shares(self):
        """Share of each bin in its AMP's map, (n_amps, n_bins); None without a map, NaN for a row of zeros."""
        return None if self.sensitivity is None else shares(self.sensitivity)

    @property
    def ends(self):
        """Lower and upper end of each bin, (n_bins, 2), micron; assumed ones are half way between the centres."""
        seen = self.observation
        if seen.assumed_width and seen.bin_width is not None:
            down, up = spacing_halves(seen.wavelength)
            if np.allclose(down + up, seen.bin_width):  # and not those of a run that knows them
                return np.stack([seen.wavelength - down, seen.wavelength + up], axis=1)
        return style.bin_ends(seen.wavelength, seen.bin_width)


def make_pictures(estimate, width=style.TWO_COLUMNS):
    """Draw the figures of the page, ``width`` inches wide: {file name: `report.pictures.Picture`}."""
    e, compared = estimate, estimate.residuals is not None
    lower = (
        " Line: the depth that all other bins predict for each bin, given the simulated planets with similar"
        " predictions. Lower panel: the residual from it, in standard deviations (noise and scatter of the planets)."
    )
    return {
        "answer_intervals": Picture(
            figures.answer_intervals(e.values, e.intervals, e.limits, e.amp_table, width),
            "The estimates with their errors",
            "Circle: the estimate. Thick and thin lines: 68 and 95 % prediction intervals, from test planets with"
            " similar predictions. Each axis spans the range of the simulated planets.",
            "A line across the whole axis means that the spectrum does not constrain the parameter. A line that ends at"
            " or near one edge of the axis is at best an upper or lower limit.",
        ),
        "expectation": Picture(
            figures.expectation(e.observation, e.ends, e.expected, e.residuals, width),
            "The spectrum, and whether its bins agree with each other",
            "The observed spectrum, a colour for each instrument." + (lower + no_bins(e.ends) if compared else ""),
            "Neighbouring bins with residuals of the same sign point to an absorption band, an offset or a systematic"
            " error that no simulated planet has."
            if compared
            else "This run keeps no simulated spectra to compare it with.",
        ),
    }


def constraint(estimate, k):
    """Return what is known of an AMP by the rule that the page states: one of four words, or "" without intervals."""
    low, high = estimate.intervals[1, :, k]
    if not np.isfinite([low, high]).all():
        return ""
    lowest, highest = estimate.limits[:, k]
    span, (least, most) = highest - lowest, estimate.one_sided[:, k]
    open_below, open_above = low <= lowest + EDGE * span, high >= highest - EDGE * span
    if not open_below and not open_above:
        return MEASURED
    if not open_above and (estimate.amp_table[k].kind == "molecule" or highest - most >= EXCLUDED * span):
        return UPPER
    return LOWER if not open_below and least - lowest >= EXCLUDED * span else OPEN


def value_text(estimate, k, unit=""):
    """Return what is known of an AMP, in report units: '−4.78 +0.38 −0.37', '< −2.1' or 'not constrained'."""
    kind, amp, unit = constraint(estimate, k), estimate.amp_table[k], f" {unit}".rstrip()
    value, low, high, least, most = style.plotted(
        amp, [estimate.values[k], *estimate.intervals[0, :, k], *estimate.one_sided[:, k]]
    )[0]
    if kind == OPEN:
        return OPEN
    if not kind:
        return style.minus(f"{value:.3g}{unit}")
    form, same_form = _form([value, low, high], high - low)
    if kind != MEASURED:
        return style.minus(f"<{style.NBSP}{form(most)}{unit}" if kind == UPPER else f">{style.NBSP}{form(least)}{unit}")
    if not same_form:
        return style.minus(f"{form(value)} ({form(low)} to {form(high)}){unit}")
    return style.minus(f"{form(value)} +{form(high - value)} -{form(value - low)}{unit}")


def _form(values, interval):
    """Return what prints these values, and whether all have the same decimals: two digits of half of the interval."""
    sizes = np.abs([value for value in values if np.isfinite(value)])
    if (np.min(values) > 0 and sizes.max() > SPAN * sizes.min()) or (sizes.max() < 1 and sizes.min() < SMALL):
        return style.amount, False
    digits = _digits(interval / 2)
    return lambda value: f"{value:.{digits}f}", True


def _digits(error):
    """Decimals with which an error has two digits."""
    return int(np.clip(1 - np.floor(np.log10(error)), 0, 8)) if np.isfinite(error) and error > 0 else 3


# --- panels ---


def _panels(estimate):
    """Return a panel per AMP, with the share of each bin in its sensitivity and the numbers of each bin on pointing."""
    e = estimate
    if e.shares is None:
        return NOT_COMPUTED
    texts, articles, low_ends = _bin_texts(e), [], []
    for k, (amp, verdict) in enumerate(zip(e.amp_table, e.verdicts)):
        share, words, drawing = 100 * e.shares[k], "Not sensitive to any bin.", ""
        if np.isfinite(share).all():
            ranges = half_of_the_map(share, e.ends)
            low_ends += [low for low, *_ in ranges[:MAX_RANGES]]
            named = [f"{low:.3g}–{high:.3g} µm" for low, high, _ in ranges[:MAX_RANGES]]
            words = f"Half of its sensitivity is at {among(named + ['elsewhere'] * (len(ranges) > MAX_RANGES))}."
            own = [text.format(f"{one:.1f} %") for text, one in zip(texts, share)]
            label = f"{amp.key}: share of each bin in the sensitivity of its estimate. {words}"
            drawing = panel(e.ends, [Steps(share, None, amp.colour)], own, label, BANDS.get(amp.key, ()))
        kind, value = constraint(e, k), plain(value_text(e, k, style.plotted(amp, 0)[1]))
        value = f"<strong>{value}</strong>: {ENDS_HERE if kind == OPEN else kind}".rstrip(": ")
        articles.append(
            f"<h3>{plain(amp.label)}</h3>\n{drawing}\n<p>{value}. {words}</p>"
            f'<p class="{CLASSES[verdict.level]}">{html.escape(verdict.conclusion)}</p>'
        )
    blue = WHY_BLUE if min(low_ends, default=BLUE) < BLUE else ""
    return grid(articles) + (
        f"<p class='key'>{legend(e.ends, 'the estimate')} The sensitivity is the mean squared change of the estimate"
        f" when that bin alone is redrawn within its error. {blue} A high step elsewhere outside the bands, or at the"
        " edge between two instruments, deserves a closer look. The coloured sentence is the verdict of the run on"
        " all spectra like these; its report.html has the reasons.</p>"
    )


def _bin_texts(estimate):
    """Return the wavelengths and the depth of each bin, (n_bins,) texts with {} where the share belongs."""
    seen, (factor, unit), texts = estimate.observation, style.depth_unit(estimate.observation.depth), []
    for b, (low, high) in enumerate(estimate.ends):
        digits = _digits(factor * seen.error[b])
        text = f"{low:.4g}–{high:.4g} µm: {{}}, depth {factor * seen.depth[b]:.{digits}f}"
        text += f" ± {factor * seen.error[b]:.{digits}f} {unit}"
        if estimate.residuals is not None:
            text += style.minus(f", residual {estimate.residuals[b]:+.1f} σ")
        name = "" if seen.instrument is None else seen.instrument[b].replace("{", "{{").replace("}", "}}")
        texts.append(f"{text} ({name})" if name else text)
    return texts


# --- tables ---


def _estimates(estimate):
    """Return the table of estimates and errors."""
    e, rows = estimate, []
    for k, (amp, verdict) in enumerate(zip(e.amp_table, e.verdicts)):
        ends, unit, _ = style.plotted(amp, e.intervals[:, :, k])
        form, _ = _form([*ends.flat, style.plotted(amp, e.values[k])[0]], ends[0, 1] - ends[0, 0])
        kind = constraint(e, k)
        cells = ["not known" if np.isnan(pair).any() else f"{form(pair[0])} to {form(pair[1])}" for pair in ends]
        told = f'<span class="{CLASSES[verdict.level]}">{html.escape(verdict.conclusion)}</span>'
        value = "–" if kind == OPEN else f"<strong>{plain(value_text(e, k))}</strong>"
        kind = f"{OPEN}: {ENDS_HERE}" if kind == OPEN else kind
        rows.append([plain(amp.label), value, *map(style.minus, cells), plain(unit), kind, told])
    head = ["Parameter", "Estimate", "68 % interval", "95 % interval", "Unit", "Constraint", "Verdict of the run"]
    rough = f" From fewer than {ENOUGH}, 95{style.NBSP}% intervals and limits are rough." * (e.n_planets < ENOUGH)
    used = f"<p>The intervals come from {e.n_planets} test planets.{rough}</p>" * bool(np.isfinite(e.intervals).any())
    return table("Estimates and prediction intervals", head, rows, "answers", "values") + used + RULE


def _change(value, estimate, k, sign=None):
    """Return a change of an estimate in its own unit, and as a multiple of its error, half of the 68 % interval."""
    (factor, unit), (low, high) = style.difference_scale(estimate.amp_table[k]), estimate.intervals[0, :, k]
    text = f"{sign or ('−' if value < 0 else '+')}{style.amount(abs(value / factor))} {plain(unit)}"
    return f"{text} ({2 * abs(value) / (high - low):.2f} times its error)" if high > low else text


def _systematics(estimate):
    """Return the table of offsets and tilt."""
    e = estimate
    if e.sensitivity is None:
        return NOT_COMPUTED
    rows = [
        [plain(amp.label), *(_change(change[k], e, k) for change in e.systematics.values())]
        for k, amp in enumerate(e.amp_table)
    ]
    text = (
        "<p>The size of a change is the root mean square for systematic errors of one standard deviation. Its sign says"
        " where the estimate moves when the transits are deeper (for the tilt: deeper at long wavelengths). In brackets"
        " the change is compared with the error of the estimate, half of the 68 % interval.</p>"
    )
    head = ["Parameter", *map(html.escape, e.systematics)]
    return text + table("Effect of an offset and of a tilt", head, rows, "moved", "values")


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
    rows, ways = [], [(e.redrawn, "±"), (e.replaced, None)][: 1 + (e.replaced is not None)]
    for k, amp in enumerate(e.amp_table):
        row = [plain(amp.label)]
        for changes, sign in ways:
            worst = int(np.abs(changes[k]).argmax())
            row += [f"{e.observation.wavelength[worst]:.4g} µm", _change(changes[k, worst], e, k, sign)]
        rows.append(row)
    caption = "Which single bin, taken away, changes each estimate most"
    return f"{text}</p>" + table(caption, head, rows, "lost", "values")


# --- the page ---


def _result(estimate):
    """Return what is known of each parameter and what the run's verdicts are, or that nothing can be relied on."""
    if estimate.consistency.status == OUTSIDE:
        return "This spectrum is unlike those in training: <strong>no estimate can be relied on</strong>."
    kinds = {kind: [] for kind in (MEASURED, UPPER, LOWER, OPEN, "")}
    for k, amp in enumerate(estimate.amp_table):
        kind, unit, name = constraint(estimate, k), style.plotted(amp, 0)[1], amp.label
        if kind in (UPPER, LOWER):  # the log₁₀ of a mixing ratio is named before it
            log = unit.startswith("log₁₀")
            name = f"{'log₁₀ ' * log}{name} {value_text(estimate, k, '' if log else unit)}".replace(" ", style.NBSP)
        if estimate.verdicts[k].level != DISTRUST or kind in (OPEN, ""):  # the others are named behind
            kinds[kind].append(plain(name))
    too_few = kinds.pop("")
    clauses = [f"<strong>{kind.capitalize()}</strong>: {', '.join(names)}." for kind, names in kinds.items() if names]
    text = " ".join(clauses) or "There are too few test planets for intervals." * bool(too_few)
    return f"{text} Verdict of the run: {trusted(estimate.verdicts)}.".strip()


def build_page(estimate, rendered):
    """Return the page as text; ``rendered`` is {name: (Picture, PNG bytes, PNG bytes for a phone)}, in order."""
    e = estimate
    read = [f"The spectrum was read so: {html.escape(e.observation.note)}."] if e.observation.note else []
    headline, *reasons = (html.escape(sentence) for sentence in e.consistency.sentences)
    reasons = "".join(f"<p>{sentence}</p>" for sentence in [*reasons, *read])
    if e.consistency.status == INSIDE:  # when all is well, the numbers are folded away
        reasons = f"<details><summary>How this was found</summary>{reasons}</details>"
    name = e.observation.planet or Path(e.observation.name).stem
    title = f"{name}: {len(e.amp_table)} parameters from {len(e.observation.wavelength)} bins"
    first = f'<p class="status {e.consistency.status}" role="status">{headline}</p>\n{reasons}\n{_estimates(e)}'
    every = pairs(flatten(e.made_from))
    sections = [
        ("shares", "Which bins each estimate is sensitive to", _panels(e)),
        ("figures", "Figures", "".join(figure_section(name, *one) for name, one in rendered.items())),
        ("together", "Offsets between instruments, and a tilt", _systematics(e)),
        ("single", "Leaving one bin out", _removals(e)),
        ("how", "How this page was made", f"<details><summary>Run, observation, settings</summary>{every}</details>"),
    ]
    return whole_page(title, _result(e), first, sections)


def write_page(folder, estimate):
    """Write the figures of an estimate (PNG, PDF) and ``report.html``, one file without outside references."""
    e, rendered, narrow = estimate, {}, make_pictures(estimate, figures.NARROW)
    for name, picture in make_pictures(e).items():
        png, pdf = style.drawn(picture.figure, style.DPI, True)
        style.write_figure(folder, name, png, pdf)
        rendered[name] = picture, png, style.drawn(narrow[name].figure, 2 * style.DPI, False)[0]
    if e.shares is not None:  # the page shows these numbers as panels
        units = [style.plotted(amp, 0)[1] for amp in e.amp_table]
        units = [unit if len(style.as_text(unit)) < MAX_UNIT else "" for unit in units]
        titles = [f"  {value_text(e, k, unit)}" for k, unit in enumerate(units)]
        figure = figures.spectrum_shares(e.observation, e.ends, e.shares, e.amp_table, titles)
        style.write_figure(folder, "spectrum_shares", *style.drawn(figure, style.DPI, True))
    with written_whole(folder / "report.html") as part:
        part.write_text(build_page(e, rendered), encoding="utf-8")
