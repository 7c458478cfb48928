import numpy as np
import pytest

from loaders.observation import Observation, match_grid, read_observation

WAVELENGTH = np.array([1.0, 1.1, 1.2, 1.3, 1.4, 1.5])
DEPTH = np.array([0.0101, 0.0102, 0.0103, 0.0104, 0.0102, 0.0101])
ERROR = np.array([3e-5, 4e-5, 5e-5, 3e-5, 4e-5, 5e-5])

EXOMAST = """# WASP-0 b, Somebody et al. 2020
# wavelength (micron)  delta_wavelength (micron)  (Rp/Rs)^2  (Rp/Rs)^2 uncertainty
{rows}
"""
IPAC = r"""\SPEC_TYPE=transmission
\PL_NAME=WASP-0 b
\
|CENTRALWAVELNG| BANDWIDTH|PL_TRANDEP|PL_TRANDEPERR1|PL_TRANDEPERR2|PL_TRANDEPLIM|
|        double|    double|    double|        double|        double|          int|
|        micron|    micron|         %|             %|             %|             |
|              |          |      null|          null|          null|         null|
{rows}
"""
ECSV = """# %ECSV 1.0
# ---
# delimiter: {delimiter}
# datatype:
# - {{name: wave, unit: nm, datatype: float64}}
# - {{name: bin_width, unit: nm, datatype: float64}}
# - {{name: transit_depth, unit: ppm, datatype: float64}}
# - {{name: depth_err, unit: ppm, datatype: float64}}
# schema: astropy-2.0
{rows}
"""


def lines(*columns, join=" "):
    return "\n".join(join.join(v if isinstance(v, str) else f"{v:.8g}" for v in row) for row in zip(*columns))


def write(tmp_path, text, name="spectrum.txt"):
    path = tmp_path / name
    path.write_text(text)
    return path


def assert_read(seen, width=0.1):
    np.testing.assert_allclose(seen.wavelength, WAVELENGTH)
    np.testing.assert_allclose(seen.depth, DEPTH)
    np.testing.assert_allclose(seen.error, ERROR)
    if width is None:
        assert seen.bin_width is None
    else:
        np.testing.assert_allclose(seen.bin_width, width)


def refusal(path, **options):
    with pytest.raises(ValueError) as info:
        read_observation(path, **options)
    assert "\n" not in str(info.value) and str(path) in str(info.value)
    return str(info.value)


# Layouts


@pytest.mark.parametrize("header", [EXOMAST, "{rows}", "# a comment\n\n{rows}\n\n"])
@pytest.mark.parametrize("width", [0.05, 0.1])
def test_exomast_text(tmp_path, header, width, caplog):
    rows = lines(WAVELENGTH, np.full(6, width), DEPTH, ERROR)
    seen = read_observation(write(tmp_path, header.format(rows=rows)))
    assert_read(seen)
    assert "guessed" in seen.note and "guessed" in caplog.text


@pytest.mark.parametrize("descending", [False, True])
def test_ipac_table_is_in_per_cent_with_two_errors(tmp_path, descending):
    order = slice(None, None, -1) if descending else slice(None)
    columns = [c[order] for c in (WAVELENGTH, np.full(6, 0.1), 100 * DEPTH, 150 * ERROR, -50 * ERROR)]
    rows = "\n".join(
        " {:14.4f} {:10.4f} {:10.6f} {:14.6f} {:14.6f}             0 ".format(*row) for row in zip(*columns)
    )
    seen = read_observation(write(tmp_path, IPAC.format(rows=rows), "w.tbl"))
    assert_read(seen)
    assert seen.note == "depths in percent (stated); full widths (stated)"


@pytest.mark.parametrize("delimiter", ["' '", "','"])
def test_ecsv_states_units(tmp_path, delimiter):
    join = delimiter[1]
    rows = join.join(["wave", "bin_width", "transit_depth", "depth_err"]) + "\n"
    rows += lines(1000 * WAVELENGTH, np.full(6, 100.0), 1e6 * DEPTH, 1e6 * ERROR, join=join)
    seen = read_observation(write(tmp_path, ECSV.format(delimiter=delimiter, rows=rows), "a.ecsv"))
    assert_read(seen)
    assert "ppm (stated)" in seen.note


