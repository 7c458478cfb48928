"""The four networks of Yip et al. 2021 (Section 3): one builder each, then build, load and save.

All take spectra (N, n_bins, 1), scaled, and return AMPs (N, n_amps), scaled. Only ``keras`` is imported,
so KERAS_BACKEND=tensorflow, jax or torch all build them.
"""

import zipfile
from pathlib import Path

import keras
import numpy as np
from keras import layers

from constants import NETWORKS


def whitening(spectrum):
    """Apply a linear map that is not trained, bins to bins: (N, n_bins, 1) -> (N, n_bins, 1).

    Not in the paper. Neighbouring bins rise and fall together, so that what tells molecules apart is a few
    percent of the scaled input; whitening (``preprocessing.whitening``) brings it to unit variance.
    """
    n_bins = spectrum.shape[1]
    x = layers.Flatten()(spectrum)  # (N, n_bins)
    x = layers.Dense(n_bins, trainable=False, name="whitening")(x)
    return layers.Reshape((n_bins, 1))(x)  # (N, n_bins, 1)


def mlp(spectrum, units=(320, 240, 160, 80), dropout=0.0):
    """Fully connected front: (N, n_bins, 1) -> (N, units[-1])."""
    x = layers.Flatten()(spectrum)  # (N, n_bins)
    for n in units:
        x = layers.Dense(n, activation="relu")(x)
        x = layers.Dropout(dropout)(x)
    return x


def _convolutions(x, filters, kernel_size):
    """Conv1D, BatchNorm, ReLU per layer; max-pool after the first two: (N, n_bins, 1) -> (N, n_bins // 4, filters)."""
    for i, n in enumerate(filters):
        x = layers.Conv1D(n, kernel_size, padding="same")(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
        if i < 2:
            x = layers.MaxPooling1D(2, padding="same")(x)  # 'same': one bin is enough
    return x


def _head(x, dense, dropout):
    """Dense, LeakyReLU(0.2), dropout: (N, n) -> (N, dense)."""
    x = layers.Dense(dense)(x)
    x = layers.LeakyReLU(negative_slope=0.2)(x)
    return layers.Dropout(dropout)(x)


def cnn(spectrum, filters=(32, 32, 32), kernel_size=3, dense=64, dropout=0.1):
    """Convolutional front: (N, n_bins, 1) -> (N, dense)."""
    x = _convolutions(spectrum, filters, kernel_size)
    return _head(layers.Flatten()(x), dense, dropout)


def lstm(spectrum, units=(100, 100), dense=16, dropout=0.1):
    """Bidirectional LSTM layers: (N, n_bins, 1) -> (N, dense)."""
    x = spectrum
    for i, n in enumerate(units):
        x = layers.Bidirectional(layers.LSTM(n, return_sequences=i < len(units) - 1))(x)
    return _head(x, dense, dropout)


def hybrid(spectrum, filters=(32, 32, 32), kernel_size=3, units=100, dense=64, dropout=0.1):
    """Convolutional front, then a bidirectional LSTM: (N, n_bins, 1) -> (N, dense)."""
    x = _convolutions(spectrum, filters, kernel_size)
    x = layers.Bidirectional(layers.LSTM(units))(x)
    return _head(x, dense, dropout)


BUILDERS = dict(zip(NETWORKS, (mlp, cnn, lstm, hybrid)))


def _with_seeds(config, rng):
    """Return a network's configuration with a seed drawn for every initialiser and dropout layer that has none."""
    if isinstance(config, dict):
        return {
            key: int(rng.integers(2**31)) if key == "seed" and value is None else _with_seeds(value, rng)
            for key, value in config.items()
        }
    return [_with_seeds(value, rng) for value in config] if isinstance(config, list) else config


def build_model(name, n_bins, n_amps, n_auxiliary=0, front=None, seed=None, **settings):
    """Build one of the four networks.

    Parameters
    ----------
    name : {"mlp", "cnn", "lstm", "hybrid"}
    n_bins : int
        Wavelength bins of a spectrum.
    n_amps : int
        AMPs to return.
    n_auxiliary : int
        Scaled auxiliary inputs; they join after the spectral part, and the network then takes a list
        [spectrum (N, n_bins, 1), auxiliary (N, n_auxiliary)].
    front : (kernel (n_bins, n_bins), bias (n_bins,)), optional
        Whitening of the spectrum, a fixed first layer; none gives the paper's networks.
    seed : int or sequence of int, optional
        Of the initial weights and of dropout: the same seed, the same network, whatever else draws random numbers in
        this process. None: from Python's global random state, as Keras does.
    **settings
        Passed on to the builder of that name.

    Returns
    -------
    keras.Model
        Not compiled.

    Raises
    ------
    ValueError
        If there is no network of that name, or a size is not positive.
    """
    if name not in NETWORKS:
        raise ValueError(f"model: expected one of {', '.join(NETWORKS)}, received {name!r}")
    if n_bins < 1 or n_amps < 1:
        raise ValueError(f"n_bins and n_amps: expected at least 1, received {n_bins} and {n_amps}")
    spectrum = keras.Input((n_bins, 1), name="spectrum")
    x = spectrum if front is None else whitening(spectrum)
    x = BUILDERS[name](x, **settings)
    inputs = spectrum
    if n_auxiliary:
        auxiliary = keras.Input((n_auxiliary,), name="auxiliary")
        inputs = [spectrum, auxiliary]
        x = layers.Concatenate()([x, auxiliary])
        x = layers.Dense(x.shape[-1], activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(n_amps, name="amps")(x), name=name)
    if seed is not None:
        model = keras.Model.from_config(_with_seeds(model.get_config(), np.random.default_rng(seed)))
    if front is not None:
        model.get_layer("whitening").set_weights(front)
    return model


def save_model(model, path):
    """Save a network as a ``.keras`` file."""
    model.save(path)


def load_model(path):
    """Load a ``.keras`` file, refusing anything that could run code.

    Raises
    ------
    ValueError
        If the file is missing, is no ``.keras`` archive, or holds a Lambda layer or other unsafe content.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected a network saved as .keras")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not a .keras archive, expected a network saved by this project or model.save()")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds; all of them mean this file cannot be used
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: refused or unreadable ({reason})") from error
