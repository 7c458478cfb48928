"""Tables of one spectrum as tools, archives and people write them: read right, or refused in words."""

import numpy as np
import pytest

import runfile
from loaders.columns import ROLES, role_of
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
    assert "\n" not in str(info.value) and (str(path) in str(info.value) or "columns" in options)
    return str(info.value)


# Layouts

HALF, FULL = np.full(6, 0.05), np.full(6, 0.1)
HIGH, LOW = 1.25 * ERROR, 0.75 * ERROR
RATIO, RATIO_ERROR = np.sqrt(DEPTH), ERROR / (2 * np.sqrt(DEPTH))
WLOW, WHIGH = WAVELENGTH - 0.05, WAVELENGTH + 0.05
WDE, WWDE = [WAVELENGTH, DEPTH, ERROR], [WAVELENGTH, FULL, DEPTH, ERROR]
WDEW, PER_CENT = [WAVELENGTH, DEPTH, ERROR, FULL], [100 * DEPTH, 100 * ERROR]
EUREKA = [WAVELENGTH, HALF, DEPTH, LOW, HIGH]
ARCHIVE = [WAVELENGTH, FULL, 100 * DEPTH, 100 * HIGH, -100 * LOW]
ARCHIVE_IPAC = "|CENTRALWAVELNG|BANDWIDTH| PL_RATROR|PL_RATRORERR1|PL_RATRORERR2|"


def csv(header, *columns):
    """Return a table between commas."""
    return header + "\n" + lines(*columns, join=",")


def ipac(header, *columns):
    """Return rows that are as wide as an IPAC header."""
    widths = [len(name) for name in header.splitlines()[0].split("|")[1:-1]]
    rows = ["".join(f" {v:{w}.8g}" for v, w in zip(row, widths)) for row in zip(*columns)]
    return "\n".join([header, *rows])


def markdown(names, *columns):
    rows = [names, ["---"] * len(names), *([f"{v:.8g}" for v in row] for row in zip(*columns))]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


# As astropy 7 writes a QTable with masked cells, with Time and Quantity in meta: tags, anchors and aliases
ASTROPY = (
    """# %ECSV 1.0
# ---
# datatype:
# - {name: wave, unit: um, datatype: float64}
# - {name: depth, unit: '%', datatype: float64}
# - {name: err, unit: '%', datatype: float64}
# - {name: flag, datatype: float64}
# meta: !!omap
# - t: !astropy.time.Time {format: iso, in_subfmt: '*', jd1: 2458850.0, jd2: -0.5, scale: utc}
# - x: !astropy.units.Quantity
#     unit: &id002 !astropy.units.Unit {unit: um}
#     value: 3.0
# - d: !numpy.ndarray {buffer: !!binary |, dtype: float64, shape: !!python/tuple [2]}
# - __serialized_columns__:
#     depth:
#       __class__: astropy.units.quantity.Quantity
#       unit: &id001 !astropy.units.Unit {unit: '%'}
#       value: !astropy.table.SerializedColumn {name: depth}
#     err: {__class__: astropy.units.quantity.Quantity, unit: *id001}
#     wave: {__class__: astropy.units.quantity.Quantity, unit: *id002}
# schema: astropy-2.0
wave depth err flag
""".replace("!!binary |", "!!binary 'QQ=='")
    + lines(WAVELENGTH, 100 * DEPTH, 100 * ERROR, ['""'] * 6)
)

