"""The run folder: nothing lost, nothing mixed, one process at a time."""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from runio import folder
from runio.folder import RunFolder, RunFolderError, new_folder, unique_folder

ROOT = Path(folder.__file__).parents[1]
SETTINGS = {"seed": 3, "output": "runs", "training": {"lr": 1e-3, "units": [4, 5]}, "versions": {"numpy": "2.0"}}


def write_run(folder, label, folds=2):
    """Put the files of a run, and some scratch, into the work folder."""
    for name in ("results.h5", "MSE.csv", "R2.csv", "report.html", "run.log"):
        (folder.work / name).write_text(label)
    for k in range(folds):
        (folder.work / f"model_{k}.keras").write_text(label)
        (folder.work / f"history_{k}.csv").write_text(label)
    (folder.work / "last_0.keras").write_text("scratch")
    (folder.work / "figures").mkdir(exist_ok=True)
    (folder.work / "figures" / f"{label}.png").write_text(label)


def finished(path, label, folds=2, **flags):
    with RunFolder(path, {**SETTINGS, "label": label}, **flags) as folder:
        write_run(folder, label, folds)
        folder.finish()


def contents(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def assert_whole(path, label, folds=2):
    """Every result in ``path`` belongs to the run ``label``, and nothing else of a run is there."""
    found = contents(path)
    names = {"results.h5", "MSE.csv", "R2.csv", "report.html", "run.log", f"figures/{label}.png"}
    names |= {name for k in range(folds) for name in (f"model_{k}.keras", f"history_{k}.csv")}
    assert set(found) - {"mine.txt", "model_best.keras"} == names | {"config.yaml", "manifest.json"}
    assert all(found[name] == label.encode() for name in names)
    assert yaml.safe_load(found["config.yaml"])["label"] == label


def test_a_run_ends_with_its_results_in_the_folder_and_nothing_else(tmp_path):
    finished(tmp_path / "new" / "parents" / "run", "a")
    assert_whole(tmp_path / "new" / "parents" / "run", "a")
    assert not [p for p in (tmp_path / "new/parents/run").iterdir() if p.name.startswith(".")]


def test_settings_are_written_before_anything_else(tmp_path):
    with RunFolder(tmp_path, SETTINGS) as folder:
        assert yaml.safe_load((folder.work / "config.yaml").read_text()) == SETTINGS
        assert contents(tmp_path).keys() == {".lock", ".unfinished/config.yaml"}


def test_finished_results_are_refused_and_untouched(tmp_path):
    finished(tmp_path, "a")
    before = contents(tmp_path)
    with pytest.raises(RunFolderError, match=r"holds finished results.*--overwrite"), RunFolder(tmp_path, SETTINGS):
        pass
    assert contents(tmp_path) == before


def test_overwrite_replaces_all_old_results_and_no_other_file(tmp_path):
    finished(tmp_path, "a", folds=3)
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "model_best.keras").write_text("mine too")
    with RunFolder(tmp_path, {**SETTINGS, "label": "b"}, overwrite=True) as folder:
        write_run(folder, "b", folds=1)
        assert (tmp_path / "results.h5").read_text() == "a"  # until the new ones are complete
        folder.finish()
    assert_whole(tmp_path, "b", folds=1)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert (tmp_path / "model_best.keras").read_text() == "mine too"


def test_overwrite_removes_no_file_that_the_run_did_not_write(tmp_path, caplog):
    finished(tmp_path, "a")
    mine = {"figures/my.pdf": b"mine", "applied/planet/amps.csv": b"answers", "figures/deep/er.txt": b"mine"}
    for name, content in mine.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(content)
    finished(tmp_path, "b", overwrite=True)
    found = contents(tmp_path)
    assert {name: found.pop(name) for name in mine} == mine and "figures/a.png" not in found
    assert caplog.text == "" and found["figures/b.png"] == b"b"


