"""Judge a trained network on the noisy test spectra, and map what its answers rest on."""

import logging

import numpy as np

from common.files import digest
from common.metrics import scores
from constants import Stream, stream
from models import load_model
from perturbation.mapstore import MapStore
from perturbation.result import response_map
from pipeline.network import network_file
from preprocessing import noisy_test_spectra
from runio.results import ENSEMBLE
from sensitivity import ModelLoader, SensitivityMap

logger = logging.getLogger(__name__)

RESPONSE_SPECTRA = 100  # test spectra that the signed response map is averaged over


def judge(config, split, network, folder, fold, executor=None):
    """Let a network answer for the noisy test spectra, score the answers, and map what they rest on.

    Parameters
    ----------
    config : runio.config.Config
    split : pipeline.folds.Split
    network : pipeline.network.TrainedNetwork
    folder : Path
        Where the network is, and where its maps are kept, so that an interrupted run goes on where it stopped.
    fold : int or "ensemble"
    executor : concurrent.futures.Executor, optional
        Where chunks of spectra are perturbed.

    Returns
    -------
    dict
        ``y_pred`` (n_test, n_amps), ``scaler``, ``MSE`` (scaled units) and ``R2`` (n_amps,), and the maps
        ``sensitivity``, ``sensitivity_single`` and ``response``: each None or (map, whether around noisy spectra).
        ``response`` is made for the mean of the folds, or the only fold.
    """
    data, test, scaler = split.data, split.test, network.scaler
    is_answer = fold == ENSEMBLE or len(split.folds) == 1  # what the run has to say: of this one the signs, too
    y_pred = predict_noisy(network, data, test, config.seed)
    maps = {
        name: map_sensitivity(name, config, split, network, folder, fold, executor)
        for name in ("sensitivity", "sensitivity_single")
    }
    return {
        "y_pred": y_pred,
        "scaler": scaler.to_dict(),
        **scores(data.amps[test], y_pred, scaler.y_std),
        **maps,
        "response": map_response(config, split, network) if any(maps.values()) and is_answer else None,
    }


def map_sensitivity(name, config, split, network, folder, fold, executor=None):
    """Run one of the two sensitivity tests on the test spectra; else as `judge`.

    Parameters
    ----------
    name : {"sensitivity", "sensitivity_single"}
        The published test, or the exact map of single bins; each has a section of this name in config.yaml.

    Returns
    -------
    (sensitivity.SensitivityMap, bool) or None
        The map, and whether it was made around noisy spectra; None if it is not wanted.
    """
    chosen, data, test = getattr(config, name), split.data, split.test
    if not chosen.enabled:
        return None
    noisy = chosen.noisy or data.noisy
    kept = folder / f"{name}_{fold}.h5"
    sensitivity = _kept_map(kept, fold)
    if sensitivity is None:
        path = network_file(folder, fold)
        with MapStore(
            folder / f"maps_{name}_{fold}.bin", len(data.amp_names), data.spectra.shape[1], digest(path)
        ) as store:
            sensitivity = network.sensitivity(
                noisy_test_spectra(data, test, config.seed) if noisy else data.spectra[test],
                data.errors[test],
                data.amps[test],
                None if data.auxiliary is None else data.auxiliary[test],
                model=ModelLoader(load_model, str(path.resolve())) if executor else None,
                **_options(name, chosen, len(test)),
                rng=stream(config.seed, Stream.SENSITIVITY, len(split.folds) if fold == ENSEMBLE else fold),
                keep_spectra=False,
                executor=executor,
                store=store,
            )
        sensitivity.save(kept)
        store.delete()
    return sensitivity, noisy


def _options(name, chosen, n_test):
    """Return the settings of a test as arguments of ``sensitivity_map``."""
    if name == "sensitivity_single":
        no_spectra = -1 if chosen.no_spectra >= n_test else chosen.no_spectra
        return {"scheme": "single", "nodes": chosen.nodes, "no_spectra": no_spectra}
    return {
        "scheme": chosen.scheme,
        "nodes": None,  # random draws, as published
        "no_spectra": chosen.no_spectra,
        "repeat": chosen.repeat,
        "abundance": chosen.abundance,
        "batch_size": chosen.batch_size,
        "chunk_size": chosen.chunk_size,
        "tolerance": chosen.tolerance,
    }


def _kept_map(path, fold):
    """Return the map that an interrupted run had finished; None where there is none that can be read."""
    if not path.is_file():
        return None
    try:
        return SensitivityMap.load(path)
    except (OSError, KeyError, ValueError) as error:  # damaged on the disk
        logger.warning("fold %s: its sensitivity map cannot be read (%s); making it again", fold, error)
        return None


def map_response(config, split, network):
    """Push single bins of some test spectra, and keep the sign: (ResponseMap, whether these spectra hold noise)."""
    data, some = split.data, split.test[:RESPONSE_SPECTRA]
    response = response_map(network.predict, data.spectra[some], data.errors[some])  # auxiliary inputs at their mean
    return response, data.noisy


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
