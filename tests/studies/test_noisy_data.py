"""The study of noise that is added to noisy spectra, on a small survey of HELA's layout."""

import layouts
import pytest

pytest.importorskip("keras")

from studies import noisy_data


@pytest.mark.slow
def test_a_row_holds_the_scores_of_the_size_that_was_added(tmp_path):
    truth = layouts.Truth(n=1000, n_bins=8)
    folder = layouts.write_hela(tmp_path / "hela", truth, n_test=200)
    without, with_noise = (noisy_data.measure(folder, size, 0, quick=True) for size in (0.0, 1.0))
    assert without.keys() == with_noise.keys() >= {"extra_noise", "seed", "mean", "training_mean", "epoch", "minutes"}
    assert with_noise["extra_noise"] == 1.0 and without["mean"] != with_noise["mean"]
    for row in (without, with_noise):
        assert -1 < float(row["mean"]) < 1 and row["epoch"] in (1, 2)
