"""Training: the schedule, resuming, divergence."""

import os
import shutil
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from synthetic import dataset

pytest.importorskip("keras")

from common.files import lock_file
from models import build_model
from pipeline import folds, training
from pipeline.folds import network_builder, train_network
from preprocessing import Fold, Scaler, split_folds, split_test
from runio.config import Config, TrainingConfig
from runio.results import read_history

SETTINGS = TrainingConfig(
    epochs=4, batch_size=32, lr=0.003, copies=2, schedule="plateau", average_epochs=0.0, weight_decay=0.0
)
AVERAGED = replace(SETTINGS, schedule="cosine", average_epochs=0.5, weight_decay=0.1)


def train(folder, settings=SETTINGS, on_epoch=lambda row: None, seed=1, dropout=0.1, wild_networks=0, n=400):
    data = dataset(n)
    rest, _ = split_test(data, 0.2, 0)
    (rows,) = split_folds(rest, 1, "kfold", 0.2, 0)

    built = []

    def build():
        model = build_model("mlp", 13, 5, seed=seed, units=(16, 8), dropout=dropout)
        built.append(model)
        if len(built) <= wild_networks:
            model.set_weights([w + np.float32(1e30) for w in model.get_weights()])
        return model

    folder.mkdir(exist_ok=True)
    return training.train_fold(build, data, Fold.of(data, *rows), settings, seed, folder, 0, on_epoch)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A function that returns the folder of an unbroken training with given settings, and the weights at its end."""
    done = {}

    def of(settings):
        if str(settings) not in done:
            folder = tmp_path_factory.mktemp("unbroken")
            done[str(settings)] = folder, weights(train(folder, settings))
        return done[str(settings)]

    return of


@pytest.fixture
def uncompiled():
    """TensorFlow does every step as it comes: where there are few, compiling them takes longer."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    with warnings.catch_warnings(action="ignore"):  # it says that it compiles the reading of the data all the same
        yield
    tf.config.run_functions_eagerly(False)


def weights(model):
    return np.concatenate([w.ravel() for w in model.get_weights()])


def rate(val_losses, settings):
    """The learning rate of the first of 10 steps of the epoch after those with these validation losses."""
    return training.learning_rate(10 * len(val_losses), 10, val_losses, replace(settings, warmup_epochs=0), settings.lr)


def test_rate_is_reduced_after_the_patience_and_never_below_its_floor():
    settings = replace(SETTINGS, batch_size=64, lr=0.1, plateau_patience=2, plateau_factor=0.5, min_lr=0.03)
    assert rate([], settings) == 0.1
    assert rate([3, 2, 2], settings) == 0.1
    assert rate([3, 2, 2, 2], settings) == 0.05
    assert rate([3, 2, 2, 2, 1, 1, 1, 1, 1], settings) == 0.03
    small = [3.0 - 0.001 * i for i in range(4)]
    assert rate(small, replace(settings, min_improvement=0.01)) == 0.05
    assert rate(small, replace(settings, min_improvement=0.0)) == 0.1
    assert rate([3] * 20, replace(settings, plateau_patience=0)) == 0.1


def test_cosine_falls_from_the_rate_to_the_floor():
    settings = replace(SETTINGS, batch_size=64, epochs=4, lr=0.2, min_lr=0.0, schedule="cosine")
    rates = [rate([1.0] * done, settings) for done in range(5)]
    np.testing.assert_allclose(rates, [0.2, 0.1 + 0.1 / 2**0.5, 0.1, 0.1 - 0.1 / 2**0.5, 0.0], atol=1e-12)
    assert rate([1.0] * 4, replace(settings, min_lr=0.05)) == pytest.approx(0.05)
    assert rate([1.0] * 4, replace(settings, min_lr=5.0)) == pytest.approx(0.2)


def test_rate_rises_over_the_warm_up_and_with_the_root_of_the_batch_size():
    settings = replace(SETTINGS, batch_size=256, lr=0.1, warmup_epochs=2)
    rates = [training.learning_rate(step, 10, [], settings, training.peak_rate(settings, 10)) for step in range(25)]
    np.testing.assert_allclose(rates, [0.2 * min(1, (step + 1) / 20) for step in range(25)])


def test_rate_of_a_cosine_is_raised_for_few_steps_and_lowered_where_it_is_high_but_always_counts():
    settings = replace(SETTINGS, batch_size=64, lr=0.001, schedule="cosine", epochs=10)
    assert training.peak_rate(settings, 1000) == 0.001
    assert training.peak_rate(settings, 200) == pytest.approx(0.001 * 3**0.8)
    assert training.peak_rate(replace(settings, lr=16 * 0.0035), 1000) == pytest.approx(2 * 0.0035)
    peaks = [
        training.peak_rate(replace(settings, lr=lr), steps) for steps in (10, 100) for lr in (1e-4, 1e-3, 0.01, 0.1)
    ]
    assert peaks[:4] == sorted(set(peaks[:4])) and peaks[4:] == sorted(set(peaks[4:]))
    assert "100 steps at a learning rate of up to 0.0058" in training.rate_note(settings, 320)
    assert training.rate_note(settings, 320).endswith("more epochs help")
    assert not training.rate_note(settings, 19_200).endswith("more epochs help")


