"""Train one network on one fold: noise drawn as it goes, learning rate reduced on plateau, best epoch kept.

A training that was interrupted goes on from its last finished epoch and ends as if it had never stopped:
the data of an epoch follow from the seed and its number, the weights and the optimiser are saved after
every epoch, and the learning rate and the decision to stop follow from the history alone.
"""

import contextlib
import csv
import functools
import logging
import math
import os
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from common.files import written_whole
from constants import Stream, stream
from models import load_model
from preprocessing import add_noise, epoch_chunks
from runio.results import read_history

logger = logging.getLogger(__name__)

CHUNK_BATCHES = 64  # batches prepared at a time
STEPS_PER_CALL = 20  # training steps between two looks of the callbacks, at most
HISTORY_COLUMNS = ("epoch", "loss", "val_loss", "learning_rate")


@keras.saving.register_keras_serializable("training")
def log_mse(y_true, y_pred):
    """Mean over AMPs of the logarithm of each AMP's mean squared error over the batch (N, n_amps).

    Every AMP then counts by its relative improvement. With the plain mean, an AMP that is known a hundred times
    better than others (the radius) has no weight left to get better still. It is the Gaussian log-likelihood with
    each AMP's error variance at its best value.
    """
    return keras.ops.mean(keras.ops.log(keras.ops.mean(keras.ops.square(y_true - y_pred), axis=0) + 1e-8))


LOSSES = {"mse": "mse", "log_mse": log_mse}


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite."""


def learning_rate(val_losses, settings):
    """Return the learning rate of the next epoch.

    ``schedule: cosine`` lets it fall from ``lr`` to ``min_lr`` along half a cosine over ``epochs`` (Loshchilov & Hutter
    2017, arXiv:1608.03983). ``plateau`` multiplies it by ``plateau_factor`` each time the validation loss has not
    improved for ``plateau_patience`` epochs (0 keeps it constant), down to ``min_lr``.

    Parameters
    ----------
    val_losses : sequence of float
        Validation loss of every epoch so far.
    settings : config.TrainingConfig
    """
    floor = min(settings.min_lr, settings.lr)
    if settings.schedule == "cosine":
        turn = math.pi * len(val_losses) / settings.epochs
        return floor + (settings.lr - floor) * (1 + math.cos(turn)) / 2
    rate, waited = settings.lr, 0
    for improved in _improvements(val_losses, settings.min_improvement):
        waited = 0 if improved else waited + 1
        if settings.plateau_patience and waited >= settings.plateau_patience:
            rate, waited = max(rate * settings.plateau_factor, floor), 0
    return rate


def should_stop(val_losses, settings):
    """Say whether the last epoch that improved lies ``stop_patience`` epochs back (0 never stops early)."""
    improved = _improvements(val_losses, settings.min_improvement)
    patience = settings.stop_patience
    return 0 < patience < len(improved) and not any(improved[-patience:])


def _improvements(val_losses, least):
    """Say for each epoch whether its loss lies below the best one before by more than the fraction ``least``."""
    best, improved = np.inf, []
    for loss in val_losses:
        improved.append(best == np.inf or loss < best - least * abs(best))
        best = loss if improved[-1] else best
    return improved


class FoldState(keras.callbacks.Callback):
    """Keeps the state of a training on disk after every epoch, and steers it by its history.

    Parameters
    ----------
    last, best : Path
        Where the network of the last and of the best epoch are kept.
    history_path : Path
        CSV with a row per epoch.
    settings : config.TrainingConfig
    seed : (int, int)
        Seed of the run, and the fold.
    steps : int
        Batches per epoch.
    history : list of dict
        Rows of the epochs that are already done.
    on_epoch : callable, optional
        Called with the row of every finished epoch.
    """

    def __init__(self, last, best, history_path, settings, seed, steps, history, on_epoch=None):
        super().__init__()
        self.last, self.best, self.history_path = last, best, history_path
        self.settings, self.seed, self.steps, self.history = settings, seed, steps, history
        self.on_epoch = on_epoch

    @property
    def val_losses(self):
        """Validation loss of every finished epoch."""
        return [row["val_loss"] for row in self.history]

    def on_epoch_begin(self, epoch, logs=None):
        """Set the learning rate that the history asks for."""
        self.rate = learning_rate(self.val_losses, self.settings)
        self.model.optimizer.learning_rate = self.rate
        for i, layer in enumerate(self.model.layers):
            if hasattr(layer, "seed_generator"):  # dropout: its draws, too, follow from the seed and the epoch
                rng = np.random.default_rng(stream(self.seed[0], Stream.DROPOUT, self.seed[1], epoch, i))
                layer.seed_generator.state.assign(rng.integers(2**31, size=2))

    def on_train_batch_begin(self, batch, logs=None):
        """Raise the learning rate linearly over the warm-up epochs."""
        warmup = self.settings.warmup_epochs * self.steps
        done = len(self.history) * self.steps + batch
        if done < warmup + self.steps:  # also the first step after it
            done += _steps_per_call(self.steps)
            self.model.optimizer.learning_rate = self.rate * min(1.0, done / max(warmup, 1))

    def on_train_batch_end(self, batch, logs=None):
        """Stop at once when the loss is NaN or infinite."""
        self._refuse_nan(logs["loss"])

    def on_test_begin(self, logs=None):
        """Give the network its averaged weights, to be validated with."""
        if self.settings.average_epochs:
            self.stepped = [weight.numpy() for weight in self.model.trainable_weights]
            self.model.optimizer.finalize_variable_values(self.model.trainable_weights)

    def on_epoch_end(self, epoch, logs=None):
        """Write the state; the network of the last epoch comes last and makes the epoch count."""
        self._refuse_nan(logs["val_loss"])
        row = {"epoch": epoch, "loss": logs["loss"], "val_loss": logs["val_loss"], "learning_rate": self.rate}
        if logs["val_loss"] < min(self.val_losses, default=np.inf):
            save_whole(self.model, self.best)
        if self.settings.average_epochs:  # the training goes on from the weights themselves
            for weight, value in zip(self.model.trainable_weights, self.stepped, strict=True):
                weight.assign(value)
        self.history.append(row)
        _write_history(self.history_path, self.history)
        save_whole(self.model, self.last)
        if self.on_epoch:
            self.on_epoch(row)
        if should_stop(self.val_losses, self.settings):
            self.model.stop_training = True

    def _refuse_nan(self, loss):
        if not np.isfinite(loss):
            raise TrainingDiverged(
                f"the loss became {loss} in epoch {len(self.history)}: expected a finite number; "
                f"try a lower learning rate than training.lr = {self.settings.lr:g}, or a smaller training.clipnorm"
            )


def _steps_per_call(steps):
    """Return the largest divisor of the epoch's steps that is at most ``STEPS_PER_CALL``."""
    return max(n for n in range(1, STEPS_PER_CALL + 1) if steps % n == 0)


