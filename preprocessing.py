"""Data sets: the one in-memory form all formats are read into, the splits and the scalers."""

import hashlib
import logging
from dataclasses import dataclass, field, replace

import numpy as np

from constants import AMP, Stream, stream

logger = logging.getLogger(__name__)

SAME_AMPS = 1e-9  # of the largest value of a column: AMPs that are this close are of one planet
MAX_CHI2 = 4.0  # per bin, of two spectra of one planet; two draws of noise give 2
MAX_NEAR = 100  # training spectra of the same AMPs that a test spectrum is compared with
CLEAR, FAINT = 0.1, 1e-3  # share of noise in a direction; its variance, relative to the strongest direction
MAX_INPUT = 1e9  # inputs beyond this many training standard deviations are rejected


@dataclass(frozen=True)
class Dataset:
    """Spectra with their errors and the AMPs they were made from."""

    spectra: np.ndarray  # (N, n_bins) transit depth (Rp/Rs)^2, dimensionless
    errors: np.ndarray  # (N, n_bins) 1-sigma error of each depth, dimensionless, positive
    wavelength: np.ndarray  # (n_bins,) bin centres, micron, ascending
    amps: np.ndarray  # (N, n_amps) targets in retrieval space (log10 or linear, see ``amp_table``)
    amp_table: tuple[AMP, ...]  # name, unit and scale of each column of ``amps``
    bin_width: np.ndarray | None = None  # (n_bins,) full widths, micron
    auxiliary: np.ndarray | None = None  # (N, n_auxiliary) further inputs of the network
    auxiliary_names: tuple[str, ...] = ()
    noisy: bool = False  # the spectra hold noise already: networks are validated and evaluated on them as they are
    test_rows: np.ndarray | None = None  # rows that the data set itself sets aside; None leaves the split to the seed
    molecule_curves: dict = field(default_factory=dict)  # depth (n_bins,) of a planet with one molecule alone, by name
    name: str = "data"  # where the data came from, for messages and reports

    def __len__(self):
        return len(self.spectra)

    @property
    def amp_names(self):
        """Keys of the AMPs, in column order."""
        return tuple(amp.key for amp in self.amp_table)

    def sha256(self):
        """Return a digest of all that changes a number or a label, by which a resumed run recognises its data set."""
        digest = hashlib.sha256()
        arrays = (self.wavelength, self.bin_width, self.spectra, self.errors, self.amps, self.auxiliary, self.test_rows)
        for values in (*arrays, *self.molecule_curves.values()):
            digest.update(b"none" if values is None else f"{np.shape(values)}{np.asarray(values).dtype}".encode())
            digest.update(b"" if values is None else np.ascontiguousarray(values).tobytes())
        labels = [(amp.key, amp.unit, amp.scale) for amp in self.amp_table]
        words = (labels, tuple(self.auxiliary_names), bool(self.noisy), tuple(self.molecule_curves))
        digest.update(repr(words).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]


def rows_text(bad, labels=None):
    """Say which rows are bad: '3 rows (0, 7, 9)', by label where there are labels."""
    index = np.flatnonzero(bad)
    shown = ", ".join(str(i if labels is None else labels[i]) for i in index[:5])
    return f"{len(index)} row{'s' if len(index) != 1 else ''} ({shown}{', ...' if len(index) > 5 else ''})"


def take(data, size):
    """Return the first ``size`` spectra of a data set; -1 means all of them."""
    if size == -1:
        return data
    if not 1 <= size <= len(data):
        raise ValueError(f"size: expected -1 (all) or 1 to {len(data)}, received {size}")
    test_rows = None if data.test_rows is None else data.test_rows[data.test_rows < size]
    if test_rows is not None and len(test_rows) == 0:
        logger.warning(
            "%s: none of its %d test rows is among the first %d spectra; a random split is taken",
            data.name, len(data.test_rows), size,
        )  # fmt: skip
        test_rows = None
    columns = {"spectra": data.spectra, "errors": data.errors, "amps": data.amps, "auxiliary": data.auxiliary}
    columns = {name: None if values is None else values[:size] for name, values in columns.items()}
    return replace(data, **columns, test_rows=test_rows)


def split_test(data, fraction, seed):
    """Return the rows for training and validation, and the rows to test on (paper: 20 %), both ascending.

    A data set that brings its own test rows keeps them. Too few spectra, or a planet that is in both parts, raise a
    ValueError.
    """
    if data.test_rows is not None:
        test = np.sort(data.test_rows)
    else:
        order = np.random.default_rng(stream(seed, Stream.TEST_SPLIT)).permutation(len(data))
        test = np.sort(order[: round(fraction * len(data))])
    rest = np.setdiff1d(np.arange(len(data)), test)
    if len(test) < 2 or len(rest) < 4:
        raise ValueError(
            f"{data.name}: too few spectra to split, {len(data)} give {len(test)} to test on (expected at least 2) "
            f"and {len(rest)} to train on (expected at least 4)"
        )
    _refuse_leak(data, rest, test)
    return rest, test


