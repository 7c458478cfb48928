"""The main job, end to end on made-up spectra: the files it leaves, and that flags and seeds do what they say."""

import csv
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from synthetic import configured, dataset

from constants import Stream, stream

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runfile():
    pytest.importorskip("tensorflow")
    import runfile

    return runfile


@pytest.fixture(scope="module")
def finished(runfile, eager, tmp_path_factory):
    """Return the folder of a finished run of two folds and its data set."""
    folder = tmp_path_factory.mktemp("run")
    data = dataset()
    status = runfile.main(["--config", configured(folder, data), "--output", str(folder / "out"), "--quiet"])
    assert status == 0
    return folder / "out", data


def test_the_map_stops_at_its_tolerance_and_can_be_made_around_noisy_spectra(
    runfile, finished, tmp_path, quick_figures
):
    test = {"no_spectra": 40, "repeat": 10, "tolerance": 10.0, "noisy": True}
    path = configured(tmp_path, dataset(), sensitivity=test)
    assert runfile.main(["--config", path, "--output", str(tmp_path / "out"), "--quiet"]) == 0
    with h5py.File(tmp_path / "out/results.h5") as file, h5py.File(finished[0] / "results.h5") as other:
        group = file["fold_0/sensitivity"]
        assert list(group.attrs["n_spectra"]) == [10] * 5
        assert group.attrs["noisy"] and not other["fold_0/sensitivity"].attrs["noisy"]
        assert np.array_equal(file["fold_0/y_pred"], other["fold_0/y_pred"])  # the same network
        assert (group["mean"][()] != other["fold_0/sensitivity/mean"][()]).all()


