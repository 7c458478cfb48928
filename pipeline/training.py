"""Train one network on one fold: fresh noise in every epoch, a falling learning rate, the best epoch kept.

An interrupted training ends with the same weights, bit for bit: the data of an epoch follow from the seed and its
number, the learning rate from the number of the step (or the history), and the state on disk holds everything else.
"""

import contextlib
import csv
import functools
import logging
import math
import time
import zipfile
from pathlib import Path

import keras
import numpy as np

from common.files import written_whole
from constants import Stream, stream
from models import load_model
from preprocessing import add_noise, epoch_chunks
from runio.results import network_file

logger = logging.getLogger(__name__)

CHUNK_BATCHES = 64  # batches in memory at a time
STATE_SECONDS = 5.0  # between two states on disk
VALIDATION_ROWS = 4096  # in one call of the network
BETA_BATCH = 512  # training.beta_2 is for batches of this size
REFERENCE_BATCH = 64  # training.lr is the learning rate for batches of this size
HIGH_RATE = 0.0035  # for batches of 64; above it the rate grows with the fourth root of lr, or the radius gets worse
LEAST_TRAVEL = 6.0  # steps times peak rate that a training needs: 12 epochs with a quarter of it lose 0.04 in R2
FEW_STEPS = 1000  # with fewer, more epochs help more than any other setting
FEW_SPECTRA, MAX_COPIES = 10_000, 4  # copies: auto: passes of an epoch over a small training set
HISTORY_COLUMNS = ("epoch", "loss", "val_loss", "learning_rate")


def log_mse(y_true, y_pred):
    """Mean over AMPs of the logarithm of each AMP's mean squared error over the batch (N, n_amps).

    Every AMP then counts by its relative improvement, also the radius, which is known a hundred times better than
    others. It is the Gaussian log-likelihood with each AMP's error variance at its best value.
    """
    return keras.ops.mean(keras.ops.log(keras.ops.mean(keras.ops.square(y_true - y_pred), axis=0) + 1e-8))


def mse(y_true, y_pred):
    """Mean squared error over AMPs and the batch (N, n_amps)."""
    return keras.ops.mean(keras.ops.square(y_true - y_pred))


