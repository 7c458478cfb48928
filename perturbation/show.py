"""How a sensitivity map is shown: in a few lines of text or HTML, as a table, as labelled arrays, and drawn."""

import html as markup

import numpy as np

from perturbation import amps as table
from perturbation.arguments import float_array

NUMBERS = ("mean", "standard_error", "repeat_error", "quadrature_error", "slope", "curvature")  # arrays of bins
TOP = 3  # bins of each AMP that are named


def text(result):
    """Return what ``print`` shows: what was mapped, and the largest bins of each AMP with their shares."""
    names = [max(map(len, result.rows))] * len(result.rows)
    lines = [f"  {name:{width}}  {', '.join(parts)}" for (name, parts), width in zip(_largest(result), names)]
    return "\n".join([f"SensitivityMap: {_title(result)}", *lines])


def html(result):
    """Return the same as a table for a notebook."""
    lines = [
        f"<tr><th>{markup.escape(name)}</th>{''.join(f'<td>{part}</td>' for part in parts)}</tr>"
        for name, parts in _largest(result)
    ]
    return f"<table><caption>{markup.escape(_title(result))}</caption>{''.join(lines)}</table>"


def _title(result):
    """Return one line that says what was mapped and how."""
    n_amps, n_columns = result.mean.shape
    how = {
        "halving": "published test, groups halved at random", "single": "each bin alone",
        "groups": "groups of bins", "directions": "directions",
    }[result.scheme]  # fmt: skip
    work = f"{result.nodes} nodes" if result.nodes else f"{result.repeat} repeats"
    few, many = np.min(result.n_spectra), np.max(result.n_spectra)
    spectra = f"{few} to {many} spectra" if few < many else f"{many} spectr{'um' if many == 1 else 'a'}"
    unit = ", scaled units" if result.scaled else ""
    columns = "directions" if result.scheme == "directions" else "bins"
    return f"{n_amps} AMPs, {n_columns} {columns}; {how}, {work}; {spectra}{unit}"


def _largest(result):
    """Yield the name of each AMP and its largest columns in words."""
    tested = np.isfinite(result.mean).any(axis=0).sum()
    shares, errors = (result.mean, None) if result.share_error is None else result.shares()
    what = "direction" if result.scheme == "directions" else "bin"
    for name, row, columns in zip(result.rows, range(len(result.mean)), result.top(min(TOP, tested))):
        parts = []
        for column in columns:
            place = f"{what} {column}" if result.wavelength is None else f"{result.wavelength[column]:.4g} micron"
            if errors is None or not np.isfinite(shares[row, column]):
                parts.append(f"{place}: {result.mean[row, column]:.3g}")
            else:
                error = errors[row, column]
                known = f" ± {100 * error:.1f}" if np.isfinite(error) else ""
                parts.append(f"{place}: {100 * shares[row, column]:.1f}{known} %")
        yield name, parts


def frame(result, wavelength):
    """Return the table of `SensitivityMap.to_frame`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("to_frame needs pandas: pip install pandas") from error
    n_amps, n_columns = result.mean.shape
    columns = {"amp": np.repeat(result.rows, n_columns), "bin": np.tile(np.arange(n_columns), n_amps)}
    if wavelength is not None:
        columns["wavelength"] = np.tile(wavelength, n_amps)
    return pd.DataFrame(columns | {name: array.ravel() for name, array in _arrays(result).items()})


def dataset(result, wavelength):
    """Return the data set of `SensitivityMap.to_xarray`."""
    try:
        import xarray as xr
    except ImportError as error:
        raise ImportError("to_xarray needs xarray: pip install xarray") from error
    column = "bin" if wavelength is None else "wavelength"
    places = np.arange(result.mean.shape[1]) if wavelength is None else wavelength
    arrays = {name: (("amp", column), array) for name, array in _arrays(result).items()}
    arrays["n_spectra"] = ("amp", result.n_spectra)
    coordinates = {"amp": list(result.rows), column: places}
    if result.per_spectrum is not None:
        arrays["per_spectrum"] = (("spectrum", "amp", column), result.per_spectrum)
        coordinates["spectrum"] = result.spectra
    about = {"scheme": result.scheme, "repeat": result.repeat, "seed": str(result.seed), "scaled": int(result.scaled)}
    found = xr.Dataset(arrays, coordinates, about)
    if wavelength is not None:
        found["wavelength"].attrs["units"] = "micron"
    return found


def _arrays(result):
    """Return every array of the map over AMPs and columns, by name."""
    arrays = {name: getattr(result, name) for name in NUMBERS if getattr(result, name) is not None}
    if result.share_error is not None:
        arrays["share"], arrays["share_error"] = result.shares()
    return arrays


def plot(result, wavelength, bands, ax, best):
    """Return the figure of `SensitivityMap.plot`."""
    axes = _panels(len(result.mean)) if ax is None else list(np.ravel(np.array(ax, dtype=object)))
    if len(axes) != len(result.mean):
        raise ValueError(f"ax: expected one for each of {len(result.mean)} AMPs, received {len(axes)}")
    position = np.arange(result.mean.shape[1]) if wavelength is None else wavelength
    shares, errors = result.shares()
    if best is not None:
        best = best if isinstance(best, np.ndarray) else getattr(best, "mean", best)
        best = float_array("best", best, f"{result.mean.shape}", finite=False)
        if best.shape != result.mean.shape:
            raise ValueError(f"best: expected shape {result.mean.shape}, received {best.shape}")
        best = best / np.nansum(best, axis=1, keepdims=True)
    for row, (panel, name) in enumerate(zip(axes, result.rows)):
        amp = table.amp(name)
        if bands and wavelength is not None:
            for low, high in table.BANDS.get(name, ()):
                panel.axvspan(low, high, color="0.9", lw=0)
        if best is not None:
            panel.plot(position, 100 * best[row], color="black", lw=1, drawstyle="steps-mid")
        error = np.where(np.isfinite(errors[row]), errors[row], 0)
        panel.errorbar(position, 100 * shares[row], 100 * error, fmt="o", ms=2.5, lw=0.8, color=amp.colour)
        panel.set_title(amp.label)
        panel.set_ylim(bottom=0)
        if wavelength is not None:
            _log_wavelength(panel, position)
    figure = axes[0].figure
    if ax is None:
        figure.supxlabel("Bin or direction" if wavelength is None else "Wavelength (micron)")
        figure.supylabel("Share of the AMP's sensitivity (%)")
    return figure


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
