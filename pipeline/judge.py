"""Judge a trained network on the noisy test spectra, and map what its answers rest on."""

import logging

import numpy as np

from constants import Stream, stream
from models import load_model
from perturbation.mapstore import MapStore, digest
from perturbation.response import response_map
from preprocessing import noisy_test_spectra
from runio import console
from sensitivity import ModelLoader, SensitivityMap

logger = logging.getLogger(__name__)

RESPONSE_SPECTRA = 100  # test spectra that the signed response map is averaged over


def map_sensitivity(config, split, network, folder, k, quiet, executor=None):
    """Run the sensitivity test on the test spectra; return it and the response map, both None if not wanted.

    Parameters
    ----------
    config : runio.config.Config
    split : pipeline.folds.Split
    network : pipeline.network.TrainedNetwork
    folder : Path
        Where ``model_<k>.keras`` is, and where the maps are kept: that of every spectrum until all are there, so that
        an interrupted test goes on where it stopped, and then ``sensitivity_<k>.h5``.
    k : int
        The fold.
    quiet : bool
        No progress bar.
    executor : concurrent.futures.Executor, optional
        Where chunks of spectra are run.

    Returns
    -------
    dict
        ``sensitivity`` (a `sensitivity.SensitivityMap`), ``response`` (a `perturbation.response.ResponseMap`) and
        ``noisy``: whether both were made around spectra with noise.
    """
    chosen, data, test = config.sensitivity, split.data, split.test
    if not chosen.enabled:
        return {"sensitivity": None, "response": None}
    spectra = noisy_test_spectra(data, test, config.seed) if chosen.noisy else data.spectra[test]
    errors = data.errors[test]
    kept = folder / f"sensitivity_{k}.h5"
    sensitivity = _kept_map(kept, k)
    if sensitivity is None:
        path = folder / f"model_{k}.keras"
        with MapStore(folder / f"maps_{k}.bin", len(data.amp_names), spectra.shape[1], digest(path)) as store:
            sensitivity = network.sensitivity(
                spectra,
                errors,
                data.amps[test],
                None if data.auxiliary is None else data.auxiliary[test],
                model=ModelLoader(load_model, str(path.resolve())) if executor else None,
                no_spectra=chosen.no_spectra,
                repeat=chosen.repeat,
                abundance=chosen.abundance,
                rng=stream(config.seed, Stream.SENSITIVITY, k),
                scheme=chosen.scheme,
                batch_size=chosen.batch_size,
                chunk_size=chosen.chunk_size,
                tolerance=chosen.tolerance,
                keep_spectra=False,
                progress=console.shows_progress(quiet),
                executor=executor,
                store=store,
            )
        sensitivity.save(kept)
        store.delete()
    some = slice(RESPONSE_SPECTRA)
    response = response_map(network.predict, spectra[some], errors[some])  # auxiliary inputs stay at their mean
    return {"sensitivity": sensitivity, "response": response, "noisy": chosen.noisy or data.noisy}


def _kept_map(path, k):
    """Return the map that an interrupted run had finished; None where there is none that can be read."""
    if not path.is_file():
        return None
    try:
        return SensitivityMap.load(path)
    except (OSError, KeyError, ValueError) as error:  # damaged on the disk
        logger.warning("fold %d: its sensitivity map cannot be read (%s); making it again", k, error)
        return None


def predict_noisy(network, data, test, seed):
    """Answer for the noisy test spectra: AMPs (n_test, n_amps) in retrieval space.

    Raises
    ------
    RuntimeError
        If the network returns NaN or infinity.
    """
    spectra = noisy_test_spectra(data, test, seed)
    y_pred = network.predict(spectra, None if data.auxiliary is None else data.auxiliary[test])
    bad = ~np.isfinite(y_pred).all(axis=1)
    if bad.any():
        raise RuntimeError(
            f"the network returns NaN or infinity for {bad.sum()} test spectra, the first is row {test[bad][0]}"
        )
    return y_pred
