"""Surveys for an observation: what is refused, and each depth, error and prior against the truth."""

import dataclasses
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

import runfile
from loaders import load_dataset
from loaders.observation import read_observation
from runio.log import InputError
from simulation import survey
from simulation.design import ARIEL, resolution_text, survey_design
from simulation.forward_model import ForwardModel
from simulation.opacities import Opacities
from simulation.planetfile import load_planet

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "data" / "observations"
PLANET = {
    "name": "X b",
    "star": {"radius": 0.8, "temperature": 5000},
    "planet": {"mass": [0.5, 2], "radius": [0.9, 1.2], "temperature": [800, 1500]},
    "molecules": {"H2O": ["1e-6", "1e-2"], "CO2": [1e-7, 1e-3]},  # YAML 1.1 reads 1e-3 as text
    "clouds": [100, 1e6],
    "errors": [0.5, 2.0],
}
# Two instruments that overlap, a gap, widths that differ, a bin finer than the opacities are resolved.
WAVELENGTH = np.array([0.8, 1.3, 1.4, 1.45, 1.5, 4.3, 4.301])
WIDTH = np.array([0.2, 0.1, 0.1, 0.2, 0.1, 0.3, 0.002])
ERROR = np.array([50.0, 40, 30, 80, 30, 100, 400])  # ppm
INSTRUMENT = ["NIRISS order 2", *["NIRISS order 1"] * 4, *["MIRI"] * 2]
EVERYTHING = {  # of an atmosphere that JWST spectra ask for
    **PLANET,
    "molecules": {**PLANET["molecules"], "SO2": [1e-8, 1e-4], "Na": [1e-9, 1e-5], "K": [1e-10, 1e-6]},
    "haze": {"factor": [1, 1e4], "slope": [-10, -2]},
    "cloud_fraction": [0, 1],
    "temperature_gradient": [-20, 100],
    "offsets": {"MIRI": 100, "niriss order 1": "50 ppm"},
}


def write(folder, columns="wavelength,full_width,depth,error", planet=PLANET, **replaced):
    """Write an observation and a planet file; a column of the observation may be replaced."""
    values = {"wavelength": WAVELENGTH, "full_width": WIDTH, "depth": np.full(7, 21000.0), "error": ERROR} | replaced
    values["instrument"] = INSTRUMENT
    rows = zip(*(values[name.partition("[")[0]] for name in columns.split(",")))
    observation = folder / "seen.csv"
    lines = [",".join(v if isinstance(v, str) else f"{float(v):.6g}" for v in row) for row in rows]
    observation.write_text("\n".join([columns, *lines]))
    (folder / "planet.yaml").write_text(yaml.safe_dump(planet))
    return observation, folder / "planet.yaml"


def changed(key, value):
    """Return PLANET with a value replaced, by its dotted key; None of a section leaves it out."""
    tree = json.loads(json.dumps(PLANET))
    *sections, name = key.split(".")
    node = tree
    for section in sections:
        node = node[section]
    node[name] = value
    return tree


