"""Train the four networks and three classical regressions on the same splits; write the tables of the README.

    python benchmarks/paper_table.py                     # all networks, five folds: a night on two cores
    python benchmarks/paper_table.py --folds 1           # one fold each
    python benchmarks/paper_table.py --quick             # minutes; shows that it runs, not how good it is

Every network is a whole run of runfile.py (kept in ``--work``, and gone on with when the command is repeated). Those
that are slow on a CPU are trained with fewer steps: ``configs/lean.yaml`` for the cnn and the hybrid,
``configs/lstm.yaml`` for the lstm.
Writes ``paper_table_MSE.csv``, ``paper_table_R2.csv`` (a row per network and fold) and ``paper_table.md``.
"""

import argparse
import csv
import datetime
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from config import NETWORKS, load_config  # noqa: E402
from evaluation import scores  # noqa: E402
from loaders import load_dataset  # noqa: E402
from preprocessing import Scaler, add_noise, split_folds, split_test, take  # noqa: E402
from results import load_run, written_whole  # noqa: E402

CONFIGS = {"mlp": "config.yaml", "cnn": "configs/lean.yaml", "lstm": "configs/lstm.yaml", "hybrid": "configs/lean.yaml"}
COPIES = 3  # noisy copies that the regressions learn from
QUICK = ["--size", "1500", "--epochs", "2"]


def train_network(name, folds, work, quick):
    """Run runfile.py for one network; return (MSE, R2, seconds, parameters), the first two (folds, n_amps)."""
    folder = work / name
    command = [sys.executable, str(ROOT / "runfile.py"), "--config", str(ROOT / CONFIGS[name]), "--model", name]
    command += ["--cv", str(folds), "--output", str(folder), "--no-sensitivity", "--resume", *(QUICK if quick else [])]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    seconds = _remember(folder / "seconds.txt", seconds)
    run = load_run(folder)
    both = [scores(run.y_test, f.y_pred, f.scaler["y_mean"], f.scaler["y_std"]) for f in run.folds.values()]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from models import load_model

    parameters = load_model(folder / f"model_{min(run.folds)}.keras").count_params()
    return np.array([b["MSE"] for b in both]), np.array([b["R2"] for b in both]), seconds, parameters


def _remember(path, seconds):
    """Keep the time of the longest call on a run: a repeated command finds it finished and takes no time."""
    before = float(path.read_text()) if path.is_file() else 0.0
    path.write_text(str(max(before, seconds)))
    return max(before, seconds)


def regressions(seed):
    """Return the classical regressions, name to unfitted estimator."""
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.multioutput import MultiOutputRegressor

    return {
        "ridge": RidgeCV(np.logspace(-4, 3, 8)),
        "random forest": RandomForestRegressor(
            100, min_samples_leaf=5, max_features=0.33, n_jobs=-1, random_state=seed
        ),
        "gradient boosting": MultiOutputRegressor(HistGradientBoostingRegressor(max_iter=300, random_state=seed)),
    }


def train_regressions(folds, quick):
    """Fit the regressions on the networks' splits; yield (name, MSE, R2, seconds, None)."""
    config = load_config(ROOT / "config.yaml", {"training.cv": folds})
    data = take(load_dataset(ROOT / config.data.path), 1500 if quick else -1)
    rest, test = split_test(data, config.data.test_fraction, config.seed)
    splits = split_folds(rest, folds, config.training.folds, config.data.valid_fraction, config.seed)
    seen = add_noise(data.spectra[test], data.errors[test], np.random.default_rng([config.seed, 6]))  # as in a run
    for name in regressions(0):
        mse, r2, start = [], [], time.perf_counter()
        for k, (train, _) in enumerate(splits):
            scaler = Scaler.fit(data, train)
            rows = np.tile(train, COPIES)
            noisy = add_noise(data.spectra[rows], data.errors[rows], np.random.default_rng([config.seed, k]))
            model = regressions(config.seed)[name].fit(scaler.inputs(noisy)[..., 0], scaler.targets(data.amps[rows]))
            answer = scaler.amps(model.predict(scaler.inputs(seen)[..., 0]))
            both = scores(data.amps[test], answer, scaler.y_mean, scaler.y_std)
            mse.append(both["MSE"])
            r2.append(both["R2"])
        yield name, np.array(mse), np.array(r2), time.perf_counter() - start, None


def write_tables(found, names, output, note):
    """Write the CSV files and the Markdown table of everything found so far."""
    output.mkdir(parents=True, exist_ok=True)
    for position, score in ((1, "MSE"), (2, "R2")):
        with written_whole(output / f"paper_table_{score}.csv") as part, open(part, "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["model", "fold", *names, "mean"])
            for entry in found:
                for k, row in enumerate(entry[position]):
                    table.writerow([entry[0], k, *(f"{v:.5g}" for v in row), f"{row.mean():.5g}"])
    lines = [note, ""]
    for position, score, digits in ((2, "R2", 3), (1, "MSE (scaled units)", 4)):
        lines += [f"| {score} | " + " | ".join([*names, "mean"]) + " | parameters | minutes |"]
        lines += ["|---" * (len(names) + 4) + "|"]
        for entry in found:
            values = np.column_stack([entry[position], entry[position].mean(axis=1)])
            cells = [_cell(column, digits) for column in values.T]
            size = f"{entry[4]:,}" if entry[4] else ""
            lines.append(f"| {entry[0]} | " + " | ".join(cells) + f" | {size} | {entry[3] / 60:.1f} |")
        lines.append("")
    text = "\n".join(lines)
    with written_whole(output / "paper_table.md") as part:
        part.write_text(text, encoding="utf-8")
    return text


def _cell(values, digits):
    spread = f" ± {values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--quick", action="store_true", help="1500 spectra, 2 epochs")
    parser.add_argument("--no-regressions", action="store_true", help="networks only")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/paper_table", help="where the runs are kept")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results", help="where the tables go")
    arguments = parser.parse_args()
    names = load_dataset(ROOT / load_config(ROOT / "config.yaml").data.path).amp_names
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    note = f"{datetime.date.today()}, {machine}; {arguments.folds} fold(s), mean ± standard deviation over folds."
    found = []
    if not arguments.no_regressions:
        for entry in train_regressions(arguments.folds, arguments.quick):
            found.append(entry)
            write_tables(found, names, arguments.output, note)
    for name in arguments.models:
        found.append((name, *train_network(name, arguments.folds, arguments.work, arguments.quick)))
        text = write_tables(found, names, arguments.output, note)
    print(text)


if __name__ == "__main__":
    main()
