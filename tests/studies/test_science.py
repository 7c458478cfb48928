"""The paper's claim on the shipped spectra: a network reads each molecule where that molecule absorbs."""

from pathlib import Path

import numpy as np
import pytest

from constants import BANDS

pytest.importorskip("keras")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return (data, test rows, scaler, network) of a small mlp trained on a part of the shipped spectra."""
    from loaders import load_dataset
    from models import build_model
    from pipeline.training import train_fold
    from preprocessing import Fold, first_layer, split_folds, split_test, take
    from runio.config import TrainingConfig

    data = take(load_dataset(ROOT / "data/ariel_spectra.h5"), 12000)
    rest, test = split_test(data, 0.1, 0)
    (rows,) = split_folds(rest, 1, "kfold", 0.1, 0)
    fold = Fold.of(data, *rows)
    kernel_and_bias = first_layer(data, fold, True)
    settings = TrainingConfig(epochs=12, batch_size=128, lr=0.002, copies=2, plateau_patience=1)

    def build():
        return build_model("mlp", 52, 9, whitening=kernel_and_bias, seed=0, units=(160, 80))

    folder = tmp_path_factory.mktemp("trained")
    return data, test, fold.scaler, train_fold(build, data, fold, settings, 0, folder)


@pytest.mark.slow
@pytest.mark.parametrize("scheme, repeat", [("single", 40), ("halving", 1000)])
def test_the_map_of_each_molecule_peaks_inside_its_own_bands(trained, scheme, repeat):
    from sensitivity import sensitivity_map

    data, test, scaler, model = trained
    found = sensitivity_map(
        model, data.amps[test], data.spectra[test], data.errors[test], scaler.y_mean, scaler.y_std, data.amp_names,
        200, repeat, scaler.x_mean, scaler.x_std, (-6, -3), rng=0, scheme=scheme, keep_spectra=False,
    )  # fmt: skip
    infrared = data.wavelength > 1  # bins below are the baseline of every spectrum, and serve all AMPs
    for key in set(BANDS) & set(data.amp_names):
        bands, row = BANDS[key], np.where(infrared, found.mean[data.amp_names.index(key)], -np.inf)
        peak = data.wavelength[np.argmax(row)]
        assert any(low <= peak <= high for low, high in bands), f"{key} peaks at {peak:.2f} micron"


@pytest.mark.slow
def test_a_small_network_beats_ridge_regression(trained):
    linear_model = pytest.importorskip("sklearn.linear_model")
    from preprocessing import add_noise

    data, test, scaler, model = trained
    rest = np.setdiff1d(np.arange(len(data)), test)
    rng = np.random.default_rng(0)
    noisy = scaler.inputs(add_noise(data.spectra, data.errors, rng))[..., 0]
    ridge = linear_model.RidgeCV(np.logspace(-4, 2, 7)).fit(noisy[rest], scaler.targets(data.amps[rest]))
    truth = scaler.targets(data.amps[test])
    error = [
        np.mean((answer - truth) ** 2) for answer in (ridge.predict(noisy[test]), model.predict(noisy[test], verbose=0))
    ]
    assert error[1] < 0.8 * error[0]
