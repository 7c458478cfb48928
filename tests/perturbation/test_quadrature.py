"""The exact map: closed forms along bins and along any direction, its error, the same bits however it is cut."""

import math
import multiprocessing
import tracemalloc
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from problems import slope_and_curvature

import sensitivity
from perturbation.mapstore import MapStore
from perturbation.quadrature import call_shape, make_rule, summed
from perturbation.result import response_map
from sensitivity import sensitivity_map

N, N_BINS, N_AMPS = 11, 13, 3
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(N_BINS, N_AMPS))
SPECTRA = RNG.normal(0.01, 0.002, (N, N_BINS))
ERRORS = RNG.uniform(2e-4, 6e-4, (N, N_BINS))
UNIT = np.arange(1.0, N_AMPS + 1)
SCALED = (SPECTRA - 0.01) / 0.002
ARRAYS = ("mean", "standard_error", "quadrature_error", "slope", "curvature", "share_error", "per_spectrum")


def linear(x):
    return x @ WEIGHTS


def network(x):
    """Two layers of rectifiers."""
    hidden = np.maximum(x @ np.random.default_rng(1).normal(size=(N_BINS, 24)), 0)
    return np.maximum(hidden @ np.random.default_rng(2).normal(size=(24, 24)), 0) @ WEIGHTS[:1].repeat(24, axis=0)


def run(model=linear, errors=ERRORS, spectra=SPECTRA, **options):
    defaults = {"scheme": "single", "input_layout": "flat", "no_spectra": None}
    return sensitivity_map(
        model, None, spectra, errors, np.zeros(N_AMPS), UNIT, x_mean=0.01, x_std=0.002, **defaults | options
    )


# The right answer


