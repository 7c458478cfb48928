"""A survey mapped block by block: the map of the whole, never more than a block in memory, what is done stays done."""

import errno
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from synthetic import dataset, write

from loaders import load_dataset
from loaders.own import read_grid, read_rows
from perturbation.accumulate import merge_maps
from pipeline import survey_map
from pipeline.survey_map import map_file
from runio.log import InputError
from sensitivity import ModelLoader, sensitivity_map

N, N_BINS, N_AMPS = 103, 13, 3
WEIGHTS = np.random.default_rng(5).normal(size=(N_BINS, N_AMPS))
KEYS = ("H2O", "CO2", "Tp")
OPTIONS = {"gases": KEYS, "x_mean": 0.01, "x_std": 1e-3, "input_layout": "flat", "no_spectra": None, "rng": 4}


class Network:
    """What `pipeline.network.TrainedNetwork` is to a block."""

    def sensitivity(self, spectra, errors, **options):
        return sensitivity_map(predict, None, spectra, errors, np.zeros(N_AMPS), np.arange(1, 4), **OPTIONS, **options)


def predict(rows):
    return np.tanh(rows) @ WEIGHTS


LOADER = ModelLoader(Network)


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    return write(tmp_path_factory.mktemp("survey") / "survey.h5", dataset(n=N))


@pytest.fixture(scope="module")
def whole(survey):
    data = load_dataset(survey)
    return Network().sensitivity(data.spectra, data.errors, scheme="single")


@pytest.mark.parametrize(("block_size", "threads"), [(1, 0), (10, 3), (50, 0), (1000, 3)])
def test_blocks_of_any_size_give_the_map_of_the_whole(block_size, threads, survey, whole, tmp_path):
    if threads:
        with ThreadPoolExecutor(threads) as executor:
            result = map_file(LOADER, survey, tmp_path, "", block_size=block_size, executor=executor)
    else:
        result = map_file(LOADER, survey, tmp_path, "", block_size=block_size)
    assert (result.n_spectra == N).all() and result.amp_names == KEYS
    for name in ("mean", "standard_error", "quadrature_error", "slope", "curvature"):
        np.testing.assert_allclose(getattr(result, name), getattr(whole, name), rtol=1e-9, atol=1e-12, err_msg=name)
    if block_size == 50:
        np.testing.assert_allclose(result.share_error, whole.share_error, rtol=0.1)


def test_maps_of_random_repeats_are_put_together_with_both_their_errors(survey):
    data = load_dataset(survey)
    options = {"repeat": 20, "store": {}}
    whole = Network().sensitivity(data.spectra, data.errors, **options)
    parts = []
    for rows in np.array_split(np.arange(N), 4):  # rows of the survey keep their draws by way of the store
        store = {k: options["store"][row] for k, row in enumerate(rows)}
        parts.append(Network().sensitivity(data.spectra[rows], data.errors[rows], repeat=20, store=store))
    merged = merge_maps(iter(parts))
    for name in ("mean", "repeat_error"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-9, err_msg=name)
    ratio = merged.standard_error / whole.standard_error
    assert (ratio > 1 - 1e-9).all() and ratio.max() < 1.1  # some parts state the noise of the repeats, not the spread


def test_abundance_cut_gives_every_amp_its_own_number_of_spectra(survey):
    data = load_dataset(survey, targets=list(KEYS))
    options = {**OPTIONS, "scheme": "single", "abundance": {"H2O": (-7, -5)}}

    def part(rows):
        some = data.amps[rows], data.spectra[rows], data.errors[rows]
        return sensitivity_map(predict, *some, np.zeros(3), np.ones(3), **options)

    merged, whole = merge_maps(part(rows) for rows in np.array_split(np.arange(N), 3)), part(slice(None))
    assert merged.n_spectra.tolist() == whole.n_spectra.tolist() and merged.n_spectra[0] < N
    np.testing.assert_allclose(merged.standard_error, whole.standard_error, rtol=1e-9)