def table(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_results_are_those_of_the_contract(finished):
    folder, data = finished
    names = {p.name for p in folder.iterdir()}
    assert {"config.yaml", "model_0.keras", "model_1.keras", "history_0.csv", "history_1.csv", "MSE.csv", "R2.csv",
            "results.h5", "figures", "report.html", "run.log"} <= names  # fmt: skip
    assert not [n for n in names if n.startswith((".unf", ".rep", "last", "best"))]
    with h5py.File(folder / "results.h5") as file:
        assert list(file.attrs["amp_names"]) == list(data.amp_names)
        assert len(file.attrs["amp_units"]) == 5
        assert file.attrs["model"] == "mlp" and file.attrs["seed"] == 0 and file.attrs["software_version"]
        assert np.array_equal(file["wavelength"], data.wavelength)
        for k in (0, 1):
            fold = file[f"fold_{k}"]
            assert fold["y_test"].shape == fold["y_pred"].shape == (80, 5)
            assert fold["scaler/x_mean"].shape == () and fold["scaler/y_std"].shape == (5,)
            assert fold["sensitivity/mean"].shape == fold["sensitivity/standard_error"].shape == (5, 13)
            attributes = fold["sensitivity"].attrs
            assert attributes["scheme"] == "halving" and attributes["repeat"] == 10
            assert list(attributes["n_spectra"]) == [5] * 5 and "abundance" in attributes


def test_score_tables_follow_from_the_predictions(finished):
    folder, data = finished
    mse, r2 = table(folder / "MSE.csv"), table(folder / "R2.csv")
    assert mse[0] == ["fold", *data.amp_names] and [row[0] for row in mse] == [
        "fold",
        "0",
        "1",
        "mean",
        "mean of folds",
    ]
    with h5py.File(folder / "results.h5") as file:
        fold = file["fold_1"]
        truth, answer, std = fold["y_test"][()], fold["y_pred"][()], fold["scaler/y_std"][()]
    assert np.allclose(np.array(mse[2][1:], float), np.mean(((answer - truth) / std) ** 2, axis=0), rtol=1e-4)
    assert np.allclose(np.array(r2[2][1:], float), 1 - ((answer - truth) ** 2).mean(0) / truth.var(0), rtol=1e-4)
    mean = np.array([row[1:] for row in mse[1:3]], float).mean(0)
    assert np.allclose(np.array(mse[3][1:], float), mean, rtol=1e-4)


def test_the_folds_end_as_one_network_with_the_mean_answer(finished):
    from pipeline.network import TrainedNetwork

    folder, data = finished
    with h5py.File(folder / "results.h5") as file:
        folds = np.array([file[f"fold_{k}/y_pred"][()] for k in (0, 1)])
        group, test = file["ensemble"], file["test_rows"][()]
        assert (
            set(group) - {"response", "thirds"}
            == set(file["fold_0"])
            >= {"y_test", "y_pred", "scaler", "sensitivity", "sensitivity_single"}
        )
        answer, std = group["y_pred"][()], group["scaler/y_std"][()]
        np.testing.assert_allclose(answer, folds.mean(axis=0), atol=1e-5 * std.max(), rtol=1e-5)
        exact = group["sensitivity_single"]
        assert exact.attrs["scheme"] == "single" and exact.attrs["nodes"] == 5 and exact.attrs["noisy"]
        assert list(exact.attrs["n_spectra"]) == [len(test)] * len(data.amp_names)
        mean = exact["mean"][()]
    (row,) = [row for row in table(folder / "MSE.csv") if row[0] == "mean of folds"]
    expected = (((answer - data.amps[test]) / std) ** 2).mean(axis=0)
    np.testing.assert_allclose(np.array(row[1:], float), expected, rtol=1e-4)
    network = TrainedNetwork.load(folder)
    from preprocessing import noisy_test_spectra

    again = network.sensitivity(noisy_test_spectra(data, test, 0), data.errors[test], scheme="single")
    np.testing.assert_allclose(again.mean, mean, rtol=1e-3)


def test_resolved_settings_are_kept_and_run_again(runfile, finished, tmp_path, quick_figures):
    folder, _ = finished
    with open(folder / "config.yaml") as file:
        tree = yaml.safe_load(file)
    assert tree["training"]["epochs"] == 2 and tree["versions"]["tensorflow"]
    again = ["--config", str(folder / "config.yaml"), "--output", str(tmp_path / "again"), "--quiet"]
    assert runfile.main(again) == 0
    with h5py.File(folder / "results.h5") as one, h5py.File(tmp_path / "again/results.h5") as two:
        for name in ("y_pred", "sensitivity/mean"):
            assert np.array_equal(one[f"fold_1/{name}"], two[f"fold_1/{name}"])


def test_flags_override_the_file_only_when_given(runfile):
    def read(*flags):
        return runfile.read_settings(runfile.parse_arguments(["--config", str(ROOT / "config.yaml"), *flags]))

    flags = read("--epochs", "7", "--batch_size", "8", "--lr", "0.5", "--model", "cnn", "--size", "9", "--seed", "3",
                 "--cv", "4", "--no-sensitivity")  # fmt: skip
    assert (flags.training.epochs, flags.training.batch_size, flags.training.lr, flags.training.cv) == (7, 8, 0.5, 4)
    assert (flags.model.name, flags.data.size, flags.seed, flags.sensitivity.enabled) == ("cnn", 9, 3, False)
    from runio.config import Config

    assert read() == Config()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn", "lstm", "hybrid"])
def test_other_networks_and_auxiliary_inputs_run(runfile, tmp_path, quick_figures, eager, name):
    config = configured(
        tmp_path,
        dataset(n=60, auxiliary=name == "cnn"),
        data={"path": str(tmp_path / "data.h5"), "auxiliary": ["star_radius"] if name == "cnn" else []},
        model={"lstm": {"units": [4, 4]}, "hybrid": {"units": 4}},
        training={"epochs": 1, "copies": 1, "cv": 1},
        sensitivity={"no_spectra": 2, "repeat": 2, "scheme": "single"},
    )
    command = ["--config", config, "--model", name, "--output", str(tmp_path / "out"), "--quiet"]
    assert runfile.main(command) == 0
    assert (tmp_path / "out/report.html").is_file()


def test_every_run_without_output_gets_a_folder_of_its_own(runfile, tmp_path, quick_figures, eager):
    config = configured(
        tmp_path,
        dataset(n=60),
        sensitivity={"enabled": False},
        training={"epochs": 1, "copies": 1, "cv": 1},
    )
    assert [runfile.main(["--config", config, "--quiet", "--no-sensitivity"]) for _ in range(2)] == [0, 0]
    folders = sorted((tmp_path / "runs").iterdir())
    assert len(folders) == 2 and all((f / "results.h5").is_file() for f in folders)


def test_help_needs_no_tensorflow():
    code = "import sys, runfile\ntry:\n runfile.main(['--help'])\nexcept SystemExit as e:\n assert not e.code\n"
    code += "assert not {'tensorflow', 'keras', 'matplotlib', 'h5py'} & set(sys.modules)"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
    assert time.perf_counter() - start < 20  # a hang, not a speed: that is for benchmarks/


def test_a_loaded_network_answers_and_maps_as_the_run_did(finished):
    from pipeline.network import TrainedNetwork
    from preprocessing import noisy_test_spectra

    folder, data = finished
    with h5py.File(folder / "results.h5") as file:
        test, expected = file["test_rows"][()], file["fold_1/y_pred"][()]
        kept = file["fold_1/sensitivity/mean"][()]
    network = TrainedNetwork.load(folder, 1)
    assert np.array_equal(network.predict(noisy_test_spectra(data, test, 0)), expected)
    settings = {"no_spectra": 5, "repeat": 10, "rng": stream(0, Stream.SENSITIVITY, 0)}  # one for all folds
    again = network.sensitivity(data.spectra[test], data.errors[test], data.amps[test], **settings)
    assert np.array_equal(again.mean, kept)
    with pytest.raises(ValueError, match="fold: expected one of 0, 1, ensemble, received 7"):
        TrainedNetwork.load(folder, 7)
    with pytest.raises(ValueError, match="expected the folder of a finished run"):
        TrainedNetwork.load(folder / "figures")


def test_all_networks_end_with_a_page_that_compares_them(monkeypatch, tmp_path):
    import runfile as module
    from report import compare

    compared = []
    monkeypatch.setattr(module, "run", lambda *_: None)
    monkeypatch.setattr(compare, "write_comparison", lambda folders, path: compared.append((folders, path)))
    assert module.main(["--model", "all", "--output", str(tmp_path), "--quiet"]) == 0
    folders = [str(tmp_path / name) for name in ("mlp", "cnn", "lstm", "hybrid")]
    assert compared == [(folders, tmp_path / "comparison.html")]


def test_networks_that_were_interrupted_continue_in_the_folder_of_them_all(monkeypatch, tmp_path, capsys):
    import runfile as module

    def stop(config, arguments, command, log):
        work = Path(arguments.output) / ".unfinished"
        work.mkdir(parents=True)
        log.to_file(work / "run.log")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run", stop)
    for model, output in (("all", tmp_path), ("cnn", tmp_path / "cnn")):
        assert module.main(["--model", model, "--output", str(output)]) == 130
        assert capsys.readouterr().err == f"error: interrupted; continue with --resume --output {output}\n"
