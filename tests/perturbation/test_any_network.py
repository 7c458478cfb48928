"""Networks that people bring, each with its right map or the words that refuse it. Real frameworks where installed."""

import json
import warnings

import numpy as np
import pytest

from perturbation.probe import probe_model
from sensitivity import load_keras, sensitivity_map

N, N_BINS, N_AMPS = 5, 12, 2
RNG = np.random.default_rng(0)
W = RNG.normal(size=(N_BINS, N_AMPS)).astype(np.float32)
SPECTRA, ERRORS = RNG.normal(0.01, 0.002, (N, N_BINS)), RNG.uniform(2e-4, 6e-4, (N, N_BINS))
UNIT = np.array([1.0, 2.0])
TRUTH = ((W.T[None] * (ERRORS / 0.002)[:, None]) ** 2).mean(axis=0) * UNIT[:, None] ** 2  # of a linear model


def run(model, y_mean=0.0, y_std=UNIT, **options):
    how = {"scheme": "single", "no_spectra": None, "x_mean": 0.01, "x_std": 0.002} | options
    return sensitivity_map(model, None, SPECTRA, how.pop("errors", ERRORS), y_mean, y_std, **how)


def linear(x):
    return x.reshape(len(x), -1) @ W


def centred(x):
    """Normalises over its last axis, of length 1 in (rows, n_bins, 1)."""
    return (x - x.mean(-1, keepdims=True)).reshape(len(x), -1) @ W


CENTRED = (((W - W.mean(0)).T[None] * (ERRORS / 0.002)[:, None]) ** 2).mean(axis=0) * UNIT[:, None] ** 2


# The layout of the input


def test_layouts_that_give_different_predictions_have_to_be_chosen():
    with pytest.raises(
        ValueError, match=r"^input_layout: expected one of .*takes 'channel' and 'flat' and gives different"
    ):
        run(centred)
    for layout in ("flat", "channel_first"):
        np.testing.assert_allclose(run(centred, input_layout=layout).mean, CENTRED, rtol=1e-3)
    assert (run(centred, input_layout="channel").mean == 0).all()  # as asked


def test_models_of_channels_first_are_found():
    def convolution(x):
        assert x.shape[1:] == (1, N_BINS), f"expected (rows, 1, {N_BINS})"
        return x[:, 0] @ W

    np.testing.assert_allclose(run(convolution).mean, TRUTH, rtol=1e-3)
    convolution.input_shape = (None, 1, N_BINS)
    assert probe_model(convolution, SPECTRA[:3]).predictor.layout == "channel_first"


# Models that predict at random, or look at other rows


def noisy(size, seed=0):
    rng = np.random.default_rng(seed)
    return lambda x: linear(x) + rng.normal(0, size, (len(x), N_AMPS))


def test_random_predictions_are_told_subtracted_or_averaged():
    size, seeds = 0.3, range(12)
    with pytest.warns(
        UserWarning, match=r"received random ones \(standard deviation 0\.\d+, scaled units\), which adds"
    ):
        run(noisy(size))
    # Five nodes without their centre have 7/15 of the weight, and each change has the noise of two predictions
    for way, added in ((None, 14 / 15 * size**2), ("subtract", 0.0), (20, 14 / 15 * size**2 / 20)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if way is None else "error")
            warnings.filterwarnings("ignore", "stochastic: ")  # said below
            maps = np.array([run(noisy(size, seed), stochastic=way).mean for seed in seeds])
        found = ((maps - TRUTH) / UNIT[:, None] ** 2).mean(axis=(1, 2))
        assert abs(found.mean() - added) < 4 * found.std(ddof=1) / np.sqrt(len(seeds)), way
    halving = [run(noisy(size, k), scheme="halving", repeat=40, rng=k, stochastic="subtract") for k in seeds]
    quiet = run(linear, scheme="halving", repeat=480, rng=1).mean
    ratios = np.array([(one.mean / quiet).mean() for one in halving])
    assert abs(ratios.mean() - 1) < 4 * ratios.std(ddof=1) / np.sqrt(len(seeds))


def test_random_predictions_that_may_be_the_same_by_chance_are_told():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        with pytest.warns(UserWarning, match="received random ones"):  # dropout of a fifth of the outputs
            run(lambda x: linear(x) * (rng.random((len(x), N_AMPS)) > 0.2), no_spectra=1, input_layout="flat")  # noqa: B023


