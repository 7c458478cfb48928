"""The networks have the paper's shapes, take any number of bins, and load safely."""

import random

import numpy as np
import pytest

keras = pytest.importorskip("keras")

import models  # noqa: E402


@pytest.mark.parametrize("name", models.NETWORKS)
@pytest.mark.parametrize("n_bins, n_amps", [(52, 9), (13, 5), (1, 1), (7, 2)])
def test_every_network_maps_bins_to_amps(name, n_bins, n_amps):
    model = models.build_model(name, n_bins, n_amps)
    assert model.input_shape == (None, n_bins, 1)
    assert model(np.zeros((3, n_bins, 1), np.float32)).shape == (3, n_amps)


def test_parameter_counts_of_the_papers_settings():
    # MLP: 52 x 320 + 320, ... ; the others from the layers' own sums
    dense = 52 * 320 + 320 + 320 * 240 + 240 + 240 * 160 + 160 + 160 * 80 + 80 + 80 * 9 + 9
    assert models.build_model("mlp", 52, 9).count_params() == dense
    convolutions = (3 * 1 + 1) * 32 + 2 * (3 * 32 + 1) * 32 + 3 * 4 * 32
    head = 13 * 32 * 64 + 64 + 64 * 9 + 9
    assert models.build_model("cnn", 52, 9).count_params() == convolutions + head
    lstm = 2 * 4 * (100 * (1 + 100) + 100) + 2 * 4 * (100 * (200 + 100) + 100)
    assert models.build_model("lstm", 52, 9).count_params() == lstm + 200 * 16 + 16 + 16 * 9 + 9


def test_auxiliary_inputs_reach_the_answer():
    model = models.build_model("cnn", 13, 2, n_auxiliary=3)
    x = np.zeros((1, 13, 1), np.float32)
    one, two = (np.asarray(model([x, np.full((1, 3), a, np.float32)])) for a in (0.0, 1.0))
    assert not np.allclose(one, two)


def test_whitening_is_a_fixed_first_layer():
    kernel, bias = np.diag(np.arange(1.0, 14.0)), np.arange(13.0)
    model = models.build_model("mlp", 13, 2, front=(kernel, bias))
    layer = model.get_layer("whitening")
    x = np.ones((2, 13), np.float32)
    assert np.allclose(layer(x), x @ kernel + bias)
    assert not layer.trainable_weights


def test_unknown_network_is_refused():
    with pytest.raises(ValueError, match="expected one of mlp, cnn, lstm, hybrid, received 'mpl'"):
        models.build_model("mpl", 52, 9)


def test_saved_network_answers_the_same(tmp_path):
    model = models.build_model("hybrid", 13, 3)
    models.save_model(model, tmp_path / "m.keras")
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
    front = np.eye(13), np.zeros(13)
    networks = []
    for seed in (7, 7, 8):
        networks.append(models.build_model(name, 13, 2, front=front, seed=(seed, 0)))
        random.random()  # as another thread may do at any time
    weights = [np.concatenate([w.ravel() for w in network.get_weights()]) for network in networks]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
    np.testing.assert_array_equal(networks[0].get_layer("whitening").get_weights()[0], front[0])