def test_no_more_than_a_block_is_read_at_a_time(survey, tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(survey_map, "read_rows", lambda *where: sizes.append(where[2] - where[1]) or read_rows(*where))
    map_file(LOADER, survey, tmp_path, "", block_size=25)
    assert sizes == [25, 25, 25, 25, 3]


@pytest.mark.parametrize("block_size", [34, 102])
def test_last_spectrum_is_no_block_of_its_own(block_size, survey, whole, tmp_path):
    result = map_file(LOADER, survey, tmp_path, "", block_size=block_size)
    np.testing.assert_allclose(result.share_error, whole.share_error, rtol=0.1)


def test_interrupted_survey_goes_on_where_it_stopped(survey, whole, tmp_path, monkeypatch):
    calls = []

    def counted(loader, block, nodes, original=survey_map.map_block):
        calls.append(block.start)
        if len(calls) == 3:
            raise RuntimeError("power cut")
        return original(loader, block, nodes)

    monkeypatch.setattr(survey_map, "map_block", counted)
    with pytest.raises(RuntimeError, match="power cut"):
        map_file(LOADER, survey, tmp_path, "", block_size=25)
    done = []
    result = map_file(LOADER, survey, tmp_path, "", block_size=25, advance=done.append)
    assert calls == [0, 25, 50, 50, 75, 100] and done == [50, 25, 25, 3]
    np.testing.assert_allclose(result.mean, whole.mean, rtol=1e-9)


def test_blocks_of_another_network_or_survey_are_not_taken(survey, tmp_path):
    map_file(LOADER, survey, tmp_path / "maps", "network 1", block_size=60)
    with pytest.raises(InputError, match="another survey or network"):
        map_file(LOADER, survey, tmp_path / "maps", "network 2", block_size=60)
    shutil.copy(survey, tmp_path / "other.h5")
    with pytest.raises(InputError, match="another survey or network"):
        map_file(LOADER, tmp_path / "other.h5", tmp_path / "maps", "network 1", block_size=60)


def test_spectra_that_cannot_be_used_are_named(survey, tmp_path):
    shutil.copy(survey, tmp_path / "odd.h5")
    with h5py.File(tmp_path / "odd.h5", "a") as file:
        file["spectra"][42, 3] = np.nan
    with pytest.raises(ValueError, match=r"odd\.h5: spectra 40 to 49: org_spectrum"):
        map_file(LOADER, tmp_path / "odd.h5", tmp_path / "maps", "", block_size=10)


def test_rows_are_those_of_the_loader_in_any_unit_and_order(survey, tmp_path):
    data = load_dataset(survey)
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        for name in ("spectra", "errors"):
            file[name] = getattr(data, name)[:, ::-1] * 1e6
            file[name].attrs["unit"] = "ppm"
        file["wavelength"] = data.wavelength[::-1] * 1e3
        file["wavelength"].attrs["unit"] = "nm"
    n, wavelength = read_grid(tmp_path / "odd.h5")
    spectra, errors = read_rows(tmp_path / "odd.h5", 10, 20)
    assert n == N
    np.testing.assert_allclose(wavelength, data.wavelength)
    np.testing.assert_allclose(spectra, data.spectra[10:20])
    np.testing.assert_allclose(errors, data.errors[10:20])
    with pytest.raises(InputError, match="expected an HDF5 file"):
        read_grid(tmp_path / "nothing.h5")


def test_maps_that_were_not_made_alike_are_refused(whole):
    from dataclasses import replace

    for changes in ({"nodes": 3}, {"scaled": True}, {"amp_names": ()}, {"mean": whole.mean[:, :5]}):
        with pytest.raises(ValueError, match="of the first, received"):
            merge_maps([whole, replace(whole, **changes)])
    with pytest.raises(ValueError, match="at least one"):
        merge_maps([])


@pytest.fixture
def command(survey, tmp_path, monkeypatch):
    """Call ``python -m pipeline.survey_map`` in this process for a run whose depths are ``factor`` times lower."""

    def call(*more, factor=1.0):
        spectra = load_dataset(survey).spectra / factor
        run = SimpleNamespace(wavelength=load_dataset(survey).wavelength, reference={"spectra": spectra})
        monkeypatch.setattr(survey_map, "load_run", lambda folder: run)
        monkeypatch.setattr(survey_map, "network_key", lambda folder: "")
        monkeypatch.setattr(survey_map, "ModelLoader", lambda *_: LOADER)
        return survey_map.main(["run", str(survey), "--output", str(tmp_path / "out"), *more])

    return call


def test_depths_far_from_those_of_the_run_are_said(command, capsys):
    for factor, words in ((1.0, ""), (1.5, "depths lie outside those of the run's test planets")):
        assert command(factor=factor) == 0
        error = capsys.readouterr().err
        assert words in error and ("warning" in error) is bool(words)


def test_a_map_of_something_else_is_not_replaced(command, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/sensitivity.h5").write_text("mine")
    assert command() == 2 and (tmp_path / "out/sensitivity.h5").read_text() == "mine"
    assert "holds a sensitivity.h5 that is not of a survey" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["written_whole", "map_block"])
def test_a_full_disk_ends_the_command_with_one_line_and_status_1(command, tmp_path, monkeypatch, capsys, name):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(survey_map, name, full)
    assert command() == 1
    advice = "No space left on device; make room there and repeat the command"
    assert capsys.readouterr().err == f"error: {tmp_path / 'out'}: {advice}\n"


SIGNALS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]


@pytest.mark.parametrize(("number", "status", "word"), SIGNALS)
def test_a_signal_ends_the_command_with_one_line(command, monkeypatch, capsys, hears_signals, number, status, word):
    monkeypatch.setattr(survey_map, "map_block", lambda *_: os.kill(os.getpid(), number))
    before = signal.getsignal(signal.SIGTERM)
    assert command() == status
    assert capsys.readouterr().err == f"error: {word}; the same command continues from the finished blocks\n"
    assert signal.getsignal(signal.SIGTERM) is before
