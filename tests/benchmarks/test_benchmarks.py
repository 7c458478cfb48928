"""The scripts behind the tables run, in their quick form, and write what they say."""

import csv

import numpy as np
import pytest


@pytest.mark.slow
def test_sensitivity_benchmark(tmp_path, warm):
    arguments = ["--quick", "--models", "mlp", "--output", tmp_path]
    done = warm.script("benchmarks.bench_sensitivity", arguments, tmp_path / "output", fork_workers=True)
    assert done.status == 0, done.stderr[-3000:]
    _, *lines = (tmp_path / "sensitivity_mlp_quick.csv").read_text().splitlines()
    (row,) = csv.DictReader(lines)
    assert row["network"] == "mlp" and f"| mlp | {row['map_s']} |" in done.stdout
    assert float(row["ratio"]) > 0 and float(row["factor"]) > 1


def test_the_budget_rises_until_the_ranking_is_that_of_the_limit():
    pytest.importorskip("tensorflow")
    from benchmarks.ranking_cost import cheapest

    limit, counted = np.arange(12.0).reshape(1, 12), [0]

    def at_budget(k):  # the third budget ranks as the limit does
        counted[0] += 100 * 2**k
        return limit if k == 2 else -limit

    row = cheapest("a method", at_budget, limit, counted)
    assert row["reached"] and row["spearman"] == "1.0000" and row["evaluations"] == 400
    assert not cheapest("never", lambda k: -limit, limit, counted)["reached"]
    assert not cheapest("no greater budget", lambda k: (-limit,)[k], limit, counted)["reached"]
