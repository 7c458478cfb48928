"""The sensitivity test on real models: Keras, PyTorch, scikit-learn and JAX, each where it is installed."""

import gc
import logging
import pickle
import threading
import time
import weakref

import numpy as np
import pytest

import sensitivity
from perturbation.predictors import GRAPHS, Predictor
from perturbation.probe import MAX_BATCH, probe_model
from sensitivity import sensitivity_map

N_BINS, N_AMPS = 13, 3


def run(model, **options):
    rng = np.random.default_rng(0)
    spectra, errors = rng.normal(0.01, 0.002, (4, N_BINS)), rng.uniform(2e-5, 6e-5, N_BINS)
    how = {"rng": 0} | options
    return sensitivity_map(
        model, None, spectra, errors, np.zeros(N_AMPS), np.ones(N_AMPS), None, None, 50, 0.01, 0.002, **how
    )


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


def small_network(keras, channel=True, recurrent=False):
    inputs = keras.Input((N_BINS, 1) if channel else (N_BINS,))
    x = keras.layers.LSTM(4)(inputs) if recurrent else keras.layers.Flatten()(inputs)
    x = keras.layers.Dropout(0.5)(keras.layers.Dense(8, activation="relu")(x))
    return keras.Model(inputs, keras.layers.Dense(N_AMPS)(x))


def numpy_twin(network):
    first, last = (layer for layer in network.layers if layer.weights)
    (w1, b1), (w2, b2) = first.get_weights(), last.get_weights()
    return lambda x: np.maximum(x.reshape(len(x), -1) @ w1 + b1, 0) @ w2 + b2


@pytest.mark.parametrize("channel", [True, False])
def test_keras_network_agrees_with_its_weights_in_numpy(keras, channel):
    network = small_network(keras, channel)
    result = run(network)
    np.testing.assert_allclose(result.mean, run(numpy_twin(network)).mean, rtol=1e-3)
    assert np.array_equal(run(network).mean, result.mean)


def test_keras_maps_are_bit_identical_in_any_chunking(keras):
    network = small_network(keras, recurrent=True)
    maps = [run(network, chunk_size=size).mean for size in (1, 3, 100)]
    assert np.array_equal(maps[0], maps[1]) and np.array_equal(maps[0], maps[2])


def test_only_networks_known_to_allow_it_are_called_by_several_threads(keras):
    network, callers = small_network(keras), set()

    def recorded(x, call):
        callers.add(threading.get_ident())
        time.sleep(0.005)  # long enough for the next call to find this thread busy
        return call(x)

    on_batch, twin = network.predict_on_batch, numpy_twin(network)
    network.predict_on_batch = lambda x: recorded(x, on_batch)
    run(network)
    if keras.backend.backend() == "tensorflow":
        assert len(callers - {threading.get_ident()}) > 1
    callers.clear()
    run(lambda x: recorded(x, twin))
    assert callers == {threading.get_ident()}


def test_threads_do_not_make_tensorflow_warn_of_retracing(keras):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow is not the backend")
    records, handler, logger = [], logging.Handler(), logging.getLogger("tensorflow")
    handler.emit = records.append
    run(small_network(keras), batch_size=51)  # its many calls take the place of those of other tests in the count
    logger.addHandler(handler)
    try:
        for _ in range(5):
            run(small_network(keras), batch_size=126)
    finally:
        logger.removeHandler(handler)
    assert not records


def test_a_predict_of_ones_own_is_what_is_called(keras):
    class Percent(keras.Model):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def call(self, x):
            return self.network(x)

        def predict(self, x):
            return 100 * self.network.predict_on_batch(x)

    network = small_network(keras)
    np.testing.assert_allclose(run(Percent(network)).mean, 1e4 * run(network).mean, rtol=1e-3)


def test_keras_network_with_an_auxiliary_input(keras):
    spectrum, planet = keras.Input((N_BINS, 1)), keras.Input((2,))
    both = keras.layers.Concatenate()([keras.layers.Flatten()(spectrum), planet])
    network = keras.Model([spectrum, planet], keras.layers.Dense(N_AMPS)(both))
    result = run(network, auxiliary=np.ones((4, 2)))
    weights = network.get_weights()[0][:N_BINS]
    np.testing.assert_allclose(result.mean, run(lambda x: x @ weights).mean, rtol=1e-3)


def test_keras_file_is_loaded_by_recipe(keras, tmp_path):
    network = small_network(keras)
    network.save(tmp_path / "model.keras")
    loader = sensitivity.ModelLoader(keras.models.load_model, str(tmp_path / "model.keras"))
    assert np.array_equal(run(pickle.loads(pickle.dumps(loader))).mean, run(network).mean)


def test_keras_network_for_another_number_of_bins_is_refused(keras):
    with pytest.raises(ValueError, match=r"^org_spectrum: expected 13 bins as the model does, received 14"):
        probe_model(small_network(keras), np.zeros(14))


def test_wide_layers_get_smaller_batches(keras):
    inputs = keras.Input((52, 1))
    recurrent = keras.layers.Bidirectional(keras.layers.LSTM(100, return_sequences=True))(inputs)
    wide = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(recurrent)))
    assert probe_model(wide, np.zeros(52)).batch_size < 500
    assert probe_model(small_network(keras), np.zeros(N_BINS)).batch_size == MAX_BATCH


