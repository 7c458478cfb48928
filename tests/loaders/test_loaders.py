import json
import os
import shutil

import h5py
import layouts
import numpy as np
import pytest
from layouts import KEYS, Truth

from loaders import FORMATS, load_dataset


@pytest.fixture(autouse=True)
def _own_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))


@pytest.fixture
def truth():
    return Truth()


def assert_same(data, truth, keys):
    np.testing.assert_allclose(data.spectra, truth.spectra, rtol=1e-12)
    np.testing.assert_allclose(data.wavelength, truth.wavelength)
    assert data.amp_names == tuple(keys)
    np.testing.assert_allclose(data.amps, truth.column(*keys), rtol=1e-10)


def refusal(path, **options):
    """Return the one line that a data set is refused with."""
    with pytest.raises(ValueError) as info:
        load_dataset(path, **options)
    assert "\n" not in str(info.value)
    return str(info.value)


# Each layout against the truth


@pytest.mark.parametrize("descending", [False, True])
def test_own_layout(tmp_path, truth, descending):
    path = layouts.write_own(tmp_path / "d.h5", truth, descending, noisy=True)
    data = load_dataset(path, auxiliary=["star_radius"])
    assert_same(data, truth, KEYS)
    np.testing.assert_allclose(data.errors, truth.errors)
    np.testing.assert_allclose(data.bin_width, truth.bin_width)
    np.testing.assert_allclose(data.molecule_curves["H2O"], truth.spectra[0])
    np.testing.assert_allclose(data.auxiliary[:, 0], truth.star_radius)
    assert data.noisy and data.amp_table[5].unit == "kg" and data.amp_table[0].scale == "log10"


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("as_file", [True, False])
def test_paper_pair(tmp_path, truth, named, as_file):
    folder = layouts.write_paper(tmp_path / "pair", truth, named)
    data = load_dataset(folder / "lowX_spectra.npy" if as_file else folder, auxiliary=["star_radius"])
    assert_same(data, truth, KEYS)
    np.testing.assert_allclose(data.errors, truth.errors)
    np.testing.assert_allclose(data.auxiliary[:, 0], truth.star_radius)


@pytest.mark.parametrize("year", [2022, 2023])
@pytest.mark.parametrize("prefix, id_prefix", [("Planet_", ""), ("Planet_train", "train"), ("train", "train")])
def test_challenge_aligns_scrambled_keys(tmp_path, truth, year, prefix, id_prefix):
    folder = layouts.write_challenge(tmp_path / "TrainingData", truth, year, prefix, id_prefix)
    keys = ["H2O", "CH4", "CO", "CO2", "NH3", *(["Rp"] if year == 2023 else []), "Tp"]
    for attempt in (folder, folder, tmp_path):  # read, read from the cached copy, named by the folder above
        data = load_dataset(attempt, auxiliary=["star_radius", "star_distance"])
        assert_same(data, truth, keys)
        np.testing.assert_allclose(data.errors, truth.errors)
        np.testing.assert_allclose(data.bin_width, truth.bin_width)
        np.testing.assert_allclose(data.auxiliary[:, 0], truth.star_radius)
        np.testing.assert_allclose(data.auxiliary[:, 1], np.arange(truth.n) + 50.0)
    data = load_dataset(folder, targets=["Mp", "Rp", "H2O"])
    assert_same(data, truth, ["Mp", "Rp", "H2O"])


@pytest.mark.parametrize("log", [True, False])
def test_abc_level_1(tmp_path, truth, log):
    folder = layouts.write_level_1(tmp_path / "Level1Data", truth, log)
    data = load_dataset(folder, auxiliary=["star_radius"])
    assert_same(data, truth, ["H2O", "CH4", "CO", "CO2", "NH3", "Tp"])
    np.testing.assert_allclose(data.auxiliary[:, 0], truth.star_radius)


def test_hela(tmp_path, truth):
    folder = layouts.write_hela(tmp_path / "hela", truth)
    data = load_dataset(folder)
    np.testing.assert_allclose(data.spectra, truth.spectra)
    np.testing.assert_allclose(data.errors, np.tile(truth.errors[0], (truth.n, 1)))
    assert data.amp_names == ("Tp", "H2O", "kappa0")
    np.testing.assert_allclose(data.amps[:, :2], truth.column("Tp", "H2O"))
    assert data.noisy and data.test_rows.tolist() == [8, 9, 10, 11] and data.amp_table[1].scale == "log10"
    layouts.write_hela(tmp_path / "plain", truth, n_test=0, percent=False)
    assert load_dataset(tmp_path / "plain" / "example_dataset.json").test_rows is None