def save_whole(model, path):
    """Save a network as ``.keras``, whole or not at all."""
    with written_whole(path) as part:
        model.save(part)


def _write_history(path, history):
    with written_whole(path) as part, open(part, "w", newline="") as file:
        table = csv.DictWriter(file, HISTORY_COLUMNS)
        table.writeheader()
        table.writerows(history)


def _batches(data, fold, settings, seed, first_epoch):
    """Return a tf.data pipeline over all epochs from ``first_epoch`` on, one after the other."""
    import tensorflow as tf

    size, noise_size = settings.batch_size, settings.extra_noise if data.noisy else 1.0

    def chunks(epoch):
        arguments = settings.copies, settings.noise, seed, int(epoch), CHUNK_BATCHES * size, noise_size
        return epoch_chunks(data, fold, *arguments)

    n_bins, n_amps = data.spectra.shape[1], data.amps.shape[1]
    inputs = tf.TensorSpec((None, n_bins, 1), tf.float32)
    if data.auxiliary is not None:
        inputs = (inputs, tf.TensorSpec((None, data.auxiliary.shape[1]), tf.float32))
    signature = (inputs, tf.TensorSpec((None, n_amps), tf.float32))

    def one_epoch(epoch):
        epoch_data = tf.data.Dataset.from_generator(chunks, args=(epoch,), output_signature=signature)
        return epoch_data.rebatch(size)  # cuts chunks into batches; the last one of an epoch may be smaller

    return tf.data.Dataset.range(first_epoch, settings.epochs).flat_map(one_epoch).prefetch(2 * CHUNK_BATCHES)


def _validation_data(data, fold, settings, seed):
    """Return the validation spectra with noise, every spectrum ``copies`` times, the same in every epoch.

    Spectra that hold noise already are taken once, as they are, because they are also tested as they are.
    """
    noise_is_added = settings.noise != "none" and not data.noisy
    rows = np.tile(fold.valid, settings.copies if noise_is_added else 1)
    spectra = data.spectra[rows]
    if noise_is_added:
        rng = np.random.default_rng(stream(seed[0], Stream.VALIDATION_NOISE, seed[1]))
        spectra = add_noise(spectra, data.errors[rows], rng)
    auxiliary = None if data.auxiliary is None else data.auxiliary[rows]
    return fold.scaler.inputs(spectra, auxiliary), fold.scaler.targets(data.amps[rows])


