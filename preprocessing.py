"""Data sets: the one in-memory form all formats are read into, its checks, the splits and the scalers."""

from dataclasses import dataclass, field

import numpy as np

from constants import AMP


@dataclass(frozen=True)
class Dataset:
    """Spectra with their errors and the AMPs they were made from.

    Attributes
    ----------
    spectra : ndarray (N, n_bins)
        Transit depth (Rp/Rs)^2, dimensionless.
    errors : ndarray (N, n_bins)
        1-sigma error of each depth, dimensionless, positive.
    wavelength : ndarray (n_bins,)
        Bin centres, micron, ascending.
    amps : ndarray (N, n_amps)
        Targets in retrieval space (log10 or linear, see ``amp_table``).
    amp_table : tuple of AMP
        Name, unit and scale of each column of ``amps``.
    bin_width : ndarray (n_bins,) or None
        Full widths, micron.
    auxiliary : ndarray (N, n_auxiliary) or None
        Further inputs of the network, in ``auxiliary_names`` order.
    noisy : bool
        True when the spectra already hold noise, so that none may be added.
    test_rows : ndarray of int or None
        Rows that the data set itself sets aside for testing; None leaves the split to the seed.
    molecule_curves : dict of str to ndarray (n_bins,)
        Depth of a reference planet with one molecule alone, for figures; may be empty.
    name : str
        Where the data came from, for messages and reports.
    """

    spectra: np.ndarray
    errors: np.ndarray
    wavelength: np.ndarray
    amps: np.ndarray
    amp_table: tuple[AMP, ...]
    bin_width: np.ndarray | None = None
    auxiliary: np.ndarray | None = None
    auxiliary_names: tuple[str, ...] = ()
    noisy: bool = False
    test_rows: np.ndarray | None = None
    molecule_curves: dict = field(default_factory=dict)
    name: str = "data"

    def __len__(self):
        return len(self.spectra)

    @property
    def amp_names(self):
        """Keys of the AMPs, in column order."""
        return tuple(amp.key for amp in self.amp_table)


def _rows(bad, limit=5):
    """Say which rows are bad: '3 rows (0, 7, 9)'."""
    index = np.flatnonzero(bad)
    shown = ", ".join(str(i) for i in index[:limit]) + (", ..." if len(index) > limit else "")
    return f"{len(index)} row{'s' if len(index) != 1 else ''} ({shown})"


def check_dataset(data):
    """Refuse a data set that would poison a run.

    Raises
    ------
    ValueError
        With one line: what is wrong, what was expected, and how many rows are affected.
    """
    n, n_bins = data.spectra.shape
    shapes = {
        "errors": (data.errors.shape, (n, n_bins)),
        "wavelength": (data.wavelength.shape, (n_bins,)),
        "amps": (data.amps.shape, (n, len(data.amp_table))),
    }
    for what, (received, expected) in shapes.items():
        if received != expected:
            raise ValueError(f"{data.name}: {what} has shape {received}, expected {expected} to match the spectra")
    if n_bins == 0 or data.amps.shape[1] == 0:
        raise ValueError(f"{data.name}: {n_bins} bins and {data.amps.shape[1]} AMPs, expected at least one of each")
    if not np.all(np.isfinite(data.wavelength)) or np.any(data.wavelength <= 0):
        raise ValueError(f"{data.name}: wavelength must be finite and positive (micron)")
    if np.any(np.diff(data.wavelength) <= 0):
        raise ValueError(f"{data.name}: wavelength must ascend without duplicates")
    for what, values in (("spectra", data.spectra), ("errors", data.errors), ("amps", data.amps)):
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            raise ValueError(f"{data.name}: {what} hold NaN or infinite values in {_rows(bad)}")
    bad = (data.errors <= 0).any(axis=1)
    if bad.any():
        raise ValueError(f"{data.name}: errors must be positive; they are not in {_rows(bad)}")
    if data.auxiliary is not None and not np.isfinite(data.auxiliary).all():
        bad = ~np.isfinite(data.auxiliary).all(axis=1)
        raise ValueError(f"{data.name}: auxiliary inputs hold NaN or infinite values in {_rows(bad)}")


def take(data, size):
    """Return the first ``size`` spectra of a data set; -1 means all of them."""
    if size == -1:
        return data
    if not 1 <= size <= len(data):
        raise ValueError(f"size must be -1 (all) or 1 to {len(data)}, received {size}")
    return _select(data, slice(0, size))


def _select(data, rows):
    from dataclasses import replace

    test_rows = data.test_rows
    if test_rows is not None:
        test_rows = test_rows[test_rows < rows.stop]
    return replace(
        data,
        spectra=data.spectra[rows],
        errors=data.errors[rows],
        amps=data.amps[rows],
        auxiliary=None if data.auxiliary is None else data.auxiliary[rows],
        test_rows=test_rows,
    )
