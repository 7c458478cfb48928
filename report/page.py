"""The figures of a run as files, and report.html: one file that a colleague can open from an e-mail."""

import base64
import csv
import html
import io
import logging
from pathlib import Path
from string import Template

import numpy as np

from common.files import written_whole
from report import pictures
from report.best_estimator import verdicts, yardstick_of
from report.pictures import make_figures
from report.style import DPI, our_style, plotted
from runio.config import flatten

FIRST = "sensitivity_shares"  # the figure that answers the question of the report
YARDSTICK = (
    "Half of an AMP's sensitivity lies in the wavelengths that are named. The limit is the mean variance of {n} sampled"
    " posteriors of this data set: 1 cannot be beaten. Agreement is the rank correlation over bins of the exact map"
    " with that of the best possible estimator, the posterior mean."
)
NO_YARDSTICK = (
    "Half of an AMP's sensitivity lies in the wavelengths that are named. How near this comes to the best possible"
    " estimator is not known for this data set: <code>python -m studies.information</code> and"
    " <code>python -m studies.posterior</code> make an information.h5 for the shipped one."
)


def write_figures(run, folder=None):
    """Write every figure of a run as PNG and PDF.

    Parameters
    ----------
    run : results.Run
    folder : path-like, optional
        ``figures`` in the run's folder by default; made where it is missing.

    Returns
    -------
    dict of str to (Picture, bytes)
        Name to picture and PNG, for ``write_report``.
    """
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it reports every font table it cuts
    folder = Path(run.folder) / "figures" if folder is None else Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rendered = {}
    with our_style():
        for name, picture in make_figures(run).items():
            rendered[name] = picture, png_of(picture.figure, DPI)
            with written_whole(folder / f"{name}.png") as part:
                part.write_bytes(rendered[name][1])
            with written_whole(folder / f"{name}.pdf") as part:  # no date, so the same run gives the same file
                picture.figure.savefig(part, format="pdf", dpi=300, metadata={"CreationDate": None})
    return rendered


def png_of(figure, dpi):
    """Lay a figure out once and for all, and return it as PNG."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


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
        The command line; by default the run's own record of it.
    versions : dict of str to str, optional
        By default the run's own record.

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
    first = figure_section(FIRST, *rendered[FIRST]) if FIRST in rendered else ""
    figures = "\n".join(figure_section(name, *one) for name, one in rendered.items() if name != FIRST)
    links = "".join(
        f'<li><a href="#{name}">{html.escape(one[0].title)}</a></li>' for name, one in rendered.items() if name != FIRST
    )
    missing = "" if run.best.sensitivity or run.best.sensitivity_single else (
        "<p>This run was made without the sensitivity test, so it has no sensitivity figures.</p>"
    )  # fmt: skip
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        style=style_sheet(),
        title=html.escape(title),
        links=links,
        first=first,
        verdicts=_verdicts(run),
        summary=pairs(summary(run)),
        scores=_scores(run),
        figures=missing + figures,
        command=f"<pre tabindex='0'><code>{html.escape(str(command))}</code></pre>"
        if command
        else "<p>Not recorded.</p>",
        versions=pairs(versions) if versions else "<p>Not recorded.</p>",
        settings=pairs(settings) if settings else "<p>Not recorded.</p>",
        targets=_targets(run),
    )


def _verdicts(run):
    """Return the table that answers the question of the report, a row per AMP."""
    yardstick = yardstick_of(run)
    rows = []
    for one in verdicts(run, yardstick):
        row = [plain(one.amp.label), html.escape(one.sentence), f"{one.r2:.3f}"]
        if yardstick:
            row.append(f"{one.error_ratio:.2f} ± {one.error_ratio_error:.2f}")
            row.append("" if one.agreement is None else f"{one.agreement:.2f}")
        bands = "" if one.in_bands is None else f"{one.in_bands:.0%}"
        rows.append([*row, bands + ("" if one.best_in_bands is None else f" ({one.best_in_bands:.0%})")])
    head = ["AMP", "What its answer rests on", "R²"]
    head += ["Squared error / limit", "Agreement with the best estimator"] if yardstick else []
    head.append("In known bands (best estimator)" if yardstick else "In known bands")
    caption = "Where each answer comes from, and how good it is"
    note = NO_YARDSTICK if yardstick is None else YARDSTICK.format(n=len(yardstick.rows))
    return table(caption, head, rows).replace("<table>", '<table class="verdicts">') + f"<p>{note}</p>"


def summary(run):
    """Return what the run was about: dict of words to values."""
    wavelength, spectra = run.wavelength, run.data.get("n_spectra")
    rows = {
        "Data set": run.data.get("data_name", "not recorded"),
        "Spectra": "not recorded" if spectra is None else f"{int(spectra)}",
        "Test spectra": f"{len(run.y_test)}, {pictures.judged_on(run)}, never seen in training",
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


def table(caption, head, rows):
    """Return a table whose first row and first column are headers, in a frame that scrolls on a phone."""
    cells = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows
    )
    return (
        f'<div class="wide" role="region" aria-label="{caption}" tabindex="0"><table><caption>{caption}</caption>'
        f"<thead><tr>{cells}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def pairs(values):
    """Return a dict as a table of two columns, headed by its keys."""
    rows = "\n".join(
        f'<tr><th scope="row">{html.escape(str(k))}</th><td>{html.escape(str(v))}</td></tr>' for k, v in values.items()
    )
    return f'<div class="wide"><table class="pairs"><tbody>\n{rows}\n</tbody></table></div>'


def _scores(run):
    """Return MSE.csv and R2.csv as tables, figure for figure."""
    tables = []
    for name, caption in (
        ("MSE", "Mean squared error, in units of the training variance (about 1 is answering the mean)"),
        ("R2", "R² (1 is perfect, 0 is answering the mean of the test set)"),
    ):
        path = Path(run.folder) / f"{name}.csv"
        if not path.is_file():
            tables.append(f"<p>{name}.csv is missing from the folder of the run.</p>")
            continue
        with open(path, newline="") as file:
            head, *rows = csv.reader(file)
        labels = {a.key: plain(a.label) for a in run.amp_table}
        head = ["Fold", *(labels.get(key, html.escape(key)) for key in head[1:])]
        tables.append(table(caption, head, [[html.escape(cell) for cell in row] for row in rows]).replace(
            "<table>", f'<table id="{name}" class="numbers">'
        ))  # fmt: skip
    return "\n".join(tables)


def _targets(run):
    """Return the AMPs with their units and the range of the test set."""
    rows = []
    for a, truth in zip(run.amp_table, run.y_test.T):
        values, unit, _ = plotted(a, [truth.min(), np.median(truth), truth.max()])
        learnt = "logarithm" if a.scale == "log10" else "value"
        rows.append([plain(a.label), plain(unit) or "none", *(f"{value:.4g}" for value in values), learnt])
    head = ["AMP", "Unit", "Least", "Median", "Greatest", "Learnt as"]
    return table("Targets in the test set", head, rows).replace("<table>", '<table class="numbers">')


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
