"""One table of input that cannot be used: each row is refused in one line, at once, without TensorFlow.

A row is (kind, name, what is done, piece of the line). What is done is handed to the function of that kind, which does
it in a new folder and raises the refusal. Nothing is executed, and where the command line is called, nothing on disk
changes.
"""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import yaml
from example_runs import write_run
from synthetic import dataset, write

import runfile
from loaders.observation import match_grid, read_observation
from models import load_model
from observation.compare import intervals, planets_as_seen
from observation.planet import Study
from pipeline.folds import load_split
from pipeline.survey_map import map_file
from runio.config import build_config, load_config
from runio.folder import RunFolder
from runio.results import load_run
from sensitivity import ModelLoader, sensitivity_map
from simulation.design import survey_design

ROOT = Path(runfile.__file__).parent
DATA = dataset(n=60, n_bins=8, keys=("H2O", "CO2", "Tp"), auxiliary=True)
GOOD_SETTINGS = """
data: {path: data.h5}
model: {name: mlp, mlp: {units: [8]}}
training: {epochs: 1, batch_size: 16, copies: 1, cv: 1}
sensitivity: {no_spectra: 2, repeat: 2}
"""
FILL = 9.96921e36  # the fill value of netCDF
ALL = slice(None)
ROWS, ATTACKS = [], {}


def attack(kind, *rows):
    """Enter rows of one kind into the table; used as a decorator of the function that does what they say."""

    def enter(function):
        ATTACKS[kind] = function
        ROWS.extend((kind, *row) for row in rows)
        return function

    return enter


@pytest.fixture(scope="module")
def good_file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("good") / "data.h5", DATA)


@pytest.fixture(scope="module")
def good_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    return write_run(folder, n_amps=3, n_bins=5, n_folds=2, n_test=60, settings={"model": {"name": "mlp"}})


def make(path, made):
    """Write text or bytes, or let a function make the file."""
    if callable(made):
        made(path)
    else:
        path.write_bytes(made if isinstance(made, bytes) else made.encode("utf-8", "surrogateescape"))


def to_device(path):
    path.symlink_to("/dev/zero")


