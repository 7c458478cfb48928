"""Evaluate a trained network on the noisy test spectra, and map which wavelengths its predictions are sensitive to."""

import logging

import numpy as np

from common.files import digest
from constants import Stream, stream
from models import load_model
from perturbation.mapstore import MapStore
from perturbation.result import response_map
from pipeline.network import network_file
from preprocessing import noisy_test_spectra
from runio.results import ENSEMBLE, NetworkResult
from sensitivity import ModelLoader, SensitivityMap, compute_sensitivty_org

logger = logging.getLogger(__name__)

RESPONSE_SPECTRA = 100  # test spectra that the signed response map is averaged over


def evaluate(config, split, network, folder, k, executor=None):
    """Predict the noisy test spectra with one network, score its predictions, and make its maps.

    ``k`` is the number of the fold, or "ensemble" for the mean of the folds; ``folder`` holds the network and receives
    finished parts of the maps, from which an interrupted run goes on. Returns a `NetworkResult`; the response is mapped
    for the mean of the folds, or the only fold.
    """
    data, test = split.data, split.test
    y_pred = predict_noisy(network, data, test, config.seed)
    wanted = [name for name in MAPS if getattr(config, name).enabled]
    maps = {name: map_sensitivity(name, config, split, network, folder, k, executor) for name in wanted}
    noisy = {name: getattr(config, name).noisy or data.noisy for name in wanted}
    if maps and (k == ENSEMBLE or len(split.folds) == 1):
        some, noisy["response"] = test[:RESPONSE_SPECTRA], data.noisy
        maps["response"] = response_map(network.predict, data.spectra[some], data.errors[some])  # mean auxiliary inputs
    return NetworkResult(y_pred, network.scaler, noisy=noisy, **maps)


def predict_noisy(network, data, test, seed):
    """Predict the AMPs (n_test, n_amps) of the noisy test spectra, in retrieval space.

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


def published_map(config, split, network, model, spectra, **resumable):
    """Return the published test's map around ``spectra`` (n_test, n_bins); ``model`` may load the network elsewhere."""
    chosen, data, test, scaler = config.sensitivity, split.data, split.test, network.scaler
    return compute_sensitivty_org(
        model,
        data.amps[test],
        spectra,
        data.errors[test],
        scaler.y_mean,
        scaler.y_std,
        data.amp_names,
        chosen.no_spectra,
        chosen.repeat,
        scaler.x_mean,
        scaler.x_std,
        chosen.abundance,
        auxiliary=None if data.auxiliary is None else scaler.scaled_auxiliary(data.auxiliary[test]),
        scheme=chosen.scheme,
        nodes=None,  # random draws, as published
        batch_size=chosen.batch_size,
        chunk_size=chosen.chunk_size,
        tolerance=chosen.tolerance,
        details=True,
        **resumable,
    )


def single_bin_map(config, split, network, model, spectra, **resumable):
    """Return the exact map of single bins around ``spectra`` (n_test, n_bins); else as `published_map`."""
    chosen, data, test = config.sensitivity_single, split.data, split.test
    return network.sensitivity(
        spectra,
        data.errors[test],
        auxiliary=None if data.auxiliary is None else data.auxiliary[test],
        model=model,
        scheme="single",
        nodes=chosen.nodes,
        no_spectra=-1 if chosen.no_spectra >= len(test) else chosen.no_spectra,
        keep_spectra=False,
        **resumable,
    )


MAPS = {"sensitivity": published_map, "sensitivity_single": single_bin_map}  # by section of config.yaml


def map_sensitivity(name, config, split, network, folder, k, executor=None):
    """Return one of `MAPS` around the test spectra, as a `SensitivityMap`."""
    chosen, data, test = getattr(config, name), split.data, split.test
    path, kept = network_file(folder, k), folder / f"{name}_{k}.h5"
    found = _kept_map(kept, k)
    if found is None:
        is_noisy = chosen.noisy and not data.noisy
        spectra = noisy_test_spectra(data, test, config.seed) if is_noisy else data.spectra[test]
        model = ModelLoader(load_model, str(path.resolve())) if executor else network.model
        shape = len(data.amp_names), data.spectra.shape[1]
        with MapStore(folder / f"maps_{name}_{k}.bin", *shape, digest(path)) as store:
            rng = stream(config.seed, Stream.SENSITIVITY, len(split.folds) if k == ENSEMBLE else k)
            found = MAPS[name](config, split, network, model, spectra, rng=rng, executor=executor, store=store)
        found.save(kept)
        store.delete()
    return found


def _kept_map(path, k):
    """Return the map that an interrupted run had finished; None where there is none that can be read."""
    if not path.is_file():
        return None
    try:
        return SensitivityMap.load(path)
    except (OSError, KeyError, ValueError) as error:  # damaged on the disk
        logger.warning("fold %s: its sensitivity map cannot be read (%s); making it again", k, error)
        return None