@pytest.mark.parametrize(("rule", "nodes"), [("hermite", 2), ("hermite", 5), ("spline", 3), ("spline", 10)])
def test_linear_model_has_its_closed_form_and_no_error(rule, nodes):
    result = run(rule=rule, nodes=nodes)
    effect = WEIGHTS.T[None] * (ERRORS / 0.002)[:, None] * UNIT[:, None]  # (N, n_AMPs, n_bins)
    np.testing.assert_allclose(result.per_spectrum, effect**2, rtol=1e-4)
    np.testing.assert_allclose(result.mean, (effect**2).mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(result.slope, effect.mean(axis=0), rtol=1e-4)
    assert np.abs(result.curvature / result.slope).max() < 1e-4
    assert (result.repeat_error == 0).all() and result.repeat == 0
    assert (result.quadrature_error < 1e-4 * result.mean).all()
    assert (result.nodes, result.rule, result.scheme) == (nodes, rule, "single")


@pytest.mark.parametrize(
    ("degree", "nodes", "rule"), [(2, 3, "auto"), (4, 5, "auto"), (2, 3, "spline"), (2, 7, "spline")]
)
def test_polynomials_are_exact(degree, nodes, rule):
    sigma, at = ERRORS[:1] / 0.002, SCALED[:1]
    result = run(lambda x: x.astype(float) ** degree @ np.abs(WEIGHTS), errors=ERRORS[:1], spectra=SPECTRA[:1],
                 nodes=nodes, rule=rule)  # fmt: skip
    # E[((x + s z)^k - x^k)^2] from the moments of z
    terms = [math.comb(degree, k) * at ** (degree - k) * sigma**k for k in range(1, degree + 1)]
    moment = {k: math.prod(range(1, k, 2)) if k % 2 == 0 else 0 for k in range(2, 2 * degree + 1)}
    truth = sum(
        a * b * moment[i + j] for i, a in enumerate(terms, start=1) for j, b in enumerate(terms, start=1)
    )  # (1, n_bins)
    np.testing.assert_allclose(result.mean, WEIGHTS.T**2 * truth * UNIT[:, None] ** 2, rtol=2e-4)


def test_slope_and_curvature_are_means_of_the_derivatives_over_the_noise():
    result = run(lambda x: x.astype(float) ** 3 @ WEIGHTS)
    sigma = ERRORS / 0.002
    slope = (3 * (SCALED**2 + sigma**2) * sigma).mean(axis=0)  # E[3 (x + s z)^2] s
    curvature = (6 * SCALED * sigma**2).mean(axis=0)
    np.testing.assert_allclose(result.slope, WEIGHTS.T * slope * UNIT[:, None], rtol=1e-3)
    np.testing.assert_allclose(result.curvature, WEIGHTS.T * curvature * UNIT[:, None], rtol=2e-2, atol=1e-3)


def test_slope_agrees_with_the_response_map():
    predict = lambda depth: network((depth - 0.01) / 0.002) * UNIT  # noqa: E731
    response = response_map(predict, SPECTRA, ERRORS, np.linspace(-0.2, 0.2, 5))
    expected, _ = slope_and_curvature(response.deviations, response.change)
    slope = run(network, errors=ERRORS / 100, nodes=9).slope
    inside = np.abs(100 * slope - expected) < 0.2 * np.abs(expected).max()
    assert inside.mean() > 0.95


def test_nothing_is_drawn():
    assert np.array_equal(run(network, rng=1).mean, run(network, rng=2).mean)
    random = run(network, nodes=None, repeat=400, rng=0)
    assert random.repeat == 400 and random.nodes is None and random.slope is None and random.quadrature_error is None
    exact = run(network, nodes=41)
    assert np.abs((random.mean - exact.mean) / random.repeat_error).max() < 5


def test_published_function_stays_published():
    arguments = linear, None, SPECTRA, ERRORS, np.zeros(N_AMPS), UNIT, None, None, 20, 0.01, 0.002
    published = sensitivity.compute_sensitivty_org(*arguments, rng=0, input_layout="flat")
    assert np.array_equal(published, run(scheme="halving", repeat=20, rng=0).mean)
    exact = sensitivity.compute_sensitivty_org(*arguments, scheme="single", input_layout="flat")
    assert np.array_equal(exact, run().mean)


# Its error


def step(x):
    return (x > np.linspace(-1, 1, N_BINS)).astype(float) @ np.abs(WEIGHTS)


PLACES = np.linspace(-3, 3, 61)  # of a kink or a step, in standard deviations
DENSITY = np.exp(-(PLACES**2) / 2) / math.sqrt(2 * math.pi)
TAIL = np.array([math.erfc(place / math.sqrt(2)) / 2 for place in PLACES])


@pytest.mark.parametrize(("nodes", "kinks", "steps"), [(5, 0.8, 0.75), (21, 0.85, 0.8)])  # least share covered
def test_error_of_the_default_rule_covers_a_kink_and_a_step_wherever_it_is(nodes, kinks, steps):
    """max(z - c, 0) and z > c, whose mean squares follow from the tail of the normal distribution."""
    first, second = (
        DENSITY - PLACES * TAIL,
        (1 + PLACES**2) * TAIL - PLACES * DENSITY,
    )  # E[h], E[h^2], h = max(z - c, 0)
    centre = np.maximum(-PLACES, 0)  # h(0)
    rule = make_rule("auto", nodes)
    at = rule.nodes[:, None]
    cases = (
        (np.maximum(at - PLACES, 0) - centre, second - 2 * centre * first + centre**2, kinks),
        ((at > PLACES) * 1.0 - (PLACES < 0), np.minimum(TAIL, 1 - TAIL), steps),
    )
    for change, truth, least in cases:
        found, error = summed(change[:, :, None, None], rule)[:2, :, 0, 0]
        covered = np.abs(found - truth) <= error + 1e-9
        assert covered.mean() > least


@pytest.mark.parametrize("model", [network, step])
@pytest.mark.parametrize(("nodes", "rule"), [(5, "auto"), (5, "spline"), (9, "spline"), (20, "midpoints")])
def test_quadrature_error_covers_kinks_and_steps(model, nodes, rule):
    wide = 0.002 * np.random.default_rng(3).uniform(0.3, 1, (N, N_BINS))
    exact = run(model, wide, nodes=200, rule="midpoints" if model is step else "hermite")
    result = run(model, wide, nodes=nodes, rule=rule)
    covered = np.abs(result.mean - exact.mean) <= result.quadrature_error + 0.01 * exact.mean
    assert covered.mean() > (0.75 if rule == "midpoints" and model is network else 0.9)


def test_more_nodes_come_closer():
    wide = np.full(N_BINS, 0.001)
    exact = run(network, wide, nodes=151, rule="spline").mean
    off = [np.abs(run(network, wide, nodes=n).mean - exact).sum() / exact.sum() for n in (3, 7, 15)]
    assert off[0] > 2 * off[1] > 4 * off[2]


def test_one_spectrum_has_the_error_of_its_quadrature():
    result = run(network, ERRORS[:1], SPECTRA[:1])
    assert np.array_equal(result.standard_error, result.quadrature_error)
    assert np.isnan(result.shares()[1]).all()


# The same bits


def assert_same(result, reference, but=()):
    for name in set(ARRAYS) - set(but):
        assert np.array_equal(getattr(result, name), getattr(reference, name), equal_nan=True), name


@pytest.mark.parametrize("batch_size", [20, 54, 130, 5120])  # parts of a spectrum, one, two, all spectra in a call
def test_map_is_bit_identical_in_any_chunking_and_on_threads(batch_size):
    reference = run(network, batch_size=batch_size)
    with ThreadPoolExecutor(3) as executor:
        for options in ({"chunk_size": 1}, {"chunk_size": 7}, {"chunk_size": 3, "executor": executor}):
            assert_same(run(network, batch_size=batch_size, **options), reference)
    np.testing.assert_allclose(reference.mean, run(network).mean, rtol=1e-4)


def load_network():
    return network


@pytest.mark.slow
def test_worker_processes_agree_bit_for_bit():
    loader = sensitivity.ModelLoader(load_network)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        for options in ({"batch_size": 130}, {"batch_size": 20}):
            result = run(loader, executor=executor, chunk_size=2, **options)
            assert_same(result, run(network, **options))


def test_map_goes_on_from_a_store_and_computes_what_is_missing(tmp_path):
    reference, rows = run(network, batch_size=130), []

    def counted(x):
        rows.append(len(x))
        return network(x)

    with MapStore(tmp_path / "maps", N_AMPS, N_BINS) as store:
        assert_same(run(counted, batch_size=130, store=store), reference)
        assert len(store) == N and store[0].shape == (4, N_AMPS, N_BINS)
    with MapStore(tmp_path / "maps", N_AMPS, N_BINS) as store:
        half = {row: store[row] for row in range(6)}
        rows.clear()
        assert_same(run(counted, batch_size=130, store=store), reference)
        assert rows == [12, 1]  # the probe
        rows.clear()
        assert_same(run(counted, batch_size=130, store=half), reference)
        assert rows == [12, 1, 106, 106, 106]
        with pytest.raises(
            ValueError, match=r"^store: expected finite maps \(2, 3, 13\) of spectrum \d+, received \(4, 3, 13\)"
        ):
            run(store=store, nodes=None, rng=0)


def test_a_spectrum_has_the_same_map_whatever_its_company():
    whole = run(network)
    assert np.array_equal(run(network, no_spectra=2).per_spectrum, whole.per_spectrum[:2])
    some = run(network, ERRORS[3:7], SPECTRA[3:7])
    np.testing.assert_allclose(some.per_spectrum, whole.per_spectrum[3:7], rtol=1e-5)


def test_a_whole_chunk_is_predicted_in_one_call():
    calls = []

    def counted(x):
        calls.append(len(x))
        return network(x)

    run(counted, batch_size=600)
    assert calls == [12, 1, 583]  # 11 spectra of 1 + 4 * 13 rows
    rule = make_rule("hermite", 5)
    shapes = {n: call_shape(rule, 52, 5120, n) for n in (1, 10, 24, 25, 50, 300, 6000)}
    assert shapes == {1: (1, 52), 10: (10, 52), 24: (24, 52), 25: (13, 52), 50: (17, 52), 300: (24, 52), 6000: (24, 52)}
    assert call_shape(rule, 52, 192, 300) == (1, 26)


@pytest.mark.parametrize("n", [1, 2, 24, 25, 50])
def test_hardly_a_row_is_predicted_for_nothing(n):
    rows, weights = [], np.ones((52, 2))
    sensitivity.exact_map(
        lambda x: rows.append(len(x)) or x @ weights, np.ones((n, 52)), np.ones(52), input_layout="flat"
    )
    assert rows[:2] == [12, 1] and n * 209 <= sum(rows[2:]) <= 1.05 * n * 209


def test_memory_does_not_grow_with_the_spectra():
    peaks = []
    for n in (1000, 10000):  # of some chunks each
        spectra, errors = np.full((n, N_BINS), 0.01), np.full(N_BINS, 1e-4)
        tracemalloc.start()
        run(spectra=spectra, errors=errors, keep_spectra=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


# Directions


def test_a_bin_of_a_covariance_moves_by_its_own_error():
    bins = np.arange(N_BINS)
    covariance = ERRORS[:, :, None] * 0.8 ** np.abs(bins[:, None] - bins) * ERRORS[:, None]
    np.testing.assert_allclose(run(network, covariance, covariance=True).mean, run(network).mean, rtol=1e-6)
    shared = run(network, covariance[0], covariance=True)
    np.testing.assert_allclose(shared.mean, run(network, ERRORS[0]).mean, rtol=1e-6)
    with pytest.raises(ValueError, match="org_error: expected no negative eigenvalue"):
        run(network, -covariance[0], covariance=True)


@pytest.mark.parametrize("each", [False, True])
def test_direction_of_a_linear_model_has_its_closed_form(each):
    directions = RNG.normal(size=(N, 4, N_BINS) if each else (4, N_BINS)) * 3e-4
    result = run(errors=None, directions=directions)
    effect = np.broadcast_to(directions / 0.002 @ WEIGHTS, (N, 4, N_AMPS)) * UNIT  # w . d
    assert result.mean.shape == (N_AMPS, 4) and result.scheme == "directions"
    np.testing.assert_allclose(result.mean, (effect**2).mean(axis=0).T, rtol=1e-3)
    np.testing.assert_allclose(result.slope, effect.mean(axis=0).T, rtol=1e-3, atol=1e-4)


def test_directions_of_the_bins_are_the_map_of_the_bins():
    directions = ERRORS[:, :, None] * np.eye(N_BINS)
    assert_same(run(network, directions=directions), run(network))


def test_auxiliary_inputs_stay_with_their_spectrum():
    auxiliary = RNG.uniform(1, 2, (N, 2))
    result = run(lambda inputs: linear(inputs[0]) * inputs[1][:, :1], auxiliary=auxiliary)
    np.testing.assert_allclose(result.per_spectrum, run().per_spectrum * auxiliary[:, :1, None] ** 2, rtol=1e-4)


def test_scaling_of_each_bin_applies_to_directions():
    x_std = np.linspace(0.001, 0.004, N_BINS)
    result = sensitivity_map(
        linear, None, SPECTRA, None, np.zeros(N_AMPS), UNIT, no_spectra=None, x_mean=np.full(N_BINS, 0.01), x_std=x_std,
        directions=1e-4 * np.ones((1, N_BINS)), input_layout="flat",
    )  # fmt: skip
    np.testing.assert_allclose(result.mean[:, 0], ((1e-4 / x_std) @ WEIGHTS * UNIT) ** 2, rtol=1e-3)


BAD = {
    "nodes": {"nodes": 1},
    "nodes ": {"nodes": 2.5},
    "nodes  ": {"nodes": 5, "scheme": "halving"},
    "nodes   ": {"nodes": 5, "groups": [[0, 1]]},
    "nodes    ": {"nodes": None, "directions": np.ones((1, N_BINS))},
    "nodes     ": {"nodes": 10**6},
    "nodes      ": {"nodes": "many"},
    "rule": {"rule": "simpson"},
    "directions": {"directions": np.ones(N_BINS)},
    "directions ": {"directions": np.ones((2, N_BINS + 1))},
    "directions  ": {"directions": np.ones((N + 1, 2, N_BINS))},
    "directions   ": {"directions": np.full((2, N_BINS), np.nan)},
    "groups": {"groups": [[0, 1]], "directions": np.ones((2, N_BINS))},
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_line(case):
    with pytest.raises(ValueError, match=rf"^{case.strip()}: expected .*received") as caught:
        run(**BAD[case])
    assert "\n" not in str(caught.value)