BAD_OBSERVATIONS = {
    "width of zero": ({"full_width": WIDTH * [1, 1, 0, 1, 1, 1, 1]}, "not positive in 1 row"),
    "negative width": ({"full_width": WIDTH * [1, 1, 1, -1, 1, 1, 1]}, "not positive in 1 row"),
    "negative error": ({"error": -ERROR}, "errors are not positive in 7 rows"),
    "missing error": ({"error": ERROR * [1, 1, np.nan, 1, 1, 1, 1]}, "missing or infinite values in 1 row"),
    "depth in no known unit": ({"columns": "wavelength,full_width,depth[mag],error"}, "expected fraction, percent"),
    "depth between two units": ({"depth": np.full(7, 0.1)}, "unit of the depths cannot be guessed"),
    "wavelength in no known unit": ({"columns": "wavelength[parsec],full_width,depth,error"}, "expected micron, nm"),
    "wavelength in nanometre unsaid": ({"wavelength": WAVELENGTH * 1e3}, "expected micron"),
    "bins bluer than the opacities": ({"wavelength": WAVELENGTH - 0.4}, "1 of 7 bins lie outside of the opacities"),
    "bins redder than the opacities": ({"wavelength": WAVELENGTH + 5}, "2 of 7 bins lie outside of the opacities"),
    "bins in disorder": ({"wavelength": WAVELENGTH[[0, 2, 1, 3, 4, 5, 6]]}, "not sorted"),
    "one bin twice": ({"wavelength": WAVELENGTH[[0, 1, 1, 3, 4, 5, 6]]}, "1 duplicate"),
}
BAD_PLANETS = {
    "unknown molecule": ("molecules.HCN", [1e-9, 1e-4], "molecules.HCN: no such setting; expected one of H2O, CH4"),
    "no molecule": ("molecules", {}, "molecules: expected the range of at least one, received none"),
    "all molecules left out": ("molecules", {"H2O": None}, "molecules: expected the range of at least one"),
    "abundance in per cent": ("molecules.H2O", [1e-4, 10.0], "molecules.H2O[1]: expected a value at most 0.15"),
    "abundance as a logarithm": ("molecules.H2O", [-6, -2], "molecules.H2O[0]: expected a value at least 1e-15"),
    "abundance of zero": ("molecules.H2O", [0, 1e-2], "molecules.H2O[0]: expected a value at least 1e-15"),
    "prior upside down": ("planet.mass", [2, 0.5], "planet.mass: expected [low, high] with low < high"),
    "prior without a width": ("planet.radius", [1, 1], "planet.radius: expected [low, high] with low < high"),
    "prior of one number": ("planet.temperature", [900], "planet.temperature: expected [low, high] with low < high"),
    "a number for a range": ("planet.mass", 1.0, "planet.mass: expected a list"),
    "mass in kilograms": ("planet.mass", [1e27, 2e27], "planet.mass[0]: expected a value at most 20"),
    "radius in metres": ("planet.radius", [7e7, 8e7], "planet.radius[0]: expected a value at most 3"),
    "hotter than the opacities": ("planet.temperature", [800, 3000], "expected a value at most 2500"),
    "star in metres": ("star.radius", 7e8, "star.radius: expected a value at most 20"),
    "no star radius": ("star", {"temperature": 5000}, "star.radius: expected in the file; missing"),
    "no mass": ("planet", {"radius": [1, 2], "temperature": [800, 900]}, "planet.mass: expected in the file; missing"),
    "unknown setting": ("planet.gravity", 10, "planet.gravity: no such setting"),
    "misspelt setting": ("cloud", [1, 10], "cloud: no such setting; did you mean 'clouds'?"),
    "clouds above the model": ("clouds", [1e-6, 10], "clouds[0]: expected a value at least 0.001"),
    "slope of no haze": ("haze", {"slope": [-10, -2]}, "haze.slope: expected haze.factor beside it"),
    "haze upside down": ("haze", {"factor": [10, 1]}, "haze.factor: expected [low, high] with low < high"),
    "haze of nothing": ("haze", {"factor": [0, 10]}, "haze.factor[0]: expected a value at least 0.0001"),
    "haze as a number": ("haze", 10, "haze: expected settings as 'name: value'"),
    "more than all of the limb": ("cloud_fraction", [0, 1.5], "cloud_fraction[1]: expected a value at most 1"),
    "gradient upside down": ("temperature_gradient", [100, -20], "temperature_gradient: expected [low, high]"),
    "gradient to below 100 K": (
        "temperature_gradient",
        [0, 300],
        "no planet colder than 100 K anywhere, received",
    ),
    "offsets as a list": ("offsets", [100], "offsets: expected INSTRUMENT: ppm"),
    "offset of nothing": ("offsets", {"MIRI": 0}, "offsets.MIRI: expected ppm, above 0"),
    "offset in words": ("offsets", {"MIRI": "large"}, "offsets.MIRI: expected ppm, above 0"),
    "offset twice": ("offsets", {"NIRISS": 50, "NIRISS order 1": 50}, "expected each instrument once"),
    "nothing but metals": (
        "molecules",
        {name: [0.01, 0.15] for name in ("H2O", "CH4", "CO", "CO2", "NH3", "SO2")},
        "add up to at most 0.8",
    ),
    "errors upside down": ("errors", [2, 1], "errors: expected [low, high] with low < high"),
    "atmosphere without a top": ("planet.mass", [0.02, 2], "radius of at least 25 scale heights, received"),
}


