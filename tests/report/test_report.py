"""The report holds the figures and the numbers of its run, needs nothing else, and shows in a real browser."""

import csv
import errno
import re
from html.parser import HTMLParser

import browser
import h5py
import matplotlib
import numpy as np
import pytest
from example_runs import write_run
from test_verdict import information

from report.__main__ import main
from report.compare import write_comparison
from report.page import write_figures, write_report
from report.pictures import make_figures
from runio.results import load_run

LIMIT = 8_000_000  # bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of 3 AMPs and 2 folds, with figures and report made by the command."""
    folder = write_run(tmp_path_factory.mktemp("report") / "run", n_amps=3, n_bins=13, n_folds=2)
    assert main([str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Tags with their attributes, in order, and which are open at the end."""

    VOID = ("meta", "img", "br", "link", "input", "hr", "source")

    def __init__(self, page):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def numbers_of(path):
    """Return the numbers of a score table, a row per AMP."""
    with open(path, newline="") as file:
        _, *rows = csv.reader(file)
    return np.array([row[1:] for row in rows], float).T


def test_every_figure_is_written_as_png_and_pdf(folder, page):
    written = sorted(p.name for p in (folder / "figures").iterdir())
    images = [attrs for tag, attrs in Outline(page).tags if tag == "img"]
    assert len(written) == 2 * (len(images) + 1) == 2 * 9  # the first figure is inline SVG on the page
    for path in (folder / "figures").iterdir():
        assert path.read_bytes()[:4] == {".png": b"\x89PNG", ".pdf": b"%PDF"}[path.suffix]
    assert sorted(p.name for p in folder.glob(".*")) == []  # nothing half-written is left


def test_report_is_one_whole_file_without_outside_references(page):
    assert len(page.encode()) < LIMIT
    outline = Outline(page)
    assert outline.open == []
    for _, attrs in outline.tags:
        for name in ("src", "srcset", "href"):
            assert name not in attrs or attrs[name].startswith(("data:image/png;base64,", "#"))
    assert "http" not in re.sub(r"http-equiv", "", re.sub(r"base64,[A-Za-z0-9+/=]+", "", page))
    assert "<script" not in page and "$" not in re.sub(r"<code>.*?</code>", "", page, flags=re.S)


def test_tables_hold_the_numbers_of_the_csv_files(folder, page):
    for name in ("MSE", "R2"):
        table = re.search(rf'<table id="{name}".*?</table>', page, re.S)[0]
        rows = re.findall(r"<tr>(.*?)</tr>", table, re.S)[1:]
        shown = np.array([re.findall(r"<td>(.*?)</td>", row) for row in rows], float)
        np.testing.assert_allclose(shown, numbers_of(folder / f"{name}.csv"), rtol=5e-3, atol=5e-4)
    assert "Mean prediction" in page and "Average of the folds" in page


def test_settings_command_versions_and_seed_are_there_and_escaped(page):
    assert "python runfile.py --epochs 14 --output &#x27;a &lt;b&gt; &amp; c&#x27;" in page
    for text in ("training.lr", "0.01", "2.4.6", "3.11.0", "synthetic &lt;spectra&gt;"):
        assert text in page
    assert re.search(r"Seed</th><td>7<", page)
    assert "H<sub>2</sub>O" in page


def test_report_can_be_used_with_a_keyboard_and_a_screen_reader(page):
    tags = Outline(page).tags
    names = [tag for tag, _ in tags]
    assert names.count("h1") == names.count("main") == names.count("nav") == 1
    links = [attrs["href"][1:] for tag, attrs in tags if tag == "a"]
    assert links[0] == "main"
    identities = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(identities) == len(set(identities)) and set(links) <= set(identities)
    for tag, attrs in tags:
        if tag == "img":
            assert len(attrs["alt"]) > 10
        if tag == "svg":
            assert attrs["role"] == "img" and len(attrs["aria-label"]) > 40
        if tag == "th":
            assert attrs["scope"] in ("row", "col")
    assert any(attrs.get("name") == "viewport" for tag, attrs in tags if tag == "meta")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run with few figures, and what was written of it: report.html and the folder of figures."""
    folder = tmp_path_factory.mktemp("small")
    run = load_run(write_run(folder / "run", n_amps=1, n_bins=5, n_folds=1, sensitivity=False))
    return run, write_report(run, write_figures(run, folder / "figures"), folder / "report.html"), folder / "figures"


def test_same_run_gives_the_same_files(small, tmp_path):
    run, page, figures = small
    again = write_report(run, write_figures(run, tmp_path / "b"), tmp_path / "b.html")
    assert again.read_bytes() == page.read_bytes()
    for path in figures.iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_the_users_matplotlib_settings_have_no_say(small, tmp_path):
    run, _, figures = small
    with matplotlib.rc_context({"text.usetex": True, "font.size": 40, "savefig.facecolor": "red"}):
        write_figures(run, tmp_path / "theirs")
        assert matplotlib.rcParams["text.usetex"] and matplotlib.rcParams["font.size"] == 40
    for path in figures.glob("*.png"):
        assert path.read_bytes() == (tmp_path / "theirs" / path.name).read_bytes(), path.name


def test_a_bare_run_still_has_a_report(tmp_path):
    folder = write_run(tmp_path / "run", n_amps=2, n_bins=3, n_folds=1, n_test=7, sensitivity=False, history=False)
    (folder / "config.yaml").write_text("")
    (folder / "R2.csv").unlink()
    run = load_run(folder, unverified=True)
    path = write_report(run, write_figures(run))
    page = path.read_text(encoding="utf-8")
    assert page.count("<img") == 4  # no sensitivity, no response, no loss
    assert "without the sensitivity test" in page
    assert '<table id="R2"' in page  # its numbers are those of results.h5
    assert "Not recorded." in page


def test_writing_is_silent_in_the_log(tmp_path, caplog):
    with caplog.at_level("INFO"):
        write_figures(load_run(write_run(tmp_path / "run", 1, 3, 1, 7, sensitivity=False, history=False)))
    assert caplog.records == []


def test_runs_are_compared_in_one_page(folder, tmp_path, capsys):
    other = write_run(tmp_path / "other", n_amps=3, n_bins=13, n_folds=1, sensitivity=False)
    (other / "run.log").write_text("INFO runfile: time: data 30 s, training 60 s\n")
    assert main([str(folder), str(other), "--output", str(tmp_path / "compared.html")]) == 0
    page = (tmp_path / "compared.html").read_text(encoding="utf-8")
    assert Outline(page).open == []
    assert page.count("<svg") == 3 and 'scope="col">run<' in page and 'scope="col">other<' in page
    assert "<td>not recorded</td><td>1.5</td>" in page
    assert capsys.readouterr().out.strip() == str(tmp_path / "compared.html")
    assert main([str(folder), str(other), "--output", str(tmp_path / "compared.html")]) == 0  # its own is replaced
    (tmp_path / "mine.html").write_text("mine")
    assert main([str(folder), str(other), "--output", str(tmp_path / "mine.html")]) == 2
    assert (tmp_path / "mine.html").read_text() == "mine"


def test_runs_of_other_amps_or_wavelengths_are_not_compared(folder, tmp_path, capsys):
    other = write_run(tmp_path / "other", n_amps=3, n_bins=14, n_folds=1, sensitivity=False)
    assert main([str(folder), str(other)]) == 2
    assert "expected the AMPs and wavelengths" in capsys.readouterr().err


def test_the_number_of_figures_is_the_users_choice(folder, tmp_path):
    run = load_run(folder)
    assert write_figures(run, tmp_path, "none") == {} and list(tmp_path.iterdir()) == []
    assert {"sensitivity_heatmap", "calibration", "response_map"} <= set(make_figures(run, "all"))
    with pytest.raises(ValueError, match="figures: expected none, report, all, received 'some'"):
        write_figures(run, tmp_path, "some")


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--nonsense"], ["/no/such/folder"]])
def test_bad_arguments_exit_with_2_and_one_line(arguments, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error


def test_a_broken_results_file_exits_with_2_and_one_line(tmp_path, capsys):
    (tmp_path / "results.h5").write_bytes(b"nothing of the kind")
    (tmp_path / "config.yaml").write_text("seed: 1")
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


STOPS = [
    (KeyboardInterrupt(), 130, "error: interrupted\n"),
    (OSError(errno.ENOSPC, "No space left"), 1, "error: {}: No space left on device; make room there and repeat"),
    (RuntimeError("a process died"), 1, "error: a process died\n"),
]


@pytest.mark.parametrize(("stop", "status", "words"), STOPS)
def test_what_stops_the_command_is_one_line(folder, monkeypatch, capsys, stop, status, words):
    def write(*_, **__):
        raise stop

    monkeypatch.setattr("report.page.write_figures", write)
    assert main([str(folder)]) == status
    error = capsys.readouterr().err
    assert error.startswith(words.format(folder)) and error.count("\n") == 1


def test_help_exits_with_0(capsys):
    assert main(["--help"]) == 0
    assert "RUN_DIR" in capsys.readouterr().out


WIDTHS = (400, 768, 1000, 1120, 1400, 1920)
BEYOND = """[...document.querySelectorAll('body *')].filter(e => {
  const box = e.getBoundingClientRect();
  return !e.matches('.skip') && box.width && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map(e => e.outerHTML.slice(0, 80))"""
SCROLLS = """[...document.querySelectorAll('main *')].filter(e => !e.closest('svg') && e.clientWidth
  && e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
COLUMNS = "getComputedStyle(document.querySelector('.amps')).gridTemplateColumns.split(' ').length"
FIRST_SCREEN = (
    "[...document.querySelectorAll('.amp')].filter(e => e.getBoundingClientRect().bottom <= innerHeight).length"
)
WHOLE = {400: 1, 768: 4, 1000: 4, 1120: 6, 1400: 9, 1920: 9}  # panels with their verdicts on the first screen
WHOLE_COMPARED = {400: 0, 768: 2, 1000: 2, 1120: 3, 1400: 6, 1920: 8}
SMALLEST = """Math.min(...[...document.querySelectorAll('svg text')].map(
  t => 12.5 * t.ownerSVGElement.getBoundingClientRect().width / t.ownerSVGElement.viewBox.baseVal.width))"""


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason="chromium is not installed")
def test_report_in_a_real_browser(tmp_path):
    settings = {"data": {"path": str(tmp_path / "survey.h5")}, "data_sha256": "right"}
    run = load_run(write_run(tmp_path / "run", n_amps=9, n_folds=5, settings=settings))
    for one in run.networks.values():  # wide numbers in the table of squared errors, as of a radius
        one.y_pred[...] = run.y_test + 0.02 * (one.y_pred - run.y_test)
    information(tmp_path / "information.h5", run, variance=0.1 * run.y_test.var(axis=0))
    with h5py.File(tmp_path / "information.h5", "a") as file:  # the network looks where the best estimator does
        file["sampler/optimal_map"][...] = run.best.sensitivity_single.mean * np.linspace(0.5, 1.5, 40)[:, None, None]
    report = write_report(run, write_figures(run, figures="none"))
    compared = write_comparison([run.folder] * 4, tmp_path / "comparison.html")
    with browser.new_page(tmp_path / "profile") as tab:
        for page, least in ((compared, WHOLE_COMPARED), (report, WHOLE)):
            tab.open(page.as_uri())
            for width in WIDTHS:
                phone = width == 400
                size = {"width": width, "height": 800 if phone else 900, "deviceScaleFactor": 1, "mobile": phone}
                tab.call("Emulation.setDeviceMetricsOverride", **size)
                assert tab.ask(BEYOND) == tab.ask(SCROLLS) == [], width
                assert tab.ask("document.documentElement.scrollWidth") <= width
                assert tab.ask(COLUMNS) == {400: 1, 768: 2, 1000: 2, 1920: 5}.get(width, 3), width
                assert tab.ask(SMALLEST) >= 11
                assert tab.ask(FIRST_SCREEN) >= least[width], width
        # the pointer over the middle of the first panel finds a bin with its numbers
        found = tab.ask("""(() => { const b = document.querySelector('.amp svg').getBoundingClientRect();
            return document.elementFromPoint(b.x + b.width / 2, b.y + b.height / 2).nextSibling.textContent
        })()""")
        number = r"[\d.×⁻⁰¹²³⁴-⁹]+"
        assert re.fullmatch("N–N µm: N ± N %, best estimator N %, N dex²".replace("N", number), found)
        # the first key press reaches the skip link
        tab.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        assert tab.ask("document.activeElement.className") == "skip"
        ink, paper = (tab.ask(f"getComputedStyle(document.body).{what}") for what in ("color", "backgroundColor"))
        assert (ink, paper) == ("rgb(26, 26, 26)", "rgb(255, 255, 255)")
        assert tab.complaints() == []
        assert tab.requests() == [compared.as_uri(), report.as_uri()]
