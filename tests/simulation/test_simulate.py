"""The simulation: same planets whatever the run, resuming, the cloud deck, tables of the user's, the band model."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from processes import LINUX, left_of

pytest.importorskip("taurex")

import taurex_reference

from simulation import __main__ as command
from simulation import survey
from simulation.ariel import ariel_grid, noise
from simulation.design import ARIEL, PRIORS, REFERENCE_PLANET
from simulation.forward_model import NAMES, ForwardModel, binning_matrix
from studies import bandmodel
from studies.molecules import MOLECULES as CONSTANTS
from studies.molecules import REFERENCE_TEMPERATURE

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:taurex.*")  # it uses its own old names
COMMAND = [sys.executable, "-m", "simulation", "--seed", "7"]


def run(*arguments):
    return subprocess.run([*COMMAND, *map(str, arguments)], cwd=REPOSITORY, capture_output=True, text=True)


def read(path):
    with h5py.File(path) as file:
        return {key: file[key][()] for key in ("spectra", "errors", "amps", "wavelength", "bin_width")}


@pytest.fixture(scope="module")
def model():
    return ForwardModel()


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Folder of TauREx tables as a user would bring them: the band model's, at three temperatures."""
    return taurex_reference.write_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def cloudy():
    """A planet in retrieval space whose spectrum the cloud deck shapes."""
    amps = np.array(REFERENCE_PLANET)
    amps[:5], amps[8] = -5.0, 3.0
    return amps


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """Five planets in one chunk, made through the command line by two processes."""
    out = tmp_path_factory.mktemp("simulate") / "five.h5"
    result = run("--n", 5, "--out", out)
    assert result.returncode == 0, result.stderr
    return out


# --- the run ---


def test_short_run_is_the_beginning_of_a_long_one_whatever_the_processes(small_run, tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "CHUNK", 2)
    survey.simulate(3, 7, tmp_path / "three.h5", processes=1, progress=False)
    three, five = read(tmp_path / "three.h5"), read(small_run)
    for key in ("spectra", "errors", "amps"):
        np.testing.assert_array_equal(three[key], five[key][:3])


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(model):
    first, again = ARIEL.draw_amps(4, 7), ARIEL.draw_amps(2, 7, start=2)
    np.testing.assert_array_equal(first[2:], again)
    assert not np.any(ARIEL.draw_amps(4, 8) == first)
    np.testing.assert_array_equal(first, first.astype(np.float32))  # nothing is lost in single precision


def test_file_is_byte_identical_and_holds_the_agreed_layout(small_run, model, tmp_path):
    copy = tmp_path / small_run.name
    amps = ARIEL.draw_amps(5, 7)
    depth = np.round(model.depth(amps) / survey.DEPTH_STEP) * survey.DEPTH_STEP
    survey.write_file(copy, depth, survey.molecule_curves(model), 7)
    assert copy.read_bytes() == small_run.read_bytes()
    with h5py.File(copy) as file:
        assert file["spectra"].shape == file["errors"].shape == (5, 52)
        assert list(file["amps"].attrs["names"]) == list(PRIORS)
        assert set(file["molecule_curves"]) == {"none", *NAMES[:5]} and "offsets" not in file
        assert json.loads(file.attrs["priors"])["Tp"]["range"] == [700.0, 2000.0]


def test_nothing_is_left_beside_a_finished_file(small_run):
    assert [path.name for path in small_run.parent.iterdir()] == ["five.h5"]


KILLED = """
import os, pathlib, signal, sys, time
sys.path.insert(0, os.environ["REPOSITORY"])
from simulation import __main__, survey

survey.CHUNK, make_chunk = 4, survey._make_chunk


def make_chunk_or_kill_the_parent(task):
    if task[1]["start"] == 4:
        pathlib.Path("worker").write_text(str(os.getpid()))
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(3600)
    return make_chunk(task)


survey._make_chunk = make_chunk_or_kill_the_parent
if __name__ == "__main__":
    __main__.main()
"""


