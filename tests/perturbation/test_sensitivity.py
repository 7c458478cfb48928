"""The sensitivity test on models whose answer is known, and on every input it should refuse."""

import functools
import inspect
import itertools
import subprocess
import sys
import tracemalloc
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

import constants
import sensitivity
from perturbation.engine import choose_groups, perturb
from sensitivity import halving_sizes, sensitivity_map

GASES = ["H2O", "CH4", "Tp"]


class Linear:
    """A picklable linear model, (rows, n_bins) -> (rows, n_AMPs)."""

    def __init__(self, weights):
        self.weights = np.asarray(weights)

    def predict(self, x):
        return x.reshape(len(x), -1) @ self.weights


class Nonlinear(Linear):
    def predict(self, x):
        return np.tanh(x.reshape(len(x), -1) @ self.weights)


def problem(n=3, n_bins=13, n_amps=3, seed=0):
    """Weights (n_bins, n_amps), spectra and errors (n, n_bins) in depths, and their scaling."""
    rng = np.random.default_rng(seed)
    spectra = rng.normal(0.01, 0.002, (n, n_bins))
    errors = rng.uniform(2e-5, 6e-5, (n, n_bins))
    return rng.normal(size=(n_bins, n_amps)), spectra, errors


def run(
    model, spectra, errors, n_amps=3, y_test=None, gases=None, no_spectra=None, repeat=20, abundance=None, **options
):
    """Sensitivity map of random repeats with the scaling of `problem` and AMP units of 1, 2, 3, ..."""
    y_std = np.arange(1.0, n_amps + 1)
    return sensitivity_map(
        model, y_test, spectra, errors, np.zeros(n_amps), y_std, gases, no_spectra, repeat,
        0.01, 0.002, abundance, **({"rng": 0, "nodes": None} | options),
    )  # fmt: skip


def closed_form(weights, errors, sizes):
    """Expected map of each spectrum for a linear model with errors in scaled units, (n, n_amps, n_bins)."""
    n_bins = weights.shape[0]
    v = (weights.T[None] * errors[:, None, :]) ** 2
    p = sum(k * (k - 1) for k in sizes) / max(n_bins * (n_bins - 1), 1)
    return v + p * (v.sum(axis=-1, keepdims=True) - v)


def truth_of(weights, errors, sizes):
    y_std = np.arange(1.0, weights.shape[1] + 1)
    return closed_form(weights, errors / 0.002, sizes).mean(axis=0) * y_std[:, None] ** 2


def covariance_of(errors, length=3.0):
    """Covariance with neighbours correlated, (n, n_bins, n_bins), for errors (n, n_bins)."""
    bins = np.arange(errors.shape[-1])
    correlation = np.exp(-np.abs(bins[:, None] - bins) / length)
    return errors[..., :, None] * correlation * errors[..., None, :]


# The right answer