@pytest.mark.parametrize("changes, words", BAD_OBSERVATIONS.values(), ids=BAD_OBSERVATIONS)
def test_bad_observation_is_refused_in_one_line(tmp_path, changes, words):
    observation, planet = write(tmp_path, **changes)
    with pytest.raises(InputError) as refusal:
        survey_design(observation, planet)
    assert words in str(refusal.value) and str(observation) in str(refusal.value)


def test_bins_without_widths_reach_half_way_to_their_neighbours(tmp_path):
    wavelength = np.array([1, 1.1, 1.21, 1.33, 1.46, 1.6, 1.75])
    edges = survey_design(*write(tmp_path, columns="wavelength,depth,error", wavelength=wavelength)).edges
    np.testing.assert_allclose(edges[1:-1, 1] - edges[1:-1, 0], (wavelength[2:] - wavelength[:-2]) / 2)


@pytest.mark.parametrize("key, value, words", BAD_PLANETS.values(), ids=BAD_PLANETS)
def test_bad_planet_file_is_refused_in_one_line(tmp_path, key, value, words):
    observation, planet = write(tmp_path, "wavelength,full_width,depth,error,instrument", changed(key, value))
    with pytest.raises(InputError) as refusal:
        survey_design(observation, planet)
    assert words.format(seen=observation) in str(refusal.value) and str(planet) in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_covered_fraction_of_nothing_is_refused(tmp_path):
    planet = {key: value for key, value in PLANET.items() if key != "clouds"} | {"cloud_fraction": [0, 1]}
    with pytest.raises(InputError, match="cloud_fraction: expected clouds or haze"):
        survey_design(*write(tmp_path, planet=planet))


def test_offsets_without_a_column_of_instruments_are_left_out_and_said(tmp_path, caplog):
    design = survey_design(*write(tmp_path, planet=changed("offsets", {"MIRI": 50})))
    assert not design.offsets and "no column of instruments" in caplog.text


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"molecules": {"H2O": [1e-6, 1e-2], "SO2": [1e-8, 1e-4]}}, "molecules.SO2: no bin lies in its bands"),
        ({"molecules": {"H2O": [1e-6, 1e-2], "Na": [1e-8, 1e-4]}}, "molecules.Na: no bin lies in its bands (0.57-0.61"),
        ({"temperature_gradient": [0, 200]}, "temperatures from 200 to 2100 K, opacities are those of 450 to 2500 K"),
        ({"offsets": {"NIRISS": 50, "MIRI": 50}}, "offsets of all instruments"),
        ({"offsets": {"NIRSpec": 50}}, "offsets.NIRSpec: left out, no such instrument in"),
        ({"offsets": {"MIR": 50}}, "offsets.MIR: left out, no such instrument in"),
    ],
)
def test_what_the_spectrum_cannot_tell_is_said_in_one_line(tmp_path, changes, words, caplog):
    survey_design(*write(tmp_path, "wavelength,full_width,depth,error,instrument", {**PLANET, **changes}))
    said = [record.getMessage() for record in caplog.records if words in record.getMessage()]
    assert len(said) == 1 and "\n" not in said[0]


@pytest.mark.parametrize(
    "text, words",
    [("- 1\n", "expected settings"), ("a: &x 1\nb: *x\n", "alias"), ("star: [", "plain YAML"), ("star: 1\n", "star")],
)
def test_a_file_that_is_no_planet_is_refused(tmp_path, text, words):
    (tmp_path / "planet.yaml").write_text(text)
    with pytest.raises(InputError, match=words):
        load_planet(tmp_path / "planet.yaml")


