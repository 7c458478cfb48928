"""What a map can do: shares whose errors cover, the greatest bins, a table, a figure, a file."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sensitivity
from sensitivity import SensitivityMap, sensitivity_map

ROOT = Path(sensitivity.__file__).parent

N_BINS = 12
WAVELENGTH = np.geomspace(0.6, 5, N_BINS)
PROFILE = np.random.default_rng(0).uniform(0.5, 2, N_BINS)


def population(n, seed):
    """Errors of n planets whose scale differs by far more than their bins do, (n, n_bins)."""
    rng = np.random.default_rng(seed)
    scale = rng.lognormal(0, 0.8, (n, 1))
    return 1e-4 * np.sqrt(PROFILE * scale * rng.lognormal(0, 0.3, (n, N_BINS)))


def run(n=20, seed=0, y_test=None, **options):
    """Map of a linear model: that of a planet is its errors squared; the second AMP's is four times as large."""
    weights = np.stack([np.ones(N_BINS), np.full(N_BINS, 2.0)], axis=1)
    defaults = {"scheme": "single", "gases": ["H2O", "Tp"], "no_spectra": None, "input_layout": "flat"}
    return sensitivity_map(
        lambda x: x @ weights, y_test, np.zeros((n, N_BINS)), population(n, seed), np.zeros(2), np.ones(2), x_mean=0,
        x_std=1, **defaults | options,
    )  # fmt: skip


@pytest.mark.parametrize("n", [20, 250])  # beyond 100, groups of spectra are left out
def test_errors_of_shares_cover_the_population(n):
    truth = PROFILE / PROFILE.sum()
    deviations = []
    for seed in range(60):
        shares, errors = run(n, seed, keep_spectra=False).shares()
        deviations.append((shares[0] - truth) / errors[0])
    inside = np.abs(deviations)
    assert 0.60 < (inside < 1).mean() < 0.76 and 0.90 < (inside < 2).mean() < 0.985


def test_shares_tell_bins_apart_that_the_error_of_the_map_does_not():
    result = run(40)
    shares, errors = result.shares()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_allclose(shares[0], shares[1], rtol=1e-4)  # the scale of an AMP cancels
    assert (errors / shares).mean() < 0.5 * (result.standard_error / result.mean).mean()


def test_errors_of_shares_are_the_delete_one_jackknife():
    result = run(7)
    maps = result.per_spectrum[:, 0]
    left_out = np.stack([np.delete(maps, k, axis=0).sum(axis=0) for k in range(7)])
    left_out /= left_out.sum(axis=1, keepdims=True)
    expected = np.sqrt(6 / 7 * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0))
    np.testing.assert_allclose(result.share_error[0], expected)
    chosen = run(7, y_test=np.stack([np.arange(7.0), np.zeros(7)], axis=1), abundance={"H2O": (0.5, 4.5)})
    kept = maps[1:5]
    np.testing.assert_allclose(chosen.shares()[0][0], kept.sum(axis=0) / kept.sum())
    np.testing.assert_allclose(chosen.share_error[1], result.share_error[1])


def test_shares_of_random_repeats_groups_and_a_silent_network():
    shares, errors = run(groups=[[0, 1], [5]], repeat=5, rng=0).shares()
    assert np.isnan(shares[:, 2]).all() and np.nansum(shares[0]) == pytest.approx(1) and errors[0, 0] > 0
    silent = sensitivity_map(lambda x: np.zeros((len(x), 1)), None, np.zeros((3, 4)), np.ones(4), [0], [1],
                             no_spectra=None, x_mean=0, x_std=1, scheme="single")  # fmt: skip
    assert np.isnan(silent.shares()[0]).all()


def test_top_names_the_greatest_bins():
    result = run()
    top = result.top(3)
    assert top.shape == (2, 3)
    assert top[0].tolist() == np.argsort(-result.mean[0])[:3].tolist()
    assert WAVELENGTH[top].shape == (2, 3)
    grouped = run(groups=[[3], [5]], repeat=5, rng=0)
    assert set(grouped.top(2)[0]) == {3, 5}
    for bad in (0, 13, 2.5, True):
        with pytest.raises(ValueError, match=r"^n: expected a positive integer up to 12, received"):
            result.top(bad)


def test_frame_has_a_line_for_each_amp_and_bin():
    pytest.importorskip("pandas")
    result = run()
    frame = result.to_frame(WAVELENGTH)
    assert len(frame) == 2 * N_BINS
    row = frame[(frame["amp"] == "Tp") & (frame["bin"] == 4)].iloc[0]
    assert row["mean"] == result.mean[1, 4] and row["wavelength"] == WAVELENGTH[4]
    assert row["share"] == result.shares()[0][1, 4] and row["slope"] == result.slope[1, 4]
    random = run(nodes=None, repeat=3, rng=0).to_frame()
    assert "slope" not in random and "wavelength" not in random and "repeat_error" in random


def test_frame_without_pandas_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_frame needs pandas"):
        run().to_frame()


