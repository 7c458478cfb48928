"""A trained network together with its scaler: from transit depths to AMPs, and to their sensitivity."""

import contextlib
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from common.files import written_whole
from models import load_model
from perturbation.arguments import float_array
from preprocessing import Scaler
from runio.folder import refuse_changed
from runio.results import ENSEMBLE, load_run, network_file
from sensitivity import sensitivity_map

ROWS_PER_CALL = 4096  # spectra per call of the network
UNITS = {  # units in which depths and errors may be given by mistake, and their factors to fractions
    "per cent": lambda values: values / 1e2,
    "parts per thousand": lambda values: values / 1e3,
    "ppm": lambda values: values / 1e6,
    "radius ratios Rp/Rs": lambda values: values**2,
}
ERROR_UNITS = {**{unit: fraction for unit, fraction in UNITS.items() if "Rp/Rs" not in unit}, "variances": np.sqrt}
MAX_REACH = 3.0  # depths may lie so many times further from the mean than the run's test spectra
UNIT_REACH = 1.6  # but only so many times, if in another unit they would be within a factor of the usual depth
UNIT_FACTOR = 4.0  # this factor
MAX_ERROR_RATIO = 20.0  # errors may be so many times larger or smaller than in training, if another unit explains it


class Known(NamedTuple):
    """What a run knows of the spectra that it trained on, to recognise another unit."""

    reach: float  # largest distance of a depth from the scaler's mean, in its standard deviations
    error: np.ndarray  # (n_bins,) median
    level: tuple[float, float]  # lowest and highest median of a spectrum's errors, in units of that

    @classmethod
    def of_run(cls, run, scaler):
        """Read it from a run; None for a run of an early version."""
        if run.reference is None:
            return None
        reach = np.abs((run.reference["spectra"] - scaler.x_mean) / scaler.x_std).max()
        levels = run.reference["error_level"]
        return cls(float(reach), run.reference["error"], (float(levels.min()), float(levels.max())))


