"""One table of what an attack tried: each is refused in one line, at once, without TensorFlow, nothing executed.

A row is (kind, name, what is done, piece of the line). What is done to is made by the function of that kind in
``ATTACKS``, which returns the refusal.
"""

import contextlib
import io
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from attacks import AttackTable
from example_runs import write_run
from synthetic import dataset, write

import runfile
from loaders.observation import read_observation
from pipeline.folds import load_split
from runio.config import build_config
from runio.results import load_run

DATA = dataset(n=60, n_bins=8, keys=("H2O", "CO2", "Tp"), auxiliary=True)
ROOT = Path(runfile.__file__).parent
FILL = 9.96921e36  # netCDF's

TABLE = AttackTable()  # kind, name, what is done, piece of the line
attack, ROWS, ATTACKS = TABLE.attack, TABLE.rows, TABLE.functions


@pytest.fixture(scope="module")
def good_file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("good") / "data.h5", DATA)


def put(name, index, value):
    """Return a change of some numbers of a data set in this project's layout."""

    def change(file):
        values = file[name][()]
        values[index] = value
        file[name][...] = values

    return change


def scaled(name, factor):
    return lambda file: file[name].write_direct(file[name][()] * factor)


def attribute(name, key, value):
    return lambda file: file[name].attrs.__setitem__(key, value)


def of_root(key, value):
    return lambda file: file.attrs.__setitem__(key, value)


def promised(name, shape=(60, 8)):
    """Put an array in place that the file names but does not hold."""

    def change(file):
        del file[name]
        file.create_dataset(name, shape=shape, dtype="f8", chunks=(1, 8))

    return change


def outside(name):
    """Put an array in place whose numbers come from a device."""

    def change(file):
        del file[name]
        file.create_dataset(name, shape=(60, 8), dtype="f8", external=[("/dev/zero", 0, 60 * 8 * 8)])

    return change