@pytest.mark.parametrize(
    "name, bins, instruments",
    [
        ("wasp39b_prism", 109, 1),
        ("wasp39b_niriss", 129, 2),
        ("wasp39b", 109, 7),
        ("wasp39b_jwst", 111, 7),
        ("wasp12b_wfc3", 13, 2),
        ("wasp107b", 108, 4),
    ],
)
def test_shipped_observations_are_read_with_stated_units_and_fit_their_planet_file(name, bins, instruments):
    path = SHIPPED / f"{name}.ecsv"
    seen = read_observation(path)
    assert seen.note == "depths in ppm (stated); full widths (stated)"
    assert len(seen.wavelength) == bins and len(set(seen.instrument)) == instruments
    design = survey_design(path, SHIPPED / f"{name.split('_')[0]}.yaml")
    smallest, largest = design.bare_depth(np.array(design.priors["Rp"][2]))
    assert smallest < seen.depth.min() < largest * 1.2
    np.testing.assert_array_equal(design.wavelength, seen.wavelength)


# --- the design ---


@pytest.fixture
def design(tmp_path):
    return survey_design(*write(tmp_path))


def test_planets_fill_their_priors_and_what_is_left_out_is_absent(design):
    amps = design.draw_amps(500, 3)
    low, high = design.limits()
    assert list(design.priors) == ["H2O", "CO2", "Mp", "Rp", "Tp", "Pclouds"]
    np.testing.assert_allclose(low[:2], [-6, -7])
    np.testing.assert_allclose([low[2], high[3]], [np.log10(0.5 * 1.898e27), 1.2 * 6.9911e7])
    assert (amps.min(axis=0) >= low - 1e-5).all() and (amps.max(axis=0) <= high * (1 + 1e-6)).all()


@pytest.fixture
def jwst(tmp_path):
    """A design with every term."""
    return survey_design(*write(tmp_path, "wavelength,full_width,depth,error,instrument", EVERYTHING))


def test_parameters_more_leave_the_other_numbers_of_a_planet_alone(design, jwst):
    assert list(jwst.priors) == [
        "H2O", "CO2", "SO2", "Na", "K", "Mp", "Rp", "Tp", "T_gradient", "Pclouds", "cloud_fraction", "haze_factor",
        "haze_slope",
    ]  # fmt: skip
    same = [list(jwst.priors).index(key) for key in design.priors]
    np.testing.assert_array_equal(jwst.draw_amps(5, 3)[:, same], design.draw_amps(5, 3))
    np.testing.assert_array_equal(jwst.draw_errors(5, 3), design.draw_errors(5, 3))
    low, high = jwst.limits()
    np.testing.assert_allclose([low[8], high[8], low[11], high[11], low[12]], [-20, 100, 0, 4, -10])
    drawn = jwst.draw_amps(300, 3)
    assert len(set(np.round(drawn[0] % 1, 6))) > 10 and (np.ptp(drawn, axis=0) > 0.9 * (high - low)).all()


def test_offsets_are_gaussian_and_of_each_instrument_alone(jwst):
    assert {name: bins.tolist() for name, (_, bins) in jwst.offsets.items()} == {
        "MIRI": [False] * 5 + [True] * 2,
        "niriss order 1": [False, True, True, True, True, False, False],
    }
    drawn = jwst.draw_offsets(4000, 3)
    np.testing.assert_allclose(drawn.std(axis=0), [1e-4, 5e-5], rtol=0.05)
    assert np.abs(np.corrcoef(drawn.T)[0, 1]) < 0.05 and np.abs(drawn.mean(axis=0)).max() < 5e-6
    np.testing.assert_array_equal(jwst.draw_offsets(2, 3, start=5), drawn[5:7])


