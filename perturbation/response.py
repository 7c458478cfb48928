"""The signed response map: which way, and how straight, each answer moves when a bin is pushed.

The sensitivity test (Yip et al. 2021, Section 4) squares every change, so it cannot say whether a deeper bin
raises or lowers an AMP. Here one bin, or one group of bins that move together, is pushed by a fixed number
of standard errors, and the change is kept with its sign. Spectra are moved as in
`perturbation.quadrature`, which returns the mean slope and curvature over the noise from the same pass as the map;
here the whole curve is kept.
"""

from dataclasses import dataclass

import numpy as np

from perturbation.quadrature import changes, moved_spectra

DEVIATIONS = tuple(np.linspace(-3, 3, 13))  # standard errors
ROWS_PER_CALL = 65536  # spectra per call of the network: 27 MB of 52-bin spectra


@dataclass(frozen=True)
class ResponseMap:
    """Change of each AMP for pushes of each bin or group.

    Attributes
    ----------
    deviations : ndarray (n_deviations,)
        Pushes, in standard errors.
    change : ndarray (n_amps, n_groups, n_deviations)
        Mean over spectra of f(x + push) - f(x), retrieval-space units.
    spread : ndarray (n_amps, n_groups, n_deviations)
        Standard deviation of the change over the spectra; zero for one spectrum.
    n_spectra : int or None
        Spectra that were averaged over, where known.
    """

    deviations: np.ndarray
    change: np.ndarray
    spread: np.ndarray
    n_spectra: int | None = None

    @property
    def slope(self):
        """Linear part of the change, (n_amps, n_groups): AMP units per standard error."""
        return slope_and_curvature(self.deviations, self.change)[0]

    @property
    def curvature(self):
        """Second derivative of the change, (n_amps, n_groups): zero where the network is linear."""
        return slope_and_curvature(self.deviations, self.change)[1]

    def save(self, group):
        """Write deviations, change and spread into an open ``h5py.Group``."""
        group["deviations"] = self.deviations
        group["change"] = self.change
        group["spread"] = self.spread


def slope_and_curvature(deviations, change):
    """Least-squares slope s and curvature c of ``change = s a + c a^2 / 2`` over the deviations a.

    Parameters
    ----------
    deviations : ndarray (n_deviations,)
        Standard errors.
    change : ndarray (..., n_deviations)

    Returns
    -------
    slope, curvature : ndarray (...)
        Curvature is NaN when fewer than two deviations differ from zero.
    """
    a, change = np.asarray(deviations, float), np.asarray(change, float)
    if len(np.unique(a[a != 0])) < 2:
        slope = change @ a / (a @ a)
        return slope, np.full_like(slope, np.nan)
    inverse = np.linalg.pinv(np.stack([a, a**2 / 2], axis=1))  # (2, n_deviations)
    slope, curvature = np.moveaxis(change @ inverse.T, -1, 0)
    return slope, curvature


def response_map(
    predict,
    spectra,
    errors,
    deviations=DEVIATIONS,
    *,
    groups=None,
    covariance=None,
    rows_per_call=ROWS_PER_CALL,
):
    """Push each bin, or group of bins, by a few standard errors and record how each AMP moves.

    Parameters
    ----------
    predict : callable
        (n, n_bins) unscaled spectra -> (n, n_amps) AMPs in retrieval-space units.
    spectra : ndarray (n_bins,) or (N, n_bins)
        One spectrum, or a set to average over; transit depths, noise-free or not.
    errors : ndarray, shape of ``spectra`` or (n_bins,)
        1-sigma error of each bin.
    deviations : sequence of float
        Pushes in standard errors; at least one must differ from zero.
    groups : sequence of sequences of int, optional
        Bins that are pushed together, each by its own error (fully correlated noise).
        Each bin alone by default.
    covariance : ndarray (n_bins, n_bins), optional
        Noise covariance in units of depth squared. A push of ``a`` then moves the whole spectrum to where the
        noise is expected to be, given that the mean over the group is ``a`` standard deviations off:
        a C w / sqrt(w' C w), with w = 1 / n_g inside the group. For a diagonal C and single bins this is
        the plain push. ``errors`` is not used.
    rows_per_call : int
        Spectra in one call of ``predict``; changes memory, not the answer.

    Returns
    -------
    ResponseMap
        ``change`` averaged over the spectra.

    Raises
    ------
    ValueError
        If a shape does not fit, a group is empty or out of range, or no push differs from zero.
    """
    spectra = np.atleast_2d(np.asarray(spectra, float))  # (N, n_bins)
    n_bins = spectra.shape[1]
    deviations = np.asarray(deviations, float)
    if deviations.ndim != 1 or not np.any(deviations):
        raise ValueError("deviations: expected a sequence with a number other than zero in it")
    push = _pushes(spectra, errors, _members(groups, n_bins), covariance)  # (n_groups, 1 or N, n_bins)
    rows_of_one = 1 + len(push) * len(deviations)
    at_once = max(1, rows_per_call // rows_of_one)
    total = squares = 0.0
    for start in range(0, len(spectra), at_once):
        some = slice(start, start + at_once)
        # The reference goes through the same call as the pushed spectra, so a push of zero changes nothing.
        rows = moved_spectra(spectra[some], push if push.shape[1] == 1 else push[:, some], deviations)
        answers = np.asarray(predict(rows.reshape(-1, n_bins)), float)
        n_rows = rows.shape[0] * rows.shape[1]
        if answers.ndim != 2 or len(answers) != n_rows:
            raise ValueError(f"predict: expected ({n_rows}, n_amps), received {answers.shape}")
        change = changes(answers.reshape(*rows.shape[:2], -1), len(deviations))  # (n_deviations, n_groups, n, n_amps)
        total = total + change.sum(axis=2)
        squares = squares + (change**2).sum(axis=2)
    mean = total / len(spectra)
    spread = np.sqrt(np.maximum(squares / len(spectra) - mean**2, 0))
    return ResponseMap(deviations, mean.T, spread.T, len(spectra))


def _members(groups, n_bins):
    """Return the groups as a (n_groups, n_bins) table of booleans."""
    if groups is None:
        return np.eye(n_bins, dtype=bool)
    table = np.zeros((len(groups), n_bins), dtype=bool)
    for row, group in zip(table, groups):
        group = np.asarray(group, dtype=int)
        if group.size == 0 or group.min() < 0 or group.max() >= n_bins:
            raise ValueError(f"groups: expected bins from 0 to {n_bins - 1}, at least one a group, received {group}")
        row[group] = True
    return table


def _pushes(spectra, errors, members, covariance):
    """Return the change of depth for a push of one standard error, (n_groups, 1 or N, n_bins)."""
    n_bins = spectra.shape[1]
    if covariance is not None:
        covariance = np.asarray(covariance, float)
        if covariance.shape != (n_bins, n_bins):
            raise ValueError(f"covariance: expected {(n_bins, n_bins)}, received {covariance.shape}")
        weights = members / members.sum(axis=1, keepdims=True)
        reach = weights @ covariance  # (n_groups, n_bins)
        variance = np.sum(reach * weights, axis=1, keepdims=True)
        if np.any(variance <= 0):
            raise ValueError("covariance: expected a positive variance for every group")
        return (reach / np.sqrt(variance))[:, None]
    errors = np.atleast_2d(np.asarray(errors, float))
    if errors.shape not in (spectra.shape, (1, n_bins)):
        raise ValueError(f"errors: expected {spectra.shape} or ({n_bins},), received {errors.shape}")
    return members[:, None] * errors
