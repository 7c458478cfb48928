"""The figures of a run as files, and report.html: one file that a colleague can open from an e-mail."""

import base64
import html
import re
from pathlib import Path
from string import Template

import numpy as np

from common import metrics
from common.files import written_whole
from constants import BANDS
from observation.compare import LEVELS, intervals
from report import style
from report.best_estimator import DISTRUST, RULES, WHY_BLUE, best_estimator_of, looks_blue, verdicts
from report.diagnostics import CREDIBILITY_DELTA, CREDIBILITY_EPS, calibration
from report.pictures import MAKERS, among, make_figures, noise_of_test
from report.share_panels import Steps, legend, panel
from runio.config import flatten

MAX_WHOLE = 24  # letters of a header
MAX_FOLDS = 5  # that a score table lists
ELSEWHERE = '<span class="narrow">; those of the folds are shown on a wider screen</span>'
MAX_COVERED = 500  # test spectra whose intervals are made
LEAST_HONEST = 0.6  # of the truths within one standard deviation of the folds
UNRECORDED = "<p>Not recorded.</p>"
NO_MAP = "<p>This run was made without the sensitivity test, so it has no sensitivity figures.</p>"
FIRST = "sensitivity_shares"  # shown as inline SVG at the top of the page
CLASSES = ("trust", "care", "distrust")
SENSITIVITY = (
    " The sensitivity of a parameter to a bin is the mean squared change of its prediction when this bin alone is"
    " redrawn within its error. AMP stands for atmospheric model parameter."
)
UP = (
    "“From log₁₀ VMR ... up”: in the bin of predictions there and in all above, at least {} of true values are within"
    " {:g} dex (see Credibility)."
)
BEST = (
    "The best estimator is the mean of the posterior. Its mean squared error is the limit: the variance of the"
    " posterior, averaged over {n} test spectra whose posteriors were sampled. Agreement is the rank correlation, over"
    " the bins, of the network's sensitivity with that of the best estimator. “Trust it” means that no threshold is"
    " passed ({rules}). All are in docs/method.md, Verdict."
)
NO_BEST = (
    "This data set's best possible estimator is not known. A verdict then depends on R² and, for a molecule, on its"
    " bands. This misses most defects (docs/method.md, Verdict), so no verdict is better than with care."
    " <code>python -m studies.information</code> and <code>python -m studies.posterior</code> compute that of"
    " the shipped data set."
)


def write_figures(run, folder=None, figures="report", processes=1):
    """Write the figures of a run as PNG and PDF: ``pictures.make_figures`` says which ``figures`` there are.

    More than one process ("auto") may draw only from a command, as each imports the main module. Returns, by name, the
    picture, its PNG, and a PNG for telephones where it is wider than one of their screens.
    """
    folder = Path(run.folder) / "figures" if folder is None else Path(folder)
    wide = make_figures(run, figures)
    again = [n for n, one in wide.items() if n != FIRST and one.figure.get_figwidth() > style.ONE_COLUMN]
    tasks = [(one.figure, style.DPI, True) for one in wide.values()]
    tasks += [(MAKERS[name](run, style.ONE_COLUMN).figure, 1.5 * style.DPI, False) for name in again]
    files = style.all_drawn(tasks, processes)
    small = dict(zip(again, (png for png, _ in files[len(wide) :])))
    for name, (png, pdf) in zip(wide, files):
        style.write_figure(folder, name, png, pdf)
    return {name: (picture, files[i][0], small.get(name)) for i, (name, picture) in enumerate(wide.items())}


def write_report(run, rendered, path=None):
    """Write the report of a run, with the figures that `write_figures` returned, as one HTML file; return its path."""
    path = Path(run.folder) / "report.html" if path is None else Path(path)
    with written_whole(path) as part:
        part.write_text(build_page(run, rendered), encoding="utf-8")
    return path


