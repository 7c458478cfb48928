"""Runs that are killed, interrupted, starved of disk space or find damaged files: nothing lost, nothing silent.

"Equal" means bit for bit here: every number in results.h5, the score and history tables, and the weights of the
networks. That holds on one machine without a GPU. Most runs compile no step of the training, as that takes longer than
the training itself; those of the fixture ``compiled`` do, as every run of a user does.
"""

import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from processes import children, left_of
from synthetic import dataset, write

pytest.importorskip("tensorflow")

pytestmark = pytest.mark.slow

SETTINGS = """
data: {path: DATA}
model: {name: mlp, mlp: {units: [8], dropout: 0.2}}
training: {epochs: 3, batch_size: 32, copies: 2, cv: 2, lr: 0.01, processes: 1}
sensitivity: {no_spectra: 8, repeat: 20}
"""
RESULTS = {"config.yaml", "MSE.csv", "R2.csv", "results.h5", "report.html", "run.log", "figures", "manifest.json"}
RESULTS |= {"ensemble.keras"}
RESULTS |= {f"{kind}_{k}.{ending}" for k in (0, 1) for kind, ending in (("model", "keras"), ("history", "csv"))}
KILLS = 12  # the last three with true figures, the others with a quick one
REAL_KILLS = 2


class Runs:
    """Runs of one small configuration."""

    def __init__(self, place, warm):
        self.place, self.warm = place, warm
        write(place / "data.h5", dataset(n=80, n_bins=8, keys=("H2O", "CO2", "Tp")))
        (place / "settings.yaml").write_text(SETTINGS.replace("DATA", str(place / "data.h5")))

    def folder(self, name):
        return self.place / name / "out"

    def scratch(self, name):
        return self.place / "scratch" / name

    def begin(self, name, source):
        """Copy what a run that died left behind, to go on with as ``name``; return the folder."""
        return Path(shutil.copytree(source, self.folder(name), symlinks=True))

    def run(self, name, *flags, figures=False, eager=True, output=None, warnings=False, **options):
        """Run in ``folder(name)``; return the outcome, after checking what holds for every outcome."""
        folder = output or self.folder(name)
        argv = ["--config", self.place / "settings.yaml", "--output", folder, *flags]
        options |= {"watch": str(folder), "eager": eager, "quick_figures": not figures, "few_figures": figures}
        outcome = self.warm.run(argv, self.scratch(name), **options)
        assert "Traceback" not in outcome.stdout + outcome.stderr, outcome.stderr
        lines = [s for s in outcome.stderr.splitlines() if not (warnings and s.startswith("warning: "))]
        if outcome.status != -9:
            assert len(lines) == (outcome.status != 0), outcome.stderr
        return outcome


@pytest.fixture(scope="module")
def runs(tmp_path_factory, warm):
    return Runs(tmp_path_factory.mktemp("runs"), warm)


@pytest.fixture(scope="module")
def whole(runs):
    """Return the unbroken run: its outcome and its numbers."""
    outcome = runs.run("whole")
    assert outcome.status == 0
    return outcome, numbers(runs.folder("whole"))