def test_overwrite_keeps_and_names_what_was_changed_since_the_run_wrote_it(tmp_path, caplog):
    finished(tmp_path, "a")
    for name in ("figures/a.png", "report.html", "results.h5"):
        (tmp_path / name).write_text("edited")
    (tmp_path / "report.html.kept").write_text("kept before")
    finished(tmp_path, "b", overwrite=True)
    found = contents(tmp_path)
    kept = {"figures/a.png.kept", "report.html.kept2", "results.h5.kept"}
    assert {name for name in found if found[name] == b"edited"} == kept
    assert found["report.html.kept"] == b"kept before" and found["report.html"] == found["results.h5"] == b"b"
    assert all(f"kept as {Path(name).name}" in caplog.text for name in kept)


def test_overwrite_of_a_run_without_a_manifest_leaves_other_files_in_figures(tmp_path):
    finished(tmp_path, "a", folds=3)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "figures/b.png").write_text("mine")
    finished(tmp_path, "b", folds=1, overwrite=True)
    found = contents(tmp_path)
    assert found["figures/a.png"] == b"a" and found["figures/b.png.kept"] == b"mine" and found["figures/b.png"] == b"b"
    assert "model_1.keras" not in found and found["model_0.keras"] == b"b"


@pytest.mark.parametrize("place", ["outside.txt", "run/mine.txt"])
def test_manifest_that_names_files_of_others_removes_none(tmp_path, place):
    (tmp_path / "run").mkdir()
    (tmp_path / place).write_text("mine")
    finished(tmp_path / "run", "a")
    path = tmp_path / "run/manifest.json"
    names = json.loads(path.read_text())
    digest = hashlib.sha256(b"mine").hexdigest()
    more = ("../outside.txt", "figures/../../outside.txt", str(tmp_path / "outside.txt"), "mine.txt", "")
    names["sha256"].update(dict.fromkeys(more, digest))
    path.write_text(json.dumps(names))
    finished(tmp_path / "run", "b", overwrite=True)
    assert (tmp_path / place).read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"sha256": 3}', b"\xff", b"[" * 100_000, None])
def test_manifest_that_cannot_be_read_is_none(tmp_path, content):
    finished(tmp_path, "a")
    path = tmp_path / "manifest.json"
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    finished(tmp_path, "b", overwrite=True)
    assert contents(tmp_path)["results.h5"] == b"b"


@pytest.mark.parametrize("make", ["link", "file"])
def test_figures_that_are_no_folder_are_kept(tmp_path, make):
    finished(tmp_path / "run", "a")
    shutil.move(tmp_path / "run/figures", tmp_path / "elsewhere")
    figures = tmp_path / "run/figures"
    figures.symlink_to(tmp_path / "elsewhere") if make == "link" else figures.write_text("mine")
    finished(tmp_path / "run", "b", overwrite=True)
    assert (tmp_path / "elsewhere/a.png").read_text() == "a" and figures.is_dir()
    assert (tmp_path / "run/figures.kept").exists() and os.listdir(figures) == ["b.png"]


def test_work_that_cannot_be_resumed_leaves_nothing_when_it_fails(tmp_path):
    path = tmp_path / "answers"
    for leave in (False, True):  # a folder with something of the user's in it stays
        with pytest.raises(ZeroDivisionError), RunFolder(path, SETTINGS, marker="amps.csv", resumable=False) as folder:
            (folder.work / "amps.csv").write_text("half")
            if leave:
                (path / "mine.txt").write_text("mine")
            raise ZeroDivisionError
        assert path.exists() == leave
    assert contents(path) == {"mine.txt": b"mine"}
    (path / ".unfinished").mkdir()
    (path / ".unfinished/config.yaml").write_text("killed")
    with RunFolder(path, SETTINGS, marker="amps.csv", names=re.compile("amps.csv"), resumable=False) as folder:
        (folder.work / "amps.csv").write_text("whole")
        folder.finish()
    assert contents(path).keys() == {"mine.txt", "amps.csv"}


def test_files_that_are_no_results_of_a_run_are_never_replaced(tmp_path):
    (tmp_path / "config.yaml").write_text("mine")
    for flags in ({}, {"overwrite": True}, {"resume": True}):
        with (
            pytest.raises(RunFolderError, match=r"holds config\.yaml but no results"),
            RunFolder(tmp_path, {}, **flags),
        ):
            pass
    assert contents(tmp_path) == {"config.yaml": b"mine"}