def test_unknown_targets_are_carried_through(tmp_path, truth):
    folder = layouts.write_hela(tmp_path / "hela", truth)
    table = load_dataset(folder, targets=["kappa0", "Tp"]).amp_table
    assert [a.key for a in table] == ["kappa0", "Tp"] and table[0].scale == "linear"


# Units and targets


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("%", 100), ("Percent", 100), ("per cent", 100), ("PPM", 1e6), ("", 1), ("fraction", 1), ("(Rp/Rs)^2", 1),
     ("transit depth (Rp/Rs)^2, dimensionless, noise-free", 1), (np.array(["ppm"], dtype=object), 1e6)],
)  # fmt: skip
def test_own_layout_takes_the_unit_that_it_states(tmp_path, truth, unit, factor):
    path = layouts.write_own(tmp_path / "d.h5", truth)
    with h5py.File(path, "a") as file:
        for name in ("spectra", "errors", "molecule_curves/H2O"):
            if name in file:
                file[name][...] *= factor
        file["spectra"].attrs["unit"] = unit
        file["wavelength"][...] *= 1000
        file["wavelength"].attrs["unit"] = "nm"
    data = load_dataset(path)
    np.testing.assert_allclose(data.spectra, truth.spectra)
    np.testing.assert_allclose(data.wavelength, truth.wavelength)


@pytest.mark.parametrize(
    ("value", "noisy"),
    [("false", False), ("0", False), ("No", False), (0, False), (np.array([False]), False), (b"true", True), (1, True),
     ("True", True), (np.True_, True), ("yes", True)],
)  # fmt: skip
def test_own_layout_takes_a_flag_for_what_it_says(tmp_path, truth, value, noisy):
    path = layouts.write_own(tmp_path / "d.h5", truth)
    with h5py.File(path, "a") as file:
        file.attrs["noisy"] = value
    assert load_dataset(path).noisy is noisy


@pytest.mark.parametrize("unit, factor", [("fraction", 1.0), ("percent", 100.0), ("ppm", 1e6)])
@pytest.mark.parametrize("stated", [True, False])
def test_units_are_stated_or_guessed(tmp_path, truth, unit, factor, stated, caplog):
    folder = layouts.write_hela(tmp_path / "hela", truth, n_test=0, percent=False)
    rows = np.load(folder / "training.npy")
    rows[:, : truth.n_bins] *= factor
    np.save(folder / "training.npy", rows)
    np.save(folder / "error_bars.npy", truth.errors[0] * factor)
    data = load_dataset(folder, depth_unit=unit if stated else "auto")
    np.testing.assert_allclose(data.spectra, truth.spectra)
    np.testing.assert_allclose(data.errors[0], truth.errors[0])
    assert ("guessed as " + unit in caplog.text) is not stated


@pytest.mark.parametrize("median", [0.1, 20.0, 1e-9, -1.0, 1e9])
def test_ambiguous_units_are_refused(tmp_path, truth, median):
    truth.spectra *= median / np.median(truth.spectra)
    folder = layouts.write_hela(tmp_path / "hela", truth, percent=False)
    assert "cannot be guessed" in refusal(folder)


def test_implausible_units_are_refused(tmp_path, truth):
    truth.spectra[3:5] *= 1e6
    line = refusal(layouts.write_own(tmp_path / "d.h5", truth))
    assert "depth_unit" in line and "2 rows (3, 4)" in line


def test_linear_abundance_outside_the_domain_of_the_logarithm_is_refused(tmp_path, truth):
    truth.amps["CO"][[1, 4]] = -np.inf
    line = refusal(layouts.write_paper(tmp_path / "pair", truth))
    assert "CO" in line and "2 rows (1, 4)" in line


def test_widths_can_be_stated_as_half(tmp_path, truth):
    path = layouts.write_own(tmp_path / "d.h5", truth)
    np.testing.assert_allclose(load_dataset(path, width="half").bin_width, 2 * truth.bin_width)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"targets": ["H2O", "XX"]}, "no target XX"),
        ({"targets": []}, "no targets"),
        ({"targets": ["Tp", "Tp"]}, "must not repeat"),
        ({"auxiliary": ["age"]}, "no auxiliary input age; it holds star_radius"),
        ({"depth_unit": "cm"}, "fraction, percent or ppm"),
        ({"width": "wide"}, "full or half"),
        ({"format": "fits"}, "data.format must be auto or one of challenge, abc1, paper, hela, hdf5"),
        ({"format": "paper"}, "expected one *spectra.npy"),
        ({"format": "challenge"}, "SpectralData.hdf5"),
        ({"format": "abc1"}, "observations.hdf5"),
        ({"format": "hela"}, "JSON"),
    ],
)
def test_bad_options_are_refused(tmp_path, truth, options, words):
    assert words in refusal(layouts.write_own(tmp_path / "d.h5", truth), **options)


