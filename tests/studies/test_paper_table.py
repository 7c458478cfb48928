"""The table of the networks is made, in its quick form, and goes on from what is trained."""

import csv
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras")

from studies import paper_table


@pytest.fixture
def call(warm, tmp_path, monkeypatch, capsys):
    """A function that runs the study and returns what it printed; the runs of runfile.py that it starts are warm."""

    def run(command, check):
        assert Path(command[1]).name == "runfile.py" and check
        done = warm.run(command[2:], tmp_path / "output", quick_figures=True, one_core=True)
        assert done.status == 0, done.stderr[-3000:]

    def study(*arguments):
        monkeypatch.setattr("sys.argv", ["paper_table", *map(str, arguments)])
        paper_table.main()
        return capsys.readouterr().out

    monkeypatch.setattr(paper_table.subprocess, "run", run)
    return study


@pytest.mark.slow
def test_paper_table(tmp_path, call):
    pytest.importorskip("sklearn")
    pytest.importorskip("pandas")
    common = ["--quick", "--models", "mlp", "--folds", "2", "--work", tmp_path / "runs", "--output", tmp_path]
    printed = call(*common)
    with open(tmp_path / "quick/paper_table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    folds = {(row["model"], row["fold"]) for row in rows if row["score"] == "R2"}
    two = {(name, fold) for name in ("ridge", "random forest", "gradient boosting", "mlp") for fold in "01"}
    assert folds == two | {("mlp, mean of folds", "all")}
    assert all(np.isfinite(float(row[amp])) for row in rows for amp in ("H2O", "Rp", "Pclouds"))
    assert (tmp_path / "quick/paper_table.md").read_text().strip() in printed

    again = call(*common, "--no-regressions", "--no-training")
    assert again.count("| mlp, mean of folds |") == 2  # R2 and MSE; rows of the regressions stay
    assert again.count("| ridge |") == 2
