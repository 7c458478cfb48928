"""How good are the predictions of finished runs, and do they look where they should? From the folders of the runs.

    python -m studies.run_table RUN_DIR [RUN_DIR ...]
    python -m studies.run_table RUN_DIR [RUN_DIR ...] --page README.md --output studies/results    # also writes tables

Prints, for the mean of the folds of each run (or its only fold), a row per AMP: R2, squared error / limit, agreement of
the exact map with the optimal map, the sum of the one over the sum of the other, and the share in bands of both. Then a
row per run, for README.md. The limit and the optimal map are those of data/information.h5 (`report.best_estimator`).
Only --page and --output write: the former the rows of the runs between the marks of that page, the latter
``run_table.csv`` and ``run_table.md``.
"""

from pathlib import Path

import numpy as np

from common.files import written_whole
from report.best_estimator import best_estimator_of, verdicts
from report.compare import seconds_of_run
from runio.results import ENSEMBLE, load_run
from studies.command import study_parser
from studies.tables import as_markdown, data_frame, put_between_marks, write_csv

MARKS = "<!-- table of studies/run_table.py: begin -->", "<!-- end -->"  # in README.md


def rows_of_run(run):
    """Return a row (dict) per AMP of a run; ValueError where its data set has no sampled posteriors."""
    best = best_estimator_of(run)
    if best is None:
        raise ValueError(f"{run.folder}: expected a run on a data set with sampled posteriors beside it, found none")
    return [
        {
            "amp": one.amp.key,
            "R2": one.r2,
            "error_over_limit": one.error_ratio,
            "its_error": one.error_ratio_error,
            "spearman": one.agreement,
            "total_over_optimal": one.reaction,
            "in_bands": one.in_bands,
            "optimal_in_bands": one.best_in_bands,
        }
        for one in verdicts(run, best)
    ]


def summary_of_run(run, rows):
    """Return the row of a run in README.md: a dict of texts."""
    from models import load_model

    ratio, agreement = (np.array([row[key] for row in rows], float) for key in ("error_over_limit", "spearman"))
    several = f", mean of {len(run.folds)} folds" if run.ensemble else ""
    name = ENSEMBLE if run.ensemble else f"model_{min(run.folds)}"
    return {
        "network": run.model + several,
        "mean R²": f"{np.mean([row['R2'] for row in rows]):.3f}",
        "squared error / limit": f"{ratio.mean():.2f} ({ratio.min():.2f} to {ratio.max():.2f})",
        "agreement with the best estimator": f"{agreement.mean():.2f} (at least {agreement.min():.2f})",
        "parameters": f"{load_model(run.folder / f'{name}.keras').count_params():,}",
        "minutes": f"{seconds_of_run(run.folder) / 60:.1f}",
    }


def main():
    """Run the command line."""
    parser = study_parser("run_table", __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR")
    parser.add_argument("--page", type=Path, help="Markdown file whose table is made anew")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for run_table.csv and run_table.md")
    arguments = parser.parse_args()
    table, summary = [], []
    try:
        for folder in arguments.runs:
            run = load_run(folder)
            rows = rows_of_run(run)
            print(folder, data_frame(rows).round(3).to_string(index=False), "", sep="\n")
            table += [{"run": Path(folder).name, "network": run.model, "folds": len(run.folds), **row} for row in rows]
            summary.append(summary_of_run(run, rows))
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    text = "\n".join(as_markdown(data_frame(summary)))
    print(text)
    if arguments.page:
        put_between_marks(arguments.page, MARKS, text)
    if arguments.output:
        rows = data_frame(table)
        numbers = rows.select_dtypes("float").columns
        rows[numbers] = rows[numbers].map("{:.4f}".format, na_action="ignore")
        write_csv(arguments.output / "run_table.csv", rows)
        with written_whole(arguments.output / "run_table.md") as part:
            part.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