def whole_page(title, result, first, sections):
    """Return a page: title, result and ``first`` (HTML), links to all headings, sections (identity, heading, HTML)."""
    page, sheet = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("page.html", "page.css"))
    below = "\n".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{heading}</h2>\n{content}</section>'
        for name, heading, content in sections
    )
    headings = re.findall(r'<h[23] id="([^"]+)">(.*?)</h', below)
    return Template(page).substitute(
        style=sheet.rstrip(), title=html.escape(title), result=result, first=first, sections=below,
        links="\n".join(f'<li><a href="#{name}">{heading}</a></li>' for name, heading in headings),
    )  # fmt: skip


def build_page(run, rendered):
    """Return the report as text."""
    title = f"Retrieval run: {run.model}, {len(run.amp_table)} parameters from {len(run.wavelength)} bins"
    command, best = run.config.get("command"), best_estimator_of(run)
    found = verdicts(run, best)
    figures = [figure_section(name, *one) for name, one in rendered.items() if name != FIRST]
    if not (run.best.sensitivity or run.best.sensitivity_single):
        figures.insert(0, NO_MAP)
    typed = f"<pre tabindex='0'><code>{html.escape(command)}</code></pre>" if command else UNRECORDED
    every = f"<details open><summary>Versions and every setting</summary>\n{pairs(flatten(run.config))}</details>"
    sections = [
        ("scores", "Scores", _scores(run) + _in_numbers(run, found, best) + _errors(run)),
        ("figures", "Figures", "\n".join(figures)),
        ("run", "The run", pairs(summary(run)) + _targets(run)),
        ("how", "How it was made", typed + every),
    ]
    return whole_page(title, result(run, found), _panels(run, found, best) + _notes(run, found, best), sections)


def trusted(found):
    """Return which parameters the verdicts trust, trust with care and do not trust, as HTML."""
    n, clauses = len(found), []
    for level, word in enumerate(("trust", "trust with care", "do not trust")):
        names = [plain(v.amp.label) for v in found if v.level == level]
        if names:
            everything = f"{'any of the' if level == DISTRUST else 'all'} {n} parameters"
            whom = everything if len(names) == n > 1 else among(names)
            clauses.append(f'<strong class="{CLASSES[level]}">{word if clauses else word.capitalize()}</strong> {whom}')
    return "; ".join(clauses)


def result(run, found):
    """Return the result of a run as one sentence of HTML: the verdict, then how good the predictions are."""
    who = f"the mean of {len(run.folds)} {run.model} networks" if run.ensemble else f"the {run.model} network"
    mean = style.score(np.nanmean([v.r2 for v in found]), 2)
    text = f"{trusted(found)}: {html.escape(who)} has R² {mean} on {len(run.y_test)} test spectra"
    if found[0].error_ratio is None:
        return f"{text} (mean over the parameters)."
    ratio = np.median([v.error_ratio for v in found])
    return (
        f"{text} (mean over the parameters) and {ratio:.2f} times (median) the limit, the smallest squared error that"
        " any estimator can have; the best estimator, the mean of the posterior, has it."
    )


def _panels(run, found, best):
    """Return a panel per AMP with its verdict below, as a grid."""
    exact, ends = run.best.sensitivity_single, style.bin_ends(run.wavelength, run.bin_width)
    own = None if exact is None else 100 * metrics.shares(exact.mean)
    optimal = None if best is None else 100 * metrics.shares(best.optimal_map)
    articles = []
    for k, one in enumerate(found):
        drawing = ""
        if own is not None and np.isfinite(own[k]).any():
            error = 100 * exact.share_error[k]
            lines = [Steps(optimal[k], 100 * best.share_error[k], style.INK, "3 2")] if best else []
            lines.append(Steps(own[k], error, one.amp.colour))
            texts = _texts(one.amp, ends, own[k], error, exact.mean[k], None if best is None else optimal[k])
            label = f"{one.amp.key}: share of each bin in its sensitivity. {one.where}"
            drawing = panel(ends, lines, texts, label, BANDS.get(one.amp.key, ()))
        words = f"{html.escape(one.how_good)} {html.escape(one.where).replace('–', '&#8288;–&#8288;')}"  # unbroken
        articles.append(
            f"<h3>{plain(one.amp.label)}</h3>\n{drawing}\n"
            f'<p class="{CLASSES[one.level]}">{html.escape(one.conclusion)}</p><p>{words}</p>'
        )
    return grid(articles)