def test_unknown_layout_lists_the_known_ones(tmp_path):
    line = refusal(tmp_path)
    assert all(layout.name in line for layout in FORMATS)
    assert "no such file" in refusal(tmp_path / "absent")


# Bad content


def _nan(truth):
    truth.spectra[[2, 5], 1] = np.nan


def _infinite_error(truth):
    truth.errors[4, 0] = np.inf


def _negative_error(truth):
    truth.errors[[0, 1, 2], 3] = -1e-5


def _zero_error(truth):
    truth.errors[7, 3] = 0


def _scrambled(truth):
    truth.wavelength[[1, 2]] = truth.wavelength[[2, 1]]


def _duplicate_bin(truth):
    truth.wavelength[2] = truth.wavelength[1]


def _nanometre(truth):
    truth.wavelength *= 1000


def _nan_target(truth):
    truth.amps["H2O"][3] = np.nan


def _constant_target(truth):
    truth.amps["Tp"][:] = 1000.0


BAD = [
    (_nan, "2 rows (", "NaN"),
    (_infinite_error, "1 row (", "infinite"),
    (_negative_error, "3 rows (", "positive"),
    (_zero_error, "1 row (", "positive"),
    (_scrambled, "not sorted", "1 bins"),
    (_duplicate_bin, "1 duplicate", "wavelength"),
    (_nanometre, "micron", "wavelengths from 600"),
    (_nan_target, "AMP H2O is NaN", "1 row ("),
    (_constant_target, "Tp", "all 12 rows"),
]
WRITERS = {
    "own": lambda folder, truth: layouts.write_own(folder / "d.h5", truth),
    "paper": lambda folder, truth: layouts.write_paper(folder / "pair", truth),
    "challenge": lambda folder, truth: layouts.write_challenge(folder / "adc", truth),
    "abc1": lambda folder, truth: layouts.write_level_1(folder / "abc", truth),
}


@pytest.mark.parametrize("spoil, first, second", BAD, ids=[spoil.__name__ for spoil, *_ in BAD])
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_bad_values_are_refused_with_their_count(tmp_path, truth, spoil, first, second, write):
    spoil(truth)
    line = refusal(write(tmp_path, truth))
    assert first in line and second in line, line
    assert str(tmp_path) in line


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("errors", np.ones((11, 7)), "errors have shape (11, 7), spectra (12, 7)"),
        ("errors", np.ones(7), "expected numbers with 2 axes"),
        ("wavelength", np.linspace(1, 2, 8), "8 wavelengths for spectra of 7 bins"),
        ("amps", np.ones((11, 9)), "11 values of H2O for 12 spectra"),
        ("amps", np.ones((12, 8)), "'names'"),
        ("amps", None, "no dataset /amps"),
        ("spectra", np.full((12, 7), b"x"), "expected numbers"),
        ("spectra", np.ones((0, 7)), "errors have shape (12, 7), spectra (0, 7)"),
        ("bin_width", np.zeros(7), "bin_width must be positive, 7 are not"),
        ("bin_width", np.ones(6), "bin_width has shape (6,)"),
        ("auxiliary", np.ones((12, 2)), "/auxiliary attribute 'names'"),
        ("auxiliary", np.ones((11, 1)), "11 values of star_radius for 12 spectra"),
        ("auxiliary", np.full((12, 1), np.nan), "auxiliary input star_radius is NaN or infinite in 12 rows"),
        ("molecule_curves/H2O", np.ones(6), "molecule curve H2O"),
        ("test_rows", np.array([3, 12]), "test_rows must be row numbers from 0 to 11"),
    ],
)
def test_own_layout_with_mismatched_parts_is_refused(tmp_path, truth, name, value, words):
    path = layouts.write_own(tmp_path / "d.h5", truth)
    with h5py.File(path, "a") as file:
        attributes = dict(file[name].attrs) if name in file else {}
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value
            file[name].attrs.update(attributes)
    assert words in refusal(path, auxiliary=["star_radius"])