def test_plot_draws_the_shares_with_their_errors_over_the_bands():
    result = run()
    figure = result.plot(WAVELENGTH)
    water, temperature = figure.axes[:2]
    drawn = water.containers[0][0].get_xydata()
    np.testing.assert_allclose(drawn[:, 1], 100 * result.shares()[0][0])
    assert len(water.patches) > 0 and len(temperature.patches) == 0  # bands are known of molecules only
    assert water.get_xscale() == "log" and "micron" in figure.get_supxlabel()
    assert figure.get_supylabel() == "Share (%)"  # a longer one is cut beside a single row
    assert not result.plot(WAVELENGTH, bands=False).axes[0].patches
    assert result.plot().axes[0].get_xscale() == "linear"
    with pytest.raises(ValueError, match=r"^wavelength: expected shape \(12,\), received \(3,\)"):
        result.plot([1, 2, 3])


def test_plot_draws_into_given_axes_and_beside_the_best_map():
    figures = pytest.importorskip("matplotlib.figure")
    figure, result = figures.Figure(), run(wavelength=WAVELENGTH)
    axes = figure.subplots(1, 2)
    best = np.ones((2, N_BINS))
    for given in (best, run(groups=[list(range(N_BINS))], repeat=5, rng=0)):
        assert result.plot(ax=axes, best=given) is figure
    np.testing.assert_allclose(axes[0].lines[0].get_ydata(), 100 / N_BINS)
    assert axes[1].get_xscale() == "log"  # the wavelengths of the map
    with pytest.raises(ValueError, match=r"^ax: expected one for each of 2 AMPs, received 1"):
        result.plot(ax=axes[0])
    with pytest.raises(ValueError, match=r"^best: expected shape \(2, 12\), received \(2, 3\)"):
        result.plot(best=np.ones((2, 3)))


def test_a_map_is_printed_in_a_line_for_each_amp():
    result = run(wavelength=WAVELENGTH)
    first, water, temperature = repr(result).splitlines()
    assert first == "SensitivityMap: 2 AMPs, 12 bins; each bin alone, 5 nodes; 20 spectra"
    column, share, error = result.top(1)[0, 0], *(100 * array[0] for array in result.shares())
    largest = f"{WAVELENGTH[column]:.4g} micron: {share[column]:.1f} ± {error[column]:.1f} %"
    total = f"noise moves it by {np.sqrt(result.mean[0].sum()):.2g}; "
    assert water.startswith(f"  H2O  {total}{largest}, ") and temperature.startswith("  Tp   noise moves it by ")
    table = result._repr_html_()
    assert table.count("<tr>") == 2 and f"<td>{total}</td><td>{largest}</td>" in table
    odd = run(gases=["<b>", "x"], groups=[[3]], repeat=1, no_spectra=1, rng=0)
    assert "&lt;b&gt;" in odd._repr_html_() and "1 spectrum" in repr(odd) and ">  bin 3: 100.0 %" in repr(odd)


def test_a_row_is_found_by_the_name_of_its_amp():
    result = run()
    for name in ("H2O", "h2o", r"H$_2$O"):
        assert np.array_equal(result[name], result.mean[0])
    with pytest.raises(KeyError, match="CO: expected one of H2O, Tp"):
        result["CO"]


def test_data_set_of_xarray_has_labels():
    pytest.importorskip("xarray")
    found = run(wavelength=WAVELENGTH).to_xarray()
    assert found["mean"].dims == ("amp", "wavelength") and found["wavelength"].attrs["units"] == "micron"
    np.testing.assert_array_equal(found["share"].sel(amp="Tp"), run().shares()[0][1])
    assert run().to_xarray()["per_spectrum"].dims == ("spectrum", "amp", "bin")


def test_wavelengths_travel_with_the_map(tmp_path):
    result = run(wavelength=list(WAVELENGTH))
    result.save(tmp_path / "map.h5")
    again = SensitivityMap.load(tmp_path / "map.h5")
    assert again.wavelength.tolist() == WAVELENGTH.tolist()
    assert run(wavelength=WAVELENGTH, directions=np.ones((2, N_BINS))).wavelength is None
    with pytest.raises(ValueError, match=r"^wavelength: expected shape \(12,\), received \(3,\)"):
        run(wavelength=[1, 2, 3])


def test_wavelengths_in_another_unit_are_told():
    with pytest.warns(UserWarning, match=r"^wavelength: expected micron, received numbers up to"):
        run(wavelength=1000 * WAVELENGTH)


def test_a_full_disk_is_one_error_and_no_crash(tmp_path):
    resource = pytest.importorskip("resource")
    run().save(tmp_path / "old.h5")
    code = "import sensitivity; sensitivity.SensitivityMap.load('old.h5').save('new.h5')"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)), capture_output=True,
    )  # fmt: skip
    assert found.returncode == 1 and found.stderr.count("Traceback") == 1
    assert "File too large" in found.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["old.h5"]


def test_saved_map_carries_all_arrays(tmp_path):
    result = run()
    result.save(tmp_path / "map.h5")
    again = SensitivityMap.load(tmp_path / "map.h5")
    for name, value in vars(result).items():
        np.testing.assert_equal(getattr(again, name), value)


def test_map_of_an_older_version_is_read_and_has_no_shares(tmp_path):
    h5py = pytest.importorskip("h5py")
    result = run(nodes=None, repeat=3, rng=0)
    with h5py.File(tmp_path / "map.h5", "w") as file:
        result.save(file)
        del file["share_error"], file.attrs["nodes"], file.attrs["rule"]
    old = SensitivityMap.load(tmp_path / "map.h5")
    assert np.array_equal(old.mean, result.mean) and old.nodes is None and old.rule is None
    with pytest.raises(ValueError, match="share_error: expected"):
        old.shares()
