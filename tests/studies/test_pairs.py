"""Pairs of batch size and learning rate beside config.yaml."""

import pytest

pytest.importorskip("pandas")

from studies import pairs


def test_each_pair_is_compared_with_the_default_of_its_seed(monkeypatch):
    def measure(pair, seed, changes, quick):
        return (0.8 + 0.01 * seed, 1.0 + seed) if pair is None else (0.7, 3.0)

    monkeypatch.setattr(pairs, "measure", measure)
    found = pairs.table([(64, 0.01)], (0, 1), {}).set_index(["batch_size", "seed"])
    assert found["R2_lost"][64].tolist() == pytest.approx([0.1, 0.11])
    assert found["radius_ratio"][64].tolist() == pytest.approx([3.0, 1.5])
    assert found["R2_lost"]["config.yaml"].isna().all()