# name, text, options; every one is the same spectrum, in bins of 0.1 micron
SAME = [
    ("TauREx .dat", lines(*WDEW), {}),
    ("TauREx .dat, descending", lines(*[c[::-1] for c in WDEW]), {}),
    ("TauREx .dat in per cent", lines(WAVELENGTH, 100 * DEPTH, 100 * ERROR, FULL), {}),
    ("TauREx, said", lines(*WDEW), {"columns": "taurex"}),
    ("POSEIDON, said", lines(WAVELENGTH, HALF, DEPTH, ERROR), {"columns": "poseidon"}),
    ("PLATON: edges in metres", lines(1e-6 * WLOW, 1e-6 * WHIGH, DEPTH, ERROR), {}),
    ("edges, said", lines(WLOW, WHIGH, DEPTH, ERROR), {"columns": "platon"}),
    ("edges by name", csv("wave_low,wave_high,depth,error", WLOW, WHIGH, DEPTH, ERROR), {}),
    ("edges and centre", csv("wl,wl_lower [nm],wl_upper [nm],depth,error".replace(" [nm]", ""),
                             WAVELENGTH, WLOW, WHIGH, DEPTH, ERROR), {}),
    ("two errors without names", lines(WAVELENGTH, DEPTH, HIGH, LOW), {}),
    ("a width and two errors without names", lines(WAVELENGTH, FULL, DEPTH, HIGH, LOW), {}),
    ("edges and two errors without names", lines(WLOW, WHIGH, DEPTH, HIGH, LOW), {}),
    ("three columns", lines(*WDE), {}),
    ("three columns in ppm", lines(WAVELENGTH, 1e6 * DEPTH, 1e6 * ERROR), {}),
    ("three columns with names", csv("wave,transit_depth,depth_err", *WDE), {}),
    ("exoTEDRF", csv("wave,wave_err,dppm,dppm_err,order", WAVELENGTH, HALF, 1e6 * DEPTH, 1e6 * ERROR, FULL), {}),
    ("Eureka! stage 6", "wavelength bin_width rp^2_value rp^2_errorneg rp^2_errorpos\n" + lines(*EUREKA), {}),
    ("Eureka! radius ratios", "wavelength bin_width rp_value rp_errorneg rp_errorpos\n"
     + lines(WAVELENGTH, HALF, RATIO, RATIO_ERROR, RATIO_ERROR), {}),
    ("archive, new table", csv("centralwavelng,bandwidth,pl_trandep,pl_trandeperr1,pl_trandeperr2", *ARCHIVE), {}),
    ("archive, both forms and one empty",
     csv("centralwavelng,bandwidth,pl_ratror,pl_ratrorerr1,pl_ratrorerr2,pl_trandep,pl_trandeperr1,pl_trandeperr2",
         *ARCHIVE[:2], [""] * 6, [""] * 6, [""] * 6, *ARCHIVE[2:]), {}),
    ("archive, radius ratios", ipac(ARCHIVE_IPAC, WAVELENGTH, FULL, RATIO, RATIO_ERROR, -RATIO_ERROR), {}),
    ("radius ratios by name", csv("wl_c,RpRs,e_RpRs", WAVELENGTH, RATIO, RATIO_ERROR), {}),
    ("radius ratios and 'error'", csv("wavelength,rp/rs,error", WAVELENGTH, RATIO, RATIO_ERROR), {}),
    ("header in a comment", "# wl_c tr_val sig_tr dlam_full\n" + lines(*WDEW), {}),
    ("header in a comment with wide blanks", "# central wavelength   bin width  transit depth   depth error\n"
     + lines(*WWDE), {}),
    ("a header with wide blanks", "central wavelength   transit depth (ppm)   depth error (ppm)\n"
     + lines(WAVELENGTH, 1e6 * DEPTH, 1e6 * ERROR), {}),
    ("a header with brackets in names", "wl (um) (Rp/R*)^2 error\n" + lines(*WDE), {}),
    ("a comment that is no header", "# spectrum of WASP 0\n" + lines(*WDEW), {}),
    ("pandas index", csv(",wavelength,depth,error", np.arange(6), *WDE), {}),
    ("pandas index, saved twice", csv(",Unnamed: 0,wavelength,depth,error", np.arange(6), np.arange(6), *WDE), {}),
    ("R row names", "wavelength depth error\n" + lines([f'"{i}"' for i in range(1, 7)], *WDE), {}),
    ("R row names of text", "wavelength depth error\n" + lines([f"bin{i}" for i in range(6)], *WDE), {}),
    ("row numbers without names", lines([str(i) for i in range(1, 7)], *WWDE), {}),
    ("trailing commas", csv("wavelength,depth,error,", *WDE, [""] * 6), {}),
    ("trailing commas of the rows", csv("wavelength,depth,error", *WDE, [""] * 6), {}),
    ("trailing commas without names", lines(*WDE, [""] * 6, join=","), {}),
    ("index skipped by --columns", lines([str(i) for i in range(6)], *WDE), {"columns": "-,wl,tr,err"}),
    ("units by --columns", csv("a,b,c", 1e3 * WAVELENGTH, 1e6 * DEPTH, 1e6 * ERROR),
     {"columns": "wl [nm],depth [ppm],err [ppm]"}),
    ("nm by unit", csv("wavelength [nm],full_width [nm],depth,error", 1e3 * WAVELENGTH, 1e3 * FULL, DEPTH, ERROR), {}),
    ("nm by name", csv("wavelength_nm,depth,error", 1e3 * WAVELENGTH, DEPTH, ERROR), {}),
    ("nm by size", lines(1e3 * WAVELENGTH, 1e3 * FULL, DEPTH, ERROR), {}),
    ("Angstrom by unit", csv("wl (Angstrom),depth,error", 1e4 * WAVELENGTH, DEPTH, ERROR), {}),
    ("Angstrom by size", lines(1e4 * WAVELENGTH, 1e4 * FULL, DEPTH, ERROR), {"width": "full"}),
    ("Markdown", markdown(["wavelength", "full width", "depth (ppm)", "error (ppm)"],
                          WAVELENGTH, FULL, 1e6 * DEPTH, 1e6 * ERROR), {}),
    ("fixed width between bars", markdown(["wave", "depth", "err"], *WDE).replace("| --- | --- | --- |\n", ""), {}),
    ("fixed width of two lines", "wave depth  err\n---- ----- ----\n" + lines(*WDE), {}),
    ("reStructuredText", "==== ===== ===\nwave depth err\n==== ===== ===\n" + lines(*WDE) + "\n==== ===== ===", {}),
    ("astropy QTable", ASTROPY, {}),
    ("decimal commas", "wavelength;depth;error\n" + lines(*WDE, join=";").replace(".", ","), {}),
    ("a line of units", "wave depth err\num ppm ppm\n" + lines(WAVELENGTH, 1e6 * DEPTH, 1e6 * ERROR), {}),
    ("units in LaTeX", csv(r"$\lambda$ ($\mu$m),transit depth (%),error (%)", WAVELENGTH, *PER_CENT), {}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "options"), [row[1:] for row in SAME], ids=[row[0] for row in SAME])
