"""Sums over spectra, added one spectrum at a time in constant memory: a map, its errors, its shares."""

import numpy as np

JACKKNIFE_GROUPS = 100  # spectra up to this number are left out one at a time, more in this many groups


class RunningMoments:
    """Mean over spectra and the spread about it (Welford), for each AMP its own number of spectra."""

    def __init__(self, n_amps, n_bins):
        self.count = np.zeros((n_amps, 1), int)
        self.mean = np.zeros((n_amps, n_bins))
        self._spread = np.zeros((n_amps, n_bins))  # sum over spectra of (map - mean)^2

    def add(self, spectrum_map, wanted):
        """Add one spectrum's map (n_AMPs, n_bins) to the AMPs ``wanted`` (n_AMPs,)."""
        if not wanted.all():
            spectrum_map = np.where(wanted[:, None], spectrum_map, self.mean)  # no change to these rows
        self.count += wanted[:, None]
        delta = spectrum_map - self.mean
        self.mean += delta / np.maximum(self.count, 1)
        self._spread += delta * (spectrum_map - self.mean)

    @property
    def standard_error(self):
        """Spread of the maps of single spectra / sqrt(n): (n_AMPs, n_bins), NaN for one spectrum."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(self._spread / (self.count - 1) / self.count)

    def within(self, tolerance, fewest=10):
        """Whether every AMP has ``fewest`` spectra and a standard error of at most ``tolerance`` times its mean."""
        return self.count.min() >= fewest and bool(np.all(self.standard_error <= tolerance * self.mean))


class RunningSums:
    """Plain sums over spectra of some arrays (n_arrays, n_AMPs, n_bins)."""

    def __init__(self, n_arrays, n_amps, n_bins):
        self.total = np.zeros((n_arrays, n_amps, n_bins))

    def add(self, arrays, wanted):
        """Add one spectrum's arrays to the AMPs ``wanted`` (n_AMPs,)."""
        if not wanted.all():
            arrays = np.where(wanted[:, None], arrays, 0.0)
        self.total += arrays


class RunningShares:
    """Share of each bin in its AMP's sum, with jackknife errors: sums of spectra in a fixed number of groups.

    Up to `JACKKNIFE_GROUPS` spectra of an AMP each has a group of its own, and leaving groups out is the usual
    delete-one jackknife; with more, spectra take turns.
    """

    def __init__(self, n_amps, n_bins, n_groups=JACKKNIFE_GROUPS):
        self._sums = np.zeros((n_groups, n_amps, n_bins))
        self._count = np.zeros(n_amps, int)

    def add(self, spectrum_map, wanted):
        """Add one spectrum's map (n_AMPs, n_bins) to the AMPs ``wanted`` (n_AMPs,)."""
        if wanted.all() and (self._count == self._count[0]).all():
            self._sums[self._count[0] % len(self._sums)] += spectrum_map
        else:
            rows = np.flatnonzero(wanted)
            self._sums[self._count[rows] % len(self._sums), rows] += spectrum_map[rows]
        self._count += wanted

    def result(self):
        """Return the shares and their standard errors, (n_AMPs, n_bins) each; NaN where the sum is zero.

        The standard error is NaN for one spectrum.
        """
        shares, errors = [], []
        for k, count in enumerate(self._count):
            groups = self._sums[: min(count, len(self._sums)), k]
            whole = groups.sum(axis=0)
            with np.errstate(invalid="ignore", divide="ignore"):
                shares.append(whole / whole.sum())
                rest = whole - groups
                left_out = rest / rest.sum(axis=1, keepdims=True)  # (n_groups, n_bins)
                n = np.float64(len(groups))
                variance = (n - 1) / n * np.sum((left_out - left_out.mean(axis=0)) ** 2, axis=0)
                errors.append(np.sqrt(variance) if n > 1 else np.full_like(whole, np.nan))
        return np.stack(shares), np.stack(errors)
