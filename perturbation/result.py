"""What a sensitivity test returns: the map with its error bars, saved, read back, drawn and tabulated."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perturbation import amps as table
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

    @classmethod
    def load(cls, group):
        """Read a map back from an open ``h5py.Group``."""
        arrays = (group[name][()] for name in ("deviations", "change", "spread"))
        return cls(*arrays, group.attrs.get("n_spectra"))


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


ARRAYS = (  # data sets of a saved map
    "mean", "standard_error", "repeat_error", "quadrature_error", "slope", "curvature", "share_error", "per_spectrum",
    "spectra", "groups",
)  # fmt: skip


@dataclass(frozen=True)
class SensitivityMap:
    """A sensitivity map with its error bars.

    A column is a bin, or one of the user's ``directions``.

    Attributes
    ----------
    mean : ndarray of shape (n_AMPs, n_bins)
        Mean squared change of each AMP, in the AMP's retrieval-space unit squared (or scaled units squared).
        NaN for a bin that no group of the user holds.
    standard_error : ndarray of shape (n_AMPs, n_bins)
        1-sigma error of ``mean`` as an estimate of the map of *all spectra like these*: spread over spectra and
        repeats. For a single spectrum there is no spread over spectra, and it is ``repeat_error`` or
        ``quadrature_error``. As with any mean of few numbers, it is too small for few spectra, the more so where a
        few planets carry much of the map: on the shipped data it had to be 2.2 times as large with 10 spectra, 1.2
        with 100 (docs/explanations.md). Planets share their scale, so it hides that bins differ: see `shares`.
    repeat_error : ndarray of shape (n_AMPs, n_bins)
        1-sigma Monte Carlo error of ``mean`` for *exactly these spectra*: what more repeats would reduce.
        NaN for one repeat; zero with quadrature, which draws nothing.
    n_spectra : ndarray of shape (n_AMPs,)
        Number of spectra behind each AMP.
    scheme : {"halving", "single", "groups", "directions"}
        What moved together.
    repeat : int
        Random repeats per spectrum; 0 with quadrature.
    seed : int
        Pass it as ``rng`` to draw the same numbers again.
    scaled : bool
        True if the map is in the network's scaled units.
    abundance : None, (low, high) or dict
        The cut in log10 VMR.
    amp_names : tuple of str
        Keys of the AMPs where known, else empty.
    per_spectrum : ndarray of shape (n_used, n_AMPs, n_bins) or None
        Map of each spectrum, NaN where the abundance cut left it out of an AMP; None if not kept.
    spectra : ndarray of shape (n_used,) or None
        Rows of ``org_spectrum`` of these maps.
    groups : ndarray of shape (n_bins,) or None
        Number of the group of each bin, -1 for none, where they were the user's own.
    quadrature_error : ndarray of shape (n_AMPs, n_bins) or None
        Error of ``mean`` for *exactly these spectra* from the few nodes, told by a lower rule on the same nodes: what
        more nodes would reduce. None with random repeats.
    slope : ndarray of shape (n_AMPs, n_bins) or None
        Mean over the noise and over spectra of the derivative of the AMP, in its unit per standard deviation of the
        bin: positive where a deeper bin raises the answer. None with random repeats.
    curvature : ndarray of shape (n_AMPs, n_bins) or None
        The same of the second derivative, per standard deviation squared: zero where the network is linear.
    share_error : ndarray of shape (n_AMPs, n_bins) or None
        Standard errors of `shares`.
    nodes : int or None
        Nodes of the quadrature; None with random repeats.
    rule : str or None
        Name of its rule.
    """

    mean: np.ndarray
    standard_error: np.ndarray
    repeat_error: np.ndarray
    n_spectra: np.ndarray
    scheme: str
    repeat: int
    seed: int
    scaled: bool = False
    abundance: object = None
    amp_names: tuple = ()
    per_spectrum: np.ndarray | None = None
    spectra: np.ndarray | None = None
    groups: np.ndarray | None = None
    quadrature_error: np.ndarray | None = None
    slope: np.ndarray | None = None
    curvature: np.ndarray | None = None
    share_error: np.ndarray | None = None
    nodes: int | None = None
    rule: str | None = None

    @property
    def rows(self):
        """What the rows are called: keys of the AMPs where known, else "AMP 0" and so on."""
        return self.amp_names or tuple(f"AMP {k}" for k in range(len(self.mean)))

    def shares(self):
        """Share of each bin in the sum of its AMP's row, with standard errors: how bins differ.

        The strength of a whole row varies from planet to planet and is common to its bins; it cancels here.

        Returns
        -------
        shares : ndarray of shape (n_AMPs, n_bins)
            Each row adds up to 1; NaN where the row is zero.
        standard_error : ndarray of shape (n_AMPs, n_bins)
            By the jackknife over spectra, each left out in turn (beyond 100, one of 100 groups of them). NaN for one
            spectrum.

        Raises
        ------
        ValueError
            If the map was saved by a version that kept no errors of shares.
        """
        if self.share_error is None:
            raise ValueError("share_error: expected a map with errors of its shares, received one saved without")
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.mean / np.nansum(self.mean, axis=1, keepdims=True), self.share_error

    def top(self, n=5):
        """Columns with the greatest sensitivity of each AMP, the greatest first.

        Parameters
        ----------
        n : int
            How many.

        Returns
        -------
        ndarray of shape (n_AMPs, n) of int
            Indices: ``wavelength[result.top(5)]`` are their wavelengths.

        Raises
        ------
        ValueError
            If there are not ``n`` columns that were tested.
        """
        tested = np.count_nonzero(np.isfinite(self.mean).any(axis=0))
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= tested:
            raise ValueError(f"n: expected a number from 1 to {tested}, received {n!r}")
        return np.argsort(np.where(np.isnan(self.mean), np.inf, -self.mean), axis=1, kind="stable")[:, :n]

    def to_frame(self, wavelength=None):
        """Table of the map: a line for each AMP and bin, a column for each number that is known.

        Parameters
        ----------
        wavelength : array of shape (n_bins,), optional
            Micron; becomes a column.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_frame needs pandas: pip install pandas") from error
        n_amps, n_columns = self.mean.shape
        table = {"amp": np.repeat(self.rows, n_columns), "bin": np.tile(np.arange(n_columns), n_amps)}
        if wavelength is not None:
            table["wavelength"] = np.tile(self._checked(wavelength), n_amps)
        arrays = {name: getattr(self, name) for name in ARRAYS[:6]}
        if self.share_error is not None:
            arrays["share"], arrays["share_error"] = self.shares()
        return pd.DataFrame(table | {name: array.ravel() for name, array in arrays.items() if array is not None})

    def plot(self, wavelength=None, bands=True):
        """Draw the share of every bin in each AMP's row, with its standard error, against wavelength.

        Parameters
        ----------
        wavelength : array of shape (n_bins,), optional
            Micron. Default: the numbers of the columns, as for ``directions``.
        bands : bool
            Shade where the AMP's molecule absorbs, if the table of bands knows it.

        Returns
        -------
        matplotlib.figure.Figure
            A panel for each AMP.
        """
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter

        n_amps, n_columns = self.mean.shape
        position = np.arange(n_columns) if wavelength is None else self._checked(wavelength)
        shares, errors = self.shares()
        n_wide = min(3, n_amps)
        n_high = -(-n_amps // n_wide)
        figure = Figure(figsize=(3.2 * n_wide, 1.9 * n_high), layout="constrained")
        axes = figure.subplots(n_high, n_wide, sharex=True, squeeze=False).ravel()
        for ax, name, share, error in zip(axes, self.rows, shares, errors):
            amp = table.amp(name)
            if bands and wavelength is not None:
                for low, high in table.BANDS.get(name, ()):
                    ax.axvspan(low, high, color="0.9", lw=0)
            error = np.where(np.isfinite(error), error, 0)
            ax.errorbar(position, 100 * share, 100 * error, fmt="o", ms=2.5, lw=0.8, color=amp.colour)
            ax.set_title(amp.label)
            ax.set_ylim(bottom=0)
            if wavelength is not None:
                ax.set_xscale("log")
                ax.set_xlim(position.min() * 0.97, position.max() * 1.03)
                for axis_formatter in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
                    axis_formatter(FuncFormatter(lambda x, _: f"{x:g}" if f"{x:.0e}"[0] in "1235" else ""))
        for ax in axes[n_amps:]:
            ax.set_axis_off()
        figure.supxlabel("Bin or direction" if wavelength is None else "Wavelength (micron)")
        figure.supylabel("Share of the AMP's sensitivity (%)")
        return figure

    def _checked(self, wavelength):
        wavelength = np.asarray(wavelength, float)
        if wavelength.shape != self.mean.shape[1:]:
            raise ValueError(f"wavelength: expected shape {self.mean.shape[1:]}, received {wavelength.shape}")
        return wavelength

    def save(self, target):
        """Write the map to an open ``h5py.Group``, or to a file of its own, which is written whole or not at all.

        Arrays become data sets, the rest attributes.

        Parameters
        ----------
        target : h5py.Group or path
        """
        import h5py

        if not isinstance(target, h5py.Group):
            target = Path(target)
            part = target.with_name(f".{target.name}.{os.getpid()}.part")
            try:
                with h5py.File(part, "w") as file:
                    self.save(file)
                os.replace(part, target)
            finally:
                part.unlink(missing_ok=True)
            return
        for name in ARRAYS:
            target.pop(name, None)
            if getattr(self, name) is not None:
                target[name] = getattr(self, name)
        target.attrs["scheme"] = self.scheme
        target.attrs["repeat"] = self.repeat
        target.attrs["n_spectra"] = self.n_spectra
        target.attrs["seed"] = str(self.seed)  # up to 128 bits
        target.attrs["scaled"] = self.scaled
        target.attrs["abundance"] = json.dumps(self.abundance)
        target.attrs["amp_names"] = json.dumps(self.amp_names)
        target.attrs["nodes"] = self.nodes or 0
        target.attrs["rule"] = self.rule or ""

    @classmethod
    def load(cls, source):
        """Read a map back from an open ``h5py.Group`` or a file written by `save`.

        Raises
        ------
        ValueError
            If there is no map in it.
        """
        import h5py

        if not isinstance(source, h5py.Group):
            with h5py.File(source, "r") as file:
                return cls.load(file)
        if "mean" not in source or "scheme" not in source.attrs:
            where = f"{source.file.filename}: {source.name}"
            raise ValueError(f"{where}: expected a map written by SensitivityMap.save, received {list(source)}")
        arrays = {name: source[name][()] for name in ARRAYS if name in source}
        abundance = json.loads(source.attrs["abundance"])
        if isinstance(abundance, dict):
            abundance = {name: tuple(cut) for name, cut in abundance.items()}
        return cls(
            **arrays,
            n_spectra=source.attrs["n_spectra"],
            scheme=source.attrs["scheme"],
            repeat=int(source.attrs["repeat"]),
            seed=int(source.attrs["seed"]),
            scaled=bool(source.attrs["scaled"]),
            abundance=tuple(abundance) if isinstance(abundance, list) else abundance,
            amp_names=tuple(json.loads(source.attrs["amp_names"])),
            nodes=int(source.attrs.get("nodes", 0)) or None,
            rule=source.attrs.get("rule") or None,
        )
