"""A stream that the shell closed, or whose reader has gone, changes neither the status nor any file."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import configured, dataset

import runfile
from pipeline import cluster
from runio.log import InputError

ROOT = Path(runfile.__file__).parent
WORK = """
import logging, sys
from runio.log import RunLog, open_standard_streams, quiet_stderr
open_standard_streams()
with RunLog() as log:
    file = open("mine.txt", "w")  # it would take the number of a closed stream
    for _ in range(2000):  # more than a pipe holds
        logging.getLogger("runfile").info("x" * 99)
        logging.getLogger("runfile").error("y" * 99)
    with quiet_stderr():
        print("z", file=sys.stderr)
    file.close()
sys.exit(7 if open("mine.txt").read() == "" else 1)
"""


def shell(words, python, place):
    """Run words of a shell in which ``$0 "$@"`` is Python; return the status of Python."""
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words}", sys.executable, *python],
        capture_output=True, text=True, cwd=place, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.parametrize(
    "words", ['"$0" "$@" 2>&-', '"$0" "$@" >&-', '"$0" "$@" <&- >&- 2>&-', '"$0" "$@" 2>&1 | true']
)
def test_work_goes_on_without_streams_and_no_message_lands_in_a_file(tmp_path, words):
    ended = shell(words, ["-c", WORK], tmp_path)
    assert ended.returncode == 7, ended.stderr
    assert "Traceback" not in ended.stderr and (tmp_path / "mine.txt").read_text() == ""


@pytest.mark.parametrize("words", ['"$0" "$@" 2>&-', '"$0" "$@" >&- 2>&-'])
def test_refusal_has_its_status_though_nobody_hears_it(tmp_path, words):
    ended = shell(words, [ROOT / "runfile.py", "--config", "none.yaml"], tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--overwrite", "--resume", None])
def test_workers_that_do_not_answer_leave_the_folder_as_it_was(tmp_path, monkeypatch, capsys, flag):
    @contextlib.contextmanager
    def none(address):
        raise InputError("--scheduler: no workers")
        yield

    out = tmp_path / "out"
    if flag:
        (out / ".unfinished").mkdir(parents=True)
        (out / ".unfinished/config.yaml").write_text("seed: 0\n")
        (out / "results.h5").write_text("old")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    config = configured(tmp_path, dataset(n=60))
    monkeypatch.setattr(cluster, "open_scheduler", none)
    argv = ["--config", config, "--output", str(out), "--scheduler", "local:2", *([flag] if flag else [])]
    assert runfile.main(argv) == 2
    assert capsys.readouterr().err.strip() == "error: --scheduler: no workers"
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert out.exists() == bool(flag)
