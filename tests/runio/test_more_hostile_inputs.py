"""What came in after the first table: planets, observations, what an answer is made from, surveys in blocks.

Each is refused in one line, at once. A row is (kind, name, what is done, piece of the line); ``ATTACKS`` holds the
function of each kind, which does it.
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
import yaml
from attacks import AttackTable
from example_runs import write_run
from synthetic import dataset, write

import runfile
from loaders.observation import match_grid, read_observation
from observation.compare import intervals, planets_as_seen
from observation.planet import Study
from pipeline.survey_map import map_file
from runio.config import load_config
from runio.results import load_run
from sensitivity import ModelLoader, sensitivity_map
from simulation.design import survey_design

TABLE = AttackTable()  # kind, name, what is done, piece of the line
attack, ROWS, ATTACKS = TABLE.attack, TABLE.rows, TABLE.functions
FILL = 9.96921e36  # netCDF's


# --- the planet file ---

PLANET = """name: X b
star: {radius: 0.8, temperature: 5000}
planet: {mass: [0.5, 2], radius: [0.9, 1.2], temperature: [800, 1500]}
molecules: {H2O: [1.0e-6, 1.0e-2]}
"""
SEEN = "wavelength,full_width,depth,error\n" + "".join(f"{1 + i / 10:g},0.1,0.021,5e-5\n" for i in range(5))


def put(old, new):
    """Return PLANET with some text replaced."""
    assert old in PLANET
    return PLANET.replace(old, new)


@attack(
    "planet file",
    ("mass NaN", put("[0.5, 2]", "[.nan, 2]"), "planet.mass[0]: expected a finite number"),
    ("mass infinite", put("[0.5, 2]", "[0.5, .inf]"), "planet.mass[1]: expected a number of ordinary size"),
    ("mass true", put("[0.5, 2]", "[true, 2]"), "planet.mass[0]: expected a number, received True"),
    ("mass a date", put("[0.5, 2]", "[2020-01-01, 2]"), "planet.mass[0]: expected a number, received datetime"),
    ("mass of three", put("[0.5, 2]", "[0.5, 1, 2]"), "planet.mass: expected [low, high] with low < high"),
    ("mass in a list", put("[0.5, 2]", "[[0.5], 2]"), "planet.mass[0]: expected a number, received [0.5]"),
    ("mass left out", put("[0.5, 2]", "null"), "planet.mass: expected a list, received None"),
    ("mass in hours", put("[0.5, 2]", "[0:30, 2]"), "planet.mass[0]: expected a number, received '0:30'"),
    ("star left out", put("{radius: 0.8, temperature: 5000}", "null"), "star: expected settings as 'name: value'"),
    ("star a list", put("radius: 0.8", "radius: [0.8]"), "star.radius: expected a number, received [0.8]"),
    ("star of 5000 digits", put("5000", "1" + "0" * 5000), "expected plain YAML"),
    ("star that never ends", put("5000", "1e999"), "star.temperature: expected a number of ordinary size"),
    ("molecules by name", put("{H2O: [1.0e-6, 1.0e-2]}", "[H2O]"), "molecules: expected settings as 'name: value'"),
    ("no range", put("[1.0e-6, 1.0e-2]", "[]"), "molecules.H2O: expected [low, high] with low < high, received []"),
    ("range of NaN", put("[1.0e-6, 1.0e-2]", "[.nan, .nan]"), "molecules.H2O[0]: expected a finite number"),
    ("name a number", put("X b", "7"), "name: expected text, received 7"),
    ("ESC in the name", put("X b", r'"\e[31m"'), r"name: expected printable text, received '\x1b[31m'"),
    ("a line break in the name", put("X b", r'"a\nb"'), r"name: expected printable text, received 'a\nb'"),
    ("a name that HDF5 cannot hold", put("X b", "x" * 70_000), "name: expected at most 200 letters, received 70000"),
    ("two documents", PLANET + "---\n" + PLANET, "expected plain YAML (line 5: but found another document)"),
    ("a number for a key", PLANET + "1: 2\n", "1: no such setting"),
    ("a merge", PLANET + "<<: {a: 1}\n", "a: no such setting"),
    ("errors of one number", PLANET + "errors: [1]\n", "errors: expected [low, high] with low < high"),
    ("not UTF-8", b"\xff\xfe", "expected text in UTF-8, received byte 0"),
    ("a pipe", os.mkfifo, "expected a settings file, received a pipe or a device"),
    ("/dev/zero", lambda path: path.symlink_to("/dev/zero"), "received a pipe or a device"),
    ("a folder", os.mkdir, "cannot be read (Is a directory)"),
)
def _planet_file(place, made):
    _make(place / "planet.yaml", made)
    (place / "seen.csv").write_text(SEEN)
    survey_design(place / "seen.csv", place / "planet.yaml")


def _make(path, made):
    """Write text or bytes, or let a function make the file."""
    if callable(made):
        made(path)
    else:
        path.write_bytes(made if isinstance(made, bytes) else made.encode())


# --- the observation ---

GOOD = [("1", "0.1", "0.0100", "1e-5"), ("1.1", "0.1", "0.0110", "1e-5"), ("1.2", "0.1", "0.0100", "1e-5")]
COLUMNS = ("wavelength", "full_width", "depth", "error")
DEPTH_UNIT = {"depth_unit": "fraction"}  # stated, or the guess would refuse most


def cells(column, *values):
    """Return the table with the cells of a column replaced: one value for the second row, or one for each."""
    values = [None, values[0], None] if len(values) == 1 else values
    k = COLUMNS.index(column)
    rows = [[*row[:k], row[k] if value is None else str(value), *row[k + 1 :]] for row, value in zip(GOOD, values)]
    return "\n".join(",".join(row) for row in [COLUMNS, *rows])


def instruments(*names, head="instrument"):
    return "\n".join(",".join(row) for row in [(*COLUMNS, head), *((*r, n) for r, n in zip(GOOD, names))])


@attack(
    "observation",
    ("a fill value", cells("depth", FILL), "depths of the whole star (1 as a fraction) or more in 1 row (3), by line"),
    ("-999", cells("depth", -999), "depths of the whole star (1 as a fraction) or more in 1 row (3)"),
    ("half the star", cells("depth", 0.5), "depths more than 10 times, or less than a tenth of, their median in 1 row"),
    ("a depth of zero", cells("depth", 0), "less than a tenth of, their median in 1 row (3), by line; is it a fill"),
    ("a depth below zero", cells("depth", -0.011), "less than a tenth of, their median in 1 row (3)"),
    ("one depth in per cent", cells("depth", 1.1), "depths of the whole star (1 as a fraction) or more in 1 row (3)"),
    ("one error a fill value", cells("error", FILL), "errors of the whole depth of the star (1 as a fraction) or more"),
    ("all errors 1", cells("error", 1, 1, 1), "errors of the whole depth of the star (1 as a fraction) or more in 3"),
    ("all errors 1e300", cells("error", 1e300, 1e300, 1e300), "errors of the whole depth of the star"),
    ("one error in ppm", cells("error", 0.5), "errors a factor 1000 from their median in 1 row (3), by line"),
    ("one error nearly zero", cells("error", 1e-30), "errors a factor 1000 from their median in 1 row (3), by line"),
    ("errors nearly zero", cells("error", *[1e-300] * 3), "errors below 1e-08 of the depths in 3 rows (2, 3, 4)"),
    ("the least of all errors", cells("error", *[5e-324] * 3), "errors below 1e-08 of the depths"),
    ("an endless width", cells("full_width", 1e300), "holds bins that reach below 0 micron in 1 row (3), by line"),
    ("widths in nanometres", cells("full_width", 100, 100, 100), "holds bins that reach below 0 micron in 3 rows"),
    ("a wavelength below zero", cells("wavelength", -1.1), "expected micron, 0.05 to 200"),
    ("hexadecimal", cells("depth", "0x1"), "column 'depth' holds no number in 1 row (line 3: '0x1')"),
    ("infinite errors", cells("error", "inf"), "column 'error' has missing or infinite values in 1 row (3)"),
    ("two columns of instruments", instruments("A,a", "B,b", "C,c", head="instrument,Instrument"), "both look like"),
    ("an instrument left out", instruments("A", "B", "C").removesuffix(",C"), "without the 5 cells of the first (line"),
    ("a comma in an instrument", instruments('"A,B"', "B", "C"), "1 row without the 5 cells of the first (line 2)"),
    ("zero bytes in an instrument", instruments("\0", "B", "C"), "it holds zero bytes"),
    ("instruments alone", "instrument\nA\nB\n", "no column for wavelength, depth, error among instrument"),
    ("UTF-16", cells("depth", 0.011).encode("utf-16"), "not a text file (byte 0 is not UTF-8)"),
)
def _observation(place, made):
    _make(place / "seen.csv", made)
    read_observation(place / "seen.csv", **DEPTH_UNIT)


@pytest.mark.parametrize("name", ["", "nan", "\x1b[31mA", "A" * 9000, "<script>alert(1)</script>", "$x^{$", "a\u202eb"])
def test_instrument_of_any_name_can_be_printed(tmp_path, name):
    (tmp_path / "seen.csv").write_text(instruments(name, "B", "B"))
    seen = read_observation(tmp_path / "seen.csv", **DEPTH_UNIT).instrument
    assert list(seen[1:]) == ["B", "B"] and seen[0].isprintable() and len(seen[0]) <= 40


@attack(
    "grid",
    ("one bin fewer", lambda x, w: (x[:-1], w[:-1]), "expected 5 bins from 1 to 1.4 micron, received 4 from 1 to 1.3"),
    ("nanometres", lambda x, w: (1e3 * x, 1e3 * w), "received 5 from 1000 to 1400"),
    ("half a bin further", lambda x, w: (x + 0.05, w), "(the edges of the bins do not coincide)"),
    ("bins twice as wide", lambda x, w: (x, 2 * w), "(the edges of the bins do not coincide)"),
    ("one bin", lambda x, w: (x[:1], w[:1]), "received 1 from 1 to 1"),
    ("no widths of as many", lambda x, w: (x * 1.01, None), "(no bin widths to re-bin by)"),
)
def _grid(place, change):
    (place / "seen.csv").write_text(SEEN)
    wavelength = np.array([1, 1.1, 1.2, 1.3, 1.4])
    seen = read_observation(place / "seen.csv")
    x, w = change(seen.wavelength, seen.bin_width)
    changed = SimpleNamespace(**{**vars(seen), "wavelength": x, "bin_width": w})
    match_grid(changed, wavelength, np.full(5, 0.1))


# --- what an answer is made from ---


@pytest.fixture(scope="module")
def good_run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run", n_amps=3, n_bins=5, n_folds=2, n_test=60)


def array(name, change):
    """Return the change of an array of results.h5; of None deletes it."""

    def changed(file):
        old = file[name][()]
        del file[name]
        if change is not None:
            file[name] = change(old) if callable(change) else change

    return changed


def nan(values):
    values = np.array(values, float)
    values.flat[0] = np.nan
    return values


@attack(
    "reference",
    ("spectra NaN", array("reference/spectra", nan), "reference/spectra: expected finite numbers, received nan"),
    ("spectra of other bins", array("reference/spectra", lambda v: v[:, :4]), "spectra: expected shape (60, 5)"),
    ("spectra of fewer planets", array("reference/spectra", lambda v: v[:9]), "spectra: expected shape (60, 5)"),
    ("spectra in another order of axes", array("reference/spectra", lambda v: v.T), "spectra: expected shape"),
    ("spectra of text", array("reference/spectra", "all"), "reference/spectra: expected numbers, received object"),
    ("spectra missing", array("reference/spectra", None), "reference/spectra: expected in the file, beside the rest"),
    ("errors of zero", array("reference/error", lambda v: 0 * v), "reference/error: expected positive"),
    ("errors of other bins", array("reference/error", np.ones(4)), "error: expected shape (5,), received (4,)"),
    ("errors missing", array("reference/error", None), "reference/error: expected in the file, beside the rest"),
    ("levels NaN", array("reference/error_level", nan), "error_level: expected positive"),
    ("levels below zero", array("reference/error_level", lambda v: -v), "reference/error_level: expected positive"),
    ("rows beyond the test set", array("reference/rows", lambda v: v + 60), "of test spectra below 60, each once"),
    ("rows below zero", array("reference/rows", lambda v: v - 60), "reference/rows: expected not negative numbers"),
    ("a row twice", array("reference/rows", lambda v: 0 * v), "expected numbers of test spectra below 60, each once"),
    ("rows that are no whole numbers", array("reference/rows", lambda v: v / 2), "numbers of test spectra below 60"),
    ("auxiliary inputs of nobody", lambda f: f.__setitem__("reference/auxiliary", np.ones((60, 1))), "missing"),
    ("a scaler of other names", lambda f: f.__setitem__("fold_0/scaler/z", 1.0), "fold_0/scaler: expected"),
    ("half an auxiliary scaler", lambda f: f.__setitem__("fold_1/scaler/auxiliary_mean", [1.0]), "missing"),
    ("auxiliary inputs of one fold",
     lambda f: [f.__setitem__(f"fold_1/scaler/auxiliary_{n}", [1.0]) for n in ("mean", "std")],
     "scaler/auxiliary_mean: expected in the file, which has auxiliary inputs elsewhere; missing"),
    ("noise is a word", lambda f: f.attrs.__setitem__("noisy", "false"), "attribute noisy: expected true or false"),
    ("noise is 2", lambda f: f.attrs.__setitem__("noisy", 2), "attribute noisy: expected true or false, received 2"),
    ("noise is a list", lambda f: f.attrs.__setitem__("noisy", [0, 1]), "attribute noisy: expected true or false"),
    ("noise of a map is a word", lambda f: f["fold_0/sensitivity"].attrs.__setitem__("noisy", "no"), "/fold_0/sens"),
    ("answers of the mean are NaN", array("ensemble/y_pred", nan), "ensemble/y_pred: expected finite numbers"),
    ("truths NaN", array("fold_0/y_test", nan), "fold_0/y_test: expected finite numbers"),
    ("a scaler of zero for the mean", array("ensemble/scaler/x_std", 0.0), "ensemble/scaler/x_std: expected positive"),
    ("slope of one bin", array("fold_0/sensitivity_single/slope", np.ones((3, 1))), "slope: expected shape (3, "),
    ("slope NaN", array("fold_0/sensitivity_single/slope", nan), "slope: expected finite numbers"),
    ("error below 0", array("fold_0/sensitivity_single/standard_error", np.negative), "standard_error: expected not"),
)  # fmt: skip
def _reference(place, change):
    with h5py.File(place / "run/results.h5", "a") as file:
        change(file)
    load_run(place / "run", unverified=True)


def settings(**changes):
    """Return the change of a run's config.yaml."""

    def change(path):
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))

    return change