def test_torch_module_as_it_is_or_wrapped():
    """A worked example: a bare module is put in evaluation mode, a wrapper is the caller's own."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(N_BINS, 8), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(8, N_AMPS)
    )
    network[2].eval()
    bare = run(network)
    assert network.training and network[0].training and not network[2].training  # each as it was
    network.eval()
    wrapped = run(lambda x: network(torch.from_numpy(x)))  # a tensor with its gradient may be returned
    assert np.array_equal(bare.mean, wrapped.mean)
    w1, b1, w2, b2 = (p.detach().numpy() for p in network.parameters())
    twin = run(lambda x: np.maximum(x @ w1.T + b1, 0) @ w2.T + b2)
    np.testing.assert_allclose(bare.mean, twin.mean, rtol=1e-3)


def test_torch_convolution_reads_channels_first():
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(2 * 11, N_AMPS)).eval()
    assert run(lambda x: network(torch.from_numpy(x)[:, None]), input_layout="flat").mean.shape == (N_AMPS, N_BINS)


def test_scikit_learn_pipeline():
    """A worked example: a pipeline that scales by itself reads depths, so x_mean = 0 and x_std = 1."""
    pytest.importorskip("sklearn")
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(1)
    spectra, errors = rng.normal(0.01, 0.002, (200, N_BINS)), np.full(N_BINS, 4e-5)
    weights = rng.normal(size=(N_BINS, N_AMPS)) / 0.002
    pipeline = make_pipeline(StandardScaler(), Ridge(alpha=1e-9)).fit(spectra, spectra @ weights)
    result = sensitivity_map(
        pipeline, None, spectra[:4], errors, np.zeros(N_AMPS), np.ones(N_AMPS), no_spectra=None, x_mean=0, x_std=1,
        scheme="single",
    )  # fmt: skip
    np.testing.assert_allclose(result.mean, (weights.T * errors) ** 2, rtol=1e-3)


def test_jax_function():
    jax = pytest.importorskip("jax")
    weights = np.random.default_rng(0).normal(size=(N_BINS, N_AMPS)).astype(np.float32)
    result = run(jax.jit(lambda x: jax.numpy.dot(x, weights)))
    np.testing.assert_allclose(result.mean, run(lambda x: x @ weights).mean, rtol=1e-3)


@pytest.mark.parametrize("recurrent", [False, True])
def test_keras_is_called_by_its_own_graph_with_the_same_bits(keras, recurrent):
    network = small_network(keras, recurrent=recurrent)
    rows = np.random.default_rng(0).normal(size=(60, N_BINS)).astype(np.float32)
    predict = Predictor(network, N_AMPS, "channel")
    for n in (60, 1, 7):
        assert np.array_equal(predict(rows[:n]), network.predict_on_batch(rows[:n, :, None]))
    if keras.backend.backend() == "tensorflow":
        assert GRAPHS[network.predict_function][N_BINS, 1] is not None
    keras.utils.clear_session()
    network.set_weights([2 * weights for weights in network.get_weights()])
    assert np.array_equal(predict(rows), network.predict_on_batch(rows[:, :, None]))
    network.layers[-1].activation = keras.activations.tanh
    network.compile()  # which makes changes known to Keras
    assert np.array_equal(predict(rows), network.predict_on_batch(rows[:, :, None])) and abs(predict(rows)).max() <= 1


def test_network_that_its_first_call_builds_takes_any_number_of_rows(keras):
    network = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(N_AMPS)])
    found = run(network, scheme="single").mean
    assert np.array_equal(run(network, scheme="single").mean, found)
    weights, _ = network.get_weights()
    linear = run(lambda x: x @ weights, scheme="single", input_layout="flat")
    np.testing.assert_allclose(found, linear.mean, rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64])
def test_keras_takes_numbers_of_any_type(keras, dtype):
    network = small_network(keras)
    rows = (10 * np.random.default_rng(0).normal(size=(3, N_BINS, 1))).astype(dtype)
    assert np.array_equal(Predictor(network, N_AMPS, "channel").function(rows), network.predict_on_batch(rows))


@pytest.mark.parametrize("n_inputs", [1, 2])
def test_second_input_that_is_missing_or_not_wanted_is_refused_in_one_line(keras, n_inputs):
    inputs = [keras.Input((N_BINS,)), keras.Input((2,))][:n_inputs]
    joined = keras.layers.Concatenate()(inputs) if n_inputs == 2 else inputs[0]
    network = keras.Model(inputs, keras.layers.Dense(N_AMPS)(joined))
    words = f"expected {n_inputs - 1} array\\(s\\), as the model has {n_inputs} input\\(s\\), received {2 - n_inputs}"
    with pytest.raises(ValueError, match=f"^auxiliary: {words}$"):
        run(network, auxiliary=np.ones((4, 2)) if n_inputs == 1 else None)


def test_a_graph_does_not_keep_its_network_in_memory(keras):
    network = small_network(keras)
    run(network, scheme="single")
    network = weakref.ref(network)
    gc.collect()
    assert network() is None


def test_networks_without_a_graph_for_any_rows_are_called_by_batches(keras):
    inputs = keras.Input(batch_shape=(4, N_BINS))
    network = keras.Model(inputs, {"amps": keras.layers.Dense(N_AMPS)(inputs)})
    rows = np.random.default_rng(0).normal(size=(4, N_BINS)).astype(np.float32)
    predict = Predictor(network, N_AMPS, "flat", "amps")
    assert np.array_equal(predict(rows), network.predict_on_batch(rows)["amps"])
    network.compile(run_eagerly=True)
    assert np.array_equal(predict(rows), network.predict_on_batch(rows)["amps"])
