"""One table of what an attack tried: each is refused in one line, at once, without TensorFlow, nothing executed.

A row is (kind, name, what is done, piece of the line). What is done to is made by the function of that kind in
``ATTACKS``, which returns the refusal.
"""

import time

import h5py
import numpy as np
import pytest
from synthetic import dataset, write

from pipeline.folds import load_split
from runio.config import build_config

DATA = dataset(n=60, n_bins=8, keys=("H2O", "CO2", "Tp"), auxiliary=True)
FILL = 9.96921e36  # netCDF's

ROWS = []  # (kind, name, what is done, piece of the line)
ATTACKS = {}  # kind: function of (folder, what is done)


def attack(kind, *rows):
    """Enter rows of one kind into the table; used as a decorator of the function that makes the attack."""

    def enter(function):
        ATTACKS[kind] = function
        ROWS.extend((kind, *row) for row in rows)
        return function

    return enter


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
    ("one temperature of -999", put("amps", (5, 2), -999.0), "AMP Tp not positive in 1 row (5)"),
    ("one temperature of 0", put("amps", (5, 2), 0.0), "AMP Tp not positive in 1 row (5)"),
    ("one auxiliary fill value", put("auxiliary", (5, 0), FILL), "auxiliary input star_radius beyond 1e+35"),
    ("auxiliary NaN", put("auxiliary", (5, 0), np.nan), "auxiliary input star_radius is NaN or infinite in 1 row (5)"),
    ("one auxiliary of 1e15", put("auxiliary", (5, 0), 1e15), "auxiliary input star_radius far from"),
    ("constant auxiliary", put("auxiliary", ALL, 7e8), "auxiliary input star_radius is constant"),
    ("half of the rows once more", lambda file: [twice(file[n]) for n in ROW_NAMES], "test spectra are also training"),
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


@pytest.mark.parametrize(("kind", "name", "done", "piece"), ROWS, ids=[f"{row[0]}: {row[1]}" for row in ROWS])
def test_hostile_input_is_refused_at_once_in_one_line(tmp_path, monkeypatch, good_file, kind, name, done, piece):
    monkeypatch.chdir(tmp_path)
    with open(good_file, "rb") as good:
        (tmp_path / "data.h5").write_bytes(good.read())
    start = time.process_time()
    line = str(ATTACKS[kind](tmp_path, done).value)
    assert time.process_time() - start < 2
    assert piece in line
    assert len(line.splitlines()) == 1 and line.isprintable() and len(line) < 1000
    assert not (tmp_path / "owned").exists()


def test_the_good_data_set_of_this_table_is_good(good_file):
    """Otherwise every refusal above might be for another reason."""
    assert len(load_split(build_config({"data": {"path": good_file, "auxiliary": ["star_radius"]}})).test) == 12