def contents(folder):
    """Return everything below a folder: name to bytes; None for what is no file."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def main(*argv):
    """Call the command line in this process; return its status and the lines on stderr, usage aside."""
    error = io.StringIO()
    with contextlib.redirect_stderr(error):
        try:
            status = runfile.main([str(word) for word in argv])
        except SystemExit as end:
            status = end.code
    return status, [line for line in error.getvalue().splitlines() if line and not line.startswith(("usage:", " "))]


def refused(place, argv, **environment):
    """Raise what the command line says: one line, status 2, and nothing changed on disk."""
    before = contents(place), sorted(os.listdir(ROOT / "configs")), sorted(os.listdir(ROOT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "400")  # keeps argparse's usage on few lines
        for name, value in environment.items():
            patch.setenv(name, value)
        status, lines = main(*argv)
    assert status == 2 and len(lines) == 1 and "Traceback" not in lines[0], lines
    assert (contents(place), sorted(os.listdir(ROOT / "configs")), sorted(os.listdir(ROOT))) == before
    raise ValueError(lines[0])


# --- the command line ---


def flags(*argv, make=None, **environment):
    return argv, make, environment


def content(name, data):
    return lambda place: (place / name).write_bytes(data)


GOOD = ("--config", "good.yaml")


@attack(
    "command line",
    ("--config none.yaml", flags("--config", "none.yaml"), "none.yaml: no such file, expected a YAML file"),
    ("--config .", flags("--config", "."), "cannot be read (Is a directory)"),
    ("--config data.h5", flags("--config", "data.h5"), "data.h5: expected text in UTF-8"),
    ("--config", flags("--config"), "argument --config: expected one argument"),
    ("--epochs many", flags(*GOOD, "--epochs", "many"), "argument --epochs: invalid int value: 'many'"),
    ("--epochs 0", flags(*GOOD, "--epochs", "0"), "training.epochs: expected a value at least 1, received 0"),
    ("--epochs 1e3", flags(*GOOD, "--epochs", "1e3"), "argument --epochs: invalid int value: '1e3'"),
    (
        "--epochs 99999999999",
        flags(*GOOD, "--epochs", "99999999999"),
        "training.epochs: expected a number of ordinary size",
    ),
    (
        "--batch_size 0",
        flags(*GOOD, "--batch_size", "0"),
        "training.batch_size: expected a value at least 1, received 0",
    ),
    ("--batch_size 1.5", flags(*GOOD, "--batch_size", "1.5"), "argument --batch_size: invalid int value: '1.5'"),
    ("--lr fast", flags(*GOOD, "--lr", "fast"), "argument --lr: invalid float value: 'fast'"),
    ("--lr 0", flags(*GOOD, "--lr", "0"), "training.lr: expected a value above 0, received 0.0"),
    ("--lr -0.1", flags(*GOOD, "--lr", "-0.1"), "training.lr: expected a value above 0, received -0.1"),
    ("--lr nan", flags(*GOOD, "--lr", "nan"), "training.lr: expected a finite number, received nan"),
    ("--lr inf", flags(*GOOD, "--lr", "inf"), "training.lr: expected a number of ordinary size, received inf"),
    ("--model cnnn", flags(*GOOD, "--model", "cnnn"), "received 'cnnn' (did you mean 'cnn'?)"),
    ("--model", flags(*GOOD, "--model", ""), "model.name: expected printable text, received ''"),
    ("--size 0", flags(*GOOD, "--size", "0"), "data.size: expected -1 (all spectra) or at least 1, received 0"),
    ("--size -2", flags(*GOOD, "--size", "-2"), "data.size: expected a value at least -1, received -2"),
    ("--size 61", flags(*GOOD, "--size", "61"), "size: expected -1 (all) or 1 to 60, received 61"),
    ("--size 5", flags(*GOOD, "--size", "5"), "too few spectra"),
    ("--seed -1", flags(*GOOD, "--seed", "-1"), "seed: expected a value at least 0, received -1"),
    ("--seed 4294967296", flags(*GOOD, "--seed", "4294967296"), "seed: expected a number of ordinary size"),
    ("--cv 0", flags(*GOOD, "--cv", "0"), "training.cv: expected a value at least 1, received 0"),
    ("--cv 49", flags(*GOOD, "--cv", "49"), "too few spectra for 49 folds"),
    ("--epoch 3", flags(*GOOD, "--epoch", "3"), "unrecognized arguments: --epoch 3"),
    ("--GPU", flags(*GOOD, "--GPU"), "unrecognized arguments: --GPU"),
    ("more.yaml", flags(*GOOD, "more.yaml"), "unrecognized arguments: more.yaml"),
    ("--resume", flags(*GOOD, "--resume"), "--resume: expected --output DIR"),
    ("--output out --resume --overwrite", flags(*GOOD, "--output", "out", "--resume", "--overwrite"), "--overwrite"),
    ("--output", flags(*GOOD, "--output", ""), "--output"),
    ("--columns alone", flags(*GOOD, "--columns", "taurex"), "--columns NAMES: expected --observation FILE beside it"),
    ("--apply out", flags(*GOOD, "--apply", "out"), "--apply RUN_DIR: expected --observation FILE beside it"),
    ("--auxiliary alone", flags(*GOOD, "--auxiliary", "x=1"), "--auxiliary: expected --apply RUN_DIR beside it"),
    (
        "--auxiliary with a planet",
        flags("--planet", "p.yaml", "--observation", "o.csv", "--auxiliary", "x=1"),
        "--auxiliary: expected --apply RUN_DIR beside it",
    ),
    (
        "--auxiliary of NaN",
        flags("--apply", "out", "--observation", "o.csv", "--auxiliary", "x=nan"),
        "--auxiliary: expected NAME=VALUE with a number, received x=nan",
    ),
    (
        "--observation planet.csv",
        flags(*GOOD, "--observation", "planet.csv"),
        "--observation FILE: expected --apply RUN_DIR or --planet FILE beside it",
    ),
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
        flags(*GOOD, "--output", ROOT / "configs"),
        "a folder of this software",
    ),
    (
        "one fold in a folder of the software",
        flags(*GOOD, "--fold", 0, "--output", ROOT / "configs"),
        "a folder of this software",
    ),
    ("the software's own folder", flags(*GOOD, "--output", ROOT), "a folder of this software"),
    *(
        (
            f"a scheduler's file of {name}",
            flags(*GOOD, "--output", "out", "--scheduler", "s.json", make=content("s.json", data)),
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
    (
        "NaN in the data",
        flags(*GOOD, "--output", "out", make=content("data.h5", b"\x89HDF\r\n\x1a\n" + bytes(2048))),
        "data.h5",
    ),
    ("an empty data set", flags(*GOOD, make=content("data.h5", b"")), "data.h5: matches no known layout"),
    ("text for a data set", flags(*GOOD, make=content("data.h5", b"wavelength, depth\n")), "matches no known layout"),
    ("half a data set", flags(*GOOD, make=lambda p: os.truncate(p / "data.h5", 5000)), "data.h5"),
)
def _command_line(place, done):
    argv, change, environment = done
    if "--scheduler" in argv:
        pytest.importorskip("dask.distributed")
    if change:
        change(place)
    refused(place, argv, **environment)


@attack(
    "settings",
    ("data: {path: none.h5}", "data: {path: none.h5}", "none.h5: no such file or folder"),
    ("data: {path: good.yaml}", "data: {path: good.yaml}", "good.yaml: matches no known layout"),
    ("data: {path: data.h5, format: hela}", "data: {path: data.h5, format: hela}", "data.h5: expected a JSON file"),
    (
        "data: {path: data.h5, format: paper}",
        "data: {path: data.h5, format: paper}",
        "expected one *spectra.npy and one CSV",
    ),
    ("data: {path: data.h5, format: challenge}", "data: {path: data.h5, format: challenge}", "data.h5"),
    ("data: {path: data.h5, targets: [H2O, CH4]}", "data: {path: data.h5, targets: [H2O, CH4]}", "CH4"),
    ("data: {path: data.h5, targets: [h2o]}", "data: {path: data.h5, targets: [h2o]}", "h2o"),
    (
        "data: {path: data.h5, auxiliary: [star_mass]}",
        "data: {path: data.h5, auxiliary: [star_mass]}",
        "star_mass",
    ),
    ("data: {path: data.h5, test_fraction: 0.99}", "data: {path: data.h5, test_fraction: 0.99}", "too few spectra"),
    ("data: {path: data.h5, test_fraction: 0.001}", "data: {path: data.h5, test_fraction: 0.001}", "too few spectra"),
    (
        "data: {path: data.h5, valid_fraction: 0.001}\ntraining: {cv: 1}",
        "data: {path: data.h5, valid_fraction: 0.001}\ntraining: {cv: 1}",
        "too few spectra",
    ),
    ("data: {pth: data.h5}", "data: {pth: data.h5}", "data.pth: no such setting; did you mean 'path'?"),
    ("training: {lr: [1]}", "training: {lr: [1]}", "training.lr: expected a number, received [1]"),
    (
        "model: {name: mlp, mlp: {units: [-1]}}",
        "model: {name: mlp, mlp: {units: [-1]}}",
        "model.mlp.units[0]: expected a value at least 1, received -1",
    ),
    (
        "seed: !!python/object/apply:os.system ['touch owned']",
        "seed: !!python/object/apply:os.system ['touch owned']",
        "could not determine a constructor",
    ),
    ("seed: [1", "seed: [1", "expected plain YAML"),
    ("seed: 1\nseed: 2", "seed: 1\nseed: 2", "'seed' is given twice"),
    ("- 1", "- 1", "expected settings as 'name: value'"),
    ("\x00", "\x00", "expected plain YAML"),
)
def _settings(place, text):
    (place / "bad.yaml").write_text(text)
    refused(place, ["--config", "bad.yaml"])


# --- the folder for the results ---


def finished_run(place):
    (place / "out").mkdir()
    (place / "out/results.h5").write_text("results")


def unfinished_run(place):
    (place / "out/.unfinished").mkdir(parents=True)
    settings = yaml.safe_dump({**load_config("good.yaml").to_dict(), "seed": 1})
    (place / "out/.unfinished/config.yaml").write_text(settings)


def in_out(name, made):
    """Return what makes a file or folder of this name in the folder for the results."""

    def change(place):
        (place / "out" / name).parent.mkdir(parents=True)
        make(place / "out" / name, made)

    return change


@attack(
    "output",
    ("a file in the way", (lambda p: (p / "out").write_text("mine"), ()), "not usable for results"),
    ("a link to nowhere", (lambda p: (p / "out").symlink_to("/nowhere/at/all"), ()), "not usable for results"),
    ("finished results", (finished_run, ()), "out: holds finished results; choose another --output, or --overwrite"),
    ("an unfinished run", (unfinished_run, ()), "out: holds an unfinished run; --resume to continue it, --overwrite"),
    ("of other settings", (unfinished_run, ("--resume",)), "holds an unfinished run with seed = 1, received 0"),
    ("a user's settings", (in_out("config.yaml", "mine"), ()), "holds config.yaml but no results.h5"),
    *(
        (f"{name} as settings of an unfinished run", (in_out(".unfinished/config.yaml", made), ("--resume",)), piece)
        for name, made, piece in (
            ("a pipe", os.mkfifo, "the settings of an unfinished run cannot be read"),
            ("/dev/zero", to_device, "the settings of an unfinished run cannot be read"),
            ("brackets", "[" * 100_000, "the settings of an unfinished run cannot be read"),
            ("aliases", "a: &a [x]\nb: *a", "the settings of an unfinished run cannot be read"),
            ("nothing", "", "the settings of an unfinished run cannot be read"),
        )
    ),
    (
        "a user's folder .unfinished",
        (in_out(".unfinished/notes.txt", "mine"), ("--overwrite",)),
        "or one that a run made",
    ),
    ("a user's file .unfinished", (in_out(".unfinished", "mine"), ()), "or one that a run made"),
    ("a link .unfinished", (in_out(".unfinished", lambda p: p.symlink_to(p.parent)), ()), "or one that a run made"),
    ("a user's folder .replaced", (in_out(".replaced/notes.txt", "mine"), ("--overwrite",)), "or one that a run made"),
    ("a user's file .replaced", (in_out(".replaced", "mine"), ()), "or one that a run made"),
    ("a link .lock", (in_out(".lock", lambda p: p.symlink_to("../good.yaml")), ()), "not usable for results"),
    ("a link .lock to nowhere", (in_out(".lock", lambda p: p.symlink_to("none")), ()), "not usable for results"),
    ("a folder .lock", (in_out(".lock", os.mkdir), ()), "not usable for results"),
    ("a pipe .lock", (in_out(".lock", os.mkfifo), ()), "not usable for results"),
)
def _output(place, done):
    change, more = done
    change(place)
    refused(place, [*GOOD, "--output", "out", *more])


# --- the data set ---


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


def promised(name, shape=(60, 8), first=0):
    """Put an array in place of which the file holds the ``first`` rows alone."""

    def change(file):
        values = file[name][:first]
        del file[name]
        file.create_dataset(name, shape=shape, dtype="f8", chunks=(1, 8))[:first] = values

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


def replaced(name, values):
    """Return the change of a whole array; None deletes it."""

    def change(file):
        attributes = dict(file[name].attrs)
        del file[name]
        if values is not None:
            file[name] = values
            file[name].attrs.update(attributes)

    return change


def linked(name, link):
    """Put a link in place of an array or a group."""

    def change(file):
        if name in file:
            del file[name]
        file[name] = link

    return change


def virtual_rows(file):
    layout = h5py.VirtualLayout((12,), dtype=int)
    layout[:] = h5py.VirtualSource("other.h5", "rows", (12,))
    file.create_virtual_dataset("test_rows", layout)


ROW_NAMES = ("spectra", "errors", "amps", "auxiliary")


@attack(
    "data set",
    ("one error is a fill value", put("errors", (7, 2), FILL), "errors of the whole depth of the star"),
    ("a bin of fill values in the errors", put("errors", (ALL, 2), FILL), "in 60 rows (0, 1, 2, 3, 4, ...)"),
    ("all errors 1e300", put("errors", ALL, 1e300), "errors of the whole depth of the star"),
    ("all errors 1", put("errors", ALL, 1.0), "errors of the whole depth of the star"),
    ("one error of 10 %", put("errors", (7, 2), 0.1), "errors more than a factor 1000 from those of the same bin"),
    ("one error nearly zero", put("errors", (9, 1), 1e-12), "in 1 row (9)"),
    ("a bin of 10 % errors", put("errors", (ALL, 2), 0.1), "micron more than a factor 1000 from those of"),
    ("a spectrum of 10 % errors", put("errors", 11, 0.1), "from those of all spectra in 1 row (11)"),
    ("errors of 1e-30", put("errors", (ALL, 2), 1e-30), "micron more than a factor 1000 from those of"),
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
    ("all depths 1e-300", scaled("spectra", 1e-300), "median depth is below 1 ppm (is depth_unit right?) in 60 rows"),
    ("AMPs of 1e200", put("amps", (ALL, 2), np.linspace(1e200, 2e200, 60)), "AMP Tp is beyond 1e+35 in 60 rows"),
    ("one AMP is a fill value", put("amps", (5, 2), FILL), "AMP Tp is beyond 1e+35 in 1 row (5)"),
    ("one AMP of 1e20", put("amps", (5, 2), 1e20), "AMP Tp is far from"),
    ("one abundance of -999", put("amps", (5, 0), -999.0), "AMP H2O is far from"),
    ("one abundance of 1e4", put("amps", (5, 1), 1e4), "AMP CO2 is far from"),
    ("one temperature of -999", put("amps", (5, 2), -999.0), "AMP Tp from -999 to -999 in 1 row (5), expected"),
    ("one temperature of 0", put("amps", (5, 2), 0.0), "AMP Tp from 0 to 0 in 1 row (5), expected Tp in K"),
    ("one auxiliary fill value", put("auxiliary", (5, 0), FILL), "auxiliary input star_radius is beyond 1e+35"),
    ("auxiliary NaN", put("auxiliary", (5, 0), np.nan), "auxiliary input star_radius is NaN or infinite in 1 row (5)"),
    ("one auxiliary of 1e15", put("auxiliary", (5, 0), 1e15), "auxiliary input star_radius is far from"),
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
    ("NaN in a spectrum", put("spectra", (7, 2), np.nan), "spectra hold NaN or infinite values in 1 row (7)"),
    ("infinite spectrum", put("spectra", 3, np.inf), "1 row (3)"),
    ("many NaN", put("spectra", slice(10, 30), np.nan), "in 20 rows (10, 11, 12, 13, 14, ...)"),
    ("NaN in errors", put("errors", (7, 2), np.nan), "errors hold NaN or infinite values in 1 row (7)"),
    ("zero error", put("errors", (9, 0), 0), "errors must be positive, but are not in 1 row (9)"),
    ("negative error", put("errors", (9, 0), -1e-5), "errors must be positive, but are not in 1 row (9)"),
    ("NaN in an AMP", put("amps", (5, 1), np.nan), "1 row (5)"),
    ("infinite AMP", put("amps", (5, 1), -np.inf), "1 row (5)"),
    ("constant AMP", put("amps", (slice(None), 2), 1500.0), "Tp is 1500 in all 60 rows; nothing to learn"),
    ("constant spectra", put("spectra", slice(None), 0.01), "depth of all bins is constant over 38 training spectra"),
    ("duplicate wavelength", put("wavelength", 3, DATA.wavelength[2]), "wavelength"),
    ("unsorted wavelengths", put("wavelength", 3, 7.0), "wavelength"),
    ("NaN wavelength", put("wavelength", 3, np.nan), "wavelength"),
    ("negative wavelength", put("wavelength", 0, -1.0), "wavelength"),
    ("wavelengths of another grid", replaced("wavelength", np.arange(1.0, 8)), "wavelength"),
    ("no errors", replaced("errors", None), "no dataset /errors"),
    ("no spectra", replaced("spectra", None), "no dataset /spectra"),
    ("no AMPs", replaced("amps", None), "no dataset /amps"),
    ("errors of another shape", replaced("errors", np.ones((60, 7))), "errors have shape (60, 7), spectra (60, 8)"),
    ("fewer AMPs than spectra", replaced("amps", np.ones((59, 3))), "59 values of H2O for 60 spectra"),
    ("one-dimensional spectra", replaced("spectra", np.ones(60)), "/spectra"),
    ("text for spectra", replaced("spectra", np.full((60, 8), b"a")), "/spectra"),
    ("complex spectra", replaced("spectra", np.ones((60, 8), complex)), "/spectra"),
    ("no spectrum", replaced("spectra", np.ones((0, 8))), "spectra"),
    ("no bins", replaced("spectra", np.ones((60, 0))), "spectra"),
    ("too few names", attribute("amps", "names", ["H2O", "CO2"]), "expected 3 texts, one per column"),
    ("repeated names", attribute("amps", "names", ["H2O", "CO2", "CO2"]), "expected 3 texts, one per column"),
    ("unknown scale", attribute("amps", "scale", ["ln", "log10", "linear"]), "expected log10 or linear"),
    *(
        (
            f"/{name} is a link to another file",
            linked(name, h5py.ExternalLink("other.h5", name)),
            f"/{name} is a link to",
        )
        for name in ("spectra", "errors", "wavelength", "amps", "auxiliary")
    ),
    ("/spectra is a link that a pipe answers", linked("spectra", h5py.ExternalLink("pipe", "spectra")), "is a link to"),
    ("/spectra is a soft link", linked("spectra", h5py.SoftLink("/errors")), "/spectra is a link to /errors"),
    ("/test_rows is virtual", virtual_rows, "/test_rows lies in other files"),
    ("curves in another file", linked("molecule_curves", h5py.ExternalLink("other.h5", "/")), "is a link to"),
    ("half of the spectra never written", promised("spectra", first=30), "was never written, or only in part"),
)
def _data_set(place, change):
    os.mkfifo(place / "pipe")
    shutil.copy(place / "data.h5", place / "other.h5")
    with h5py.File(place / "data.h5", "a") as file:
        change(file)
    load_split(build_config({"data": {"path": str(place / "data.h5"), "auxiliary": ["star_radius"]}}))


# --- spectra and a table ---


def amp_lines(co2_of_row_4=1e-5):
    lines = [f"{10**a:.6g},{co2_of_row_4 if i == 4 else 10**b:.6g},{c:.6g}" for i, (a, b, c) in enumerate(DATA.amps)]
    return ["H2O,CO2,temperature", *lines]


def paper_pair(spectra=None, table=None):
    values = np.stack([DATA.spectra, DATA.errors, np.broadcast_to(DATA.wavelength, DATA.spectra.shape)], axis=1)
    np.save("spectra.npy", values if spectra is None else spectra, allow_pickle=True)
    Path("amps.csv").write_text("\n".join(amp_lines() if table is None else table) + "\n")


@attack(
    "pair",
    ("pickled spectra", {"spectra": np.array([{"a": 1}], dtype=object)}, "not a readable .npy array"),
    ("two planes", {"spectra": np.ones((60, 2, 8))}, "expected (N, 3, n_bins)"),
    ("a table too short", {"table": ["H2O,CO2,temperature", "1e-5,1e-5,900"]}, "1 rows for the 60 spectra"),
    ("an empty table", {"table": []}, "amps.csv"),
    ("a ragged table", {"table": ["H2O,CO2", *["1,2,3"] * 60]}, "amps.csv"),
    ("a mixing ratio outside log's domain", {"table": amp_lines(-1e-5)}, "in 1 row (4)"),
    ("words in the table", {"table": ["H2O,CO2,temperature", *["x,y,z"] * 60]}, "amps.csv"),
)
def _pair(place, parts):
    paper_pair(**parts)
    load_split(build_config({"data": {"path": "spectra.npy", "format": "paper"}}))


# --- the folder of a finished run ---


def in_results(change):
    """Return the change of a run's folder by that of its results.h5."""

    def changed(folder):
        with h5py.File(folder / "results.h5", "a") as file:
            change(file)

    return changed


