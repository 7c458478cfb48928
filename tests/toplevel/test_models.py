"""The networks have the paper's shapes, take any number of bins, and load safely."""

import importlib
import inspect
import random
from pathlib import Path

import numpy as np
import pytest

keras = pytest.importorskip("keras")

import models  # noqa: E402
from runio.config import Config, load_config  # noqa: E402


@pytest.mark.parametrize("name", models.NETWORKS)
@pytest.mark.parametrize("n_bins, n_amps", [(52, 9), (13, 5), (1, 1), (7, 2)])
def test_every_network_maps_bins_to_amps(name, n_bins, n_amps):
    model = models.build_model(name, n_bins, n_amps)
    assert model.input_shape == (None, n_bins, 1)
    assert model(np.zeros((3, n_bins, 1), np.float32)).shape == (3, n_amps)


PAPER = load_config(Path(__file__).resolve().parents[2] / "configs/paper.yaml")  # DESIGN.md, "Networks"
HEAD = ["Dense 64", "LeakyReLU 0.2", "Dropout"]
CONVOLUTION = ["Conv1D 32 of 3 same", "BatchNormalization", "ReLU"]
POOLED = [*CONVOLUTION, "MaxPooling1D 2"]
PAPER_LAYERS = {
    "mlp": ["Flatten", *(layer for n in (320, 240, 160, 80) for layer in (f"Dense {n} relu", "Dropout"))],
    "cnn": [*POOLED, *POOLED, *CONVOLUTION, "Flatten", *HEAD],
    "lstm": ["Bidirectional LSTM 100, all steps", "Bidirectional LSTM 100", "Dense 16", "LeakyReLU 0.2", "Dropout"],
    "hybrid": [*POOLED, *POOLED, *CONVOLUTION, "Bidirectional LSTM 100", *HEAD],
}


def build(name, n_bins=52, n_amps=9, config=PAPER, **options):
    return models.build_model(name, n_bins, n_amps, **options, **vars(getattr(config.model, name)))


def described(layer):
    """Name the layer with what defines it."""
    kind = type(layer).__name__
    if kind == "Bidirectional":
        inner = layer.forward_layer
        return f"Bidirectional LSTM {inner.units}" + (", all steps" if inner.return_sequences else "")
    if kind == "Dense":
        return f"Dense {layer.units} {layer.activation.__name__}".removesuffix(" linear")
    if kind == "Conv1D":
        return f"Conv1D {layer.filters} of {layer.kernel_size[0]} {layer.padding}"
    extra = {"LeakyReLU": "negative_slope", "MaxPooling1D": "pool_size"}.get(kind)
    value = getattr(layer, extra) if extra else ""
    return f"{kind} {value[0] if isinstance(value, tuple) else value}".strip()


@pytest.mark.parametrize("name", models.NETWORKS)
def test_layers_of_the_papers_settings(name):
    model = build(name)
    assert [described(layer) for layer in model.layers[1:]] == [*PAPER_LAYERS[name], "Dense 9"]
    assert not PAPER.model.whiten


def test_recurrent_steps_of_the_papers_settings():
    assert build("lstm").get_layer("lstm_1").input.shape == (None, 52, 1)
    assert build("hybrid").get_layer("lstm_1").input.shape == (None, 13, 32)


def test_parameter_counts_of_the_papers_settings():
    # MLP: 52 x 320 + 320, ... ; the others from the layers' own sums
    dense = 52 * 320 + 320 + 320 * 240 + 240 + 240 * 160 + 160 + 160 * 80 + 80 + 80 * 9 + 9
    assert build("mlp").count_params() == dense
    convolutions = (3 * 1 + 1) * 32 + 2 * (3 * 32 + 1) * 32 + 3 * 4 * 32
    head = 13 * 32 * 64 + 64 + 64 * 9 + 9
    assert build("cnn").count_params() == convolutions + head
    lstm = 2 * 4 * (100 * (1 + 100) + 100) + 2 * 4 * (100 * (200 + 100) + 100)
    assert build("lstm").count_params() == lstm + 200 * 16 + 16 + 16 * 9 + 9


@pytest.mark.parametrize("name", ["lstm", "hybrid"])
@pytest.mark.parametrize("n_bins, steps", [(52, 13), (13, 4), (283, 71), (1, 1)])
def test_patches_take_every_bin_and_fill_up_the_last(name, n_bins, steps):
    model = models.build_model(name, n_bins, 2, patch=4, seed=0)
    assert model.get_layer("patches").output.shape[1] == steps
    slope = np.abs(slopes(model, n_bins))
    assert slope.shape == (n_bins,)
    assert np.all(slope > 0)  # the last bin counts as well