def numbers(folder):
    """Return every number of a finished run as bytes, and check that nothing is left over or missing."""
    assert {p.name for p in folder.iterdir()} == RESULTS
    found = {name: (folder / name).read_bytes() for name in RESULTS if name.endswith(".csv")}
    with h5py.File(folder / "results.h5") as file:

        def visit(name, item):
            if isinstance(item, h5py.Dataset):
                found[f"results.h5/{name}"] = np.asarray(item[()]).tobytes()
            for key, value in item.attrs.items():
                found[f"results.h5/{name}@{key}"] = str(value)

        file.visititems(visit)
        for key, value in file.attrs.items():
            found[f"results.h5@{key}"] = str(value)
    for k in (0, 1):
        with (
            zipfile.ZipFile(folder / f"model_{k}.keras") as archive,
            archive.open("model.weights.h5") as member,
            h5py.File(member) as file,
        ):
            file.visititems(
                lambda name, item, k=k: (
                    found.update({f"model_{k}/{name}": item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
                )
            )
    return found


def assert_equal(folder, expected):
    found = numbers(folder)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_same_seed_gives_the_same_numbers_twice(runs, whole, copies):
    assert_equal(runs.folder("twice"), whole[1])
    assert any(name.startswith("model_1/") for name in whole[1]) and len(whole[1]) > 40


@pytest.fixture(scope="module")
def other_seed(runs):
    """Return the folder of a finished run of another seed."""
    assert runs.run("seed", "--seed", "5").status == 0
    return runs.folder("seed")


def test_another_seed_gives_other_numbers(whole, other_seed):
    found = numbers(other_seed)
    assert found["results.h5/fold_0/y_pred"] != whole[1]["results.h5/fold_0/y_pred"]


# kill -9


@pytest.fixture(scope="module")
def copies(runs, whole):
    """Copy the folder of a run before each of its changes on disk: what a run that dies there leaves behind."""
    outcome = runs.run("twice", copy_at=list(range(whole[0].changes + 1)))
    assert outcome.status == 0 and outcome.changes == whole[0].changes
    return {int(folder.name): folder for folder in runs.scratch("twice").iterdir() if folder.is_dir()}


def first_copy(copies, *names, epochs=0):
    """Return what a run leaves that dies as soon as it has these files, and so many epochs of its second fold."""
    for number in sorted(copies):
        work = copies[number] / ".unfinished"
        history = work / "history_1.csv"
        done = len(history.read_text().splitlines()) - 1 if history.is_file() else 0
        if work.is_dir() and {*names} <= {p.name for p in work.iterdir()} and done >= epochs:
            return copies[number]
    raise AssertionError(f"expected a moment with {names}")


@pytest.fixture(scope="module")
def deaths(runs, whole, copies):
    """Changes on disk, chosen at random, as (number, what a run that dies there leaves behind, quick figures)."""
    rng, changes = np.random.default_rng(20), whole[0].changes
    chosen = rng.choice(sorted(copies), KILLS - 3, replace=False)
    runs.begin("figures", first_copy(copies, "R2.csv"))
    drawing = runs.run("figures", "--resume", figures=True, copy_at=list(range(changes)))
    assert drawing.status == 0
    assert_equal(runs.folder("figures"), whole[1])
    with_figures = rng.choice(np.arange(1, drawing.changes // 2), 3, replace=False)  # then its files are moved
    quick = [(int(n), copies[n], True) for n in chosen]
    return quick + [(int(n), runs.scratch("figures") / str(n), False) for n in with_figures]


@pytest.fixture(scope="module")
def compiled(runs, copies):
    """Return the numbers of an unbroken run that compiles its steps, and what it leaves when it dies in training."""
    middle = int(first_copy(copies, "state_1.npz").name)
    assert runs.run("compiled", eager=False, copy_at=[middle]).status == 0
    return numbers(runs.folder("compiled")), runs.scratch("compiled") / str(middle)


@pytest.mark.parametrize("i", range(KILLS))
def test_run_killed_at_a_random_change_on_disk_is_resumed_to_the_same_numbers(runs, whole, deaths, i):
    change, place, quick = deaths[i]
    folder = runs.begin(f"kill {i}", place)
    left = {p.name for p in folder.iterdir()}
    assert "results.h5" not in left or left >= RESULTS, change
    resumed = runs.run(f"kill {i}", "--resume", figures=not quick)
    assert resumed.status == 0, (change, resumed.stderr)
    assert_equal(folder, whole[1])


@pytest.mark.parametrize("i", range(REAL_KILLS))
def test_what_a_killed_run_leaves_is_what_was_copied_from_a_run_that_went_on(runs, deaths, i):
    change, place, _ = deaths[i]
    assert runs.run(f"killed {i}", kill_at_change=change).status == -9
    found, expected = (contents(folder) for folder in (runs.folder(f"killed {i}"), place))
    assert found == expected


def contents(folder):
    """Return the files of a folder, hidden ones too, with their bytes: those that hold neither a time nor a process."""
    times = (".log", ".lock", ".keras", ".yaml", "manifest.json")  # the last has digests of the others
    found = {}
    for path in (p for p in folder.rglob("*") if p.is_file()):
        name = re.sub(r"\.part\d+-", ".part-", str(path.relative_to(folder)))
        found[name] = None if name.endswith(times) else path.read_bytes()
    return found


def test_run_that_compiles_its_steps_is_resumed_to_the_same_numbers(runs, compiled):
    whole, left = compiled
    folder = runs.begin("compiled again", left)
    assert "state_1.npz" in {p.name for p in (folder / ".unfinished").iterdir()}
    assert runs.run("compiled again", "--resume", eager=False).status == 0
    assert_equal(folder, whole)


def test_run_killed_again_and_again_still_ends_the_same(runs, whole):
    rng = np.random.default_rng(3)
    statuses = []
    while not statuses or statuses[-1] == -9:
        statuses.append(runs.run("again", "--resume", kill_at_change=int(rng.integers(20, 50))).status)
    assert statuses[-1] == 0 and len(statuses) > 2
    assert_equal(runs.folder("again"), whole[1])


def test_folds_side_by_side_end_when_their_run_is_killed_and_are_resumed(runs, compiled):
    before, settings = children(), runs.place / "side by side.yaml"
    settings.write_text((runs.place / "settings.yaml").read_text().replace("processes: 1", "processes: 2"))
    options = {"kill_at_open": "history_1.csv"}  # which the main process reads as soon as there is one
    assert runs.run("side by side", "--config", settings, **options).status == -9
    assert not left_of(children() - before)
    assert runs.run("side by side", "--resume", eager=False).status == 0
    assert_equal(runs.folder("side by side"), compiled[0])


def test_killed_run_does_less_on_resuming(runs, whole, copies):
    runs.begin("late", first_copy(copies, "R2.csv"))
    assert runs.run("late", "--resume").changes < 0.6 * whole[0].changes


def test_killed_overwriting_leaves_the_old_results_until_it_is_resumed(runs, whole, other_seed):
    runs.begin("over", other_seed)
    old = (runs.folder("over") / "results.h5").read_bytes()
    assert runs.run("over", "--overwrite", kill_at_change=20).status == -9
    assert (runs.folder("over") / "results.h5").read_bytes() == old
    refused = runs.run("over")
    assert refused.status == 2 and "--resume to continue it, --overwrite to start again" in refused.stderr
    refused = runs.run("over", "--resume", "--seed", "6")
    assert refused.status == 2 and "seed = 0, received 6" in refused.stderr
    assert (runs.folder("over") / "results.h5").read_bytes() == old
    assert runs.run("over", "--resume").status == 0
    assert_equal(runs.folder("over"), whole[1])


def test_finished_run_has_nothing_to_resume(runs, whole):
    again = runs.run("whole", "--resume")
    assert again.status == 0 and "already finished" in again.stdout
    assert_equal(runs.folder("whole"), whole[1])
    refused = runs.run("whole")
    assert refused.status == 2 and "holds finished results" in refused.stderr


@pytest.mark.parametrize("begun", ["state_0.npz", "sensitivity_0.h5"])
def test_ctrl_c_exits_130_and_the_run_is_resumed(runs, whole, copies, begun):
    name = f"ctrl-c {begun}"
    runs.begin(name, first_copy(copies, begun))
    stopped = runs.run(name, "--resume", interrupt_at_change=15)
    assert stopped.status == 130 and "--resume" in stopped.stderr
    assert runs.run(name, "--resume").status == 0
    assert_equal(runs.folder(name), whole[1])


# No space left


@pytest.mark.parametrize(
    ("name", "begun"),
    [("config.yaml", None), ("run.log", None), ("state_0.npz", None), ("history_1.csv", "model_0.keras"),
     ("results.h5", "R2.csv"), ("report.html", "R2.csv")],
)  # fmt: skip
def test_disk_full_at_one_file_is_one_clear_line_and_the_run_is_resumed(runs, whole, copies, name, begun):
    if begun:
        runs.begin(f"full {name}", first_copy(copies, begun))
    stopped = runs.run(f"full {name}", *(["--resume"] if begun else []), full_at=name)
    assert stopped.status == 1
    assert "No space left on device; make room there and continue with --resume" in stopped.stderr
    assert not (runs.folder(f"full {name}") / "results.h5").exists()
    assert runs.run(f"full {name}", "--resume").status == 0
    assert_equal(runs.folder(f"full {name}"), whole[1])


@pytest.mark.parametrize("size", [8, 64, 150])
def test_small_disk_is_one_clear_line_and_the_run_is_resumed_on_a_larger_one(runs, whole, size):
    disk = runs.place / f"disk {size}"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", disk]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can only be made by root")
    try:
        stopped = runs.run(f"disk {size}", output=disk / "out")
        assert stopped.status == 1
        assert "No space left on device; make room there and continue with --resume" in stopped.stderr
        assert not (disk / "out/results.h5").exists()
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        assert runs.run(f"disk {size}", "--resume", output=disk / "out").status == 0
        assert_equal(disk / "out", whole[1])
    finally:
        subprocess.run(["umount", disk], check=True)


def test_file_size_limit_is_one_clear_line(runs):
    stopped = runs.run("limit", file_limit=20_000)  # what a quota may do; met by HDF5 and Keras, not by Python
    assert stopped.status == 1 and "File too large; make room there and continue with --resume" in stopped.stderr


def test_disk_full_while_the_figures_are_drawn_is_one_clear_line(runs, whole, copies):
    runs.begin("full figures", first_copy(copies, "R2.csv"))
    stopped = runs.run("full figures", "--resume", full_at="loss_curves.pdf", figures=True)
    assert stopped.status == 1 and "No space left on device" in stopped.stderr
    assert runs.run("full figures", "--resume").status == 0
    assert_equal(runs.folder("full figures"), whole[1])


# Damaged files


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("state_1.npz", "cut"),
        ("state_1.npz", "noise"),
        ("history_1.csv", "cut"),
        ("history_1.csv", "empty"),
        ("model_0.keras", "cut"),
        ("model_0.keras", "empty"),
        ("sensitivity_0.h5", "cut"),
        ("sensitivity_0.h5", "noise"),
    ],
)
def test_damaged_file_of_an_unfinished_run_is_made_anew(runs, whole, copies, name, damage):
    folder = runs.begin(f"damaged {name} {damage}", first_copy(copies, "model_0.keras", name, epochs=2))
    path = folder / ".unfinished" / name
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "noise": bytes(range(256)) * 9, "empty": b""}[damage])
    resumed = runs.run(f"damaged {name} {damage}", "--resume", warnings=True)
    assert resumed.status == 0, resumed.stderr
    assert_equal(folder, whole[1])


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\nrubbish", None])
def test_damaged_results_are_never_taken_for_good_ones(runs, whole, tmp_path, content):
    from runio.results import load_run

    shutil.copytree(runs.folder("whole"), tmp_path / "out")
    path = tmp_path / "out/results.h5"
    path.write_bytes(path.read_bytes()[:9000] if content is None else content)
    with pytest.raises(ValueError, match="not the file that the run wrote"):
        load_run(tmp_path / "out")
    with pytest.raises(ValueError, match="not a readable results file"):
        load_run(tmp_path / "out", unverified=True)
    refused = runs.run("damaged results", output=tmp_path / "out")
    assert refused.status == 2 and "--overwrite" in refused.stderr
    begins = None if content is None else 8  # the change at which it ends: that one is made anew shows soon
    options = {"output": tmp_path / "out", "kill_at_change": begins, "warnings": True}
    again = runs.run("damaged results", "--overwrite", **options)
    if content is None:
        assert again.status == 0 and "kept as results.h5.kept" in again.stderr  # not as the run wrote it
        (tmp_path / "out/results.h5.kept").unlink()
        assert_equal(tmp_path / "out", whole[1])
    else:
        assert again.status == -9 and (tmp_path / "out/.unfinished").is_dir()


# Numbers that are no numbers


def test_loss_that_is_no_number_stops_the_run_with_advice(runs):
    settings = runs.place / "wild.yaml"
    wild = "lr: 1e30, clipnorm: null, schedule: plateau"  # the only schedule that does not limit the rate
    settings.write_text(SETTINGS.replace("DATA", str(runs.place / "data.h5")).replace("lr: 0.01", wild))
    stopped = runs.run("wild", "--config", settings)
    assert stopped.status == 1 and "try a lower learning rate than training.lr = 1e+30" in stopped.stderr
    assert not (runs.folder("wild") / "results.h5").exists()


def test_network_that_returns_nan_is_named_with_the_rows(runs, copies):
    runs.begin("nan", first_copy(copies, "model_1.keras"))
    stopped = runs.run("nan", "--resume", nan_model=True)
    assert stopped.status == 1 and "NaN" in stopped.stderr and "row" in stopped.stderr
    assert not (runs.folder("nan") / "results.h5").exists()
