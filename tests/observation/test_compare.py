"""Prediction intervals cover the truth as often as stated, and unusual spectra are found: on Gaussian toys."""

from types import SimpleNamespace

import numpy as np
import pytest

from observation.compare import (
    LEVELS,
    MIN_PLANETS,
    ONE_SIDED,
    Comparison,
    TestPlanets,
    compare,
    consistency,
    error_level,
    intervals,
    longest_row,
    planets_as_seen,
)
from studies.answer_coverage import RULES, score_intervals

PRIOR, NOISE = 2.0, 1.0  # standard deviations


def toy(n, seed, noise=NOISE):
    """Truths from a normal prior, and the posterior mean given one noisy look at them: error known in closed form."""
    rng = np.random.default_rng(seed)
    truths = PRIOR * rng.standard_normal((n, 2))
    seen = truths + noise * rng.standard_normal((n, 2))
    return seen * PRIOR**2 / (PRIOR**2 + noise**2), truths


@pytest.mark.parametrize("rule", RULES)
def test_intervals_of_a_gaussian_are_its_posterior(rule):
    answers, truths = toy(4000, seed=0)
    tested, _ = toy(60, seed=8)
    away = np.mean(intervals(answers, truths, tested, RULES[rule]) - tested, axis=(2, 3))  # of one end alone: +- 0.15
    deviation = 1 / np.sqrt(PRIOR**-2 + NOISE**-2)
    assert away[0] == pytest.approx([-deviation, deviation], abs=0.1 * deviation)
    assert away[1] == pytest.approx([-2 * deviation, 2 * deviation], abs=0.2 * deviation)


@pytest.mark.parametrize("rule", RULES)
def test_coverage_is_what_it_says_within_binomial_error(rule):
    answers, truths = toy(1500, seed=1)
    tested, wanted = toy(1500, seed=2)
    for level, (low, high) in zip(LEVELS.values(), intervals(answers, truths, tested, RULES[rule])):
        coverage, _, score = score_intervals(low, high, wanted, tested, level)
        both_halves = np.sqrt(2 * level * (1 - level) / 1500)
        assert (np.abs(coverage - level) < 4 * both_halves + 0.02).all()  # neighbours: up to 2 % too many
        assert (score > 0).all()


def test_the_local_error_follows_the_answer_where_a_global_one_does_not():
    rng = np.random.default_rng(3)
    answers = rng.uniform(-1, 1, (4000, 1))
    truths = answers + np.where(answers > 0, 1.0, 0.1) * rng.standard_normal(answers.shape)
    ends = {m: intervals(answers, truths, np.array([[-0.5], [0.5]]), q)[0] for m, q in RULES.items()}
    half = {m: (high - low)[:, 0] / 2 for m, (low, high) in ends.items()}
    assert half["local neighbours"] == pytest.approx([0.1, 1.0], rel=0.25)
    assert half["global"][0] == pytest.approx(half["global"][1]) and half["global"][0] > 0.2


def test_a_bias_moves_the_interval_and_no_end_leaves_the_simulated_range():
    rng = np.random.default_rng(4)
    truths = rng.uniform(0, 1, (2000, 1))
    answers = 0.5 * truths
    (low, high), _ = intervals(answers, truths, np.array([[0.25]]))
    assert low[0, 0] == pytest.approx(0.5, abs=0.06) and high[0, 0] == pytest.approx(0.5, abs=0.06)
    edge = intervals(truths + 0.2 * rng.standard_normal(truths.shape), truths, np.array([[0.01]]))
    assert edge.min() >= truths.min() and edge.max() <= truths.max()
    beyond = intervals(answers, truths, np.array([[5.0]]))
    assert (beyond > 1).all()  # an answer that no planet has is not brought back


def test_a_limit_of_a_posterior_that_piles_up_at_an_edge_is_its_95_per_cent_quantile():
    """A flat prior cut at 0 and an observed 0 with normal noise: half of a normal distribution, with 1.96 of noise."""
    rng = np.random.default_rng(12)
    truths = rng.uniform(0, 10, (20000, 1))
    seen = truths + rng.standard_normal(truths.shape)
    _, upper = intervals(seen, truths, np.array([[0.0]]), levels=ONE_SIDED)[0, :, 0, 0]
    assert upper == pytest.approx(1.96, abs=0.3)


def test_a_long_row_of_residuals_of_the_same_sign_is_named_beside_the_headline():
    assert longest_row(np.array([1, 1, -1, -1, -1, 1.0])) == slice(2, 5) and longest_row(np.ones(1)) == slice(0, 1)
    residuals = np.array([1, -1, 1, 1, 1, -1.0])
    for share, place in ((0.04, 0), (0.5, 1)):
        like = Comparison(1.0, 0.5, 1.0, 0.5, 1.0, 0.5, residuals, np.zeros(6), 500, 0.0, longest_row(residuals), share)
        sentences = consistency(like, None, np.arange(1.0, 7)).sentences
        assert "All 3 bins from 3 to 5 µm lie above" in sentences[place] and "All 3" not in sentences[1 - place]


def test_few_planets_give_no_interval_and_twins_no_zero_division():
    answers, truths = toy(MIN_PLANETS - 1, seed=5)
    assert np.isnan(intervals(answers, truths, answers[:3])).all()
    same = np.zeros((200, 2))
    assert np.isfinite(intervals(same, same, same[:1])).all()
    with pytest.raises(ValueError, match="predictions, truths, estimates: expected"):
        intervals(answers, truths[:5], answers)