def test_halving_sizes_use_every_bin_once():
    assert halving_sizes(52) == [26, 13, 7, 4, 2]
    assert halving_sizes(8) == [4, 2, 1, 1]
    assert halving_sizes(1) == [1]
    for n_bins in range(1, 300):
        sizes = halving_sizes(n_bins)
        assert sum(sizes) == n_bins and min(sizes) >= 1
        assert all(b <= (a + 1) // 2 for a, b in itertools.pairwise(sizes))


@pytest.mark.parametrize("scheme", ["halving", "single"])
@pytest.mark.parametrize("n_bins", [1, 2, 3, 8, 13, 52, 64, 283])
def test_linear_model_matches_closed_form(n_bins, scheme):
    weights, spectra, errors = problem(n=2, n_bins=n_bins)
    truth = truth_of(weights, errors, halving_sizes(n_bins) if scheme == "halving" else [1])
    deviations = []
    # The bins of one map share their draws, so one map alone may be off in many of them
    for seed in range(10 if n_bins < 100 else 3):
        result = run(Linear(weights), spectra, errors, scheme=scheme, repeat=400, rng=seed)
        deviations.append((result.mean - truth) / result.repeat_error)
    assert np.abs(deviations).max() < 5.5
    if n_bins > 10:
        assert 0.85 < np.sqrt(np.mean(np.square(deviations))) < 1.2


@pytest.mark.parametrize("n_bins", [1, 2, 3, 8, 13, 52, 64, 283])
def test_user_groups_match_closed_form(n_bins):
    weights, spectra, errors = problem(n=2, n_bins=n_bins)
    labels = np.random.default_rng(n_bins).integers(4, size=n_bins)
    result = run(Linear(weights), spectra, errors, groups=labels, repeat=2000)
    v = ((weights.T[None] * (errors / 0.002)[:, None, :]) ** 2).mean(axis=0) * np.array([1, 4, 9])[:, None]
    joint = np.stack([v[:, labels == g].sum(axis=1) for g in labels], axis=1)
    assert np.abs((result.mean - joint) / result.repeat_error).max() < 5


def test_user_groups_match_closed_form_and_untested_bins_are_nan():
    weights, spectra, errors = problem()
    groups = [[0, 5, 7], [1], [2, 3, 4, 6]]  # 8 to 12 in none
    result = run(Linear(weights), spectra, errors, groups=groups, repeat=2000)
    v = (weights.T[None] * (errors / 0.002)[:, None, :]) ** 2
    for group in groups:
        joint = v[:, :, group].sum(axis=-1).mean(axis=0) * np.array([1, 4, 9])
        for b in group:
            assert np.abs((result.mean[:, b] - joint) / result.repeat_error[:, b]).max() < 4.5
    assert np.isnan(result.mean[:, 8:]).all() and np.isfinite(result.mean[:, :8]).all()
    assert result.scheme == "groups"
    labels = np.array([4, 9, 7, 7, 7, 4, 7, 4, -1, -1, -1, -1, -1])
    by_number = run(Linear(weights), spectra, errors, groups=labels, repeat=2000)
    np.testing.assert_allclose(by_number.mean, result.mean, rtol=1e-10)


@pytest.mark.parametrize("scheme", ["halving", "single", "groups"])
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("n_bins", [1, 2, 3, 8, 13, 52, 64, 283])
def test_covariance_matches_closed_form(scheme, each, n_bins):
    weights, spectra, errors = problem(n=2, n_bins=n_bins)
    covariances = covariance_of(errors if each else errors[:1].repeat(2, axis=0))
    labels = np.random.default_rng(n_bins).integers(4, size=n_bins)  # the user's groups, of any bins
    how = {"groups": labels} if scheme == "groups" else {"scheme": scheme}
    given = covariances if each else covariances[0]
    result = run(Linear(weights), spectra, given, repeat=2000 if n_bins < 100 else 500, covariance=True, **how)
    # Contribution c_ab = w_a C_ab w_b; a bin receives the sum over its group
    c = weights.T[None, :, :, None] * covariances[:, None] / 0.002**2 * weights.T[None, :, None, :]
    if scheme == "groups":
        truth = np.stack([c[..., labels == g, :][..., labels == g].sum(axis=(2, 3)) for g in labels], axis=-1)
    else:
        own = np.diagonal(c, axis1=2, axis2=3)  # of a bin b
        with_b = c.sum(axis=3) - own  # of b and another bin a
        others = own.sum(axis=2, keepdims=True) - own  # of a alone
        pairs = c.sum(axis=(2, 3))[..., None] - own - 2 * with_b - others  # of two other bins
        truth = np.zeros_like(own)
        for k in halving_sizes(n_bins) if scheme == "halving" else [1] * n_bins:
            # Chances that one, two and three bins are in a group of size k
            p1, p2 = k / n_bins, k * (k - 1) / max(n_bins * (n_bins - 1), 1)
            p3 = p2 * (k - 2) / max(n_bins - 2, 1)
            truth += p1 * own + p2 * (others + 2 * with_b) + p3 * pairs
    truth = truth.mean(axis=0) * np.array([1, 4, 9])[:, None]
    assert np.abs((result.mean - truth) / result.repeat_error).max() < 5


def test_diagonal_covariance_is_the_same_as_errors():
    weights, spectra, errors = problem()
    plain = run(Linear(weights), spectra, errors, repeat=50)
    diagonal = errors[:, :, None] ** 2 * np.eye(13)
    joint = run(Linear(weights), spectra, diagonal, repeat=4000)
    assert np.abs(joint.mean - truth_of(weights, errors, halving_sizes(13))).max() < 5 * joint.repeat_error.max()
    assert plain.mean.shape == joint.mean.shape


def test_bins_of_zero_variance_are_allowed_and_do_not_move():
    weights, spectra, errors = problem()
    errors[:, 4] = 0
    for noise in (errors, covariance_of(errors)):
        result = run(Linear(weights), spectra, noise, scheme="single")
        assert (result.mean[:, 4] < 1e-12 * result.mean.max()).all()


def test_constant_model_gives_exactly_zero():
    _, spectra, errors = problem()
    result = run(lambda x: np.full((len(x), 3), 7.0), spectra, errors)
    assert (result.mean == 0).all() and (result.standard_error == 0).all() and (result.per_spectrum == 0).all()


@pytest.mark.parametrize("n_bins", [1, 2, 8, 13, 64])
def test_every_bin_is_perturbed_exactly_once_per_repeat(n_bins):
    _, spectra, errors = problem(n=1, n_bins=n_bins)
    moved = []

    def model(x):
        if len(x) > 12:  # not the probe
            moved.append(np.asarray(x)[1:, :, 0] != np.asarray(x)[0, :, 0])
        return np.ones((len(x), 3))

    for scheme in ("halving", "single"):
        moved.clear()
        run(model, spectra, errors, repeat=30, batch_size=100, scheme=scheme)
        assert np.concatenate(moved).sum(axis=0).tolist() == [30] * n_bins


def test_every_repeat_draws_its_own_groups():
    """The released code reseeds at every repeat: 52 bins then hold 5 distinct values."""
    weights, spectra, errors = problem(n=1, n_bins=52)
    result = run(Linear(weights), spectra, errors, repeat=20)
    assert len(np.unique(result.mean[0].round(12))) > 40


def test_no_bin_receives_the_prediction_itself():
    """The released code gives f(x)^2 to one bin where the number of bins is a power of two."""
    for n_bins in (2, 8, 64):
        weights, spectra, errors = problem(n_bins=n_bins)
        offset = Linear(weights)
        result = run(lambda x, model=offset: model.predict(x) + 1e4, spectra, errors, repeat=5)
        assert result.mean.max() < 1e3


def test_scaled_units_differ_by_the_variance_of_the_amps():
    weights, spectra, errors = problem()
    args = (
        Linear(weights),
        None,
        spectra,
        errors,
        np.zeros((1, 3)),
        np.array([[1.0, 20.0, 5e6]]),
        None,
        2,
        10,
        0.01,
        0.002,
    )
    org = sensitivity.compute_sensitivty_org(*args, rng=0)
    std = sensitivity.compute_sensitivty_std(*args, rng=0)
    np.testing.assert_allclose(org, std * np.array([[1.0], [400.0], [25e12]]))
    assert isinstance(org, np.ndarray) and org.shape == (3, 13)


def test_per_bin_scaling_of_the_spectra():
    weights, spectra, errors = problem()
    x_std = np.linspace(0.001, 0.004, 13)
    args = Linear(weights), None, spectra, errors, np.zeros(3), np.ones(3)
    result = sensitivity_map(*args, None, None, 1000, np.full(13, 0.01), x_std, rng=0)
    truth = closed_form(weights, errors / x_std, halving_sizes(13)).mean(axis=0)
    assert np.abs((result.mean - truth) / result.repeat_error).max() < 4.5


# Error bars


@pytest.mark.parametrize("scheme", ["halving", "single"])
def test_repeat_error_covers_the_map_of_these_spectra(scheme):
    weights, spectra, errors = problem(n=4)
    truth = truth_of(weights, errors, halving_sizes(13) if scheme == "halving" else [1])
    results = [run(Linear(weights), spectra, errors, repeat=200, scheme=scheme, rng=seed) for seed in range(100)]
    inside = [np.abs(r.mean - truth) < 2 * r.repeat_error for r in results]
    assert 0.90 < np.mean(inside) < 0.99


@pytest.mark.parametrize("n", [1, 4, 20])
def test_standard_error_covers_when_spectra_share_their_errors(n):
    weights, spectra, errors = problem(n=n)
    errors = errors[0]
    truth = truth_of(weights, errors[None], halving_sizes(13))
    results = [run(Linear(weights), spectra, errors, repeat=150, rng=seed) for seed in range(100)]
    inside = [np.abs(r.mean - truth) < 2 * r.standard_error for r in results]
    assert 0.90 < np.mean(inside) < 0.99


def test_standard_error_covers_the_map_of_the_population():
    """Spectra with errors of their own, drawn anew for each seed: E[s^2] is known, the map of the population too."""
    weights, _, _ = problem()
    v = (weights.T / 0.002) ** 2 * (2e-5**2 + 2e-5 * 6e-5 + 6e-5**2) / 3
    truth = v * np.array([1, 4, 9])[:, None]
    inside = []
    for seed in range(100):
        _, spectra, errors = problem(n=30, seed=seed)
        result = run(Linear(weights), spectra, errors, repeat=40, scheme="single", rng=seed)
        inside.append(np.abs(result.mean - truth) < 2 * result.standard_error)
    assert 0.90 < np.mean(inside) < 0.99


def test_one_repeat_of_one_spectrum_has_no_error_bar():
    weights, spectra, errors = problem(n=1)
    result = run(Linear(weights), spectra, errors, repeat=1)
    assert np.isnan(result.standard_error).all() and np.isfinite(result.mean).all()


# Same seed, same map


def test_draws_do_not_depend_on_the_batch_size():
    weights, spectra, errors = problem(n_bins=52)
    for noise in (errors, covariance_of(errors)):
        maps = [run(Nonlinear(weights), spectra, noise, batch_size=b, repeat=33).mean for b in (1, 7, 64, 100000)]
        for other in maps[1:]:
            np.testing.assert_allclose(other, maps[0], rtol=1e-5)


def test_perturbed_spectra_are_the_same_for_every_batch_size():
    _, spectra, errors = problem(n_bins=52)
    for noise in (errors, covariance_of(errors)):
        seen = []
        for batch_size in (6, 64, 4096):
            rows = []

            def model(x, rows=rows):
                rows.append(np.unique(x[:, :, 0], axis=0))
                return np.zeros((len(x), 3))

            run(model, spectra, noise, batch_size=batch_size, repeat=17)
            seen.append(np.unique(np.concatenate(rows), axis=0))
        assert np.array_equal(seen[0], seen[1]) and np.array_equal(seen[0], seen[2])


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 100])
def test_maps_are_bit_identical_in_any_chunking_and_on_threads(chunk_size):
    weights, spectra, errors = problem(n=11)
    reference = run(Nonlinear(weights), spectra, errors)
    with ThreadPoolExecutor(3) as executor:
        for how in (None, executor):
            result = run(Nonlinear(weights), spectra, errors, executor=how, chunk_size=chunk_size)
            for name in ("mean", "standard_error", "repeat_error", "per_spectrum"):
                assert np.array_equal(getattr(result, name), getattr(reference, name))