def test_maps_that_are_lost_in_the_random_part_are_told():
    lost = noisy(np.array([0.0, 3.0]))
    with pytest.warns(UserWarning, match=r"^stochastic: expected maps .* for AMP 1 from 5 spectra.*more samples"):
        run(lost, stochastic="subtract")


def test_what_is_not_random_is_not_called_so():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for way in (None, "subtract", 3):
            np.testing.assert_allclose(run(linear, stochastic=way).mean, TRUTH, rtol=1e-3)


@pytest.mark.parametrize("model", [
    lambda x: (linear(x) - linear(x).mean(axis=0)) / (linear(x).std(axis=0) + 1e-9),  # statistics of the batch
    lambda x: linear(x)[::-1],
    lambda x: linear(x)[np.argsort(linear(x)[:, 0])],
], ids=["batch statistics", "reversed rows", "sorted rows"])  # fmt: skip
def test_predictions_that_depend_on_other_rows_are_refused(model):
    with pytest.raises(ValueError, match=r"^model: expected predictions that depend on their own row alone, received"):
        run(model, input_layout="flat")


def test_predictions_near_zero_are_not_taken_for_random_or_for_those_of_neighbours():
    rounded = lambda x: linear(x) * 1e-6 + 1e-7 * (len(x) == 1)  # noqa: E731 - as a network of float32 rounds
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(run(rounded, input_layout="flat").mean).all()


# Numbers that are too coarse


@pytest.mark.parametrize(("dtype", "offset", "is_coarse"), [
    (np.float16, 10, True), (np.float16, 0, False), (np.float32, 1e6, True), (np.float32, 1, False), (float, 1e6, 0),
])  # fmt: skip
def test_predictions_of_few_digits_are_told(dtype, offset, is_coarse):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(lambda x: (linear(x).astype(float) * 0.1 + offset).astype(dtype), input_layout="flat")
    told = [str(warning.message) for warning in caught]
    assert len(told) == is_coarse and all("received AMP 0, AMP 1 in steps of about" in line for line in told)


