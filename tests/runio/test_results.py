"""results.h5 is read back as it was written, by this version and by the one before."""

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import pytest
from example_runs import write_run

from runio.results import load_run


def test_what_is_written_is_read_back(tmp_path):
    folder = write_run(tmp_path / "run", n_amps=2, n_bins=4, n_folds=2, n_test=12)
    run = load_run(folder)
    assert list(run.networks) == [0, 1, "ensemble"] and run.best is run.ensemble and run.verified
    single = run.folds[1].sensitivity_single
    assert (single.scheme, single.nodes, run.folds[1].noisy["sensitivity_single"]) == ("single", 5, True)
    shares, error = single.shares()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert error.shape == (2, 4) and run.best.response.change.shape == (2, 4, 13)
    for score in ("MSE", "R2"):
        head, *rows = (folder / f"{score}.csv").read_text().splitlines()
        assert [row.split(",")[0] for row in rows] == ["0", "1", "mean", "mean of folds"] and head == "fold,H2O,CH4"
        written = [float(cell) for cell in rows[-1].split(",")[1:]]
        np.testing.assert_allclose(written, run.scores["ensemble"][score], rtol=1e-5)


@pytest.fixture
def of_0_2(tmp_path):
    """A run of version 0.2.0 on 60 synthetic spectra: 6 bins, 2 AMPs, 2 folds of one epoch, figures left out."""
    with zipfile.ZipFile(Path(__file__).with_name("run_of_0.2.zip")) as archive:
        archive.extractall(tmp_path / "run")
    return tmp_path / "run"


def test_a_run_of_version_0_2_is_read(of_0_2):
    run = load_run(of_0_2)
    assert run.config["versions"]["software"] == "0.2.0" and run.amp_names == ("H2O", "Tp")
    np.testing.assert_allclose(run.best.sensitivity_single.mean.sum(axis=1), [1.58477651e-01, 2.57475824e04], rtol=1e-8)
    assert run.best.sensitivity.scheme == "halving" and run.best.sensitivity.repeat == 10
    assert not run.best.noisy["sensitivity"] and run.best.noisy["sensitivity_single"]
    assert run.reference["spectra"].shape == (12, 6)
    assert dataclasses.astuple(run.amp_table[1])[0] == "Tp"


def test_a_network_of_version_0_2_predicts_as_it_did(of_0_2):
    keras = pytest.importorskip("keras")
    from pipeline.network import TrainedNetwork

    if tuple(map(int, keras.version().split(".")[:2])) < (3, 15):
        pytest.skip("Keras 3.15 wrote this network, and earlier versions do not read it")
    spectra = 0.01 + 1e-3 * np.linspace(-1, 1, 12).reshape(2, 6)
    expected = [[-1.50353432, -470.93394296], [-10.41928567, 1144.35859013]]
    np.testing.assert_allclose(TrainedNetwork.load(of_0_2).predict(spectra), expected, rtol=1e-5)
