"""The table of scores, in its quick form: three regressions on the splits of the networks."""

import csv

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pandas")

from studies import score_table


@pytest.mark.slow
def test_regressions_are_scored_on_each_fold_and_others_stay(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["score_table", "--quick", "--regressions", "2", "--output", str(tmp_path)])
    score_table.main()
    with open(tmp_path / "quick/score_table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["model"], row["fold"]) for row in rows if row["score"] == "R2"}
    assert found == {(name, fold) for name in ("ridge", "random forest", "gradient boosting") for fold in "01"}
    assert all(np.isfinite(float(row[amp])) for row in rows for amp in ("H2O", "Rp", "Pclouds"))
    assert (tmp_path / "quick/score_table.md").read_text().strip() in capsys.readouterr().out


def test_scores_are_those_of_each_fold():
    truth = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 8.0]])
    found = score_table.score([truth, truth + 1], truth, [np.ones(2), np.full(2, 2.0)], ("a", "b"), limited=False)
    np.testing.assert_allclose(found["MSE"], [[0, 0], [0.25, 0.25]])
    np.testing.assert_allclose(found["R2"][0], 1)
