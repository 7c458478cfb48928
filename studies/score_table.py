"""Scores of finished runs, and of three classical regressions on the same splits, in one table.

    python -m studies.score_table RUN_DIR [RUN_DIR ...]     # one run per kind of network
    python -m studies.score_table --regressions 1           # ridge, random forest, gradient boosting: one of five folds

"Mean of folds" is the mean prediction of a network's folds. MSE / limit is what `limit.py` prints for sampled
posteriors, with its bootstrap error over spectra. Writes ``score_table.csv`` (a row per model, fold and score; rows of
other models stay) and ``score_table.md``.
"""

import datetime
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np

from common.files import written_whole
from common.metrics import scores
from constants import NETWORKS, PAPER_AMPS, Stream, stream
from studies.command import RESULTS, settings_of, study_parser
from studies.limit import compare, refuse_other_test
from studies.run_table import seconds_of_run
from studies.tables import as_markdown, data_frame, replaced_rows, write_csv

COPIES = 3  # noisy copies that the regressions learn from
ORDER = ("ridge", "random forest", "gradient boosting", *NETWORKS)  # of the rows
TITLES = {"R2": "R2", "MSE": "MSE (scaled units)", "MSE/limit": "MSE / limit"}


def score(predictions, truth, scales, names, limited=True):
    """Return {score: rows (folds or 1, n_amps)} of predictions (folds, n_test, n_amps); ``scales`` are of the AMPs."""
    both = [scores(truth, p, scale) for p, scale in zip(predictions, scales, strict=True)]
    found = {name: np.array([one[name] for one in both]) for name in ("R2", "MSE")}
    if limited:  # these are the test spectra of the limit
        limit = compare(np.asarray(predictions), truth, names)
        found |= {"MSE/limit": limit.sampler[None], "error of MSE/limit": limit.sampler_error[None]}
    return found


def scores_of_run(folder):
    """Yield (name, scores, seconds, parameters) of the folds of a finished run, and of the mean of their
    predictions.
    """
    from models import load_model
    from runio.results import load_run

    run = load_run(folder)
    refuse_other_test(run)
    predictions = [fold.y_pred for fold in run.folds.values()]
    scales = [fold.scaler.y_std for fold in run.folds.values()]
    parameters = load_model(run.folder / f"model_{min(run.folds)}.keras").count_params()
    seconds = seconds_of_run(run.folder)
    yield run.model, score(predictions, run.y_test, scales, run.amp_names), seconds, parameters
    if len(predictions) > 1:
        together = score([np.mean(predictions, axis=0)], run.y_test, scales[:1], run.amp_names)
        yield f"{run.model}, mean of folds", together, seconds, parameters * len(predictions)


def regressions(seed, quick=False):
    """Return the classical regressions, name to unfitted estimator; with ``quick`` of few trees."""
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.multioutput import MultiOutputRegressor

    trees, rounds = (10, 10) if quick else (100, 300)
    forest = {"min_samples_leaf": 5, "max_features": 0.33, "n_jobs": -1, "random_state": seed}
    return {
        "ridge": RidgeCV(np.logspace(-4, 3, 8)),
        "random forest": RandomForestRegressor(trees, **forest),
        "gradient boosting": MultiOutputRegressor(HistGradientBoostingRegressor(max_iter=rounds, random_state=seed)),
    }


def scores_of_regressions(folds, quick):
    """Fit the regressions on the first ``folds`` of the networks' five; yield (name, scores, seconds, None)."""
    from pipeline.folds import load_split
    from preprocessing import add_noise, noisy_test_spectra

    config = settings_of("config.yaml", {"training.cv": 5}, quick)
    split = load_split(config)
    data, truth = split.data, split.data.amps[split.test]
    seen = noisy_test_spectra(data, split.test, config.seed)
    for name in regressions(0):
        predictions, scales, start = [], [], time.perf_counter()
        for k, fold in enumerate(split.folds[:folds]):
            rows, scaler = np.tile(fold.train, COPIES), fold.scaler
            rng = np.random.default_rng(stream(config.seed, Stream.STUDY_NOISE, k))
            noisy = add_noise(data.spectra[rows], data.errors[rows], rng)
            model = regressions(config.seed, quick)[name]
            model.fit(scaler.inputs(noisy)[..., 0], scaler.targets(data.amps[rows]))
            predictions.append(scaler.amps(model.predict(scaler.inputs(seen)[..., 0])))
            scales.append(scaler.y_std)
        seconds = time.perf_counter() - start
        yield name, score(predictions, truth, scales, data.amp_names, not quick), seconds, None


