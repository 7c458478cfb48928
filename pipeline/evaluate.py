"""Evaluate trained networks on the noisy test spectra, and map which wavelengths their predictions are sensitive to.

All folds are asked about the same perturbed spectra, so that one pass gives the map of every fold and of their mean.
"""

from dataclasses import replace

import numpy as np

from common.files import digest
from constants import Stream, stream
from models import load_model
from perturbation.arguments import abundance_cuts, find_amps, plain_abundance
from perturbation.mapstore import MapStore
from perturbation.result import response_map
from pipeline.folds import empty_rows
from preprocessing import noisy_test_spectra
from runio.results import ENSEMBLE, NetworkResult, kept_map, network_file
from sensitivity import ModelLoader, compute_sensitivty_org, fold_maps

FEWEST_OF_THIRD = 10  # spectra
MAX_KEPT = 50_000_000  # numbers in the maps of single spectra, of all networks together, that are kept in memory
RESPONSE_SPECTRA = 100  # test spectra that the signed response map is averaged over
AUTO_SPECTRA = 300  # test spectra of the published map, at most, where sensitivity.no_spectra is auto ...
AUTO_SHARE = 20  # ... which is one in so many of the test spectra ...
AUTO_FEWEST = 20  # ... and at least so many, as long as there are as many


def evaluate(config, split, networks, folder, executor=None):
    """Predict the noisy test spectra with each network, score the predictions, and make the maps.

    ``networks`` is {fold, or "ensemble" for the mean of the folds: TrainedNetwork}; ``folder`` holds their files and
    receives finished parts of the maps, from which an interrupted run goes on. Returns a `NetworkResult` for each; the
    response is mapped for the mean of the folds, or the only fold.
    """
    data, test = split.data, split.test
    wanted = [name for name in MAPS if getattr(config, name).enabled]
    noisy = {name: getattr(config, name).noisy or data.noisy for name in wanted}
    y_pred = {k: predict_noisy(network, data, test, config.seed) for k, network in networks.items()}
    maps = {name: map_sensitivity(name, config, split, networks, folder, executor) for name in wanted}
    evaluated = {
        k: NetworkResult(y_pred[k], network.scaler, noisy=dict(noisy), **{name: maps[name][k] for name in wanted})
        for k, network in networks.items()
    }
    if wanted:
        final, some = (ENSEMBLE if ENSEMBLE in networks else min(networks)), test[:RESPONSE_SPECTRA]
        response = response_map(networks[final].predict, data.spectra[some], data.errors[some])  # mean auxiliary inputs
        evaluated[final].response, evaluated[final].noisy["response"] = response, data.noisy
        exact = evaluated[final].sensitivity_single
        if exact is not None and exact.per_spectrum is not None:
            evaluated[final].thirds = thirds_of(exact, data.amps[test])
            evaluated[final].sensitivity_single = replace(exact, per_spectrum=None, spectra=None)
    return evaluated


def predict_noisy(network, data, test, seed):
    """Predict the AMPs (n_test, n_amps) of the noisy test spectra, in retrieval space; a RuntimeError if one is NaN."""
    spectra = noisy_test_spectra(data, test, seed)
    y_pred = network.predict(spectra, None if data.auxiliary is None else data.auxiliary[test])
    bad = ~np.isfinite(y_pred).all(axis=1)
    if bad.any():
        raise RuntimeError(
            f"the network returns NaN or infinity for {bad.sum()} test spectra, the first is row {test[bad][0]}"
        )
    return y_pred


