"""The scripts behind the tables run, in their quick form, and write what they say."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def call(script, *arguments):
    """Run a benchmark; return what it printed."""
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_sensitivity_benchmark(tmp_path):
    printed = call("bench_sensitivity.py", "--quick", "--models", "mlp", "--output", tmp_path)
    _, *lines = (tmp_path / "sensitivity_mlp_quick.csv").read_text().splitlines()
    (row,) = csv.DictReader(lines)
    assert row["network"] == "mlp" and f"| mlp | {row['map_s']} |" in printed
    assert float(row["ratio"]) > 0 and float(row["factor"]) > 1
