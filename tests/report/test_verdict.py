"""The verdict on each AMP: how good it is, where the network looks beside the best estimator, and a conclusion."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from example_runs import write_run

from common.metrics import shares
from loaders import load_dataset
from preprocessing import take
from report.best_estimator import (
    CARE,
    DISTRUST,
    RULES,
    TRUST,
    UNKNOWN,
    BestEstimator,
    Verdict,
    best_estimator_of,
    half_of_the_map,
    verdicts,
)
from report.page import build_page
from runio.results import load_run

ROOT = Path(__file__).parents[2]

ENDS = np.stack([np.arange(10.0), np.arange(1.0, 11.0)], axis=1)


def test_the_named_wavelengths_hold_half_of_the_map_in_as_few_bins_as_can_be():
    values = np.array([0, 0, 3, 3, 0, 0, 1, 0, 2, 1.0])
    assert half_of_the_map(values, ENDS) == [(2.0, 4.0, 0.6)]
    assert half_of_the_map(np.array([0, 4, 0, 0, 0, 0, 0, 0, 3, 3.0]), ENDS) == [(1.0, 2.0, 0.4), (8.0, 9.0, 0.3)]
    assert len(half_of_the_map(np.ones(10), ENDS)) == 1
    rounded = ENDS + np.array([[0.0, -0.001]])  # ends as a table with few digits gives them
    assert half_of_the_map(values, rounded) == [(2.0, 3.999, 0.6)]
    assert len(half_of_the_map(values, ENDS + np.array([[0.0, -0.1]]))) == 2
    (one,) = half_of_the_map(np.array([1.0]), np.array([[1.0, 2.0]]))
    assert one == (1.0, 2.0, 1.0)


def information(path, run, seed=7, sha256="right", n=40, variance=0.25):
    """Write posteriors whose means lie 0.3 from the run's predictions, and an optimal map."""
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