def write_tables(scored, names, output, note):
    """Put (model, scores, seconds, parameters) into the CSV, in place of older rows; write and return the Markdown."""
    path = output / "score_table.csv"
    rows = []
    for model, by_score, seconds, parameters in scored:
        size, minutes = parameters or "", "" if seconds is None else f"{seconds / 60:.1f}"
        for score, values in by_score.items():
            for k, row in enumerate(values):
                fold, digits = k if len(values) > 1 else "all", [f"{v:.5g}" for v in row]
                rows.append(list(map(str, [model, fold, score, *digits, size, minutes, note])))
    columns = ["model", "fold", "score", *names, "parameters", "minutes", "note"]
    table = replaced_rows(path, data_frame(rows, columns), ["model"])
    write_csv(path, table)
    text = tables_of_scores(table, list(names))
    with written_whole(output / "score_table.md") as part:
        part.write_text(text, encoding="utf-8")
    return text


def tables_of_scores(table, names):
    """Return Markdown: R2 and MSE, mean and spread over folds; MSE over the limit with its error."""
    digits = {"R2": 3, "MSE": 4, "MSE/limit": 2}
    known = [score for score in digits if (table["score"] == score).any()]
    return "\n".join("\n".join([*as_markdown(one_score(table, names, s, digits[s])), ""]) for s in known)


def one_score(table, names, score, digits):
    """Return a data frame of texts: a row per model, in their order, a column per AMP, then mean, folds and cost."""
    part = table[table["score"] == score]
    models = sorted(part["model"].unique(), key=lambda model: (ORDER.index(model.split(",")[0]), model))
    values = part[names].astype(float).assign(mean=lambda row: row.mean(axis=1)).groupby(part["model"])
    mean, error = values.mean().loc[models], values.std().loc[models]  # one row has no spread: NaN
    if score == "MSE/limit":
        errors = table[table["score"] == f"error of {score}"].set_index("model")[names].astype(float)
        error = errors.reindex(index=mean.index, columns=mean.columns)
    cells = mean.map(f"{{:.{digits}f}}".format) + error.map(f" ± {{:.{digits}f}}".format).where(error.notna(), "")
    folds = table[table["score"] == "R2"]["model"].value_counts()
    cost = part.groupby("model").first().loc[models]
    cells.insert(0, TITLES[score], models)
    cells["folds"] = [str(folds.get(model.split(",")[0], 0)) for model in models]
    cells["parameters"] = [f"{int(size):,}" if size else "" for size in cost["parameters"]]
    cells["minutes"] = cost["minutes"]
    return cells


def main():
    """Run the command line."""
    parser = study_parser("score_table", __doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN_DIR", help="finished runs on the shipped data with seed 0")
    parser.add_argument("--regressions", type=int, default=0, metavar="FOLDS", help="also fit the regressions")
    parser.add_argument("--quick", action="store_true", help="regressions of 1500 spectra, into results/quick/")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the tables go")
    arguments = parser.parse_args()
    output = arguments.output / "quick" if arguments.quick else arguments.output
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    scored = []
    try:
        if arguments.regressions:
            scored += scores_of_regressions(arguments.regressions, arguments.quick)
        for folder in arguments.runs:
            scored += scores_of_run(folder)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(write_tables(scored, PAPER_AMPS, output, f"{datetime.date.today()}, {machine}"))


if __name__ == "__main__":
    sys.exit(main())