@pytest.mark.parametrize(
    "attribute, value", [("names", ["H2O"] * 9), ("names", "H2O"), ("scale", ["log"] * 9), ("units", ["kg"])]
)
def test_own_layout_with_wrong_attributes_is_refused(tmp_path, truth, attribute, value):
    path = layouts.write_own(tmp_path / "d.h5", truth)
    with h5py.File(path, "a") as file:
        file["amps"].attrs[attribute] = value
    assert attribute in refusal(path)


def test_challenge_names_the_groups_with_bad_values(tmp_path, truth):
    truth.spectra[3, 0] = np.nan
    folder = layouts.write_challenge(tmp_path / "adc", truth)
    line = refusal(folder)
    assert f"spectra hold NaN or infinite values in 1 row (Planet_train{truth.ids[3]})" in line and str(folder) in line


def test_missing_planets_are_refused(tmp_path, truth):
    folder = layouts.write_challenge(tmp_path / "adc", truth)
    with h5py.File(folder / "SpectralData.hdf5", "a") as file:
        del file[f"Planet_train{truth.ids[2]}"]
    line = refusal(folder)
    assert f"1 row ({truth.ids[2]})" in line and "SpectralData.hdf5 does not hold" in line
    layouts.write_planets(folder / "SpectralData.hdf5", truth, "Planet_train")
    table = folder / "AuxillaryTable.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-2]) + "\n")
    assert "2 rows" in refusal(folder)


def test_surplus_planets_are_refused(tmp_path, truth):
    folder = layouts.write_challenge(tmp_path / "adc", truth)
    table = folder / "Ground Truth Package" / "FM_Parameter_Table.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    assert "1 row" in refusal(folder)


def test_duplicate_ids_are_refused(tmp_path, truth):
    folder = layouts.write_challenge(tmp_path / "adc", truth)
    table = folder / "AuxillaryTable.csv"
    table.write_text(table.read_text() + table.read_text().splitlines()[-1] + "\n")
    line = refusal(folder)
    assert "AuxillaryTable.csv" in line and "repeats IDs in 1 row" in line


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("instrument_noise", np.ones(3), "has shape (3,), expected (7,)"),
        ("instrument_wlgrid", np.linspace(1, 2, 7), "instrument_wlgrid differs"),
        ("instrument_width", np.full(7, 0.3), "instrument_width differs"),
        ("instrument_spectrum", None, "has no readable instrument_spectrum"),
        ("instrument_spectrum", np.array([b"a"] * 7), "has no readable instrument_spectrum"),
    ],
)
def test_malformed_group_is_named(tmp_path, truth, name, value, words):
    folder = layouts.write_challenge(tmp_path / "adc", truth)
    key = f"Planet_train{truth.ids[4]}"
    with h5py.File(folder / "SpectralData.hdf5", "a") as file:
        del file[key][name]
        if value is not None:
            file[key][name] = value
    line = refusal(folder)
    assert words in line and key in line


def test_test_folder_without_truth_is_refused(tmp_path, truth):
    folder = layouts.write_challenge(tmp_path / "adc", truth)
    shutil.rmtree(folder / "Ground Truth Package")
    assert "no targets" in refusal(folder)


def test_csv_errors_name_column_and_line(tmp_path, truth):
    folder = layouts.write_paper(tmp_path / "pair", truth)
    table = folder / "lowX_param_file.csv"
    lines = table.read_text().splitlines()
    lines[3] = "abc" + lines[3][lines[3].index(",") :]
    table.write_text("\n".join(lines))
    line = refusal(folder)
    assert "'H2O'" in line and "line 4" in line and "'abc'" in line and "1 row" in line
    table.write_text("\n".join(lines[:-1]))
    assert "'H2O'" in refusal(folder) or "11 rows" in refusal(folder)
    table.write_text("\n".join([*lines[:2], "1,2"]))
    assert "expected 10 cells, received fewer or more in 1 row (line 3)" in refusal(folder)


def test_paper_planet_in_jupiter_units_is_refused(tmp_path, truth):
    truth.amps["Rp"] /= layouts.JUPITER_RADIUS
    assert "expected Rp in m" in refusal(layouts.write_paper(tmp_path / "pair", truth))


@pytest.mark.parametrize("name", ["training.npy", "wavelength.npy", "error_bars.npy"])
def test_missing_hela_file_is_named(tmp_path, truth, name):
    folder = layouts.write_hela(tmp_path / "hela", truth)
    (folder / name).unlink()
    assert name in refusal(folder)