@pytest.mark.slow
def test_worker_processes_load_the_model_once_and_agree_bit_for_bit(tmp_path):
    LOADED.clear()  # workers may be forks of this process
    weights, spectra, errors = problem(n=6)
    np.save(tmp_path / "weights.npy", weights)
    loader = sensitivity.ModelLoader(load_linear, str(tmp_path / "weights.npy"))
    reference = run(Linear(weights), spectra, errors)
    with ProcessPoolExecutor(1) as executor:
        result = run(loader, spectra, errors, executor=executor, chunk_size=1)
        assert executor.submit(number_loaded).result() == 1
    assert np.array_equal(result.mean, reference.mean)


LOADED = []


def load_linear(path):
    LOADED.append(path)
    return Linear(np.load(path))


def number_loaded():
    return len(LOADED)


def test_model_loader_sees_a_new_file(tmp_path):
    path = tmp_path / "weights.npy"
    weights, spectra, errors = problem()
    loader = sensitivity.ModelLoader(load_linear, str(path))
    np.save(path, weights)
    first = run(loader, spectra, errors).mean
    np.save(path, np.concatenate([2 * weights, np.zeros((0, 3))]))
    path.touch()
    np.testing.assert_allclose(run(loader, spectra, errors).mean, 4 * first, rtol=1e-5)


