"""What the README says can be typed works as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


FIRST, *OTHERS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("package, code", [("numpy", ""), *zip(("sklearn", "torch"), OTHERS, strict=True)])
def test_python_examples_run(package, code):
    pytest.importorskip(package)
    ending = "\nassert " + " and ".join(f"{name}.mean.shape == (9, 52)" for name in re.findall(r"(\w+_map) =", code))
    done = subprocess.run(
        [sys.executable, "-c", FIRST + code + (ending if code else "")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "micron" in done.stdout


def test_ci_runs_the_test_command_of_the_readme():
    (command,) = re.findall(r"^    (.*-m pytest.*)$", README, flags=re.MULTILINE)
    assert command in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_tables_are_those_of_the_results_folder():
    assert (ROOT / "studies/results/paper_table.md").read_text(encoding="utf-8").strip() in README