def array(name, values):
    """Return the change of a whole array of results.h5; None deletes it."""

    def change(file):
        old = None if isinstance(file[name], h5py.Group) else file[name][()]
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


def first_nan(values):
    values = np.array(values, float)
    values.flat[0] = np.nan
    return values


def resettled(**changes):
    """Return the change of the settings of a run."""

    def change(folder):
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))

    return change


def elsewhere(name, link):
    """Return the change that puts a link, or what makes an array, in place of a part of results.h5."""

    def change(file):
        del file[name]
        if callable(link):
            link(file)
        else:
            file[name] = link

    return in_results(change)


LAUGHS = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghij", "bcdefghijk"))


def _study(folder):
    folder.rename(folder.with_name("moved"))
    folder.mkdir()
    folder.with_name("moved").rename(folder / "run")


@attack(
    "run",
    ("x_std NaN", array("fold_0/scaler/x_std", np.nan), "fold_0/scaler/x_std: expected positive numbers, received nan"),
    ("x_std 0", array("fold_1/scaler/x_std", 0.0), "fold_1/scaler/x_std: expected positive"),
    ("x_mean infinite", array("fold_0/scaler/x_mean", np.inf), "fold_0/scaler/x_mean: expected finite"),
    ("x_mean of every bin", array("fold_0/scaler/x_mean", np.ones(5)), "expected shape (), received (5,)"),
    ("y_std negative", array("fold_0/scaler/y_std", -np.ones(3)), "y_std: expected positive"),
    ("y_std too short", array("fold_0/scaler/y_std", np.ones(2)), "y_std: expected shape (3,), received (2,)"),
    ("y_mean missing", array("fold_1/scaler/y_mean", None), "fold_1/scaler/y_mean: expected in the file; missing"),
    ("scaler of text", array("fold_0/scaler/x_std", "one"), "x_std: expected numbers"),
    ("names shortened", of_file("amp_names", ["H2O"]), "amp_units: expected 1 texts, as many as amp_names"),
    (
        "all names shortened",
        in_results(
            lambda f: [
                f.attrs.__setitem__(n, f.attrs[n][:1])
                for n in ("amp_names", "amp_units", "amp_linear_units", "amp_scales")
            ]
        ),
        "y_test: expected shape (60, 1)",
    ),
    ("names one text", of_file("amp_names", "H2O"), "attribute amp_names: expected a list of texts"),
    ("names numbers", of_file("amp_names", [1, 2, 3]), "attribute amp_names: expected a list of texts"),
    ("names repeat", of_file("amp_names", ["H2O", "H2O", "Tp"]), "expected each name once"),
    ("names missing", in_results(lambda f: f.attrs.__delitem__("amp_names")), "amp_names: expected a list of texts"),
    ("scales nonsense", of_file("amp_scales", ["ln", "cube", "x"]), "amp_scales: expected log10 or linear"),
    ("scales of others", of_file("amp_scales", ["linear"] * 3), "amp_units"),
    ("answers NaN", array("fold_0/y_pred", spoilt(3, 1)), "fold_0/y_pred: expected finite numbers, received nan (1 of"),
    (
        "answers of other spectra",
        array("fold_0/y_pred", lambda v: v[:9]),
        "y_pred: expected shape (60, 3), received (9",
    ),
    ("answers of other AMPs", array("ensemble/y_pred", lambda v: v[:, :2]), "ensemble/y_pred: expected shape (60, 3)"),
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
    ("an empty fold", in_results(lambda f: f.create_group("fold_7")), "fold_7/y_test: expected in the file; missing"),
    ("a fold is an array", in_results(lambda f: (f.__delitem__("fold_1"), f.__setitem__("fold_1", 3))), "fold_1/y_"),
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
    ("the folder of a study", _study, "a finished run, for instance /"),
    ("results empty", text("results.h5", ""), "not a readable results file"),
    ("results a pipe", text("results.h5", os.mkfifo), "no results.h5 here"),
    ("results a folder", text("results.h5", os.mkdir), "no results.h5 here"),
    ("results /dev/zero", text("results.h5", lambda p: p.symlink_to("/dev/zero")), "no results.h5 here"),
    ("spectra NaN", array("reference/spectra", first_nan), "reference/spectra: expected finite numbers, received nan"),
    ("spectra of other bins", array("reference/spectra", lambda v: v[:, :4]), "spectra: expected shape (60, 5)"),
    ("spectra of fewer planets", array("reference/spectra", lambda v: v[:9]), "spectra: expected shape (60, 5)"),
    ("spectra in another order of axes", array("reference/spectra", lambda v: v.T), "spectra: expected shape"),
    ("spectra of text", array("reference/spectra", "all"), "reference/spectra: expected numbers, received object"),
    ("spectra missing", array("reference/spectra", None), "reference/spectra: expected in the file; missing"),
    ("errors of zero", array("reference/error", lambda v: 0 * v), "reference/error: expected positive"),
    ("errors of other bins", array("reference/error", np.ones(4)), "error: expected shape (5,), received (4,)"),
    ("errors missing", array("reference/error", None), "reference/error: expected in the file; missing"),
    ("levels NaN", array("reference/error_level", first_nan), "error_level: expected positive"),
    ("levels below zero", array("reference/error_level", lambda v: -v), "reference/error_level: expected positive"),
    ("rows beyond the test set", array("reference/rows", lambda v: v + 60), "of test spectra below 60, each once"),
    ("rows below zero", array("reference/rows", lambda v: v - 60), "reference/rows: expected not negative numbers"),
    ("a row twice", array("reference/rows", lambda v: 0 * v), "expected numbers of test spectra below 60, each once"),
    ("rows that are no whole numbers", array("reference/rows", lambda v: v / 2), "numbers of test spectra below 60"),
    ("auxiliary of none", in_results(lambda f: f.__setitem__("reference/auxiliary", np.ones((60, 1)))), "missing"),
    ("a scaler of other names", in_results(lambda f: f.__setitem__("fold_0/scaler/z", 1.0)), "argument 'z'"),
    ("half an auxiliary scaler", in_results(lambda f: f.__setitem__("fold_1/scaler/auxiliary_mean", [1.0])), "missing"),
    ("auxiliary inputs of one fold",
     in_results(lambda f: [f.__setitem__(f"fold_1/scaler/auxiliary_{n}", [1.0]) for n in ("mean", "std")]),
     "scaler/auxiliary_mean: expected in the file; missing"),
    ("noise is a word", of_file("noisy", "false"), "attribute noisy: expected true or false"),
    ("noise is 2", of_file("noisy", 2), "attribute noisy: expected true or false, received 2"),
    ("noise is a list", of_file("noisy", [0, 1]), "attribute noisy: expected true or false"),
    ("noise of a map is a word",
     in_results(lambda f: f["fold_0/sensitivity"].attrs.__setitem__("noisy", "no")), "/fold_0/sens"),
    ("answers of the mean are NaN", array("ensemble/y_pred", first_nan), "ensemble/y_pred: expected finite numbers"),
    ("truths NaN", array("fold_0/y_test", first_nan), "fold_0/y_test: expected finite numbers"),
    ("a scaler of zero for the mean", array("ensemble/scaler/x_std", 0.0), "ensemble/scaler/x_std: expected positive"),
    ("slope of one bin", array("fold_0/sensitivity_single/slope", np.ones((3, 1))), "slope: expected shape (3, "),
    ("slope NaN", array("fold_0/sensitivity_single/slope", first_nan), "slope: expected finite numbers"),
    ("error below 0", array("fold_0/sensitivity_single/standard_error", np.negative), "standard_error: expected not"),
    ("an auxiliary input more", resettled(data={"auxiliary": ["radius"]}), "data.auxiliary: expected 0 names"),
    ("auxiliary inputs in a word", resettled(data={"auxiliary": "radius"}), "data.auxiliary: expected 0 names"),
    ("auxiliary inputs are a number", resettled(data={"auxiliary": 3}), "data.auxiliary: expected 0 names"),
    *(
        (f"/{name} lies in another file", elsewhere(name, h5py.ExternalLink("other.h5", name)), f"/{name} is a link to")
        for name in ("wavelength", "reference/spectra", "fold_0", "fold_1/y_pred", "ensemble/sensitivity/mean")
    ),
    ("a map behind a pipe", elsewhere("fold_0/sensitivity", h5py.ExternalLink("pipe", "x")), "is a link to"),
    ("a soft link", elsewhere("fold_1/y_pred", h5py.SoftLink("/fold_0/y_pred")), "is a link to /fold_0/y_pred"),
    ("promised predictions", elsewhere("fold_1/y_pred", lambda f: f.create_dataset("fold_1/y_pred", (60, 3), "f8")),
     "/fold_1/y_pred has shape (60, 3) but was never written"),
)  # fmt: skip
def _run(place, change):
    change(place / "run")
    load_run(place / "run", unverified=True)