def test_a_spectrum_has_the_same_map_whatever_its_company():
    weights, spectra, errors = problem(n=6)
    everything = run(Nonlinear(weights), spectra, errors)
    first_two = run(Nonlinear(weights), spectra, errors, no_spectra=2)
    assert np.array_equal(first_two.per_spectrum, everything.per_spectrum[:2])


def test_seeds_decide_the_map():
    weights, spectra, errors = problem()
    maps = [run(Linear(weights), spectra, errors, rng=rng) for rng in (3, 3, 4, None, None)]
    assert np.array_equal(maps[0].mean, maps[1].mean)
    assert len({m.mean.tobytes() for m in maps}) == 4
    for again in maps:
        assert np.array_equal(run(Linear(weights), spectra, errors, rng=again.seed).mean, again.mean)


def test_a_generator_is_used_and_moves_on():
    weights, spectra, errors = problem()
    generator, twin = np.random.default_rng(5), np.random.default_rng(5)
    first, second = (run(Linear(weights), spectra, errors, rng=generator) for _ in range(2))
    assert not np.array_equal(first.mean, second.mean)
    assert np.array_equal(run(Linear(weights), spectra, errors, rng=twin).mean, first.mean)
    assert np.array_equal(run(Linear(weights), spectra, errors, rng=first.seed).mean, first.mean)


def test_global_random_state_is_untouched():
    weights, spectra, errors = problem()
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    run(Linear(weights), spectra, errors)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_inputs_are_left_as_they_were_even_by_a_model_that_writes_on_them():
    weights, spectra, errors = problem()
    before = spectra.copy(), errors.copy()

    def model(x):
        answer = x[:, :, 0] @ weights
        x[:] = np.nan
        return answer

    result = run(model, spectra, errors)
    assert np.array_equal(spectra, before[0]) and np.array_equal(errors, before[1])
    np.testing.assert_allclose(result.mean, run(Linear(weights), spectra, errors).mean, rtol=1e-4)


def test_resumed_map_is_the_same_and_computes_only_what_is_missing():
    weights, spectra, errors = problem(n=7)
    model, rows = Nonlinear(weights), []

    def counted(x):
        rows.append(len(x))
        return model.predict(x)

    store = {}
    reference = run(counted, spectra, errors, store=store)
    assert sorted(store) == list(range(7)) and store[0].shape == (2, 3, 13)
    for lost in (1, 4, 5):
        del store[lost]
    rows.clear()
    resumed = run(counted, spectra, errors, store=store, chunk_size=2)
    assert np.array_equal(resumed.mean, reference.mean)
    assert len(rows) == 3 + 3  # the probe with both layouts and one row, and one batch for each missing spectrum


# Which spectra


def abundance_problem():
    weights, spectra, errors = problem(n=40)
    rng = np.random.default_rng(1)
    y_test = np.stack([rng.uniform(-9, -2, 40), rng.uniform(-9, -2, 40), rng.uniform(500, 2000, 40)], axis=1)
    return weights, spectra, errors, y_test


def test_errors_follow_the_abundance_cut():
    weights, spectra, errors, y_test = abundance_problem()
    errors *= np.linspace(1, 5, 40)[:, None]
    cut = (-6.0, -4.0)
    result = run(Linear(weights), spectra, errors, y_test=y_test, gases=GASES, abundance=cut, repeat=300)
    for row, name in enumerate(GASES):
        chosen = np.ones(40, bool) if name == "Tp" else (y_test[:, row] > -6) & (y_test[:, row] < -4)
        truth = truth_of(weights, errors[chosen], halving_sizes(13))[row]
        assert np.abs((result.mean[row] - truth) / result.repeat_error[row]).max() < 4.5
        assert result.n_spectra[row] == chosen.sum()
        assert np.array_equal(np.isfinite(result.per_spectrum[:, row, 0]), chosen[result.spectra])


def test_a_spectrum_whose_abundance_is_not_known_is_outside_of_any_cut():
    weights, spectra, errors, y_test = abundance_problem()
    y_test[3, 0] = np.nan
    result = run(Linear(weights), spectra, errors, y_test=y_test, gases=GASES, abundance=(-6, -4))
    assert result.n_spectra[0] == ((y_test[:, 0] > -6) & (y_test[:, 0] < -4)).sum()


def test_a_cut_between_equal_ends_is_refused():
    weights, spectra, errors, y_test = abundance_problem()
    with pytest.raises(ValueError, match="abundance"):
        run(Linear(weights), spectra, errors, y_test=y_test, gases=GASES, abundance=(-5, -5))