def _refuse_leak(data, rest, test):
    """Refuse a split that tests a planet it also trains on: the same spectrum, or the same AMPs with other noise."""
    scale = np.abs(data.amps).max(axis=0)
    keys = np.round(data.amps / (SAME_AMPS * np.where(scale > 0, scale, 1))) + 0.0  # (N, n_amps), no negative zero
    seen, same_amps = {}, {}
    for row in rest:
        seen[keys[row].tobytes() + data.spectra[row].tobytes()] = row
        same_amps.setdefault(keys[row].tobytes(), []).append(row)
    twins = {}
    for row in test:
        near = np.array(same_amps.get(keys[row].tobytes(), [])[:MAX_NEAR], dtype=int)  # few, unless AMPs lie on a grid
        residual = (data.spectra[near] - data.spectra[row]) / data.errors[row]
        near = near[np.mean(residual**2, axis=1) < MAX_CHI2]
        twin = seen.get(keys[row].tobytes() + data.spectra[row].tobytes(), near[0] if len(near) else None)
        if twin is not None:
            twins[row] = twin
    if twins:
        first = next(iter(twins))
        raise ValueError(
            f"{data.name}: {len(twins)} of {len(test)} test spectra are also training spectra (row {first} is the "
            f"planet of row {twins[first]}); expected none, or training sees what is tested: keep each planet once"
        )


def split_folds(rest, number, kind, valid_fraction, seed):
    """Cut the rows ``rest`` that are not tested into a list of (training rows, validation rows), one for each fold.

    "kfold": each row is validated in exactly one fold. "random": every fold draws its own ``valid_fraction`` (the
    paper's five random re-splits). A single fold is always drawn at random.
    """
    folds = []
    order = np.random.default_rng(stream(seed, Stream.FOLD_ORDER)).permutation(rest)
    for k in range(number):
        if kind == "kfold" and number > 1:
            valid = order[k::number]
        else:
            rng = np.random.default_rng(stream(seed, Stream.FOLD_SPLIT, k))
            valid = rng.permutation(rest)[: round(valid_fraction * len(rest))]
        train = np.setdiff1d(rest, valid)
        if len(valid) < 1 or len(train) < 2:
            raise ValueError(
                f"too few spectra for {number} folds: fold {k} has {len(train)} to train on (expected at least 2), "
                f"{len(valid)} to validate (expected at least 1)"
            )
        folds.append((train, np.sort(valid)))
    return folds


@dataclass(frozen=True)
class Scaler:
    """Shift and scale of the networks' inputs and targets, from training rows alone."""

    x_mean: float  # one mean and one standard deviation for all bins (paper, Section 3)
    x_std: float
    y_mean: np.ndarray  # (n_amps,) of each AMP, in retrieval space
    y_std: np.ndarray
    auxiliary_mean: np.ndarray | None = None  # (n_auxiliary,)
    auxiliary_std: np.ndarray | None = None

    @classmethod
    def fit(cls, data, rows):
        """Measure the scaler on the given rows of a data set; a ValueError names what is constant over them."""
        x, y, extra = data.spectra[rows], data.amps[rows], () if data.auxiliary is None else data.auxiliary[rows]
        columns = {f"AMP {name}": column for name, column in zip(data.amp_names, y.T)} | {"depth of all bins": x}
        columns |= {
            f"auxiliary input {name}": column for name, column in zip(data.auxiliary_names, np.transpose(extra))
        }
        constant = [name for name, column in columns.items() if np.ptp(column) == 0]
        if constant:
            raise ValueError(f"{data.name}: {', '.join(constant)} is constant over {len(rows)} training spectra")
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
            extra = () if data.auxiliary is None else (extra.mean(axis=0), extra.std(axis=0))
            scaler = cls(float(x.mean()), float(x.std()), y.mean(axis=0), y.std(axis=0), *extra)
        for name, value in scaler.to_dict().items():
            if not np.isfinite(value).all() or (name.endswith("_std") and not np.min(value) > 0):
                raise ValueError(
                    f"{data.name}: {name} of {len(rows)} training spectra is {value}: expected finite, not zero"
                )
        return scaler

    def inputs(self, spectra, auxiliary=None):
        """Scale spectra (N, n_bins) to network input (N, n_bins, 1), or [that, auxiliary (N, n_auxiliary)].

        A ValueError names inputs that are NaN, infinite or absurdly far from the training spectra. They have to be
        found here: a ReLU of TensorFlow returns 0 for NaN, so that the prediction would look valid.
        """
        x = _network_input("spectra", spectra, self.x_mean, self.x_std)[..., None]
        return x if auxiliary is None else [x, self.scaled_auxiliary(auxiliary)]

    def scaled_auxiliary(self, auxiliary):
        """Scale auxiliary inputs (N, n_auxiliary); raises a ValueError as ``inputs`` does."""
        return _network_input("auxiliary inputs", auxiliary, self.auxiliary_mean, self.auxiliary_std)

    def targets(self, amps):
        """Scale AMPs (N, n_amps) for training; raises a ValueError as ``inputs`` does."""
        return _network_input("AMPs", amps, self.y_mean, self.y_std)

    def amps(self, scaled):
        """Undo ``targets``: network output (N, n_amps) to retrieval space."""
        return np.asarray(scaled, dtype=np.float64) * self.y_std + self.y_mean

    def to_dict(self):
        """Return what results.h5 keeps: name to array, without the parts that are not used."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Fold:
    """Rows to train on, rows to validate on, and the scaler of the training rows."""

    train: np.ndarray
    valid: np.ndarray
    scaler: Scaler

    @classmethod
    def of(cls, data, train, valid):
        """Return the fold of a data set with these rows; its scaler is measured on the training rows alone."""
        return cls(train, valid, Scaler.fit(data, train))


def _network_input(what, values, mean, std):
    """Scale rows of numbers to float32; refuse, by row, those that are not finite or far too large for a network."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (values - mean) / std
        good = np.abs(scaled) <= MAX_INPUT  # False for NaN
    if not good.all():
        bad = ~good.all(axis=1)
        raise ValueError(
            f"{what}: expected finite numbers within {MAX_INPUT:g} standard deviations of those in training; "
            f"received others in {rows_text(bad)}"
        )
    return scaled.astype(np.float32)