LOSSES = {"mse": mse, "log_mse": log_mse}


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite."""


def passes(settings, n_train):
    """Return how often an epoch shows each training spectrum (``copies``; auto: more often if they are few)."""
    return min(-(-FEW_SPECTRA // n_train), MAX_COPIES) if settings.copies == "auto" else settings.copies


def steps_per_epoch(settings, n_train):
    """Return the number of batches in an epoch of so many training spectra."""
    return -(-n_train * passes(settings, n_train) // settings.batch_size)


def peak_rate(settings, steps):
    """Return the highest learning rate, for ``steps`` batches in an epoch.

    ``lr`` is meant for batches of 64. The noise of a gradient falls with the root of the batch size, and Adam's steps
    may grow by as much. With a cosine the rate is raised where ``lr`` is too low for so few steps (see `LEAST_TRAVEL`),
    and lowered where it is above `HIGH_RATE`. Both are gradual, so that a higher ``lr`` is always a higher rate.
    """
    growth = math.sqrt(settings.batch_size / REFERENCE_BATCH)
    peak = settings.lr * growth
    if settings.schedule == "cosine":
        least = LEAST_TRAVEL / (steps * settings.epochs)
        peak *= max(least / peak, 1.0) ** 0.8
        peak *= max(peak / (HIGH_RATE * growth), 1.0) ** -0.75
    return peak


def rate_note(settings, n_train):
    """Return a line about the learning rate of a training with so many spectra, and about too few steps."""
    steps = steps_per_epoch(settings, n_train)
    peak, total = peak_rate(settings, steps), steps * settings.epochs
    meant = f"training.lr = {settings.lr:g} is for batches of {REFERENCE_BATCH}"
    line = f"{total} steps at a learning rate of up to {peak:.3g} ({meant})"
    return line + ("; so few steps leave the network unfinished: more epochs help" if total < FEW_STEPS else "")


def learning_rate(step, steps, val_losses, settings, peak):
    """Return the learning rate of a step (counted from 0 over all epochs), for ``steps`` in an epoch.

    The cosine is that of Loshchilov & Hutter 2017, arXiv:1608.03983; config.yaml explains the settings.
    """
    floor, rate = min(settings.min_lr, peak), peak
    if settings.schedule == "cosine":
        rate = floor + (peak - floor) * (1 + math.cos(math.pi * step / (steps * settings.epochs))) / 2
    elif settings.plateau_patience:
        waited = 0
        for improved in _improvements(val_losses, settings.min_improvement):
            waited = 0 if improved else waited + 1
            if waited >= settings.plateau_patience:
                rate, waited = max(rate * settings.plateau_factor, floor), 0
    return rate * min(1.0, (step + 1) / max(1, settings.warmup_epochs * steps))


def should_stop(val_losses, settings):
    """Say whether the last epoch that improved lies ``stop_patience`` epochs back; never with 0 or a cosine."""
    improved = _improvements(val_losses, settings.min_improvement)
    patience = settings.stop_patience if settings.schedule == "plateau" else 0
    return 0 < patience < len(improved) and not any(improved[-patience:])


def _improvements(val_losses, least):
    """Say for each epoch whether its loss is below the best one before by more than the fraction ``least``."""
    best, improved = np.inf, []
    for loss in val_losses:
        improved.append(best == np.inf or loss < best - least * abs(best))
        best = loss if improved[-1] else best
    return improved


def make_optimizer(settings, steps, peak):
    """Return AdamW with a moving average of the weights.

    ``beta_2`` is for batches of 512: smaller ones average over as many spectra (Malladi et al. 2022, arXiv:2205.10287).
    """
    beta_2 = max(0.0, 1 - (1 - settings.beta_2) * settings.batch_size / BETA_BATCH)
    horizon = min(settings.average_epochs, settings.epochs / 10) * steps  # at most a tenth of a short training
    average = {"use_ema": True, "ema_momentum": max(0.0, 1 - 1 / horizon)} if horizon else {}
    return keras.optimizers.AdamW(peak, settings.weight_decay, beta_2=beta_2, clipnorm=settings.clipnorm, **average)


@functools.cache  # TensorFlow mixes up the sums of two strategies in one process
def _mirrored():
    """Return the strategy that divides every batch among all GPUs of this machine, or else its (logical) CPUs."""
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def compiled_steps(model, optimizer, loss):
    """Return a function of batches (inputs and targets, both (steps, batch, ...)) and rates (steps,): the summed loss.

    It trains the model by one step for each batch. Call it in the scope of the model's strategy.
    """
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    n_devices, weights = strategy.num_replicas_in_sync, model.trainable_variables

    def step(inputs, targets):
        if n_devices > 1:
            device = tf.distribute.get_replica_context().replica_id_in_sync_group
            share = slice(device if len(targets) >= n_devices else 0, None, n_devices)
            inputs, targets = tf.nest.map_structure(lambda part: part[share], (inputs, targets))
        with tf.GradientTape() as tape:
            value = loss(targets, model(inputs, training=True)) / n_devices
        optimizer.apply(tape.gradient(value, weights), weights)
        return value

    # One signature for any number and size of batches: the graph is made once, which takes a second
    inputs, (targets,) = ([tf.TensorSpec((None, *p.shape)) for p in parts] for parts in (model.inputs, model.outputs))
    inputs = tuple(inputs) if len(inputs) > 1 else inputs[0]

    @tf.function(input_signature=[inputs, targets, tf.TensorSpec((None,))])
    def train(inputs, targets, rates):
        total = tf.constant(0.0)
        for i in tf.range(tf.shape(rates)[0]):
            optimizer.learning_rate.assign(rates[i])
            batch = tf.nest.map_structure(lambda part, i=i: part[i], (inputs, targets))
            total += strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(step, batch), axis=None)
        return total

    return train


def training_chunks(data, fold, settings, seed, epoch):
    """Return an iterator over one epoch of training data, in chunks of whole batches; see `epoch_chunks`."""
    noise_size = settings.extra_noise if data.noisy else 1.0
    rows, copies = CHUNK_BATCHES * settings.batch_size, passes(settings, len(fold.train))
    return epoch_chunks(data, fold, copies, settings.noise, seed, epoch, rows, noise_size)


def _batched(chunk, size):
    """Yield the rows of a chunk (inputs, targets) as whole batches (n, size, ...), then what is left as one batch."""
    import tensorflow as tf

    n = len(chunk[1]) // size
    for part, shape in ((slice(0, n * size), (n, size)), (slice(n * size, None), (1, -1))):
        if len(chunk[1][part]):
            yield tf.nest.map_structure(lambda rows, p=part, s=shape: tf.reshape(rows[p], (*s, *rows.shape[1:])), chunk)


def validation_data(data, fold, settings, seed):
    """Return inputs and targets of the noisy validation spectra, each as often as in training, the same in every epoch.

    Spectra that hold noise already are taken once, as they are, because they are also tested as they are.
    """
    noise_is_added = settings.noise != "none" and not data.noisy
    rows = np.tile(fold.valid, passes(settings, len(fold.train)) if noise_is_added else 1)
    spectra = data.spectra[rows]
    if noise_is_added:
        rng = np.random.default_rng(stream(seed[0], Stream.VALIDATION_NOISE, seed[1]))
        spectra = add_noise(spectra, data.errors[rows], rng)
    auxiliary = None if data.auxiliary is None else data.auxiliary[rows]
    return fold.scaler.inputs(spectra, auxiliary), fold.scaler.targets(data.amps[rows])


class Trainer:
    """A training that can be saved and restored: network, optimiser, history, and the weights of the best epoch."""

    def __init__(self, build, data, fold, settings, seed, folder, slower):
        import tensorflow as tf

        self.data, self.fold, self.settings, self.seed = data, fold, settings, seed
        self.state_path, self.history_path = folder / f"state_{seed[1]}.npz", folder / f"history_{seed[1]}.csv"
        self.validation = validation_data(data, fold, settings, seed)
        self.steps = steps_per_epoch(settings, len(fold.train))
        self.peak = peak_rate(settings, self.steps) * slower
        with contextlib.nullcontext() if settings.strategy == "none" else _mirrored().scope():
            self.model = build()
            self.optimizer = make_optimizer(settings, self.steps, self.peak)
            self.optimizer.build(self.model.trainable_variables)
            self.train_steps = compiled_steps(self.model, self.optimizer, LOSSES[settings.loss])
        predict = functools.partial(self.model, training=False)
        self.predict = tf.function(predict, reduce_retracing=True, autograph=False)
        self.history, self.best, self.saved = [], None, time.monotonic()  # saved: when the state was, or should be

    @property
    def val_losses(self):
        """Validation loss of every finished epoch."""
        return [row["val_loss"] for row in self.history]

    @property
    def finished(self):
        """Whether no epoch is left."""
        return len(self.history) >= self.settings.epochs or should_stop(self.val_losses, self.settings)

    def restore(self):
        """Go back to the state on disk, if there is one that can be read."""
        variables = [*self.model.weights, *self.optimizer.variables]
        try:
            with np.load(self.state_path, allow_pickle=False) as state:
                arrays = [state[f"variable_{i}"] for i in range(len(variables))]
                best = [state[f"best_{i}"] for i in range(len(self.model.weights))]
                history = [dict(zip(HISTORY_COLUMNS, row)) for row in state["history"].tolist()]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("fold %d: its state cannot be read (%s); training it again", self.seed[1], error)
            return
        for variable, array in zip(variables, arrays):
            variable.assign(array)
        self.best, self.history = best, [{**row, "epoch": int(row["epoch"])} for row in history]
        self._write_history()

    def save(self):
        """Write the state, whole or not at all."""
        variables = [*self.model.weights, *self.optimizer.variables]
        arrays = {f"variable_{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)}
        arrays |= {f"best_{i}": array for i, array in enumerate(self.best)}
        rows = np.array([[row[name] for name in HISTORY_COLUMNS] for row in self.history])
        with written_whole(self.state_path) as part:
            np.savez(part, history=rows, **arrays)
        self.saved = time.monotonic()

    def epoch(self):
        """Train for an epoch, validate, and write history and state; return the row of the history."""
        epoch, losses, done = len(self.history), 0.0, 0
        self._seed_dropout(epoch)
        step, past = epoch * self.steps + np.arange(self.steps), self.val_losses
        rates = np.float32([learning_rate(n, self.steps, past, self.settings, self.peak) for n in step])
        for chunk in training_chunks(self.data, self.fold, self.settings, self.seed, epoch):
            for inputs, targets in _batched(chunk, self.settings.batch_size):
                losses += float(self.train_steps(inputs, targets, rates[done : done + len(targets)]))
                done += len(targets)
            self._refuse_nan(losses)
        row = {"epoch": epoch, "loss": losses / done, "learning_rate": float(rates.max())}
        row["val_loss"] = self._validate(*self.validation)
        self.history.append(row)
        self._write_history()
        if self.finished or time.monotonic() > self.saved + STATE_SECONDS:
            self.save()
        return row

    def _validate(self, inputs, targets):
        """Return the validation loss of the averaged weights, and keep those weights if it is the lowest so far."""
        stepped = [weight.numpy() for weight in self.model.trainable_weights]
        if self.settings.average_epochs:
            self.optimizer.finalize_variable_values(self.model.trainable_weights)
        parts = [slice(start, start + VALIDATION_ROWS) for start in range(0, len(targets), VALIDATION_ROWS)]
        rows = [keras.tree.map_structure(lambda values, p=part: values[p], inputs) for part in parts]
        predictions = np.concatenate([self.predict(part).numpy() for part in rows])
        loss = float(LOSSES[self.settings.loss](targets, predictions))
        self._refuse_nan(loss)
        if loss < min(self.val_losses, default=np.inf):
            self.best = self.model.get_weights()
        for weight, value in zip(self.model.trainable_weights, stepped):  # the training goes on from these
            weight.assign(value)
        return loss

    def _seed_dropout(self, epoch):
        """Let the draws of dropout follow from the seed and the epoch."""
        for i, layer in enumerate(self.model.layers):
            if hasattr(layer, "seed_generator"):
                rng = np.random.default_rng(stream(self.seed[0], Stream.DROPOUT, self.seed[1], epoch, i))
                layer.seed_generator.state.assign(rng.integers(2**31, size=2))

    def _write_history(self):
        with written_whole(self.history_path) as part, open(part, "w", newline="") as file:
            table = csv.DictWriter(file, HISTORY_COLUMNS)
            table.writeheader()
            table.writerows(self.history)

    def _refuse_nan(self, loss):
        if not np.isfinite(loss):
            raise TrainingDiverged(
                f"the loss became {loss} in epoch {len(self.history)}: expected a finite number; "
                f"try a lower learning rate than training.lr = {self.settings.lr:g}, or a smaller training.clipnorm"
            )


def train_fold(build, data, fold, settings, seed, folder, number=0, on_epoch=lambda row: None, until=None):
    """Train one network on one fold, or continue an interrupted training; return the network of the best epoch.

    ``build`` returns a new, uncompiled network, with the same initial weights each time. ``folder`` receives
    ``model_<number>.keras`` and ``history_<number>.csv``. ``on_epoch`` is called with the row of the history of every
    epoch, those already done included. After ``until`` epochs the training stops, to be continued, and None is
    returned. Raises `TrainingDiverged` if the loss is not finite more often than ``settings.retries`` allows.
    """
    folder, final = Path(folder), network_file(folder, number)
    if final.is_file():
        try:
            return load_model(final)
        except ValueError as error:  # damaged on the disk: it is only ever written whole
            logger.warning("%s; training the fold again", error)
    for attempt in range(settings.retries + 1):
        diverged = folder / f"diverged_{number}_{attempt}"  # shows a resumed run which attempts have failed
        if diverged.exists():
            continue
        try:
            return _train(build, data, fold, settings, seed, folder, number, on_epoch, until, 10**-attempt)
        except TrainingDiverged as error:
            (folder / f"state_{number}.npz").unlink(missing_ok=True)
            if attempt == settings.retries:
                raise
            diverged.touch()
            logger.warning("fold %d: %s; trying again with a tenth of the rate", number, error)


def _train(build, data, fold, settings, seed, folder, number, on_epoch, until, slower):
    """Train once, at the usual learning rate times ``slower``; see ``train_fold``."""
    trainer = Trainer(build, data, fold, settings, (seed, number), folder, slower)
    trainer.restore()
    for row in trainer.history:
        on_epoch(row)
    while not trainer.finished:
        if until is not None and len(trainer.history) >= until:
            trainer.save()
            return None
        on_epoch(trainer.epoch())
    trainer.model.set_weights(trainer.best)
    with written_whole(network_file(folder, number)) as part:
        trainer.model.save(part)
    trainer.state_path.unlink(missing_ok=True)
    return load_model(network_file(folder, number))  # on one device, also after a mirrored training
