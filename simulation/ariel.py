"""The instrument: 52 Ariel-Tier-2-like bins and their noise.

An approximation for building and testing retrieval networks, not a radiometric model of Ariel.
"""

import itertools

import numpy as np

STAR_TEMPERATURE = 5800.0  # K
AIRS_START = 1.95  # micron: bins from here on belong to the infrared spectrometer AIRS
AIRS_NOISE_RANGE = (20.0, 80.0)  # ppm: range of the median photon noise of the AIRS bins, log-uniform over planets
NOISE_FLOOR = 20.0  # ppm, added in quadrature
THROUGHPUT = ((0.5, 0.45), (1.1, 0.40), (1.95, 0.50), (3.9, 0.45))  # from a wavelength [micron] on; approximate

# Photometers as (low, high), spectrometers as (start [micron], resolution, number of bins).
PHOTOMETERS = ((0.5, 0.6), (0.6, 0.8), (0.8, 1.1))
SPECTROMETERS = ((1.1, 10, 6), (1.95, 50, 33), (3.9, 15, 10))


def ariel_grid():
    """Centres (52,), full widths (52,) and edges (52, 2) of the bins, by ascending wavelength [micron].

    Photometers at 0.5-0.6, 0.6-0.8 and 0.8-1.1 micron, then bins of constant ratio: each next edge of a channel of
    resolution R is a factor (1 + 1/(2R))^2 further. NIRSpec's last bin overlaps AIRS by 1 % and there is a gap
    between AIRS channels 0 and 1 (3.76-3.90 micron).
    """
    edges = list(PHOTOMETERS)
    for start, resolution, n_bins in SPECTROMETERS:
        channel = start * (1 + 1 / (2 * resolution)) ** (2 * np.arange(n_bins + 1))
        edges.extend(itertools.pairwise(channel))
    edges = np.array(edges)
    return edges.mean(axis=1), edges[:, 1] - edges[:, 0], edges


def _photon_noise_shape():
    """Photon noise per bin, relative to the median AIRS bin, shape (52,)."""
    wavelength, bin_width, _ = ariel_grid()
    throughput = np.zeros(len(wavelength))
    for start, value in THROUGHPUT:
        throughput[wavelength > start] = value
    photon_rate = wavelength**-4 / np.expm1(14387.77 / (wavelength * STAR_TEMPERATURE))  # Planck's law in photons
    shape = (photon_rate * bin_width * throughput) ** -0.5
    return shape / np.median(shape[wavelength > AIRS_START])


def noise(airs_noise):
    """1-sigma error of the transit depth in each bin, (52,) or (N, 52), dimensionless.

    Photon noise of a 5800 K star, scaled so that the median of the AIRS bins is `airs_noise` [ppm], a number or (N,),
    and a floor of 20 ppm in quadrature.
    """
    photon = np.multiply.outer(np.asarray(airs_noise, float), _photon_noise_shape())  # ppm
    return np.hypot(photon, NOISE_FLOOR) * 1e-6