def test_the_best_estimator_is_used_only_for_the_data_set_it_was_made_for(tmp_path, run):
    assert best_estimator_of(run) is None
    path = tmp_path / "information.h5"
    information(path, run, sha256="another")
    assert best_estimator_of(run) is None
    information(path, run)
    assert best_estimator_of(run).amp_names == run.amp_names
    path.write_bytes(b"damaged")
    assert best_estimator_of(run) is None
    path.unlink()
    os.mkfifo(path)  # not waited for
    assert best_estimator_of(run) is None
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    del config["data_sha256"]
    (run.folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert best_estimator_of(load_run(run.folder, unverified=True)) is None


def test_the_best_estimator_of_a_data_set_is_that_of_its_first_rows_too(tmp_path, run):
    """A run with --size is of the same planets; one of a changed data set is not."""
    path = tmp_path / "survey.h5"
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["spectra"], file["errors"] = rng.uniform(0.01, 0.02, (30, 13)), np.full((30, 13), 1e-5)
        file["wavelength"] = run.wavelength
        file["amps"] = rng.uniform(-8, -2, (30, 3))
        file["amps"].attrs["names"] = list(run.amp_names)
    data = load_dataset(path)
    information(tmp_path / "information.h5", run, sha256=data.sha256())
    run.config["data"]["size"], run.config["data_sha256"] = 20, take(data, 20).sha256()
    assert best_estimator_of(run).amp_names == run.amp_names
    run.config["data"]["size"] = 21
    assert best_estimator_of(run) is None


def test_squared_error_over_the_limit_is_paired_where_it_can_be(tmp_path, run):
    information(tmp_path / "information.h5", run)
    ratio, error = best_estimator_of(run).error_ratio(run, run.best.y_pred)
    np.testing.assert_allclose(ratio, 1 + 0.09 / 0.25)
    np.testing.assert_allclose(error, 0, atol=1e-9)
    information(tmp_path / "information.h5", run, seed=8)
    ratio, error = best_estimator_of(run).error_ratio(run, run.best.y_pred)
    np.testing.assert_allclose(ratio, ((run.best.y_pred - run.y_test) ** 2).mean(axis=0) / 0.25)
    assert (error > 0).all()


def test_the_error_of_the_optimal_shares_is_that_of_many_such_samples(tmp_path, run):
    estimators = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        information(tmp_path / "information.h5", run)
        with h5py.File(tmp_path / "information.h5", "a") as file:
            shape = file["sampler/optimal_map"].shape
            file["sampler/optimal_map"][...] = rng.gamma(1, 1, (shape[0], 1, 1)) * rng.gamma(2, 1, shape)
        estimators.append(BestEstimator.load(tmp_path / "information.h5"))
    spread = np.std([shares(one.optimal_map) for one in estimators], axis=0)
    told = np.mean([one.share_error for one in estimators], axis=0)
    np.testing.assert_allclose(told.mean(), spread.mean(), rtol=0.1)


def test_a_network_that_looks_where_the_best_does_is_told_from_one_that_does_not(tmp_path, run):
    information(tmp_path / "information.h5", run)
    best, exact = best_estimator_of(run), run.best.sensitivity_single.mean
    for one in verdicts(run, best._replace(optimal_map=exact / 1.4)):
        assert one.agreement == pytest.approx(1) and one.reaction == pytest.approx(1.4)
        assert one.misplaced == pytest.approx(0) and not one.differing
        assert any("noise changes it 1.40 times as much" in reason for _, reason in one.broken)
        assert one.in_bands == pytest.approx(one.best_in_bands)
    for one in verdicts(run, best._replace(optimal_map=exact[:, ::-1])):
        assert one.level == DISTRUST and "Largest difference" in one.where
        low, high, share, optimal = one.differing[0]
        bin = int(np.argmin(np.abs(np.log(run.wavelength) - np.log(low * high) / 2)))
        assert share == pytest.approx(shares(exact)[run.amp_names.index(one.amp.key), bin])
        assert optimal == pytest.approx(shares(exact)[run.amp_names.index(one.amp.key), -1 - bin])


def test_the_page_explains_the_limit_the_rules_and_which_spectra_they_are_measured_on(tmp_path, run):
    information(tmp_path / "information.h5", run)
    page = build_page(run, {})
    result = page[page.index('id="result"') : page.index("<main")]
    assert "the limit, the smallest squared error that any estimator can have" in result
    for text in (
        "R² on the test spectra at least 0.7, squared error / limit at most 1.4, ",
        f"measured on the 40 spectra with sampled posteriors, R² and the mean squared error on all {len(run.y_test)}",
        "in all above, at least 70\N{NO-BREAK SPACE}% of true values are within 0.5 dex",
    ):
        assert text in page, text


def test_a_molecule_says_from_which_abundance_on_it_is_credible(run):
    good = Verdict(run.amp_table[0], **GOOD)
    told = {
        -5.0: "Trust it from log₁₀ VMR −5.0 up.",
        np.inf: "Trust it. Even its largest abundances are too rarely within 0.5 dex of the truth.",
        None: "Trust it.",
    }
    for start, text in told.items():
        assert good._replace(credible_from=start).conclusion.replace("\N{NO-BREAK SPACE}", " ") == text
    assert "up" not in good._replace(credible_from=-5.0, r2=0.1).conclusion
    assert (
        good._replace(r2=-0.04).conclusion == "Do not trust it, because it is no better than the mean of all planets."
    )


def test_without_a_best_estimator_nothing_is_claimed_of_it(run):
    for one in verdicts(run):
        assert one.agreement is one.error_ratio is None
        assert "best" not in one.how_good + one.where and "limit" not in one.how_good
        assert one.level >= CARE and one.broken[-1] == (CARE, UNKNOWN)
        assert one.in_bands is not None and "in the molecule's bands" in one.where


GOOD = {"r2": 0.9, "ranges": [(1.0, 2.0, 0.6)], "error_ratio": 1.1, "error_ratio_error": 0.01, "unknowable": 0.1,
        "agreement": 0.95, "misplaced": 0.02, "reaction": 1.0}  # fmt: skip


def test_the_best_numbers_are_trusted_without_a_reason(run):
    one = Verdict(run.amp_table[0], **GOOD)
    assert one.level == TRUST and one.conclusion == "Trust it."
    text = one.how_good.replace("\N{NO-BREAK SPACE}", " ")
    assert text.startswith("R² 0.90, squared error 1.100 ± 0.010 times the limit; 10 % of its variance")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.quantity)
def test_every_rule_has_a_threshold_for_care_and_one_for_distrust(run, rule):
    step = 1e-3 if rule.below else -1e-3
    for value, level in ((rule.care, TRUST), (rule.care - step, CARE), (rule.distrust - step, DISTRUST)):
        known = dict(GOOD)
        if rule.quantity == "below_limit":
            known |= {"error_ratio": 1 - value / 100, "error_ratio_error": 0.01}
            value = 1e-9 + (1 - known["error_ratio"]) / 0.01
        elif rule.quantity == "enrichment":
            known |= {"enrichment": value} | dict.fromkeys(("agreement", "misplaced", "reaction"))
        else:
            known[rule.quantity] = value
        one = Verdict(run.amp_table[0], **known)
        if rule.quantity == "enrichment":
            level = max(level, CARE)  # without the best estimator
        if rule.quantity != "below_limit" or level != TRUST:
            assert one.level == level, (rule.quantity, value, one.broken)
        assert (one.conclusion == "Trust it.") is (one.level == TRUST)


def test_no_map_and_no_number_are_never_trusted(run):
    assert Verdict(run.amp_table[0], 0.9, []).where == "No bin changes this prediction."
    assert Verdict(run.amp_table[0], float("nan"), []).level == DISTRUST
    assert Verdict(run.amp_table[0], **{**GOOD, "agreement": float("nan")}).level == DISTRUST


def test_the_page_on_the_method_shows_the_thresholds_of_the_code():
    page = (ROOT / "docs/method.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert f"| {rule.meaning} | {'below' if rule.below else 'above'} {rule.care:g} | " in page, rule.quantity
        assert f"{'below' if rule.below else 'above'} {rule.distrust:g} |" in page, rule.quantity