def test_each_layout_gives_the_same_spectrum(tmp_path, text, options):
    assert_read(read_observation(write(tmp_path, text), **options))


def test_wavenumbers_become_bins_by_their_edges(tmp_path):
    centre = 1e4 / WAVELENGTH
    text = csv("wavenumber [cm-1],full_width,depth,error", centre, np.full(6, 200.0), DEPTH, ERROR)
    seen = read_observation(write(tmp_path, text))
    low, high = 1e4 / (centre + 100), 1e4 / (centre - 100)
    np.testing.assert_allclose(seen.wavelength, (low + high) / 2)
    np.testing.assert_allclose(seen.bin_width, high - low)
    np.testing.assert_allclose(seen.depth, DEPTH)


def test_widths_from_the_spacing_end_at_gaps_and_are_said(tmp_path, caplog):
    wavelength = np.array([1.0, 1.1, 1.22, 1.36, 4.0, 4.1, 4.2])
    seen = read_observation(write(tmp_path, lines(wavelength, *np.resize([DEPTH, ERROR], (2, 7)))))
    np.testing.assert_allclose(seen.bin_width, [0.1, 0.11, 0.13, 0.14, 0.1, 0.1, 0.1])
    assert seen.assumed_width and "half way to their neighbours" in caplog.text
    assert match_grid(seen, wavelength, np.full(7, 0.01)).depth is seen.depth  # assumed widths contradict none


@pytest.mark.parametrize("header", [EXOMAST, "{rows}", "# a comment\n\n{rows}\n\n"])
def test_exomast_text(tmp_path, header, caplog):
    seen = read_observation(write(tmp_path, header.format(rows=lines(*WWDE))))
    assert_read(seen)
    assert "guessed" in seen.note and "guessed" in caplog.text