@dataclass(frozen=True)
class TrainedNetwork:
    """A network and the scaler of its training rows.

    Attributes
    ----------
    model : keras.Model
        From scaled spectra (rows, n_bins, 1), or [that, auxiliary inputs], to scaled AMPs (rows, n_amps).
    scaler : preprocessing.Scaler
    amp_names : tuple of str
        Keys of the AMPs, in column order.
    amp_table, wavelength, bin_width, known : optional
        Of a network that was loaded from a run: units and scales (`constants.AMP`), centres and full widths of the bins
        in micron (n_bins,), and how to recognise spectra and errors in another unit, which are refused.

    Examples
    --------
    >>> network = TrainedNetwork.load("runs/mlp")  # doctest: +SKIP
    >>> network.predict(spectra), network.sensitivity(spectra, errors).mean  # doctest: +SKIP
    """

    model: object
    scaler: Scaler
    amp_names: tuple[str, ...]
    amp_table: tuple | None = None
    wavelength: np.ndarray | None = None
    bin_width: np.ndarray | None = None
    known: Known | None = None

    @classmethod
    def load(cls, run_dir, fold=None, unverified=False):
        """Load a network of a finished run.

        Parameters
        ----------
        run_dir : path-like
            Folder of the run.
        fold : int or "ensemble", optional
            One fold, or the mean of all. Default: the mean, or the only fold.
        unverified : bool
            Also take results that cannot be shown to be as the run wrote them; see `runio.results.load_run`.

        Raises
        ------
        ValueError
            If there is no such run or fold, or the network cannot be read or is that of another run.
        """
        return cls.of_run(load_run(run_dir, unverified), fold)

    @classmethod
    def of_run(cls, run, fold=None):
        """Load a network of a run that was read by `runio.results.load_run`; else as `load`."""
        if fold is None:
            fold = ENSEMBLE if run.ensemble else min(run.folds)
        if fold not in run.networks:
            raise ValueError(f"fold: expected one of {', '.join(map(str, run.networks))}, received {fold!r}")
        path, scaler = network_file(run.folder, fold), run.networks[fold].scaler
        model = load_model(path)
        _check_belongs(model, scaler, run, path)
        known = Known.of_run(run, scaler)
        return cls(model, scaler, run.amp_names, run.amp_table, run.wavelength, run.bin_width, known)

    def predict(self, spectra, auxiliary=None):
        """Predict the AMPs of each spectrum.

        Parameters
        ----------
        spectra : ndarray (N, n_bins)
            Transit depths, as fractions.
        auxiliary : ndarray (N, n_auxiliary) or (n_auxiliary,), optional
            Auxiliary inputs in their own units; one row is used for all spectra. None: their mean in training, if the
            network has any.

        Returns
        -------
        ndarray (N, n_amps)
            AMPs in retrieval space (log10 where they are learnt so).

        Raises
        ------
        ValueError
            If an input is no plain number, is far from those in training, or has another shape or unit.
        """
        n_bins = self.model.inputs[0].shape[1]
        spectra = float_array("spectra", spectra, f"(N, {n_bins})", ndim=2, finite=False)  # the scaler names bad rows
        if spectra.shape[1] != n_bins:
            raise ValueError(f"spectra: expected shape (N, {n_bins}), received {spectra.shape}")
        self._refuse_other_unit(spectra)
        second, answers = self._rows(auxiliary, len(spectra)), []
        for start in range(0, len(spectra), ROWS_PER_CALL):
            part = slice(start, start + ROWS_PER_CALL)
            inputs = self.scaler.inputs(spectra[part], None if second is None else second[part])
            answers.append(self.model.predict_on_batch(inputs))  # `predict` takes 50 ms before it begins
        return self.scaler.amps(np.concatenate(answers))

    def predict_frame(self, spectra, auxiliary=None):
        """Predict the AMPs of each spectrum, with names and in the units of the report.

        Parameters are those of `predict`. Returns a pandas.DataFrame (N, n_amps) with columns such as
        "H2O (log10 VMR)", "Mp (M_J)" and "Tp (K)".
        """
        try:
            import pandas
        except ImportError:
            raise ImportError("predict_frame: needs pandas: pip install pandas") from None
        from report.style import as_text, plotted

        if self.amp_table is None:
            raise ValueError("predict_frame: expected a network that was loaded from a run, which knows the units")
        columns = {}
        for amp, values in zip(self.amp_table, self.predict(spectra, auxiliary).T):
            values, unit, _ = plotted(amp, values)
            columns[f"{amp.key} ({as_text(unit)})" if unit else amp.key] = values
        return pandas.DataFrame(columns)

    def sensitivity(self, spectra, errors, amps=None, auxiliary=None, **options):
        """Map how much each prediction changes when bins are redrawn within their errors.

        Parameters
        ----------
        spectra, errors : ndarray (N, n_bins)
            Transit depths and their 1-sigma errors, as fractions; other ``errors`` as `sensitivity.sensitivity_map`.
        amps : ndarray (N, n_amps), optional
            True AMPs in retrieval space, for an abundance cut.
        auxiliary : ndarray, optional
            As for `predict`.
        **options
            Further arguments of `sensitivity.sensitivity_map`.

        Returns
        -------
        sensitivity.SensitivityMap
            In the AMPs' own retrieval-space units squared. Raises as `predict` does, and for errors in another unit.
        """
        self._refuse_other_unit(np.asarray(spectra, float))
        self._refuse_other_errors(np.asarray(errors, float))
        own = self.map_arguments(self._rows(auxiliary, len(spectra)))
        bins = self.wavelength if options.get("directions") is None else None
        options = {"gases": self.amp_names, "no_spectra": None, "wavelength": bins, **options}
        return sensitivity_map(y_test=amps, org_spectrum=spectra, org_error=errors, **own, **options)

    def map_arguments(self, auxiliary=None):
        """Return the arguments of `sensitivity.sensitivity_map` that are this network's own, as a dict."""
        return {
            "model": self.model,
            "x_mean": self.scaler.x_mean,
            "x_std": self.scaler.x_std,
            "y_data_mean": self.scaler.y_mean,
            "y_data_std": self.scaler.y_std,
            "auxiliary": None if auxiliary is None else self.scaler.scaled_auxiliary(auxiliary),
        }

    def _refuse_other_unit(self, spectra):
        """Refuse spectra (N, n_bins) that lie far from those of the run, and name the unit that they are likely in."""
        if self.known is None or spectra.ndim != 2 or not spectra.size:  # other checks will refuse these
            return
        reach = self.known.reach
        away = np.abs(spectra - self.scaler.x_mean).max(axis=1) / self.scaler.x_std  # (N,)
        away[~np.isfinite(away)] = 0  # rows that other checks will name
        far = away > UNIT_REACH * reach
        if not far.any():
            return
        ratios = {unit: fraction(np.median(spectra[far])) / self.scaler.x_mean for unit, fraction in UNITS.items()}
        question = _question(ratios, 1 / UNIT_FACTOR, UNIT_FACTOR)
        if question or away.max() > MAX_REACH * reach:
            raise ValueError(
                f"spectra: expected transit depths as fractions, within {reach:.3g} standard deviations of the mean in "
                f"training as in this run, received {away.max():.3g}{question}"
            )

    def _refuse_other_errors(self, errors):
        """Refuse errors (..., n_bins) that another unit would make like those of the run, or larger than the depths."""
        if self.known is None or errors.shape[-1:] != self.known.error.shape or not (errors > 0).all():
            return
        level, (low, high) = np.median(errors / self.known.error), self.known.level
        if low / MAX_ERROR_RATIO <= level <= high * MAX_ERROR_RATIO:
            return
        levels = {unit: np.median(fraction(errors) / self.known.error) for unit, fraction in ERROR_UNITS.items()}
        question = _question(levels, low / 2, 2 * high)
        if question or np.median(errors) > self.scaler.x_mean:
            raise ValueError(
                f"errors: expected 1-sigma errors of the depths as fractions, {low:.2g} to {high:.2g} times the median "
                f"of the training set as in this run, received {level:.3g} times{question}"
            )

    def _rows(self, auxiliary, n):
        """Return auxiliary inputs (n, n_auxiliary), or None for a network that has none."""
        mean = self.scaler.auxiliary_mean
        if auxiliary is None:
            return None if mean is None else np.broadcast_to(mean, (n, len(mean)))
        if mean is None:
            raise ValueError("auxiliary: expected None, as the network has no auxiliary inputs, received some")
        expected = f"({len(mean)},) or ({n}, {len(mean)})"
        rows = float_array("auxiliary", auxiliary, expected, finite=False)
        if rows.shape not in ((len(mean),), (n, len(mean))):
            raise ValueError(f"auxiliary: expected shape {expected}, received {rows.shape}")
        return np.broadcast_to(rows, (n, len(mean)))