def test_unfinished_run_is_refused_resumed_or_discarded(tmp_path):
    with RunFolder(tmp_path, SETTINGS) as folder:
        (folder.work / "model_0.keras").write_text("work")
    with pytest.raises(RunFolderError, match=r"unfinished run; --resume .* --overwrite"), RunFolder(tmp_path, SETTINGS):
        pass
    with RunFolder(tmp_path, SETTINGS, resume=True) as folder:
        assert folder.resumed and not folder.finished
        assert (folder.work / "model_0.keras").read_text() == "work"
    with RunFolder(tmp_path, SETTINGS, overwrite=True) as folder:
        assert not folder.resumed
        assert [p.name for p in folder.work.iterdir()] == ["config.yaml"]


def test_resume_on_finished_results_says_finished_and_changes_nothing(tmp_path):
    finished(tmp_path, "a")
    before = contents(tmp_path)
    with RunFolder(tmp_path, {**SETTINGS, "label": "a"}, resume=True) as folder:
        assert folder.finished and not folder.resumed
    assert contents(tmp_path) == before
    with (
        pytest.raises(RunFolderError, match="finished results with label = 'a', received 'b'"),
        RunFolder(tmp_path, {**SETTINGS, "label": "b"}, resume=True),
    ):
        pass


def test_resume_where_nothing_is_starts_a_new_run_and_logs_it(tmp_path, caplog):
    with caplog.at_level(logging.INFO), RunFolder(tmp_path / "run", SETTINGS, resume=True) as folder:
        assert not folder.resumed and not folder.finished
    assert "nothing to resume" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "seed = 3, received 4"),
        ({"training": {"lr": 2e-3, "units": [4, 5]}}, r"training\.lr = 0.001, received 0.002"),
        ({"training": {"lr": 1e-3, "units": [4, 6]}}, r"training\.units = \[4, 5\], received \[4, 6\]"),
        ({"training": {"lr": 1e-3}}, r"training\.units = \[4, 5\], received nothing"),
        ({"extra": 1}, "extra = nothing, received 1"),
        ({"seed": None}, "seed = 3, received None"),
    ],
)
def test_resume_with_other_settings_names_the_key_and_both_values(tmp_path, change, message):
    with RunFolder(tmp_path, SETTINGS):
        pass
    before = contents(tmp_path)
    with pytest.raises(RunFolderError, match=message), RunFolder(tmp_path, {**SETTINGS, **change}, resume=True):
        pass
    assert contents(tmp_path) == before


def test_resume_passes_over_ignored_keys_and_warns_of_versions(tmp_path, caplog):
    with RunFolder(tmp_path, SETTINGS):
        pass
    now = {**SETTINGS, "output": "elsewhere", "training": {"lr": 1.0, "units": [4, 5]}, "versions": {"numpy": "2.1"}}
    with RunFolder(tmp_path, now, resume=True, ignore=("output", "training.lr")) as folder:
        assert folder.resumed
    assert "numpy was '2.0' and is '2.1' now" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"- 1\n- 2", b"a: [", b"3"])
def test_unreadable_settings_of_an_unfinished_run_are_refused_clearly(tmp_path, content):
    with RunFolder(tmp_path, SETTINGS):
        pass
    (tmp_path / ".unfinished" / "config.yaml").write_bytes(content)
    with pytest.raises(RunFolderError, match="cannot be read; --overwrite"), RunFolder(tmp_path, SETTINGS, resume=True):
        pass
    with RunFolder(tmp_path, SETTINGS, overwrite=True):
        pass


def test_overwrite_with_resume_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="expected one of them, received both"):
        RunFolder(tmp_path / "run", SETTINGS, overwrite=True, resume=True)
    assert not (tmp_path / "run").exists()


def test_finish_without_results_is_refused(tmp_path):
    with RunFolder(tmp_path, SETTINGS) as folder, pytest.raises(RunFolderError, match="not finished"):
        folder.finish()
    assert (tmp_path / ".unfinished" / "config.yaml").exists()


