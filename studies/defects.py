"""Known defects of data and networks, and the rules by which a map reveals them, for `blindness.py`."""

import dataclasses

import numpy as np

from common.metrics import shares
from constants import BANDS, Stream, stream

MOLECULES = ("CO2", "CO", "H2O")  # whose bands hold noise, by seed
DEAD, PAIRS, GIVEN_AWAY = 4, 10, 3  # bins, pairs of bins and AMPs per seed


def defects_of(seed, names, wavelength):
    """Draw the defects of a seed: {"dead": bins, "band": bins, "shortcut": {AMP column: bin}, "exchange": pairs of
    bins}.
    """
    rng = np.random.default_rng(stream(seed, Stream.CORRUPTION, 1))
    n_bins = len(wavelength)
    bands = BANDS[MOLECULES[seed % len(MOLECULES)]]
    amps, bins = rng.permutation(len(names))[:GIVEN_AWAY], rng.permutation(n_bins)[:GIVEN_AWAY]
    return {
        "dead": np.sort(rng.permutation(n_bins)[:DEAD]),
        "band": np.flatnonzero(np.any([(wavelength >= low) & (wavelength <= high) for low, high in bands], axis=0)),
        "shortcut": dict(zip(amps.tolist(), bins.tolist())),
        "exchange": [rng.permutation(n_bins)[:2] for _ in range(PAIRS)],
    }


def only_noise(data, rows, bins):
    """Return data whose ``bins`` hold their mean over ``rows``, with errors as large as planets differ there."""
    spectra, errors = data.spectra.copy(), data.errors.copy()
    spectra[:, bins] = data.spectra[np.ix_(rows, bins)].mean(axis=0)
    errors[:, bins] = data.spectra[np.ix_(rows, bins)].std(axis=0)
    return dataclasses.replace(data, spectra=spectra, errors=errors)


def with_shortcut(data, rows, given_away, strength):
    """Return data whose bins are deeper by ``strength`` errors per standard deviation of the AMP they give away."""
    spectra = data.spectra.copy()
    for a, b in given_away.items():
        values = data.amps[:, a]
        spectra[:, b] += strength * data.errors[:, b] * (values - values[rows].mean()) / values[rows].std()
    return dataclasses.replace(data, spectra=spectra)


def masked(network, bins, depths):
    """Put a layer in front of a network that sets ``bins`` (k,) to ``depths`` (k,)."""
    import keras

    from pipeline.network import TrainedNetwork

    scaler, n_bins = network.scaler, network.model.inputs[0].shape[1]
    kept, fixed = np.ones((n_bins, 1)), np.zeros((n_bins, 1))
    kept[bins, 0], fixed[bins, 0] = 0, (depths - scaler.x_mean) / scaler.x_std
    spectrum = keras.Input((n_bins, 1))
    seen = keras.layers.Rescaling(kept.tolist(), fixed.tolist())(spectrum)
    return TrainedNetwork(keras.Model(spectrum, network.model(seen)), scaler, network.amp_names)


# --- what counts as found; shares are (n_amps, n_bins) and add up to 1 ---


def shares_of(values):
    """Share of each bin in a map (n_amps, n_bins); negative values, which permutation can give, count as zero."""
    return np.nan_to_num(shares(np.maximum(values, 0)))


def dead_found(shares, _, bins):
    """For each AMP, whether ``bins`` have the smallest shares of all, (n_amps,)."""
    others = np.delete(shares, bins, axis=1)
    return shares[:, bins].max(axis=1) < others.min(axis=1)


def band_found(shares, healthy, bins):
    """For each AMP, whether ``bins`` have less than a tenth of their share in the healthy network, (n_amps,)."""
    return shares[:, bins].sum(axis=1) < 0.1 * healthy[:, bins].sum(axis=1)


def shortcut_found(shares, _, given_away):
    """For each AMP with a shortcut, whether its bin has the largest share, (len(given_away),)."""
    return np.array([shares[a].argmax() == b for a, b in given_away.items()])


def exchange_found(shares, healthy, pair):
    """For each AMP, whether the two bins whose shares differ most from the healthy network are the pair, (n_amps,)."""
    most = np.argsort(np.abs(shares - healthy), axis=1)[:, -2:]
    return np.array([set(bins) == set(map(int, pair)) for bins in most.tolist()])


def exchanged(shares, pair):
    """Shares with two columns exchanged."""
    order = np.arange(shares.shape[1])
    order[list(pair)] = order[list(pair)[::-1]]
    return shares[:, order]


def share_left(shares, healthy, bins):
    """Return the share of ``bins`` over that in the healthy network's map, (n_amps,)."""
    return shares[:, bins].sum(axis=1) / np.maximum(healthy[:, bins].sum(axis=1), 1e-300)


def share_of_shortcut(shares, _, given_away):
    """Return the share of the bin that gives an AMP away, (len(given_away),)."""
    return np.array([shares[a, b] for a, b in given_away.items()])
