"""Train the four networks and three classical regressions on the same splits; write their tables of scores.

    python -m studies.paper_table                     # all networks, five folds: some three hours on one core
    python -m studies.paper_table --folds 1           # one fold each
    python -m studies.paper_table --quick             # minutes; shows that it runs, not how good it is

Every network is a whole run of runfile.py (kept in ``--work``; the same command given again goes on with it), with
``config.yaml``. "Mean of folds" is the mean answer of a network's folds.
MSE / limit is what `limit.py` prints for sampled posteriors, with its bootstrap error over spectra.
Writes ``paper_table.csv`` (a row per model, fold and score; rows of models not asked for stay) and ``paper_table.md``.
"""

import datetime
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from common.files import written_whole
from common.metrics import scores
from constants import NETWORKS, Stream, stream
from loaders import load_dataset
from pipeline.folds import load_split
from preprocessing import Scaler, add_noise, noisy_test_spectra, split_folds, split_test, take
from runio.config import load_config
from studies.command import RESULTS, ROOT, study_parser
from studies.limit import compare
from studies.tables import as_markdown, data_frame, replaced_rows, write_csv

CONFIG = ROOT / "config.yaml"
COPIES = 3  # noisy copies that the regressions learn from
ORDER = ("ridge", "random forest", "gradient boosting", *NETWORKS)  # of the rows
TITLES = {"R2": "R2", "MSE": "MSE (scaled units)", "MSE/limit": "MSE / limit"}
QUICK = ["--size", "1500", "--epochs", "2"]


def judge(predictions, truth, scalers, names, quick):
    """Return the scores of predictions (folds, n_test, n_amps): name to rows (folds or 1, n_amps)."""
    both = [scores(truth, p, s["y_std"]) for p, s in zip(predictions, scalers, strict=True)]
    judged = {"R2": np.array([b["R2"] for b in both]), "MSE": np.array([b["MSE"] for b in both])}
    if not quick:  # else these are other test spectra than those of the limit
        limit = compare(np.asarray(predictions), truth, names)
        judged |= {"MSE/limit": limit.sampler[None], "error of MSE/limit": limit.sampler_error[None]}
    return judged


def train_network(name, folds, work, quick):
    """Run runfile.py for one network, or go on with it; return the seconds it took."""
    folder = work / name
    command = [sys.executable, str(ROOT / "runfile.py"), "--config", str(CONFIG), "--model", name]
    command += ["--cv", str(folds), "--output", str(folder), "--no-sensitivity", "--resume", *(QUICK if quick else [])]
    start = time.perf_counter()
    try:
        subprocess.run(command, check=True)
    finally:
        seconds = _add_up(folder / "seconds.txt", time.perf_counter() - start)
    return seconds


