"""The retrieval beside the network: its emulator is the physics it says, and its table says what the rows hold."""

import json
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from constants import JUPITER_MASS, JUPITER_RADIUS, SUN_RADIUS
from studies.emulator import scale_height
from studies.observation_posterior import read_rows, summary, under_true_model, write_rows
from studies.samplers import summarise
from studies.survey_emulator import Survey, SurveyEmulator, all_amps, error_text

NAMES = ("H2O", "Mp", "Rp", "Tp")
LIMITS = np.array([[-6, np.log10(0.2 * JUPITER_MASS), JUPITER_RADIUS, 500], [-1, np.log10(JUPITER_MASS),
                                                                            1.4 * JUPITER_RADIUS, 1500]])  # fmt: skip


def emulator(level, star=0.9):
    """An emulator that answers one level for all planets and three bins."""
    kernels, biases = [np.zeros((6, 2), np.float32), np.zeros((2, 3), np.float32)], [np.zeros(2), np.full(3, level)]
    return SurveyEmulator(NAMES, LIMITS, star, kernels, biases, np.array([[0.0] * 3, [1.0] * 3]))


def planets(n=50, seed=0):
    return np.random.default_rng(seed).uniform(*LIMITS, (n, 4))


def test_depth_is_that_of_the_level_over_this_star_where_the_planet_is_much_larger_than_a_scale_height():
    amps = planets()
    bare = emulator(0.0).depth(amps)
    assert bare == pytest.approx(np.tile((amps[:, 2:3] / (0.9 * SUN_RADIUS)) ** 2, 3))
    height = scale_height(all_amps(amps, NAMES))
    five = np.sqrt(emulator(5.0).depth(amps)[:, 0]) * 0.9 * SUN_RADIUS - amps[:, 2]
    assert five == pytest.approx(5 * height / (1 - 5 * height / amps[:, 2]))


def test_what_a_survey_leaves_out_is_absent():
    row = all_amps([[-3.0, 26.5, 8e7, 1000.0]], NAMES)[0]
    assert row[0] == -3 and np.isneginf(row[1:5]).all() and list(row[5:]) == [26.5, 8e7, 1000.0, 6.0]


def test_survey_is_read_with_its_priors_and_star_and_others_are_refused(tmp_path):
    priors = {"H2O": {"scale": "log10", "range": [1e-6, 1e-1]}, "Rp": {"scale": "linear", "range": [7e7, 9e7]}}
    with h5py.File(tmp_path / "survey.h5", "w") as file:
        file["amps"], file["spectra"], file["errors"] = np.zeros((4, 2)), np.ones((4, 3)), np.ones((4, 3))
        file["amps"].attrs["names"] = ["H2O", "Rp"]
        file.attrs["priors"], file.attrs["star"] = json.dumps(priors), "blackbody, 5485 K, 0.939 solar radius"
    survey = Survey.read(tmp_path / "survey.h5")
    assert survey.star == 0.939 and survey.limits == pytest.approx(np.array([[-6, 7e7], [-1, 9e7]]))
    with h5py.File(tmp_path / "survey.h5", "a") as file:
        del file.attrs["star"]
    with pytest.raises(ValueError, match="expected a survey of simulation/survey"):
        Survey.read(tmp_path / "survey.h5")


def test_emulator_comes_back_from_its_file_and_its_error_is_in_units_of_the_noise(tmp_path):
    made, amps = emulator(3.0), planets()
    made.save(tmp_path / "emulator.npz")
    again = SurveyEmulator.load(tmp_path / "emulator.npz")
    depth = made.depth(amps)
    assert again.names == NAMES and np.array_equal(again.depth(amps), depth)
    survey = Survey(NAMES, LIMITS, 0.9, amps, depth + 2e-4, np.full(depth.shape, 1e-4))
    assert "rms 2.000" in error_text(again, survey, np.arange(10))


def test_summary_counts_answers_near_the_posterior_mean_and_errors_that_are_right(tmp_path):
    base = {"amp": "H2O", "truth": -3.0, "half68": 0.4, "mean": -3.2, "deviation": 0.2}
    rows = [{"planet": f"test {i}", "answer": -3.2 + 0.2 * s, "shift": s, **base} for i, s in enumerate((0.1, 0.9))]
    rows.insert(0, {**base, "planet": "wasp39b", "truth": np.nan, "answer": -3.0, "shift": 1.0})
    write_rows(tmp_path / "rows.csv", rows)
    again = read_rows(tmp_path / "rows.csv")
    assert again[1] == rows[1] and np.isnan(again[0]["truth"])
    lines = summary(again)
    assert lines[0].startswith("wasp39b") and lines[1].split()[-1] == "1.00"
    within, rms, ratio, posterior, _ = map(float, lines[4].split()[1:])
    assert (within, ratio, posterior) == (0.5, 2.0, 1.0) and rms == pytest.approx(0.64, abs=0.005)
    assert lines[6] == "within 0.5, mean over planets: 0.500 +- 0.500"
    assert not summary([])


def test_a_posterior_of_a_wrong_emulator_is_put_right_by_the_true_model():
    """One AMP, one bin, depth = AMP; the emulator is off by 0.5 errors, so its posterior is, too."""
    rng = np.random.default_rng(0)
    wrong = SimpleNamespace(depth=lambda amps: amps + 0.5, names=("H2O",))
    true = SimpleNamespace(depth=lambda amps: amps)
    draws = -0.5 + rng.standard_normal((4000, 1))
    found = summarise(draws, np.full(4000, 1 / 4000), wrong.depth(draws), np.ones(1))
    mean, deviation, text = under_true_model(true, wrong, found, np.zeros(1), np.ones(1), rng, wrong.names)
    assert mean == pytest.approx([0], abs=0.15) and deviation == pytest.approx([1], abs=0.15)
    assert "H2O +0." in text
