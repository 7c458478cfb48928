"""The report of an observation shows the numbers it was given, in any size, and is one file without references."""

import browser
import numpy as np
import pytest
from example_runs import CENTRE, WIDTH, names

from constants import amp
from observation.apply import Removals, Systematics, directions
from observation.compare import Standing
from observation.page import Application, answer_text, build_answer_page, make_pictures, reading, write_answer_report


def application(n_bins=13, n_amps=5, **changes):
    """An application of known numbers: every answer in the middle, the last bin the one that matters."""
    table = tuple(amp(key, unit="K" if key.startswith("T_") else None) for key in names(n_amps))
    centre = np.array([CENTRE.get(a.key, -6.0) for a in table])
    width = np.array([WIDTH.get(a.key, 1.7) for a in table])
    sensitivity = np.ones((n_amps, n_bins))
    sensitivity[:, -1] = n_bins
    sensitivity[-1] = 0
    spread = np.tile(np.arange(n_bins, dtype=float), (n_amps, 1)) * 0.1
    shift = np.zeros((n_amps, n_bins))
    shift[:, min(3, n_bins - 1)] = -0.2
    values = {
        "name": "/data/<planet>.ecsv",
        "amp_table": table,
        "wavelength": np.geomspace(0.6, 12, n_bins),
        "depth": 0.02 + 1e-4 * np.sin(np.arange(n_bins)),
        "error": np.full(n_bins, 5e-5),
        "answer": centre,
        "intervals": np.array([[centre - 0.3 * width, centre + 0.2 * width], [centre - width, centre + width]]),
        "least": centre - 2 * width,
        "greatest": centre + 2 * width,
        "standing": Standing("outside", ["OUTSIDE of what was trained on <b>", "Errors & more."]),
        "instrument": np.where(np.arange(n_bins) < n_bins // 2, "NIRISS", "MIRI"),
        "expected": np.full(n_bins, 0.02),
        "pulls": np.sin(np.arange(n_bins)),
        "sensitivity": sensitivity,
        "moved": Systematics(("50 ppm on MIRI", "tilt"), np.full((n_amps, 2), 0.06)),
        "lost": Removals(spread, shift),
        "made_from": {"run": "runs/1"},
    }
    return Application(**{**values, **changes})


def page_of(values, figures=False):
    pictures = make_pictures(values) if figures else {"answer_intervals": next(iter(make_pictures(values).values()))}
    return build_answer_page(values, {name: (p, b"\x89PNG" + bytes(20)) for name, p in pictures.items()})


def test_the_first_table_holds_answer_errors_and_reading_and_the_verdict_is_beside_it():
    page = page_of(application())
    first = page[: page.index("<nav")]
    for text in ("<strong>-6.00</strong>", "-6.51 to -5.66", "-7.70 to -4.30", "measured", "OUTSIDE: this spectrum"):
        assert text in first, text
    assert "&lt;b&gt;" in page and "<b>" not in page and "&lt;planet&gt;" in page


def test_systematics_are_told_in_the_unit_of_the_amp_and_in_units_of_its_error():
    page = page_of(application())
    moved = page[page.index('id="moved"') : page.index('<h2 id="single"')]
    assert "+0.06 dex (0.14 of its error)" in moved  # half width 0.25 * 1.7
    lost = page[page.index('id="lost"') :]
    assert "12 µm" in lost and "±1.2 dex" in lost and "−0.2 dex (0.47 of its error)" in lost


@pytest.mark.parametrize(("low", "high", "says"), [
    (-1.0, 1.0, "measured"), (-1.99, 1.0, "upper limit"), (-1.0, 1.99, "lower limit"), (-2, 2, "not constrained"),
    (np.nan, np.nan, ""),
])  # fmt: skip
def test_an_interval_that_reaches_the_end_of_the_simulated_range_is_a_limit(low, high, says):
    values = application(1, 1)
    width = (values.greatest - values.least) / 4
    ends = np.array([[values.answer - width, values.answer + width], [values.answer + low * width,
                                                                      values.answer + high * width]])  # fmt: skip
    assert reading(application(1, 1, intervals=ends), 0) == says


def test_shares_sum_to_one_and_an_answer_that_nothing_moves_has_none():
    shares = application().shares
    assert shares[:-1].sum(axis=1) == pytest.approx(np.ones(4)) and shares[0, -1] == pytest.approx(0.52)
    assert np.isnan(shares[-1]).all()
    assert answer_text(application(), 0) == "−6.00 +0.34 −0.51"


@pytest.mark.parametrize(("n_bins", "n_amps"), [(1, 1), (300, 3)])
def test_figures_of_one_bin_and_of_many_are_drawn_without_a_warning(n_bins, n_amps, recwarn):
    values = application(n_bins, n_amps, lost=None, moved=None)
    for picture in make_pictures(values).values():
        picture.figure.draw_without_rendering()
    assert not [one for one in recwarn if not issubclass(one.category, DeprecationWarning)]  # of Matplotlib 3.8
    assert "made without sensitivity maps" in page_of(values)


def test_what_is_not_known_is_said_and_not_drawn():
    nothing = np.full((2, 2, 5), np.nan)
    values = application(
        intervals=nothing, expected=None, pulls=None, sensitivity=None, moved=None, lost=None, instrument=None,
        standing=Standing("unknown", ["It is not known."]), made_from={},
    )  # fmt: skip
    pictures = make_pictures(values)
    assert set(pictures) == {"answer_intervals", "expectation"}
    page = page_of(values, figures=True)
    assert "not known" in page and "Not known: whether" in page and "nan" not in page.lower().replace("ammonia", "")


def test_directions_are_one_offset_per_instrument_and_a_tilt():
    names_, moved = directions(application())
    assert names_ == ("50 ppm on MIRI", "50 ppm on NIRISS", "tilt of 50 ppm at the ends")
    assert moved.shape == (3, 13) and (moved[0] + moved[1] == 5e-5).all() and moved[2, 0] == -5e-5
    alone, moved = directions(application(instrument=None))
    assert alone[0] == "50 ppm on all bins" and (moved[0] == 5e-5).all()
    assert directions(application(1, 1, instrument=None))[1].shape == (1, 1)


@pytest.mark.skipif(browser.CHROMIUM is None, reason="chromium is not installed")
def test_the_page_shows_in_a_browser_wide_and_narrow_and_asks_for_nothing(tmp_path):
    path = write_answer_report(tmp_path, application())
    assert {p.name for p in tmp_path.iterdir()} == {"report.html"} | {
        f"{name}.{kind}" for name in ("answer_intervals", "spectrum_shares", "expectation") for kind in ("png", "pdf")
    }
    with browser.new_page(tmp_path / "profile") as page:
        for width in (1400, 400):
            page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
            page.events.clear()
            page.open(path.as_uri())
            assert page.ask("document.documentElement.scrollWidth") <= width
            assert page.ask("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
            assert (
                page.ask("document.querySelector('.status').getBoundingClientRect().top < innerHeight") or width < 900
            )
            assert page.requests() == [path.as_uri()] and not page.complaints()
