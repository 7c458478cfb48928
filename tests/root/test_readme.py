"""What the README says can be typed works as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from runio.results import ARRAYS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("data/*.md"))]
OWN_MODEL = (ROOT / "docs/own_model.md").read_text(encoding="utf-8")

(FIRST,), OTHERS = (re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) for page in (README, OWN_MODEL))


@pytest.mark.parametrize("package, code", [("numpy", ""), *zip(("sklearn", "torch", "numpy"), OTHERS, strict=True)])
def test_python_examples_run(package, code):
    pytest.importorskip(package)
    shapes = {"result.mean": (9, 52), "published": (9, 52), "direction_map.mean": (9, 3)}
    shapes |= {f"{name}.mean": (9, 52) for name in re.findall(r"((?:sklearn|torch)_map) =", code)}
    ending = "".join(
        f"\nassert {name}.shape == {shape}" for name, shape in shapes.items() if name.split(".")[0] in FIRST + code
    )
    done = subprocess.run([sys.executable, "-c", FIRST + code + ending], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_ci_runs_the_test_command_of_the_readme():
    (command,) = re.findall(r"^    (.*-m pytest.*)$", README, flags=re.MULTILINE)
    assert command in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_tables_are_those_of_the_results_folder():
    table = ROOT / "studies/results/run_table.md"
    assert table.read_text(encoding="utf-8").strip() in README


def test_the_page_of_results_names_every_array():
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    names = {path.rpartition("/")[2] for path, *_ in ARRAYS if not path.endswith("+")}
    assert [name for name in names if f"`{name}`" not in page and f"{name}`" not in page] == []
