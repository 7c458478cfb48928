"""Checks of data sets: what cannot be planets is refused with the likely reason; what is unusual and right is taken."""

from dataclasses import replace

import h5py
import layouts
import numpy as np
import pytest
from synthetic import dataset

from constants import AMP, AMPS
from loaders import load_dataset
from loaders.dataset import check_dataset
from preprocessing import split_test, take

RNG = np.random.default_rng(0)


def test_plausible_surveys_are_taken():
    """Errors a hundred times larger in some bins and stars, noise beyond the depth, a deep line, a rare flag."""
    rng = np.random.default_rng(0)
    data = dataset(n=200, n_bins=20, keys=("H2O", "Tp", "Rp"), auxiliary=True)
    errors = 1e-5 * 10 ** (2 * rng.random((200, 1)) + 2 * rng.random(20))
    spectra = data.spectra + errors * rng.standard_normal(errors.shape)
    spectra[:, 4] *= 8  # Lyman alpha
    amps = np.column_stack([data.amps[:, 0], data.amps[:, 1], 10 ** rng.uniform(-12, -1, 200)])
    table = (*data.amp_table[:2], AMP("C/O", "C/O"))
    auxiliary = (rng.random((200, 1)) < 0.02).astype(float)  # a flag, nearly always off
    check_dataset(replace(data, spectra=spectra, errors=errors, amps=amps, amp_table=table, auxiliary=auxiliary))


@pytest.mark.parametrize(
    ("key", "low", "high", "words"),
    [
        ("H2O", 1e-7, 1e-2, "expected H2O in mixing ratio, log10 of 0 to 1; received mixing ratio?"),
        ("CH4", -1.0, 4.0, "log10 of 0 to 1; received log10 of ppm"),
        ("Mp", 0.3, 3.0, "expected Mp in kg, log10 of 1e+21 to 2e+29; received Jupiter masses"),
        ("Mp", -1.0, 0.5, "received log10 of Jupiter masses"),
        ("Mp", 5e26, 4e27, "received kg?"),
        ("Rp", 0.7, 1.9, "expected Rp in m, 500000 to 5e+08; received Jupiter radii or Earth radii?"),
        ("Rp", 5e4, 1e5, "received km?"),
        ("Rp", 7.5, 8.1, "received log10 of m"),
        ("Tp", -100.0, 900.0, "expected Tp in K, 10 to 10000"),
        ("Tp", 2.5, 3.5, "received log10 of K?"),
        ("Pclouds", 1e2, 1e6, "expected Pclouds in Pa, log10 of 1e-06 to 1e+10; received Pa"),
    ],
)
def test_amps_of_no_planet_are_refused_with_their_likely_unit(key, low, high, words):
    data = dataset(n=40, keys=(key, "CO2"))
    data.amps[:, 0] = np.linspace(low, high, 40)
    with pytest.raises(ValueError, match="AMP") as refusal:
        check_dataset(data)
    assert words in str(refusal.value), refusal.value
    other = replace(AMPS[key], unit="of another kind")
    check_dataset(replace(data, amp_table=(other, AMPS["CO2"])))  # whatever else a data set says that it is


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.zeros(0, int), r"test_rows must be row numbers from 0 to 11, received int64 of shape \(0,\)"),
        (np.arange(12) % 2, "test_rows must be row numbers from 0 to 11, received a mask of 0 and 1"),
        (np.arange(12) > 8, "received a mask"),
        (np.array([0.5, 2]), "test_rows must be row numbers"),
    ],
)
def test_test_rows_that_are_none_are_refused(tmp_path, rows, words):
    path = layouts.write_own(tmp_path / "d.h5", layouts.Truth())
    with h5py.File(path, "a") as file:
        file["test_rows"] = rows
    with pytest.raises(ValueError, match=words):
        load_dataset(path)