@pytest.mark.parametrize(("n_train", "expected"), [(19_200, 1), (10_000, 1), (9_999, 2), (3_840, 3), (30, 4)])
def test_an_epoch_shows_few_spectra_more_often(n_train, expected):
    assert training.passes(replace(SETTINGS, copies="auto"), n_train) == expected
    assert training.passes(replace(SETTINGS, copies=10), n_train) == 10


def test_training_stops_after_the_patience():
    settings = replace(SETTINGS, stop_patience=2)
    assert not training.should_stop([], settings)
    assert not training.should_stop([3, 1, 2], settings)
    assert training.should_stop([3, 1, 2, 2], settings)
    assert not training.should_stop([3, 1, 2, 2], replace(settings, stop_patience=0))


def test_best_epoch_is_returned_and_history_written(tmp_path):
    rows = []
    model = train(tmp_path, on_epoch=rows.append)
    history = read_history(tmp_path / "history_0.csv")
    assert np.allclose(history["val_loss"], [r["val_loss"] for r in rows])
    assert history["val_loss"][-1] < 0.7 * history["val_loss"][0]
    assert sorted(os.listdir(tmp_path)) == ["history_0.csv", "model_0.keras"]
    assert np.array_equal(weights(model), weights(train(tmp_path)))  # a finished fold is not trained again


def test_log_loss_weighs_amps_by_relative_error_and_resumes(tmp_path, uncompiled):
    settings = replace(SETTINGS, loss="log_mse", epochs=3)
    truth, answer = np.zeros((50, 2), np.float32), np.full((50, 2), [0.1, 2.0], np.float32)
    assert float(training.log_mse(truth, answer)) == pytest.approx((np.log(0.01) + np.log(4)) / 2, rel=1e-4)

    def kill(row):
        if row["epoch"] == 1:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "broken", settings, on_epoch=kill, n=100)
    ends = [weights(train(tmp_path / name, settings, n=100)) for name in ("broken", "whole")]
    assert np.array_equal(*ends)


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "epochs, settings, seconds", [((0, 2, 3), SETTINGS, 0), ((1, 2), AVERAGED, 0), ((2,), AVERAGED, 1e9)]
)
def test_interrupted_training_ends_like_an_unbroken_one(tmp_path, unbroken, epochs, settings, seconds, monkeypatch):
    """It is interrupted at the end of each of the epochs named; its state is saved after each epoch, or after none."""
    monkeypatch.setattr(training, "STATE_SECONDS", seconds)
    for epoch in epochs:

        def kill(row, epoch=epoch):
            if row["epoch"] == epoch:
                raise Killed

        with pytest.raises(Killed):
            train(tmp_path, settings, on_epoch=kill)
    folder, expected = unbroken(settings)
    assert (tmp_path / "state_0.npz").exists() == (seconds == 0 or 3 in epochs)
    assert np.array_equal(weights(train(tmp_path, settings)), expected)
    assert (tmp_path / "history_0.csv").read_text() == (folder / "history_0.csv").read_text()


def test_average_of_the_weights_is_that_of_every_step(tmp_path, monkeypatch):
    steps, compiled_steps = [], training.compiled_steps

    def recorded(model, *arguments):
        train_steps = compiled_steps(model, *arguments)

        def call(*batches):
            loss = train_steps(*batches)
            steps.append(weights(model))
            return loss

        return call

    monkeypatch.setattr(training, "compiled_steps", recorded)
    monkeypatch.setattr(training, "CHUNK_BATCHES", 1)
    model = train(tmp_path, replace(AVERAGED, epochs=2, average_epochs=5 / 16))
    assert len(steps) == 2 * 16
    average, momentum = steps[0], 1 - 1 / (16 * 2 / 10)  # 5 of the 16 steps of an epoch are more than a tenth of all
    for step in steps[1:]:
        average = momentum * average + (1 - momentum) * step
    np.testing.assert_allclose(weights(model), average, rtol=1e-4, atol=1e-6)


def test_decay_of_the_weights_makes_them_smaller(tmp_path, unbroken):
    decayed = weights(train(tmp_path, replace(SETTINGS, weight_decay=10.0)))
    assert np.square(decayed).sum() < 0.9 * np.square(unbroken(SETTINGS)[1]).sum()


def test_two_seeds_give_two_networks(tmp_path, unbroken):
    assert not np.array_equal(weights(train(tmp_path, seed=2)), unbroken(SETTINGS)[1])