@attack(
    "settings of a run",
    ("an auxiliary input more", settings(data={"auxiliary": ["radius"]}), "data.auxiliary: expected 0 names"),
    ("auxiliary inputs in a word", settings(data={"auxiliary": "radius"}), "data.auxiliary: expected 0 names"),
    ("auxiliary inputs are a number", settings(data={"auxiliary": 3}), "data.auxiliary: expected 0 names"),
)  # fmt: skip
def _settings_of_a_run(place, change):
    change(place / "run/config.yaml")
    load_run(place / "run", unverified=True)


ANSWERS = np.random.default_rng(0).normal(size=(60, 3))


@attack(
    "intervals",
    ("answers NaN", lambda: intervals(nan(ANSWERS), ANSWERS, ANSWERS[:1]), "predictions: expected finite numbers"),
    ("truths NaN", lambda: intervals(ANSWERS, nan(ANSWERS), ANSWERS[:1]), "truths: expected finite numbers"),
    ("the answer infinite", lambda: intervals(ANSWERS, ANSWERS, ANSWERS[:1] / 0), "estimates: expected finite numbers"),
    ("truths of other planets", lambda: intervals(ANSWERS, ANSWERS[:9], ANSWERS[:1]), "shapes (n, n_amps), the same"),
    ("an answer of other AMPs", lambda: intervals(ANSWERS, ANSWERS, ANSWERS[:1, :2]), "shapes (n, n_amps), the same"),
    ("one answer as a row", lambda: intervals(ANSWERS, ANSWERS, ANSWERS[0]), "shapes (n, n_amps), the same"),
)
def _intervals(place, call):
    with np.errstate(all="ignore"):
        call()


