"""The figures of a run as files, and report.html: one file that a colleague can open from an e-mail."""

import base64
import csv
import html
import re
from pathlib import Path
from string import Template

import numpy as np

from common import metrics
from common.files import csv_text, written_whole
from constants import BANDS
from report import verdict
from report.best_estimator import best_estimator_of
from report.diagnostics import calibration
from report.drawing import all_drawn, png_of
from report.pictures import make_figures
from report.share_panels import INK, Steps, panel
from report.style import DPI, amount, bin_edges, difference_scale, our_style, plotted
from report.words import among, noise_of_test
from runio.config import flatten

MAX_WHOLE = 24  # letters of a header
MAX_FOLDS = 5  # that a score table lists
MAX_COVERED = 500  # test spectra whose intervals are made
LEAST_HONEST = 0.6  # of the truths within one standard deviation of the folds
FIRST = "sensitivity_shares"  # shown as inline SVG at the top of the page
CLASSES = ("trust", "care", "distrust")
KEY = (
    "The sensitivity of a parameter to a bin is the mean squared change of its prediction when this bin alone is"
    " redrawn within its error. Steps: the share of each bin in the sum over all bins, in per cent; band: its standard"
    " error;"
    " {best}grey: the molecule's known bands. Point at a bin for its share and its sensitivity. AMP stands for"
    " atmospheric model parameter."
)
BEST = (
    "The best estimator is the mean of the posterior. Its mean squared error is the limit, which no estimator can beat:"
    " the variance of the posterior, averaged over {n} test spectra whose posteriors were sampled. Agreement is the"
    " rank correlation, over the bins, of the network's sensitivity with that of the best estimator. The thresholds of"
    " the verdicts are in docs/method.md, Verdict."
)
NO_BEST = (
    "This data set's best possible estimator is not known. A verdict then depends on R² and, for a molecule, on its"
    " bands. This misses most defects (docs/method.md, Verdict), so no verdict is better than with care."
    " <code>python -m studies.information</code> and <code>python -m studies.posterior</code> compute that of"
    " the shipped data set."
)


def write_figures(run, folder=None, figures="report", processes=1):
    """Write the figures of a run as PNG and PDF.

    Parameters
    ----------
    run : results.Run
    folder : path-like, optional
        ``figures`` in the run's folder by default; made where it is missing.
    figures : {"none", "report", "all"}
        Which ones, see ``pictures.make_figures``.
    processes : int or "auto"
        Processes that draw at the same time; more than one only from a command, as each imports the main module.

    Returns
    -------
    dict of str to (Picture, bytes)
        Name to picture and PNG, for ``write_report``.
    """
    folder = Path(run.folder) / "figures" if folder is None else Path(folder)
    made = make_figures(run, figures)
    rendered = {}
    for (name, picture), (png, pdf) in zip(made.items(), all_drawn([one.figure for one in made.values()], processes)):
        folder.mkdir(parents=True, exist_ok=True)
        rendered[name] = picture, png
        for kind, content in (("png", png), ("pdf", pdf)):
            with written_whole(folder / f"{name}.{kind}") as part:
                part.write_bytes(content)
    return rendered


def write_report(run, path=None, rendered=None, command=None, versions=None):
    """Write the report: one HTML file without any outside reference.

    Parameters
    ----------
    run : results.Run
    path : path-like, optional
        ``report.html`` in the run's folder by default.
    rendered : dict, optional
        What ``write_figures`` returned; drawn again when missing.
    command : str, optional
    versions : dict of str to str, optional
        The command line, and versions of packages; by default the run's own record.

    Returns
    -------
    Path
    """
    path = Path(run.folder) / "report.html" if path is None else Path(path)
    if rendered is None:
        with our_style():
            rendered = {name: (picture, png_of(picture.figure, DPI)) for name, picture in make_figures(run).items()}
    page = build_page(run, rendered, command or run.config.get("command"), versions or run.config.get("versions"))
    with written_whole(path) as part:
        part.write_text(page, encoding="utf-8")
    return path


def style_sheet():
    """Return the style of the pages."""
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8").rstrip()


