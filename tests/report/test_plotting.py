"""Figures hold what they promise, leave no empty panel, and keep all text on the page."""

import itertools
import subprocess
import sys
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from example_runs import write_run
from matplotlib.figure import Figure
from matplotlib.text import Text

from constants import amp
from loaders.observation import Observation
from observation import figures as observation_figures
from report import diagnostics, figures, map_figures, style
from report.pictures import MAKERS, make_figures
from runio.results import load_run

CASES = {
    "few": {"n_amps": 5, "n_bins": 13, "n_folds": 1, "curves": False},
    "many": {"n_amps": 14, "n_bins": 100, "n_folds": 2},
    "telephone": {"n_amps": 4, "n_bins": 13, "n_folds": 2},
}
EXPECTED = {
    "sensitivity_shares", "sensitivity_curves", "sensitivity_profiles", "sensitivity_heatmap",
    "sensitivity_by_abundance",
    "response_slopes", "response_map", "true_vs_predicted", "bias_variance",
    "deviation", "credibility", "calibration", "loss_curves",
}  # fmt: skip
PER_AMP = EXPECTED - {"sensitivity_heatmap", "sensitivity_by_abundance", "response_slopes", "loss_curves"}


@pytest.fixture(scope="module", params=CASES, ids=str)
def drawn(request, tmp_path_factory):
    """The figures of a run, laid out."""
    run = load_run(write_run(tmp_path_factory.mktemp(request.param) / "run", **CASES[request.param]))
    if request.param == "telephone":
        pictures = {name: MAKERS[name](run, style.ONE_COLUMN) for name in sorted(EXPECTED)}
    else:
        pictures = make_figures(run, "all")
    with matplotlib.rc_context(style.STYLE):
        for picture in pictures.values():
            picture.figure.draw_without_rendering()
    return run, pictures


def panels(figure):
    return [ax for ax in figure.axes if not ax.get_label().startswith("<colorbar")]


def test_every_figure_is_there_with_its_words(drawn):
    run, pictures = drawn
    assert set(pictures) == (EXPECTED if len(run.folds) > 1 else EXPECTED - {"calibration"})
    for picture in pictures.values():
        assert isinstance(picture.figure, Figure)
        assert picture.title and picture.shows.endswith(".") and picture.read.endswith(".")


def test_one_panel_per_amp_and_none_is_empty(drawn):
    run, pictures = drawn
    for name, picture in pictures.items():
        axes = panels(picture.figure)
        if name in PER_AMP:
            assert len(axes) == len(run.amp_table), name
        if name == "sensitivity_by_abundance":
            assert len(axes) == sum(amp.kind == "molecule" for amp in run.amp_table)
        for ax in axes:
            assert ax.lines or ax.collections or ax.patches or ax.containers or ax.texts, name


def test_no_text_runs_off_the_page(drawn):
    for name, picture in drawn[1].items():
        page = picture.figure.bbox
        unused = _undrawn_labels(picture.figure)
        for text in picture.figure.findobj(Text):
            if text.get_visible() and text.get_text().strip() and id(text) not in unused:
                box = text.get_window_extent()
                inside = box.x0 > -1 and box.y0 > -1 and box.x1 < page.x1 + 1 and box.y1 < page.y1 + 1
                assert inside, (name, text.get_text(), box.extents, page.extents)


def _undrawn_labels(figure):
    """Labels of ticks outside the range of their axis, which matplotlib keeps but does not draw."""
    unused = set()
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        drawn = {id(tick) for tick in axis._update_ticks()}
        for tick in (*axis.majorTicks, *axis.minorTicks):
            if id(tick) not in drawn:
                unused |= {id(tick.label1), id(tick.label2)}
    return unused


def test_titles_do_not_run_into_each_other(drawn):
    for name, picture in drawn[1].items():
        boxes = [(ax.get_title(), ax.title.get_window_extent()) for ax in panels(picture.figure) if ax.get_title()]
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            assert not a.overlaps(b), (name, one, other)


def test_no_text_is_smaller_than_seven_points(drawn):
    for name, picture in drawn[1].items():
        for text in picture.figure.findobj(Text):
            if text.get_visible() and text.get_text().strip():
                assert text.get_fontsize() >= 6.9, (name, text.get_text())


def test_wavelength_ticks_are_plain_numbers_on_a_log_axis(drawn):
    _, pictures = drawn
    axes = panels(pictures["sensitivity_heatmap"].figure)[0]
    assert axes.get_xscale() == "log"
    assert "µm" in axes.get_xlabel()
    ticks = [t.get_text() for t in axes.get_xticklabels()]
    assert len(ticks) >= 4 and all(float(t) > 0 and "$" not in t for t in ticks)


