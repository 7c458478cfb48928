"""Bad input of every kind: one line that helps, the right exit status, and nothing changed on disk."""

import contextlib
import io
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from synthetic import dataset, write

import runfile
from loaders.observation import read_observation
from models import load_model
from runio.config import load_config

ROOT = Path(runfile.__file__).parent
DATA = dataset(n=60, n_bins=8, keys=("H2O", "CO2", "Tp"))
SETTINGS = """
data: {path: data.h5}
model: {name: mlp, mlp: {units: [8]}}
training: {epochs: 1, batch_size: 16, copies: 1, cv: 1}
sensitivity: {no_spectra: 2, repeat: 2}
"""


def contents(folder):
    """Return everything below a folder: name to bytes; None for a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Be in a new folder with good settings and a good data set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")  # keeps argparse's usage on few lines
    (tmp_path / "good.yaml").write_text(SETTINGS)
    write(tmp_path / "data.h5", DATA)
    return tmp_path


def run(*argv):
    """Call the command line in this process; return its exit status and the lines on stderr, usage aside."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        try:
            status = runfile.main([str(a) for a in argv])
        except SystemExit as end:
            status = end.code
    return status, [line for line in error.getvalue().splitlines() if line and not line.startswith(("usage:", " "))]


def assert_refused(place, argv, piece, status=2):
    """The run says one line with ``piece`` in it, exits with ``status`` and changes nothing on disk."""
    before = contents(place)
    found, lines = run(*argv)
    assert found == status, lines
    assert len(lines) == 1, lines
    assert piece in lines[0] and "Traceback" not in lines[0] and len(lines[0]) < 1000
    assert contents(place) == before


GOOD = ("--config", "good.yaml")