def build_page(run, rendered, command, versions):
    """Return the report as text."""
    title = f"Retrieval run: {run.model}, {len(run.amp_table)} parameters from {len(run.wavelength)} bins"
    settings = {k: v for k, v in flatten(run.config).items() if k.split(".")[0] not in ("versions", "command")}
    shown = {name: one for name, one in rendered.items() if name != FIRST}
    links = "".join(f'<li><a href="#{name}">{html.escape(one[0].title)}</a></li>' for name, one in shown.items())
    missing = "" if run.best.sensitivity or run.best.sensitivity_single else (
        "<p>This run was made without the sensitivity test, so it has no sensitivity figures.</p>"
    )  # fmt: skip
    best = best_estimator_of(run)
    found = verdict.verdicts(run, best)
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        style=style_sheet(),
        title=html.escape(title),
        result=result(run, found),
        panels=panels(run, found, best),
        notes=_notes(run, found, best),
        links=links,
        summary=pairs(summary(run)),
        scores=_scores(run) + _in_numbers(found) + _errors(run),
        figures=missing + "\n".join(figure_section(name, *one) for name, one in shown.items()),
        command=f"<pre tabindex='0'><code>{html.escape(str(command))}</code></pre>"
        if command
        else "<p>Not recorded.</p>",
        versions=pairs(versions) if versions else "<p>Not recorded.</p>",
        settings=pairs(settings) if settings else "<p>Not recorded.</p>",
        targets=_targets(run),
    )


def result(run, found):
    """Return the result of a run as one sentence of HTML."""
    who = f"The mean of {len(run.folds)} {run.model} networks" if run.ensemble else f"The {run.model} network"
    mean = np.nanmean([v.r2 for v in found])
    text = f"{html.escape(who)} has R² {mean:.2f} on {len(run.y_test)} test spectra (mean over the parameters)"
    if found[0].error_ratio is not None:
        text += (
            f" and {np.median([v.error_ratio for v in found]):.2f} times the smallest possible squared error (median)"
        )
    by_level = [[plain(v.amp.label) for v in found if v.level == level] for level in range(3)]
    words = ("trust", "trust with care", "do not trust")
    for word, names in zip(words, by_level):
        if len(names) == len(found) > 1:
            return f"{text}: <strong>{word} any of the {len(found)} parameters</strong>."
    clauses = [f"<strong>{word}</strong> {among(names)}" for word, names in zip(words, by_level) if names]
    return f"{text}: {'; '.join(clauses)}."


def panels(run, found, best=None):
    """Return a panel per AMP with its verdict below, as a grid."""
    exact, edges = run.best.sensitivity_single, bin_edges(run.wavelength)
    own = None if exact is None else 100 * metrics.shares(exact.mean)
    optimal = None if best is None else 100 * metrics.shares(best.optimal_map)
    articles = []
    for k, one in enumerate(found):
        drawing = ""
        if own is not None and np.isfinite(own[k]).any():
            error = 100 * exact.share_error[k]
            lines = [Steps(optimal[k], 100 * best.share_error[k], INK, "3 2")] if best else []
            lines.append(Steps(own[k], error, one.amp.colour))
            texts = _texts(one.amp, edges, own[k], error, exact.mean[k], None if best is None else optimal[k])
            label = f"{one.amp.key}: share of each bin in its sensitivity. {one.where}"
            drawing = panel(edges, lines, texts, label, BANDS.get(one.amp.key, ()))
        words = f"{html.escape(one.how_good)} {_unbroken(html.escape(one.where))}"
        articles.append(
            f'<article class="amp"><h3>{plain(one.amp.label)}</h3>\n{drawing}\n<p class="{CLASSES[one.level]}">'
            f"{html.escape(one.conclusion)}</p><p>{words}</p></article>"
        )
    return '<div class="amps">' + "\n".join(articles) + "</div>"


def _unbroken(text):
    """Return a text whose ranges, such as 1.34–1.48, do not break at the end of a line."""
    return text.replace("–", "&#8288;–&#8288;")


def _texts(amp, edges, own, error, values, optimal):
    """Return what is shown of each bin of a panel, (n_bins,) texts; shares in per cent, values in AMP units squared."""
    factor, unit = difference_scale(amp)
    unit = f" {as_text(unit)}²" if unit else ""
    texts = []
    for b in range(len(own)):
        text = f"{edges[b]:.3g}–{edges[b + 1]:.3g} µm: {own[b]:.1f} ± {error[b]:.1f} %"
        text += "" if optimal is None else f", best estimator {optimal[b]:.1f} %"
        texts.append(text + f", {amount(values[b] / factor**2)}{unit}")
    return texts