def first_layer(data, fold, whiten):
    """Return kernel (n_bins, n_bins) and bias (n_bins,) of a network's fixed first layer, or None for no such layer.

    ``x @ kernel + bias`` decorrelates the noisy, scaled training spectra x: its variance is 1 in each direction. It is
    ZCA whitening: of all such maps it changes the spectra least, so that output b still belongs to bin b. It makes all
    directions equally strong: those in which planets differ little, and those of noise. Noise that is drawn anew in
    every epoch cannot be memorised. If the spectra hold noise already, "auto" whitens them only where a clear direction
    is faint (`CLEAR`, `FAINT`); see `studies.noisy_data`.
    """
    if not whiten:
        return None
    rows, scaler = fold.train, fold.scaler
    x = (data.spectra[rows] - scaler.x_mean) / scaler.x_std
    noise = np.mean((data.errors[rows] / scaler.x_std) ** 2, axis=0)
    covariance = np.atleast_2d(np.cov(x.T, ddof=0))
    if not data.noisy:
        covariance = covariance + np.diag(noise)
    variance, direction = np.linalg.eigh(covariance)
    clear = noise @ direction**2 < CLEAR * variance
    if whiten == "auto" and data.noisy and variance[clear].min(initial=np.inf) >= FAINT * variance.max():
        return None
    variance = np.maximum(variance, 1e-12 * variance.max())  # fewer noisy spectra than bins: some directions are empty
    kernel = (direction / np.sqrt(variance)) @ direction.T
    return kernel, -x.mean(axis=0) @ kernel


def add_noise(spectra, errors, rng):
    """Return the spectra with Gaussian noise drawn from their own errors (paper, Section 3); shapes (N, n_bins)."""
    return spectra + errors * rng.standard_normal(spectra.shape)


def noisy_test_spectra(data, test, seed):
    """Return the test spectra (n_test, n_bins) with the noise on which a run with this seed evaluates its networks.

    Those of a noisy data set are returned as they are.
    """
    if data.noisy:
        return data.spectra[test]
    return add_noise(data.spectra[test], data.errors[test], np.random.default_rng(stream(seed, Stream.TEST_NOISE)))


def epoch_chunks(data, fold, copies, noise, seed, epoch, chunk_rows, noise_size=1.0):
    """Yield one epoch of training data, (inputs, targets) in chunks: each spectrum ``copies`` times, shuffled, noisy.

    Inputs (chunk_rows, n_bins, 1), or a tuple of these and auxiliary inputs (chunk_rows, n_auxiliary), and targets
    (chunk_rows, n_amps) are float32. ``noise``: "fresh" draws new noise for every copy in every epoch; "fixed" gives
    each copy the same noise in all epochs (the paper's augmentation); "none" adds none. ``noise_size`` is its standard
    deviation in units of the errors, ``seed`` is that of the run and the number of the fold. Order and noise follow
    from ``seed`` and ``epoch`` alone, so that an interrupted training continues with the same data.
    """
    rows, scaler, (seed, number) = fold.train, fold.scaler, seed
    rng = np.random.default_rng(stream(seed, Stream.TRAINING, number, epoch))
    order = rng.permutation(len(rows) * copies)
    for start in range(0, len(order), chunk_rows):
        part = order[start : start + chunk_rows]
        picked = rows[part % len(rows)]
        spectra = data.spectra[picked]
        if noise == "fresh":
            spectra = add_noise(spectra, noise_size * data.errors[picked], rng)
        elif noise == "fixed":
            copies_rng = (np.random.default_rng(stream(seed, Stream.FIXED_NOISE, number, int(i))) for i in part)
            draws = np.array([rng.standard_normal(spectra.shape[1]) for rng in copies_rng])
            spectra = spectra + noise_size * data.errors[picked] * draws
        auxiliary = None if data.auxiliary is None else data.auxiliary[picked]
        inputs = scaler.inputs(spectra, auxiliary)
        yield (tuple(inputs) if isinstance(inputs, list) else inputs), scaler.targets(data.amps[picked])