@attack(
    "planets as seen",
    ("errors of other bins", (np.ones(4) / 1e4, 0.0), "error: expected positive numbers of shape (5,)"),
    ("errors of zero", (np.zeros(5), 0.0), "error: expected positive numbers of shape (5,)"),
    ("errors NaN", (np.full(5, np.nan), 0.0), "error: expected positive numbers of shape (5,)"),
    ("a network of NaN", (np.ones(5) / 1e4, np.nan), "network: expected finite predictions of its run"),
    ("an endless network", (np.ones(5) / 1e4, np.inf), "network: expected finite predictions of its run"),
)  # fmt: skip
def _planets_as_seen(place, done):
    error, answer = done
    network = SimpleNamespace(predict=lambda spectra, auxiliary: np.full((len(spectra), 3), answer))
    planets_as_seen(load_run(place / "run", unverified=True), network, error, seed=0)


# --- planets in one command ---


@attack(
    "flags",
    *((f"--n {n}", ["--n", n], "expected --n of at least 10 and at most 10000000") for n in (0, -5, 9, 10**18)),
    ("--n in words", ["--n", "many"], "--n: invalid int value: 'many'"),
    ("--n with a fraction", ["--n", "1e4"], "--n: invalid int value: '1e4'"),
    ("--n of 5000 digits", ["--n", "9" * 5000], "--n: invalid int value"),
    ("--n empty", ["--n", ""], "--n: invalid int value: ''"),
    ("a fold of it", ["--fold", 0, "--output", "out"], "--planet FILE: expected one network and no --fold"),
    ("all networks", ["--model", "all"], "--planet FILE: expected one network and no --fold"),
    ("--resume of nothing named", ["--resume"], "--resume: expected --output DIR"),
    ("ESC in the file", ["--planet", "\x1b[2J"], r"expected printable text in UTF-8, received '\x1b[2J'"),
    ("no such planet file", ["--planet", "none.yaml"], "none.yaml: no such file"),
    ("no such observation", ["--observation", "none.csv"], "none.csv: cannot be read (No such file or directory)"),
    ("files exchanged", ["--planet", "seen.csv", "--observation", "planet.yaml"], "seen.csv"),
)  # fmt: skip
def _flags(place, argv):
    (place / "planet.yaml").write_text(PLANET)
    (place / "seen.csv").write_text(SEEN)
    error = io.StringIO()
    argv = ["--planet", "planet.yaml", "--observation", "seen.csv", *map(str, argv)]
    before = sorted(os.listdir(place))
    with contextlib.redirect_stderr(error), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "400")
        try:
            status = runfile.main(argv)
        except SystemExit as end:
            status = end.code
    lines = [line for line in error.getvalue().splitlines() if line and not line.startswith(("usage:", " "))]
    assert status == 2 and len(lines) == 1, lines
    assert sorted(os.listdir(place)) == before
    raise ValueError(lines[0])


