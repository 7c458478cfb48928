"""A trained network together with its scaler: from transit depths to AMPs, and to what the answers rest on."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models import load_model
from perturbation.arguments import float_array
from pipeline.training import save_whole
from preprocessing import Scaler
from runio.folder import refuse_changed
from runio.results import ENSEMBLE, load_run
from sensitivity import sensitivity_map

ROWS_PER_CALL = 4096  # spectra per call of the network


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

    Examples
    --------
    >>> network = TrainedNetwork.load("runs/mlp")  # doctest: +SKIP
    >>> network.predict(spectra), network.sensitivity(spectra, errors).mean  # doctest: +SKIP
    """

    model: object
    scaler: Scaler
    amp_names: tuple[str, ...]

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
            If there is no finished run in ``run_dir``, it has no such fold, or the network cannot be read or is that
            of another run.
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
        return cls(model, scaler, run.amp_names)

    def predict(self, spectra, auxiliary=None):
        """Answer for each spectrum.

        Parameters
        ----------
        spectra : ndarray (N, n_bins)
            Transit depths.
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
            If spectra or auxiliary inputs are not plain numbers, have another shape, or are not like those in training.
        """
        n_bins = self.model.inputs[0].shape[1]
        spectra = float_array("spectra", spectra, f"(N, {n_bins})", ndim=2, finite=False)  # the scaler names bad rows
        if spectra.shape[1] != n_bins:
            raise ValueError(f"spectra: expected shape (N, {n_bins}), received {spectra.shape}")
        second, answers = self._rows(auxiliary, len(spectra)), []
        for start in range(0, len(spectra), ROWS_PER_CALL):
            part = slice(start, start + ROWS_PER_CALL)
            inputs = self.scaler.inputs(spectra[part], None if second is None else second[part])
            answers.append(self.model.predict_on_batch(inputs))  # `predict` takes 50 ms before it begins
        return self.scaler.amps(np.concatenate(answers))

    def sensitivity(self, spectra, errors, amps=None, auxiliary=None, model=None, **options):
        """Map how far each answer moves when bins are redrawn within their errors.

        Parameters
        ----------
        spectra, errors : ndarray (N, n_bins)
            Transit depths and their 1-sigma errors; ``errors`` as `sensitivity.sensitivity_map` takes them.
        amps : ndarray (N, n_amps), optional
            True AMPs in retrieval space, for an abundance cut.
        auxiliary : ndarray, optional
            As for `predict`.
        model : object, optional
            Stands for the network where that cannot travel: a `sensitivity.ModelLoader` for an executor's processes.
        **options
            Further arguments of `sensitivity.sensitivity_map`.

        Returns
        -------
        sensitivity.SensitivityMap
            In the AMPs' own retrieval-space units squared.
        """
        rows = self._rows(auxiliary, len(spectra))
        return sensitivity_map(
            self.model if model is None else model,
            amps,
            spectra,
            errors,
            self.scaler.y_mean,
            self.scaler.y_std,
            x_mean=self.scaler.x_mean,
            x_std=self.scaler.x_std,
            auxiliary=None if rows is None else self.scaler.scaled_auxiliary(rows),
            **{"gases": self.amp_names, "no_spectra": None, **options},
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


def _check_belongs(model, scaler, run, path):
    """Refuse a network of other inputs and outputs than the run's, or a file that the run did not write."""
    n_auxiliary = 0 if scaler.auxiliary_mean is None else len(scaler.auxiliary_mean)
    inputs = [(len(run.wavelength), 1)] + [(n_auxiliary,)] * (n_auxiliary > 0)
    expected = {"inputs": inputs, "outputs": [(len(run.amp_names),)]}
    for name, shapes in expected.items():
        received = [tuple(part.shape[1:]) for part in getattr(model, name, None) or []]
        if received != shapes:
            raise ValueError(
                f"{path}: expected {name} of shape {_listed(shapes)}, as the run has {len(run.wavelength)} bins, "
                f"{n_auxiliary} auxiliary inputs and {len(run.amp_names)} AMPs; received {_listed(received)}: "
                "is it the network of another run?"
            )
    if run.verified:
        refuse_changed(run.folder, path.name)


def _listed(shapes):
    return " and ".join(map(str, shapes)) or "none"


def network_file(folder, fold):
    """Path of the network of a fold, or of the mean of all ("ensemble"), in the folder of a run."""
    return Path(folder) / (f"{ENSEMBLE}.keras" if fold == ENSEMBLE else f"model_{fold}.keras")


def save_mean(networks, folder):
    """Keep the mean of the networks of all folds in ``folder`` as ``ensemble.keras``, once; return it.

    Parameters
    ----------
    networks : dict of int to TrainedNetwork
    folder : path-like
    """
    path, mean = network_file(folder, ENSEMBLE), mean_network(list(networks.values()))
    if path.is_file():  # an interrupted run goes on with the file that its maps were begun with
        with contextlib.suppress(ValueError):  # damaged
            return TrainedNetwork(load_model(path), mean.scaler, mean.amp_names)
    save_whole(mean.model, path)
    return mean


def mean_network(networks):
    """One network that gives the mean answer of several, in retrieval space.

    Parameters
    ----------
    networks : sequence of TrainedNetwork
        On the same bins, AMPs and auxiliary inputs.

    Returns
    -------
    TrainedNetwork
        With the scaler of the first; what the others were scaled by is inside the Keras model.
    """
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
    return TrainedNetwork(model, first, networks[0].amp_names)
