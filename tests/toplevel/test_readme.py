"""What the README says can be typed works as it stands."""

import os
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
SHAPES = {"result.mean": (9, 52), "published": (9, 52), "sklearn_map.mean": (9, 52), "torch_map.mean": (9, 52),
          "distribution_map.mean": (18, 52), "direction_map.mean": (9, 3)}  # fmt: skip


def run_example(code, folder):
    """Run the example of the README and ``code`` in a folder that has the data, and check the shapes of the maps."""
    (folder / "data").symlink_to(ROOT / "data")
    ending = "".join(
        f"\nassert {name}.shape == {shape}"
        for name, shape in SHAPES.items()
        if f"{name.split('.')[0]} =" in FIRST + code
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", FIRST + code + ending], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_python_examples_run(tmp_path):
    pytest.importorskip("sklearn")
    run_example("".join(code for code in OTHERS if "import torch" not in code), tmp_path)


def test_the_example_of_torch_runs(tmp_path):
    pytest.importorskip("torch")
    run_example("".join(code for code in OTHERS if "import torch" in code), tmp_path)


def test_ci_runs_the_test_command_of_the_readme():
    (command,) = re.findall(r"^    (.*-m pytest.*)$", README, flags=re.MULTILINE)
    assert command in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_tables_are_those_of_the_results_folder():
    stored = (ROOT / "studies/results/run_table.md").read_text(encoding="utf-8").splitlines()
    shown = README.split("<!-- table of studies/run_table.py: begin -->")[1].split("<!-- end -->")[0].split("\n")
    rows = [line for line in shown if line]
    assert len(rows) > 2 and set(rows) <= set(stored)  # the page shows the first command alone


def test_the_page_of_results_names_every_array():
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    names = {path.rpartition("/")[2] for path, *_ in ARRAYS if not path.endswith("+")}
    assert [name for name in names if f"`{name}`" not in page and f"{name}`" not in page] == []