WRONG = {
    "x_mean": {"x_mean": np.full((N_BINS, 1), 0.01), "x_std": np.full((N_BINS, 1), 0.002)},
    "y_data_mean": {"y_mean": np.zeros((N_AMPS, 1))},
    "scaled": {"scaled": "no"},
    "keep_spectra": {"keep_spectra": "no"},
    "progress": {"progress": 1},
    "stochastic": {"stochastic": "average"},
    "stochastic ": {"stochastic": 1},
    "org_error": {"errors": np.full(N_BINS, 1e-9), "x_mean": 0.0, "x_std": 1.0},  # below the digits of float32
    "org_error ": {"errors": np.diag(np.full(N_BINS, 1e-18)), "x_mean": 0.0, "x_std": 1.0},
    "org_error  ": {"errors": ERRORS > 0},
    "directions": {"directions": np.full((1, N_BINS), 1e-9), "x_mean": 0.0, "x_std": 1.0},
    "output": {"output": "amps"},
    "auxiliary_first": {"auxiliary_first": "no"},
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_refused_in_one_line(case):
    with pytest.raises(ValueError, match=rf"^{case.strip()}: expected .*received") as refusal:
        run(linear, **WRONG[case])
    assert "\n" not in str(refusal.value)


def test_errors_at_the_limit_of_float32_are_right():
    errors = np.full(N_BINS, 40 * np.finfo(np.float32).eps * SPECTRA.max())
    found = run(linear, errors=errors, x_mean=0.0, x_std=1.0).mean
    np.testing.assert_allclose(found, (W.T * errors * UNIT[:, None]) ** 2, rtol=0.1)


def test_maps_that_an_executor_spoils_are_refused():
    from concurrent.futures import Executor, Future

    from perturbation.engine import run_chunk

    class Spoils(Executor):
        def submit(self, function, /, *args):
            future, answer = Future(), function(*args)
            if function is run_chunk:
                answer = self.spoil(answer)
            future.set_result(answer)
            return future

    for spoil, words in (
        (lambda maps: maps * np.nan, "NaN or infinity"),
        (lambda maps: maps[..., :-1], r"\(5, 4, 2, 11\)"),
    ):
        executor = Spoils()
        executor.spoil = spoil
        with pytest.raises(ValueError, match=f"^executor: expected finite maps .* received {words}"):
            run(linear, executor=executor, chunk_size=N)


# What models return, and how they want two inputs


def heads(kind):
    def model(x):
        amps = linear(x)
        return {
            "dict": {"amps": amps, "spread": amps**2}, "list": [amps, amps**2], "tuple": (amps, amps**2),
            "each": {name: amps[:, k] for k, name in enumerate("ab")}, "only": {"amps": amps},
        }[kind]  # fmt: skip

    return model


@pytest.mark.parametrize(("kind", "output"), [
    ("dict", "amps"), ("list", 0), ("tuple", 0), ("each", ["a", "b"]), ("only", None), ("dict", ["amps"]),
])  # fmt: skip
def test_one_of_several_outputs_is_chosen(kind, output):
    np.testing.assert_allclose(run(heads(kind), output=output).mean, TRUTH, rtol=1e-3)


@pytest.mark.parametrize(("kind", "output", "names"), [
    ("dict", None, r"\['amps', 'spread'\], received None"), ("list", None, r"\[0, 1\], received None"),
    ("dict", "mean", r"\['amps', 'spread'\], received 'mean'"), ("list", 2, r"\[0, 1\], received 2"),
])  # fmt: skip
def test_several_outputs_are_named_where_one_has_to_be_chosen(kind, output, names):
    with pytest.raises(ValueError, match=f"output: expected one or a list of the model's outputs {names}"):
        run(heads(kind), output=output, input_layout="flat")


def test_two_inputs_in_any_order():
    second = RNG.uniform(1, 2, (N, 3))
    truth = (run(linear).per_spectrum * second[:, :1, None] ** 2).mean(axis=0)

    def model(inputs):
        spectra, auxiliary = sorted(inputs, key=lambda array: -array.shape[1])
        return spectra.reshape(-1, N_BINS) @ W * auxiliary[:, :1]

    np.testing.assert_allclose(run(model, auxiliary=second).mean, truth, rtol=1e-3)

    def swapped(inputs):
        assert inputs[0].shape[1] == 3
        return model(inputs)

    np.testing.assert_allclose(run(swapped, auxiliary=second, auxiliary_first=True).mean, truth, rtol=1e-3)
    swapped.input_shape = [(None, 3), (None, N_BINS)]
    np.testing.assert_allclose(run(swapped, auxiliary=second).mean, truth, rtol=1e-3)

    def by_name(inputs):
        return inputs["spectrum"] @ W * inputs["planet"][:, :1]

    by_name.input_shape = {"planet": (None, 3), "spectrum": (None, N_BINS)}
    np.testing.assert_allclose(run(by_name, auxiliary=second).mean, truth, rtol=1e-3)


def test_one_number_scales_all_amps():
    np.testing.assert_allclose(run(linear, 1.0, 3.0).mean, TRUTH / UNIT[:, None] ** 2 * 9, rtol=1e-3)
    np.testing.assert_allclose(run(linear, 0.0, UNIT).mean, TRUTH, rtol=1e-3)
    np.testing.assert_allclose(run(linear, None, None, scaled=True).mean, TRUTH / UNIT[:, None] ** 2, rtol=1e-3)


def test_a_model_built_for_a_number_of_rows_is_called_with_so_many():
    sizes = set()

    def model(x):
        sizes.add(len(x))
        return linear(x)

    model.input_shape = (8, N_BINS)
    assert np.allclose(run(model).mean, TRUTH, rtol=1e-3) and sizes == {8}


# Real frameworks


def test_a_pipeline_of_scikit_learn_takes_raw_spectra():
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = RNG.normal(0.01, 0.002, (60, N_BINS))
    pipeline = make_pipeline(StandardScaler(), LinearRegression()).fit(x, 5 + (x - 0.01) / 0.002 @ W * UNIT)
    found = run(pipeline, 0.0, 1.0, x_mean=0.0, x_std=1.0).mean
    np.testing.assert_allclose(found, TRUTH, rtol=2e-2)


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


def test_a_subclassed_keras_network_is_asked_as_it_was_trained(keras):
    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.head = keras.layers.Dense(N_AMPS, use_bias=False)
            self.flat = keras.layers.Flatten()

        def call(self, x):
            return self.head(self.flat(x - keras.ops.mean(x, axis=-1, keepdims=True)))

    trained, fresh = Network(), Network()
    for network in (trained, fresh):
        network.head.build((None, N_BINS))
        network.head.set_weights([W])
    trained(np.zeros((2, N_BINS), np.float32))
    np.testing.assert_allclose(run(trained).mean, CENTRED, rtol=1e-3)
    with pytest.raises(ValueError, match=r"^input_layout: expected one of"):
        run(fresh)
    np.testing.assert_allclose(run(fresh, input_layout="flat").mean, CENTRED, rtol=1e-3)  # after a wrong guess


def test_keras_networks_of_named_inputs_fixed_rows_and_several_outputs(keras):
    spectrum, planet = keras.Input((N_BINS, 1), name="spectrum"), keras.Input((3,), name="planet")
    amps = keras.layers.Dense(N_AMPS, use_bias=False, name="amps")(keras.layers.Flatten()(spectrum))
    outputs = {"amps": amps + 0 * keras.ops.sum(planet, axis=1, keepdims=True), "spread": amps**2}
    second = np.ones((N, 3))
    for inputs in ([planet, spectrum], {"planet": planet, "spectrum": spectrum}):
        network = keras.Model(inputs, outputs)
        network.get_layer("amps").set_weights([W])
        np.testing.assert_allclose(run(network, auxiliary=second, output="amps").mean, TRUTH, rtol=1e-3)
    fixed = keras.Input((N_BINS,), batch_size=16)
    network = keras.Model(fixed, keras.layers.Dense(N_AMPS, use_bias=False)(fixed))
    network.set_weights([W])
    np.testing.assert_allclose(run(network).mean, TRUTH, rtol=1e-3)


def test_files_of_keras_2_are_read(keras, tmp_path):
    """Keras 2 wrote losses by short names, and ``time_major`` of recurrent layers, neither of which Keras 3 reads."""
    h5py = pytest.importorskip("h5py")
    network = keras.Sequential([keras.Input((N_BINS, 1)), keras.layers.Bidirectional(keras.layers.LSTM(2)),
                                keras.layers.Dense(N_AMPS)])  # fmt: skip
    network.compile("adam", "mse")
    path = tmp_path / "network.h5"
    network.save(path)
    for time_major in (False, True):
        with h5py.File(path, "a") as file:
            settings = json.loads(file.attrs["model_config"])
            lstm = settings["config"]["layers"][1]["config"]["layer"]["config"]
            lstm["time_major"] = time_major
            file.attrs["model_config"] = json.dumps(settings)
            file.attrs["training_config"] = json.dumps({"loss": "mse", "metrics": ["mse"], "optimizer_config": {}})
        if time_major:
            with pytest.raises(ValueError, match=r"network\.h5: expected layers with time_major=False, received True"):
                load_keras(path)
        else:
            np.testing.assert_allclose(run(load_keras(path)).mean, run(network).mean, rtol=1e-4)


def test_mixed_precision_of_keras_2_is_read(keras, tmp_path):
    h5py = pytest.importorskip("h5py")
    network = keras.Sequential([keras.Input((N_BINS,)), keras.layers.Dense(N_AMPS, dtype="mixed_float16")])
    network.save(tmp_path / "network.h5")
    with h5py.File(tmp_path / "network.h5", "a") as file:
        settings = json.loads(file.attrs["model_config"])
        policy = {"module": "keras.mixed_precision", "class_name": "Policy", "config": {"name": "mixed_float16"}}
        settings["config"]["layers"][1]["config"]["dtype"] = policy | {"registered_name": None}
        file.attrs["model_config"] = json.dumps(settings)
    found = load_keras(tmp_path / "network.h5")
    assert found.layers[0].dtype_policy.name == "mixed_float16"
    assert np.array_equal(found.get_weights()[0], network.get_weights()[0])


def test_torch_modules_of_convolutions_bfloat16_and_a_predict_of_their_own():
    torch = pytest.importorskip("torch")

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = torch.nn.Conv1d(1, N_AMPS, N_BINS, bias=False)
            self.convolution.weight.data = torch.tensor(W.T[:, None])

        def forward(self, x):
            return self.convolution(x)[:, :, 0]

        def predict(self, loader):
            raise AssertionError("wants batches of a loader")

    np.testing.assert_allclose(run(Network()).mean, TRUTH, rtol=1e-3)
    with pytest.warns(UserWarning, match="in steps of about"):
        coarse = run(Network().to(torch.bfloat16), errors=ERRORS / 20)
    assert np.isfinite(coarse.mean).all()