def survey(**attributes):
    """Return what writes a survey of ten planets with these attributes."""

    def make(path):
        with h5py.File(path, "w") as file:
            file["amps"] = np.ones((10, 2))
            file.attrs.update({"design": "other", "seed": 0, **attributes})

    return make


@attack(
    "survey in the folder",
    ("noise", b"\x89HDF and more", "not a readable survey"),
    ("nothing", b"", "not a readable survey"),
    ("a pipe", os.mkfifo, "not a readable survey (not a regular file)"),
    ("/dev/zero", lambda path: path.symlink_to("/dev/zero"), "not a readable survey (not a regular file)"),
    ("a folder", os.mkdir, "not a readable survey (not a regular file)"),
    ("no planets", lambda path: h5py.File(path, "w").close(), "not a readable survey"),
    ("a seed of text", survey(seed="one"), "not a readable survey"),
    ("two seeds", survey(seed=[1, 2]), "not a readable survey"),
    ("another design", survey(), "holds a survey of another observation or planet file"),
    ("a design of numbers", survey(design=[1.0, 2.0]), "holds a survey of another observation or planet file"),
)  # fmt: skip
def _survey_in_the_folder(place, made):
    _make(place / "survey.h5", made)
    design = SimpleNamespace(identity=lambda: "this")
    with Study(place, __file__, __file__, 10, load_config(None), resume=True) as study:
        study.survey(design)


