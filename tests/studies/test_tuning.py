"""Studies of networks and training: their variants are settings, their measures right where the answer is known."""

import csv

import numpy as np
import pytest

from runio.config import load_config
from studies.pooling import recovered, similarity
from studies.tables import data_frame
from studies.tuning import COLUMNS, MORE_PLANETS, RESIDUAL, ROOT, TOLD, VARIANTS, markdown, write_rows


@pytest.mark.parametrize("name, file", [(n, "config.yaml") for n in VARIANTS])
def test_every_variant_is_one_change_of_known_settings(name, file):
    base, changed = load_config(ROOT / file), load_config(ROOT / file, VARIANTS[name])
    same = base.to_dict() == changed.to_dict()
    assert same == (name == "mlp: config.yaml" or TOLD in name or RESIDUAL in name)
    assert changed.model.name == name.split(":")[0]


def test_variants_of_more_planets_are_settings():
    for changes in MORE_PLANETS.values():
        load_config(ROOT / "configs/more_planets.yaml", changes)


def test_rows_of_other_variants_and_seeds_stay(tmp_path):
    def row(variant, seed, mean):
        return {"variant": variant, "seed": seed, "mean": mean}

    path = tmp_path / "results/table.csv"
    write_rows(path, [row("a", "0", "1"), row("b", "0", "2")])
    write_rows(path, [row("a", "1", "3"), row("b", "0", "4") | {"spearman": "5"}])
    with open(path, newline="") as file:
        found = [tuple(r.values()) for r in csv.DictReader(file)]
    assert found == [("a", "0", "1", ""), ("a", "1", "3", ""), ("b", "0", "4", "5")]


def test_the_page_shows_means_over_seeds_with_their_error():
    def row(variant, seed, value):
        return {"variant": variant, "seed": seed} | dict.fromkeys(COLUMNS, value)

    table = data_frame(
        [row("lstm: config.yaml", 0, 1.0), row("mlp: config.yaml", 0, 1.2), row("mlp: config.yaml", 1, 1.4)]
    )
    mlp, lstm = (line for line in markdown(table) if "config.yaml" in line)
    assert mlp.startswith("| config.yaml | 2 | 1.3000 ± 0.1000 | 1.300 ± 0.100 | 1.30 |")
    assert lstm.startswith("| config.yaml | 1 | 1.0000 | 1.000 | 1.00 |")


def test_what_features_hold_of_each_bin_is_found():
    rng = np.random.default_rng(0)
    bins, others = rng.standard_normal((2000, 4)), rng.standard_normal((500, 4))

    def features(x):  # bin 0 as it is, the sum of bins 1 and 2, nothing of bin 3
        return np.stack([x[:, 0], x[:, 1] + x[:, 2]], axis=1)

    left = recovered(features(bins), bins, features(others), others)
    np.testing.assert_allclose(left, [1, 0.5, 0.5, 0], atol=0.05)


def test_bins_are_similar_where_features_move_the_same_way():
    spectra = np.random.default_rng(0).standard_normal((5, 8))
    apart = similarity(lambda x: x[..., 0], spectra, distances=3)
    np.testing.assert_allclose(apart, [1, 0, 0], atol=1e-6)
    pairs = similarity(lambda x: x[:, 0::2, 0] + x[:, 1::2, 0], spectra, distances=3)
    np.testing.assert_allclose(pairs, [1, 4 / 7, 0], atol=1e-6)
