"""Judge a trained network on the noisy test spectra, and map what its answers rest on."""

import logging

import numpy as np

from models import load_model
from perturbation.mapstore import MapStore, digest
from perturbation.response import response_map
from preprocessing import noisy_test_spectra
from runio import console
from sensitivity import ModelLoader, SensitivityMap, sensitivity_map

logger = logging.getLogger(__name__)

RESPONSE_SPECTRA = 100  # test spectra that the signed response map is averaged over


def map_sensitivity(config, split, model, folder, k, quiet, executor=None):
    """Run the sensitivity test on the test spectra; return it and the response map, both None if not wanted.

    The map of every spectrum is kept in the folder until that of all is, so that an interrupted test goes on there.
    """
    chosen, data, test, scaler = config.sensitivity, split.data, split.test, split.scalers[k]
    if not chosen.enabled:
        return {"sensitivity": None, "response": None}
    spectra = noisy_test_spectra(data, test, config.seed) if chosen.noisy else data.spectra[test]
    errors = data.errors[test]
    auxiliary = None if data.auxiliary is None else scaler.scaled_auxiliary(data.auxiliary[test])
    kept = folder / f"sensitivity_{k}.h5"
    found = None
    if kept.is_file():
        try:
            found = SensitivityMap.load(kept)
        except (OSError, KeyError, ValueError) as error:  # damaged on the disk
            logger.warning("fold %d: its sensitivity map cannot be read (%s); making it again", k, error)
    if found is None:
        network = folder / f"model_{k}.keras"
        with MapStore(folder / f"maps_{k}.bin", len(data.amp_names), spectra.shape[1], digest(network)) as store:
            found = sensitivity_map(
                ModelLoader(load_model, str(network.resolve())) if executor else model,
                data.amps[test],
                spectra,
                errors,
                scaler.y_mean,
                scaler.y_std,
                gases=data.amp_names,
                no_spectra=chosen.no_spectra,
                repeat=chosen.repeat,
                x_mean=scaler.x_mean,
                x_std=scaler.x_std,
                abundance=chosen.abundance,
                rng=[config.seed, 7],
                scheme=chosen.scheme,
                auxiliary=auxiliary,
                batch_size=chosen.batch_size,
                chunk_size=chosen.chunk_size,
                tolerance=chosen.tolerance,
                keep_spectra=False,
                progress=console.shows_progress(quiet),
                executor=executor,
                store=store,
            )
        found.save(kept)
        store.delete()

    def predict(x):  # auxiliary inputs stay at their mean
        held = None if auxiliary is None else np.repeat(scaler.auxiliary_mean[None], len(x), axis=0)
        return scaler.amps(model.predict(scaler.inputs(x, held), batch_size=chosen.batch_size or 1024, verbose=0))

    response = response_map(predict, spectra[:RESPONSE_SPECTRA], errors[:RESPONSE_SPECTRA])
    return {"sensitivity": found, "response": response, "noisy": chosen.noisy}


def predict_noisy(model, data, test, scaler, seed):
    """Predict the AMPs (n_test, n_amps) of the noisy test spectra."""
    spectra = noisy_test_spectra(data, test, seed)
    auxiliary = None if data.auxiliary is None else data.auxiliary[test]
    y_pred = scaler.amps(model.predict(scaler.inputs(spectra, auxiliary), batch_size=4096, verbose=0))
    bad = ~np.isfinite(y_pred).all(axis=1)
    if bad.any():
        raise RuntimeError(
            f"the network returns NaN or infinity for {bad.sum()} test spectra, the first is row {test[bad][0]}"
        )
    return y_pred
