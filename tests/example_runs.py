"""Small synthetic runs, written through `runio.results` as a true run writes them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from constants import PAPER_AMPS, amp
from perturbation.result import SensitivityMap, response_map
from preprocessing import Dataset, Scaler
from runio import results
from runio.folder import RESULT_NAMES, result_files, write_manifest

CENTRE = {"Mp": 27.3, "Rp": 8e7, "Tp": 1500.0, "Pclouds": 4.0}
WIDTH = {"Mp": 0.3, "Rp": 1.5e7, "Tp": 400.0, "Pclouds": 1.2}
STRANGERS = ("Zmet", "C/O", "T_night", "cost in $ and $", "a rather long name of a parameter")


def made_up_map(mean, scheme="halving", nodes=None):
    """Return a map (n_amps, n_bins) as the sensitivity test would return it."""
    exact = {}
    if nodes is not None:
        exact = {"share_error": np.full(mean.shape, 0.001), "nodes": nodes, "rule": "gauss-hermite"}
        exact |= {"slope": np.sqrt(mean), "curvature": 0.1 * np.sqrt(mean), "quadrature_error": 0.01 * mean}
    repeat, n_spectra = 20 if nodes is None else 0, np.full(len(mean), 30)
    return SensitivityMap(mean, 0.1 * mean, 0.05 * mean, n_spectra, scheme, repeat, seed=0, **exact)


def names(n_amps):
    """The paper's AMPs, then strangers that the table of constants does not know."""
    more = [f"{STRANGERS[i % len(STRANGERS)]} {i}" for i in range(max(0, n_amps - 9))]
    return (*PAPER_AMPS, *more)[:n_amps]


def write_run(
    folder, n_amps=9, n_bins=52, n_folds=3, n_test=300, sensitivity=True, curves=True, history=True, amps=None,
    survey_noisy=False, map_noisy=None, scheme="halving", settings=None,
):  # fmt: skip
    """Write the folder of a run of a linear network; return it.

    ``survey_noisy``: the data set is marked as holding noise. ``map_noisy``: the maps are marked as made around
    spectra with noise; None leaves it to the data set. ``settings`` are laid over those of the run.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([n_amps, n_bins])
    keys = names(n_amps) if amps is None else amps
    table = tuple(amp(key, unit="K" if key.startswith("T_") else None) for key in keys)
    centre = np.array([CENTRE.get(key, -6.0) for key in keys])
    width = np.array([WIDTH.get(key, 1.7) for key in keys])
    y = centre + width * rng.uniform(-1.7, 1.7, (n_test, len(keys)))
    wavelength = np.geomspace(0.55, 7.5, n_bins)
    spectra = 0.015 + 1e-4 * rng.normal(size=(n_test, n_bins))
    errors = np.full((n_test, n_bins), 3e-5)
    shapes = {k: 0.015 + 4e-4 * np.exp(-((np.log(wavelength) - i / 3) ** 2) * 20) for i, k in enumerate(PAPER_AMPS[:5])}
    shapes["none"] = np.full(n_bins, 0.0149)
    second = (settings or {}).get("data", {}).get("auxiliary", [])
    data = Dataset(
        spectra, errors, wavelength, y, table, molecule_curves=shapes if curves else {}, name="synthetic <spectra>",
        noisy=survey_noisy, auxiliary=rng.normal(size=(n_test, len(second))) if second else None,
        auxiliary_names=tuple(second),
    )  # fmt: skip
    scaler = {"x_mean": 0.015, "x_std": 1e-4, "y_mean": centre, "y_std": width}
    if second:
        scaler |= {"auxiliary_mean": np.zeros(len(second)), "auxiliary_std": np.ones(len(second))}
    scaler, folds = Scaler(**scaler), {}
    noisy = survey_noisy if map_noisy is None else map_noisy
    noisy = {"sensitivity": noisy, "sensitivity_single": True, "response": noisy}
    for k in range(n_folds):
        weights = rng.normal(size=(n_bins, len(keys))) * width * 1e3
        y_pred = centre + 0.8 * (y - centre) + 0.3 * width * rng.normal(size=y.shape)
        change = (weights * 3e-5).T ** 2
        maps = {}
        if sensitivity:
            maps = {"sensitivity": made_up_map(change, scheme)}
            maps["sensitivity_single"] = made_up_map(change, "single", nodes=5)
            maps["response"] = response_map(lambda x, w=weights: x @ w, spectra[:5], errors[:5])
            thirds = change[:, None] * np.array([0.2, 1.0, 1.8])[:, None]
            maps["thirds"] = thirds, np.quantile(y, (0, 1 / 3, 2 / 3, 1), axis=0).T
        folds[k] = results.NetworkResult(y_pred, scaler, noisy=noisy, **maps)
        if history:
            epochs = np.arange(1, 12 + 3 * k)
            rows = "".join(f"{e},{1 / e + 0.1},{1 / e + 0.12 + 0.01 * (e > 8)},0.001\n" for e in epochs)
            (folder / f"history_{k}.csv").write_text("epoch,loss,val_loss,learning_rate\n" + rows)
        else:
            (folder / f"history_{k}.csv").write_text("epoch,loss,val_loss,learning_rate\n")
    if n_folds > 1:
        folds["ensemble"] = replace(folds[0], y_pred=np.mean([fold.y_pred for fold in folds.values()], axis=0))
    results.write_run(folder, data, "mlp", 7, np.arange(n_test), folds)
    settings = {
        "seed": 7,
        "training": {"epochs": 14, "lr": 0.01},
        "versions": {"python": "3.11.0", "numpy": "2.4.6"},
        "command": "python runfile.py --epochs 14 --output 'a <b> & c'",
        **(settings or {}),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    write_manifest(folder, result_files(folder, RESULT_NAMES))
    return folder