def test_a_survey_with_every_term_is_written_and_read(jwst, tmp_path):
    survey.simulate(6, 3, tmp_path / "all.h5", processes=1, progress=False, design=jwst)
    data = load_dataset(tmp_path / "all.h5")
    assert data.amp_names == tuple(jwst.priors) and set(data.molecule_curves) == {
        "none",
        "H2O",
        "CO2",
        "SO2",
        "Na",
        "K",
    }
    plain = survey.forward_model(jwst).depth(jwst.draw_amps(6, 3))
    shift = data.spectra - plain
    expected = jwst.draw_offsets(6, 3)
    np.testing.assert_allclose(shift[:, 0], 0, atol=7e-8)  # no offset of this instrument
    np.testing.assert_allclose(shift[:, 5], expected[:, 0], atol=1e-7)
    np.testing.assert_allclose(shift[:, 1:5], expected[:, 1:] * np.ones(4), atol=1e-7)
    with h5py.File(tmp_path / "all.h5") as file:
        np.testing.assert_allclose(file["offsets"][()], expected, rtol=1e-6)
        assert list(file["offsets"].attrs["instruments"]) == ["MIRI", "niriss order 1"]
        assert "linear in log pressure" in file.attrs["atmosphere"] and "haze" in file.attrs["atmosphere"]


def test_without_clouds_the_deck_lies_at_the_bottom(tmp_path):
    clear = survey_design(*write(tmp_path, planet=changed("clouds", None)))
    assert "Pclouds" not in clear.priors
    cloudy = ForwardModel(
        Opacities.load(), names=(*clear.priors, "Pclouds"), edges=clear.edges, star_radius=clear.star_radius
    )
    amps = clear.draw_amps(3, 0)
    deepest = np.column_stack([amps, np.full(3, 6.0)])  # 1e6 Pa
    np.testing.assert_array_equal(survey.forward_model(clear).depth(amps), cloudy.depth(deepest))


def test_errors_are_those_of_the_observation_times_one_number_per_planet(design):
    ratio = design.draw_errors(400, 5) / (ERROR * 1e-6)
    np.testing.assert_allclose(ratio, ratio[:, :1] * np.ones(7), rtol=5e-4)  # they are rounded to 0.0075 ppm
    assert 0.5 <= ratio.min() < 0.52 and 1.95 < ratio.max() <= 2.001
    np.testing.assert_allclose(np.median(ratio), 1, rtol=0.1)  # log-uniform


def test_bins_finer_than_the_opacities_are_counted_and_said(design, tmp_path, caplog):
    assert resolution_text(ARIEL.edges)[1] == 0
    assert resolution_text(design.edges)[1] == 1 and "1 of 7 bins are finer" in design.sources["resolution"]
    with caplog.at_level(logging.INFO):
        survey_design(*write(tmp_path))
    assert [record.levelname for record in caplog.records if "are finer" in record.message] == ["WARNING"]


def test_priors_that_cannot_reach_the_observed_depth_are_said(tmp_path, caplog):
    survey_design(*write(tmp_path, depth=np.full(7, 2000.0)))
    assert "are they right?" in caplog.text


def test_another_design_is_another_identity(design):
    others = [dataclasses.replace(design, **change) for change in ({"star_radius": 0.81}, {"error_scale": (0.5, 2.1)})]
    assert len({design.identity(), *(other.identity() for other in others)}) == 3
    assert dataclasses.replace(design, sources={}).identity() == design.identity()


