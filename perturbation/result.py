"""What a sensitivity test returns: the map with its error bars, shown, saved and read back; and the response map."""

import html
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perturbation.amps import BANDS, amp, find_amp
from perturbation.arguments import float_array, plain_abundance, positive_integer
from perturbation.quadrature import changes, moved_rows

DEVIATIONS = tuple(np.linspace(-3, 3, 13))  # standard errors
ROWS_PER_CALL = 65536  # spectra per call of the network: 27 MB of 52-bin spectra
TOP = 3  # bins of each AMP that ``print`` names
OVER_BINS = ("mean", "standard_error", "repeat_error", "quadrature_error", "slope", "curvature")
ARRAYS = (*OVER_BINS, "share_error", "per_spectrum", "spectra", "groups", "wavelength")  # data sets of a saved map
SCHEMES = {
    "halving": "published test, groups halved at random", "single": "each bin alone", "groups": "groups of bins",
    "directions": "directions",
}  # fmt: skip


@dataclass(frozen=True)
class ResponseMap:
    """Change of each AMP when one bin at a time is pushed by a few standard errors."""

    deviations: np.ndarray  # (n_deviations,) pushes, in standard errors
    change: np.ndarray  # (n_AMPs, n_bins, n_deviations) mean over spectra of f(x + push) - f(x), retrieval-space units
    spread: np.ndarray  # (n_AMPs, n_bins, n_deviations) standard deviation of it over the spectra; zero for one
    n_spectra: int

    def save(self, group):
        """Write deviations, change and spread into an open ``h5py.Group``, and how many spectra they are of."""
        for name in ("deviations", "change", "spread"):
            group[name] = getattr(self, name)
        group.attrs["n_spectra"] = self.n_spectra

    @classmethod
    def load(cls, group):
        """Read a map back from an open ``h5py.Group``."""
        arrays = (group[name][()] for name in ("deviations", "change", "spread"))
        return cls(*arrays, group.attrs.get("n_spectra"))


