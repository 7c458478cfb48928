"""Five modules at the root, packages for the rest, and imports without circles (see CONTRIBUTING.md)."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

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


def imports(path, inside_functions=True):
    """Return (line, dotted name) of every import in a file; without those in functions, what runs on import."""
    found, nodes = [], [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found += [(node.lineno, name.name) for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.lineno, node.module), *((node.lineno, f"{node.module}.{n.name}") for n in node.names)]
        if inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes += ast.iter_child_nodes(node)
    return found


def test_the_root_holds_the_five_modules_and_no_other():
    assert {path.stem for path in ROOT.glob("*.py")} == AT_THE_ROOT


def test_every_module_is_in_a_package_and_nothing_imports_commands_studies_or_benchmarks():
    assert {room for room, _ in modules()} == ROOMS
    for room, path in modules():
        for line, name in imports(path):
            other = name.split(".")[0]
            assert (
                other == room or other not in {"runfile", "studies", "benchmarks"} or room in {"studies", "benchmarks"}
            ), f"{path.relative_to(ROOT)}:{line} imports {name}"


def test_what_all_may_use_uses_nothing_but_itself():
    for room, path in modules():
        if room in ("common", "constants", "perturbation", "sensitivity"):
            allowed = {"common"} if room == "common" else {"perturbation", "sensitivity"}
            others = {name.split(".")[0] for _, name in imports(path)} & ROOMS
            assert others <= allowed, path


def test_no_modules_import_each_other_in_a_circle():
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for _, path in modules()
    }
    graph = {name: {other for _, other in imports(path, False)} & set(names) - {name} for name, path in names.items()}
    while graph:
        last = {name for name, others in graph.items() if not others & set(graph)}
        assert last, f"in a circle, or importing one: {sorted(graph)}"
        graph = {name: others for name, others in graph.items() if name not in last}


def test_the_sensitivity_test_imports_numpy_alone(tmp_path):
    """From a folder with modules of its own of these names, as a notebook's may have."""
    for name in ("constants", "models", "report"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('a module of the user')")
    code = f"import sys; sys.path.append({str(ROOT)!r}); import numpy; before = set(sys.modules); import sensitivity\n"
    code += "print(*{name.split('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) - {"numpy"} == {"sensitivity", "perturbation"}


def test_every_requirement_has_a_lowest_version_for_the_nightly_script():
    for name in ("requirements.txt", "requirements-test.txt"):
        lines = [line for line in (ROOT / name).read_text().splitlines() if line[0] not in "#-"]
        assert [line for line in lines if not re.fullmatch(r"[\w\[\]-]+>=[\d.]+", line)] == []
    assert os.access(ROOT / ".ci" / "lowest", os.X_OK)