@pytest.mark.parametrize("change", [{"num_features": 6}, {"num_features": "x"}, {"names": ["a"]}, {"names": None}])
def test_wrong_hela_description_is_refused(tmp_path, truth, change):
    folder = layouts.write_hela(tmp_path / "hela", truth)
    path = folder / "example_dataset.json"
    head = json.loads(path.read_text())
    head["metadata"].update(change)
    path.write_text(json.dumps(head))
    refusal(path)


# The cached copy


def test_cached_copy_is_used_until_the_data_change(tmp_path, truth, monkeypatch):
    from loaders import challenge

    folder = layouts.write_challenge(tmp_path / "adc", truth)
    load_dataset(folder)
    reads = []
    read = challenge._read_planets
    monkeypatch.setattr(challenge, "_read_planets", lambda path: reads.append(path) or read(path))
    load_dataset(folder)
    assert not reads
    truth.spectra += 1e-3
    layouts.write_planets(folder / "SpectralData.hdf5", truth, "Planet_train")
    os.utime(folder / "SpectralData.hdf5", ns=(1, 1))
    np.testing.assert_allclose(load_dataset(folder).spectra, truth.spectra)
    assert len(reads) == 1


@pytest.mark.parametrize("damage", ["cut", "flip", "junk", "empty"])
def test_broken_cached_copy_is_made_again(tmp_path, truth, damage, caplog):
    folder = layouts.write_challenge(tmp_path / "adc", truth)
    load_dataset(folder)
    cache = folder / ".SpectralData.hdf5.cache.npz"
    content = bytearray(cache.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 300] = bytes(byte ^ 255 for byte in content[middle : middle + 300])
    cache.write_bytes(
        {"cut": bytes(content[: len(content) // 3]), "flip": bytes(content), "junk": b"x" * 99, "empty": b""}[damage]
    )
    np.testing.assert_allclose(load_dataset(folder).spectra, truth.spectra)
    assert "made again" in caplog.text
    caplog.clear()
    load_dataset(folder)
    assert "made again" not in caplog.text


def test_cached_copy_goes_to_the_user_where_the_data_cannot_be_written(tmp_path, truth, monkeypatch):
    from loaders import challenge

    folder = layouts.write_challenge(tmp_path / "adc", truth)
    write = challenge.written_whole

    def refuse_beside(cache):
        if cache.parent == folder:
            raise PermissionError("read-only")
        return write(cache)

    monkeypatch.setattr(challenge, "written_whole", refuse_beside)
    load_dataset(folder)
    assert list((tmp_path / "user_cache").rglob("*.npz")) and not list(folder.glob(".*.npz"))
    monkeypatch.setattr(challenge, "_read_planets", None)
    np.testing.assert_allclose(load_dataset(folder).spectra, truth.spectra)


# Nothing but ValueError


def _files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and "cache" not in p.name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One small data set per layout, as bytes by path."""
    root = tmp_path_factory.mktemp("whole")
    truth = Truth(n=4, n_bins=3)
    layouts.write_own(root / "own.h5", truth)
    layouts.write_paper(root / "paper", truth)
    layouts.write_challenge(root / "challenge", truth)
    layouts.write_level_1(root / "abc1", truth)
    layouts.write_hela(root / "hela", truth, n_test=1)
    return root


def test_damaged_files_raise_value_error_alone(whole, tmp_path):
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    names = [str(p.relative_to(whole)) for p in _files(whole)]

    @hypothesis.settings(max_examples=250, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(
        name=st.sampled_from(names),
        kind=st.sampled_from(["cut", "flip", "insert", "junk", "remove", "folder"]),
        place=st.floats(0, 1),
        junk=st.binary(max_size=60) | st.text(max_size=30).map(lambda t: t.encode("utf-8", "replace")),
    )
    def attempt(name, kind, place, junk):
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("*.cache.npz"))
        path = folder / name
        content = path.read_bytes()
        at = int(place * len(content))
        if kind in ("remove", "folder"):
            path.unlink()
            if kind == "folder":
                path.mkdir()
        else:
            path.write_bytes(
                {
                    "cut": content[:at],
                    "flip": content[:at] + junk + content[at + len(junk) :],
                    "insert": content[:at] + junk + content[at:],
                    "junk": junk,
                }[kind]
            )
        top = folder / name.split("/")[0]
        for format in ("auto", *(["hdf5"] if top.suffix == ".h5" else [top.name])):
            try:
                load_dataset(top, format=format)
            except ValueError as error:
                assert "\n" not in str(error) and str(error)

    attempt()