def test_size_that_leaves_no_test_row_is_said(caplog):
    data = replace(dataset(n=40), test_rows=np.arange(30, 40))
    assert take(data, 35).test_rows.tolist() == [30, 31, 32, 33, 34] and not caplog.text
    few = take(data, 20)
    assert few.test_rows is None and "none of its 10 test rows is among the first 20" in caplog.text
    assert len(split_test(few, 0.2, 0)[1]) == 4


@pytest.mark.parametrize("noise", [0, 1e-15, 1.0])
def test_planet_in_training_and_test_is_refused_whatever_its_noise(noise):
    data = dataset(n=40)
    amps, spectra = data.amps.copy(), data.spectra.copy()
    amps[30:] = amps[:10] * (1 + 1e-15)
    spectra[30:] = spectra[:10] + noise * data.errors[30:] * RNG.standard_normal((10, spectra.shape[1]))
    twins = replace(data, amps=amps, spectra=spectra, test_rows=np.arange(30, 40))
    with pytest.raises(
        ValueError, match=r"10 of 10 test spectra are also training spectra \(row 30 is the planet of row 0"
    ):
        split_test(twins, 0.2, 0)
    split_test(replace(twins, spectra=data.spectra), 0.2, 0)  # the same AMPs on a grid, but other planets


def test_depths_in_steps_coarser_than_their_errors_are_said(caplog):
    data = dataset(n=200, noise=1e-6)
    check_dataset(data)
    assert not caplog.text
    check_dataset(replace(data, spectra=data.spectra.astype(np.float16).astype(float)))
    assert "depths are stored in steps of 7.6e-06, coarser than their errors" in caplog.text


def test_a_unit_stated_in_the_file_is_not_overruled(tmp_path):
    path = layouts.write_own(tmp_path / "d.h5", layouts.Truth())
    with h5py.File(path, "a") as file:
        file["spectra"].attrs["unit"] = "fraction"
    with pytest.raises(ValueError, match=r"depths are in fraction, but data.depth_unit is percent; expected auto"):
        load_dataset(path, depth_unit="percent")


def test_fractions_that_are_read_as_ppm_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"median depth is below 1 ppm \(is depth_unit right\?\)"):
        load_dataset(layouts.write_own(tmp_path / "d.h5", layouts.Truth()), depth_unit="ppm")


# Links: nothing outside of a data set is opened


def external(file, name, target):
    del file[name]
    file[name] = h5py.ExternalLink(target, f"/{name}")


def soft(file, name, target):
    file.move(name, "elsewhere")
    file[name] = h5py.SoftLink("/elsewhere")


def virtual(file, name, target):
    shape = file[name].shape
    del file[name]
    layout = h5py.VirtualLayout(shape, float)
    layout[...] = h5py.VirtualSource(target, name, shape)
    file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("make", [external, soft, virtual])
@pytest.mark.parametrize("name", ["amps", "molecule_curves/H2O"])
def test_values_that_lie_elsewhere_are_refused(tmp_path, make, name):
    path, other = (layouts.write_own(tmp_path / n, layouts.Truth()) for n in ("d.h5", "other.h5"))
    for one in (path, other):
        with h5py.File(one, "a") as file:
            file["test_rows"] = np.array([1, 3])
    with h5py.File(path, "a") as file:
        make(file, name, str(other))
    with pytest.raises(ValueError, match=f"/{name} (is a link to|lies in other files)") as refusal:
        load_dataset(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("make", [external, soft, virtual])
@pytest.mark.parametrize("whole", [True, False])
def test_planets_that_lie_elsewhere_are_refused(tmp_path, monkeypatch, make, whole):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    truth = layouts.Truth()
    folder, other = (layouts.write_challenge(tmp_path / n, truth) for n in ("adc", "other"))
    name = f"Planet_train{truth.ids[3]}" + ("" if whole and make is not virtual else "/instrument_noise")
    with h5py.File(folder / "SpectralData.hdf5", "a") as file:
        make(file, name, str(other / "SpectralData.hdf5"))
    with pytest.raises(ValueError, match=f"{name} (is a link|lies in other files)"):
        load_dataset(folder)