def _question(sizes, low, high):
    """Ask whether values are in one of the units that give them a size, {unit: size}, between two limits."""
    units = [unit for unit, size in sizes.items() if low <= size <= high]
    return f"; are they {' or '.join(units)}?" if units else ""


def _check_belongs(model, scaler, run, path):
    """Refuse a network of other inputs and outputs than the run's, or a file that the run did not write."""
    n_auxiliary = 0 if scaler.auxiliary_mean is None else len(scaler.auxiliary_mean)
    n_bins, n_amps = len(run.wavelength), len(run.amp_names)
    inputs = [(n_bins, 1)] + [(n_auxiliary,)] * (n_auxiliary > 0)
    for name, shapes in {"inputs": inputs, "outputs": [(n_amps,)]}.items():
        received = [tuple(part.shape[1:]) for part in getattr(model, name, None) or []]
        if received != shapes:
            expected, given = (" and ".join(map(str, some)) or "none" for some in (shapes, received))
            raise ValueError(
                f"{path}: expected {name} of shape {expected}, as the run has {n_bins} bins, {n_auxiliary} auxiliary "
                f"inputs and {n_amps} AMPs; received {given}: is it the network of another run?"
            )
    if run.verified:
        refuse_changed(run.folder, path.name)


def save_mean(networks, folder):
    """Keep the mean of ``networks``, {fold: TrainedNetwork}, in ``folder`` as ``ensemble.keras``, once; return it."""
    path, mean = network_file(folder, ENSEMBLE), mean_network(list(networks.values()))
    if path.is_file():  # an interrupted run goes on with the file that its maps were begun with
        with contextlib.suppress(ValueError):  # damaged
            return replace(mean, model=load_model(path))
    with written_whole(path) as part:
        mean.model.save(part)
    return mean


def mean_network(networks):
    """Return one network that gives the mean prediction of several, with the scaler of the first of them."""
    import keras
    from keras.layers import Average, Rescaling

    def rescaled(values, old_mean, old_std, mean, std):  # from one scaling to another
        scale, offset = np.asarray(old_std / std), np.asarray((old_mean - mean) / std)
        return Rescaling(scale.tolist(), offset.tolist())(values)

    first, answers = networks[0].scaler, []
    inputs = [keras.Input(part.shape[1:], name=part.name) for part in networks[0].model.inputs]
    for k, network in enumerate(networks):
        own, model = network.scaler, network.model
        model.name = f"network_{k}"  # names must differ
        scaled = [rescaled(inputs[0], first.x_mean, first.x_std, own.x_mean, own.x_std)]
        if len(inputs) > 1:
            old = first.auxiliary_mean, first.auxiliary_std
            scaled.append(rescaled(inputs[1], *old, own.auxiliary_mean, own.auxiliary_std))
        answer = model(scaled if len(inputs) > 1 else scaled[0])
        answers.append(rescaled(answer, own.y_mean, own.y_std, first.y_mean, first.y_std))
    mean = Average(name="amps")(answers) if len(answers) > 1 else answers[0]
    model = keras.Model(inputs if len(inputs) > 1 else inputs[0], mean, name="mean_of_folds")
    return replace(networks[0], model=model)