# --- a survey in blocks ---

PIECES = dataset(n=12, n_bins=4, keys=("H2O", "CO2"))
WEIGHTS = np.ones((4, 2))


class Network:
    """What `pipeline.network.TrainedNetwork` is to a piece."""

    def sensitivity(self, spectra, errors, **options):
        given = {"gases": ("H2O", "CO2"), "x_mean": 0.01, "x_std": 1e-3, "no_spectra": None, "rng": 4, **options}
        return sensitivity_map(predict, None, spectra, errors, np.zeros(2), np.ones(2), input_layout="flat", **given)


def predict(rows):
    return rows @ WEIGHTS


def put_number(name, index, value):
    def change(file):
        values = file[name][()]
        values[index] = value
        file[name][...] = values

    return change


def replaced(name, **options):
    """Return what puts another array in place of one of the file."""

    def change(file):
        del file[name]
        file.create_dataset(name, **options)

    return change


def as_text(name):
    return replaced(name, data=np.full((12, 4), b"1"))


@attack(
    "pieces",
    ("a fill value", put_number("spectra", (7, 1), FILL), "spectra 5 to 9: rows of the block: depths of the whole"),
    ("-999", put_number("spectra", (0, 0), -999), "spectra 0 to 4: rows of the block: depths of the whole star"),
    ("-999 ppm", put_number("spectra", (11, 3), -999e-6), "spectra 10 to 11: rows of the block: depths below zero by"),
    ("an error of a fill value", put_number("errors", (6, 2), FILL), "errors of the whole depth of the star"),
    ("an error nearly zero", put_number("errors", (6, 2), 1e-30), "errors a factor 1000 from those of the same bin"),
    ("errors of zero", put_number("errors", 6, 0.0), "errors a factor 1000 from those of all spectra in 1 row (1)"),
    ("errors 1e300", put_number("errors", slice(None), 1e300), "errors of the whole depth of the star"),
    ("a depth of NaN", put_number("spectra", (2, 2), np.nan), "spectra 0 to 4: org_spectrum: expected finite"),
    ("an error of NaN", put_number("errors", (2, 2), np.nan), "spectra 0 to 4: org_error: expected finite"),
    ("wavelengths NaN", put_number("wavelength", 1, np.nan), "wavelength"),
    ("spectra never written", replaced("spectra", shape=(12, 4), dtype="f8", chunks=(1, 4)), "but was never written"),
    ("errors in other files", replaced("errors", shape=(12, 4), dtype="f8", external=[("/dev/zero", 0, 384)]),
     "/errors lies in other files, expected its values in this one"),
    ("a petabyte of nothing", replaced("spectra", shape=(10**9, 10**6), dtype="f8", chunks=(1, 10**4)), "was never written"),
    ("no spectra", lambda f: [replaced(n, shape=(0, 4), dtype="f8")(f) for n in ("spectra", "errors")], "have shapes"),
    ("errors of other bins", replaced("errors", data=np.ones((12, 3))), "have shapes"),
    ("spectra of text", as_text("spectra"), "/spectra has type |S1 and shape"),
    ("spectra are a group", lambda f: (f.__delitem__("spectra"), f.create_group("spectra")), "have shapes"),
    ("a unit of magnitudes", lambda f: f["spectra"].attrs.__setitem__("unit", "mag"), "'unit' is 'mag'"),
)  # fmt: skip
def _pieces(place, change):
    path = write(place / "survey.h5", PIECES)
    with h5py.File(path, "a") as file:
        change(file)
    map_file(ModelLoader(Network), path, place / "maps", "", block_size=5)


