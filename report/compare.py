"""A page that compares finished runs: their scores, times and sizes in a table, their maps of each AMP in one panel."""

import html
import io
import re
import zipfile
from pathlib import Path

import h5py
import numpy as np

from common import metrics
from common.files import read_bounded, written_whole
from constants import BANDS
from report.best_estimator import WORDS, best_estimator_of, verdicts
from report.page import CLASSES, NO_BEST, grid, pairs, plain, table, whole_page
from report.pictures import among
from report.share_panels import Steps, legend, panel
from report.style import INK, as_text, bin_ends, minus, score
from runio.results import load_run

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MAX_LOG = 100_000_000  # bytes of a run.log, or of a page


def write_comparison(run_folders, output):
    """Write a page that compares finished runs, of the same AMPs and wavelengths, into ``output``; return its path."""
    runs = [load_run(folder) for folder in run_folders]
    first = runs[0]
    for run in runs[1:]:
        if run.amp_names != first.amp_names or not np.array_equal(run.wavelength, first.wavelength):
            raise ValueError(f"{run.folder}: expected the AMPs and wavelengths of {first.folder}, received others")
    output = Path(output)
    if output.exists() and not re.search(rb"<title>\d+ runs compared:", _content(output)):  # replaces nothing else
        raise ValueError(f"{output}: expected a new file or an earlier comparison, received another; choose --output")
    with written_whole(output) as part:
        part.write_text(_page(runs), encoding="utf-8")
    return output


def _content(path):
    """Return the bytes of a file; none where it cannot be read."""
    try:
        return read_bounded(path, MAX_LOG)
    except (OSError, ValueError):
        return b""


def _page(runs):
    """Return the page as text."""
    models = [run.model for run in runs]
    names = models if len(set(models)) == len(models) else [Path(run.folder).name for run in runs]
    bests = [best_estimator_of(run) for run in runs]
    found = [verdicts(run, best) for run, best in zip(runs, bests)]
    best = next(filter(None, bests), None)
    r2 = [np.nanmean([one.r2 for one in v]) for v in found]
    title = f"{len(runs)} runs compared: {len(runs[0].amp_table)} parameters from {len(runs[0].wavelength)} bins"
    result = (
        f"<strong>{html.escape(names[int(np.nanargmax(r2))])}</strong> has the highest mean R², {score(np.nanmax(r2))};"
        f" the lowest is {score(np.nanmin(r2))}."
    )
    scores = [[plain(a.label), *(score(v[k].r2) for v in found)] for k, a in enumerate(runs[0].amp_table)]
    folders = {f"{i}. {name}": run.folder for i, (name, run) in enumerate(zip(names, runs), 1)}
    table_of_scores = table("R² on the test spectra", ["AMP", *map(html.escape, names)], scores, "compared", "numbers")
    sections = [
        ("scores", "R² of each parameter", table_of_scores + ("" if best else f"<p class='key'>{NO_BEST}</p>")),
        ("folders", "Folders", pairs(folders)),
    ]
    first = _networks(runs, names, found) + _panels(runs, names, found, best)
    return whole_page(title, result, first, sections)


def _networks(runs, names, found):
    """Return the table with a column per run."""
    columns = []
    for run, one in zip(runs, found):
        levels = [v.level for v in one]
        ratios, agreement = ([getattr(v, key) for v in one] for key in ("error_ratio", "agreement"))
        seconds, parameters = seconds_of_run(run.folder), parameters_of_run(run)
        columns.append([
            str(len(run.folds)),
            score(np.nanmean([v.r2 for v in one])),
            "not known" if None in ratios else f"{np.median(ratios):.2f}",
            "not known" if None in agreement else minus(f"{np.mean(agreement):.2f} ({np.min(agreement):.2f})"),
            *(str(levels.count(level)) for level in range(len(WORDS))),
            "not recorded" if seconds is None else f"{seconds / 60:.1f}",
            "not recorded" if parameters is None else f"{parameters:,}",
        ])  # fmt: skip
    head = ["Folds", "Mean R²", "Squared error / smallest possible (median)", "Agreement (least)", *WORDS, "Minutes"]
    rows = [[name, *cells] for name, cells in zip([*head, "Parameters of a network"], zip(*columns))]
    return table("The networks", ["", *map(html.escape, names)], rows, "networks", "numbers")


def _panels(runs, names, found, best):
    """Return a panel per AMP with the maps of all runs, and what the lines are."""
    maps = [run.best.sensitivity_single for run in runs]
    own = [None if one is None else 100 * metrics.shares(one.mean) for one in maps]
    optimal = None if best is None else 100 * metrics.shares(best.optimal_map)
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(runs))]
    ends, articles = bin_ends(runs[0].wavelength, runs[0].bin_width), []
    for k, amp in enumerate(runs[0].amp_table):
        shown = [(n, s[k], c, "") for n, s, c in zip(names, own, colours) if s is not None and np.isfinite(s[k]).any()]
        shown += [] if optimal is None else [("best estimator", optimal[k], INK, "3 2")]
        if not shown:
            continue
        lines = [Steps(values, None, colour, dashes) for _, values, colour, dashes in reversed(shown)]
        texts = [
            f"{low:.3g}–{high:.3g} µm: " + ", ".join(f"{name} {values[b]:.1f} %" for name, values, *_ in shown)
            for b, (low, high) in enumerate(ends)
        ]
        words = ""
        for level, word in enumerate(WORDS):
            those = [html.escape(name) for name, one in zip(names, found) if one[k].level == level]
            words += f'<p class="{CLASSES[level]}">{word}: {among(those)}.</p>' if those else ""
        label = f"{as_text(amp.label)}: share of each bin in the sensitivity of {len(runs)} networks"
        drawing = panel(ends, lines, texts, label, BANDS.get(amp.key, ()))
        articles.append(f"<h3>{plain(amp.label)}</h3>\n{drawing}\n{words}")
    if not articles:
        return "<p>No run has an exact map.</p>"
    colours = [f'<span style="color:{c}" aria-hidden="true">■</span> {html.escape(n)}' for n, c in zip(names, colours)]
    colours += ["dashed the best possible estimator"] if best else []
    return f"<p class='key'>{legend(ends, 'the parameter', ': ' + ', '.join(colours))}</p>" + grid(articles)


def seconds_of_run(folder):
    """Return how long a run took, from the line of times at the end of its log; None where it is not there."""
    lines = re.findall(r"time: (.*)", _content(Path(folder) / "run.log").decode("utf-8", "replace"))
    return sum(float(seconds) for seconds in re.findall(r"(\d+) s", lines[-1])) if lines else None


def parameters_of_run(run):
    """Return the number of weights of the first fold's network, from its file; None where it cannot be read."""
    try:
        with zipfile.ZipFile(Path(run.folder) / f"model_{min(run.folds)}.keras") as archive:
            weights = io.BytesIO(archive.read("model.weights.h5"))
        found = {}
        with h5py.File(weights) as file:
            file["layers"].visititems(
                lambda name, item: found.update({name: getattr(item, "size", 0)})
            )  # groups have none
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return None
    return sum(size for name, size in found.items() if "seed" not in name)
