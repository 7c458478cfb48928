"""python -m studies: every measurement in order, going on where it was interrupted."""

import subprocess
import sys

import pytest

from studies.__main__ import ROOT, STEPS, Step, StepFailed, outstanding, run_step


def test_a_step_that_ended_well_is_not_run_again_until_its_commands_change(tmp_path):
    good, bad = Step("good", 0, "", ("-c 'print(1)'",)), Step("bad", 0, "", ("-c 'print(1)'", "-c 'exit(3)'"))
    run_step(good, tmp_path)
    with pytest.raises(StepFailed, match="bad: ended with status 3"):
        run_step(bad, tmp_path)
    assert outstanding([good, bad], tmp_path) == [bad]
    assert outstanding([Step("good", 0, "", ("-c 'print(2)'",))], tmp_path) != []
    assert "1" in (tmp_path / "bad.log").read_text(encoding="utf-8").splitlines()


def test_every_command_names_a_script_that_is_there():
    for command in (command for step in STEPS for command in step.commands):
        first, second = [*command.split(), ""][:2]
        path = f"{second.replace('.', '/')}.py" if first == "-m" else first
        assert (ROOT / path).is_file(), command


def test_every_step_has_a_name_of_its_own():
    assert len({step.name for step in STEPS}) == len(STEPS)


def test_a_step_waits_for_one_that_began_before_it():
    began = []
    for step in STEPS:
        assert not step.after or step.after in began, step.name
        began += [step.name] if step.beside else []


def test_the_list_is_printed_and_nothing_is_run(tmp_path):
    command = [sys.executable, "-m", "studies", "--list", "--work", str(tmp_path / "work")]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(step.name in shown for step in STEPS)
    assert not (tmp_path / "work").exists()
