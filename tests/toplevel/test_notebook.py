"""The notebook runs from its first cell to its last, on a short training, and is saved with its outputs."""

import json
from pathlib import Path

import pytest

SHELL = """
import json, os, sys
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

notebook = Path(sys.argv[1])
os.chdir(notebook.parent)
class Shell(InteractiveShell):
    def enable_gui(self, gui=None):
        pass

shell = Shell.instance()
for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        with capture_output() as shown:
            cell = shell.run_cell("".join(cell["source"]))
        cell.raise_error()
        outputs = [output.data for output in shown.outputs] + [shell.display_formatter.format(cell.result)[0]]
        print(sum("image/png" in output for output in outputs))
"""  # what Jupyter does with a notebook, in a process that has TensorFlow imported; prints the pictures of each cell
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "sensitivity.ipynb"


def cells(kind):
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def test_notebook_is_saved_with_its_outputs_and_shows_its_maps():
    code = cells("code")
    assert len(code) + len(cells("markdown")) == 12
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in outputs)


@pytest.mark.slow
def test_notebook_runs_from_start_to_end(tmp_path, warm):
    pytest.importorskip("ipykernel")
    (tmp_path / "shell.py").write_text(SHELL)
    values = {"SPECTRA": 400, "EPOCHS": 1, "OUTPUT": tmp_path / "run"}
    environment = {f"NOTEBOOK_{name}": str(value) for name, value in values.items()}
    ended = warm.script(
        tmp_path / "shell.py", [NOTEBOOK], tmp_path / "output", quick_figures=True, one_core=True, eager=True,
        env={"IPYTHONDIR": str(tmp_path), **environment},
    )  # fmt: skip
    assert ended.status == 0, ended.stderr[-3000:]
    assert [int(line) for line in ended.stdout.splitlines()] == [
        sum("image/png" in output.get("data", {}) for output in cell["outputs"]) for cell in cells("code")
    ]
