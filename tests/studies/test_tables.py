"""Tables of the studies: averages over seeds, rows that are replaced, and Markdown made of the stored scores."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pandas")

from studies import faithfulness, score_table, tables

STORED = Path(__file__).parents[2] / "studies/results"


def test_error_of_a_mean_is_that_over_seeds_and_groups_keep_their_order():
    rows = [("b", 0, 1.0), ("b", 0, 3.0), ("b", 1, 6.0), ("a", 0, 5.0), ("a", 1, 5.0)]
    averaged = tables.mean_over_seeds(tables.data_frame(rows, ["map", "seed", "area"]), "area", "map")
    assert list(averaged.index) == ["b", "a"]
    np.testing.assert_allclose(averaged.loc["b"], [4, 2])  # seeds 2 and 6
    np.testing.assert_allclose(averaged.loc["a"], [5, 0])
    assert list(tables.with_error(averaged, 1)) == ["4.0 ± 2.0", "5.0 ± 0.0"]


def test_difference_from_the_single_bin_map_is_taken_seed_by_seed():
    rows = [(name, seed, seed + less) for name, less in (("single", 0.0), ("random", -0.5)) for seed in range(4)]
    averaged = faithfulness.differences(tables.data_frame(rows, ["explanation", "seed", "area"]))
    np.testing.assert_allclose(averaged.loc["random"], [-0.5, 0], atol=1e-12)


def test_new_rows_replace_those_of_the_same_run_and_no_others(tmp_path):
    path = tmp_path / "new folder/table.csv"
    old = tables.data_frame([("mlp", 0.50, None), ("cnn", 0.1, 2.0)], ["run", "r2", "minutes"])
    tables.write_csv(path, old)
    tables.write_csv(path, tables.replaced_rows(path, tables.data_frame([("cnn", 0.3, 4)], old.columns), ["run"]))
    assert path.read_text() == "run,r2,minutes\nmlp,0.5,\ncnn,0.3,4\n"


def test_stored_markdown_is_made_from_the_stored_scores(tmp_path):
    (tmp_path / "score_table.csv").write_bytes((STORED / "score_table.csv").read_bytes())
    names = ["H2O", "CH4", "CO", "CO2", "NH3", "Mp", "Rp", "Tp", "Pclouds"]
    text = score_table.write_tables([], names, tmp_path, "")
    assert text == (STORED / "score_table.md").read_text(encoding="utf-8")
    assert (tmp_path / "score_table.csv").read_text() == (STORED / "score_table.csv").read_text()


def test_a_table_is_put_between_its_marks_or_not_at_all(tmp_path):
    page, marks = tmp_path / "page.md", ("<!-- begin -->", "<!-- end -->")
    page.write_text(f"before\n{marks[0]}\nold\n{marks[1]}\nafter\n")
    tables.put_between_marks(page, marks, "new")
    assert page.read_text() == f"before\n{marks[0]}\n\nnew\n\n{marks[1]}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="expected the lines"):
        tables.put_between_marks(page, marks, "new")
    assert page.read_text() == "no marks"


def test_help_names_the_command_and_needs_neither_tensorflow_nor_pandas():
    """Checks of opacities are left out: they need what simulations need."""
    folder = Path(tables.__file__).parent
    studies = [p.stem for p in sorted(folder.glob("*.py")) if "def main(" in p.read_text("utf-8")]
    modules = [f"studies.{name}".removesuffix(".__main__") for name in studies if "check_" not in name]
    code = (
        "import contextlib, runpy, sys\n"
        "sys.argv[1:] = ['--help']\n"
        "sys.modules.update(dict.fromkeys(['tensorflow', 'keras', 'pandas', 'scipy']))\n"
        f"for module in {modules}:\n"
        "    print('module', module)\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        runpy.run_module(module, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=STORED.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for module in modules:
        assert f"module {module}\nusage: python -m {module} " in done.stdout
