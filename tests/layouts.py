"""Write one and the same made-up survey in each layout that can be loaded, with keys in scrambled order."""

import json

import h5py
import numpy as np

KEYS = ("H2O", "CH4", "CO", "CO2", "NH3", "Mp", "Rp", "Tp", "Pclouds")
JUPITER_RADIUS = 6.9911e7


class Truth:
    """Made-up spectra and parameters; ``amps`` in retrieval space by key."""

    def __init__(self, n=12, n_bins=7, seed=0):
        rng = np.random.default_rng(seed)
        self.n, self.n_bins = n, n_bins
        self.wavelength = np.geomspace(0.6, 7.0, n_bins)
        self.bin_width = 0.2 * self.wavelength
        self.spectra = 0.01 + 1e-3 * rng.random((n, n_bins))
        self.errors = 1e-5 * (1 + rng.random((n, n_bins)))
        low = dict(zip(KEYS, (-9, -9, -9, -9, -9, 26.7, 5e7, 600, 2)))
        high = dict(zip(KEYS, (-3, -3, -3, -3, -3, 28.0, 1.2e8, 2300, 6)))
        self.amps = {key: rng.uniform(low[key], high[key], n) for key in KEYS}
        self.star_radius = rng.uniform(5e8, 9e8, n)
        self.ids = rng.permutation(max(n, 1000))[:n]
        self.rng = rng

    def column(self, *keys):
        """Return the targets called ``keys``, (n, n_keys)."""
        return np.column_stack([self.amps[key] for key in keys])


def write_own(path, truth, descending=False, **attributes):
    """Write the project's own HDF5 layout."""
    order = slice(None, None, -1) if descending else slice(None)
    with h5py.File(path, "w") as file:
        file["spectra"] = truth.spectra[:, order]
        file["errors"] = truth.errors[:, order]
        file["wavelength"] = truth.wavelength[order]
        file["bin_width"] = truth.bin_width[order]
        file["amps"] = truth.column(*KEYS)
        file["amps"].attrs["names"] = list(KEYS)
        file["amps"].attrs["units"] = ["", "", "", "", "", "kg", "m", "K", "Pa"]
        file["amps"].attrs["scale"] = ["log10"] * 6 + ["linear"] * 2 + ["log10"]
        file["auxiliary"] = truth.star_radius[:, None]
        file["auxiliary"].attrs["names"] = ["star_radius"]
        file["molecule_curves/H2O"] = truth.spectra[0, order]
        file.attrs.update(attributes)
    return path


def write_paper(folder, truth, named=True):
    """Write spectra.npy (N, 3, n_bins) and the CSV of linear AMPs, star radius last."""
    folder.mkdir(parents=True, exist_ok=True)
    wavelength = np.broadcast_to(truth.wavelength, truth.spectra.shape)
    np.save(folder / "lowX_spectra.npy", np.stack([truth.spectra, truth.errors, wavelength], axis=1))
    linear = [truth.amps[k] if k in ("Rp", "Tp") else 10 ** truth.amps[k] for k in KEYS]
    names = ["H2O", "CH4", "CO", "CO2", "NH3", "mass", "radius", "temperature", "cloud_pressure", "star_radius"]
    write_csv(folder / "lowX_param_file.csv", names if named else list("abcdefghij"), [*linear, truth.star_radius])
    return folder


def write_csv(path, names, columns):
    """Write columns of numbers or texts as CSV."""
    rows = [",".join(names)]
    rows += [",".join(v if isinstance(v, str) else repr(float(v)) for v in row) for row in zip(*columns)]
    path.write_text("\n".join(rows) + "\n")


def write_planets(path, truth, prefix="Planet_", order=None):
    """Write one HDF5 group per planet, in another order than the tables."""
    order = np.random.default_rng(5).permutation(truth.n) if order is None else order
    with h5py.File(path, "w") as file:
        for i in order:
            group = file.create_group(f"{prefix}{truth.ids[i]}")
            group["instrument_wlgrid"] = truth.wavelength
            group["instrument_spectrum"] = truth.spectra[i]
            group["instrument_noise"] = truth.errors[i]
            group["instrument_width"] = truth.bin_width


def write_challenge(folder, truth, year=2023, prefix="Planet_train", id_prefix="train"):
    """Write ABC level 2; the auxiliary table in the reverse order of the truth table."""
    package = folder / "Ground Truth Package"
    package.mkdir(parents=True, exist_ok=True)
    write_planets(folder / "SpectralData.hdf5", truth, prefix)
    ids = [f"{id_prefix}{i}" for i in truth.ids]
    index = np.arange(truth.n)
    gases = ["H2O", "CO2", "CH4", "CO", "NH3"]
    names = ["", "planet_ID", "planet_temp", *(f"log_{g}" for g in gases)]
    columns = [index, ids, truth.amps["Tp"], *(truth.amps[g] for g in gases)]
    if year == 2023:
        names.insert(2, "planet_radius")
        columns.insert(2, truth.amps["Rp"] / JUPITER_RADIUS)
    write_csv(package / "FM_Parameter_Table.csv", names, columns)
    names = ["", "planet_ID", "star_distance", "star_mass_kg", "star_radius_m", "star_temperature", "planet_mass_kg"]
    names += ["planet_orbital_period", "planet_distance", "planet_surface_gravity"]
    columns = [index, ids, index + 50.0, index + 2e30, truth.star_radius, index + 5000.0, 10 ** truth.amps["Mp"]]
    columns += [index + 3.0, index + 0.1, index + 10.0]
    if year == 2022:
        names.append("planet_radius_m")
        columns.append(truth.amps["Rp"])
    write_csv(folder / "AuxillaryTable.csv", names, [list(c)[::-1] for c in columns])
    return folder


def write_level_1(folder, truth, log=True):
    """Write ABC level 1: all_data.csv and observations.hdf5."""
    folder.mkdir(parents=True, exist_ok=True)
    write_planets(folder / "observations.hdf5", truth)
    gases = ["H2O", "CO2", "CH4", "CO", "NH3"]
    names = ["planet_ID", "star_radius_m", "planet_name", "temperature_model", *(f"{g}_model" for g in gases)]
    values = [truth.amps[g] if log else 10 ** truth.amps[g] for g in gases]
    names_of = [f"HD {i} b" for i in truth.ids]
    ids = [str(i) for i in truth.ids]
    write_csv(folder / "all_data.csv", names, [ids, truth.star_radius, names_of, truth.amps["Tp"], *values])
    return folder


def write_hela(folder, truth, n_test=4, percent=True):
    """Write HELA's JSON, rows, error bars and wavelengths; depths in per cent, as in its example."""
    folder.mkdir(parents=True, exist_ok=True)
    factor = 100.0 if percent else 1.0
    rows = np.column_stack([truth.spectra * factor, truth.column("Tp", "H2O"), truth.rng.uniform(-13, 0, truth.n)])
    np.save(folder / "training.npy", rows[:-n_test] if n_test else rows)
    if n_test:
        np.save(folder / "testing.npy", rows[-n_test:])
    np.save(folder / "error_bars.npy", truth.errors[0] * factor)
    np.save(folder / "wavelength.npy", truth.wavelength)
    meta = {
        "names": ["$T (K)$", "H$_2$O", "$\\kappa_0$"],
        "ranges": [[500, 2900], [-13, 0], [-13, 0]],
        "colors": ["#F14532", "#4a98c9", "#6363d8"],
        "num_features": truth.n_bins,
    }
    head = {"metadata": meta, "training_data": "training.npy", "testing_data": "testing.npy" if n_test else None}
    (folder / "example_dataset.json").write_text(json.dumps(head))
    return folder
