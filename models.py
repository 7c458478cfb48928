"""The four networks: one builder each, then build, load and save.

Their kinds are those of Yip et al. 2021 (Section 3); ``configs/paper.yaml`` has the paper's own layers. The defaults
keep every bin apart up to a wide head, which brings all four equally near to the theoretical limit (docs/science.md).
All take spectra (N, n_bins, 1), scaled, and return AMPs (N, n_amps), scaled. Only ``keras`` is imported,
so KERAS_BACKEND=tensorflow, jax or torch all build them.
"""

import zipfile
from pathlib import Path

import keras
import numpy as np
from keras import layers

from constants import NETWORKS

# A user's keras.json has no effect: half precision ruins the training, other layouts break the convolutions
keras.config.set_floatx("float32")
keras.config.set_image_data_format("channels_last")
keras.config.set_epsilon(1e-7)


def mlp(spectrum, units=(320, 240, 160, 80), activation="gelu", dropout=0.0):
    """Fully connected front: (N, n_bins, 1) -> (N, units[-1])."""
    x = layers.Flatten(name="bins")(spectrum)  # (N, n_bins)
    for i, n in enumerate(units, 1):
        x = layers.Dense(n, activation=activation, name=f"dense_{i}")(x)
        x = _dropout(x, dropout, f"dropout_{i}")
    return x


def cnn(
    spectrum, filters=(32, 32), kernel_size=3, pooling=False, batch_norm=False, patch=4, patch_filters=64,
    dense=(240, 160, 80), activation="gelu", dropout=0.0,
):  # fmt: skip
    """Convolutions over the bins, then over patches of them: (N, n_bins, 1) -> (N, dense[-1])."""
    x = _convolutions(spectrum, filters, kernel_size, pooling, batch_norm, activation)
    x = _patches(x, patch, patch_filters, activation)
    return _head(layers.Flatten(name="all_bins")(x), dense, activation, dropout)


def lstm(spectrum, patch=6, units=(96,), all_steps=True, dense=(240, 160, 80), activation="gelu", dropout=0.0):
    """Bidirectional LSTM layers over patches of bins: (N, n_bins, 1) -> (N, dense[-1])."""
    x = _padded(spectrum, patch)
    if patch > 1:
        x = layers.Reshape((-1, patch), name="patches")(x)  # (N, steps, patch)
    return _head(_recurrent(x, units, all_steps), dense, activation, dropout)


def hybrid(
    spectrum, filters=(16,), kernel_size=3, pooling=False, batch_norm=False, patch=6, patch_filters=64, units=64,
    all_steps=True, dense=(240, 160, 80), activation="gelu", dropout=0.0,
):  # fmt: skip
    """Convolutional front, then a bidirectional LSTM over patches: (N, n_bins, 1) -> (N, dense[-1])."""
    x = _convolutions(spectrum, filters, kernel_size, pooling, batch_norm, activation)
    x = _patches(x, patch, patch_filters, activation)
    return _head(_recurrent(x, (units,), all_steps), dense, activation, dropout)


def _convolutions(x, filters, kernel_size, pooling, batch_norm, activation):
    """Convolutions over the bins: (N, n_bins, 1) -> (N, n_bins, filters[-1]), with pooling (N, n_bins // 4, ...).

    The paper's have batch normalisation in each and max-pooling after the first two, which forgets which of two
    neighbours was the larger (docs/science.md).
    """
    for i, n in enumerate(filters, 1):
        x = layers.Conv1D(n, kernel_size, padding="same", name=f"conv_{i}")(x)
        if batch_norm:
            x = layers.BatchNormalization(name=f"batch_norm_{i}")(x)
        name = f"{activation}_{i}"
        x = layers.ReLU(name=name)(x) if activation == "relu" else layers.Activation(activation, name=name)(x)
        if pooling and i <= 2:
            x = layers.MaxPooling1D(2, padding="same", name=f"pool_{i}")(x)  # 'same': one bin is enough
    return x


def _patches(x, patch, filters, activation):
    """Convolve patches that do not overlap: (N, n_bins, k) -> (N, steps, filters); unchanged if a patch is one bin."""
    if patch == 1:
        return x
    return layers.Conv1D(filters, patch, strides=patch, activation=activation, name="patches")(_padded(x, patch))


def _padded(x, patch):
    """Fill the last patch up with zeros: (N, n_bins, k) -> (N, a multiple of patch, k)."""
    missing = -x.shape[1] % patch
    return layers.ZeroPadding1D((0, missing), name="fill_last_patch")(x) if missing else x


