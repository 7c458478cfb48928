"""The folder of --planet belongs to one set of inputs: no mixture of two studies is ever passed off as one.

The three steps are stood for by small ones that leave a note of what they were made from, and die where they are told.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

import runfile
from observation.planet import settings_for
from pipeline.folds import NO_RESULT
from runio.config import load_config
from runio.folder import RunFolder

PLANET = {
    "name": "X b",
    "star": {"radius": 0.8, "temperature": 5000},
    "planet": {"mass": [0.5, 2], "radius": [0.9, 1.2], "temperature": [800, 1500]},
    "molecules": {"H2O": [1.0e-6, 1.0e-2]},
}
WIDER = {**PLANET, "molecules": {"H2O": [1.0e-9, 1.0e-2]}}
N = 10


class Killed(BaseException):
    """Stands for a signal: nothing in the code catches it."""


class Steps:
    """Stands for simulating, training and applying; ``kill`` names the step that dies, ``then`` is done within it."""

    def __init__(self, monkeypatch):
        self.kill, self.during = None, lambda: None
        monkeypatch.setattr("simulation.survey.simulate", self.simulate)
        monkeypatch.setattr("runfile.run", self.run)
        monkeypatch.setattr("observation.apply.apply_run", self.apply)

    def die(self, step):
        if self.kill == step:
            raise Killed

    def simulate(self, n, seed, out, design, **_):
        parts = Path(f"{out}.parts")
        parts.mkdir(exist_ok=True)
        chunk = parts / "0000000-0000010.npz"
        if not chunk.exists() or design.identity() not in chunk.read_text():
            chunk.write_text(design.identity())
        self.die("survey")
        with h5py.File(out, "w") as file:
            file.attrs.update({"seed": seed, "priors": "", "star": "", "noise": "", "design": chunk.read_text()})
            for name in ("spectra", "errors", "amps"):
                file[name] = np.zeros(n)
        shutil.rmtree(parts)

    def run(self, config, arguments, command, log, study):
        with h5py.File(config.data.path) as file:
            made_from = str(file.attrs["design"])
        settings = {**config.to_dict(), "data_sha256": made_from, "study": study}
        self.during()
        with RunFolder(arguments.output, settings, arguments.overwrite, arguments.resume, NO_RESULT) as folder:
            if not folder.finished:
                self.die("training")
                (folder.work / "results.h5").write_text(made_from)
                folder.finish()

    def apply(self, run, observation, config, auxiliary, output, quiet, overwrite, study):
        rules = {"marker": "amps.csv", "names": planet_files(), "resumable": False}
        with RunFolder(output, {"study": study}, overwrite, **rules) as folder:
            self.die("estimate")
            found = {"run": (Path(run) / "results.h5").read_text(), "observation": Path(observation.name).read_text()}
            (folder.work / "amps.csv").write_text(json.dumps(found))
            folder.finish()


def planet_files():
    from observation.apply import FILES

    return FILES


class Place:
    """A folder with an observation and a planet file, and the commands that are given there."""

    def __init__(self, folder):
        self.folder, self.study = folder, folder / "study"
        self.observe(2100.0)
        self.plan(PLANET)

    def observe(self, depth):
        rows = [f"{w},0.1,{depth + 100 * w},50" for w in (1.0, 1.1, 1.2)]
        self.observation = self.folder / "seen.csv"
        self.observation.write_text("\n".join(["wavelength[um],full_width,depth[ppm],error[ppm]", *rows]))

    def plan(self, tree):
        (self.folder / "planet.yaml").write_text(yaml.safe_dump(tree))

    def command(self, *flags, study=None):
        argv = ["--observation", self.observation, "--planet", self.folder / "planet.yaml", "--n", N, "--quiet"]
        return runfile.main(list(map(str, [*argv, "--output", study or self.study, *flags])))

    def killed(self, steps, step, *flags):
        steps.kill = step
        with pytest.raises(Killed):
            self.command(*flags)
        steps.kill = None

    def estimate(self):
        """Return what the estimate was made from, and what it has to be made from."""
        from simulation.design import survey_design

        wanted = survey_design(self.observation, self.folder / "planet.yaml").identity()
        found = json.loads((self.study / "answer/amps.csv").read_text())
        return found, {"run": wanted, "observation": self.observation.read_text()}


@pytest.fixture
def steps(monkeypatch):
    return Steps(monkeypatch)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_the_observation_of_a_study_has_the_name_of_its_planet(place):
    from simulation.design import seen_and_design

    assert seen_and_design(place.observation, place.folder / "planet.yaml")[0].planet == "X b"


def files_of(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("step", ["survey", "training", "estimate"])
@pytest.mark.parametrize("times", [1, 2])
def test_overwriting_that_was_killed_anywhere_goes_on_with_the_new_inputs(steps, place, step, times):
    assert place.command() == 0
    place.plan(WIDER)
    place.killed(steps, step, "--overwrite")
    for _ in range(times - 1):
        place.killed(steps, step, "--resume")
    assert place.command("--resume") == 0
    found, wanted = place.estimate()
    assert found == wanted


@pytest.mark.parametrize("step", ["survey", "training", "estimate"])
def test_a_study_that_was_killed_anywhere_keeps_what_is_finished(steps, place, step):
    place.killed(steps, step)
    before = files_of(place.study)
    assert place.command("--resume") == 0
    found, wanted = place.estimate()
    assert found == wanted
    after = files_of(place.study)
    kept = [path for path in before if path.name in ("survey.h5", "results.h5", "study.yaml")]
    assert kept and all(after[path] == before[path] for path in kept)


CHANGES = {  # what is different on resuming: (a change, flags, words of the refusal)
    "a newer reduction": (lambda place: place.observe(2200.0), [], "holds a study of another observation, "),
    "another planet file": (lambda place: place.plan(WIDER), [], "holds a study of another planet, "),
    "another seed": (lambda place: None, ["--seed", "7"], "seed = "),
    "another number of planets": (lambda place: None, ["--n", "12"], "n = 10, received 12"),
    "other settings": (lambda place: None, ["--epochs", "3"], "training.epochs = "),
    "no flag": (lambda place: None, None, "give --resume to continue with it or --overwrite to start again"),
}


@pytest.mark.parametrize("step", ["survey", "training", None])
@pytest.mark.parametrize("change", CHANGES)
def test_other_inputs_are_refused_and_touch_nothing(steps, place, change, step, capsys):
    place.killed(steps, step) if step else place.command()
    before = files_of(place.study)
    make, flags, words = CHANGES[change]
    make(place)
    os.utime(place.observation, (0, 0))  # times say nothing
    assert place.command(*(["--resume", *flags] if flags is not None else [])) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert files_of(place.study) == before


@pytest.mark.parametrize("flag", ["--overwrite", "--resume"])
def test_two_commands_at_once_do_not_mix(steps, place, flag, capsys):
    statuses = []

    def second():
        steps.during = lambda: None
        place.plan(WIDER)
        statuses.append(place.command(flag))
        place.plan(PLANET)

    steps.during = second
    assert place.command() == 0 and statuses == [2]
    assert "in use by process" in capsys.readouterr().err
    found, wanted = place.estimate()
    assert found == wanted


def test_a_finished_folder_is_finished_by_whatever_path_it_is_named(steps, place, monkeypatch, capsys):
    monkeypatch.chdir(place.folder)
    assert place.command(study="study") == 0
    before = files_of(place.study)
    shutil.move(place.study, place.folder / "moved")
    for name in (place.folder / "moved", "moved"):
        assert place.command("--resume", study=name) == 0
    assert {path.name: text for path, text in files_of(place.folder / "moved").items()} == {
        path.name: text for path, text in before.items()
    }


def test_an_observation_that_changes_while_the_networks_train_is_noticed(steps, place, capsys):
    steps.during = lambda: place.observe(2300.0)
    assert place.command() == 2
    assert "seen.csv: changed since this command was started" in capsys.readouterr().err
    assert not (place.study / "answer").exists()


def test_a_given_survey_is_used_if_it_is_the_right_one_and_nothing_else_is_adopted(steps, place, capsys):
    assert place.command() == 0
    survey = (place.study / "survey.h5").read_bytes()
    for name, made in {"right": "survey.h5", "wrong": "survey.h5", "old": "run"}.items():
        folder = place.folder / name
        folder.mkdir()
        shutil.copytree(place.study / made, folder / made) if name == "old" else (folder / made).write_bytes(survey)
    assert place.command("--resume", study=place.folder / "right") == 0
    assert (place.folder / "right/survey.h5").read_bytes() == survey
    place.plan(WIDER)
    for name, words in {"wrong": "of another observation or planet file", "old": "but no study.yaml"}.items():
        before = files_of(place.folder / name)
        assert place.command("--resume", study=place.folder / name) == 2
        assert words in capsys.readouterr().err and files_of(place.folder / name) == before


def test_overwrite_and_resume_exclude_each_other(place, capsys):
    assert place.command("--overwrite", "--resume") == 2
    assert "expected one of them, received both" in capsys.readouterr().err


def test_training_on_a_survey_is_not_told_the_units_of_the_observation():
    config = load_config(None, {"data.depth_unit": "ppm", "data.width": "half", "data.targets": ["H2O"]})
    own = settings_for(config, "x/survey.h5").data
    assert (own.path, own.format, own.depth_unit, own.width) == ("x/survey.h5", "hdf5", "auto", "auto")
    assert own.targets is None and config.data.depth_unit == "ppm"


SCRIPT = """
import multiprocessing
import runfile

status = runfile.main(["--config", "nowhere.yaml"])
print("status", status, flush=True)
if status == 2:
    worker = multiprocessing.get_context("spawn").Process(target=print, args=("worker",))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
"""


def test_a_script_without_a_main_guard_runs_once(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join([str(Path(runfile.__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines() == ["status 2", "status 0", "worker"], done.stderr
    assert done.stderr.count("error") == 1 and "nowhere.yaml" in done.stderr