def grid(articles):
    """Return articles of HTML as a grid whose rows, with one to five columns, are as equally long as they can be."""
    n = len(articles)
    columns = ";".join(f"--c{most}:{-(-n // -(-n // most))}" for most in range(2, 6))
    inner = "\n".join(f'<article class="amp">{one}</article>' for one in articles)
    return f'<div class="amps" style="{columns}">{inner}</div>'


def _texts(amp, ends, own, error, values, optimal):
    """Return what is shown of each bin of a panel, (n_bins,) texts; shares in per cent, values in AMP units squared."""
    factor, unit = style.difference_scale(amp)
    unit = f" {style.as_text(unit)}²" if unit else ""
    texts = []
    for b, (low, high) in enumerate(ends):
        text = f"{low:.3g}–{high:.3g} µm: {own[b]:.1f} ± {error[b]:.1f} %"
        text += "" if optimal is None else f", best estimator {optimal[b]:.1f} %"
        texts.append(text + f", {style.amount(values[b] / factor**2)}{unit}")
    return texts


def _notes(run, found, best):
    """Return the notes under the panels: what the lines are, and what the words of the verdicts mean."""
    ends = style.bin_ends(run.wavelength, run.bin_width)
    lines = "; band: its standard error" + ("; dashed: the best possible estimator" if best else "")
    texts = [legend(ends, "the parameter", lines) + SENSITIVITY] if run.best.sensitivity_single else []
    if looks_blue(found, run.wavelength):
        texts.append(WHY_BLUE)
    if any(one.credible_from is not None for one in found):
        texts.append(UP.format(style.percent(CREDIBILITY_DELTA), CREDIBILITY_EPS))
    rules = ", ".join(f"{rule.meaning} {'at least' if rule.below else 'at most'} {rule.care:g}" for rule in RULES[:-1])
    texts.append(BEST.format(n=len(best.rows), rules=rules) if best else NO_BEST)
    return "".join(f"<p class='key'>{text}</p>" for text in texts)


def summary(run):
    """Return what the run was about: dict of words to values."""
    wavelength, spectra = run.wavelength, run.data.get("n_spectra")
    rows = {
        "Data set": run.data.get("data_name", "not recorded"),
        "Spectra": "not recorded" if spectra is None else f"{int(spectra)}",
        "Test spectra": f"{len(run.y_test)}, {noise_of_test(run)}, not used in training",
        "Wavelength": f"{len(wavelength)} bins, {wavelength[0]:.4g} to {wavelength[-1]:.4g} µm (centres)",
        "Network": run.model,
        "Folds": f"{len(run.folds)}",
        "Seed": f"{run.seed}",
    }
    losses = [np.asarray(fold.history.get("val_loss", ())) for fold in run.folds.values()]
    if any(map(len, losses)):
        kept = (f"{one.argmin() + 1} / {len(one)}" if len(one) else "unknown" for one in losses)
        rows["Epoch kept / epochs trained"] = ", ".join(kept)
    return rows


def plain(label):
    """Return a plot label as HTML: H$_2$O becomes H<sub>2</sub>O."""

    def raised(found):
        tag = "sub" if found[1] == "_" else "sup"
        return f"<{tag}>{found[2] or found[3]}</{tag}>"

    text = html.escape(label).replace(r"\mathrm", "").replace(r"\$", "&#36;")
    return re.sub(r"\$([^$]*)\$", lambda found: re.sub(r"([_^])(?:{(.*?)}|(.))", raised, found[1]), text)


