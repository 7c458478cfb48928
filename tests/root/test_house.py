"""The house stays in order: five modules at the root, and imports that run one way (see CONTRIBUTING.md)."""

import ast
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AT_THE_ROOT = {"runfile", "sensitivity", "models", "preprocessing", "constants"}
ROOMS = AT_THE_ROOT | {
    "perturbation", "loaders", "pipeline", "simulation", "observation", "report",
    "runio", "common", "studies", "benchmarks",
}  # fmt: skip


def modules():
    """Yield (room, path) of every module of the project, tests left out."""
    for path in sorted([*ROOT.glob("*.py"), *ROOT.glob("[a-z]*/*.py")]):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room != "tests":
            yield room, path


def imports(path):
    """Return (line, dotted name) of every import in a file, wherever it stands."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, name.name) for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.lineno, node.module))
    return found


def test_the_root_holds_the_five_modules_and_no_other():
    assert {path.stem for path in ROOT.glob("*.py")} == AT_THE_ROOT


def test_every_module_is_in_a_room_and_nothing_imports_the_commands_of_the_root_or_the_studies():
    assert {room for room, _ in modules()} == ROOMS
    upward = []
    for room, path in modules():
        for line, name in imports(path):
            other = name.split(".")[0]
            if other in {"runfile", "studies", "benchmarks"} and other != room:
                upward.append(f"{path.relative_to(ROOT)}:{line}: {room} imports {name}")
    assert not [line for line in upward if not line.startswith(("studies", "benchmarks"))]


@pytest.mark.parametrize("room", ["sensitivity", "perturbation"])
def test_the_sensitivity_test_needs_numpy_alone(room):
    allowed = {"numpy", "perturbation", "sensitivity"}
    allowed |= {"tqdm", "h5py", "matplotlib", "pandas", "xarray", "keras"}  # inside the function that is asked for them
    for name, path in modules():
        if name == room:
            foreign = {other.split(".")[0] for _, other in imports(path)} - allowed
            assert foreign <= set(__import__("sys").stdlib_module_names), (path.name, foreign)


def test_every_requirement_promises_a_lowest_version_for_the_nightly_script():
    for name in ("requirements.txt", "requirements-test.txt"):
        lines = [line for line in (ROOT / name).read_text().splitlines() if line[0] not in "#-"]
        assert [line for line in lines if not re.fullmatch(r"[\w\[\]-]+>=[\d.]+", line)] == []
    assert os.access(ROOT / ".ci" / "lowest", os.X_OK)
