"""The study of training on noisy spectra, on a small survey of HELA's layout."""

import layouts
import numpy as np
import pytest

pytest.importorskip("keras")

from studies import command, noisy_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return layouts.write_hela(tmp_path_factory.mktemp("hela"), layouts.Truth(n=1000, n_bins=8), n_test=200)


def test_settings_are_chosen_without_the_test_spectra(folder):
    config = noisy_data.settings_of(changes={})
    config.data.path, config.data.format = str(folder), "hela"
    split = noisy_data.load_split(config)
    chosen = noisy_data.without_test(split, config)
    used = [rows for fold in chosen.folds for rows in (fold.train, fold.valid)]
    assert len(chosen.test) == 160 and not np.isin(split.test, np.concatenate([chosen.test, *used])).any()
    assert not np.isin(chosen.test, np.concatenate(used)).any()


@pytest.mark.slow
def test_rows_hold_the_scores_of_one_network_and_of_the_mean_prediction(folder, monkeypatch):
    monkeypatch.setitem(command.QUICK, "training.cv", 2)
    monkeypatch.setitem(command.QUICK, "data.size", -1)
    plain, white = (noisy_data.measure(folder, name, quick=True) for name in ("plain network", "whitened"))
    for rows in (plain, white):
        assert [row["networks"] for row in rows] == [1, 2] and rows[0].keys() >= {"variant", "spectra", "mean"}
        assert -1 < float(rows[0]["mean"]) < float(rows[1]["mean"]) < 1
    assert plain[1]["mean"] != white[1]["mean"]