def exchanged(name):
    """Return the change that puts a file of a run with the same shapes in place."""

    def change(folder):
        other = write_run(folder.parent / "other", n_amps=3, n_bins=5, n_folds=2, n_test=60, map_noisy=True)
        shutil.copy(other / name, folder / name)

    return change


@attack(
    "changed run",
    ("results of another run", exchanged("results.h5"), "results.h5: not the file that the run wrote"),
    ("a scaler off by 2 %", array("fold_0/scaler/y_mean", lambda v: 1.02 * v), "not the file that the run wrote"),
    ("names exchanged", of_file("amp_names", ["CH4", "H2O", "CO"]), "not the file that the run wrote"),
    ("a fold deleted", array("fold_1", None), "not the file that the run wrote"),
    ("the ensemble deleted", array("ensemble", None), "not the file that the run wrote"),
    ("other settings", resettled(seed=8), "config.yaml: not the file that the run wrote"),
    ("no manifest", text("manifest.json", None), "results.h5: expected its SHA-256 in manifest.json beside it"),
    ("a manifest of another kind", text("manifest.json", "[]"), "expected its SHA-256 in manifest.json"),
    ("an endless manifest", text("manifest.json", to_device), "expected its SHA-256 in manifest.json"),
    ("a manifest of brackets", text("manifest.json", "[" * 100_000), "expected its SHA-256 in manifest.json"),
)
def _changed_run(place, change):
    change(place / "run")
    load_run(place / "run")