def test_the_cut_takes_keys_labels_and_any_case():
    weights, spectra, errors, y_test = abundance_problem()
    maps = [
        run(Linear(weights), spectra, errors, y_test=y_test, gases=names, abundance=[-6, -4])
        for names in (GASES, ["H$_2$O", "CH$_4$", r"$T_\mathrm{p}$"], np.array(["h2o", "ch4", "tp"]))
    ]
    maps.append(run(Linear(weights), spectra, errors, y_test=y_test, abundance=(-6, -4),
                    gases=[constants.AMPS[key] for key in GASES]))  # fmt: skip
    for other in maps:
        assert np.array_equal(other.mean, maps[0].mean) and other.amp_names == tuple(GASES)


def test_the_cut_can_differ_by_amp_and_name_other_molecules():
    weights, spectra, errors, y_test = abundance_problem()
    with pytest.warns(UserWarning, match="HCN"):
        run(Linear(weights), spectra, errors, y_test=y_test, gases=["H2O", "HCN", "Tp"], abundance=(-6, -4))
    result = run(Linear(weights), spectra, errors, y_test=y_test, gases=["H2O", "HCN", "Tp"],
                 abundance={"HCN": (-6, -4), "tp": (600, 900)})  # fmt: skip
    inside = (y_test > [-99, -6, 600]) & (y_test < [99, -4, 900])
    assert result.n_spectra.tolist() == inside.sum(axis=0).tolist()


def test_the_cut_is_open_at_both_ends():
    weights, spectra, errors = problem(n=3)
    y_test = np.array([[-6.0, -5, 1], [-5, -5, 1], [-4, -5, 1]])
    result = run(Linear(weights), spectra, errors, y_test=y_test, gases=GASES, abundance=(-6, -4))
    assert result.n_spectra.tolist() == [1, 3, 3]


def test_the_first_spectra_in_range_are_used_and_shared():
    weights, spectra, errors, y_test = abundance_problem()
    calls = []

    def model(x):
        calls.append(len(x))
        return Linear(weights).predict(x)

    result = run(model, spectra, errors, y_test=y_test, gases=GASES, abundance=(-6, -4), no_spectra=3)
    first = [np.flatnonzero((y_test[:, k] > -6) & (y_test[:, k] < -4))[:3].tolist() for k in (0, 1)] + [[0, 1, 2]]
    assert result.spectra.tolist() == sorted(set(itertools.chain(*first)))
    assert len(calls) == 3 + len(result.spectra)
    assert result.n_spectra.tolist() == [3, 3, 3]


def test_too_few_spectra_warn_once_with_the_numbers():
    weights, spectra, errors, y_test = abundance_problem()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = run(Linear(weights), spectra, errors, y_test=y_test, gases=GASES, abundance=(-6, -4), no_spectra=35)
    assert len(caught) == 1
    for name, count in zip(GASES[:2], result.n_spectra, strict=False):
        assert f"{name} {count}" in str(caught[0].message)
    assert "Tp" not in str(caught[0].message) and result.n_spectra[2] == 35


def test_all_spectra_are_used_without_a_warning():
    weights, spectra, errors = problem(n=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(Linear(weights), spectra, errors, no_spectra=None).n_spectra.tolist() == [5] * 3
        assert run(Linear(weights), spectra, errors, no_spectra=-1).n_spectra.tolist() == [5] * 3


def test_no_spectrum_in_range_names_the_amp_and_the_range():
    weights, spectra, errors, y_test = abundance_problem()
    y_test[:, 1] = -3
    with pytest.raises(ValueError, match=r"abundance: expected .* -6 < log10 VMR of CH4 < -4, received none"):
        run(Linear(weights), spectra, errors, y_test=y_test, gases=GASES, abundance=(-6, -4))


def test_published_call_works_in_its_order_and_by_default_names_the_paper_amps():
    weights, spectra, errors = problem(n=5, n_amps=9)
    y_test = np.full((5, 9), -5.0)
    args = Linear(weights), y_test, spectra, errors, np.zeros(9), np.ones(9)
    with pytest.warns(UserWarning, match="no_spectra: expected 100"):
        result = sensitivity.compute_sensitivty_org(*args, x_mean=0.01, x_std=0.002)
    assert result.shape == (9, 13)
    result = sensitivity.compute_sensitivty_org(*args, None, 3, 5, 0.01, 0.002, (-6, -4))
    assert result.shape == (9, 13)
    order = "model y_test org_spectrum org_error y_data_mean y_data_std gases no_spectra repeat x_mean x_std abundance"
    for function in (sensitivity.compute_sensitivty_org, sensitivity.compute_sensitivty_std, sensitivity_map):
        assert list(inspect.signature(function).parameters)[:12] == order.split()
    assert sensitivity.compute_sensitivity_org is sensitivity.compute_sensitivty_org
    assert sensitivity.compute_sensitivity_std is sensitivity.compute_sensitivty_std


def test_published_functions_are_the_map_of_all_their_arguments():
    weights, spectra, errors, y_test = abundance_problem()
    scaling = np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0])
    args = Linear(weights), y_test, spectra, errors, *scaling, GASES, 5, 4, 0.01, 0.002, (-6.0, -4.0)
    for function, scaled in ((sensitivity.compute_sensitivty_org, False), (sensitivity.compute_sensitivty_std, True)):
        expected = sensitivity_map(*args, scaled=scaled, rng=3)
        assert np.array_equal(function(*args, rng=3), expected.mean)
        assert not np.array_equal(function(*args[:-1], rng=3), expected.mean)
        assert expected.abundance == (-6.0, -4.0) and expected.groups is None and expected.scaled is scaled
        defaults = inspect.signature(function).parameters
        assert (defaults["no_spectra"].default, defaults["repeat"].default) == (100, 500)
    defaults = inspect.signature(sensitivity_map).parameters
    assert (defaults["no_spectra"].default, defaults["repeat"].default) == (100, 500)


