"""The scripts behind the tables run, in their quick form, and write what they say."""

import csv
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
def test_sensitivity_benchmark(tmp_path, warm):
    arguments = ["--quick", "--models", "mlp", "--output", tmp_path]
    done = warm.script(BENCHMARKS / "bench_sensitivity.py", arguments, tmp_path / "output", fork_workers=True)
    assert done.status == 0, done.stderr[-3000:]
    _, *lines = (tmp_path / "sensitivity_mlp_quick.csv").read_text().splitlines()
    (row,) = csv.DictReader(lines)
    assert row["network"] == "mlp" and f"| mlp | {row['map_s']} |" in done.stdout
    assert float(row["ratio"]) > 0 and float(row["factor"]) > 1
