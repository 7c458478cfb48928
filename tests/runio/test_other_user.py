"""What an ordinary user may not read or write, and a read-only disk, is one line and status 2; a clock may go back.

Containers run tests as root, who may do everything: one process without those rights (setpriv) makes all the attempts.
On a disk that is mounted read-only (unshare, mount) root may not write either.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from example_runs import write_run
from synthetic import dataset, write

from runio.folder import FolderInUse, RunFolder, new_folder, unique_folder

ROOT = Path(__file__).parents[2]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
ATTEMPTS = r"""
import contextlib, io, json, sys
sys.path.insert(0, sys.argv[1])
import runfile
answers = {}
for name, argv in json.load(sys.stdin).items():
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            if argv[0] == "report":
                import report.__main__
                status = report.__main__.main(argv[1:])
            else:
                status = runfile.main(argv)
        except SystemExit as end:
            status = end.code
        except BaseException as failure:
            status = repr(failure)
    answers[name] = status, error.getvalue()
print(json.dumps(answers))
"""
CASES = {  # words of the command line, piece of the line
    "a folder below a read-only one": (["--output", "root/out"], "root/out: not usable for results (Permission denied"),
    "a read-only folder": (["--output", "root"], "root: not usable for results (Permission denied"),
    "a new folder below a read-only one": ([], "root: no folder can be made here (Permission denied"),
    "finished results of another user": (["--output", "run", "--overwrite"], "run: not usable for results"),
    "another user's lock": (["--output", "locked"], "locked: not usable for results (Permission denied"),
    "unreadable settings": (["--config", "hidden.yaml"], "hidden.yaml: cannot be read (Permission denied)"),
    "unreadable data": (["--config", "of_hidden_data.yaml"], "hidden.h5: cannot be read (Permission denied)"),
    "data in an unreadable folder": (["--config", "of_hidden_folder.yaml"], "Permission denied"),
    "an unreadable observation": (["--apply", "run", "--observation", "hidden.csv"], "hidden.csv: cannot be read"),
    "an unreadable run": (["--apply", "hidden", "--observation", "seen.csv"], "Permission denied"),
    "unreadable results": (["--apply", "hidden_results", "--observation", "seen.csv"], "Permission denied"),
    "an unreadable planet": (["--planet", "hidden.yaml", "--observation", "seen.csv"], "hidden.yaml: cannot be read"),
    "a survey below a read-only folder": (
        ["--planet", "planet.yaml", "--observation", "wide.csv", "--output", "root/x"],
        "root/x: not usable for results (Permission denied",
    ),
}  # fmt: skip


def attempt(user, place, asked):
    """Run the command lines ``asked``, by name, in the folder ``place`` and in one process that ``user`` starts."""
    return subprocess.run(
        [*user, sys.executable, "-B", "-c", ATTEMPTS, str(ROOT)],
        input=json.dumps(asked), capture_output=True, text=True, cwd=place,
    )  # fmt: skip


@pytest.fixture(scope="module")
def answers():
    """Status and stderr of every attempt, made by a user without rights."""
    python = [*NOBODY, sys.executable, "-c", ""]
    if shutil.which("setpriv") is None or subprocess.run(python, capture_output=True).returncode:
        pytest.skip("needs setpriv, the right to become another user, and a Python that this user can start")
    place = Path(tempfile.mkdtemp(prefix="other_user_"))  # pytest's own folders are closed to others
    try:
        place.chmod(0o755)
        data = write(place / "data.h5", dataset(n=60))
        shutil.copy(data, place / "hidden.h5")
        settings = "data: {{path: {}}}\nmodel: {{name: mlp, mlp: {{units: [8]}}}}\noutput: root\n"
        files = {"config": data, "of_hidden_data": "hidden.h5", "of_hidden_folder": "closed/data.h5"}
        for name, path in files.items():
            (place / f"{name}.yaml").write_text(settings.format(path))
        (place / "seen.csv").write_text("wavelength,depth,error\n1,0.01,1e-5\n2,0.01,1e-5\n")
        (place / "wide.csv").write_text("wavelength,full_width,depth,error\n1,0.1,0.021,5e-5\n2,0.1,0.021,5e-5\n")
        (place / "planet.yaml").write_text(
            "star: {radius: 0.8, temperature: 5000}\nmolecules: {H2O: [1.0e-6, 1.0e-2]}\n"
            "planet: {mass: [0.5, 2], radius: [0.9, 1.2], temperature: [800, 1500]}\n"
        )
        for name in ("root", "closed", "locked"):
            (place / name).mkdir()
        shutil.copy(data, place / "closed/data.h5")
        (place / "locked/.lock").touch(mode=0o600)
        (place / "locked").chmod(0o777)
        for name in ("run", "hidden", "hidden_results"):
            write_run(place / name, n_amps=3, n_bins=5, n_folds=1, n_test=20)
        for name in ("hidden.yaml", "hidden.csv"):
            (place / name).touch()
        for name in ("hidden.h5", "hidden.yaml", "hidden.csv", "closed", "hidden", "hidden_results/results.h5"):
            (place / name).chmod(0)
        asked = {
            name: argv if "--config" in argv else ["--config", "config.yaml", *argv]
            for name, (argv, _) in CASES.items()
        }
        done = attempt(NOBODY, place, asked)
        if "ModuleNotFoundError" in done.stderr or "Permission denied" in done.stderr:
            pytest.skip("the repository, or Python, is closed to other users")
        assert done.returncode == 0, done.stderr
        left = sorted(path.name for path in (place / "root").iterdir())
        yield {**json.loads(done.stdout), "left": left}
    finally:
        shutil.rmtree(place)


@pytest.mark.parametrize("name", CASES)
def test_what_a_user_may_not_touch_is_one_line(answers, name):
    if name.startswith("a survey"):
        pytest.importorskip("taurex")
    status, error = answers[name]
    lines = [line for line in error.splitlines() if not line.startswith("warning: ")]
    assert status == 2 and len(lines) == 1, error
    assert CASES[name][1] in lines[0] and "Traceback" not in error
    assert answers["left"] == []


# --- a read-only disk ---

MOUNTED = ["unshare", "-m", "sh", "-c", 'mount --bind disk disk && mount -o remount,ro,bind disk && exec "$@"', "sh"]
READ_ONLY = "(Read-only file system"
ON_DISK = {  # words of the command line, piece of the line
    "an output": (["--output", "disk/out"], f"disk/out: not usable for results {READ_ONLY}"),
    "an output that is there": (["--output", "disk/empty"], f"disk/empty: not usable for results {READ_ONLY}"),
    "an output of the settings": ([], f"disk: no folder can be made here {READ_ONLY}"),
    "finished results": (["--output", "disk/run", "--overwrite"], f"disk/run: not usable for results {READ_ONLY}"),
    "answers": (["--apply", "disk/run", "--observation", "seen.csv"], f"applied: not usable for results {READ_ONLY}"),
    "answers elsewhere": (
        ["--apply", "disk/run", "--observation", "seen.csv", "--output", "disk/answers"],
        f"disk/answers: not usable for results {READ_ONLY}",
    ),
    "a report": (["report", "disk/run"], "Read-only file system"),
}  # fmt: skip


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    """Status and stderr of every attempt on a disk that is mounted read-only, and the files there before and after."""
    place = tmp_path_factory.mktemp("mounted")
    (place / "disk/empty").mkdir(parents=True)
    if shutil.which("unshare") is None or subprocess.run([*MOUNTED, "true"], cwd=place, capture_output=True).returncode:
        pytest.skip("needs unshare and mount, and the right to mount")
    write(place / "data.h5", dataset(n=60))
    (place / "config.yaml").write_text("data: {path: data.h5}\nmodel: {name: mlp, mlp: {units: [8]}}\noutput: disk\n")
    write_run(place / "disk/run", n_amps=3, n_bins=5, n_folds=1, n_test=20)
    rows = "".join(f"{wavelength},0.015,3e-5\n" for wavelength in np.geomspace(0.55, 7.5, 5))
    (place / "seen.csv").write_text("wavelength,depth,error\n" + rows)
    before = sorted((place / "disk").rglob("*"))
    asked = {
        name: argv if argv[:1] == ["report"] else ["--config", "config.yaml", *argv]
        for name, (argv, _) in ON_DISK.items()
    }
    done = attempt(MOUNTED, place, asked)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "unchanged": sorted((place / "disk").rglob("*")) == before}


@pytest.mark.parametrize("name", ON_DISK)
def test_a_disk_that_is_mounted_read_only_is_one_line(on_disk, name):
    status, error = on_disk[name]
    lines = [line for line in error.splitlines() if not line.startswith("warning: ")]
    assert status == 2 and len(lines) == 1, error
    assert ON_DISK[name][1] in lines[0] and "Traceback" not in error
    assert on_disk["unchanged"]


# --- a clock that goes back ---


@pytest.fixture
def clock(monkeypatch):
    """Set the clock an hour back whenever it is asked."""

    class Clock(datetime):
        hours = 0

        @classmethod
        def now(cls, tz=None):
            cls.hours += 1
            return datetime(2026, 3, 1, 2) - timedelta(hours=cls.hours)

    monkeypatch.setattr("runio.folder.datetime", Clock)
    monkeypatch.setattr("time.time", lambda: Clock.now().timestamp())


def test_folders_stay_apart_and_locks_hold_when_the_clock_goes_back(tmp_path, clock):
    made = [new_folder(tmp_path, "mlp") for _ in range(4)] + [unique_folder(tmp_path, "planet") for _ in range(2)]
    assert len(set(made)) == 6 and made[0].name == "mlp_2026-03-01_001" and made[1].name == "mlp_2026-03-01_002"
    assert made[2].name == "mlp_2026-02-28_001"  # the day before
    lock = made[0] / ".lock"
    lock.write_text("process 1 on here since 2099-01-01 00:00:00\n")  # left by a dead process, in the future
    with RunFolder(made[0], {"seed": 1}) as folder:
        assert "2099" not in lock.read_text()
        with pytest.raises(FolderInUse), RunFolder(made[0], {"seed": 1}, resume=True):
            pass
        (folder.work / "half").write_text("work")
    with RunFolder(made[0], {"seed": 1}, resume=True) as folder:
        assert folder.resumed and (folder.work / "half").is_file()
        (folder.work / "results.h5").write_text("all")
        folder.finish()
    with RunFolder(made[0], {"seed": 1}, resume=True) as folder:
        assert folder.finished
    assert not lock.exists()


OUTSIDE = ("benchmarks", "tests")


def test_no_wait_is_measured_by_a_clock_that_can_go_back():
    files = [path for path in [*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/*.py")] if path.parent.name not in OUTSIDE]
    assert len(files) > 50
    assert not [
        path.name for path in files if re.search(r"\btime\.time\(|from time import .*\btime\b", path.read_text())
    ]
