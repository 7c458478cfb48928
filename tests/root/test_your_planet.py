"""The commands of docs/your_planet.md are understood as they stand, and it stays a walk of two pages."""

import re
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


@pytest.mark.parametrize("name", ["your_planet.md", "your_planet_reference.md", "answer_errors.md"])
def test_links_and_figures_lead_somewhere(name):
    for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", (ROOT / "docs" / name).read_text(encoding="utf-8")):
        assert (ROOT / "docs" / link).exists(), link


def test_the_walk_is_two_pages():
    assert len(PAGE.split()) < 1150