def _restore(folder, number, steps):
    """Return (network, history) as of the last finished epoch; (None, []) where there is none that can be read."""
    last, history_path = folder / f"last_{number}.keras", folder / f"history_{number}.csv"
    if not last.is_file():
        return None, []
    try:
        load_model(folder / f"best_{number}.keras")  # it may turn out to be the best of all epochs
        model = keras.saving.load_model(last, safe_mode=True)
        done = int(keras.ops.convert_to_numpy(model.optimizer.iterations)) // steps
        table = read_history(history_path)
        history = [{**{c: float(table[c][i]) for c in HISTORY_COLUMNS}, "epoch": i} for i in range(done)]
    except Exception as error:  # whatever is wrong with these files, the fold can be trained again
        logger.warning("fold %d: its interrupted training cannot be read (%s); training it again", number, error)
        return None, []
    return model, history


def train_fold(build, data, fold, settings, seed, folder, number=0, on_epoch=None):
    """Train one network on one fold, or go on where an interrupted training stopped.

    Parameters
    ----------
    build : callable
        Returns a new, uncompiled network; with the same initial weights each time (`models.build_model` with a seed)
        if the training is to be repeatable.
    data : preprocessing.Dataset
    fold : preprocessing.Fold
    settings : config.TrainingConfig
    seed : int
        Seed of the run; the fold's own streams are derived from it.
    folder : path-like
        Receives ``model_<number>.keras`` (the best epoch) and ``history_<number>.csv``.
    number : int
        Of the fold.
    on_epoch : callable, optional
        Called with a dict (epoch, loss, val_loss, learning_rate) after every epoch, those already done included.

    Returns
    -------
    keras.Model
        The network of the epoch with the lowest validation loss.

    Raises
    ------
    TrainingDiverged
        If the loss is NaN or infinite more often than ``settings.retries`` allows.
    """
    folder = Path(folder)
    final = folder / f"model_{number}.keras"
    if final.is_file():
        try:
            return load_model(final)
        except ValueError as error:  # damaged on the disk, since it is only ever put there whole
            logger.warning("%s; training the fold again", error)
    for attempt in range(settings.retries + 1):
        diverged = folder / f"diverged_{number}_{attempt}"  # tells a resumed run which attempts have failed
        if diverged.exists():
            continue
        try:
            rate = settings.lr / 10**attempt
            return _train(build, data, fold, replace(settings, lr=rate), seed, folder, number, on_epoch)
        except TrainingDiverged as error:
            for name in ("last", "best"):
                (folder / f"{name}_{number}.keras").unlink(missing_ok=True)
            if attempt == settings.retries:
                raise
            diverged.touch()
            logger.warning("fold %d: %s; trying again with %g", number, error, rate / 10)


def scope(strategy):
    """Return the context to build a network in: ``none`` for one device, ``mirrored`` for all GPUs of this machine.

    Mirrored, every batch is divided among the devices. Without a GPU the (logical) CPUs take their part.
    """
    if strategy == "none":
        return contextlib.nullcontext()
    return _mirrored().scope()


@functools.cache  # TensorFlow mixes up the sums of two strategies in one process
def _mirrored():
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _optimizer(settings, steps):
    """Return AdamW, which is Adam where the weights do not decay; with a moving average of the weights if asked for."""
    average, epochs = {}, min(settings.average_epochs, settings.epochs / 10)  # a short training is mostly beginning
    if epochs:
        average = {"use_ema": True, "ema_momentum": max(0.0, 1 - 1 / (epochs * steps))}
    return keras.optimizers.AdamW(
        settings.lr, weight_decay=settings.weight_decay, clipnorm=settings.clipnorm, **average
    )


def _train(build, data, fold, settings, seed, folder, number, on_epoch):
    """Train once, with one learning rate; see ``train_fold``."""
    final, last, best = (folder / f"{name}_{number}.keras" for name in ("model", "last", "best"))
    steps = -(-len(fold.train) * settings.copies // settings.batch_size)
    seeds = (seed, number)
    with scope(settings.strategy):
        model, history = _restore(folder, number, steps)
        if model is None:
            model = build()
            model.compile(
                optimizer=_optimizer(settings, steps),
                loss=LOSSES[settings.loss],
                steps_per_execution=1 if settings.strategy == "mirrored" else _steps_per_call(steps),
                jit_compile=False,  # deterministic operations and the XLA compiler exclude each other
            )
    state = FoldState(last, best, folder / f"history_{number}.csv", settings, seeds, steps, history, on_epoch)
    if on_epoch:
        for row in history:
            on_epoch(row)
    if len(history) < settings.epochs and not should_stop(state.val_losses, settings):
        model.fit(
            _batches(data, fold, settings, seeds, len(history)),
            shuffle=False,  # the pipeline shuffles
            steps_per_epoch=steps,
            initial_epoch=len(history),
            epochs=settings.epochs,
            validation_data=_validation_data(data, fold, settings, seeds),
            validation_batch_size=4096,
            callbacks=[state],
            verbose=0,
        )
    os.replace(best, final)
    last.unlink(missing_ok=True)
    return load_model(final)
