"""Made-up spectra that can be fitted in seconds: every AMP adds a bump of its own to a sloping continuum."""

import h5py
import numpy as np
import yaml

from constants import AMPS
from preprocessing import Dataset

SETTINGS = {  # of a run of some seconds: plain Adam, which learns the most in two epochs
    "training": {
        "epochs": 2,
        "batch_size": 32,
        "lr": 0.003,
        "copies": 2,
        "cv": 2,
        "processes": 1,
        "loss": "mse",
        "weight_decay": 0.0,
        "average_epochs": 0.0,
    },
    "model": {"mlp": {"units": [16, 8]}},
    "sensitivity": {"no_spectra": 5, "repeat": 10},
}
KEYS = ("H2O", "CO2", "Tp", "Rp", "Mp")


def dataset(n=400, n_bins=13, keys=KEYS, seed=0, auxiliary=False, noise=2e-5):
    """Return a ``Dataset`` whose depths are linear in the AMPs, with errors of about ``noise``."""
    rng = np.random.default_rng(seed)
    unit = rng.uniform(-1, 1, (n, len(keys)))
    bins = np.arange(n_bins)
    centres = (np.arange(len(keys)) + 0.5) * n_bins / len(keys)
    bumps = np.exp(-0.5 * ((bins - centres[:, None]) / max(n_bins / 20, 0.5)) ** 2)
    spectra = 0.01 + 1e-3 * unit @ bumps
    scale = {"Rp": (1e8, 2e7), "Tp": (1500, 400), "Mp": (27.2, 0.3), "Pclouds": (4, 1)}
    amps = np.stack([m + s * unit[:, i] for i, (m, s) in enumerate(scale.get(k, (-6, 1.5)) for k in keys)], axis=1)
    return Dataset(
        spectra=spectra,
        errors=noise * (1 + rng.random((n, n_bins))),
        wavelength=np.geomspace(0.6, 7.5, n_bins),
        amps=amps,
        amp_table=tuple(AMPS[k] for k in keys),
        auxiliary=rng.normal(7e8, 1e8, (n, 1)) if auxiliary else None,
        auxiliary_names=("star_radius",) if auxiliary else (),
        name="synthetic",
    )


def write(path, data):
    """Write a data set in the project's own layout; return its path."""
    with h5py.File(path, "w") as file:
        file["spectra"], file["errors"], file["wavelength"] = data.spectra, data.errors, data.wavelength
        file["amps"] = data.amps
        file["amps"].attrs["names"] = list(data.amp_names)
        file["amps"].attrs["units"] = [a.unit for a in data.amp_table]
        file["amps"].attrs["scale"] = [a.scale for a in data.amp_table]
        if data.auxiliary is not None:
            file["auxiliary"] = data.auxiliary
            file["auxiliary"].attrs["names"] = list(data.auxiliary_names)
    return str(path)


def configured(folder, data, /, **changes):
    """Write a data set and its config.yaml; return the path of the latter."""
    folder.mkdir(exist_ok=True)
    tree = {"data": {"path": write(folder / "data.h5", data)}, "output": str(folder / "runs"), **SETTINGS, **changes}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)