def test_killed_run_leaves_no_worker_and_goes_on_from_its_finished_chunks(tmp_path, monkeypatch, caplog):
    out, parts, n = tmp_path / "out.h5", tmp_path / "out.h5.parts", 18
    (tmp_path / "killed.py").write_text(KILLED)
    command = [sys.executable, "killed.py", "--seed", "7", "--n", str(n), "--out", str(out), "--processes", "1"]
    environment = {**os.environ, "REPOSITORY": str(REPOSITORY)}
    killed = subprocess.run(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    assert killed.returncode == -9
    assert not LINUX or not left_of({int((tmp_path / "worker").read_text())})
    assert [path.name for path in parts.glob("*.npz")] == ["0000000-0000004.npz"] and not out.exists()
    finished = parts / "0000000-0000004.npz"
    with np.load(finished) as chunk:
        settings, depth = json.loads(str(chunk["settings"])), chunk["depth"]
    survey.write_chunk(finished, settings, np.full_like(depth, 0.25))  # a mark shows that the chunk was kept
    survey.write_chunk(parts / "0000004-0000008.npz", {**settings, "start": 4, "stop": 8}, np.full_like(depth, 0.5))
    torn = (parts / "0000004-0000008.npz").read_bytes()
    (parts / "0000004-0000008.npz").write_bytes(torn[:200] + b"\0" * 8 + torn[208:])
    (parts / "0000008-0000012.npz").write_bytes(b"half a file")
    (parts / ".part77-0000012-0000016.npz").write_bytes(b"half of one that was being written")
    monkeypatch.setattr(survey, "CHUNK", 4)
    survey.simulate(n, 7, out, processes=1, progress=False)
    result = read(out)
    assert (result["spectra"][:4] == 0.25).all()
    assert result["spectra"][4:].max() < 0.2
    np.testing.assert_array_equal(result["amps"], ARIEL.draw_amps(n, 7))
    assert not parts.exists()
    assert [r.message.partition(".npz: ")[2] for r in caplog.records] == ["damaged, and made again"] * 2


def damaged(how, path, settings, depth):
    """Write a chunk and damage it."""
    survey.write_chunk(path, settings, depth)
    content = bytearray(path.read_bytes())
    at = content.find(np.ascontiguousarray(depth).tobytes()[:64])
    if how == "cut":
        del content[-300:]
    elif how == "a byte flipped":
        content[at + 5] ^= 1
    elif how == "zeros":
        content[at : at + 64] = bytes(64)
    if how in ("NaN", "another checksum"):
        digest = "0" * 64 if how != "NaN" else survey._chunk_digest(json.dumps(settings), depth)
        np.savez(path, settings=json.dumps(settings), depth=depth if how != "NaN" else depth * np.nan, sha256=digest)
    else:
        path.write_bytes(b"" if how == "empty" else bytes(content))


@pytest.mark.parametrize("how", ["cut", "a byte flipped", "zeros", "NaN", "another checksum", "empty"])
def test_damaged_chunk_is_said_and_not_taken(how, tmp_path, caplog):
    path, depth = tmp_path / "0000000-0000002.npz", np.linspace(0.01, 0.02, 104).reshape(2, 52)
    survey.write_chunk(path, {"seed": 1}, depth)
    np.testing.assert_array_equal(survey.read_chunk(path, {"seed": 1}), depth)
    damaged(how, path, {"seed": 1}, depth)
    assert survey.read_chunk(path, {"seed": 1}) is None
    assert caplog.text.count("damaged, and made again") == 1


def place(kind, folder):
    """Put something where a survey is to be written; returns the place."""
    out, parts = folder / "x.h5", folder / "x.h5.parts"
    if kind == "a text":
        out.write_text("my thesis")
    elif kind == "another HDF5 file":
        h5py.File(out, "w").close()
    elif kind == "a folder":
        out.mkdir()
    elif kind == "a pipe":
        os.mkfifo(out)
    elif kind == "a link":
        (folder / "other.h5").write_text("my thesis")
        out.symlink_to(folder / "other.h5")
    elif kind == "parts with other files":
        parts.mkdir()
        (parts / "notes.txt").write_text("mine")
    elif kind == "parts that are a file":
        parts.write_text("mine")
    return out


REFUSED = {
    "a text": "not a survey, and only a survey is ever replaced",
    "another HDF5 file": "not a survey, and only a survey is ever replaced",
    "a folder": "received a folder, link or device",
    "a pipe": "received a folder, link or device",
    "a link": "received a folder, link or device",
    "parts with other files": "received one with other files",
    "parts that are a file": "expected no file, or the folder of an unfinished survey",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_nothing_but_a_survey_is_ever_replaced(kind, tmp_path):
    out = place(kind, tmp_path)
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=REFUSED[kind]):
            survey.simulate(2, 7, out, overwrite=overwrite)
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_survey_is_replaced_only_when_asked(small_run, tmp_path):
    out = Path(shutil.copy(small_run, tmp_path))
    with pytest.raises(ValueError, match="holds a survey; --overwrite to replace it"):
        survey.check_place(out, overwrite=False)
    survey.check_place(out, overwrite=True)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--n", "0", "--out", "{tmp}/x.h5"], "--n"),
        (["--seed", "-1", "--out", "{tmp}/x.h5"], "--seed: expected 0 to 2147483647, received -1"),
        (["--seed", "1" + 30 * "0", "--out", "{tmp}/x.h5"], "--seed: expected 0 to 2147483647"),
        (["--out", "no/such/folder/x.h5"], "no folder"),
        (["--out", "data/ariel_spectra.h5"], "--overwrite to replace it"),
        (["--out", "/dev/null"], "expected a new file or a survey, received a folder, link or device"),
        (["--n", "1", "--opacities", "no/such/folder", "--out", "{tmp}/x.h5"], "expected a folder of TauREx tables"),
        (["--n", "1", "--opacities", "{tmp}", "--out", "{tmp}/x.h5"], "no table for CH4, CO, CO2, H2O, NH3"),
    ],
)
def test_bad_input_ends_with_one_line_and_status_2(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main([argument.format(tmp=tmp_path) for argument in arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error and len(error.strip().splitlines()) == 1


def test_a_full_disk_ends_with_one_line_that_names_the_file_and_status_1(tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("simulation.survey.simulate", full)
    with pytest.raises(SystemExit, match="1"):
        command.main(["--n", "1", "--out", str(tmp_path / "x.h5")])
    line = f"simulation: {tmp_path / 'x.h5'}: No space left on device; make room there and repeat the command\n"
    assert capsys.readouterr().err == line


def test_no_survey_is_made_without_a_place_for_it(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["--n", "20"])
    assert "required: --out" in capsys.readouterr().err


def test_tables_without_taurex_are_refused_in_one_line(tables, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="tables of your own need TauREx 3: pip install taurex"):
        ForwardModel(tables)


def test_surveys_of_the_shipped_opacities_do_without_taurex():
    code = "import sys; sys.modules['taurex'] = None; import simulation.survey as s; s.forward_model(s.ARIEL)"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_insane_depth_is_refused():
    amps = ARIEL.draw_amps(2, 7)
    depth = np.repeat((amps[:, 6:7] / 6.957e8) ** 2, 52, axis=1)
    survey.check_depth(depth, amps)
    for value in (np.nan, np.inf, 1.0):
        depth[1, 3] = value
        with pytest.raises(ValueError, match="depth: expected finite"):
            survey.check_depth(depth, amps)


# --- physics of the forward model ---


@pytest.mark.parametrize("kind", ["as they are", "with pressures"])
def test_tables_give_the_same_depth_through_taurex_own_absorption(tables, tmp_path, kind):
    if kind == "with pressures":
        shutil.copytree(tables, tmp_path, dirs_exist_ok=True)
        for path in tmp_path.glob("*.h5"):
            with h5py.File(path, "r+") as file:
                sigma = np.stack([file["xsecarr"][0] * factor for factor in (0.5, 1.0, 3.0)])
                del file["xsecarr"], file["p"]
                file["xsecarr"], file["p"] = sigma, np.array([1e-2, 1e3, 1e8])
                file["p"].attrs["units"] = "Pa"
        tables = tmp_path
    amps = ARIEL.draw_amps(1, 7)[0]
    amps[8] = 4.6 + 1e-9  # on the boundary of a layer, where TauREx's clouds are ours
    model = ForwardModel(tables)
    wavenumber, depth = model.native_depth(amps)
    expected = taurex_reference.reference(dict(zip(PRIORS, amps)), wavenumber, np.full(200, amps[7]), "tables")
    np.testing.assert_allclose(depth, expected, rtol=1e-6)


def test_users_tables_may_have_zeros_and_pressures_in_bar(tables, tmp_path):
    model = ForwardModel(tables)
    shutil.copytree(tables, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.glob("*.h5"):
        with h5py.File(path, "r+") as file:
            sigma = np.repeat(file["xsecarr"][:1], 3, axis=0)
            sigma[sigma < 1e-28] = 0.0
            del file["xsecarr"], file["p"]
            file["xsecarr"], file["p"] = sigma, np.logspace(-9, 3, 3)
            file["p"].attrs["units"] = "bar"
    amps = ARIEL.draw_amps(2, 7)
    amps[:, 7] = [700.0, 1400.0]  # nodes: interpolation is linear with zeros, of the logarithm without
    np.testing.assert_allclose(ForwardModel(tmp_path).depth(amps), model.depth(amps), rtol=2e-3)  # linear in T


def test_depth_is_continuous_and_monotonic_in_cloud_top_pressure(model, cloudy):
    log_pressure = np.linspace(2.95, 3.25, 61)  # three layers
    depth = model.depth([np.append(cloudy[:8], value) for value in log_pressure])
    step = np.diff(depth[:, 0])  # the bluest bin: nothing but cloud and Rayleigh scattering
    assert (step < 0).all()
    assert step.min() > 2 * step.mean()  # a staircase has all of a layer's change in one step


def test_radius_is_metres_at_the_bottom_and_mass_is_kilograms(model):
    bare = np.array(REFERENCE_PLANET)
    bare[:5], bare[5] = -np.inf, 31.0  # so heavy that the atmosphere has no height
    np.testing.assert_allclose(model.depth(bare), (bare[6] / 6.957e8) ** 2, rtol=1e-4)


def test_binning_agrees_with_taurex_flux_binner(model, cloudy):
    from taurex.binning import FluxBinner

    wavenumber, depth = model.native_depth(cloudy)
    edges = np.sort(1e4 / ariel_grid()[2], axis=1)
    expected = FluxBinner(edges.mean(axis=1), edges[:, 1] - edges[:, 0]).bindown(wavenumber, depth)[1][::-1]
    np.testing.assert_allclose(model.depth(cloudy), expected, rtol=5e-6)  # it takes cells to be symmetric
    np.testing.assert_allclose(binning_matrix(wavenumber).sum(axis=1), 1.0)


def test_wrong_number_of_amps_is_named(model):
    with pytest.raises(ValueError, match=r"amps: expected shape \(9,\) or \(N, 9\), received \(8,\)"):
        model.depth(np.zeros(8))


def test_noise_has_floor_and_stated_median():
    wavelength = ariel_grid()[0]
    errors = noise(np.array([20.0, 80.0]))
    assert errors.shape == (2, 52)
    assert (errors >= 20e-6).all()
    photon = np.sqrt(errors**2 - 20e-6**2)
    np.testing.assert_allclose(np.median(photon[:, wavelength > 1.95], axis=1), [20e-6, 80e-6], rtol=1e-6)


# --- the band model ---


def test_water_levels_of_j_1_are_the_observed_ones():
    energy = bandmodel.asymmetric_levels(CONSTANTS["H2O"].rotational_constants)[1][0]
    np.testing.assert_allclose(energy, [23.79, 37.14, 42.37], atol=0.1)  # cm-1, Herzberg 1945


def test_b_type_lines_from_the_ground_level_reach_1_11_alone():
    offset, strength, lower = bandmodel.asymmetric_transitions(
        (27.881, 14.522, 9.278), (27.881, 14.522, 9.278), "b-type"
    )
    from_ground = offset[lower == 0]
    assert len(strength[lower == 0]) == 1
    np.testing.assert_allclose(from_ground, 37.14, atol=0.1)


@pytest.mark.parametrize("name", CONSTANTS)
def test_cold_cross_section_integrates_to_the_band_intensities(name):
    sigma = bandmodel.cross_section(name, REFERENCE_TEMPERATURE)
    total = sum(band.intensity for band in CONSTANTS[name].bands)
    assert (sigma >= 0).all()
    np.testing.assert_allclose(sigma.sum() * bandmodel.STEP, total, rtol=0.03)
