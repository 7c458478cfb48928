"""`import sensitivity` from any folder, and what `pip install .` installs."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DECOYS = ("constants", "models", "preprocessing", "report/__init__", "loaders/__init__", "common/__init__")
SCRIPT = """
import sys
import numpy as np
import sensitivity
weights = np.eye(9, 12)
result = sensitivity.sensitivity_map(
    lambda x: x @ weights.T, None, np.zeros((3, 12)), np.ones(12), np.zeros(9), np.ones(9), x_mean=0, x_std=1,
    scheme="single", no_spectra=None,
)
assert result.amp_names[0] == "H2O" and np.allclose(result.mean, weights), result
from perturbation import mapstore
assert not {"constants", "models", "report", "tensorflow", "h5py"} & set(sys.modules)
"""


def test_modules_of_the_same_name_beside_a_notebook_do_not_matter(tmp_path):
    for name in DECOYS:
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text("raise ImportError('a module of the user, which nothing should import')")
    script = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n{SCRIPT}"
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_distribution_is_the_sensitivity_test_with_numpy_alone():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = settings["project"]
    assert (project["name"], project["dynamic"]) == ("spectra-sensitivity", ["version"])
    assert [requirement.split(">")[0] for requirement in project["dependencies"]] == ["numpy"]
    assert settings["tool"]["setuptools"]["py-modules"] == ["sensitivity"]
    assert settings["tool"]["setuptools"]["packages"] == ["perturbation"]
    assert not list((ROOT / "perturbation").glob("*/*.py"))  # a package inside it would be left out


@pytest.mark.slow
def test_the_wheel_holds_sensitivity_and_perturbation_and_nothing_else(tmp_path):
    pytest.importorskip("setuptools")
    copy = tmp_path / "clone"
    (copy / "perturbation").mkdir(parents=True)
    files = [ROOT / "sensitivity.py", *(ROOT / "perturbation").glob("*.py")]
    for file in [*files, ROOT / "constants.py", ROOT / "pyproject.toml", ROOT / "README.md"]:
        (copy / file.relative_to(ROOT)).write_bytes(file.read_bytes())
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("spectra_sensitivity-*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {file.relative_to(ROOT).as_posix() for file in files}
