"""The first screen of the report: what each answer rests on, beside the best possible estimator."""

import h5py
import numpy as np
import pytest
import yaml
from example_runs import write_run

from report.best_estimator import Verdict, Yardstick, half_of_the_map, verdicts, yardstick_of
from runio.results import load_run

EDGES = np.arange(11.0)


def test_the_named_wavelengths_hold_half_of_the_map_in_as_few_bins_as_can_be():
    values = np.array([0, 0, 3, 3, 0, 0, 1, 0, 2, 1.0])
    assert half_of_the_map(values, EDGES) == [(2.0, 4.0, 0.6)]
    assert half_of_the_map(np.array([0, 4, 0, 0, 0, 0, 0, 0, 3, 3.0]), EDGES) == [(1.0, 2.0, 0.4), (8.0, 9.0, 0.3)]
    assert len(half_of_the_map(np.ones(10), EDGES)) == 1
    (piece,) = half_of_the_map(np.array([1.0]), np.array([1.0, 2.0]))
    assert piece == (1.0, 2.0, 1.0)


def information(path, run, seed=7, sha256="right", n=40, variance=0.25):
    """Write posteriors whose means lie 0.3 from the run's answers, and an optimal map."""
    rng = np.random.default_rng(0)
    n_amps, n_bins = len(run.amp_table), len(run.wavelength)
    with h5py.File(path, "w") as file:
        file.attrs["amp_names"], file.attrs["seed"] = list(run.amp_names), seed
        file.attrs["data_sha256"] = sha256
        file["sampler/rows"] = run.test_rows[:n]
        file["sampler/mean"] = run.best.y_pred[:n] + 0.3
        file["sampler/variance"] = np.full((n, n_amps), variance)
        file["sampler/optimal_map"] = rng.random((n, n_amps, n_bins)) * np.arange(1, n_bins + 1)


@pytest.fixture
def run(tmp_path):
    settings = {"data": {"path": str(tmp_path / "survey.h5")}, "data_sha256": "right"}
    return load_run(write_run(tmp_path / "run", n_amps=3, n_bins=13, n_folds=2, curves=False, settings=settings))


def test_the_yardstick_is_used_only_for_the_data_set_it_was_made_for(tmp_path, run):
    assert yardstick_of(run) is None
    path = tmp_path / "information.h5"
    information(path, run, sha256="another")
    assert yardstick_of(run) is None
    information(path, run)
    assert yardstick_of(run).amp_names == run.amp_names
    path.write_bytes(b"damaged")
    assert yardstick_of(run) is None
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    del config["data_sha256"]
    (run.folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert yardstick_of(load_run(run.folder)) is None


def test_squared_error_over_the_limit_is_paired_where_it_can_be(tmp_path, run):
    information(tmp_path / "information.h5", run)
    ratio, error = yardstick_of(run).error_ratio(run, run.best.y_pred)
    np.testing.assert_allclose(ratio, 1 + 0.09 / 0.25)
    np.testing.assert_allclose(error, 0, atol=1e-9)
    information(tmp_path / "information.h5", run, seed=8)
    ratio, error = yardstick_of(run).error_ratio(run, run.best.y_pred)
    np.testing.assert_allclose(ratio, ((run.best.y_pred - run.y_test) ** 2).mean(axis=0) / 0.25)
    assert (error > 0).all()


def test_a_network_that_looks_where_the_best_does_is_told_from_one_that_does_not(tmp_path, run):
    information(tmp_path / "information.h5", run)
    yardstick = yardstick_of(run)
    good = Yardstick(**{**vars(yardstick), "optimal_map": run.best.sensitivity_single["mean"] / 2})
    for one in verdicts(run, good):
        assert one.agreement == pytest.approx(1) and one.reaction == pytest.approx(2)
        assert "as it should" in one.sentence and "reacts to noise 2.0 times as much as need be" in one.sentence
        assert one.in_bands == pytest.approx(one.best_in_bands)
    other = Yardstick(**{**vars(yardstick), "optimal_map": run.best.sensitivity_single["mean"][:, ::-1]})
    assert any("not only where the best estimator looks" in one.sentence for one in verdicts(run, other))


def test_without_a_yardstick_nothing_is_claimed_of_the_best_estimator(run):
    for one in verdicts(run):
        assert one.agreement is one.error_ratio is None
        assert "best" not in one.sentence and "should" not in one.sentence
        assert one.in_bands is not None and "in the molecule's own bands" in one.sentence


def test_an_answer_that_says_nothing_is_said_to(run):
    (amp, *_) = run.amp_table
    assert "little more than the prior" in Verdict(amp, 0.02, [(1.0, 2.0, 0.6)]).sentence
    assert Verdict(amp, 0.9, []).sentence == "Nothing moves this answer."