@pytest.mark.parametrize(
    ("low", "high", "inches"),
    [(0.55, 7.5, 1.9), (0.55, 7.5, 6.5), (1.1, 1.7, 2), (0.3, 28, 2), (5, 12, 1.5), (2, 2.01, 2)],
)
def test_wavelength_ticks_fit_any_range(low, high, inches):
    ticks = np.array(style.plain_ticks(low, high, inches))
    assert len(ticks) >= 2
    assert np.all((ticks >= low) & (ticks <= high))
    apart = np.diff(np.log10(ticks)) * inches / np.log10(high / low)
    assert apart.min() > 0.2  # inches


def test_dots_saturate_at_the_95th_percentile():
    sensitivity = np.linspace(1, 100, 50)[None]
    wavelength = np.geomspace(1, 5, 50)
    depth = np.full(50, 0.01)
    figure = map_figures.sensitivity_curves(wavelength, None, sensitivity, [amp("H2O")], {}, depth)
    dots = figure.axes[0].collections[0]
    np.testing.assert_allclose(dots.get_array(), sensitivity[0])
    assert (dots.norm.vmin, dots.norm.vmax) == (1, np.percentile(sensitivity, 95))
    np.testing.assert_allclose(dots.get_offsets()[:, 1], 1.0)  # per cent


def test_molecules_lie_on_their_own_curve_and_planets_on_the_spectrum():
    wavelength = np.geomspace(1, 5, 8)
    spectrum, curve = np.full(8, 5e-4), np.linspace(0.010, 0.011, 8)
    table = [amp("H2O"), amp("Tp")]
    figure = map_figures.sensitivity_curves(wavelength, None, np.ones((2, 8)), table, {"H2O": curve}, spectrum)
    first, second = panels(figure)
    np.testing.assert_allclose(first.lines[0].get_ydata(), curve * 100)
    np.testing.assert_allclose(second.lines[0].get_ydata(), 500)
    assert "%" in first.get_title() and "ppm" in second.get_title()
    assert first.lines[0].get_color() == amp("H2O").colour


def test_unknown_and_zero_sensitivity_are_said_not_hidden():
    wavelength = np.geomspace(1, 5, 8)
    table = [amp("H2O"), amp("CO"), amp("Tp"), amp("Rp")]
    values = np.stack([np.full(8, np.nan), np.zeros(8), np.ones(8), np.arange(8.0)])
    figure = map_figures.sensitivity_curves(wavelength, None, values, table, {}, np.full(8, 0.01))
    assert [[t.get_text() for t in ax.texts] for ax in panels(figure)] == [
        ["no spectra"], ["not sensitive"], ["all equal"], [],
    ]  # fmt: skip
    map_figures.sensitivity_heatmap(wavelength, None, values, table)
    result = diagnostics.mean_map([values], [values])
    map_figures.sensitivity_profiles(wavelength, None, result, table)


def test_units_are_those_of_the_field():
    for key, value, shown, unit, log in [
        ("H2O", -4.0, -4.0, "VMR", False),
        ("Mp", np.log10(2 * 1.898e27), 2.0, "M_", True),
        ("Rp", 6.9911e7, 1.0, "R_", False),
        ("Tp", 1200.0, 1200.0, "K", False),
        ("Pclouds", 4.0, 0.1, "bar", True),
    ]:
        got, label, is_log = style.plotted(amp(key), value)
        assert got == pytest.approx(shown) and unit in label and is_log is log


def test_a_known_amp_in_another_unit_is_shown_in_that_unit():
    got, unit, _ = style.plotted(amp("Rp", unit="R_E"), 3.0)
    assert (float(got), unit) == (3.0, "R_E")


def test_predictions_off_the_scale_are_counted_and_do_not_squash_the_rest():
    truth = np.linspace(-8, -2, 50)[:, None]
    predicted = truth.copy()
    predicted[0] = 300
    figure = figures.true_vs_predicted(truth, predicted, [amp("H2O")])
    ax = figure.axes[0]
    assert ax.get_ylim()[1] < 0
    assert "1 off scale" in [t.get_text() for t in ax.texts]


def test_a_constant_truth_and_a_single_spectrum_can_be_drawn():
    table = [amp("Rp"), amp("Mp"), amp("H2O")]
    for n in (1, 30):
        truth = np.tile([7e7, 27.0, -4.0], (n, 1))
        figure = figures.true_vs_predicted(truth, truth * 1.01, table)
        figure.draw_without_rendering()
        figures.bias_variance(diagnostics.bias_variance(truth, truth * 1.01), table).draw_without_rendering()


def test_loss_curves_mark_the_checkpoints():
    band = diagnostics.loss_band([{"loss": np.array([1.0, 0.5])}, {"loss": np.array([0.9, 0.6, 0.4])}], "loss")
    figure = figures.loss_curves(band, None, [2, 3], "Loss")
    np.testing.assert_array_equal(figure.axes[0].lines[-1].get_xdata(), [2, 3])