def response_map(predict, spectra, errors, deviations=DEVIATIONS, *, rows_per_call=ROWS_PER_CALL):
    """Push each bin by a few standard errors and record how each AMP moves, with its sign, as a `ResponseMap`.

    ``predict`` maps unscaled spectra (n, n_bins) to AMPs in retrieval space (n, n_AMPs); ``spectra`` is (N, n_bins) or
    (n_bins,), ``errors`` (n_bins,) or the shape of ``spectra``, ``deviations`` in standard errors.
    """
    spectra, deviations = np.atleast_2d(np.asarray(spectra, float)), np.asarray(deviations, float)
    errors, n_bins = np.broadcast_to(np.asarray(errors, float), spectra.shape), spectra.shape[1]
    at_once = max(1, rows_per_call // (1 + n_bins * len(deviations)))
    total = squares = 0.0
    for start in range(0, len(spectra), at_once):
        some = slice(start, start + at_once)
        # The reference goes through the same call as the pushed spectra, so a push of zero changes nothing.
        rows = moved_rows(spectra[some], errors[some], slice(n_bins), n_bins, deviations)
        predictions = np.asarray(predict(rows.reshape(-1, n_bins)), float)
        change = changes(predictions.reshape(*rows.shape[:2], -1), len(deviations))  # (n_deviations, n_bins, n, n_amps)
        total = total + change.sum(axis=2)
        squares = squares + (change**2).sum(axis=2)
    mean = total / len(spectra)
    spread = np.sqrt(np.maximum(squares / len(spectra) - mean**2, 0))
    return ResponseMap(deviations, mean.T, spread.T, len(spectra))


@dataclass(frozen=True)
class SensitivityMap:
    """A sensitivity map with its error bars. A column is a bin, or one of the user's ``directions``.

    Attributes
    ----------
    mean : ndarray of shape (n_AMPs, n_bins)
        Mean squared change of each AMP, in the AMP's retrieval-space unit squared (or scaled units squared).
        NaN for a bin that no group of the user holds.
    standard_error : ndarray of shape (n_AMPs, n_bins)
        1-sigma error of ``mean`` as an estimate of the map of *all spectra like these*: spread over spectra and
        repeats. For a single spectrum it is ``repeat_error`` or ``quadrature_error``. It is too small for few spectra:
        on the shipped data it should be 1.8 times as large with 10 spectra, 1.3 with 30 (docs/explanations.md). Planets
        share their scale, so it hides that bins differ: see `shares`.
    repeat_error : ndarray of shape (n_AMPs, n_bins)
        1-sigma Monte Carlo error of ``mean`` for *exactly these spectra*: what more repeats would reduce.
        NaN for one repeat; zero with quadrature, which draws nothing.
    n_spectra : ndarray of shape (n_AMPs,)
        Number of spectra behind each AMP.
    scheme, repeat, seed, scaled, abundance : str, int, int, bool, and None, (low, high) or dict
        What moved together ("halving", "single", "groups", "directions"), random repeats per spectrum (0 with
        quadrature), what to pass as ``rng`` to draw the same numbers again, whether the map is in the network's scaled
        units, and the cut in log10 VMR.
    amp_names : tuple of str
        Keys of the AMPs where known, else empty.
    per_spectrum, spectra : ndarray of shape (n_used, n_AMPs, n_bins), and (n_used,), or None
        Map of each spectrum, NaN where the abundance cut left it out of an AMP, and their rows of ``org_spectrum``;
        None if not kept.
    groups : ndarray of shape (n_bins,) or None
        Number of the group of each bin, -1 for none, where they were the user's own.
    quadrature_error, slope, curvature : ndarray of shape (n_AMPs, n_bins) or None
        Error of ``mean`` for *exactly these spectra* that comes from the few nodes, estimated by a lower rule on the
        same nodes; mean over noise and spectra of the first derivative of the AMP, in its unit per standard deviation
        of the bin: positive where a deeper bin raises the prediction; and of the second derivative, per standard
        deviation squared: zero where the network is linear. None with random repeats.
    share_error : ndarray of shape (n_AMPs, n_bins) or None
        Standard errors of `shares`.
    nodes, rule : int and str, or None
        Nodes of the quadrature and the name of its rule; None with random repeats.
    wavelength : ndarray of shape (n_bins,) or None
        Micron, where it was given and the columns are bins.
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
    wavelength: np.ndarray | None = None

    @property
    def rows(self):
        """Names of the rows: keys of the AMPs where known, else "AMP 0" and so on."""
        return self.amp_names or tuple(f"AMP {k}" for k in range(len(self.mean)))

    def __getitem__(self, name):
        """Row of ``mean`` of the AMP of that name, (n_bins,); a key or plot label, in any case."""
        key = find_amp(name).key
        if key not in self.rows:
            raise KeyError(f"{name}: expected one of {', '.join(self.rows)}")
        return self.mean[self.rows.index(key)]

    def __repr__(self):
        width = max(map(len, self.rows))
        lines = [f"  {name:{width}}  {total}{', '.join(parts)}" for name, total, *parts in self._largest()]
        return "\n".join([f"SensitivityMap: {self._title()}", *lines])

    def _repr_html_(self):
        lines = [
            f"<tr><th>{html.escape(name)}</th>{''.join(f'<td>{part}</td>' for part in parts if part)}</tr>"
            for name, *parts in self._largest()
        ]
        return f"<table><caption>{html.escape(self._title())}</caption>{''.join(lines)}</table>"

    def _title(self):
        """Return one line that says what was mapped and how."""
        n_amps, n_columns = self.mean.shape
        work = f"{self.nodes} nodes" if self.nodes else f"{self.repeat} repeats"
        few, many = np.min(self.n_spectra), np.max(self.n_spectra)
        spectra = f"{few} to {many} spectra" if few < many else f"{many} spectr{'um' if many == 1 else 'a'}"
        unit, columns = ", scaled units" if self.scaled else "", "directions" if self.scheme == "directions" else "bins"
        return f"{n_amps} AMPs, {n_columns} {columns}; {SCHEMES[self.scheme]}, {work}; {spectra}{unit}"

    def _largest(self):
        """Yield the name of each AMP, how far all bins together move it, and its largest columns, in words."""
        tested = np.isfinite(self.mean).any(axis=0).sum()
        what = "direction" if self.scheme == "directions" else "bin"
        shares, errors = (None, None) if self.share_error is None else self.shares()
        for row, (name, columns) in enumerate(zip(self.rows, self.top(min(TOP, tested)))):
            total = ""
            if self.scheme == "single" and not np.isnan(sum_of_bins := self.mean[row].sum()):
                total = f"noise moves it by {np.sqrt(max(sum_of_bins, 0)):.2g}; "
            parts = [total]
            for column in columns:
                size = f"{self.mean[row, column]:.3g}"
                if errors is not None and np.isfinite(shares[row, column]):
                    error = f" ± {100 * errors[row, column]:.1f}" if np.isfinite(errors[row, column]) else ""
                    size = f"{100 * shares[row, column]:.1f}{error} %"
                place = f"{what} {column}" if self.wavelength is None else f"{self.wavelength[column]:.4g} micron"
                parts.append(f"{place}: {size}")
            yield name, *parts

    def shares(self):
        """Share of each bin in the sum of its AMP's row, with standard errors: how bins differ.

        The strength of a whole row varies from planet to planet in the same way for all bins, and cancels here.

        Returns
        -------
        shares, standard_error : ndarray of shape (n_AMPs, n_bins)
            Each row of shares adds up to 1; NaN where the row is zero. The errors are by the jackknife over spectra,
            each left out in turn (beyond 100, one of 100 groups of them); NaN for one spectrum.
        """
        if self.share_error is None:
            raise ValueError("share_error: expected a map with errors of its shares, received one saved without")
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.mean / np.nansum(self.mean, axis=1, keepdims=True), self.share_error

    def top(self, n=5):
        """Return the indices (n_AMPs, n) of the columns with the greatest sensitivity of each AMP, the greatest first.

        ``wavelength[result.top(5)]`` are their wavelengths.
        """
        tested = np.count_nonzero(np.isfinite(self.mean).any(axis=0))
        n = positive_integer("n", n, f" up to {tested}", most=tested)
        return np.argsort(np.where(np.isnan(self.mean), np.inf, -self.mean), axis=1, kind="stable")[:, :n]

    def to_frame(self, wavelength=None):
        """Table of the map, a ``pandas.DataFrame``: a line for each AMP and bin, a column for each number.

        ``wavelength`` (n_bins,), micron, becomes a column. Default: that of the map, if it has one.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_frame needs pandas: pip install pandas") from error
        wavelength, (n_amps, n_columns) = self._checked(wavelength), self.mean.shape
        columns = {"amp": np.repeat(self.rows, n_columns), "bin": np.tile(np.arange(n_columns), n_amps)}
        if wavelength is not None:
            columns["wavelength"] = np.tile(wavelength, n_amps)
        return pd.DataFrame(columns | {name: array.ravel() for name, array in self._over_bins().items()})

    def to_xarray(self, wavelength=None):
        """Arrays of the map as an ``xarray.Dataset`` over AMPs and wavelengths, or bins; else as `to_frame`."""
        try:
            import xarray as xr
        except ImportError as error:
            raise ImportError("to_xarray needs xarray: pip install xarray") from error
        wavelength = self._checked(wavelength)
        column = "bin" if wavelength is None else "wavelength"
        places = np.arange(self.mean.shape[1]) if wavelength is None else wavelength
        arrays = {name: (("amp", column), array) for name, array in self._over_bins().items()}
        arrays["n_spectra"] = ("amp", self.n_spectra)
        coordinates = {"amp": list(self.rows), column: places}
        if self.per_spectrum is not None:
            arrays["per_spectrum"] = (("spectrum", "amp", column), self.per_spectrum)
            coordinates["spectrum"] = self.spectra
        about = {"scheme": self.scheme, "repeat": self.repeat, "seed": str(self.seed), "scaled": int(self.scaled)}
        found = xr.Dataset(arrays, coordinates, about)
        if wavelength is not None:
            found["wavelength"].attrs["units"] = "micron"
        return found

    def _over_bins(self):
        """Return every array of the map over AMPs and columns, by name, and the shares."""
        arrays = {name: getattr(self, name) for name in OVER_BINS if getattr(self, name) is not None}
        if self.share_error is not None:
            arrays["share"], arrays["share_error"] = self.shares()
        return arrays

    def plot(self, wavelength=None, bands=True, ax=None, best=None):
        """Draw the share of every bin in each AMP's row, with its standard error, against wavelength.

        Parameters
        ----------
        wavelength : array of shape (n_bins,), optional
            Micron. Default: that of the map, else the numbers of the columns, as for ``directions``.
        bands : bool
            Shade where the AMP's molecule absorbs, if the table of bands knows it.
        ax : matplotlib.axes.Axes or sequence of these, optional
            Where to draw: one for each AMP. Default: a new figure, a panel for each.
        best : SensitivityMap or array of shape (n_AMPs, n_bins), optional
            Another map to compare with, as that of the best possible estimator; its shares become a black line.

        Returns
        -------
        matplotlib.figure.Figure
        """
        axes = _panels(len(self.mean)) if ax is None else list(np.ravel(np.array(ax, dtype=object)))
        if len(axes) != len(self.mean):
            raise ValueError(f"ax: expected one for each of {len(self.mean)} AMPs, received {len(axes)}")
        wavelength = self._checked(wavelength)
        position = np.arange(self.mean.shape[1]) if wavelength is None else wavelength
        shares, errors = self.shares()
        if best is not None:
            best = best.mean if isinstance(best, SensitivityMap) else best
            best = float_array("best", best, f"{self.mean.shape}", finite=False)
            if best.shape != self.mean.shape:
                raise ValueError(f"best: expected shape {self.mean.shape}, received {best.shape}")
            best = best / np.nansum(best, axis=1, keepdims=True)
        for row, (panel, name) in enumerate(zip(axes, self.rows)):
            about = amp(name)
            if bands and wavelength is not None:
                for low, high in BANDS.get(name, ()):
                    panel.axvspan(low, high, color="0.9", lw=0)
            if best is not None:
                panel.plot(position, 100 * best[row], color="black", lw=1, drawstyle="steps-mid")
            error = np.where(np.isfinite(errors[row]), errors[row], 0)
            panel.errorbar(position, 100 * shares[row], 100 * error, fmt="o", ms=2.5, lw=0.8, color=about.colour)
            panel.set_title(about.label)
            panel.set_ylim(bottom=0)
            if wavelength is not None:
                _log_wavelength(panel, position)
        figure = axes[0].figure
        if ax is None:
            figure.supxlabel("Bin or direction" if wavelength is None else "Wavelength (micron)")
            figure.supylabel("Share of the AMP's sensitivity (%)" if len(axes) > 3 else "Share (%)")  # one row is low
        return figure

    def _checked(self, wavelength):
        """Return the wavelengths of the columns (n_columns,), None where they are not known."""
        wavelength = self.wavelength if wavelength is None else np.asarray(wavelength, float)
        if wavelength is not None and wavelength.shape != self.mean.shape[1:]:
            raise ValueError(f"wavelength: expected shape {self.mean.shape[1:]}, received {wavelength.shape}")
        return wavelength

    def save(self, target):
        """Write the map to an open ``h5py.Group``, or to a file of its own, which is written whole or not at all.

        Arrays become data sets, the rest attributes.
        """
        import h5py

        if not isinstance(target, h5py.Group):
            target = Path(target)
            part = target.with_name(f".{target.name}.{os.getpid()}.part")
            with h5py.File(part, "w", driver="core", backing_store=False) as file:  # in memory: on a full disk, HDF5
                self.save(file)  # would not close the file, and crash when Python ends
                file.flush()
                content = file.id.get_file_image()
            try:
                part.write_bytes(content)
                os.replace(part, target)
            finally:
                part.unlink(missing_ok=True)
            return
        for name in ARRAYS:
            target.pop(name, None)
            if getattr(self, name) is not None:
                target[name] = getattr(self, name)
        for name in ("scheme", "repeat", "n_spectra", "scaled"):
            target.attrs[name] = getattr(self, name)
        target.attrs["seed"] = str(self.seed)  # up to 128 bits
        target.attrs["abundance"] = json.dumps(self.abundance)
        target.attrs["amp_names"] = json.dumps(self.amp_names)
        target.attrs["nodes"], target.attrs["rule"] = self.nodes or 0, self.rule or ""

    @classmethod
    def load(cls, source):
        """Read a map back from an open ``h5py.Group`` or a file written by `save`."""
        import h5py

        if not isinstance(source, h5py.Group):
            with h5py.File(source, "r") as file:
                return cls.load(file)
        if "mean" not in source or "scheme" not in source.attrs:
            where = f"{source.file.filename}: {source.name}"
            raise ValueError(f"{where}: expected a map written by SensitivityMap.save, received {list(source)}")
        arrays = {name: source[name][()] for name in ARRAYS if name in source}
        about = source.attrs
        return cls(
            **arrays, n_spectra=about["n_spectra"], scheme=about["scheme"], repeat=int(about["repeat"]),
            seed=int(about["seed"]), scaled=bool(about["scaled"]), amp_names=tuple(json.loads(about["amp_names"])),
            abundance=plain_abundance(json.loads(about["abundance"])),
            nodes=int(about.get("nodes", 0)) or None, rule=about.get("rule") or None,
        )  # fmt: skip


def _panels(n):
    """Return n axes of a new figure, three in a row."""
    from matplotlib.figure import Figure

    n_wide = min(3, n)
    n_high = -(-n // n_wide)
    figure = Figure(figsize=(3.2 * n_wide, 1.9 * n_high), layout="constrained")
    axes = figure.subplots(n_high, n_wide, sharex=True, squeeze=False).ravel()
    for empty in axes[n:]:
        empty.set_axis_off()
    return list(axes[:n])


def _log_wavelength(panel, wavelength):
    """Draw wavelengths in micron on a log axis with plain numbers."""
    from matplotlib.ticker import FuncFormatter

    panel.set_xscale("log")
    panel.set_xlim(wavelength.min() * 0.97, wavelength.max() * 1.03)
    for set_formatter in (panel.xaxis.set_major_formatter, panel.xaxis.set_minor_formatter):
        set_formatter(FuncFormatter(lambda x, _: f"{x:g}" if f"{x:.0e}"[0] in "1235" else ""))