def twice(values):
    """Put the first half of the rows in place of the second."""
    values[len(values) // 2 :] = values[: len(values) // 2]


ALL = slice(None)
ROW_NAMES = ("spectra", "errors", "amps", "auxiliary")


@attack(
    "data set",
    ("one error is a fill value", put("errors", (7, 2), FILL), "errors of the whole depth of the star"),
    ("a bin of fill values in the errors", put("errors", (ALL, 2), FILL), "in 60 rows (0, 1, 2, 3, 4, ...)"),
    ("all errors 1e300", put("errors", ALL, 1e300), "errors of the whole depth of the star"),
    ("all errors 1", put("errors", ALL, 1.0), "errors of the whole depth of the star"),
    ("one error of 10 %", put("errors", (7, 2), 0.1), "errors a factor 1000 from those of the same bin and the same"),
    ("one error nearly zero", put("errors", (9, 1), 1e-12), "in 1 row (9)"),
    ("a bin of 10 % errors", put("errors", (ALL, 2), 0.1), "micron a factor 1000 from those of all bins"),
    ("a spectrum of 10 % errors", put("errors", 11, 0.1), "from those of all spectra in 1 row (11)"),
    ("errors of 1e-30", put("errors", (ALL, 2), 1e-30), "micron a factor 1000 from those of all bins"),
    (
        "one depth of -999",
        put("spectra", (7, 2), -999.0),
        "depths of the whole star (1 as a fraction) or more in 1 row",
    ),
    ("a bin of -999", put("spectra", (ALL, 2), -999.0), "in 60 rows"),
    ("one depth of -999 ppm", put("spectra", (7, 2), -999e-6), "below zero by more than 10 errors in 1 row (7)"),
    ("a bin of -1 ppm at tiny errors", put("spectra", (ALL, 1), -1e-3), "below zero by more than 10 errors in 60 rows"),
    ("depths of 1e300", put("spectra", 3, 1e300), "median depth is not between 0 and 1"),
    ("one depth of 1e300", put("spectra", (3, 0), 1e300), "depths of the whole star"),
    ("one fill value in the depths", put("spectra", (3, 0), FILL), "depths of the whole star"),
    ("one depth of half the star", put("spectra", (3, 0), 0.5), "more than 10 times those beside them in 1 row (3)"),
    ("all depths 1e-300", scaled("spectra", 1e-300), "x_std of 38 training spectra is 0.0"),
    ("AMPs of 1e200", put("amps", (ALL, 2), np.linspace(1e200, 2e200, 60)), "AMP Tp beyond 1e+35 in 60 rows"),
    ("one AMP is a fill value", put("amps", (5, 2), FILL), "AMP Tp beyond 1e+35 in 1 row (5)"),
    ("one AMP of 1e20", put("amps", (5, 2), 1e20), "AMP Tp far from"),
    ("one abundance of -999", put("amps", (5, 0), -999.0), "AMP H2O far from"),
    ("one abundance of 1e4", put("amps", (5, 1), 1e4), "AMP CO2 far from"),
    ("one temperature of -999", put("amps", (5, 2), -999.0), "AMP Tp from -999 to -999 in 1 row (5), expected"),
    ("one temperature of 0", put("amps", (5, 2), 0.0), "AMP Tp from 0 to 0 in 1 row (5), expected Tp in K"),
    ("one auxiliary fill value", put("auxiliary", (5, 0), FILL), "auxiliary input star_radius beyond 1e+35"),
    ("auxiliary NaN", put("auxiliary", (5, 0), np.nan), "auxiliary input star_radius is NaN or infinite in 1 row (5)"),
    ("one auxiliary of 1e15", put("auxiliary", (5, 0), 1e15), "auxiliary input star_radius far from"),
    ("constant auxiliary", put("auxiliary", ALL, 7e8), "auxiliary input star_radius is constant"),
    ("half of the rows once more", lambda file: [twice(file[n]) for n in ROW_NAMES], "test spectra are also training"),
    ("noisy is an empty text", of_root("noisy", ""), "attribute 'noisy' is , expected true or false"),
    ("noisy is a word", of_root("noisy", "perhaps"), "attribute 'noisy' is perhaps, expected true or false"),
    ("noisy is 2", of_root("noisy", 2), "attribute 'noisy' is 2, expected true or false"),
    ("noisy is a list", of_root("noisy", [0, 1]), "attribute 'noisy' is [0 1], expected true or false"),
    ("depths in magnitudes", attribute("spectra", "unit", "mag"), "'unit' is 'mag', expected fraction, percent or ppm"),
    ("depths in two units", attribute("spectra", "unit", "ppm or %"), "expected fraction, percent or ppm"),
    ("depths in 7", attribute("spectra", "unit", 7), "attribute 'unit': expected one text, received 7"),
    ("errors in another unit", attribute("errors", "unit", "ppm"), "/errors are in ppm, /spectra in fraction"),
    ("wavelengths in parsec", attribute("wavelength", "unit", "pc"), "'unit' is 'pc', expected micron, nm, angstrom"),
    ("wavelengths in metres that are micron", attribute("wavelength", "unit", "m"), "expected micron, 0.05 to 200"),
    ("one text for three names", attribute("amps", "names", "H2O"), "is ['H2O'], expected 3 texts, one per column"),
    ("names are numbers", attribute("amps", "names", [1, 2, 3]), "expected 3 texts, one per column"),
    ("names in rows", attribute("amps", "names", [["H2O"], ["CO2"], ["Tp"]]), "expected 3 texts, one per column"),
    ("spectra never written", promised("spectra"), "/spectra has shape (60, 8) but was never written"),
    (
        "a terabyte of nothing",
        promised("spectra", (10**6, 10**6)),
        "has shape (1000000, 1000000) but was never written",
    ),
    ("errors in another file", outside("errors"), "/errors lies in other files, expected its values in this one"),
    ("ESC in the name of an AMP", attribute("amps", "names", ["H2O", "\x1b[31mCO2", "Tp"]), r"AMP '\x1b[31mCO2'"),
    (
        "bell in the name of an AMP",
        attribute("amps", "names", ["H2O", "C\x07", "Tp"]),
        r"AMP 'C\x07': expected printable",
    ),
    ("a line break in a name", attribute("amps", "names", ["H2O", "C\nO2", "Tp"]), r"AMP 'C\nO2': expected printable"),
    ("a name of 100,000 letters", attribute("amps", "names", ["H2O", "C" * 9000, "Tp"]), "at most 200 letters"),
    ("right-to-left override in a name", attribute("amps", "names", ["H2O", "C\u202eO", "Tp"]), r"AMP 'C\u202eO'"),
    ("a blank name", attribute("amps", "names", ["H2O", " ", "Tp"]), "expected printable text"),
    ("ESC in a unit", attribute("amps", "units", ["", "\x1b", "K"]), r"unit '\x1b': expected printable"),
)
def _data_set(place, change):
    path = place / "data.h5"
    with h5py.File(path, "a") as file:
        change(file)
    settings = {"data": {"path": str(path), "auxiliary": ["star_radius"]}}
    with pytest.raises(ValueError) as refusal:
        load_split(build_config(settings))
    return refusal


@pytest.fixture(scope="module")
def good_run(tmp_path_factory):
    return write_run(
        tmp_path_factory.mktemp("run") / "run",
        n_amps=3,
        n_bins=5,
        n_folds=2,
        n_test=20,
        settings={"model": {"name": "mlp"}},
    )


def in_results(change):
    """Return the change of a run's folder by that of its results.h5."""

    def changed(folder):
        with h5py.File(folder / "results.h5", "a") as file:
            change(file)

    return changed


def array(name, values):
    """Return the change of a whole array of results.h5; None deletes it."""

    def change(file):
        old = file[name][()]
        del file[name]
        if values is not None:
            file[name] = values(old) if callable(values) else values

    return in_results(change)


def of_file(name, value):
    return in_results(lambda file: file.attrs.__setitem__(name, value))


def text(name, content):
    """Return the change of a file of the run's folder; None deletes it."""

    def changed(folder):
        (folder / name).unlink()
        if isinstance(content, str):
            (folder / name).write_text(content, encoding="utf-8", errors="surrogateescape")
        elif content is not None:
            content(folder / name)

    return changed


def spoilt(*index):
    def change(values):
        values = values.astype(float)
        values[index] = np.nan
        return values

    return change


def ecsv(header):
    """Return what writes a table with this ECSV header."""
    lines = "".join(f"# {line}\n" for line in header.splitlines())
    return lambda path: path.write_text(f"# %ECSV 1.0\n# ---\n{lines}wavelength depth error\n1 0.01 1e-5\n")


LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghij", "bcdefghijk"))


@attack(
    "run",
    ("x_std NaN", array("fold_0/scaler/x_std", np.nan), "fold_0/scaler/x_std: expected positive numbers, received nan"),
    ("x_std 0", array("fold_1/scaler/x_std", 0.0), "fold_1/scaler/x_std: expected positive"),
    ("x_mean infinite", array("fold_0/scaler/x_mean", np.inf), "fold_0/scaler/x_mean: expected finite"),
    ("x_mean of every bin", array("fold_0/scaler/x_mean", np.ones(5)), "expected shape (), received (5,)"),
    ("y_std negative", array("fold_0/scaler/y_std", -np.ones(3)), "y_std: expected positive"),
    ("y_std too short", array("fold_0/scaler/y_std", np.ones(2)), "y_std: expected shape (3,), received (2,)"),
    ("y_mean missing", array("fold_1/scaler/y_mean", None), "y_mean: expected in the file, and for every fold"),
    ("scaler of text", array("fold_0/scaler/x_std", "one"), "x_std: expected numbers"),
    ("names shortened", of_file("amp_names", ["H2O"]), "expected 1 texts, as many as amp_names, received 3"),
    (
        "all names shortened",
        in_results(
            lambda f: [
                f.attrs.__setitem__(n, f.attrs[n][:1])
                for n in ("amp_names", "amp_units", "amp_linear_units", "amp_scales")
            ]
        ),
        "y_test: expected shape (20, 1)",
    ),
    ("names one text", of_file("amp_names", "H2O"), "attribute amp_names: expected a list of texts"),
    ("names numbers", of_file("amp_names", [1, 2, 3]), "attribute amp_names: expected a list of texts"),
    ("names repeat", of_file("amp_names", ["H2O", "H2O", "Tp"]), "expected each name once"),
    ("names missing", in_results(lambda f: f.attrs.__delitem__("amp_names")), "amp_names: expected in the file"),
    ("scales nonsense", of_file("amp_scales", ["ln", "cube", "x"]), "amp_scales: expected log10 or linear"),
    ("scales of others", of_file("amp_scales", ["linear"] * 3), "amp_units"),
    ("answers NaN", array("fold_0/y_pred", spoilt(3, 1)), "fold_0/y_pred: expected finite numbers, received nan (1 of"),
    (
        "answers of other spectra",
        array("fold_0/y_pred", lambda v: v[:9]),
        "y_pred: expected shape (20, 3), received (9",
    ),
    ("answers of other AMPs", array("ensemble/y_pred", lambda v: v[:, :2]), "ensemble/y_pred: expected shape (20, 3)"),
    ("truths differ", array("fold_1/y_test", lambda v: v + 1), "y_test: expected that of"),
    ("a map of other bins", array("fold_0/sensitivity/mean", np.ones((3, 4))), "mean: expected shape (3, 5)"),
    ("a map below zero", array("fold_0/sensitivity/mean", -np.ones((3, 5))), "mean: expected not negative"),
    (
        "a map of NaN",
        array("fold_1/sensitivity_single/mean", spoilt(0, 0)),
        "sensitivity_single/mean: expected not neg",
    ),
    ("a response of other bins", array("fold_0/response/change", np.ones((3, 4, 13))), "change: expected shape (3, 5"),
    ("wavelengths descend", array("wavelength", lambda v: v[::-1]), "wavelength: expected ascending"),
    ("wavelength NaN", array("wavelength", spoilt(1)), "wavelength: expected positive"),
    ("wavelengths too few", array("wavelength", lambda v: v[:4]), "expected shape (4,), received (5,)"),
    (
        "wavelength is a group",
        in_results(lambda f: (f.__delitem__("wavelength"), f.create_group("wavelength"))),
        "wavelength: expected in the file",
    ),
    ("no folds", in_results(lambda f: [f.__delitem__(n) for n in list(f) if n.startswith("fold")]), "it holds no fold"),
    ("an odd fold", in_results(lambda f: f.create_group("fold_x")), "fold_x"),
    ("an empty fold", in_results(lambda f: f.create_group("fold_7")), "y_test: expected in the file, and for every"),
    ("a fold is an array", in_results(lambda f: (f.__delitem__("fold_1"), f.__setitem__("fold_1", 3))), "every fold"),
    ("seed of text", of_file("seed", "seven"), "not a readable results file"),
    ("another network", of_file("model", "lstm"), "model.name is 'mlp', but results.h5 is of 'lstm'"),
    ("no model", in_results(lambda f: f.attrs.__delitem__("model")), "not a readable results file"),
    ("settings missing", text("config.yaml", None), "config.yaml: no such file"),
    ("settings of another network", text("config.yaml", "model: {name: cnn}"), "model.name is 'cnn', but results.h5"),
    ("settings a list", text("config.yaml", "- 1"), "expected settings as 'name: value'"),
    ("settings of text", text("config.yaml", "data: 3"), "expected settings as 'name: value'"),
    ("settings with nested aliases", text("config.yaml", LAUGHS), "an alias (*a)"),
    ("settings that run code", text("config.yaml", "!!python/object/apply:os.system ['touch owned']"), "constructor"),
    ("settings nested deep", text("config.yaml", "[" * 20_000), "nested 30 deep at most"),
    ("settings a long list", text("config.yaml", "[" + "1," * 300_000 + "1]"), "expected at most 20000 values"),
    ("settings a pipe", text("config.yaml", os.mkfifo), "a pipe or a device"),
    ("settings /dev/zero", text("config.yaml", lambda p: p.symlink_to("/dev/zero")), "a pipe or a device"),
    ("settings a folder", text("config.yaml", os.mkdir), "Is a directory"),
    ("settings not UTF-8", text("config.yaml", "a: caf\udce9"), "expected text in UTF-8"),
    ("history a pipe", text("history_0.csv", os.mkfifo), "a pipe or a device"),
    ("history missing", text("history_1.csv", None), "No such file"),
    ("history of words", text("history_0.csv", "epoch,loss\n1,low\n"), "could not convert"),
    ("history ragged", text("history_0.csv", "epoch,loss\n1\n"), "history_0.csv: expected rows of 2 cells"),
    ("history binary", text("history_0.csv", "\udcff\udcfe"), "not a readable results file"),
    ("results empty", text("results.h5", ""), "not a readable results file"),
    ("results a pipe", text("results.h5", os.mkfifo), "no results.h5 here"),
    ("results a folder", text("results.h5", os.mkdir), "no results.h5 here"),
    ("results /dev/zero", text("results.h5", lambda p: p.symlink_to("/dev/zero")), "no results.h5 here"),
)
def _run(place, change):
    change(place / "run")
    with pytest.raises(ValueError) as refusal:
        load_run(place / "run", unverified=True)
    return refusal


def main(*argv):
    """Call the command line in this process; return its status and what it said on stderr, usage aside."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        try:
            status = runfile.main([str(word) for word in argv])
        except SystemExit as end:
            status = end.code
    return status, [line for line in error.getvalue().splitlines() if line and not line.startswith(("usage:", " "))]


def flags(*argv, make=None, **environment):
    return argv, make, environment


def content(name, data):
    return lambda place: (place / name).write_bytes(data)


@attack(
    "command line",
    ("an output that is not UTF-8", flags("--output", "caf\udce9"), r"text in UTF-8, received 'caf\udce9'"),
    ("ESC in the output", flags("--output", "\x1b[2J"), r"expected printable text in UTF-8, received '\x1b[2J'"),
    ("a line break in a model", flags("--model", "cnn\nmlp"), "expected printable text"),
    ("Keras on nothing", flags(KERAS_BACKEND="foo"), "KERAS_BACKEND: expected tensorflow, with which runs are made"),
    ("Keras on JAX", flags(KERAS_BACKEND="jax"), "received 'jax'"),
    ("threads in words", flags(TF_NUM_INTRAOP_THREADS="two"), "TF_NUM_INTRAOP_THREADS: expected a whole number"),
    ("threads in Arabic figures", flags(TF_NUM_INTRAOP_THREADS="\u0662"), "expected a whole number"),
    ("threads below zero", flags(OMP_NUM_THREADS="-1"), "OMP_NUM_THREADS: expected a whole number, received '-1'"),
    ("settings are a pipe", flags("--config", "pipe", make=lambda p: os.mkfifo(p / "pipe")), "a pipe or a device"),
    (
        "the data set is a pipe",
        flags(
            "--config",
            "c.yaml",
            make=lambda p: (os.mkfifo(p / "pipe"), content("c.yaml", b"data: {path: pipe, format: hdf5}")(p)),
        ),
        "pipe: a pipe or a device, expected a file or a folder",
    ),
    (
        "no data set here",
        flags("--config", "c.yaml", make=content("c.yaml", b"data: {path: none.h5}")),
        "no such file or folder in",
    ),
    ("a name of 5000 letters", flags("--model", "x" * 5000), "model.name: expected one of mlp, cnn, lstm, hybrid"),
    (
        "a folder of the software",
        flags("--config", "good.yaml", "--output", ROOT / "configs"),
        "a folder of this software",
    ),
    (
        "one fold in a folder of the software",
        flags("--config", "good.yaml", "--fold", 0, "--output", ROOT / "configs"),
        "a folder of this software",
    ),
    ("the software's own folder", flags("--config", "good.yaml", "--output", ROOT), "a folder of this software"),
    *(
        (
            f"a scheduler's file of {name}",
            flags("--config", "good.yaml", "--output", "out", "--scheduler", "s.json", make=content("s.json", data)),
            "s.json: expected the file of a scheduler",
        )
        for name, data in (
            ("noise", bytes(range(256))),
            ("nothing", b""),
            ("a list", b"[]"),
            ("no address", b"{}"),
            ("numbers", b'{"address": 3}'),
            ("words", b'{"address": "home"}'),
            ("brackets", b"[" * 50_000),
            ("2 MB", b" " * 2_000_000),
        )
    ),
)
def _command_line(place, done):
    argv, make, environment = done
    if "--scheduler" in argv:
        pytest.importorskip("dask.distributed")
    settings = "data: {path: data.h5}\nmodel: {name: mlp, mlp: {units: [8]}}\ntraining: {epochs: 1}"
    (place / "good.yaml").write_text(settings)
    if make:
        make(place)
    before = sorted(os.listdir(place)), sorted(os.listdir(ROOT / "configs")), sorted(os.listdir(ROOT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "400")
        for name, value in environment.items():
            patch.setenv(name, value)
        status, lines = main(*argv)
    assert status == 2 and len(lines) == 1, lines
    assert (sorted(os.listdir(place)), sorted(os.listdir(ROOT / "configs")), sorted(os.listdir(ROOT))) == before
    return SimpleNamespace(value=lines[0])


@attack(
    "observation",
    ("ECSV with nested aliases", ecsv(LAUGHS), "expected a list of columns with their names in datatype"),
    ("ECSV that runs code", ecsv("datatype: !!python/object/apply:os.system ['touch owned']"), "expected a list of"),
    ("ECSV of brackets", ecsv("datatype: " + "[" * 20_000), "nested 30 deep at most"),
    ("ECSV of a long header", ecsv("datatype: [" + "1, " * 50_000 + "]"), "ECSV header of 150"),
    ("ECSV without columns", ecsv("delimiter: ','"), "ECSV header is not readable (expected a list of columns"),
    ("ECSV of columns without names", ecsv("datatype: [{unit: um}]"), "ECSV header is not readable"),
    ("ECSV whose columns are a number", ecsv("datatype: 3"), "ECSV header is not readable"),
    ("ECSV with another delimiter", ecsv("datatype: [{name: a}]\ndelimiter: x" + "y" * 999), "ECSV delimiter is 'xyyy"),
    ("ECSV of repeated keys", ecsv("datatype: []\ndatatype: []"), "is given twice"),
    ("a pipe", lambda path: os.mkfifo(path), "a pipe or a device"),
    ("/dev/zero", lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
    ("a folder", lambda path: path.mkdir(), "Is a directory"),
    ("a link to itself", lambda path: path.symlink_to(path), "cannot be read"),
    ("25 MB of blanks", lambda path: path.write_bytes(b" " * 25_000_000), "more than 20000 kB"),
    ("zero bytes", lambda path: path.write_bytes(b"\0" * 100), "it holds zero bytes"),
    ("ESC in a column", lambda path: path.write_text("\x1b[31mwl,x\n1,2\n"), r"\x1b[31mwl"),
    ("a column of 100,000 letters", lambda path: path.write_text("w" * 100_000 + ",x\n1,2\n"), "no column for"),
    ("10,000 columns", lambda path: path.write_text(",".join(map(str, range(10_000))) + "\n"), "no column for"),
)
def _observation(place, make):
    path = place / "planet.ecsv"
    make(path)
    with pytest.raises(ValueError) as refusal:
        read_observation(path)
    return refusal


@pytest.mark.parametrize(("kind", "name", "done", "piece"), ROWS, ids=[f"{row[0]}: {row[1]}" for row in ROWS])
def test_hostile_input_is_refused_at_once_in_one_line(
    tmp_path, monkeypatch, good_file, good_run, kind, name, done, piece
):
    monkeypatch.chdir(tmp_path)
    with open(good_file, "rb") as good:
        (tmp_path / "data.h5").write_bytes(good.read())
    if kind == "run":
        shutil.copytree(good_run, tmp_path / "run")
    start = time.process_time()
    line = str(ATTACKS[kind](tmp_path, done).value)
    assert time.process_time() - start < 2
    assert piece in line
    assert len(line.splitlines()) == 1 and line.isprintable() and len(line) < 1000
    assert not (tmp_path / "owned").exists()


def test_the_good_run_of_this_table_is_good(good_run):
    assert len(load_run(good_run).folds) == 2


def test_the_good_data_set_of_this_table_is_good(good_file):
    """Otherwise every refusal above might be for another reason."""
    assert len(load_split(build_config({"data": {"path": good_file, "auxiliary": ["star_radius"]}})).test) == 12