BAD_FLAGS = [
    (["--config", "none.yaml"], "none.yaml: no such file, expected a YAML file"),
    (["--config", "."], "cannot be read (Is a directory)"),
    (["--config", "data.h5"], "data.h5: expected text in UTF-8"),
    (["--config"], "argument --config: expected one argument"),
    ([*GOOD, "--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
    ([*GOOD, "--epochs", "0"], "training.epochs: expected a value at least 1, received 0"),
    ([*GOOD, "--epochs", "1e3"], "argument --epochs: invalid int value: '1e3'"),
    ([*GOOD, "--epochs", "99999999999"], "training.epochs: expected a number of ordinary size"),
    ([*GOOD, "--batch_size", "0"], "training.batch_size: expected a value at least 1, received 0"),
    ([*GOOD, "--batch_size", "1.5"], "argument --batch_size: invalid int value: '1.5'"),
    ([*GOOD, "--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
    ([*GOOD, "--lr", "0"], "training.lr: expected a value above 0, received 0.0"),
    ([*GOOD, "--lr", "-0.1"], "training.lr: expected a value above 0, received -0.1"),
    ([*GOOD, "--lr", "nan"], "training.lr: expected a finite number, received nan"),
    ([*GOOD, "--lr", "inf"], "training.lr: expected a number of ordinary size, received inf"),
    ([*GOOD, "--model", "cnnn"], "received 'cnnn' (did you mean 'cnn'?)"),
    ([*GOOD, "--model", ""], "model.name: expected printable text, received ''"),
    ([*GOOD, "--size", "0"], "data.size: expected -1 (all spectra) or at least 1, received 0"),
    ([*GOOD, "--size", "-2"], "data.size: expected a value at least -1, received -2"),
    ([*GOOD, "--size", "61"], "size: expected -1 (all) or 1 to 60, received 61"),
    ([*GOOD, "--size", "5"], "too few spectra"),
    ([*GOOD, "--seed", "-1"], "seed: expected a value at least 0, received -1"),
    ([*GOOD, "--seed", "4294967296"], "seed: expected a number of ordinary size"),
    ([*GOOD, "--cv", "0"], "training.cv: expected a value at least 1, received 0"),
    ([*GOOD, "--cv", "49"], "too few spectra for 49 folds"),
    ([*GOOD, "--epoch", "3"], "unrecognized arguments: --epoch 3"),
    ([*GOOD, "--GPU"], "unrecognized arguments: --GPU"),
    ([*GOOD, "more.yaml"], "unrecognized arguments: more.yaml"),
    ([*GOOD, "--resume"], "--resume: expected --output DIR"),
    ([*GOOD, "--output", "out", "--resume", "--overwrite"], "--overwrite"),
    ([*GOOD, "--output", ""], "--output"),
    ([*GOOD, "--apply", "out"], "--apply RUN_DIR and --observation FILE go together"),
    ([*GOOD, "--observation", "planet.csv"], "--apply RUN_DIR and --observation FILE go together"),
]


@pytest.mark.parametrize(("argv", "piece"), BAD_FLAGS, ids=[" ".join(a).replace("good.yaml", "") for a, _ in BAD_FLAGS])
def test_bad_flag_is_refused(place, argv, piece):
    assert_refused(place, argv, piece)


BAD_CONFIGS = [
    ("data: {path: none.h5}", "none.h5: no such file or folder"),
    ("data: {path: good.yaml}", "good.yaml: matches no known layout"),
    ("data: {path: data.h5, format: hela}", "data.h5: expected a JSON file"),
    ("data: {path: data.h5, format: paper}", "expected one *spectra.npy and one CSV"),
    ("data: {path: data.h5, format: challenge}", "data.h5"),
    ("data: {path: data.h5, targets: [H2O, CH4]}", "CH4"),
    ("data: {path: data.h5, targets: [h2o]}", "h2o"),
    ("data: {path: data.h5, auxiliary: [star_radius]}", "star_radius"),
    ("data: {path: data.h5, test_fraction: 0.99}", "too few spectra"),
    ("data: {path: data.h5, test_fraction: 0.001}", "too few spectra"),
    ("data: {path: data.h5, valid_fraction: 0.001}\ntraining: {cv: 1}", "too few spectra"),
    ("data: {pth: data.h5}", "data.pth: no such setting; did you mean 'path'?"),
    ("training: {lr: [1]}", "training.lr: expected a number, received [1]"),
    ("model: {name: mlp, mlp: {units: [-1]}}", "model.mlp.units[0]: expected a value at least 1, received -1"),
    ("seed: !!python/object/apply:os.system ['touch owned']", "could not determine a constructor"),
    ("seed: [1", "expected plain YAML"),
    ("seed: 1\nseed: 2", "'seed' is given twice"),
    ("- 1", "expected settings as 'name: value'"),
    ("\x00", "expected plain YAML"),
]


@pytest.mark.parametrize(("text", "piece"), BAD_CONFIGS, ids=[text[:50] for text, _ in BAD_CONFIGS])
def test_bad_config_is_refused(place, text, piece):
    (place / "bad.yaml").write_text(text)
    assert_refused(place, ["--config", "bad.yaml"], piece)


def changed(name, index, value):
    """Return a change of one number of a data set."""

    def change(file):
        file[name][index] = value

    return change


def replaced(name, values):
    """Return the change of a whole array; None deletes it."""

    def change(file):
        attributes = dict(file[name].attrs)
        del file[name]
        if values is not None:
            file[name] = values
            file[name].attrs.update(attributes)

    return change


def attribute(name, value):
    def change(file):
        file["amps"].attrs[name] = value

    return change


text_array = np.array([[b"a"] * 8] * 60)

BAD_DATA = [
    ("NaN in a spectrum", changed("spectra", (7, 2), np.nan), "spectra hold NaN or infinite values in 1 row (7)"),
    ("infinite spectrum", changed("spectra", 3, np.inf), "1 row (3)"),
    ("many NaN", changed("spectra", slice(10, 30), np.nan), "in 20 rows (10, 11, 12, 13, 14, ...)"),
    ("NaN in errors", changed("errors", (7, 2), np.nan), "errors hold NaN or infinite values in 1 row (7)"),
    ("zero error", changed("errors", (9, 0), 0), "errors must be positive; they are not in 1 row (9)"),
    ("negative error", changed("errors", (9, 0), -1e-5), "errors must be positive; they are not in 1 row (9)"),
    ("NaN in an AMP", changed("amps", (5, 1), np.nan), "1 row (5)"),
    ("infinite AMP", changed("amps", (5, 1), -np.inf), "1 row (5)"),
    ("constant AMP", changed("amps", (slice(None), 2), 1500.0), "Tp is 1500 in all 60 rows; nothing to learn"),
    ("constant spectra", changed("spectra", slice(None), 0.01), "training spectra are the same constant"),
    ("duplicate wavelength", changed("wavelength", 3, DATA.wavelength[2]), "wavelength"),
    ("unsorted wavelengths", changed("wavelength", 3, 7.0), "wavelength"),
    ("NaN wavelength", changed("wavelength", 3, np.nan), "wavelength"),
    ("negative wavelength", changed("wavelength", 0, -1.0), "wavelength"),
    ("wavelengths of another grid", replaced("wavelength", np.arange(1.0, 8)), "wavelength"),
    ("no errors", replaced("errors", None), "no dataset /errors"),
    ("no spectra", replaced("spectra", None), "no dataset /spectra"),
    ("no AMPs", replaced("amps", None), "no dataset /amps"),
    ("errors of another shape", replaced("errors", np.ones((60, 7))), "errors have shape (60, 7), spectra (60, 8)"),
    ("fewer AMPs than spectra", replaced("amps", np.ones((59, 3))), "59 values of H2O for 60 spectra"),
    ("one-dimensional spectra", replaced("spectra", np.ones(60)), "/spectra"),
    ("text for spectra", replaced("spectra", text_array), "/spectra"),
    ("complex spectra", replaced("spectra", np.ones((60, 8), complex)), "/spectra"),
    ("no spectrum", replaced("spectra", np.ones((0, 8))), "spectra"),
    ("no bins", replaced("spectra", np.ones((60, 0))), "spectra"),
    ("too few names", attribute("names", ["H2O", "CO2"]), "expected 3 texts, one per column"),
    ("repeated names", attribute("names", ["H2O", "CO2", "CO2"]), "expected 3 texts, one per column"),
    ("unknown scale", attribute("scale", ["ln", "log10", "linear"]), "expected log10 or linear"),
]


@pytest.mark.parametrize(("change", "piece"), [row[1:] for row in BAD_DATA], ids=[row[0] for row in BAD_DATA])
def test_bad_data_is_refused_before_training(place, change, piece):
    with h5py.File("data.h5", "a") as file:
        change(file)
    assert_refused(place, [*GOOD, "--output", "out"], piece)


BAD_FILES = [
    ("an empty file", b"", "data.h5: matches no known layout"),
    ("text", b"wavelength, depth\n", "data.h5: matches no known layout"),
    ("half an HDF5 file", None, "data.h5"),
    ("a signature and noise", b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 8, "data.h5"),
]


@pytest.mark.parametrize(("content", "piece"), [row[1:] for row in BAD_FILES], ids=[row[0] for row in BAD_FILES])
def test_file_that_is_no_data_set_is_refused(place, content, piece):
    whole = (place / "data.h5").read_bytes()
    (place / "data.h5").write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert_refused(place, GOOD, piece)


def amp_lines(co2_of_row_4=1e-5):
    lines = [f"{10**a:.6g},{co2_of_row_4 if i == 4 else 10**b:.6g},{c:.6g}" for i, (a, b, c) in enumerate(DATA.amps)]
    return ["H2O,CO2,temperature", *lines]


def paper_pair(spectra=None, table=None):
    values = np.stack([DATA.spectra, DATA.errors, np.broadcast_to(DATA.wavelength, DATA.spectra.shape)], axis=1)
    np.save("spectra.npy", values if spectra is None else spectra, allow_pickle=True)
    Path("amps.csv").write_text("\n".join(amp_lines() if table is None else table) + "\n")


BAD_PAIRS = [
    ("pickled spectra", {"spectra": np.array([{"a": 1}], dtype=object)}, "not a readable .npy array"),
    ("two planes", {"spectra": np.ones((60, 2, 8))}, "expected (N, 3, n_bins)"),
    ("a table too short", {"table": ["H2O,CO2,temperature", "1e-5,1e-5,900"]}, "1 rows for the 60 spectra"),
    ("an empty table", {"table": []}, "amps.csv"),
    ("a ragged table", {"table": ["H2O,CO2", *["1,2,3"] * 60]}, "amps.csv"),
    ("a mixing ratio outside log's domain", {"table": amp_lines(-1e-5)}, "in 1 row (4)"),
    ("words in the table", {"table": ["H2O,CO2,temperature", *["x,y,z"] * 60]}, "amps.csv"),
]


@pytest.mark.parametrize(("parts", "piece"), [row[1:] for row in BAD_PAIRS], ids=[row[0] for row in BAD_PAIRS])
def test_bad_pair_of_spectra_and_table_is_refused(place, parts, piece):
    paper_pair(**parts)
    Path("pair.yaml").write_text("data: {path: spectra.npy, format: paper}")
    assert_refused(place, ["--config", "pair.yaml"], piece)


# Folders for the results


def file_in_the_way(place):
    (place / "out").write_text("mine")
    return "out", "not usable for results"


def below_a_file(place):
    return "good.yaml/out", "not usable for results (Not a directory"


def finished_run(place):
    (place / "out").mkdir()
    (place / "out/results.h5").write_text("results")
    return "out", "out: holds finished results; choose another --output, or --overwrite them"


def unfinished_run(place):
    (place / "out/.unfinished").mkdir(parents=True)
    settings = yaml.safe_dump({**load_config("good.yaml").to_dict(), "seed": 1})
    (place / "out/.unfinished/config.yaml").write_text(settings)
    return "out", "out: holds an unfinished run; --resume to go on with it, --overwrite to start again"


def folder_of_something_else(place):
    return ".", "holds config.yaml but no results.h5" if (place / "config.yaml").write_text("mine") else ""


def dangling_link(place):
    (place / "out").symlink_to("/nowhere/at/all")
    return "out", "not usable for results"


@pytest.mark.parametrize(
    "make",
    [file_in_the_way, below_a_file, finished_run, unfinished_run, folder_of_something_else, dangling_link],
    ids=lambda make: make.__name__,
)
def test_folder_that_cannot_take_the_results_is_refused_before_the_slow_imports(place, make):
    output, piece = make(place)
    assert_refused(place, [*GOOD, "--output", output], piece)


def test_resume_with_other_settings_is_refused(place):
    unfinished_run(place)
    assert_refused(place, [*GOOD, "--output", "out", "--resume"], "holds an unfinished run with seed = 1, received 0")


def test_resume_with_other_data_is_refused(place, quick_figures):
    pytest.importorskip("tensorflow")
    assert run(*GOOD, "--output", "out")[0] == 0
    with h5py.File("data.h5", "a") as file:
        file["spectra"][0, 0] *= 1.001
    assert_refused(place, [*GOOD, "--output", "out", "--resume"], "holds finished results with data_sha256 = ")


# Observations and networks


BAD_OBSERVATIONS = [
    (None, "No such file"),
    ("", "planet.csv"),
    ("a,b\n1,2\n", "no column for wavelength, depth, error"),
    ("wavelength,depth\n1,0.01\n2,0.01\n", "no column for error"),
    ("wavelength,depth,error\n1,x,1e-5\n2,0.01,1e-5\n", "planet.csv"),
    ("wavelength,depth,error\n1,nan,1e-5\n2,0.01,1e-5\n", "missing or infinite"),
    ("wavelength,depth,error\n1,0.01,0\n2,0.01,1e-5\n", "planet.csv"),
    ("wavelength,depth,error\n1,0.01,-1e-5\n2,0.01,1e-5\n", "planet.csv"),
    ("wavelength,depth,error\n1,0.01,1e-5\n1,0.01,1e-5\n", "planet.csv"),
    ("wavelength,depth,error\n-1,0.01,1e-5\n2,0.01,1e-5\n", "planet.csv"),
    ("wavelength,depth,error\n1,0.01\n2,0.01,1e-5\n", "planet.csv"),
    (b"\x89PNG\r\n\xff\xfe", "planet.csv"),
]


@pytest.mark.parametrize(("content", "piece"), BAD_OBSERVATIONS, ids=[str(c)[:40] for c, _ in BAD_OBSERVATIONS])
def test_bad_observation_is_refused(tmp_path, content, piece):
    path = tmp_path / "planet.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as caught:
        read_observation(path)
    assert piece in str(caught.value) and len(str(caught.value).splitlines()) == 1


def no_archive(path):
    path.write_bytes(b"no zip")
    return "not a .keras archive"


def empty_archive(path):
    with zipfile.ZipFile(path, "w"):
        pass
    return "refused or unreadable"


def half_an_archive(path):
    good_network(path)
    path.write_bytes(path.read_bytes()[:1500])
    return "not a .keras archive"


def damaged_weights(path):
    good_network(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["model.weights.h5"] = parts["model.weights.h5"][:200]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return "refused or unreadable"


def lambda_layer(path):
    import keras

    keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x)]).save(path)
    return "refused or unreadable"


def other_module(path):
    config = '{"module": "os", "class_name": "system", "config": {"command": "touch owned"}, "registered_name": null}'
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr("metadata.json", '{"keras_version": "3.0.0"}')
        archive.writestr("model.weights.h5", b"")
    return "refused or unreadable"


def weights_that_are_no_numbers(path):
    good_network(path)
    import keras

    model = keras.saving.load_model(path)
    model.layers[0].set_weights([np.full((3, 2), np.nan), np.zeros(2)])
    model.save(path)
    return "weights hold NaN or infinite values"


def good_network(path):
    import keras

    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)


@pytest.mark.parametrize(
    "make",
    [
        no_archive,
        empty_archive,
        half_an_archive,
        damaged_weights,
        lambda_layer,
        other_module,
        weights_that_are_no_numbers,
    ],
    ids=lambda make: make.__name__,
)
def test_network_that_is_damaged_or_could_run_code_is_refused(tmp_path, monkeypatch, make):
    pytest.importorskip("keras")
    monkeypatch.chdir(tmp_path)
    piece = make(Path("model_0.keras"))
    with pytest.raises(ValueError, match=piece) as caught:
        load_model("model_0.keras")
    assert len(str(caught.value).splitlines()) == 1
    assert os.listdir(tmp_path) == ["model_0.keras"]


@pytest.mark.parametrize("name", ["none.keras", "model.pkl", "model.h5"])
def test_network_of_another_kind_is_refused(tmp_path, name):
    pytest.importorskip("keras")
    if not name.startswith("none"):
        (tmp_path / name).write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(ValueError, match=r"no such file|not a \.keras archive"):
        load_model(tmp_path / name)


# A few as true processes: what main() returns is what the shell sees.

TRUE_PROCESSES = [
    (["--epochs", "many"], 2, "invalid int value"),
    (["--config", "none.yaml"], 2, "no such file"),
    (["--config", "bad.yaml"], 2, "received 'cmm'"),
    (["--config", "good.yaml", "--output", "good.yaml"], 2, "not usable for results"),
    (["--help"], 0, ""),
]


@pytest.mark.parametrize(("argv", "status", "piece"), TRUE_PROCESSES, ids=[" ".join(row[0]) for row in TRUE_PROCESSES])
def test_exit_status_and_the_one_line_reach_the_shell(place, argv, status, piece):
    (place / "bad.yaml").write_text("model: {name: cmm}")
    before = contents(place)
    found = subprocess.run([sys.executable, ROOT / "runfile.py", *argv], capture_output=True, text=True, cwd=place)
    lines = [line for line in found.stderr.splitlines() if not line.startswith(("usage:", " "))]
    assert found.returncode == status and "Traceback" not in found.stderr + found.stdout
    assert len(lines) == (status != 0) and piece in found.stderr
    assert contents(place) == before


def test_the_good_run_of_this_file_is_good(place, quick_figures):
    """Otherwise every refusal above might be for another reason."""
    pytest.importorskip("tensorflow")
    assert run(*GOOD, "--output", "out", "--quiet") == (0, [])
    assert (place / "out/results.h5").is_file()
    assert replace(DATA).sha256() == DATA.sha256()
