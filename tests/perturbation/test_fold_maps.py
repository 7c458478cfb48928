"""Several networks asked about the same perturbed spectra: each map as from its own run, and that of their mean."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sensitivity import fold_maps, sensitivity_map

N, N_BINS, N_AMPS, K = 7, 12, 3, 3
RNG = np.random.default_rng(0)
SPECTRA, ERRORS = RNG.normal(0.01, 0.002, (N, N_BINS)), RNG.uniform(2e-4, 6e-4, (N, N_BINS))
WEIGHTS = RNG.normal(size=(K, N_BINS, N_AMPS)).astype(np.float32)
ARRAYS = (
    "mean",
    "standard_error",
    "repeat_error",
    "quadrature_error",
    "slope",
    "curvature",
    "share_error",
    "per_spectrum",
)
ways = pytest.mark.parametrize("how", [
    {"repeat": 30}, {"scheme": "single"}, {"groups": [[0, 1], [5]], "repeat": 9},
    {"scheme": "single", "nodes": None, "repeat": 9}, {"directions": RNG.normal(0, 3e-4, (4, N_BINS))},
])  # fmt: skip


def networks(auxiliary=False, bend=np.tanh):
    """Three networks, each with scalers of its own."""

    def model(weights):
        if auxiliary:
            return lambda inputs: bend(inputs[0] @ weights) * inputs[1][:, :1]
        return lambda x: bend(x @ weights)

    def own(k):
        scaling = {"x_mean": 0.01 + k * 1e-4, "x_std": 0.002 + k * 1e-4}
        scaling |= {"y_data_mean": np.full(N_AMPS, k), "y_data_std": np.arange(1.0, 4) + k}
        second = {"auxiliary": RNG.uniform(1, 2, (N, 2))} if auxiliary else {}
        return {"model": model(WEIGHTS[k])} | scaling | second

    return [own(k) for k in range(K)]


def options(**how):
    return {"rng": 3, "no_spectra": None, "input_layout": "flat"} | how


def assert_same(result, reference):
    for name in ARRAYS:
        one, other = getattr(result, name), getattr(reference, name)
        assert (one is None and other is None) or np.array_equal(one, other, equal_nan=True), name
    assert np.array_equal(result.n_spectra, reference.n_spectra)


@ways
@pytest.mark.parametrize("auxiliary", [False, True])
def test_each_map_is_that_of_its_own_run_bit_for_bit(how, auxiliary):
    own = networks(auxiliary)
    *single, _ = fold_maps(own, None, SPECTRA, ERRORS, **options(**how))
    for network, result in zip(own, single, strict=True):
        assert_same(result, sensitivity_map(network.pop("model"), None, SPECTRA, ERRORS, **network, **options(**how)))


@ways
def test_the_last_map_is_that_of_the_mean_prediction(how):
    own = networks()

    def mean(depth):
        return np.mean([o["model"]((depth - o["x_mean"]) / o["x_std"]) * o["y_data_std"] for o in own], axis=0)

    reference = sensitivity_map(
        lambda x: mean(x.astype(float) * 0.002 + 0.01), None, SPECTRA, ERRORS, np.zeros(3), np.ones(3), x_mean=0.01,
        x_std=0.002, **options(**how),
    )  # fmt: skip
    result = fold_maps(own, None, SPECTRA, ERRORS, **options(**how))[-1]
    np.testing.assert_allclose(result.mean, reference.mean, rtol=1e-4)
    np.testing.assert_allclose(result.standard_error, reference.standard_error, rtol=1e-3)


def test_one_set_of_evaluations_serves_the_networks_and_their_mean():
    rows, own = [0] * K, networks()
    for k, network in enumerate(own):
        model = network["model"]
        network["model"] = lambda x, k=k, model=model: rows.__setitem__(k, rows[k] + len(x)) or model(x)
    alone = []
    for network in own:
        before = sum(rows)
        sensitivity_map(network["model"], None, SPECTRA, ERRORS, **{n: v for n, v in network.items() if n != "model"},
                        **options(repeat=30))  # fmt: skip
        alone.append(sum(rows) - before)
    rows[:] = [0] * K
    fold_maps(own, None, SPECTRA, ERRORS, **options(repeat=30))
    assert rows == alone


def test_cuts_stores_workers_and_chunks_change_nothing():
    how = options(repeat=20, gases=["H2O", "CO", "Tp"], abundance=(-6, -3))
    y_test, store = np.column_stack([RNG.uniform(-8, -2, (N, 2)), np.full(N, 900.0)]), {}
    whole = fold_maps(networks(), y_test, SPECTRA, ERRORS, **how)
    with ThreadPoolExecutor(2) as executor:
        again = fold_maps(networks(), y_test, SPECTRA, ERRORS, **how, executor=executor, chunk_size=2, store=store)
    del store[1], store[3]
    resumed = fold_maps(networks(), y_test, SPECTRA, ERRORS, **how, store=store)
    assert store[0].shape == (2, (K + 1) * N_AMPS, N_BINS) and len(whole) == K + 1
    for one, other, third in zip(whole, again, resumed, strict=True):
        assert_same(one, other)
        assert_same(one, third)
        assert one.amp_names == ("H2O", "CO", "Tp")


def test_networks_of_other_outputs_are_refused():
    own = networks()
    own[1]["model"] = lambda x: x[:, :2]
    with pytest.raises(ValueError, match=r"^model: expected output \(12, 3\), received \(12, 2\)"):
        fold_maps(own, None, SPECTRA, ERRORS, **options())


@pytest.mark.parametrize(("own", "words"), [
    ([], r"networks: expected dicts with a model each, received \[\]"), ([{"x_mean": 0}], "networks: expected dicts"),
    ([{"model": np.tanh}], "x_mean: expected the number"),
])  # fmt: skip
def test_networks_that_are_none_are_refused(own, words):
    with pytest.raises(ValueError, match=f"^{words}"):
        fold_maps(own, None, SPECTRA, ERRORS)
