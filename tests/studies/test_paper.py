"""The paper's recipe beside ours: rows of the tables, where the maps and the predictions are known."""

from types import SimpleNamespace

import numpy as np
import pytest

from constants import BANDS, amp
from studies import paper

WAVELENGTH = np.geomspace(0.55, 7.5, 52)
NAMES = ("H2O", "Mp")


def run_with(y_test, y_pred):
    best = SimpleNamespace(y_pred=y_pred, scaler=SimpleNamespace(y_std=y_test.std(axis=0)))
    return SimpleNamespace(y_test=y_test, best=best, amp_names=NAMES, amp_table=tuple(map(amp, NAMES)))


def test_maps_are_scored_by_thirds_of_the_abundance(monkeypatch):
    """Planets with much water are seen in its bands, the others everywhere."""
    y_test = np.stack([np.linspace(-7, -3, 30), np.full(30, 27.0)], axis=1)
    inside = np.any([(low <= WAVELENGTH) & (high >= WAVELENGTH) for low, high in BANDS["H2O"]], axis=0)
    maps = np.ones((30, 2, 52)) + 1e-6 * np.arange(52)
    maps[20:, 0] = inside + 1e-6 * np.arange(52)
    monkeypatch.setattr(paper, "sampled_planets", lambda run: (np.arange(30), maps))
    rows = paper.map_rows({}, run_with(y_test, y_test), {"exact": maps, "published": maps}, WAVELENGTH)
    found = {(row["map"], row["amp"], row["planets"]): row for row in rows}
    assert {planets for _, _, planets in found} == {"all", "low", "middle", "high"}
    assert float(found["exact", "H2O", "high"]["in_bands"]) == pytest.approx(1, abs=1e-3)
    assert float(found["exact", "H2O", "low"]["in_bands"]) == pytest.approx(inside.mean(), abs=1e-3)
    assert all(float(row["agreement"]) == 1 for key, row in found.items() if key[0] == "exact")
    assert ("exact", "Mp", "low") not in found and "in_bands" not in found["exact", "Mp", "all"]


def test_predictions_are_trusted_from_the_abundance_on_from_which_they_are_right():
    rng = np.random.default_rng(0)
    water = rng.uniform(-7, -3, 4000)
    predicted = np.where(water < -5, rng.uniform(-7, -5, 4000), water)  # below 1e-5 the network only guesses
    row = paper.trust_row({}, run_with(np.stack([water, water], axis=1), np.stack([predicted, water], axis=1)))
    assert float(row["H2O"]) == pytest.approx(-4.8, abs=0.41) and "Mp" not in row


def test_tables_of_the_page_are_made_from_the_stored_scores():
    pandas = pytest.importorskip("pandas")
    tables = [pandas.read_csv(paper.RESULTS / f"paper_{name}.csv") for name in ("scores", "maps", "trust")]
    page = (paper.ROOT / "docs/paper.md").read_text(encoding="utf-8")
    assert f"{paper.MARKS[0]}\n\n" + "\n".join(paper.markdown(*tables)) + f"\n\n{paper.MARKS[1]}" in page