def test_divergence_stops_with_advice_and_is_retried_only_when_asked(tmp_path, uncompiled):
    with pytest.raises(training.TrainingDiverged, match=r"try a lower learning rate than training.lr = 0.003"):
        train(tmp_path / "once", wild_networks=1, n=100)
    assert not (tmp_path / "once/model_0.keras").exists()
    rates = []
    model = train(
        tmp_path / "again",
        replace(SETTINGS, retries=2),
        lambda row: rates.append(row["learning_rate"]),
        wild_networks=2,
        n=100,
    )
    assert np.isfinite(weights(model)).all()
    assert rates[0] == pytest.approx(0.003 / 100 * 0.5**0.5)


def test_interrupted_attempt_goes_on_with_its_own_learning_rate(tmp_path, monkeypatch, uncompiled):
    real, rates = training._train, []

    def diverges_at_first(*arguments):
        rates.append(arguments[-1])
        if arguments[-1] == 1:
            raise training.TrainingDiverged("the loss became nan")
        return real(*arguments)

    def kill(row):
        if row["epoch"] == 1:
            raise Killed

    monkeypatch.setattr(training, "_train", diverges_at_first)
    again = replace(SETTINGS, retries=2)
    with pytest.raises(Killed):
        train(tmp_path / "broken", again, on_epoch=kill, n=100)
    broken = train(tmp_path / "broken", again, n=100)
    assert rates == pytest.approx([1, 0.1, 0.1])
    assert np.array_equal(weights(broken), weights(train(tmp_path / "whole", again, n=100)))


def test_damaged_network_of_a_finished_fold_is_trained_again(tmp_path, unbroken, caplog):
    folder, before = unbroken(SETTINGS)
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "model_0.keras").write_bytes(b"damaged")
    assert np.array_equal(weights(train(copy)), before)
    assert "training the fold again" in caplog.text


def seen_in_training(noisy, extra_noise):
    """Noise of the inputs of one epoch and of the validation, in units of the errors, for spectra that are flat."""
    data = dataset()
    rows = np.arange(200)
    fold = Fold(rows, rows, Scaler.fit(data, np.arange(len(data))))
    flat = replace(data, spectra=np.full_like(data.spectra, 0.01), errors=np.full_like(data.errors, 1e-4), noisy=noisy)
    settings = replace(SETTINGS, extra_noise=extra_noise, epochs=1)
    chunks = [x for x, _ in training.training_chunks(flat, fold, settings, (0, 0), 0)]
    validation, _ = training.validation_data(flat, fold, settings, (0, 0))
    return [np.std(x) * fold.scaler.x_std / 1e-4 for x in (np.concatenate(chunks), validation)]


def test_spectra_that_hold_noise_get_the_extra_noise_in_training_and_none_in_validation():
    for size in (0.0, 0.5):
        np.testing.assert_allclose(seen_in_training(noisy=True, extra_noise=size), [size, 0], atol=0.02)
    np.testing.assert_allclose(seen_in_training(noisy=False, extra_noise=0.5), [1, 1], atol=0.03)


@pytest.mark.parametrize(("noisy", "whiten", "asked", "expected"), [
    (True, False, "auto", "relu"),
    (True, True, "auto", "gelu"),
    (False, False, "auto", "gelu"),
    (True, False, "silu", "silu"),
])  # fmt: skip
def test_activation_of_the_mlp_is_relu_for_noisy_spectra_that_are_not_whitened(noisy, whiten, asked, expected):
    data, config = replace(dataset(n=50), noisy=noisy), Config()
    config.model.whiten, config.model.mlp.activation = whiten, asked
    network = network_builder(config, data, Fold.of(data, np.arange(40), np.arange(40, 50)), 0)()
    assert network.get_layer("dense_1").activation.__name__ == expected


def test_a_fold_that_another_process_trains_is_waited_for_and_said(tmp_path, monkeypatch):
    data = dataset(n=50)
    split = SimpleNamespace(data=data, folds=[Fold.of(data, np.arange(40), np.arange(40, 50))])
    monkeypatch.setattr(training, "train_fold", lambda *_: "trained")
    said = []
    with open(tmp_path / ".fold_0.lock", "w") as held:
        lock_file(held)
        # The other process ends as soon as it is said that it is waited for
        monkeypatch.setattr(folds.logger, "warning", lambda words, k: (said.append(words % k), held.close()))
        assert train_network(Config(), split, tmp_path, 0) == "trained"
    assert said == ["fold 0: another process is still training it; waiting until that ends"]


def test_spectra_that_hold_noise_are_validated_once_each():
    data = replace(dataset(), noisy=True)
    scaler = Scaler.fit(data, np.arange(400))
    x, y = training.validation_data(data, Fold(np.arange(400), np.arange(7), scaler), SETTINGS, (0, 0))
    np.testing.assert_array_equal(x, scaler.inputs(data.spectra[:7]))
    np.testing.assert_array_equal(y, scaler.targets(data.amps[:7]))
