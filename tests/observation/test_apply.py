"""A finished run is applied to one observation."""

import csv
import errno
import shutil
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import yaml
from synthetic import configured, dataset
from warm_runs import replace_figures

from constants import AMPS
from observation.apply import folder_name, screen_table, table_rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return (runfile, folder of a run with an auxiliary input, its data set)."""
    pytest.importorskip("tensorflow")
    import runfile

    folder = tmp_path_factory.mktemp("applied")
    data = dataset(auxiliary=True)
    config = configured(
        folder,
        data,
        data={"path": str(folder / "data.h5"), "auxiliary": ["star_radius"]},
        sensitivity={"enabled": False},
    )
    flags = ["--config", config, "--output", str(folder / "out"), "--quiet", "--epochs", "200", "--lr", "0.01"]
    with pytest.MonkeyPatch.context() as patch:
        replace_figures(patch.setattr)
        assert runfile.main(flags) == 0
    return runfile, folder / "out", data


def observe(path, data, row=0, bins=slice(None), depth_factor=1.0):
    columns = (data.wavelength[bins], data.spectra[row, bins] * depth_factor, data.errors[row, bins] * depth_factor)
    np.savetxt(path, np.column_stack(columns), header="wavelength depth error")
    return str(path)


def test_an_observation_gives_amps_a_map_and_a_figure(finished, tmp_path, capsys):
    runfile, run, data = finished
    seen = observe(tmp_path / "my planet.txt", data, row=5)
    flags = ["--apply", str(run), "--observation", seen, "--auxiliary", f"star_radius={data.auxiliary[5, 0]}"]
    assert runfile.main(flags) == 0
    assert "H2O" in capsys.readouterr().out
    folder = run / "applied/my_planet"
    names = {p.name for p in folder.iterdir()}
    answers = {"amps.csv", "verdict.yaml", "report.html", "sensitivity.h5", "config.yaml", "manifest.json"}
    figures = ("sensitivity", "answer_intervals", "spectrum_shares", "expectation")
    assert names == answers | {f"{name}.{kind}" for name in figures for kind in ("png", "pdf")}
    page = (folder / "report.html").read_text()
    assert "50 ppm on all bins" in page and "Change when replaced by the value expected from the others" in page
    settings = [yaml.safe_load((one / "config.yaml").read_text()) for one in (run, folder)]
    assert settings[1]["settings"]["data"] == settings[0]["data"]  # those of the run, not of --config
    with open(folder / "amps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["amp"] for row in rows] == list(data.amp_names)
    value = np.array([float(row["value"]) for row in rows])
    assert np.all(np.abs(value - data.amps[5]) < 0.5 * data.amps.std(axis=0))
    assert all(float(row["noise_spread"]) > 0 and float(row["fold_spread"]) > 0 for row in rows)
    ends = np.array([[float(row[name]) for name in ("low95", "low68", "high68", "high95")] for row in rows])
    assert (np.diff(ends, axis=1) >= 0).all() and (ends[:, 3] > ends[:, 0]).all()
    assert np.mean((ends[:, 0] <= data.amps[5]) & (data.amps[5] <= ends[:, 3])) > 0.5  # of five AMPs at 95 %


def test_what_does_not_fit_is_refused_and_leaves_no_folder(finished, tmp_path, capsys):
    runfile, run, data = finished
    good = observe(tmp_path / "good.txt", data)
    value = "star_radius=7e8"
    cases = {
        "expected 13 bins": [str(run), observe(tmp_path / "grid.txt", data, bins=slice(0, 5)), value],
        "--auxiliary: expected values of star_radius, received none": [str(run), good],
        "--auxiliary: expected NAME=VALUE with a number": [str(run), good, "star_radius=big"],
        "no results.h5": [str(tmp_path), good, value],
        "nowhere.txt": [str(run), str(tmp_path / "nowhere.txt"), value],
    }
    for message, (folder, seen, *auxiliary) in cases.items():
        flags = ["--apply", folder, "--observation", seen, *(["--auxiliary", *auxiliary] if auxiliary else [])]
        assert runfile.main([*flags, "--output", str(tmp_path / "out")]) == 2
        *warnings, error = capsys.readouterr().err.splitlines()
        assert message in error and error.startswith("error: ")
        assert all(line.startswith("warning: ") for line in warnings), warnings
        assert not (tmp_path / "out").exists()


@pytest.fixture
def no_page(monkeypatch):
    """Leave the report out where a test is not about it: the figures take a second."""
    monkeypatch.setattr("observation.apply.write_page", lambda folder, estimate: None)


def apply(finished, seen, *flags):
    runfile, run, _ = finished
    flags = ["--apply", str(run), "--observation", str(seen), "--auxiliary", "star_radius=7e8", *flags]
    return runfile.main([*flags, "--no-sensitivity", "--quiet"])


def test_answers_are_never_replaced_unless_asked(finished, no_page, tmp_path, capsys):
    data, out = finished[2], tmp_path / "out"
    seen = observe(tmp_path / "planet.txt", data, row=5)
    assert apply(finished, seen, "--output", str(out)) == 0
    (out / "mine.txt").write_text("mine")
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    observe(seen, data, row=6)
    assert apply(finished, seen, "--output", str(out)) == 2
    assert "holds finished results" in capsys.readouterr().err.splitlines()[-1]
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert apply(finished, seen, "--output", str(out), "--overwrite") == 0
    assert (out / "amps.csv").read_bytes() != before["amps.csv"] and (out / "mine.txt").read_text() == "mine"
    assert {p.name for p in out.iterdir()} == set(before)


def test_a_folder_that_cannot_be_used_is_refused_before_a_network_is_loaded(finished, tmp_path, monkeypatch, capsys):
    seen, out = observe(tmp_path / "planet.txt", finished[2]), tmp_path / "out"
    out.write_text("mine")
    monkeypatch.setattr("pipeline.network.TrainedNetwork.of_run", None)
    assert apply(finished, seen, "--output", str(out)) == 2
    assert "out: not usable for results" in capsys.readouterr().err and out.read_text() == "mine"


def test_a_full_disk_is_said_with_what_helps(finished, tmp_path, monkeypatch, capsys):
    def write(path, rows):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("observation.apply._write_table", write)
    assert apply(finished, observe(tmp_path / "planet.txt", finished[2]), "--output", str(tmp_path / "out")) == 1
    assert "out: No space left on device; make room there and repeat the command" in capsys.readouterr().err


def test_every_application_gets_a_folder_of_its_own(finished, no_page, tmp_path):
    _, run, data = finished
    before = {p.name for p in run.iterdir()}
    for i, name in enumerate(["a/planet.txt", "b/planet.txt"]):
        path = tmp_path / name
        path.parent.mkdir()
        assert apply(finished, observe(path, data, row=i)) == 0
    made = {p.name for p in (run / "applied").iterdir()} - {"my_planet"}
    assert made == {"planet", "planet_2"}
    assert {p.name for p in run.iterdir()} == before | {"applied"}
    assert all((run / "applied" / name / "amps.csv").is_file() for name in made)


def test_any_file_name_gives_a_folder_name():
    names = {"\u03b5 Eri b": "\u03b5_Eri_b", "\u6c34\u661f": "\u6c34\u661f", "..": "observation", "x" * 240: "x" * 100}
    for name, folder in names.items():
        assert folder_name(name) == folder


def test_application_that_fails_leaves_nothing(finished, no_page, tmp_path, monkeypatch):
    seen, out = observe(tmp_path / "planet.txt", finished[2]), tmp_path / "out"
    monkeypatch.setattr(
        "observation.apply._write_table", lambda path, rows: (path.parent / "none" / path.name).write_text("")
    )
    assert apply(finished, seen, "--output", str(out)) == 1
    assert not out.exists()


def test_a_run_of_an_earlier_version_answers_and_says_what_it_lacks(finished, tmp_path):
    old = shutil.copytree(finished[1], tmp_path / "old", ignore=shutil.ignore_patterns("applied"))
    with h5py.File(old / "results.h5", "a") as file:
        del file["reference"]
    runfile, _, data = finished
    seen = observe(tmp_path / "planet.txt", data, row=5)
    assert apply((runfile, old, data), seen, "--output", str(tmp_path / "out")) == 2  # changed since
    assert apply((runfile, old, data), seen, "--unverified", "--output", str(tmp_path / "out")) == 0
    verdict = yaml.safe_load((tmp_path / "out/verdict.yaml").read_text())
    assert verdict["status"] == "unknown" and "keeps no test spectra" in verdict["verdict"][0]
    with open(tmp_path / "out/amps.csv", newline="") as file:
        assert all(float(row["low68"]) < float(row["high68"]) for row in csv.DictReader(file))


def test_the_error_grows_with_those_of_the_observation_and_noisier_ones_are_said(finished, no_page, tmp_path):
    data = finished[2]
    widths, path = [], tmp_path / "planet.txt"
    for factor in (1, 8):
        np.savetxt(
            path, np.column_stack([data.wavelength, data.spectra[5], factor * data.errors[5]]),
            header="wavelength depth error",
        )  # fmt: skip
        assert apply(finished, path, "--output", str(tmp_path / f"out{factor}")) == 0
        with open(tmp_path / f"out{factor}/amps.csv", newline="") as file:
            widths.append([float(row["high68"]) - float(row["low68"]) for row in csv.DictReader(file)])
    assert np.mean(np.array(widths[1]) / widths[0]) > 1.5
    assert "noisier than the training set" in (tmp_path / "out8/verdict.yaml").read_text()


def test_a_spectrum_unlike_the_training_set_is_said_to_be(finished, no_page, tmp_path, capsys):
    runfile, run, data = finished
    seen = observe(tmp_path / "deep.txt", data, depth_factor=3.0)
    flags = ["--apply", str(run), "--observation", seen, "--auxiliary", "star_radius=7e8", "--no-sensitivity"]
    assert runfile.main([*flags, "--output", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().err
    assert told.count("the network extrapolates") == 1 and told.count("*" * 79) == 2  # one warning, in its frame
    verdict = yaml.safe_load((tmp_path / "out/verdict.yaml").read_text())
    assert verdict["status"] == "outside" and verdict["standard_deviations_from_training"] > 5


def test_spreads_over_folds_and_noise_are_standard_deviations():
    noisy = np.random.default_rng(0).normal(0, [0.3, 40], (2000, 2))
    folds = [np.array([-5.0, 1000.0]), np.array([-4.0, 1000.0])]
    estimate = SimpleNamespace(
        amp_table=[AMPS["H2O"], AMPS["Tp"]],
        values=np.array([-4.5, 1000.0]),
        intervals=np.array([[[-5.0, 900.0], [-4.0, 1100.0]], [[-6.0, 800.0], [-3.0, 1200.0]]]),  # (level, end, AMP)
    )
    water, temperature = table_rows(estimate, noisy, folds)
    assert water["value"] == -4.5 and water["fold_spread"] == pytest.approx(np.sqrt(0.5))
    assert water["noise_spread"] == pytest.approx(0.3, rel=0.05)
    assert temperature["fold_spread"] == 0 and temperature["noise_spread"] == pytest.approx(40, rel=0.05)
    assert np.isnan(table_rows(estimate, noisy, [])[0]["fold_spread"])
    assert [temperature[name] for name in ("low68", "high68", "low95", "high95")] == [900, 1100, 800, 1200]


def test_the_table_holds_retrieval_space_and_the_units_of_the_report():
    table = [AMPS[key] for key in ("H2O", "Mp", "Rp", "Pclouds")]
    values = np.array([-4.0, np.log10(2 * 1.898e27), 1.2 * 6.9911e7, 3.0])
    estimate = SimpleNamespace(amp_table=table, values=values, intervals=np.array([[values - 0.1, values + 0.1]] * 2))
    rows = table_rows(estimate, np.zeros((2, 4)), [])
    assert [row["unit"] for row in rows] == ["dex", "dex(kg)", "m", "dex(Pa)"]
    assert [row["report_unit"] for row in rows] == ["log10 VMR", "M_J", "R_J", "bar"]
    np.testing.assert_allclose([row["value"] for row in rows], values)
    np.testing.assert_allclose([row["report_value"] for row in rows], [-4, 2, 1.2, 0.01])
    assert rows[1]["report_low68"] == pytest.approx(2 * 10**-0.1)
    screen = screen_table(rows, table, 1)
    assert "bar" in screen and "dex(" not in screen