@pytest.mark.parametrize(
    "header, factor",
    [
        ("wavelength,half_width,depth,error", 1),
        ("wavelength [um],half width [um],depth [ppm],error [ppm]", 1e6),
        ("wavelength,half_width,depth_ppm,error_ppm", 1e6),
        ("Wavelength (micron),Half-width,Transit depth (%),Uncertainty (%)", 100),
    ],
)
def test_csv_headers(tmp_path, header, factor):
    rows = lines(WAVELENGTH, np.full(6, 0.05), factor * DEPTH, factor * ERROR, join=",")
    assert_read(read_observation(write(tmp_path, header + "\n" + rows, "a.csv")))


def test_instruments_follow_their_bins(tmp_path):
    names = ["miri lrs", "miri lrs", "prism", "prism", "prism", "niriss"]
    text = "wavelength,depth,error,instrument\n" + lines(WAVELENGTH[::-1], DEPTH[::-1], ERROR[::-1], names, join=",")
    assert list(read_observation(write(tmp_path, text)).instrument) == names[::-1]
    assert read_observation(write(tmp_path, lines(WAVELENGTH, DEPTH, ERROR))).instrument is None


def test_three_columns_have_no_width(tmp_path):
    assert_read(read_observation(write(tmp_path, lines(WAVELENGTH, DEPTH, ERROR))), width=None)


def test_unit_and_width_may_be_stated(tmp_path):
    path = write(tmp_path, lines(WAVELENGTH, np.full(6, 0.02), 10 * DEPTH, 10 * ERROR))
    assert "cannot be guessed" in refusal(path)
    assert "half or full" in refusal(path, depth_unit="percent")
    seen = read_observation(path, depth_unit="percent", width="half")
    np.testing.assert_allclose(seen.depth, DEPTH / 10)
    np.testing.assert_allclose(seen.bin_width, 0.04)


# Refusals


def _rows(**change):
    columns = {"w": WAVELENGTH.copy(), "dw": np.full(6, 0.1), "d": DEPTH.copy(), "e": ERROR.copy()}
    for name, (row, value) in change.items():
        columns[name] = [value if i == row else v for i, v in enumerate(columns[name])]
    return lines(*columns.values())


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "empty"),
        ("# only comments\n", "empty"),
        ("1 2\n3 4\n", "no column for wavelength"),
        ("1 2 3 4 5\n" * 3, "no column for"),
        (_rows() + "\n1.6 0.1\n", "without the"),
        (_rows(d=(2, "abc")), "'abc'"),
        (_rows(d=(2, "nan")), "1 row (3)"),
        (_rows(e=(1, 0.0)), "1 row (2)"),
        (_rows(e=(1, -1e-5)), "not positive"),
        (_rows(dw=(0, -0.1)), "not positive"),
        (_rows(w=(1, 3.0)), "not sorted"),
        (_rows(w=(1, 1.0)), "duplicate"),
        (_rows(w=(5, 1500.0)), "micron"),
        ("wavelength depth\n" + lines(WAVELENGTH, DEPTH), "no column for error"),
        ("wavelength wl depth error\n" + _rows(), "both look like"),
        ("wavelength depth depth error\n" + _rows(), "repeat"),
        ("wavelength[parsec] width depth error\n" + _rows(), "parsec"),
        ("wavelength width depth[cm] error\n" + _rows(), "'cm'"),
        ("# %ECSV 1.0\n# [unclosed\n1 2", "ECSV"),
        ("# %ECSV 1.0\n# delimiter: '|'\n# datatype:\n# - {name: a}\na\n1", "delimiter"),
        ("|\n1", "IPAC"),
        ("a\x00b", "zero bytes"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, words):
    assert words in refusal(write(tmp_path, text))


def test_implausible_stated_unit_is_refused(tmp_path):
    assert "depth_unit" in refusal(write(tmp_path, lines(WAVELENGTH, 1e4 * DEPTH, ERROR)), depth_unit="fraction")


def test_files_that_are_none(tmp_path):
    (tmp_path / "junk").write_bytes(bytes(range(256)))
    for path in (tmp_path / "absent.txt", tmp_path, tmp_path / "junk"):
        refusal(path)


