"""The page of an observation shows the numbers it was given, in any size, and is one file without references."""

import re

import browser
import numpy as np
import pytest
from example_runs import CENTRE, WIDTH, names

from constants import AMPS, amp
from loaders.observation import Observation, spacing_halves
from observation.apply import directions
from observation.compare import Consistency
from observation.page import (
    EXCLUDED,
    LOWER,
    MEASURED,
    OPEN,
    UPPER,
    Estimate,
    build_page,
    constraint,
    make_pictures,
    value_text,
    write_page,
)
from report.best_estimator import Verdict
from report.style import have_gaps


def spectrum(n_bins=13, **changes):
    """An observed spectrum of two instruments."""
    values = {
        "wavelength": np.geomspace(0.6, 12, n_bins),
        "bin_width": None,
        "depth": 0.02 + 1e-4 * np.sin(np.arange(n_bins)),
        "error": np.full(n_bins, 5e-5),
        "name": "/data/<planet>.ecsv",
        "instrument": np.where(np.arange(n_bins) < n_bins // 2, "NIRISS", "MIRI"),
    }
    return Observation(**{**values, **changes})


def estimate_of(n_bins=13, n_amps=5, **changes):
    """An estimate of known numbers: every value in the middle, the last bin the one that matters."""
    table = tuple(amp(key, unit="K" if key.startswith("T_") else None) for key in names(n_amps))
    centre = np.array([CENTRE.get(a.key, -6.0) for a in table])
    width = np.array([WIDTH.get(a.key, 1.7) for a in table])
    sensitivity = np.ones((n_amps, n_bins))
    sensitivity[:, -1] = n_bins
    sensitivity[-1] = 0
    replaced = np.zeros((n_amps, n_bins))
    replaced[:, min(3, n_bins - 1)] = -0.2
    values = {
        "observation": spectrum(n_bins),
        "amp_table": table,
        "values": centre,
        "intervals": np.array([[centre - 0.3 * width, centre + 0.2 * width], [centre - width, centre + width]]),
        "one_sided": np.array([centre - 0.8 * width, centre + 0.8 * width]),
        "limits": np.array([centre - 2 * width, centre + 2 * width]),
        "verdicts": [Verdict(a, 0.6, []) for a in table],
        "consistency": Consistency("outside", ["Out of distribution <b>", "Errors & more."], {}),
        "expected": np.full(n_bins, 0.02),
        "residuals": np.sin(np.arange(n_bins)),
        "sensitivity": sensitivity,
        "systematics": {"50 ppm on MIRI": np.full(n_amps, 0.06), "tilt": np.full(n_amps, 0.06)},
        "redrawn": np.tile(np.arange(n_bins, dtype=float), (n_amps, 1)) * 0.1,
        "replaced": replaced,
        "made_from": {"run": "runs/1"},
        "n_planets": 400,
    }
    return Estimate(**{**values, **changes})


def page_of(values, figures=False):
    pictures = make_pictures(values) if figures else {"answer_intervals": next(iter(make_pictures(values).values()))}
    return build_page(values, {name: (p, b"\x89PNG" + bytes(20), b"") for name, p in pictures.items()})


def test_the_first_table_holds_estimates_errors_and_constraints_below_the_consistency():
    page = page_of(estimate_of())
    first = page[: page.index("<nav")]
    for text in (
        "<strong>−6.00 +0.34 −0.51</strong>",
        "−6.51 to −5.66",
        "−7.70 to −4.30",
        "measured",
        "Out of distribution",
    ):
        assert text in first, text
    assert "no estimate can be relied on" in first
    sure = page_of(estimate_of(consistency=Consistency("inside", ["Consistent."], {})))
    result = sure[: sure.index("<main")]
    assert "<strong>Measured</strong>: H<sub>2</sub>O, " in result
    assert '<strong class="care">Trust with care</strong> all 5 parameters' in result
    assert sure.count("Trust it with care, because only 60\N{NO-BREAK SPACE}% of the variance is recovered") == 10
    assert "&lt;b&gt;" in page and "<b>" not in page and "&lt;planet&gt;" in page


def test_the_title_names_the_planet_of_its_file_and_how_the_table_was_read_is_said():
    read = spectrum(planet="X <b>", note="depths in ppm (guessed); widths <")
    page = page_of(estimate_of(observation=read))
    assert "X &lt;b&gt;: 5 parameters" in page and "read so: depths in ppm (guessed); widths &lt;." in page


def test_each_bin_shows_its_true_ends_its_share_and_its_depth():
    seen = spectrum(bin_width=np.full(13, 0.1), depth=np.full(13, 0.02))
    values = estimate_of(observation=seen, residuals=np.full(13, -1.25))
    page = page_of(values)
    panels = page[page.index('class="amps"') : page.index('<h2 id="figures"')]
    text = "11.95–12.05 µm: 52.0 %, depth 2.0000 ± 0.0050 %, residual −1.2 σ (MIRI)"
    shown = [re.sub("<[^>]+>", "", one) for one in re.findall('<text class="bin".*?</text>', panels)]
    assert shown.count(text) == 4 and len(shown) == 4 * 13  # the last estimate is not sensitive to a bin
    assert "measured. Half of its sensitivity is at 11.9–12.1 µm." in panels and "Not sensitive to any bin" in panels


def test_bins_of_assumed_widths_touch_half_way_and_known_widths_are_kept():
    place = np.array([0.867, 0.925, 0.983, 1.041, 1.091, 1.147, 1.2165, 1.2855, 2.0])
    width, middle = spacing_halves(place).sum(axis=0), (place[:-2] + place[1:-1]) / 2
    seen = dict.fromkeys(("depth", "error"), np.ones(9)) | {"wavelength": place, "name": "", "assumed_width": True}
    ends = estimate_of(9, observation=Observation(bin_width=width, **seen)).ends
    np.testing.assert_allclose(ends[1:-1, 0], middle)
    np.testing.assert_allclose(ends[:-2, 1], middle)
    assert ends[-2, 1] == pytest.approx(1.2855 + 0.0345) and not have_gaps(ends)[:-1].any() and have_gaps(ends)[-1]
    known = estimate_of(9, observation=Observation(bin_width=0.5 * width, **seen)).ends
    np.testing.assert_allclose(known[:, 1] - place, width / 4)


def test_values_that_span_orders_of_magnitude_have_two_digits_each():
    table, ends = (amp("Pclouds"),), np.array([[[1.14], [3.79]], [[1.14], [5.59]]])  # log10 of Pa
    known = {"intervals": ends, "one_sided": ends[1], "limits": np.array([[0.0], [8.0]])}
    values = estimate_of(13, 1, amp_table=table, values=np.array([2.32]), **known)
    page = page_of(values)
    assert "<strong>0.0021 (1.4×10⁻⁴ to 0.062)</strong>" in page and "1.4×10⁻⁴ to 3.9<" in page
    assert value_text(values, 0) == "0.0021 (1.4×10⁻⁴ to 0.062)"


def test_every_known_parameter_is_named_with_the_unit_of_the_report():
    table = tuple(AMPS.values())
    page = page_of(estimate_of(13, len(table), amp_table=table))
    for name in ("SO<sub>2</sub>", "Na", "haze factor", "cloud fraction", "dT/dlog P"):
        assert f'<th scope="row">{name}</th>' in page, name
    for unit in ("K per decade", "bar"):
        assert f'data-label="Unit"><span>{unit}</span>' in page, unit


def test_systematics_are_given_in_the_unit_of_the_amp_and_as_multiples_of_its_error():
    page = page_of(estimate_of())
    moved = page[page.index('id="moved"') : page.index('<h2 id="single"')]
    assert "+0.06 dex (0.14 times its error)" in moved  # half width 0.25 * 1.7
    lost = page[page.index('id="lost"') :]
    assert "12 µm" in lost and "±1.2 dex" in lost and "−0.2 dex (0.47 times its error)" in lost


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize("key", ["H2O", "Mp"])
def test_a_flat_posterior_at_an_edge_is_a_limit_if_it_excludes_enough(key, end):
    """Of a flat posterior on the share w of a flat prior, all quantiles are known."""
    for w, limit in (((1 - EXCLUDED) / 0.95 - 1e-6, True), ((1 - EXCLUDED) / 0.95 + 1e-6, False), (1, False)):
        quantiles = np.array([[0.16, 0.84], [0.02275, 0.97725], [0.05, 0.95]]) * w
        quantiles = (1 - quantiles[:, ::-1] if end else quantiles)[..., None]
        one = estimate_of(
            1, 1, amp_table=(amp(key),), values=quantiles[0].mean(axis=0), intervals=quantiles[:2],
            one_sided=quantiles[2], limits=np.array([[0.0], [1.0]]),
        )  # fmt: skip
        always = key == "H2O" and end == 0 and w < 1  # less of a molecule looks like none
        assert constraint(one, 0) == ((LOWER if end else UPPER) if limit or always else OPEN)
        assert value_text(one, 0).startswith({LOWER: ">", UPPER: "<", OPEN: "not"}[constraint(one, 0)])


@pytest.mark.parametrize(("low", "high", "says"), [
    (-1.0, 1.0, MEASURED), (-1.79, 1.0, MEASURED), (-1.81, 1.0, UPPER), (-2, 2, OPEN), (np.nan, np.nan, ""),
])  # fmt: skip
def test_an_interval_that_reaches_the_end_of_the_simulated_range_is_open_there(low, high, says):
    values = estimate_of(1, 1)
    middle, width = values.values, np.ptp(values.limits, axis=0) / 4
    ends = np.array([[middle - width, middle + width], [middle + low * width, middle + high * width]])
    assert constraint(estimate_of(1, 1, intervals=ends), 0) == says


def test_limits_are_named_on_top_of_the_page_with_their_values():
    open_below = estimate_of().intervals
    open_below[1, 0] = estimate_of().limits[0]
    page = page_of(estimate_of(intervals=open_below, consistency=Consistency("inside", ["Consistent."], {})))
    result = page[page.index('id="result"') : page.index("<main")].replace("\N{NO-BREAK SPACE}", " ")
    assert "<strong>Upper limit (95 %)</strong>: log₁₀ H<sub>2</sub>O &lt; −4.64, " in result, result


def test_what_the_run_does_not_trust_is_not_claimed_on_top_of_the_page():
    good, sure = estimate_of(), Consistency("inside", ["Consistent."], {})
    bad = [Verdict(good.amp_table[0], -0.04, []), *good.verdicts[1:]]
    for found in (bad, [one._replace(r2=0.1) for one in good.verdicts]):
        page = page_of(estimate_of(verdicts=found, consistency=sure))
        claims, told = page[page.index('id="result"') : page.index("<main")].split("Verdict of the run")
        assert "H<sub>2</sub>O" not in claims and "too few" not in claims
        assert "o not trust</strong> " + ("H<sub>2</sub>O" if found is bad else "any of the 5") in told


def test_the_page_says_from_how_many_planets_the_intervals_come():
    page, few = page_of(estimate_of()), page_of(estimate_of(n_planets=60))
    assert "come from 400 test planets" in page and "are rough" not in page
    assert "come from 60 test planets" in few and "From fewer than 400" in few


def test_shares_sum_to_one_and_an_estimate_that_nothing_moves_has_none():
    shares = estimate_of().shares
    assert shares[:-1].sum(axis=1) == pytest.approx(np.ones(4)) and shares[0, -1] == pytest.approx(0.52)
    assert np.isnan(shares[-1]).all()
    assert value_text(estimate_of(), 0) == "−6.00 +0.34 −0.51"


@pytest.mark.parametrize(("n_bins", "n_amps"), [(1, 1), (300, 3)])
def test_figures_of_one_bin_and_of_many_are_drawn_without_a_warning(n_bins, n_amps, recwarn):
    values = estimate_of(n_bins, n_amps, redrawn=None, replaced=None)
    for picture in make_pictures(values).values():
        picture.figure.draw_without_rendering()
    assert not [one for one in recwarn if not issubclass(one.category, DeprecationWarning)]  # of Matplotlib 3.8
    assert "no sensitivity maps were made" in page_of(values)


def test_what_is_not_known_is_said_and_not_drawn():
    nothing = np.full((2, 2, 5), np.nan)
    values = estimate_of(
        intervals=nothing, one_sided=nothing[0], expected=None, residuals=None, sensitivity=None, systematics={},
        redrawn=None, replaced=None, observation=spectrum(instrument=None),
        consistency=Consistency("unknown", ["Unknown: why."], {}), made_from={},
    )  # fmt: skip
    pictures = make_pictures(values)
    assert set(pictures) == {"answer_intervals", "expectation"}
    page = page_of(values, figures=True)
    assert "not known" in page and "Unknown: why." in page and "nan" not in page.lower().replace("ammonia", "")


def test_directions_are_one_offset_per_instrument_and_a_tilt():
    names_, moved = directions(spectrum())
    assert names_ == ["50 ppm on MIRI", "50 ppm on NIRISS", "tilt of 50 ppm at the ends"]
    assert moved.shape == (3, 13) and (moved[0] + moved[1] == 5e-5).all() and moved[2, 0] == -5e-5
    alone, moved = directions(spectrum(instrument=None))
    assert alone[0] == "50 ppm on all bins" and (moved[0] == 5e-5).all()
    assert directions(spectrum(1, instrument=None))[1].shape == (1, 1)


@pytest.mark.skipif(browser.CHROMIUM is None, reason="chromium is not installed")
def test_the_page_shows_in_a_browser_wide_and_narrow_and_asks_for_nothing(tmp_path):
    write_page(tmp_path, estimate_of())
    path = tmp_path / "report.html"
    assert {p.name for p in tmp_path.iterdir()} == {"report.html"} | {
        f"{name}.{kind}" for name in ("answer_intervals", "spectrum_shares", "expectation") for kind in ("png", "pdf")
    }
    with browser.new_page(tmp_path / "profile") as page:
        page.open(path.as_uri())
        for width in (400, 768, 1000, 1120, 1400, 1920):
            page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
            right = "Math.max(...[...document.querySelectorAll('main *')].map(e => e.getBoundingClientRect().right))"
            assert page.ask(right) <= width, width
            assert page.ask("document.documentElement.scrollWidth") <= width
            assert page.ask("document.querySelector('.status').getBoundingClientRect().top < 300")
            assert page.ask("""Math.min(...[...document.querySelectorAll('svg text:not(.bin)')].map(
                t => t.clientHeight || t.getBoundingClientRect().height)) >= 11""")
        found = page.ask("""(() => {
            const box = document.querySelectorAll('svg .bin')[12].previousSibling;
            box.scrollIntoView({block: 'center'});
            const b = box.getBoundingClientRect();
            return document.elementFromPoint(b.x + b.width / 2, b.y + b.height / 2).nextSibling.textContent
        })()""")
        assert "µm: 52.0 %, depth 1.9" in found, found
        assert page.ask("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert page.requests() == [path.as_uri()] and not page.complaints()