def _notes(run, found, best):
    """Return the notes under the panels: what the lines are, and what the words of the verdicts mean."""
    key = KEY.format(best="dashed: the best possible estimator; " if best else "")
    blue = f"<p class='key'>{verdict.WHY_BLUE}</p>" if verdict.looks_blue(found, run.wavelength) else ""
    shown = f"<p class='key'>{key}</p>" if run.best.sensitivity_single else ""
    return f"{shown}{blue}<p class='key'>{BEST.format(n=len(best.rows)) if best else NO_BEST}</p>"


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
    best = [_best_epoch(fold.history) for fold in run.folds.values()]
    if any(best):
        rows["Epoch kept / epochs trained"] = ", ".join(b or "unknown" for b in best)
    return rows


def _best_epoch(history):
    losses = history.get("val_loss", ())
    return f"{int(losses.argmin()) + 1} / {len(losses)}" if len(losses) else None


def plain(label):
    """Return a plot label as HTML: H$_2$O becomes H<sub>2</sub>O."""
    text = html.escape(label).replace(r"\mathrm", "").replace(r"\$", "&#36;")
    out, inside = "", False
    while text:
        if text[0] == "$":
            inside, text = not inside, text[1:]
        elif inside and text[0] in "_^":
            tag = "sub" if text[0] == "_" else "sup"
            body, text = text[2:].split("}", 1) if text[1:2] == "{" else (text[1:2], text[2:])
            out += f"<{tag}>{body}</{tag}>"
        else:
            out, text = out + text[0], text[1:]
    return out


def as_text(label):
    """Return a plot label as plain text, without LaTeX."""
    return re.sub(r"\\mathrm|(?<!\\)\$|[{}]", "", label).replace(r"\$", "$")