def test_damaged_tables_raise_value_error_alone(tmp_path):
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    whole = [
        EXOMAST.format(rows=_rows()),
        IPAC.format(rows=_rows()),
        ECSV.format(delimiter="' '", rows="wave bin_width transit_depth depth_err\n" + _rows()),
        "wavelength,width,depth,error\n" + _rows().replace(" ", ","),
    ]
    path = tmp_path / "damaged"

    @hypothesis.settings(max_examples=400, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(
        st.sampled_from(whole), st.floats(0, 1), st.integers(0, 40), st.binary(max_size=20) | st.text(max_size=20)
    )
    def attempt(text, place, cut, junk):
        content, junk = text.encode(), junk if isinstance(junk, bytes) else junk.encode("utf-8", "replace")
        at = int(place * len(content))
        path.write_bytes(content[:at] + junk + content[at + cut :])
        try:
            seen = read_observation(path)
        except ValueError as error:
            assert "\n" not in str(error) and str(error)
        else:
            assert np.isfinite(seen.depth).all() and (seen.error > 0).all() and (np.diff(seen.wavelength) > 0).all()

    attempt()


# The trained grid


def observed(wavelength, width, seed=0):
    rng = np.random.default_rng(seed)
    width = np.full(len(wavelength), float(width)) if np.ndim(width) == 0 else width
    depth = 0.01 + 1e-4 * rng.random(len(wavelength))
    return Observation(wavelength, width, depth, 1e-5 * (1 + rng.random(len(wavelength))), "seen.txt")


def test_same_grid_is_taken_as_it_is():
    seen = observed(np.round(WAVELENGTH * 1.0001, 4), 0.1)
    result = match_grid(seen, WAVELENGTH, np.full(6, 0.1))
    np.testing.assert_array_equal(result.depth, seen.depth)
    np.testing.assert_array_equal(result.wavelength, WAVELENGTH)
    assert match_grid(seen, WAVELENGTH).depth is seen.depth


def test_exact_rebinning_weights_by_width():
    edges = np.array([1.0, 1.02, 1.06, 1.1, 1.15, 1.2])
    seen = observed((edges[1:] + edges[:-1]) / 2, np.diff(edges))
    result = match_grid(seen, np.array([1.05, 1.15]), np.array([0.1, 0.1]))
    weight = np.diff(edges)
    np.testing.assert_allclose(result.depth[0], weight[:3] @ seen.depth[:3] / 0.1)
    np.testing.assert_allclose(result.error[1], np.sqrt((weight[3:] ** 2) @ (seen.error[3:] ** 2)) / 0.1)
    assert "re-binned from 5 bins" in result.note


def test_a_bin_of_two_instruments_names_both():
    fine = Observation(
        WAVELENGTH[:4], np.full(4, 0.1), DEPTH[:4], ERROR[:4], "x", instrument=np.array(["a", "a", "b", "c"])
    )
    wide = match_grid(fine, np.array([1.05, 1.25]), np.array([0.2, 0.2]))
    assert list(wide.instrument) == ["a", "b + c"]


def test_rebinning_a_constant_is_exact_and_white_noise_averages_down():
    fine = observed(1.005 + 0.01 * np.arange(50), 0.01)
    fine = Observation(fine.wavelength, fine.bin_width, np.full(50, 0.01), np.full(50, 1e-4), "seen")
    result = match_grid(fine, 1.05 + 0.1 * np.arange(5), np.full(5, 0.1))
    np.testing.assert_allclose(result.depth, 0.01)
    np.testing.assert_allclose(result.error, 1e-4 / np.sqrt(10))


@pytest.mark.parametrize(
    "seen, width",
    [
        (observed(1.005 + 0.01 * np.arange(50), 0.01), None),  # trained widths unknown
        (observed(1.008 + 0.01 * np.arange(50), 0.01), 0.1),  # edges shifted by a third of a bin
        (observed(1.005 + 0.01 * np.arange(45), 0.01), 0.1),  # the last trained bin is only half covered
        (observed(np.delete(1.005 + 0.01 * np.arange(50), 25), 0.01), 0.1),  # a gap
        (observed(1.05 + 0.1 * np.arange(5), 0.05), 0.1),  # the same centres, narrower bins
        (observed(1.1 + 0.2 * np.arange(3), 0.2), 0.1),  # coarser
    ],
)
def test_wrong_grid_is_refused_in_one_line(seen, width):
    wavelength = 1.05 + 0.1 * np.arange(5)
    with pytest.raises(ValueError, match=r"seen.txt: expected 5 bins from 1.05 to 1.45 micron, received") as info:
        match_grid(seen, wavelength, None if width is None else np.full(5, width))
    assert "\n" not in str(info.value)