def table(caption, head, rows, identity="", kind=""):
    """Return a table whose first row and first column are headers; cells are HTML.

    The ``kind`` "values" becomes a list of labelled values on a narrow screen; "numbers" are aligned at the right.
    """
    cells = "".join(f'<th scope="col"{_long(cell)}>{cell}</th>' for cell in head)
    form = '<td data-label="{}"><span>{}</span></td>' if kind == "values" else "<td>{1}</td>"
    body = "\n".join(
        f'<tr><th scope="row"{_long(row[0])}>{row[0]}</th>{"".join(map(form.format, head[1:], row[1:]))}</tr>'
        for row in rows
    )
    name = re.sub(r"(<[^>]+>|\W)+", "-", f"table {caption}")  # a caption above, as the table may be narrow
    about = (f' id="{identity}"' if identity else "") + (f' class="{kind}"' if kind else "")
    return (
        f'<div class="wide"><p class="caption" id="{name}">{caption}</p><table{about} aria-labelledby="{name}">'
        f"<thead><tr>{cells}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def _long(cell):
    """Return the class of a header that may break within a word, so that its table fits on a telephone."""
    return ' class="long"' if len(re.sub("<[^>]+>", "", cell)) > MAX_WHOLE else ""


def pairs(values):
    """Return a dict as a table of two columns, headed by its keys."""
    if not values:
        return UNRECORDED
    rows = "\n".join(
        f'<tr><th scope="row">{html.escape(str(k))}</th><td>{html.escape(str(v))}</td></tr>' for k, v in values.items()
    )
    return f'<div class="wide"><table class="pairs"><tbody>\n{rows}\n</tbody></table></div>'


def _scores(run):
    """Return R2 and the mean squared error as tables with a row per AMP and three digits."""
    tables, n = [], len(run.folds)
    for name, caption, form in (
        ("R2", "R² (1: perfect; 0: as good as predicting the mean of the test set)", style.score),
        (
            "MSE",
            "Mean squared error in units of the training variance (1: as good as predicting the mean)",
            "{:#.3g}".format,
        ),
    ):
        columns = {f"Fold {fold}": run.scores[fold][name] for fold in run.folds}
        if n > 1:
            means = {"Average of the folds": np.mean(list(columns.values()), axis=0)}
            means |= {"Mean prediction": run.scores["ensemble"][name]} if run.ensemble else {}
            columns = means if n > MAX_FOLDS else columns | means
            caption += f"; the scores of all {n} folds are in {name}.csv" if n > MAX_FOLDS else ELSEWHERE
        values = np.transpose(list(columns.values()))
        body = [[plain(amp.label), *map(form, row)] for amp, row in zip(run.amp_table, values)]
        tables.append(table(caption, ["AMP", *columns], body, name, "numbers"))
    if n > 1:
        tables.append(
            "<p>Average of the folds: the mean of their scores. Mean prediction: the score of the mean of their"
            " predictions.</p>"
        )
    return "\n".join(tables)


def _in_numbers(run, found, best):
    """Return the numbers behind the verdicts as a table."""
    known, rows = found[0].error_ratio is not None, []
    for one in found:
        row = [plain(one.amp.label), style.score(one.r2)]
        if known:
            row += [style.with_error(one.error_ratio, one.error_ratio_error), f"{one.unknowable:.2f}"]
            row += ["", "", ""] if one.agreement is None else [
                style.minus(f"{one.agreement:.2f}"), style.percent(one.misplaced), f"{one.reaction:#.3g}"
            ]  # fmt: skip
        bands = ("" if share is None else style.percent(share) for share in (one.in_bands, one.best_in_bands))
        rows.append([*row, "{} ({})".format(*bands).replace(" ()", "")])
    if not known:
        return table("The numbers behind the verdicts", ["AMP", "R²", "In bands"], rows, "verdicts", "numbers")
    head = ["AMP", "R²", "Error / limit", "Limit / vari&shy;ance", "Agree&shy;ment", "In other bins", "Sum / best"]
    return table("The numbers behind the verdicts", [*head, "In bands (best)"], rows, "verdicts", "numbers") + (
        "<p>In other bins: the share of the sensitivity that lies in other bins than that of the best estimator."
        " Sum / best: the sensitivity summed over all bins, divided by the same sum of the best estimator. In"
        " bands: the share of the sensitivity in the molecule's known bands, and in brackets that of the best"
        f" estimator. Error / limit is measured on the {len(best.rows)} spectra with sampled posteriors, R² and the"
        f" mean squared error on all {len(run.y_test)}, so that error / limit times limit / variance gives 1 − R² only"
        " within the scatter of so few spectra.</p>"
    )


def _errors(run):
    """Return how often the truth is inside the intervals that an application gives, and inside those of the folds."""
    y_pred, truth, half = run.best.y_pred, run.y_test, len(run.y_test) // 2
    some = slice(half, half + MAX_COVERED)
    ends = intervals(y_pred[:half], truth[:half], y_pred[some])  # (n_levels, 2, m, n_amps)
    if not np.isfinite(ends).any():
        return "<p>There are too few test spectra for intervals of the predictions.</p>"
    inside = ((ends[:, 0] <= truth[some]) & (truth[some] <= ends[:, 1])).mean(axis=1)  # (n_levels, n_amps)
    head = ["AMP", *(f"{level} % interval" for level in LEVELS)]
    rows = [[plain(a.label), *(style.percent(one, 1) for one in row)] for a, row in zip(run.amp_table, inside.T)]
    caption = (
        f"Share of true values inside the prediction intervals: {len(truth[some])} test spectra; the intervals are made"
        f" from {half} others, as for an observation"
    )
    text = table(caption, head, rows, "coverage", "numbers")
    if len(run.folds) > 1:
        folds = np.stack([fold.y_pred for fold in run.folds.values()])
        share = calibration(run.y_test, folds, [1.0]).inside.mean()
        text += (
            "<p>Is the spread of the folds an error bar?"
            f" {'No: only ' if share < LEAST_HONEST else ''}{style.percent(share)} of the true values lie within one"
            f" standard deviation of the folds; it would be {style.percent(0.68)} for an error bar. It reflects the"
            " training and not the photon noise.</p>"
        )
    return text


def _targets(run):
    """Return the AMPs with their units and the range of the test set."""
    rows = []
    for a, truth in zip(run.amp_table, run.y_test.T):
        values, unit, _ = style.plotted(a, [truth.min(), np.median(truth), truth.max()])
        learnt = "logarithm" if a.scale == "log10" else "value"
        values = (style.minus(style.amount(value, 4)) for value in values)
        rows.append([plain(a.label), plain(unit) or "none", *values, learnt])
    head = ["AMP", "Unit", "Least", "Median", "Greatest", "Learnt as"]
    return table("Targets in the test set", head, rows, "targets", "numbers")


def figure_section(name, picture, png, narrow=None):
    """Return a figure with its title and its words; ``png`` is bytes, as is its ``narrow`` version for telephones."""
    data, small = (base64.b64encode(one or b"").decode("ascii") for one in (png, narrow))
    width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
    title, shows, read = html.escape(picture.title), html.escape(picture.shows), html.escape(picture.read)
    source = f'<source media="(max-width: 40rem)" srcset="data:image/png;base64,{small}">' if small else ""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title"><h3 id="{name}-title">{title}</h3>\n'
        f'<figure><picture>{source}<img src="data:image/png;base64,{data}" width="{width}" height="{height}"'
        f' alt="{title} (described below)"></picture>\n'
        f"<figcaption>{shows} <strong>How to read it:</strong> {read}</figcaption></figure></section>"
    )