def test_widths_that_may_be_half_or_full_are_refused_unless_unequal_bins_meet(tmp_path):
    """Half widths of bins that touch look like full widths with gaps as large as the bins."""
    path = write(tmp_path, lines(WAVELENGTH, HALF, DEPTH, ERROR))
    assert "half or full cannot be guessed (they are 0.50 of the spacing" in refusal(path)
    assert_read(read_observation(path, width="half"))
    edges = np.array([0.95, 1.05, 1.17, 1.25, 1.4, 1.45, 1.6])
    seen = read_observation(write(tmp_path, lines((edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2, DEPTH, ERROR)))
    np.testing.assert_allclose(seen.bin_width, np.diff(edges))


def test_errors_larger_than_the_depths_are_taken_if_columns_are_named(tmp_path):
    path = write(tmp_path, csv("wl,depth,err", WAVELENGTH, DEPTH, 1.2 * DEPTH))
    assert "exchanged?" in refusal(path)
    np.testing.assert_allclose(read_observation(path, columns="wl,depth,err").error, 1.2 * DEPTH)


def test_bins_without_a_depth_are_left_out_and_said(tmp_path, caplog):
    rows = lines(WAVELENGTH, HALF, 1e6 * DEPTH, 1e6 * ERROR, join=",") + "\n1.6,0.05,nan,\n1.7,0.05,,nan"
    assert_read(read_observation(write(tmp_path, "wave,wave_err,dppm,dppm_err\n" + rows)))
    assert "no depth in 2 rows (line 8, line 9); left out" in caplog.text


def test_a_zero_in_one_of_two_errors_is_passed_over_and_odd_errors_are_said(tmp_path, caplog):
    high, low = np.where(np.arange(6) == 2, 0, ERROR), np.where(np.arange(6) == 4, ERROR / 4, ERROR)
    seen = read_observation(write(tmp_path, csv("wl,depth,err_up,err_low", WAVELENGTH, DEPTH, high, low)))
    expected = np.where(np.arange(6) == 4, 0.625 * ERROR, ERROR)
    np.testing.assert_allclose(seen.error, expected)
    assert "one of two errors is zero in 1 row (line 4)" in caplog.text
    assert "differ by more than a factor 3 in 1 row (line 6)" in caplog.text


@pytest.mark.parametrize("descending", [False, True])
def test_ipac_table_is_in_per_cent_with_two_errors(tmp_path, descending):
    order = slice(None, None, -1) if descending else slice(None)
    columns = [c[order] for c in (WAVELENGTH, FULL, 100 * DEPTH, 150 * ERROR, -50 * ERROR)]
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
    rows = lines(WAVELENGTH, HALF, factor * DEPTH, factor * ERROR, join=",")
    assert_read(read_observation(write(tmp_path, header + "\n" + rows, "a.csv")))


def test_columns_are_a_flag_and_a_setting():
    flags = ["--apply", "run", "--observation", "planet.dat", "--columns", "taurex"]
    assert runfile.read_settings(runfile.parse_arguments(flags)).data.columns == "taurex"


def test_every_role_can_be_given_by_its_name(tmp_path):
    assert [role_of(role) for role in ROLES] == list(ROLES)
    path = write(tmp_path, lines(WAVELENGTH, RATIO, RATIO_ERROR))
    assert_read(read_observation(path, columns="wavelength,ratio,ratio_error"))
    path = write(tmp_path, lines(WAVELENGTH, RATIO, 1.25 * RATIO_ERROR, -0.75 * RATIO_ERROR))
    assert_read(read_observation(path, columns="wavelength,ratio,ratio_error_high,ratio_error_low"))


def test_instruments_follow_their_bins(tmp_path):
    names = ["miri lrs", "miri lrs", "prism", "prism", "prism", "niriss"]
    text = "wavelength,depth,error,instrument\n" + lines(WAVELENGTH[::-1], DEPTH[::-1], ERROR[::-1], names, join=",")
    assert list(read_observation(write(tmp_path, text)).instrument) == names[::-1]
    assert read_observation(write(tmp_path, lines(*WDE))).instrument is None


def test_unit_and_width_may_be_stated(tmp_path):
    path = write(tmp_path, lines(WAVELENGTH, np.full(6, 0.02), 10 * DEPTH, 10 * ERROR))
    assert "cannot be guessed" in refusal(path)
    assert "half or full" in refusal(path, depth_unit="percent")
    seen = read_observation(path, depth_unit="percent", width="half")
    np.testing.assert_allclose(seen.depth, DEPTH / 10)
    np.testing.assert_allclose(seen.bin_width, 0.04)


def test_made_up_tables_without_names_are_read_right_or_refused(tmp_path):
    """60 random planets, grids and errors in each of four orders: none is misread, few are refused."""
    rng = np.random.default_rng(1)
    orders = [("w", "d", "e", "f"), ("w", "f", "d", "e"), ("w", "d", "e", "s"), ("l", "h", "d", "e")]
    refused = 0
    for _ in range(60):
        n, factor = rng.integers(8, 60), rng.choice([1, 100, 1e6])
        edges = rng.uniform(0.5, 5) * np.cumprod(1 + rng.uniform(0.5, 1.5, n + 1) * 10 ** rng.uniform(-2.5, -0.7))
        error = 10 ** rng.uniform(-5, -3.5) * rng.uniform(0.8, 1.25, n)
        depth = 10 ** rng.uniform(-3, -1.6) * (1 + rng.uniform(0, 0.03, n)) + error * rng.standard_normal(n)
        columns = {"l": edges[:-1], "h": edges[1:], "w": (edges[1:] + edges[:-1]) / 2, "f": np.diff(edges)}
        columns |= {"d": factor * depth, "e": factor * error, "s": factor * error * rng.uniform(0.7, 1.4, n)}
        for order in orders:
            path = write(tmp_path, lines(*[columns[c] for c in order]))
            try:
                seen = read_observation(path)
            except ValueError as reason:
                refused += "--columns" in str(reason) or "guessed" in str(reason)
                continue
            np.testing.assert_allclose(seen.depth, depth, rtol=1e-6)
            np.testing.assert_allclose(seen.bin_width, np.diff(edges), rtol=1e-4 if "s" not in order else 3)
    assert refused < 60, refused


# Refusals


def _rows(**change):
    columns = {"w": WAVELENGTH.copy(), "dw": np.full(6, 0.1), "d": DEPTH.copy(), "e": ERROR.copy()}
    for name, (row, value) in change.items():
        columns[name] = [value if i == row else v for i, v in enumerate(columns[name])]
    return lines(*columns.values())


CONTRADICTIONS = [
    ("depth and error exchanged by name", csv("wavelength,error,depth", *WDE), {}, "the names contradict the numbers"),
    ("exchanged in the same places", csv("wavelength,depth,error", WAVELENGTH, ERROR, DEPTH), {}, "errors larger than"),
    ("a comment with another order", "# wavelength width depth error\n" + lines(*WDEW), {}, "fit wavelength,depth,err"),
    ("a header with another order", "wavelength depth error width\n" + lines(*WWDE), {}, "fit wavelength,width,depth"),
    ("variances", csv("wl,depth,error", WAVELENGTH, DEPTH, ERROR**2), {}, "errors below 1e-05 of the depths (vari"),
    ("variances without names", lines(WAVELENGTH, DEPTH, ERROR**2), {}, "fit no known order"),
    ("another unit set", csv("wl,depth [fraction],err", *WDE), {"depth_unit": "percent"}, "but data.depth_unit is pe"),
    ("radius ratios as depths", lines(WAVELENGTH, RATIO, RATIO_ERROR), {}, "give --columns 'wavelength,rprs,error'"),
    ("ratios in % as depths", lines(WAVELENGTH, 100 * RATIO, RATIO_ERROR), {}, "--columns 'wavelength,rprs [%],error"),
    ("ratios in %", csv("wl,Rp/R*,err", WAVELENGTH, 100 * RATIO, 100 * RATIO_ERROR), {}, "then name it Rp/R* [%]"),
    ("radius ratios in ppm", csv("wl,RpRs,err", *WDE), {"depth_unit": "ppm"}, "but data.depth_unit is ppm"),
    ("full widths set", csv("wl,half_width,depth,err", WAVELENGTH, HALF, DEPTH, ERROR), {"width": "full"}, "holds h"),
    ("half widths set", csv("wl,full_width,depth,err", *WWDE), {"width": "half"}, "holds full widths, but data.width"),
    ("a bad number in the first row", "1.0 0.0101 4e-5* 0.1\n" + lines(*WDEW), {}, "'4e-5*' in 1 row (line 1)"),
    ("two orders that fit", lines(WAVELENGTH, *PER_CENT, 0.9 * PER_CENT[1]), {}, "(TauREx) and also wavelength,depth,"),
    ("nm beside widths in micron", csv("wl,full_width,depth,err", 1e3 * WAVELENGTH, *WWDE[1:]), {}, "look like nm, w"),
    ("wavelength errors of a whole spacing", csv("wl,wl_err,depth,err", *WWDE), {}, "half or full cannot be guessed"),
    ("nm or Angstrom", lines(5000 * WAVELENGTH, DEPTH, ERROR), {}, "may be in nm or angstrom; state the unit"),
    ("edges in the wrong order", csv("wl_low,wl_high,depth,err", WHIGH, WLOW, DEPTH, ERROR), {}, "lower edge < wave"),
    ("a centre outside", csv("wl,wl_low,wl_high,depth,err", WHIGH + 1, WLOW, WHIGH, DEPTH, ERROR), {}, "but not in 6"),
    ("widths in cm-1, centres in micron", csv("wl,width [cm-1],depth,err", *WWDE), {}, "is in cm-1, expected micron"),
    ("names for other columns", lines(*WDE), {"columns": "wl,depth"}, "3 columns, expected a name for each"),
    ("names that lack the depth", lines(*WDE), {"columns": "wl,-,error"}, "no column for depth"),
    ("an unknown name", lines(*WDE), {"columns": "wl,height,error"}, "height: unknown; expected for each column"),
    ("a name too few", "wavelength depth error\n" + lines(*WDEW), {}, "3 names for 4 columns"),
    ("LaTeX", "\\begin{tabular}{ccc}\n" + lines(*WDE, join=" & "), {}, "LaTeX"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "options", "words"), [c[1:] for c in CONTRADICTIONS], ids=[c[0] for c in CONTRADICTIONS]
)
def test_contradictions_are_refused(tmp_path, text, options, words):
    assert words in refusal(write(tmp_path, text), **options)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "empty"),
        ("# only comments\n", "empty"),
        ("1 2\n3 4\n", "no column for wavelength"),
        ("1 2 3 4 5\n" * 3, "no column for"),
        (_rows() + "\n1.6 0.1\n", "expected 4 cells"),
        (_rows(d=(2, "abc")), "'abc'"),
        (_rows(d=(2, "nan")), "1 row (line 3)"),
        (_rows(e=(1, 0.0)), "1 row (line 2)"),
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
    width = np.full(len(wavelength), float(width)) if width is not None and np.ndim(width) == 0 else width
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


SPARSE, APART = np.arange(1.0, 4.0, 0.5), np.array([1.05, 1.15, 1.25, 3.05])
NARROW, THIRD = np.array([0.1, 0.1, 0.002, 0.1]), np.arange(4) == 2


@pytest.mark.parametrize(
    "seen, wavelength, width",
    [
        (observed(SPARSE + 0.024, 0.02), SPARSE, np.full(6, 0.02)),  # sparse bins, shifted by more than their widths
        (observed(APART + 0.1 * THIRD, 0.1), APART, np.full(4, 0.1)),  # the last bin before a gap, by its width
        (observed(APART + 0.01 * THIRD, NARROW), APART, NARROW),  # a narrow bin, by five widths
        (observed(APART + 0.1 * THIRD, None), APART, None),  # centres alone
        (observed(np.sort([*APART, *(APART + 0.001)]), 0.1), APART, np.full(4, 0.1)),  # every bin seen twice
    ],
)
def test_bins_that_lie_elsewhere_are_refused(seen, wavelength, width):
    with pytest.raises(ValueError, match="bins from"):
        match_grid(seen, wavelength, width)
    assert match_grid(observed(wavelength, 0.1 if width is None else width), wavelength, width) is not None


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