# Models


def test_inputs_of_two_and_three_axes_give_the_same_map():
    weights, spectra, errors = problem()
    flat = run(lambda x: x @ weights, spectra, errors)
    channel = run(lambda x: x[:, :, 0] @ weights if x.ndim == 3 else None, spectra, errors)
    np.testing.assert_allclose(flat.mean, channel.mean, rtol=1e-12)
    told = run(lambda x: x.reshape(len(x), 13) @ weights, spectra, errors, input_layout="flat")
    np.testing.assert_allclose(flat.mean, told.mean, rtol=1e-12)


def test_one_amp_may_be_returned_without_an_axis():
    weights, spectra, errors = problem(n_amps=1)
    result = run(lambda x: x @ weights[:, 0], spectra, errors, n_amps=1, input_layout="flat")
    np.testing.assert_allclose(result.mean, run(Linear(weights), spectra, errors, n_amps=1).mean, rtol=1e-5)


def test_a_model_is_called_by_predict_with_one_shape():
    weights, spectra, errors = problem()

    class Declared(Linear):
        input_shape = (None, 13, 1)

        def predict(self, x):
            assert x.shape[1:] == (13, 1) and x.dtype == np.float32
            shapes.add(x.shape)
            return Linear.predict(self, x)

        def predict_on_batch(self, x):
            raise AssertionError("only Keras is known to mean the same by it")

    shapes = set()
    run(Declared(weights), spectra, errors, repeat=101, batch_size=64)
    assert (
        len(shapes) == 3
    )  # the probe, of twelve rows and one, and one constant shape, so that nothing is traced again


@pytest.mark.parametrize("repeat", [1, 7, 999, 1000, 1001, 1100, 10_000])
@pytest.mark.parametrize("batch_size", [192, 1201, 5120])
def test_hardly_a_row_is_predicted_for_nothing(repeat, batch_size):
    weights, spectra, errors = problem(n_bins=52)
    rows = 0

    def model(x):
        nonlocal rows
        rows += len(x)
        return x @ weights

    run(model, spectra[:1], errors[:1], repeat=repeat, batch_size=batch_size, input_layout="flat")
    assert 5 * repeat < rows <= 1.05 * 5 * repeat + 20


def test_integers_are_not_wrapped_and_other_outputs_refused():
    _, spectra, errors = problem()
    counts = run(lambda x: np.clip(100 + 20 * x[:, :3], 0, 255).astype(np.uint8), spectra, errors, input_layout="flat")
    assert counts.mean.max() < 2000
    ml_dtypes = pytest.importorskip("ml_dtypes")  # comes with TensorFlow and JAX
    assert run(lambda x: x[:, :3].astype(ml_dtypes.bfloat16), spectra, errors, input_layout="flat").mean.max() < 1
    with pytest.raises(ValueError, match="real numbers"):
        run(lambda x: x[:, :3] > 0, spectra, errors, input_layout="flat")


def test_auxiliary_inputs_are_held_fixed():
    weights, spectra, errors = problem()
    auxiliary = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])

    def model(inputs):
        rows, second = inputs
        assert len(second) <= 12 or (second == second[0]).all()
        return rows[:, :, 0] @ weights * second[:, :1]

    result = run(model, spectra, errors, auxiliary=auxiliary)
    plain = run(Linear(weights), spectra, errors)
    np.testing.assert_allclose(result.per_spectrum, plain.per_spectrum * auxiliary[:, :1, None] ** 2, rtol=1e-4)


def test_a_model_that_fits_no_layout_is_refused_with_its_own_words():
    _, spectra, errors = problem()

    def model(x):
        raise TypeError("I want\nsomething else")

    with pytest.raises(ValueError, match=r"model: expected .*I want something else"):
        run(model, spectra, errors)


def test_outputs_are_checked():
    _, spectra, errors = problem()
    with pytest.raises(ValueError, match=r"expected output \(12, 3\), received \(12, 4\)"):
        run(lambda x: np.zeros((len(x), 4)), spectra, errors)

    def spoils_one_row(x):
        answer = np.zeros((len(x), 3))
        if len(x) > 12:
            answer[5, 1] = np.nan
        return answer

    with pytest.raises(ValueError, match=r"expected finite output, received .* for row 5 of spectrum 0"):
        run(spoils_one_row, spectra, errors)


# Bad input: one line that says the argument, what was expected and what was received