def published_maps(config, split, networks, spectra, **resumable):
    """Return the published test's map of each network around ``spectra`` (n_test, n_bins), then that of their mean.

    ``networks`` are those that `sensitivity.fold_maps` takes.
    """
    chosen, amps, names = config.sensitivity, split.data.amps[split.test], split.data.amp_names
    fewest = max(AUTO_FEWEST, len(amps) // AUTO_SHARE)
    empty, abundance = empty_rows(chosen.abundance, names, amps), chosen.abundance
    if empty:  # they are mapped without a cut, and left empty then
        cuts = abundance_cuts(abundance, find_amps(names, len(names)))
        abundance = {names[row]: cut for row, cut in cuts.items() if row not in empty}
    no_spectra = min(AUTO_SPECTRA, fewest, len(amps)) if chosen.no_spectra == "auto" else chosen.no_spectra
    options = {name: getattr(chosen, name) for name in ("repeat", "scheme", "batch_size", "chunk_size", "tolerance")}
    own = {name: [network[name] for network in networks] for name in networks[0]}
    maps = compute_sensitivty_org(
        y_test=amps, org_spectrum=spectra, org_error=split.data.errors[split.test], gases=names, no_spectra=no_spectra,
        abundance=abundance, nodes=None, details=True, **own, **options, **resumable,
    )  # fmt: skip
    if empty:
        maps = [replace(found, abundance=plain_abundance(chosen.abundance)) for found in maps]
    for found in maps:
        found.n_spectra[list(empty)] = 0
        for values in (found.mean, found.standard_error, found.repeat_error, found.share_error):
            if values is not None:
                values[list(empty)] = np.nan
    return maps


def single_bin_maps(config, split, networks, spectra, **resumable):
    """Return the exact map of single bins of each network around ``spectra``, then that of their mean."""
    chosen, n_test, names = config.sensitivity_single, len(split.test), split.data.amp_names
    n_used = n_test if chosen.no_spectra == -1 else min(chosen.no_spectra, n_test)
    keep_spectra = n_used * (len(networks) + 1) * len(names) * spectra.shape[1] < MAX_KEPT
    return fold_maps(
        networks, None, spectra, split.data.errors[split.test], gases=names, scheme="single", nodes=chosen.nodes,
        no_spectra=-1 if n_used == n_test else n_used, keep_spectra=keep_spectra, **resumable,
    )  # fmt: skip


MAPS = {"sensitivity": published_maps, "sensitivity_single": single_bin_maps}  # by section of config.yaml


def map_sensitivity(name, config, split, networks, folder, executor=None):
    """Return one of `MAPS` around the test spectra as {fold or "ensemble": SensitivityMap}."""
    chosen, data, test = getattr(config, name), split.data, split.test
    kept = {k: folder / f"{name}_{k}.h5" for k in networks}
    found = {k: kept_map(path) for k, path in kept.items()}
    if all(found.values()):
        return found
    folds = {k: network for k, network in networks.items() if k != ENSEMBLE}
    paths = [network_file(folder, k) for k in folds]
    if executor is not None:  # its workers load the networks themselves
        loaders = [ModelLoader(load_model, str(path.resolve())) for path in paths]
        folds = {k: replace(networks[k], model=loader) for k, loader in zip(folds, loaders)}
    second = None if data.auxiliary is None else data.auxiliary[test]
    own = [network.map_arguments(second) for network in folds.values()]
    is_noisy = chosen.noisy and not data.noisy
    spectra = noisy_test_spectra(data, test, config.seed) if is_noisy else data.spectra[test]
    n_rows = len(networks) * len(data.amp_names)  # of all maps, below each other
    with MapStore(folder / f"maps_{name}.bin", n_rows, data.spectra.shape[1], digest(*paths)) as store:
        rng = stream(config.seed, Stream.SENSITIVITY, 0)
        maps = MAPS[name](config, split, own, spectra, rng=rng, executor=executor, store=store)
    *others, final = maps  # the mean of the folds, or the only fold, keeps the maps of its spectra for `thirds_of`
    maps = [*(replace(one, per_spectrum=None, spectra=None) for one in others), final]
    found = dict(zip(networks, maps, strict=True))  # the mean of the folds is the last of both
    for k, path in kept.items():
        found[k].save(path)
    store.delete()
    return found


def thirds_of(found, amps):
    """Return the map of the spectra with the lowest, middle and highest values of each AMP, and what divides them.

    ``found`` is a `SensitivityMap` that kept its spectra, ``amps`` (n_test, n_amps) the truth of the test spectra. The
    maps are (n_amps, 3, n_bins), the limits (n_amps, 4); None with fewer than ``FEWEST_OF_THIRD`` spectra in a third.
    """
    if len(found.spectra) < 3 * FEWEST_OF_THIRD:
        return None
    maps, limits = [], []
    for k, values in enumerate(amps[found.spectra].T):
        parts = np.array_split(np.argsort(values, kind="stable"), 3)
        maps.append([found.per_spectrum[rows, k].mean(axis=0) for rows in parts])
        limits.append([*(values[rows[0]] for rows in parts), values[parts[-1][-1]]])
    return np.array(maps), np.array(limits)