@attack(
    "arguments of pieces",
    ("pieces of nothing", {"block_size": 0}, "block_size: expected a positive integer, received 0"),
    ("pieces below zero", {"block_size": -3}, "block_size: expected a positive integer, received -3"),
    ("pieces of a half", {"block_size": 0.5}, "block_size: expected a positive integer, received 0.5"),
    ("one node", {"nodes": 1}, "nodes: expected 2 to"),
    ("a million nodes", {"nodes": 10**6}, "nodes: expected 2 to"),
    ("a file for a folder", {"folder": "survey.h5"}, "survey.h5: not usable for maps"),
    ("a key of another", {"key": "other"}, "holds blocks of another survey or network"),
)  # fmt: skip
def _arguments_of_pieces(place, changes):
    path = write(place / "survey.h5", PIECES)
    if "key" in changes:
        map_file(ModelLoader(Network), path, place / "maps", "this", block_size=5)
    arguments = {"folder": "maps", "key": "", "block_size": 5, **changes}
    map_file(ModelLoader(Network), path, place / arguments.pop("folder"), arguments.pop("key"), **arguments)


@pytest.mark.parametrize(("kind", "name", "done", "piece"), ROWS, ids=[f"{row[0]}: {row[1]}" for row in ROWS])
def test_hostile_input_is_refused_at_once_in_one_line(tmp_path, monkeypatch, good_run, kind, name, done, piece):
    monkeypatch.chdir(tmp_path)
    if kind in ("reference", "settings of a run", "planets as seen"):
        shutil.copytree(good_run, tmp_path / "run")
    start = time.process_time()
    with pytest.raises(ValueError) as refusal:
        ATTACKS[kind](tmp_path, done)
    assert time.process_time() - start < 2
    line = str(refusal.value)
    assert piece in line
    assert len(line.splitlines()) == 1 and line.isprintable() and len(line) < 1000