def judge_network(name, folds, work, quick, seconds):
    """Yield (name, scores, seconds, parameters) of the trained folds of a network, and of the mean of their answers."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from models import load_model
    from pipeline.evaluate import predict_noisy
    from pipeline.network import TrainedNetwork

    changes = {"model.name": name, "training.cv": folds, **({"data.size": 1500} if quick else {})}
    config = load_config(CONFIG, changes)
    config.data.path = str(ROOT / config.data.path)
    split, place = load_split(config), work / name
    if not (place / "results.h5").is_file():
        place = place / ".unfinished"
    trained = [k for k in range(folds) if (place / f"model_{k}.keras").is_file()]
    truth, names = split.data.amps[split.test], split.data.amp_names
    networks = [TrainedNetwork(load_model(place / f"model_{k}.keras"), split.folds[k].scaler, names) for k in trained]
    answers = [predict_noisy(network, split.data, split.test, config.seed) for network in networks]
    scalers = [network.scaler.to_dict() for network in networks]
    if answers:
        parameters = networks[0].model.count_params()
        yield name, judge(answers, truth, scalers, names, quick), seconds, parameters
    if len(answers) > 1:
        together = judge([np.mean(answers, axis=0)], truth, scalers[:1], names, quick)
        yield f"{name}, mean of folds", together, seconds, parameters * len(answers)


def _add_up(path, seconds):
    """Add to the time that the calls on a run took so far; None if there was none."""
    total = seconds + (float(path.read_text()) if path.is_file() else 0.0)
    if seconds and path.parent.is_dir():
        path.write_text(str(total))
    return total or None


def regressions(seed, quick=False):
    """Return the classical regressions, name to unfitted estimator; with ``quick`` of few trees."""
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.multioutput import MultiOutputRegressor

    return {
        "ridge": RidgeCV(np.logspace(-4, 3, 8)),
        "random forest": RandomForestRegressor(
            10 if quick else 100, min_samples_leaf=5, max_features=0.33, n_jobs=-1, random_state=seed
        ),
        "gradient boosting": MultiOutputRegressor(
            HistGradientBoostingRegressor(max_iter=10 if quick else 300, random_state=seed)
        ),
    }


def train_regressions(folds, quick):
    """Fit the regressions on the networks' splits; yield (name, scores, seconds, None)."""
    config = load_config(ROOT / "config.yaml", {"training.cv": folds})
    data = take(load_dataset(ROOT / config.data.path), 1500 if quick else -1)
    rest, test = split_test(data, config.data.test_fraction, config.seed)
    splits = split_folds(rest, folds, config.training.folds, config.data.valid_fraction, config.seed)
    seen = noisy_test_spectra(data, test, config.seed)
    for name in regressions(0):
        answers, scalers, start = [], [], time.perf_counter()
        for k, (train, _) in enumerate(splits):
            scaler = Scaler.fit(data, train)
            rows = np.tile(train, COPIES)
            rng = np.random.default_rng(stream(config.seed, Stream.STUDY_NOISE, k))
            noisy = add_noise(data.spectra[rows], data.errors[rows], rng)
            model = regressions(config.seed, quick)[name]
            model.fit(scaler.inputs(noisy)[..., 0], scaler.targets(data.amps[rows]))
            answers.append(scaler.amps(model.predict(scaler.inputs(seen)[..., 0])))
            scalers.append(scaler.to_dict())
        seconds = time.perf_counter() - start
        yield name, judge(answers, data.amps[test], scalers, data.amp_names, quick), seconds, None


def results(arguments):
    """Yield lists of (name, scores, seconds, parameters), model after model, of what the command line asks for."""
    if not arguments.no_regressions:
        yield from ([entry] for entry in train_regressions(arguments.folds, arguments.quick))
    for name in arguments.models:
        asked = name, arguments.folds, arguments.work, arguments.quick
        seconds = _add_up(arguments.work / name / "seconds.txt", 0) if arguments.no_training else train_network(*asked)
        yield list(judge_network(*asked, seconds))


def write_tables(judged, names, output, note):
    """Put judged models into the CSV file, in place of older rows of these models; write the Markdown tables.

    Parameters
    ----------
    judged : list of (name, scores, seconds, parameters)
        As `results` yields them.
    names : sequence of str
        AMP keys.
    output : Path
        Folder of both files.
    note : str
        When and where the scores were computed.

    Returns
    -------
    str
        The Markdown tables.
    """
    path = output / "paper_table.csv"
    rows = []
    for model, by_score, seconds, parameters in judged:
        size, minutes = parameters or "", "" if seconds is None else f"{seconds / 60:.1f}"
        for score, values in by_score.items():
            for k, row in enumerate(values):
                fold, digits = k if len(values) > 1 else "all", [f"{v:.5g}" for v in row]
                rows.append(list(map(str, [model, fold, score, *digits, size, minutes, note])))
    columns = ["model", "fold", "score", *names, "parameters", "minutes", "note"]
    table = replaced_rows(path, data_frame(rows, columns), ["model"])
    write_csv(path, table)
    text = tables_of_scores(table, list(names))
    with written_whole(output / "paper_table.md") as part:
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
    parser = study_parser("paper_table", __doc__)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--quick", action="store_true", help="1500 spectra, 2 epochs; in folders quick/ of their own")
    parser.add_argument("--no-regressions", action="store_true", help="networks only")
    parser.add_argument("--no-training", action="store_true", help="judge the folds that are trained already")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/paper_table", help="where the runs are kept")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the tables go")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.work, arguments.output = arguments.work / "quick", arguments.output / "quick"
    names = load_dataset(ROOT / load_config(ROOT / "config.yaml").data.path).amp_names
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    note = f"{datetime.date.today()}, {machine}"
    text = write_tables([], names, arguments.output, note)
    for entries in results(arguments):
        text = write_tables(entries, names, arguments.output, note)
        print(text)


if __name__ == "__main__":
    main()
