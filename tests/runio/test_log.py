"""What the environment does to a run, and what a run says when it is stopped or short of memory."""

import csv
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import runfile
from common.files import csv_text
from runio import results

ROOT = Path(runfile.__file__).parent


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_with_one_line_and_its_status(monkeypatch, capsys, hears_signals, number, status):
    monkeypatch.setattr(runfile, "read_settings", lambda arguments: os.kill(os.getpid(), number))
    assert runfile.main([]) == status
    assert capsys.readouterr().err == f"error: {'interrupted' if status == 130 else 'terminated'}\n"


def test_a_library_that_does_not_fit_in_memory_is_said_to(monkeypatch, capsys):
    def load(arguments):
        raise ImportError("libtensorflow.so: failed to map segment from shared object")

    monkeypatch.setattr(runfile, "read_settings", load)
    assert runfile.main([]) == 1
    assert "not enough memory to load a library (libtensorflow.so" in capsys.readouterr().err


def test_warnings_of_libraries_are_no_errors_whatever_the_environment_says():
    code = "import os, warnings, runio.log; runio.log.check_environment(); warnings.warn('old', DeprecationWarning)"
    code += "; print('PYTHONWARNINGS' in os.environ)"
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "False\n"), found.stderr


def test_names_that_a_spreadsheet_would_take_for_a_formula_are_quoted(tmp_path):
    names = ["=1+1", "+H2O", "-CO", "@SUM(A1)", "H2O", "a=b", "C/O"]
    assert [csv_text(name) for name in names] == ["'=1+1", "'+H2O", "'-CO", "'@SUM(A1)", "H2O", "a=b", "C/O"]
    results._write_scores(tmp_path / "R2.csv", names, {0: np.ones(7), 1: np.zeros(7)})
    head, *rows = csv.reader(io.StringIO((tmp_path / "R2.csv").read_text()))
    assert head == ["fold", *map(csv_text, names)] and [row[0] for row in rows] == ["0", "1", "mean"]
    assert float(rows[2][1]) == 0.5