# A kill in the middle of finish: die before the n-th change on disk, for every n.

CHANGES = ("replace", "mkdir", "unlink", "rmdir", "rename", "open")


class Killed(BaseException):
    pass


def die_at(monkeypatch, number):
    """Let the process 'die' at its ``number``-th change on disk from now on."""
    count = iter(range(1000))

    def wrap(change):
        def dying(*arguments, **keywords):
            if change is opened and not (arguments[1] & os.O_CREAT):
                return change(*arguments, **keywords)
            if next(count) == number:
                raise Killed
            return change(*arguments, **keywords)

        return dying

    opened = os.open
    for name in CHANGES:
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_death_anywhere_in_finish_leaves_old_or_none_and_the_next_start_completes_it(tmp_path, monkeypatch, flags):
    deaths = 0
    for number in range(1000):
        path = tmp_path / str(number)
        finished(path, "old", folds=3)
        (path / "mine.txt").write_text("mine")
        folder = RunFolder(path, {**SETTINGS, "label": "new"}, overwrite=True).__enter__()
        write_run(folder, "new", folds=1)
        with monkeypatch.context() as patch:
            die_at(patch, number)
            try:
                folder.finish()
                survived = True
            except Killed:
                survived = False
        os.close(folder._lock)  # what the kernel does; the lock file stays
        complete = any((path / ".unfinished" / name).exists() for name in ("COMPLETE", "MOVE"))
        if (path / "results.h5").exists():
            label = (path / "results.h5").read_text()
            for k in range({"old": 3, "new": 1}[label]):
                assert (path / f"model_{k}.keras").read_text() == label
        try:
            with RunFolder(path, {**SETTINGS, "label": "new"}, **flags) as folder:
                assert folder.finished or folder.resumed or flags.get("overwrite")
        except RunFolderError as error:
            assert not flags and ("finished results" in str(error) or "unfinished run" in str(error))
        if survived or complete:
            if not flags.get("overwrite"):
                assert_whole(path, "new", folds=1)
            assert (path / "results.h5").read_text() == "new"
        assert (path / "mine.txt").read_text() == "mine"
        assert not (path / ".replaced").exists()
        deaths += not survived
        if survived:
            break
    assert deaths > 15


@pytest.mark.parametrize("number", range(0, 12, 2))
def test_full_disk_in_finish_keeps_old_results_or_is_completed_later(tmp_path, monkeypatch, number):
    finished(tmp_path, "old")
    calls = iter(range(1000))
    replace, mkdir = os.replace, os.mkdir

    def full(call):
        def fails(*arguments, **keywords):
            if next(calls) >= number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*arguments, **keywords)

        return fails

    with RunFolder(tmp_path, {**SETTINGS, "label": "new"}, overwrite=True) as folder:
        write_run(folder, "new")
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(os, "replace", full(replace))
            patch.setattr(os, "mkdir", full(mkdir))
            folder.finish()
    with RunFolder(tmp_path, {**SETTINGS, "label": "new"}, resume=True) as folder:
        if not folder.finished:
            assert (tmp_path / "results.h5").read_text() == "old"
            folder.finish()
    assert_whole(tmp_path, "new")


def test_full_disk_at_the_start_is_one_clear_line_and_old_results_stay(tmp_path, monkeypatch):
    finished(tmp_path, "old")

    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with (
            pytest.raises(RuntimeError, match=r"No space left on device; make room there and continue"),
            RunFolder(tmp_path, SETTINGS, overwrite=True),
        ):
            pass
    assert_whole(tmp_path, "old")
    with RunFolder(tmp_path, SETTINGS, resume=False, overwrite=True):
        pass


def test_path_that_is_a_file_or_below_one_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunFolderError, match="not usable for results"), RunFolder(path, SETTINGS):
            pass
        with pytest.raises(RunFolderError, match="no folder can be made"):
            new_folder(path, "mlp")
    assert (tmp_path / "file").read_text() == "mine"