BAD = {
    "x_mean": {"x_mean": None},
    "x_std": {"x_std": None},
    "x_std ": {"x_std": 0.0},
    "x_mean ": {"x_mean": np.zeros(7)},
    "y_data_std": {"y_data_std": None},
    "y_data_std ": {"y_data_std": np.ones(2)},
    "y_data_std  ": {"y_data_std": [1.0, -1.0, 1.0]},
    "y_data_mean": {"y_data_mean": [0.0, np.nan, 0.0]},
    "org_spectrum": {"org_spectrum": np.zeros(13)},
    "org_spectrum ": {"org_spectrum": np.full((3, 13), np.nan)},
    "org_spectrum  ": {"org_spectrum": np.zeros((0, 13))},
    "org_spectrum   ": {"org_spectrum": "spectra.h5"},
    "org_spectrum    ": {"org_spectrum": np.ma.masked_less(np.tile(np.arange(13.0), (3, 1)), 1)},
    "org_error": {"org_error": np.ones((4, 13))},
    "org_error ": {"org_error": -np.ones((3, 13))},
    "org_error  ": {"org_error": np.full((3, 13), np.inf)},
    "org_error   ": {"org_error": -np.eye(13)},
    "org_error    ": {"org_error": np.triu(np.ones((13, 13)))},
    "org_error     ": {"org_error": np.ones((13, 13)) - 2 * np.eye(13)},
    "org_error      ": {"org_error": np.ones((3, 13)), "covariance": True},
    "no_spectra": {"no_spectra": 0},
    "no_spectra ": {"no_spectra": 2.5},
    "repeat": {"repeat": 0},
    "repeat ": {"repeat": True},
    "repeat  ": {"repeat": "many"},
    "batch_size": {"batch_size": -1},
    "chunk_size": {"chunk_size": 0},
    "scheme": {"scheme": "thirds"},
    "groups": {"groups": [[0, 1], [1, 2]]},
    "groups ": {"groups": [[0, 13]]},
    "groups  ": {"groups": []},
    "groups   ": {"groups": np.full(13, -1)},
    "groups    ": {"groups": [[0.5]]},
    "groups     ": {"groups": 3},
    "rng": {"rng": "lucky"},
    "rng  ": {"rng": None, "store": {}},
    "store": {"rng": 0, "store": {0: np.zeros((2, 4, 13))}},
    "rng ": {"rng": -1},
    "model": {"model": 3},
    "input_layout": {"input_layout": "sideways"},
    "auxiliary": {"auxiliary": np.ones((2, 2))},
    "gases": {"gases": ["H2O"]},
    "gases ": {"abundance": (-6, -4)},
    "y_test": {"abundance": (-6, -4), "gases": GASES},
    "y_test ": {"y_test": np.zeros((3, 4))},
    "abundance": {"abundance": (-4, -6), "gases": GASES, "y_test": np.zeros((3, 3))},
    "abundance ": {"abundance": -6, "gases": GASES, "y_test": np.zeros((3, 3))},
    "abundance  ": {"abundance": {"CO": (-6, -4)}, "gases": GASES, "y_test": np.zeros((3, 3))},
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_line(case):
    weights, spectra, errors = problem()
    arguments = {
        "model": Linear(weights), "y_test": None, "org_spectrum": spectra, "org_error": errors,
        "y_data_mean": np.zeros(3), "y_data_std": np.ones(3), "no_spectra": None, "repeat": 3,
        "x_mean": 0.01, "x_std": 0.002,
    }  # fmt: skip
    sensitivity_map(**arguments)
    with pytest.raises(ValueError, match=rf"^{case.strip()}: expected .*received") as caught:
        sensitivity_map(**arguments | BAD[case])
    assert "\n" not in str(caught.value) or case.startswith("groups")


def test_a_square_array_that_may_be_either_must_be_named():
    weights, spectra, errors = problem(n=13)
    covariance = covariance_of(errors[0])
    with pytest.raises(ValueError, match="covariance=True or covariance=False"):
        run(Linear(weights), spectra, covariance)
    run(Linear(weights), spectra, covariance, covariance=True)
    run(Linear(weights), spectra, np.sqrt(covariance), covariance=False)
    run(Linear(weights), spectra, errors)  # (N, n_bins) with N = n_bins
    with pytest.raises(ValueError, match="covariance=True or covariance=False"):
        run(Linear(weights), spectra, np.outer(errors[0], errors[0]))
    equal = run(Linear(weights), spectra, np.full((13, 13), 1e-5))  # the same error everywhere
    np.testing.assert_array_equal(equal.mean, run(Linear(weights), spectra, np.full(13, 1e-5)).mean)


# Cost, and the rest


@pytest.mark.parametrize("batch_size", [192, 1201, 5120])  # rows of the lstm, the cnn and the mlp
def test_memory_does_not_grow_with_the_repeats(batch_size):
    weights, spectra, errors = problem(n_bins=52)
    peaks = []
    for repeat in (1000, 10_000):
        tracemalloc.start()
        run(Linear(weights), spectra[:1], errors[:1], repeat=repeat, batch_size=batch_size)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] and peaks[1] < 10e6


def test_import_brings_no_machine_learning_framework():
    code = "import sys, sensitivity; print(*{'tensorflow', 'keras', 'torch', 'h5py', 'sklearn'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == ""