def slopes(model, n_bins):
    """Change of the first answer when each bin moves by itself, (n_bins,)."""
    rows = np.concatenate([np.zeros((1, n_bins)), np.eye(n_bins)]).astype(np.float32)[..., None]
    answer = np.asarray(model(rows))[:, 0]
    return answer[1:] - answer[0]


@pytest.mark.parametrize("name", ["cnn", "hybrid", "lstm"])
def test_the_defaults_keep_every_bin_apart_and_explain_themselves(name):
    model = build(name, config=Config())
    kinds = {type(layer).__name__ for layer in model.layers}
    assert not kinds & {"MaxPooling1D", "BatchNormalization", "Dropout"}
    lines = []
    model.summary(print_fn=lines.append)
    told = "\n".join(lines)
    for word in {"cnn": ("conv_1", "all_bins"), "lstm": ("patches", "lstm_1", "all_steps")}.get(
        name, ("conv_1", "patches")
    ):
        assert word in told


@pytest.mark.parametrize("name", models.NETWORKS)
def test_defaults_of_the_builders_are_those_of_the_settings(name):
    settings = vars(getattr(Config().model, name))
    parameters = inspect.signature(models.BUILDERS[name]).parameters
    defaults = {key: "auto" if key == "activation" else parameters[key].default for key in settings}
    assert defaults == {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}


def test_a_network_without_bins_or_amps_is_refused():
    with pytest.raises(ValueError, match="n_bins and n_amps: expected at least 1, received 0 and 2"):
        models.build_model("mlp", 0, 2)


def test_auxiliary_inputs_reach_the_answer():
    model = models.build_model("cnn", 13, 2, n_auxiliary=3)
    x = np.zeros((1, 13, 1), np.float32)
    one, two = (np.asarray(model([x, np.full((1, 3), a, np.float32)])) for a in (0.0, 1.0))
    assert not np.allclose(one, two)


def test_whitening_is_a_fixed_first_layer():
    kernel, bias = np.diag(np.arange(1.0, 14.0)), np.arange(13.0)
    model = models.build_model("mlp", 13, 2, whitening=(kernel, bias))
    layer = model.get_layer("whitening")
    x = np.ones((2, 13), np.float32)
    assert np.allclose(layer(x), x @ kernel + bias)
    assert not layer.trainable_weights


def test_unknown_network_is_refused():
    with pytest.raises(ValueError, match="expected one of mlp, cnn, lstm, hybrid, received 'mpl'"):
        models.build_model("mpl", 52, 9)


def test_saved_network_answers_the_same(tmp_path):
    model = models.build_model("hybrid", 13, 3)
    model.save(tmp_path / "m.keras")
    x = np.random.default_rng(0).normal(size=(4, 13, 1)).astype(np.float32)
    assert np.array_equal(model.predict(x, verbose=0), models.load_model(tmp_path / "m.keras").predict(x, verbose=0))


def test_unsafe_or_broken_model_files_are_refused(tmp_path):
    unsafe = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)])
    unsafe.save(tmp_path / "unsafe.keras")
    (tmp_path / "junk.keras").write_bytes(b"no archive")
    (tmp_path / "model.pkl").write_bytes(b"pickle")
    for name in ("unsafe.keras", "junk.keras", "model.pkl", "missing.keras"):
        with pytest.raises(ValueError, match=name) as caught:
            models.load_model(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mlp", "cnn", "lstm", "hybrid"])
def test_a_seed_gives_the_weights_whatever_else_draws_random_numbers(name):
    whitening = np.eye(13), np.zeros(13)
    networks = []
    for seed in (7, 7, 8):
        networks.append(models.build_model(name, 13, 2, whitening=whitening, seed=(seed, 0)))
        random.random()  # as another thread may do at any time
    weights = [np.concatenate([w.ravel() for w in network.get_weights()]) for network in networks]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
    np.testing.assert_array_equal(networks[0].get_layer("whitening").get_weights()[0], whitening[0])


def test_a_users_keras_json_has_no_say():
    """The module is loaded again after Keras was set as by a keras.json."""
    keras.config.set_floatx("float16")
    keras.config.set_image_data_format("channels_first")
    importlib.reload(models)
    assert (keras.config.floatx(), keras.config.image_data_format()) == ("float32", "channels_last")