def _recurrent(x, units, all_steps):
    """Bidirectional LSTM layers: (N, steps, k) -> (N, steps * 2 * units[-1]), or the last alone."""
    for i, n in enumerate(units, 1):
        sequences = all_steps or i < len(units)
        x = layers.Bidirectional(layers.LSTM(n, return_sequences=sequences), name=f"lstm_{i}")(x)
    return layers.Flatten(name="all_steps")(x) if all_steps else x


def _head(x, dense, activation, dropout):
    """Dense layers, dropout after each: (N, n) -> (N, dense[-1]). Where others have ReLU these have LeakyReLU(0.2)."""
    for i, n in enumerate(dense, 1):
        x = layers.Dense(n, activation=None if activation == "relu" else activation, name=f"dense_{i}")(x)
        if activation == "relu":
            x = layers.LeakyReLU(negative_slope=0.2, name=f"leaky_relu_{i}")(x)
        x = _dropout(x, dropout, f"dropout_{i}")
    return x


def _dropout(x, rate, name):
    return layers.Dropout(rate, name=name)(x) if rate else x


BUILDERS = dict(zip(NETWORKS, (mlp, cnn, lstm, hybrid)))


def _with_seeds(config, rng):
    """Return a network's configuration with a seed for every initialiser and dropout layer that has none."""
    if isinstance(config, dict):
        return {
            key: int(rng.integers(2**31)) if key == "seed" and value is None else _with_seeds(value, rng)
            for key, value in config.items()
        }
    return [_with_seeds(value, rng) for value in config] if isinstance(config, list) else config


def build_model(name, n_bins, n_amps, n_auxiliary=0, whitening=None, seed=None, **settings):
    """Return one of the four networks, not compiled.

    It maps scaled spectra (N, n_bins, 1) to scaled AMPs (N, n_amps). With ``n_auxiliary``, it takes [spectra, auxiliary
    inputs (N, n_auxiliary)], which join after the spectral part. ``whitening`` (kernel, bias) holds the weights of a
    fixed first layer, from ``preprocessing.first_layer``; the paper's networks have none. ``seed``, anything that
    ``numpy.random.default_rng`` takes, sets the initial weights and dropout; without it they are random, as in Keras.
    ``settings`` are the arguments of the builder of that name; ``activation="auto"`` stands for its own.
    """
    if name not in NETWORKS:
        raise ValueError(f"model: expected one of {', '.join(NETWORKS)}, received {name!r}")
    if n_bins < 1 or n_amps < 1:
        raise ValueError(f"n_bins and n_amps: expected at least 1, received {n_bins} and {n_amps}")
    if settings.get("activation") == "auto":
        del settings["activation"]
    x = inputs = spectrum = keras.Input((n_bins, 1), name="spectrum")
    if whitening is not None:  # a linear map, bins to bins; what tells molecules apart is a few percent of the input
        x = layers.Flatten(name="spectrum_flat")(x)  # (N, n_bins)
        x = layers.Dense(n_bins, trainable=False, name="whitening")(x)
        x = layers.Reshape((n_bins, 1), name="whitened_spectrum")(x)  # (N, n_bins, 1)
    x = BUILDERS[name](x, **settings)
    if n_auxiliary:
        auxiliary = keras.Input((n_auxiliary,), name="auxiliary")
        inputs = [spectrum, auxiliary]
        x = layers.Concatenate(name="with_auxiliary")([x, auxiliary])
        x = layers.Dense(x.shape[-1], activation="relu", name="dense_auxiliary")(x)
    model = keras.Model(inputs, layers.Dense(n_amps, name="amps")(x), name=name)
    if seed is not None:
        model = keras.Model.from_config(_with_seeds(model.get_config(), np.random.default_rng(seed)))
    if whitening is not None:
        model.get_layer("whitening").set_weights(whitening)
    return model


def load_model(path):
    """Load a ``.keras`` file, refusing anything that could run code (a Lambda layer), and weights that are not finite.

    A ReLU returns 0 for NaN, so that the predictions of a network with such a weight would look valid.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file, expected a network saved as .keras")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not a .keras archive, expected a network saved by this project or model.save()")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds; all of them mean this file cannot be used
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: refused or unreadable ({reason})") from error
    bad = [weight.path for weight in model.weights if not np.isfinite(keras.ops.convert_to_numpy(weight)).all()]
    if bad:
        raise ValueError(f"{path}: weights hold NaN or infinite values ({', '.join(bad)[:200]})")
    return model
