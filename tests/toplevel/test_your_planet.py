"""The commands of docs/your_planet.md are understood as they stand."""

import shlex
from pathlib import Path

import pytest

import runfile
from benchmarks.walk import commands, resized

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/your_planet.md").read_text(encoding="utf-8")
COMMANDS = commands(PAGE)


def test_the_page_shows_the_one_command_and_the_three():
    scripts = [command.split()[1] for command in COMMANDS if command.startswith("python")]
    assert scripts == ["runfile.py", "-m", "runfile.py", "runfile.py"]


@pytest.mark.parametrize("command", [command for command in COMMANDS if "runfile.py" in command])
def test_flags_of_the_page_exist_and_what_is_shipped_is_there(command):
    for one in (command, resized(command, 300, 3)):
        arguments = runfile.parse_arguments(shlex.split(one)[2:])
        for name in (arguments.observation, arguments.planet):
            assert name is None or (ROOT / name).is_file()
    assert arguments.n == 300 or not arguments.planet