@pytest.mark.parametrize("abundance", [None, (-6.0, -4.0), {"H2O": (-6.0, -4.0)}])
@pytest.mark.parametrize("keep", [True, False])
def test_a_saved_map_is_read_back_the_same(tmp_path, abundance, keep):
    weights, spectra, errors, y_test = abundance_problem()
    result = run(Linear(weights), spectra, errors, y_test=y_test, gases=GASES, abundance=abundance,
                 keep_spectra=keep, rng=None)  # fmt: skip
    path = tmp_path / "map.h5"
    result.save(path)
    result.save(path)  # over itself
    again = sensitivity.SensitivityMap.load(path)
    for name, value in vars(result).items():
        np.testing.assert_equal(getattr(again, name), value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_saved_map_holds_the_users_groups_and_a_file_without_map_says_so(tmp_path):
    h5py = pytest.importorskip("h5py")
    weights, spectra, errors = problem()
    run(Linear(weights), spectra, errors, groups=[[0, 2], [5]]).save(tmp_path / "map.h5")
    groups = sensitivity.SensitivityMap.load(tmp_path / "map.h5").groups
    assert groups.tolist() == [0, -1, 0, -1, -1, 1, *[-1] * 7]
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["spectra"] = spectra
    with pytest.raises(ValueError, match=r"other\.h5: /: expected a map .* received \['spectra'\]"):
        sensitivity.SensitivityMap.load(tmp_path / "other.h5")


def test_a_map_is_saved_into_a_group_with_the_names_of_the_results_file(tmp_path):
    h5py = pytest.importorskip("h5py")
    weights, spectra, errors = problem()
    result = run(Linear(weights), spectra, errors)
    with h5py.File(tmp_path / "results.h5", "w") as file:
        result.save(file.create_group("fold_0/sensitivity"))
        result.save(file["fold_0/sensitivity"])
        group = file["fold_0/sensitivity"]
        assert np.array_equal(group["mean"], result.mean)
        assert np.array_equal(group["standard_error"], result.standard_error)
        assert {"scheme", "repeat", "n_spectra", "abundance"} <= set(group.attrs)
        assert np.array_equal(sensitivity.SensitivityMap.load(group).mean, result.mean)


def test_a_progress_bar_is_shown_when_asked(capsys):
    pytest.importorskip("tqdm")
    weights, spectra, errors = problem()
    run(Linear(weights), spectra, errors)
    assert capsys.readouterr().err == ""
    run(Linear(weights), spectra, errors, progress=True)
    assert "3/3" in capsys.readouterr().err


def test_engine_steps_stand_alone():
    rng = np.random.default_rng(0)
    groups = choose_groups(np.array([0, 0, 1]), True, 50, rng)
    assert (np.sort(groups, axis=1) == [0, 0, 1]).all() and len(np.unique(groups, axis=0)) == 3
    out = np.empty((1, 2, 3), np.float32)
    mask = np.array([[[True, True, False], [False, False, True]]])
    perturb(np.zeros(3, np.float32), np.array([[1, 2, 3]], np.float32), mask, out)
    assert out.tolist() == [[[1, 2, 0], [0, 0, 3]]]


# Any input of the right shape works (hypothesis)

try:
    from hypothesis import given, settings
    from hypothesis import strategies as st
except ImportError:  # an optional extra: the rest of the file runs without it
    pass
else:

    @settings(max_examples=40, deadline=None)
    @given(
        n=st.integers(1, 4),
        n_bins=st.integers(1, 40),
        n_amps=st.integers(1, 5),
        repeat=st.integers(1, 12),
        batch_size=st.one_of(st.none(), st.integers(1, 200)),
        scheme=st.sampled_from(["halving", "single"]),
        kind=st.sampled_from(["shared", "each", "covariance", "covariances"]),
        seed=st.integers(0, 2**64),
    )
    def test_any_shape_gives_a_finite_non_negative_map(n, n_bins, n_amps, repeat, batch_size, scheme, kind, seed):
        weights, spectra, errors = problem(n, n_bins, n_amps)
        errors = {
            "shared": errors[0], "each": errors, "covariance": covariance_of(errors[0]),
            "covariances": covariance_of(errors),
        }[kind]  # fmt: skip
        flag = kind.startswith("covariance")
        result = run(Linear(weights), spectra, errors, n_amps=n_amps, repeat=repeat, batch_size=batch_size,
                     scheme=scheme, covariance=flag, rng=seed)  # fmt: skip
        assert result.mean.shape == result.standard_error.shape == (n_amps, n_bins)
        assert np.isfinite(result.mean).all() and (result.mean >= 0).all()

    @settings(max_examples=60, deadline=None)
    @given(shape=st.lists(st.integers(0, 14), max_size=4))
    def test_errors_of_any_other_shape_are_refused(shape):
        weights, spectra, _ = problem()
        if tuple(shape) in {(13,), (3, 13), (13, 13), (3, 13, 13)}:
            return
        with pytest.raises(ValueError, match=r"^org_error: expected"):
            run(Linear(weights), spectra, np.ones(shape))

    @settings(max_examples=60, deadline=None)
    @given(groups=st.lists(st.lists(st.integers(-3, 15), max_size=5), max_size=5))
    def test_groups_are_a_partition_of_some_bins_or_refused(groups):
        weights, spectra, errors = problem()
        named = list(itertools.chain(*groups))
        good = groups and all(groups) and len(set(named)) == len(named) and all(0 <= b < 13 for b in named)
        call = functools.partial(run, Linear(weights), spectra, errors, groups=groups, repeat=2)
        if good:
            assert np.isfinite(call().mean).all(axis=0).tolist() == [b in named for b in range(13)]
        else:
            with pytest.raises(ValueError, match=r"^groups: expected"):
                call()
