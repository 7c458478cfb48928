"""Maps of the parts of a survey, made one by one, put together: the map of the whole, with its errors."""

from dataclasses import replace

import numpy as np

ALIKE = ("scheme", "repeat", "scaled", "abundance", "amp_names", "nodes", "rule")  # has to be the same in all parts
SUMS = ("quadrature_error", "slope", "curvature")  # means over spectra


def merge_maps(maps):
    """Return the map of all spectra from the maps of parts of them, none of which shares a spectrum with another.

    Numbers do not depend on the parts but for rounding, with two exceptions. ``share_error`` adds the errors that the
    parts state in quadrature, weighted by the size of their maps, which is right to first order, and NaN if a part is
    a single spectrum. With random repeats ``standard_error`` may be too large, where that of a part is the noise of its
    repeats and not the spread over its spectra.

    Parameters
    ----------
    maps : iterable of SensitivityMap
        Read one at a time, and in order.

    Returns
    -------
    SensitivityMap
        Without ``per_spectrum`` and ``spectra``; the seed is that of the first part.

    Raises
    ------
    ValueError
        If there is no map, or the maps were not made in the same way.
    """
    first, sums = None, None
    for part in maps:
        if first is None:
            first, sums = part, _Sums(part)
        _check_alike(first, part)
        sums.add(part)
    if first is None:
        raise ValueError("maps: expected at least one, received none")
    return replace(first, per_spectrum=None, spectra=None, **sums.arrays())


def _check_alike(first, part):
    for name in ALIKE:
        if getattr(part, name) != getattr(first, name):
            raise ValueError(
                f"maps: expected the {name} {getattr(first, name)!r} of the first, received {getattr(part, name)!r}"
            )
    if part.mean.shape != first.mean.shape:
        raise ValueError(f"maps: expected the shape {first.mean.shape} of the first, received {part.mean.shape}")
    if not np.array_equal(*(np.zeros(0) if one.groups is None else one.groups for one in (first, part))):
        raise ValueError("maps: expected the groups of the first, received others")


class _Sums:
    """Running sums over parts, each of ``n`` spectra (n_AMPs, 1)."""

    def __init__(self, first):
        self.count = np.zeros((len(first.mean), 1), int)
        self.mean = np.zeros_like(first.mean)
        self.spread = np.zeros_like(first.mean)  # sum over spectra of (map - mean)^2
        self.repeats = np.zeros_like(first.mean)  # of the variances of sums over spectra
        self.totals = {name: np.zeros_like(first.mean) for name in SUMS if getattr(first, name) is not None}
        self.shares = None if first.share_error is None else np.zeros_like(first.mean)
        self.single = first.standard_error  # of a lone spectrum: no spread over spectra

    def add(self, part):
        """Add a part: means and spreads as Chan, Golub & LeVeque (1983) update them."""
        n = np.asarray(part.n_spectra)[:, None]
        spread = np.where(n > 1, part.standard_error**2 * n * (n - 1), 0.0)
        delta, self.count = part.mean - self.mean, self.count + n
        self.mean = self.mean + delta * (n / self.count)
        self.spread = self.spread + spread + delta**2 * (n * (self.count - n) / self.count)
        self.repeats = self.repeats + (n * part.repeat_error) ** 2
        for name, total in self.totals.items():
            total += n * getattr(part, name)
        if self.shares is not None:
            size = n * np.nansum(part.mean, axis=1, keepdims=True)
            self.shares = None if part.share_error is None else self.shares + (size * part.share_error) ** 2

    def arrays(self):
        """Return the arrays of the map of all parts, by name."""
        n, repeat_error = self.count, np.sqrt(self.repeats) / self.count
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = np.sqrt(self.spread / (n - 1) / n)
            size = n * np.nansum(self.mean, axis=1, keepdims=True)
            share_error = None if self.shares is None else np.sqrt(self.shares) / size
        return {
            "mean": self.mean,
            "n_spectra": n[:, 0],
            "repeat_error": repeat_error,
            "standard_error": np.where(n > 1, np.fmax(spread, repeat_error), self.single),
            "share_error": share_error,
            **{name: total / n for name, total in self.totals.items()},
        }
