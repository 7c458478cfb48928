"""Explanations against two truths, and defects that a map must show: right where the answer is known."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

import synthetic

from studies import blindness, defects, explanations, map_agreement, pudu_maps


def test_agreement_of_a_map_with_itself_is_certain_and_with_noise_is_none():
    rng = np.random.default_rng(1)
    maps, noise = rng.random((40, 2, 30)), rng.random((40, 2, 30))
    value, error = explanations.agreement(maps, 3 * maps, rng, samples=20)
    np.testing.assert_allclose([value, error], [[1, 1, 1], [0, 0, 0]], atol=1e-12)
    value, error = explanations.agreement(maps, noise, rng, samples=50)
    assert (np.abs(value) < 4 * error).all() and (error > 0.05).all()


def test_pudu_sees_no_bin_of_a_linear_model_unless_it_moves_one_way():
    pytest.importorskip("pudu")
    rng = np.random.default_rng(2)
    weights, spectra, errors = rng.normal(size=(6, 2)), rng.random((3, 6)), rng.random((3, 6))
    found = pudu_maps.pudu_maps(lambda x: x @ weights, spectra, 2)
    np.testing.assert_allclose(found, 0, atol=1e-12)
    found = pudu_maps.pudu_maps(lambda x: x @ weights, spectra, 2, errors)
    np.testing.assert_allclose(found, np.abs(weights.T * errors[:, None]), atol=1e-12)


def test_bins_that_are_among_the_largest_of_two_maps_are_counted():
    bins = np.arange(1.0, 6.0)
    assert map_agreement.shared_top(bins, bins[::-1], top=3) == 1


def test_permutation_map_is_that_of_scikit_learn():
    inspection = pytest.importorskip("sklearn.inspection")
    rng = np.random.default_rng(3)
    x, weights = rng.normal(size=(4000, 3)), np.array([[1.0], [0.5], [0.0]])
    y = x @ weights + 0.1 * rng.normal(size=(4000, 1))
    ours = map_agreement.permutation_map(lambda rows: rows @ weights, x, y)

    def score(_, rows, truth):
        return -np.mean((rows @ weights - truth) ** 2)

    estimator = type("Estimator", (), {"fit": lambda self: self})()
    theirs = inspection.permutation_importance(estimator, x, y, scoring=score, random_state=0)
    np.testing.assert_allclose(ours[0], theirs.importances_mean, atol=0.06)


def test_dragged_bins_of_uncorrelated_spectra_move_alone():
    from sensitivity import dragged, sensitivity_map

    weights, errors = np.array([[1.0], [2.0], [0.0]]), np.full((2, 3), 0.1)
    scaling = {"y_data_mean": np.zeros(1), "y_data_std": np.ones(1), "x_mean": 0.0, "x_std": 1.0, "gases": ["a"]}

    def found(covariance):
        directions = dragged(covariance, errors)
        asked = (lambda x: x @ weights, None, np.zeros((2, 3)), None)
        return sensitivity_map(*asked, directions=directions, no_spectra=None, **scaling).mean[0]

    np.testing.assert_allclose(found(np.eye(3)), [0.01, 0.04, 0], atol=1e-6)
    together = np.full((3, 3), 0.99) + 0.01 * np.eye(3)  # bins that rise and fall together
    assert found(together)[2] == pytest.approx(0.09, rel=0.1)  # a bin that is not used, for what it drags along


def test_a_shortcut_gives_its_amp_away_and_moves_no_other_bin():
    data = synthetic.dataset(n=300, n_bins=8)
    changed = defects.with_shortcut(data, np.arange(200), {1: 5}, strength=3)
    moved = (changed.spectra - data.spectra) / data.errors
    np.testing.assert_array_equal(np.delete(moved, 5, axis=1), 0)
    truth = data.amps[:, 1]
    np.testing.assert_allclose(moved[:, 5], 3 * (truth - truth[:200].mean()) / truth[:200].std(), atol=1e-6)


def test_bins_of_noise_say_nothing_and_vary_as_planets_do():
    data = synthetic.dataset(n=300, n_bins=8)
    changed = defects.only_noise(data, np.arange(200), [2, 6])
    assert np.ptp(changed.spectra[:, [2, 6]], axis=0).max() == 0
    np.testing.assert_allclose(changed.errors[0, [2, 6]], data.spectra[:200, [2, 6]].std(axis=0))
    np.testing.assert_array_equal(changed.spectra[:, 3], data.spectra[:, 3])


def test_rules_find_what_is_wrong_and_nothing_else():
    healthy = np.array([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.3, 0.2]])
    dead = np.array([[0, 0.3, 0, 0.7], [0, 0.5, 0.01, 0.49]])
    np.testing.assert_array_equal(defects.dead_found(dead, None, [0, 2]), [True, True])
    np.testing.assert_array_equal(defects.dead_found(dead, None, [0, 1]), [False, False])
    np.testing.assert_array_equal(defects.band_found(dead, healthy, [0, 2]), [True, True])
    np.testing.assert_array_equal(defects.band_found(dead, healthy, [1, 2]), [False, False])
    np.testing.assert_array_equal(defects.shortcut_found(dead, None, {0: 3, 1: 0}), [True, False])
    swapped = defects.exchanged(healthy, (0, 3))
    np.testing.assert_array_equal(swapped[0], [0.4, 0.2, 0.3, 0.1])
    np.testing.assert_array_equal(defects.exchange_found(swapped, healthy, (0, 3)), [True, True])
    np.testing.assert_array_equal(defects.exchange_found(swapped, healthy, (0, 1)), [False, False])


def test_exchanging_columns_of_data_and_network_exchanges_those_of_the_map():
    from sensitivity import sensitivity_map

    rng = np.random.default_rng(5)
    weights, spectra, errors = rng.normal(size=(4, 2)), rng.normal(size=(3, 4)), rng.uniform(0.1, 0.3, (3, 4))
    scaling = {"y_data_mean": np.zeros(2), "y_data_std": np.ones(2), "x_mean": 0.0, "x_std": 1.0, "gases": ["a", "b"]}

    def found(model, spectra, errors):
        return sensitivity_map(model, None, spectra, errors, scheme="single", no_spectra=None, **scaling).mean

    order = [3, 1, 2, 0]
    swapped = found(lambda x: np.tanh(x[:, order] @ weights), spectra[:, order], errors[:, order])
    plain = found(lambda x: np.tanh(x @ weights), spectra, errors)
    np.testing.assert_allclose(swapped, defects.exchanged(plain, (0, 3)), rtol=1e-5)


STORED = Path(explanations.__file__).parent / "results"


@pytest.mark.parametrize("study", [explanations, blindness])
def test_tables_of_the_page_are_made_from_the_stored_scores(study):
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(STORED / f"{study.__name__.split('.')[-1]}.csv")
    page = (STORED.parents[1] / "docs/explanations.md").read_text(encoding="utf-8")
    assert f"{study.MARKS[0]}\n\n" + "\n".join(study.markdown(table)) + f"\n\n{study.MARKS[1]}" in page
    if study is explanations:
        assert (
            (STORED / "explanations.md").read_text(encoding="utf-8").endswith("\n".join(study.all_tables(table)) + "\n")
        )


def test_results_state_the_spread_over_networks_of_a_kind():
    pandas = pytest.importorskip("pandas")
    row = {"explanation": "halving", "amp": "mean", "evaluations": 10, "reaction_error": 0.1, "removal_error": 0.1}
    networks = [("the run's", 0.1, 0.2), ("mlp_0", 0.5, 0.4), ("mlp_1", 0.7, 0.4)]
    table = pandas.DataFrame([row | {"network": name, "reaction": a, "removal": b} for name, a, b in networks])
    lines = explanations.all_tables(table)
    assert lines[2] == "| halving | .10 / .20 |"
    assert lines[-3:] == ["|  | mlp (2 networks) |", "|---|---|", "| halving | 0.60 ± 0.14 / 0.40 ± 0.00 |"]