def run_of(noisy=False, n=600, n_bins=20, seed=6):
    """A run whose spectra are linear in two AMPs, which its network finds by least squares."""
    rng = np.random.default_rng(seed)
    shapes = np.stack([np.ones(n_bins), np.linspace(-1, 1, n_bins)])
    truths, error = rng.uniform(-1, 1, (n, 2)), np.full(n_bins, 0.01)
    spectra = 1 + truths @ shapes + (error * rng.standard_normal((n, n_bins)) if noisy else 0)
    kept = {"rows": np.arange(n), "spectra": spectra, "error": error, "error_level": np.ones(n)}
    network = SimpleNamespace(predict=lambda x, _=None: (x - 1) @ np.linalg.pinv(shapes))
    return SimpleNamespace(reference=kept, y_test=truths, data={"noisy": noisy}), network


@pytest.mark.parametrize("noisy", [False, True])
def test_a_spectrum_like_the_simulated_ones_is_inside_and_one_with_a_band_is_outside(noisy):
    run, network = run_of(noisy)
    planets = planets_as_seen(run, network, run.reference["error"], seed=0)
    rng, row = np.random.default_rng(7), 11
    plain = run.reference["spectra"][row] + (0 if noisy else 0.01 * rng.standard_normal(20))
    strange = plain + 0.1 * (np.arange(20) == 4)
    inside, outside = (compare(x, network.predict(x[None])[0], planets) for x in (plain, strange))
    assert not inside.outside and np.abs(inside.standardised).max() < 4
    assert outside.outside and np.abs(outside.standardised).argmax() == 4 and outside.standardised[4] > 4
    assert outside.expected[4] == pytest.approx(plain[4], abs=0.05)
    deep = compare(plain + 5, network.predict(plain[None] + 5)[0], planets)
    assert deep.outside and deep.beyond > 0.05 and inside.beyond == 0
    found = consistency(outside, None, np.arange(20.0))
    assert "Out of distribution" in found.sentences[0] and found.numbers["strange_bins_micron"][0] == 4.0


def test_many_bins_that_are_a_little_wrong_are_found_by_the_misfit():
    run, network = run_of()
    planets = planets_as_seen(run, network, run.reference["error"], seed=0)
    rng, found = np.random.default_rng(8), []
    for row in range(20):
        zigzag = 0.015 * (-1.0) ** np.arange(20)  # every bin 1.5 errors off
        x = run.reference["spectra"][row] + 0.01 * rng.standard_normal(20) + zigzag
        found.append(compare(x, network.predict(x[None])[0], planets))
    assert np.mean([one.share_better > 0.99 for one in found]) > 0.85
    assert np.mean([one.share_smaller > 0.99 for one in found]) < 0.7
    assert np.mean([one.misfit**2 for one in found]) == pytest.approx(18 / 20 + 1.5**2, rel=0.2)


def test_misfit_of_noise_is_that_of_the_bins_less_what_the_planets_take_up():
    run, network = run_of(n=3000)
    planets = planets_as_seen(run, network, run.reference["error"], seed=1)
    rows = np.arange(0, 3000, 15)
    misfit = planets.misfit(*planets.residuals(planets.spectra[rows], planets.predictions[rows], rows)[1:])
    assert (misfit**2).mean() == pytest.approx(18 / 20, rel=0.12)  # the answers take two of 20 bins


def test_residuals_of_noise_are_standard_normal_and_distances_chi_squared():
    run, network = run_of(n=3000)
    planets = planets_as_seen(run, network, run.reference["error"], seed=1)
    rows = np.arange(0, 3000, 15)
    distance, residuals, _ = planets.residuals(planets.spectra[rows], planets.predictions[rows], rows)
    assert residuals.std() == pytest.approx(1, abs=0.06)
    assert (distance**2).mean() == pytest.approx(18, rel=0.12)  # 20 bins less the two that the answers take


def test_noise_is_that_of_the_observation_and_its_level_is_told():
    run, network = run_of()
    planets = planets_as_seen(run, network, 2 * run.reference["error"], seed=0)
    assert (planets.spectra - planets.clean).std() == pytest.approx(0.02, rel=0.05)
    level = error_level(run, 2 * run.reference["error"])
    assert level.level == pytest.approx(2) and level.differs
    assert not error_level(run, run.reference["error"]).differs
    assert "noisier than the training set" in consistency(None, level, np.ones(3)).sentences[-1]
    for factor, status in ((2.9, "unknown"), (3.1, "outside")):  # of the largest errors in training
        judged = consistency(None, error_level(run, factor * run.reference["error"]), np.ones(3))
        assert judged.status == status and ("too noisy" in judged.sentences[-1]) == (status == "outside")
    again = planets_as_seen(run, network, 2 * run.reference["error"], seed=0)
    assert np.array_equal(again.predictions, planets.predictions)


def test_too_few_test_planets_and_old_runs_are_said_and_not_guessed():
    few = TestPlanets(*(np.zeros((5, 2)),) * 2, *(np.zeros((5, 3)),) * 2, np.ones(3), False)
    assert compare(np.zeros(3), np.zeros(2), few) is None
    old = consistency(None, None, np.ones(3))
    assert old.status == "unknown" and "keeps no test spectra" in old.sentences[0]
    assert consistency(None, None, np.ones(3), beyond=["Tp"]).status == "outside"
    assert consistency(None, None, np.ones(3), deviations=9.0).status == "outside"
    like = Comparison(1.0, 0.5, 1.0, 0.5, 1.0, 0.5, np.zeros(3), np.zeros(3), 500, 0.0, slice(0, 3), 1.0)
    assert consistency(like, None, np.ones(3), deviations=9.0).status == "inside"  # a skewed prior has such depths