# --- the observation ---


TABLE = [("1", "0.1", "0.0100", "1e-5"), ("1.1", "0.1", "0.0110", "1e-5"), ("1.2", "0.1", "0.0100", "1e-5")]
COLUMNS = ("wavelength", "full_width", "depth", "error")
DEPTH_UNIT = {"depth_unit": "fraction"}  # stated, or the guess would refuse most


def cells(column, *values):
    """Return the table with the cells of a column replaced: one value for the second row, or one for each."""
    values = [None, values[0], None] if len(values) == 1 else values
    k = COLUMNS.index(column)
    rows = [[*row[:k], row[k] if value is None else str(value), *row[k + 1 :]] for row, value in zip(TABLE, values)]
    return "\n".join(",".join(row) for row in [COLUMNS, *rows])


def instruments(*names, head="instrument"):
    return "\n".join(",".join(row) for row in [(*COLUMNS, head), *((*r, n) for r, n in zip(TABLE, names))])


def ecsv(header):
    """Return what writes a table with this ECSV header."""
    lines = "".join(f"# {line}\n" for line in header.splitlines())
    return lambda path: path.write_text(f"# %ECSV 1.0\n# ---\n{lines}wavelength depth error\n1 0.01 1e-5\n")


@attack(
    "observation",
    ("ECSV with nested aliases", ecsv(LAUGHS), "expected a list of columns with their names in datatype"),
    ("ECSV that runs code", ecsv("datatype: !!python/object/apply:os.system ['touch owned']"), "expected a list of"),
    ("ECSV of brackets", ecsv("datatype: " + "[" * 20_000), "nested 30 deep at most"),
    ("ECSV of a long header", ecsv("datatype: [" + "1, " * 50_000 + "]"), "letters, expected at most 100000"),
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
    ("no file", lambda path: None, "No such file"),
    ("an empty file", "", "seen.csv"),
    ("a,b 1,2", "a,b\n1,2\n", "no column for wavelength, depth, error"),
    ("wavelength,depth 1,0.01 2,0.01", "wavelength,depth\n1,0.01\n2,0.01\n", "no column for error"),
    ("wavelength,depth,error 1,x,1e-5 2,0.01,1", "wavelength,depth,error\n1,x,1e-5\n2,0.01,1e-5\n", "seen.csv"),
    (
        "wavelength,depth,error 1,nan,1e-5 2,0.01",
        "wavelength,depth,error\n1,nan,1e-5\n2,0.01,1e-5\n",
        "missing or infinite",
    ),
    ("wavelength,depth,error 1,0.01,0 2,0.01,1", "wavelength,depth,error\n1,0.01,0\n2,0.01,1e-5\n", "seen.csv"),
    ("wavelength,depth,error 1,0.01,-1e-5 2,0.", "wavelength,depth,error\n1,0.01,-1e-5\n2,0.01,1e-5\n", "seen.csv"),
    ("wavelength,depth,error 1,0.01,1e-5 1,0.0", "wavelength,depth,error\n1,0.01,1e-5\n1,0.01,1e-5\n", "seen.csv"),
    ("wavelength,depth,error -1,0.01,1e-5 2,0.", "wavelength,depth,error\n-1,0.01,1e-5\n2,0.01,1e-5\n", "seen.csv"),
    ("wavelength,depth,error 1,0.01 2,0.01,1e-", "wavelength,depth,error\n1,0.01\n2,0.01,1e-5\n", "seen.csv"),
    ("x89PNG r  xff xfe", b"\x89PNG\r\n\xff\xfe", "seen.csv"),
    ("a fill value", cells("depth", FILL), "depths of the whole star (1 as a fraction) or more in 1 row (line 3)"),
    ("-999", cells("depth", -999), "depths of the whole star (1 as a fraction) or more in 1 row (line 3)"),
    ("half the star", cells("depth", 0.5), "depths more than 10 times, or less than a tenth of, their median in 1 row"),
    ("a depth of zero", cells("depth", 0), "less than a tenth of, their median in 1 row (line 3); is it a fill"),
    ("a depth below zero", cells("depth", -0.011), "less than a tenth of, their median in 1 row (line 3)"),
    (
        "one depth in per cent",
        cells("depth", 1.1),
        "depths of the whole star (1 as a fraction) or more in 1 row (line 3)",
    ),
    ("one error a fill value", cells("error", FILL), "errors of the whole depth of the star (1 as a fraction) or more"),
    ("all errors 1", cells("error", 1, 1, 1), "errors of the whole depth of the star (1 as a fraction) or more in 3"),
    ("all errors 1e300", cells("error", 1e300, 1e300, 1e300), "errors of the whole depth of the star"),
    ("one error in ppm", cells("error", 0.5), "errors more than a factor 1000 from their median in 1 row (line 3)"),
    (
        "one error nearly zero",
        cells("error", 1e-30),
        "errors more than a factor 1000 from their median in 1 row (line 3)",
    ),
    (
        "errors nearly zero",
        cells("error", *[1e-300] * 3),
        "errors below 1e-08 of the depths in 3 rows (line 2, line 3, line 4)",
    ),
    ("the least of all errors", cells("error", *[5e-324] * 3), "errors below 1e-08 of the depths"),
    ("an endless width", cells("full_width", 1e300), "holds bins that reach below 0 micron in 1 row (line 3)"),
    ("widths in nanometres", cells("full_width", 100, 100, 100), "holds bins that reach below 0 micron in 3 rows"),
    ("a wavelength below zero", cells("wavelength", -1.1), "expected micron, 0.05 to 200"),
    ("hexadecimal", cells("depth", "0x1"), "column 'depth': expected numbers, received '0x1' in 1 row (line 3)"),
    ("infinite errors", cells("error", "inf"), "column 'error' has missing or infinite values in 1 row (line 3)"),
    ("two columns of instruments", instruments("A,a", "B,b", "C,c", head="instrument,Instrument"), "both look like"),
    (
        "an instrument left out",
        instruments("A", "B", "C").removesuffix(",C"),
        "expected 5 cells, received fewer or more in 1 row (line 4)",
    ),
    (
        "a comma in an instrument",
        instruments('"A,B"', "B", "C"),
        "expected 5 cells, received fewer or more in 1 row (line 2)",
    ),
    ("zero bytes in an instrument", instruments("\0", "B", "C"), "it holds zero bytes"),
    ("instruments alone", "instrument\nA\nB\n", "no column for wavelength, depth, error among instrument"),
    ("UTF-16", cells("depth", 0.011).encode("utf-16"), "not a text file (byte 0 is not UTF-8)"),
)
def _observation(place, made):
    make(place / "seen.csv", made)
    read_observation(place / "seen.csv", **DEPTH_UNIT)