def test_figures_leave_the_callers_settings_and_pyplot_alone():
    before = dict(matplotlib.rcParams)
    evaluation_result = diagnostics.bias_variance(np.zeros((10, 1)), np.ones((10, 1)))
    figures.bias_variance(evaluation_result, [amp("H2O")])
    assert dict(matplotlib.rcParams) == before
    code = "import report.figures, report.map_figures, sys; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rounding_is_not_drawn_as_curvature():
    slope = np.array([[0.2, -0.1], [0.2, -0.1]])
    curvature = np.array([[1e-9, -1e-9], [0.01, 0.02]])
    figure = map_figures.response_slopes(np.array([1.0, 2.0]), None, slope, curvature, [amp("H2O"), amp("CO")])
    drawn = figure.axes[1].collections[0].get_array()
    assert np.ma.getmaskarray(drawn)[0].all()
    np.testing.assert_allclose(drawn[1], [0.5, 1.0])


def test_slopes_of_a_run_without_the_exact_map_are_fitted_to_its_response_map(tmp_path):
    run = load_run(write_run(tmp_path / "run", n_amps=2, n_bins=5, n_folds=1))
    run = replace(run, folds={0: replace(run.folds[0], sensitivity_single=None)})
    response = run.best.response
    slope = (response.change[..., -1] - response.change[..., 0]) / np.ptp(response.deviations)  # the network is linear
    axes = MAKERS["response_slopes"](run, style.ONE_COLUMN).figure.axes
    drawn = axes[0].collections[0].get_array()
    np.testing.assert_allclose(drawn, slope / np.abs(slope).max(axis=1, keepdims=True), atol=1e-6)
    assert np.ma.getmaskarray(axes[1].collections[0].get_array()).all()


def test_the_floor_of_the_halving_scheme_does_not_blacken_the_maps():
    """A floor common to all bins changes no colour."""
    wavelength, table = np.geomspace(1, 5, 20), [amp("H2O")]
    bare = np.linspace(0, 1, 20)[None] ** 3
    shown = []
    for values in (bare, bare + 50):
        curves = map_figures.sensitivity_curves(wavelength, None, values, table, {}, np.full(20, 0.01))
        dots = curves.axes[0].collections[0]
        cells = map_figures.sensitivity_heatmap(wavelength, None, values, table).axes[0].collections[0]
        shown.append((dots.norm(dots.get_array()), cells.get_array()))
    for a, b in zip(*shown):
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_no_line_is_drawn_across_a_gap_between_bins():
    wavelength, width = np.array([0.50, 0.51, 0.52, 2.0, 2.05, 2.1]), np.array([0.01, 0.01, 0.01, 0.05, 0.05, 0.05])
    depth, six = np.full(6, 0.02), np.ones((1, 6))
    mean = diagnostics.mean_map([six], [six])
    drawn = [
        map_figures.sensitivity_curves(wavelength, width, six, [amp("Tp")], {}, depth),
        map_figures.sensitivity_profiles(wavelength, width, mean, [amp("Tp")]),
        observation_figures.expectation(
            Observation(wavelength, width, depth, 0.01 * depth, "x"),
            style.bin_ends(wavelength, width),
            depth,
            np.zeros(6),
        ),
    ]
    for figure in drawn:
        lines = [line for line in figure.axes[0].lines if line.get_linestyle() == "-"]
        assert [np.isnan(line.get_ydata()).tolist() for line in lines] == [[False] * 3 + [True] + [False] * 3]


def test_bins_that_touch_or_overlap_or_have_no_widths_have_no_gaps():
    wavelength, depth = np.array([1.0, 1.1, 1.15, 1.4]), np.arange(4.0)
    for width in (np.array([0.1, 0.1, 0.1, 0.4]), np.array([0.1, 0.1, 0.1, 0.2]), None):
        ends = style.bin_ends(wavelength, width)
        for found, given in zip(style.broken_at_gaps(ends, wavelength, depth), (wavelength, depth), strict=True):
            np.testing.assert_array_equal(found, given)


def test_names_are_text_and_never_mathtext(tmp_path):
    names = ("H2O", "$x^{$", "\\frac{$", "a_$b$", "$$", "\\")
    run = load_run(write_run(tmp_path / "run", amps=names, n_bins=3, n_folds=1, n_test=30))
    pictures = make_figures(run)
    for picture in pictures.values():
        picture.figure.set_layout_engine("none")
        picture.figure.draw_without_rendering()
    titles = [ax.get_title().replace("\\$", "$") for ax in panels(pictures["sensitivity_shares"].figure)]
    assert titles == ["H₂O", *names[1:]]