def table(caption, head, rows, identity="", kind=""):
    """Return a table whose first row and first column are headers; cells are HTML."""
    cells = "".join(f'<th scope="col"{_long(cell)}>{cell}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row"{_long(row[0])}>{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    name = re.sub(r"\W+", "-", f"table {caption}")  # a caption above: in the table it would be as narrow as the table
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
    rows = "\n".join(
        f'<tr><th scope="row">{html.escape(str(k))}</th><td>{html.escape(str(v))}</td></tr>' for k, v in values.items()
    )
    return f'<div class="wide"><table class="pairs"><tbody>\n{rows}\n</tbody></table></div>'


def _scores(run):
    """Return R2.csv and MSE.csv as tables with a row per AMP and three digits."""
    tables = []
    labels = {csv_text(a.key): plain(a.label) for a in run.amp_table}
    for name, caption, form in (
        ("R2", "R² (1: perfect; 0: as good as predicting the mean of the test set)", "{:.3f}"),
        ("MSE", "Mean squared error in units of the training variance (1: as good as predicting the mean)", "{:#.3g}"),
    ):
        path = Path(run.folder) / f"{name}.csv"
        if not path.is_file():
            tables.append(f"<p>{name}.csv is missing from the folder of the run.</p>")
            continue
        with open(path, newline="", encoding="utf-8") as file:
            head, *rows = csv.reader(file)
        single = [row for row in rows if row[0].isdigit()]
        if len(single) > MAX_FOLDS:
            caption += f"; the scores of all {len(single)} folds are in {name}.csv"
        kept = [row for row in rows if row not in single or len(single) <= MAX_FOLDS]
        if len(single) == 1:
            kept = single
        titles = {"mean": "Average of the folds", "mean of folds": "Mean prediction"}
        columns = [titles.get(row[0], f"Fold {html.escape(row[0])}") for row in kept]
        body = [
            [labels.get(key, html.escape(key)), *(form.format(float(row[i])) for row in kept)]
            for i, key in enumerate(head[1:], 1)
        ]
        tables.append(table(caption, ["AMP", *columns], body, name, "numbers"))
    if len(run.folds) > 1:
        tables.append(
            "<p>Average of the folds: the mean of their scores. Mean prediction: the score of the mean of their"
            " predictions.</p>"
        )
    return "\n".join(tables)


def _in_numbers(found):
    """Return the numbers behind the verdicts as a table."""
    known = found[0].error_ratio is not None
    beside = (
        ["Error / limit", "Limit / vari&shy;ance", "Agree&shy;ment", "In other bins", "Sum / best"] if known else []
    )
    head = ["AMP", "R²", *beside]
    rows = []
    for one in found:
        row = [plain(one.amp.label), f"{one.r2:.3f}"]
        if known:
            row += [f"{one.error_ratio:#.3g} ±&nbsp;{one.error_ratio_error:.2g}", f"{one.unknowable:.2f}"]
            row += ["", "", ""] if one.agreement is None else [
                f"{one.agreement:.2f}", f"{one.misplaced:.0%}", f"{one.reaction:#.3g}"
            ]  # fmt: skip
        bands = "" if one.in_bands is None else f"{one.in_bands:.0%}"
        rows.append([*row, bands + ("" if one.best_in_bands is None else f" ({one.best_in_bands:.0%})")])
    head.append("In bands (best)" if known else "In bands")
    text = table("The numbers behind the verdicts", head, rows, "verdicts", "numbers")
    if known:
        text += (
            "<p>In other bins: the share of the sensitivity that lies in other bins than that of the best estimator."
            " Sum / best: the sensitivity summed over all bins, divided by the same sum of the best estimator. In"
            " bands: the share of the sensitivity in the molecule's known bands, and in brackets that of the best"
            " estimator.</p>"
        )
    return text


def _errors(run):
    """Return how often the truth is inside the intervals that an application gives, and inside those of the folds."""
    from observation.compare import LEVELS, intervals

    half = len(run.y_test) // 2
    y_pred, truth = run.best.y_pred, run.y_test
    some = slice(half, half + MAX_COVERED)
    ends = intervals(y_pred[:half], truth[:half], y_pred[some])  # (n_levels, 2, m, n_amps)
    if not np.isfinite(ends).any():
        return "<p>There are too few test spectra for intervals of the predictions.</p>"
    inside = ((ends[:, 0] <= truth[some]) & (truth[some] <= ends[:, 1])).mean(axis=1)  # (n_levels, n_amps)
    head = ["AMP", *(f"{level} % interval" for level in LEVELS)]
    rows = [[plain(a.label), *(f"{share:.1%}" for share in column)] for a, column in zip(run.amp_table, inside.T)]
    caption = (
        f"Truths inside the prediction intervals: {len(truth[some])} test spectra; the intervals are made from {half}"
        " others, as for an observation"
    )
    text = table(caption, head, rows, "coverage", "numbers")
    if len(run.folds) > 1:
        folds = np.stack([fold.y_pred for fold in run.folds.values()])
        share = calibration(run.y_test, folds, [1.0]).inside.mean()
        text += (
            f"<p>Is the spread of the folds an error bar? No: only {share:.0%} of the truths lie within one standard"
            " deviation of the folds, where it would be 68 % for an error bar."
            if share < LEAST_HONEST
            else f"<p>Is the spread of the folds an error bar? {share:.0%} of the truths lie within one standard"
            " deviation of the folds; it would be 68 % for an error bar."
        )
        text += " It reflects the training and not the photon noise.</p>"
    return text


def _targets(run):
    """Return the AMPs with their units and the range of the test set."""
    rows = []
    for a, truth in zip(run.amp_table, run.y_test.T):
        values, unit, _ = plotted(a, [truth.min(), np.median(truth), truth.max()])
        learnt = "logarithm" if a.scale == "log10" else "value"
        rows.append([plain(a.label), plain(unit) or "none", *(f"{value:.4g}" for value in values), learnt])
    head = ["AMP", "Unit", "Least", "Median", "Greatest", "Learnt as"]
    return table("Targets in the test set", head, rows, "targets", "numbers")


def figure_section(name, picture, png):
    """Return a figure with its title and its words; ``png`` is bytes."""
    data = base64.b64encode(png).decode("ascii")
    width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
    title, shows, read = html.escape(picture.title), html.escape(picture.shows), html.escape(picture.read)
    return (
        f'<section id="{name}" aria-labelledby="{name}-title"><h3 id="{name}-title">{title}</h3>\n'
        f'<figure><img src="data:image/png;base64,{data}" width="{width}" height="{height}"'
        f' alt="{title} (described below)">\n'
        f"<figcaption>{shows} <strong>How to read it:</strong> {read}</figcaption></figure></section>"
    )
