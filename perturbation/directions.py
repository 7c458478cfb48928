"""Directions in the space of spectra: what moves together, and by how much for one standard deviation.

Each function returns an array for ``sensitivity_map(directions=)``, in the unit of depth; several are put together by
``np.concatenate([offsets(...), tilt(...)])``. For a linear model with weights w the map of a direction d is (w . d)^2.
A shape that does not fit, a negative sigma or a matrix that is no covariance raises a ValueError.
"""

from numbers import Real

import numpy as np

from perturbation.arguments import float_array, positive_integer
from perturbation.engine import covariance_root


def offsets(channel_of_bin, sigma):
    """Zero points of the channels of an instrument: all bins of a channel move together.

    Parameters
    ----------
    channel_of_bin : sequence of shape (n_bins,)
        Number or name of the channel (detector, order, visit) of each bin.
    sigma : float or array of shape (n_channels,)
        1-sigma uncertainty of the zero points, depth; for each channel in the order of ``numpy.unique``.

    Returns
    -------
    ndarray of shape (n_channels, n_bins)

    Examples
    --------
    >>> offsets(["NRS1", "NRS1", "NRS2"], 1e-5)
    array([[1.e-05, 1.e-05, 0.e+00],
           [0.e+00, 0.e+00, 1.e-05]])
    """
    channel_of_bin = _labels(channel_of_bin)
    channels = np.unique(channel_of_bin)
    sigma = _sizes("sigma", sigma, (), (len(channels),))
    return (channels[:, None] == channel_of_bin) * np.broadcast_to(sigma, len(channels))[:, None]


def tilt(wavelength, sigma):
    """Tilt of the whole spectrum (starlight, scattering, a baseline): a straight line in log wavelength.

    Parameters
    ----------
    wavelength : array of shape (n_bins,)
        Micron; at least two that differ.
    sigma : float
        1-sigma displacement of the last bin, depth; that of the first is -sigma.

    Returns
    -------
    ndarray of shape (1, n_bins)
    """
    wavelength = float_array("wavelength", wavelength, "(n_bins,)", ndim=1)
    if wavelength.min() <= 0 or wavelength.min() == wavelength.max():
        raise ValueError(f"wavelength: expected positive numbers that differ, received {wavelength}")
    sigma = _sizes("sigma", sigma, ())
    position = np.log(wavelength)
    middle, half = (position.max() + position.min()) / 2, np.ptp(position) / 2
    return sigma * ((position - middle) / half)[None]


def modes(covariance, n):
    """Principal modes of correlated noise: eigenvectors times the root of their eigenvalue, the strongest first.

    Over all modes the maps of a linear model add up to w' C w, what the whole noise does. The greatest component of a
    mode is positive.

    Parameters
    ----------
    covariance : array of shape (n_bins, n_bins) or (N, n_bins, n_bins)
        Of the noise, depth squared; one for all spectra or one each.
    n : int
        Number of modes, 1 to n_bins.

    Returns
    -------
    ndarray of shape (n, n_bins) or (N, n, n_bins)
    """
    covariance = _covariance(covariance)
    n_bins = covariance.shape[-1]
    n = positive_integer("n", n, f" up to {n_bins}", most=n_bins)
    strongest = np.swapaxes(covariance_root(covariance, "covariance"), -1, -2)[..., ::-1, :][..., :n, :]
    greatest = np.take_along_axis(strongest, np.abs(strongest).argmax(axis=-1)[..., None], axis=-1)
    return strongest * np.where(greatest < 0, -1.0, 1.0)


def dragged(covariance, errors=None):
    """Each bin moved by one standard deviation, the others to where they are then expected: C_ab / sqrt(C_bb).

    Given the covariance of the noise, this is a push of the noise seen at one bin. Given the covariance of the
    *training spectra* and ``errors``, a bin moves by its error and drags the others along as spectra correlate: the
    perturbed spectra stay among those that the network knows. For a linear model the map is (C w)_b^2 / C_bb.

    Parameters
    ----------
    covariance : array of shape (n_bins, n_bins) or (N, n_bins, n_bins)
        Depth squared.
    errors : array of shape (n_bins,) or (N, n_bins), optional
        How far the bins move, depth. Default: the standard deviations in ``covariance``.

    Returns
    -------
    ndarray of shape (n_bins, n_bins) or (N, n_bins, n_bins)
        Row b is the direction of bin b.
    """
    covariance = _covariance(covariance)
    variance = np.diagonal(covariance, axis1=-2, axis2=-1)  # (..., n_bins)
    if variance.min() <= 0:
        raise ValueError(f"covariance: expected a positive variance for every bin, received {variance.min():.3g}")
    n_bins, n = variance.shape[-1], len(variance) if variance.ndim == 2 else len(np.atleast_2d(errors))
    reach = np.sqrt(variance) if errors is None else _sizes("errors", errors, (n_bins,), (n, n_bins))
    deviation = np.sqrt(variance)
    greatest = np.abs(covariance / deviation[..., None] / deviation[..., None, :]).max()
    if greatest > 1 + 1e-6:
        raise ValueError(f"covariance: expected correlations of 1 at most, received {greatest:.3g}")
    return covariance * (reach / variance)[..., None]


def _labels(channel_of_bin):
    """Return the channel of each bin as an array that can be sorted, (n_bins,)."""
    items = np.array(channel_of_bin, dtype=object)
    alike = any(all(isinstance(item, kind) for item in items.flat) for kind in (str, bytes, Real))
    if items.ndim != 1 or not items.size or not alike or (items != items).any() or np.ma.is_masked(channel_of_bin):
        raise ValueError(
            "channel_of_bin: expected numbers, or names, of shape (n_bins,), none missing, received"
            f" {str(items.tolist())[:80]}"
        )
    return np.asarray(channel_of_bin)


def _covariance(covariance):
    shape = "(n_bins, n_bins) or (N, n_bins, n_bins)"
    covariance = float_array("covariance", covariance, shape)
    if covariance.ndim not in (2, 3) or covariance.shape[-1] != covariance.shape[-2]:
        raise ValueError(f"covariance: expected shape {shape}, received {covariance.shape}")
    if np.abs(covariance - np.swapaxes(covariance, -1, -2)).max() > 1e-8 * np.abs(covariance).max():
        raise ValueError("covariance: expected a symmetric covariance, received one that is not")
    return covariance


def _sizes(name, values, *shapes):
    """Return numbers of at least 0 in one of these shapes, as an array."""
    words = " or ".join(map(str, shapes))
    values = float_array(name, values, words)
    if values.shape not in shapes:
        raise ValueError(f"{name}: expected shape {words}, received {values.shape}")
    if values.min() < 0:
        raise ValueError(f"{name}: expected numbers >= 0, received {values.min():g}")
    return values