def test_read_only_folder_is_refused(tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):  # root may write anywhere, so modes would not do
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(RunFolderError, match="Permission denied"), RunFolder(tmp_path, SETTINGS):
        pass
    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(RunFolderError, match="Permission denied"):
        new_folder(tmp_path, "mlp")


HOLD = """
import sys, time
from runio.folder import RunFolder
with RunFolder(sys.argv[1], {"seed": 1}):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_second_run_is_refused_while_the_first_lives_and_free_to_go_on_once_it_died(tmp_path):
    first = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "locked\n"
        for flags in ({}, {"resume": True}, {"overwrite": True}):
            message = rf"in use by process {first.pid} on \S+ since 20.*--resume"
            with pytest.raises(RunFolderError, match=message), RunFolder(tmp_path, {"seed": 1}, **flags):
                pass
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
        first.stdout.close()
    assert (tmp_path / ".lock").exists()  # stale
    with RunFolder(tmp_path, {"seed": 1}, resume=True) as folder:
        assert folder.resumed
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\x00", b"process 1 on here since 2020-01-01 00:00:00\n", b"x" * 10**6]
)
def test_stale_or_corrupted_lock_file_never_blocks(tmp_path, content):
    (tmp_path / ".lock").write_bytes(content)
    with RunFolder(tmp_path, SETTINGS) as folder:
        if content[:7] in (b"", b"process"):  # else it is no lock file of a run, and not changed
            assert str(os.getpid()) in (tmp_path / ".lock").read_text()
        (tmp_path / ".lock").write_bytes(content)  # corrupted while it is held
        with pytest.raises(RunFolderError, match="in use by") as refusal, RunFolder(tmp_path, SETTINGS):
            pass
        assert len(str(refusal.value).splitlines()) == 1 and len(str(refusal.value)) < 1000
        assert folder.work.exists()
    with RunFolder(tmp_path, SETTINGS, resume=True):
        pass


def test_lock_file_deleted_by_its_owner_while_it_is_opened_is_taken_anew(tmp_path, monkeypatch):
    opened, times = os.open, []

    def open_then_lose(path, *arguments, **keywords):
        file = opened(path, *arguments, **keywords)
        if str(path).endswith(".lock") and not times:
            times.append(1)
            os.unlink(path)
        return file

    monkeypatch.setattr(os, "open", open_then_lose)
    with RunFolder(tmp_path, SETTINGS), pytest.raises(RunFolderError, match="in use"), RunFolder(tmp_path, SETTINGS):
        pass
    assert times


def test_file_system_without_locks_warns_and_goes_on(tmp_path, monkeypatch, caplog):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with RunFolder(tmp_path, SETTINGS):
        pass
    assert "has no locks" in caplog.text


def test_refused_start_leaves_no_lock(tmp_path):
    finished(tmp_path, "a")
    with pytest.raises(RunFolderError), RunFolder(tmp_path, SETTINGS):
        pass
    with RunFolder(tmp_path, SETTINGS, overwrite=True):
        pass


def test_new_folders_are_numbered_by_model_and_day(tmp_path):
    today = time.strftime("%Y-%m-%d")
    assert [new_folder(tmp_path / "runs", "mlp").name for _ in range(3)] == [f"mlp_{today}_00{n}" for n in (1, 2, 3)]
    assert new_folder(tmp_path / "runs", "cnn").name == f"cnn_{today}_001"
    (tmp_path / "runs" / f"mlp_{today}_003").rmdir()
    (tmp_path / "runs" / f"mlp_{today}_1200").mkdir()
    (tmp_path / "runs" / f"mlp_{today}_old").mkdir()
    assert new_folder(tmp_path / "runs", "mlp").name == f"mlp_{today}_1201"


def test_folders_of_one_name_are_numbered(tmp_path):
    names = [unique_folder(tmp_path / "applied", "planet").name for _ in range(3)]
    assert names == ["planet", "planet_2", "planet_3"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunFolderError, match="no folder can be made here"):
        unique_folder(tmp_path / "file", "planet")


def test_simultaneous_runs_get_a_folder_each(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: new_folder(tmp_path, "mlp"), range(64)))
    assert len(set(folders)) == 64