@pytest.mark.parametrize("name", ["", "nan", "\x1b[31mA", "A" * 9000, "<script>alert(1)</script>", "$x^{$", "a\u202eb"])
def test_instrument_of_any_name_can_be_printed(tmp_path, name):
    (tmp_path / "seen.csv").write_text(instruments(name, "B", "B"))
    seen = read_observation(tmp_path / "seen.csv", **DEPTH_UNIT).instrument
    assert list(seen[1:]) == ["B", "B"] and seen[0].isprintable() and len(seen[0]) <= 40


# --- the planet file ---

PLANET = """name: X b
star: {radius: 0.8, temperature: 5000}
planet: {mass: [0.5, 2], radius: [0.9, 1.2], temperature: [800, 1500]}
molecules: {H2O: [1.0e-6, 1.0e-2]}
"""
SEEN = "wavelength,full_width,depth,error\n" + "".join(f"{1 + i / 10:g},0.1,0.021,5e-5\n" for i in range(5))


def planet(old, new):
    """Return PLANET with some text replaced."""
    assert old in PLANET
    return PLANET.replace(old, new)


@attack(
    "planet file",
    ("mass NaN", planet("[0.5, 2]", "[.nan, 2]"), "planet.mass[0]: expected a finite number"),
    ("mass infinite", planet("[0.5, 2]", "[0.5, .inf]"), "planet.mass[1]: expected a number of ordinary size"),
    ("mass true", planet("[0.5, 2]", "[true, 2]"), "planet.mass[0]: expected a number, received True"),
    ("mass a date", planet("[0.5, 2]", "[2020-01-01, 2]"), "planet.mass[0]: expected a number, received datetime"),
    ("mass of three", planet("[0.5, 2]", "[0.5, 1, 2]"), "planet.mass: expected [low, high] with low < high"),
    ("mass in a list", planet("[0.5, 2]", "[[0.5], 2]"), "planet.mass[0]: expected a number, received [0.5]"),
    ("mass left out", planet("[0.5, 2]", "null"), "planet.mass: expected a list, received None"),
    ("mass in hours", planet("[0.5, 2]", "[0:30, 2]"), "planet.mass[0]: expected a number, received '0:30'"),
    ("star left out", planet("{radius: 0.8, temperature: 5000}", "null"), "star: expected settings as 'name: value'"),
    ("star a list", planet("radius: 0.8", "radius: [0.8]"), "star.radius: expected a number, received [0.8]"),
    ("star of 5000 digits", planet("5000", "1" + "0" * 5000), "expected plain YAML"),
    ("star that never ends", planet("5000", "1e999"), "star.temperature: expected a number of ordinary size"),
    ("molecules by name", planet("{H2O: [1.0e-6, 1.0e-2]}", "[H2O]"), "molecules: expected settings as 'name: value'"),
    ("no range", planet("[1.0e-6, 1.0e-2]", "[]"), "molecules.H2O: expected [low, high] with low < high, received []"),
    ("range of NaN", planet("[1.0e-6, 1.0e-2]", "[.nan, .nan]"), "molecules.H2O[0]: expected a finite number"),
    ("name a number", planet("X b", "7"), "name: expected text, received 7"),
    ("ESC in the name", planet("X b", r'"\e[31m"'), r"name: expected printable text, received '\x1b[31m'"),
    ("a line break in the name", planet("X b", r'"a\nb"'), r"name: expected printable text, received 'a\nb'"),
    ("a name that HDF5 cannot hold", planet("X b", "x" * 70_000), "name: expected at most 200 letters, received 70000"),
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
    make(place / "planet.yaml", made)
    (place / "seen.csv").write_text(SEEN)
    survey_design(place / "seen.csv", place / "planet.yaml")


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


ANSWERS = np.random.default_rng(0).normal(size=(60, 3))


@attack(
    "intervals",
    (
        "answers NaN",
        lambda: intervals(first_nan(ANSWERS), ANSWERS, ANSWERS[:1]),
        "predictions: expected finite numbers",
    ),
    ("truths NaN", lambda: intervals(ANSWERS, first_nan(ANSWERS), ANSWERS[:1]), "truths: expected finite numbers"),
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
    "planet flags",
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
    refused(place, ["--planet", "planet.yaml", "--observation", "seen.csv", *argv])


def survey(**attributes):
    """Return what writes a survey of ten planets with these attributes."""

    def make(path):
        with h5py.File(path, "w") as file:
            file["amps"] = np.ones((10, 2))
            file.attrs.update({"design": "other", "seed": 0, **attributes})

    return make


def elsewhere_in_survey(path):
    survey()(path)
    with h5py.File(path, "a") as file:
        del file["amps"]
        file["amps"] = h5py.ExternalLink("other.h5", "amps")


@attack(
    "survey in the folder",
    ("noise", b"\x89HDF and more", "not a readable survey"),
    ("nothing", b"", "not a readable survey"),
    ("a pipe", os.mkfifo, "not a readable survey (a pipe or a device"),
    ("/dev/zero", lambda path: path.symlink_to("/dev/zero"), "not a readable survey (a pipe or a device"),
    ("a folder", os.mkdir, "not a readable survey (a pipe or a device"),
    ("no planets", lambda path: h5py.File(path, "w").close(), "not a readable survey"),
    ("a seed of text", survey(seed="one"), "not a readable survey"),
    ("two seeds", survey(seed=[1, 2]), "not a readable survey"),
    ("another design", survey(), "holds a survey of another observation or planet file"),
    ("amps in another file", elsewhere_in_survey, "/amps is a link to other.h5 amps"),
    ("a design of numbers", survey(design=[1.0, 2.0]), "holds a survey of another observation or planet file"),
)  # fmt: skip
def _survey_in_the_folder(place, made):
    make(place / "survey.h5", made)
    design = SimpleNamespace(identity=lambda: "this")
    with Study(place, __file__, __file__, 10, load_config(None), resume=True) as study:
        study.survey(design)


# --- a survey in blocks ---

BLOCKS = dataset(n=12, n_bins=4, keys=("H2O", "CO2"))
WEIGHTS = np.ones((4, 2))


class Network:
    """What `pipeline.network.TrainedNetwork` is to a piece."""

    def sensitivity(self, spectra, errors, **options):
        given = {"gases": ("H2O", "CO2"), "x_mean": 0.01, "x_std": 1e-3, "no_spectra": None, "rng": 4, **options}
        return sensitivity_map(predict, None, spectra, errors, np.zeros(2), np.ones(2), input_layout="flat", **given)


def predict(rows):
    return rows @ WEIGHTS


def created(name, **options):
    """Return what puts another array in place of one of the file."""

    def change(file):
        del file[name]
        file.create_dataset(name, **options)

    return change


def as_text(name):
    return created(name, data=np.full((12, 4), b"1"))


@attack(
    "blocks",
    ("a fill value", put("spectra", (7, 1), FILL), "spectra 5 to 9: rows of the block: depths of the whole"),
    ("-999", put("spectra", (0, 0), -999), "spectra 0 to 4: rows of the block: depths of the whole star"),
    ("-999 ppm", put("spectra", (11, 3), -999e-6), "spectra 10 to 11: rows of the block: depths below zero by"),
    ("an error of a fill value", put("errors", (6, 2), FILL), "errors of the whole depth of the star"),
    ("an error nearly zero", put("errors", (6, 2), 1e-30), "errors more than a factor 1000 from those of the same bin"),
    ("errors of zero", put("errors", 6, 0.0), "errors more than a factor 1000 from those of all spectra in 1 row (1)"),
    ("errors 1e300", put("errors", slice(None), 1e300), "errors of the whole depth of the star"),
    ("a depth of NaN", put("spectra", (2, 2), np.nan), "spectra 0 to 4: org_spectrum: expected finite"),
    ("an error of NaN", put("errors", (2, 2), np.nan), "spectra 0 to 4: org_error: expected finite"),
    ("wavelengths NaN", put("wavelength", 1, np.nan), "wavelength"),
    ("spectra never written", created("spectra", shape=(12, 4), dtype="f8", chunks=(1, 4)), "but was never written"),
    ("errors in other files", created("errors", shape=(12, 4), dtype="f8", external=[("/dev/zero", 0, 384)]),
     "/errors lies in other files, expected its values in this one"),
    ("a petabyte of nothing", created("spectra", shape=(10**9, 10**6), dtype="f8", chunks=(1, 10**4)), "never written"),
    ("no spectra", lambda f: [created(n, shape=(0, 4), dtype="f8")(f) for n in ("spectra", "errors")], "have shapes"),
    ("errors of other bins", created("errors", data=np.ones((12, 3))), "have shapes"),
    ("spectra of text", as_text("spectra"), "/spectra has type |S1 and shape"),
    ("spectra are a group", lambda f: (f.__delitem__("spectra"), f.create_group("spectra")), "have shapes"),
    ("a unit of magnitudes", lambda f: f["spectra"].attrs.__setitem__("unit", "mag"), "'unit' is 'mag'"),
)  # fmt: skip
def _blocks(place, change):
    path = write(place / "survey.h5", BLOCKS)
    with h5py.File(path, "a") as file:
        change(file)
    map_file(ModelLoader(Network), path, place / "maps", "", block_size=5)


@attack(
    "arguments of blocks",
    ("blocks of nothing", {"block_size": 0}, "block_size: expected a positive integer, received 0"),
    ("blocks below zero", {"block_size": -3}, "block_size: expected a positive integer, received -3"),
    ("blocks of a half", {"block_size": 0.5}, "block_size: expected a positive integer, received 0.5"),
    ("one node", {"nodes": 1}, "nodes: expected a positive integer from 2 to"),
    ("a million nodes", {"nodes": 10**6}, "nodes: expected a positive integer from 2 to"),
    ("a file for a folder", {"folder": "survey.h5"}, "survey.h5: not usable for maps"),
    ("a key of another", {"key": "other"}, "holds blocks of another survey or network"),
)  # fmt: skip
def _arguments_of_blocks(place, changes):
    path = write(place / "survey.h5", BLOCKS)
    if "key" in changes:
        map_file(ModelLoader(Network), path, place / "maps", "this", block_size=5)
    arguments = {"folder": "maps", "key": "", "block_size": 5, **changes}
    map_file(ModelLoader(Network), path, place / arguments.pop("folder"), arguments.pop("key"), **arguments)


# --- networks ---


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


def pickled(path):
    path.write_bytes(b"\x80\x04K\x01.")
    return "not a .keras archive"


NETWORKS = (no_archive, empty_archive, half_an_archive, damaged_weights, lambda_layer, other_module, pickled)


@pytest.mark.parametrize("make", [*NETWORKS, weights_that_are_no_numbers], ids=lambda make: make.__name__)
def test_network_that_is_damaged_or_could_run_code_is_refused(tmp_path, monkeypatch, make):
    pytest.importorskip("keras")
    monkeypatch.chdir(tmp_path)
    piece = make(Path("model_0.keras"))
    with pytest.raises(ValueError, match=piece) as caught:
        load_model("model_0.keras")
    assert len(str(caught.value).splitlines()) == 1
    assert os.listdir(tmp_path) == ["model_0.keras"]
    with pytest.raises(ValueError, match="no such file"):
        load_model("none.keras")


# --- the table is tried ---


@pytest.mark.parametrize(("kind", "name", "done", "piece"), ROWS, ids=[f"{row[0]}: {row[1]}" for row in ROWS])
def test_bad_input_is_refused_at_once_in_one_line(tmp_path, monkeypatch, good_file, good_run, kind, name, done, piece):
    monkeypatch.chdir(tmp_path)
    if kind in ("run", "changed run", "planets as seen"):
        shutil.copytree(good_run, tmp_path / "run")
    elif kind in ("command line", "settings", "output", "data set"):
        shutil.copy(good_file, "data.h5")
        Path("good.yaml").write_text(GOOD_SETTINGS)
    start = time.process_time()
    with pytest.raises(ValueError) as refusal:
        ATTACKS[kind](tmp_path, done)
    assert time.process_time() - start < 2
    line = str(refusal.value)
    assert piece in line
    assert len(line.splitlines()) == 1 and line.isprintable() and len(line) < 1000
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"\x89HDF", "cut", "other spectra", "NaN"])
def test_damaged_piece_is_made_anew(tmp_path, caplog, content):
    path, loader = write(tmp_path / "survey.h5", BLOCKS), ModelLoader(Network)
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