# --- the survey ---


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Forty planets made through the command line by one process; (file, observation, planet file)."""
    folder = tmp_path_factory.mktemp("survey")
    observation, planet = write(folder)
    command = [sys.executable, "-m", "simulation", "--n", "40", "--seed", "2", "--processes", "1"]
    command += ["--observation", observation, "--planet", planet, "--out", folder / "survey.h5"]
    result = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "1 of 7 bins are finer" in result.stderr
    return folder / "survey.h5", observation, planet


def test_each_bin_of_a_grid_with_gaps_and_overlaps_is_the_forward_model_s(made):
    path, *files = made
    data, design = load_dataset(path), survey_design(*files)
    np.testing.assert_allclose(data.wavelength, WAVELENGTH)
    np.testing.assert_allclose(data.bin_width, WIDTH)
    assert data.amp_names == ("H2O", "CO2", "Mp", "Rp", "Tp", "Pclouds") and not data.noisy
    amps = np.full((40, 9), -np.inf)
    amps[:, [0, 3, 5, 6, 7, 8]] = data.amps
    for i in (0, 3, 5, 6):  # a bin alone, whatever lies beside it, over it or in the gap
        alone = ForwardModel(Opacities.load(), edges=design.edges[[i]], star_radius=0.8).depth(amps[:3])
        np.testing.assert_allclose(data.spectra[:3, i], alone[:, 0], atol=4e-8)  # stored to 0.06 ppm
    assert set(data.molecule_curves) == {"none", "H2O", "CO2"}


def test_file_says_what_it_was_made_from(made):
    with h5py.File(made[0]) as file:
        assert file.attrs["observation"] == str(made[1]) and file.attrs["planet"] == str(made[2])
        assert "1 of 7 bins are finer" in file.attrs["resolution"]
        assert file.attrs["star"] == "blackbody, 5000 K, 0.8 solar radius"
        assert "times 0.5 to 2" in file.attrs["noise"]


def test_interrupted_survey_goes_on_from_its_finished_chunks(made, tmp_path, monkeypatch):
    path, *files = made
    design, out, parts = survey_design(*files), tmp_path / "out.h5", tmp_path / "out.h5.parts"
    computed = []

    def run_here(todo, n, opacities, processes, progress, design):
        survey._model, survey._design = survey.forward_model(design), design
        for task in todo:
            if computed == [0]:
                computed.append("interrupted")
                raise KeyboardInterrupt
            computed.append(task[1]["start"])
            survey._make_chunk(task)

    monkeypatch.setattr(survey, "CHUNK", 4)
    monkeypatch.setattr(survey, "_run", run_here)
    with pytest.raises(KeyboardInterrupt):
        survey.simulate(12, 2, out, design=design)
    with pytest.raises(ValueError, match="planets of another survey"):  # chunks of another star are not taken
        survey.simulate(12, 2, out, design=dataclasses.replace(design, star_radius=0.9))
    survey.simulate(12, 2, out, design=design)
    assert computed == [0, "interrupted", 4, 8] and not parts.exists()
    with h5py.File(out) as again, h5py.File(path) as whole:
        for key in ("spectra", "errors", "amps"):
            np.testing.assert_array_equal(again[key][()], whole[key][:12])


# --- in one command ---

SETTINGS = """
seed: 2
model: {mlp: {units: [8]}}
training: {epochs: 1, cv: 1, processes: 1}
sensitivity: {enabled: false}
sensitivity_single: {no_spectra: 2}
"""


def test_one_command_goes_on_after_the_survey_trains_and_answers(made, tmp_path, warm):
    pytest.importorskip("tensorflow")
    path, observation, planet = made
    folder = tmp_path / "study"
    folder.mkdir()
    shutil.copy(path, folder)
    (tmp_path / "config.yaml").write_text(SETTINGS)
    argv = ["--config", tmp_path / "config.yaml", "--observation", observation, "--planet", planet, "--n", 40]
    argv += ["--output", folder, "--resume"]
    done = warm.run(argv, tmp_path / "first", quick_figures=True)
    assert done.status == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"the estimate for {observation}: {folder / 'answer'}"
    assert sorted(p.name for p in folder.iterdir()) == ["answer", "run", "study.yaml", "survey.h5"]
    answer = (folder / "answer" / "amps.csv").read_bytes()
    assert [line.split(b",")[0] for line in answer.splitlines()[1:]] == [
        b"H2O",
        b"CO2",
        b"Mp",
        b"Rp",
        b"Tp",
        b"Pclouds",
    ]
    again = warm.run(argv, tmp_path / "again", quick_figures=True, watch=folder / "run")
    assert again.status == 0 and again.stdout.count("finished, nothing to do") == 3, again.stdout
    assert (folder / "answer" / "amps.csv").read_bytes() == answer


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--planet", "p.yaml"], "expected --observation FILE beside it"),
        (["--planet", "p.yaml", "--observation", "o", "--apply", "r"], "and no --apply"),
        (["--planet", "p.yaml", "--observation", "o", "--n", "3"], "--n of at least 10"),
        (["--planet", "p.yaml", "--observation", "o", "--model", "all"], "one network"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(argv, words, capsys):
    with pytest.raises(SystemExit):
        runfile.parse_arguments(argv)
    assert words in capsys.readouterr().err