# --- what these tables start from is good: otherwise every refusal above might be for another reason ---


@pytest.mark.parametrize("content", [b"", b"\x89HDF", "cut", "other spectra", "NaN"])
def test_damaged_piece_is_made_anew(tmp_path, caplog, content):
    path, loader = write(tmp_path / "survey.h5", PIECES), ModelLoader(Network)
    whole = map_file(loader, path, tmp_path / "maps", "", block_size=5)
    damaged = tmp_path / "maps/block_5.h5"
    if isinstance(content, bytes):
        damaged.write_bytes(content)
    elif content == "cut":
        damaged.write_bytes(damaged.read_bytes()[:900])
    else:
        with h5py.File(damaged, "a") as file:
            if content == "NaN":
                file["mean"][...] = np.nan
            else:
                file.attrs["n_spectra"] = np.array([3, 5])
    again = map_file(loader, path, tmp_path / "maps", "", block_size=5)
    np.testing.assert_array_equal(again.mean, whole.mean)
    assert "block_5.h5: damaged, and made again" in caplog.text and caplog.text.count("made again") == 1


def test_the_good_inputs_of_these_tables_are_good(tmp_path, good_run):
    (tmp_path / "planet.yaml").write_text(PLANET)
    (tmp_path / "seen.csv").write_text(SEEN)
    design = survey_design(tmp_path / "seen.csv", tmp_path / "planet.yaml")
    seen = read_observation(tmp_path / "seen.csv")
    assert match_grid(seen, seen.wavelength, np.full(5, 0.1)).depth.shape == design.wavelength.shape == (5,)
    (tmp_path / "seen.csv").write_text(cells("depth", 0.011))
    assert len(read_observation(tmp_path / "seen.csv", **DEPTH_UNIT).depth) == 3
    network = SimpleNamespace(predict=lambda spectra, auxiliary: np.zeros((len(spectra), 3)))
    planets = planets_as_seen(load_run(good_run), network, np.full(5, 1e-4), seed=0)
    assert np.isfinite(intervals(planets.truths + ANSWERS, planets.truths, ANSWERS[:1])).all()
    assert Path(good_run, "results.h5").is_file()