def test_the_good_inputs_of_this_table_are_good(tmp_path, good_file, good_run):
    """Otherwise every refusal above might be for another reason."""
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
    assert len(load_run(good_run).folds) == 2
    assert len(load_split(build_config({"data": {"path": good_file, "auxiliary": ["star_radius"]}})).test) == 12


@pytest.mark.parametrize("link", ["hard link", "file"])
def test_a_lock_file_of_the_user_is_neither_changed_nor_deleted(tmp_path, link):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    lock = tmp_path / "out/.lock"
    os.link(tmp_path / "mine.txt", lock) if link == "hard link" else lock.write_text("mine")
    with RunFolder(tmp_path / "out", {}) as folder:
        assert folder.work.is_dir()
        with pytest.raises(ValueError, match="in use by another run"), RunFolder(tmp_path / "out", {}, resume=True):
            pass
    assert lock.read_text() == (tmp_path / "mine.txt").read_text() == "mine"


@pytest.fixture
def place(tmp_path, monkeypatch, good_file):
    """Be in a new folder with good settings and a good data set."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(good_file, "data.h5")
    Path("good.yaml").write_text(GOOD_SETTINGS)
    return tmp_path


def test_resume_with_other_data_is_refused(place, quick_figures):
    pytest.importorskip("tensorflow")
    assert main(*GOOD, "--output", "out", "--quiet") == (0, [])
    assert (place / "out/results.h5").is_file()
    with h5py.File("data.h5", "a") as file:
        file["spectra"][0, 0] *= 1.001
    with pytest.raises(ValueError, match="holds finished results with data_sha256 = "):
        refused(place, [*GOOD, "--output", "out", "--resume"])


# A few as true processes: what main() returns is what the shell sees.

TRUE_PROCESSES = [
    (["--epochs", "many"], 2, "invalid int value"),
    (["--config", "bad.yaml"], 2, "received 'cmm'"),
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
