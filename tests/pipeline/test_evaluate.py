"""The maps of a run: one pass for all folds, and abundance cuts that leave no spectrum."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic import dataset

pytest.importorskip("keras")

from pipeline.evaluate import published_maps, single_bin_maps
from pipeline.folds import Split, empty_rows
from preprocessing import Scaler
from runio.config import build_config

DATA = dataset(n=100)
N_BINS, N_AMPS = DATA.spectra.shape[1], DATA.amps.shape[1]
SPLIT = Split(DATA, np.arange(100), [])
WEIGHTS = np.random.default_rng(1).normal(size=(2, N_BINS, N_AMPS))
MODELS = [lambda x, w=w: np.tanh(x.reshape(len(x), N_BINS)) @ w for w in WEIGHTS]
SCALERS = [Scaler.fit(DATA, rows) for rows in (np.arange(50), np.arange(50, 100))]


def maps(function=published_maps, models=MODELS, scalers=SCALERS, **sensitivity):
    config = build_config({"sensitivity": {"repeat": 10, **sensitivity}})
    return function(config, SPLIT, models, scalers, DATA.spectra, [None] * len(models), rng=0)


@pytest.mark.parametrize("function", [published_maps, single_bin_maps])
def test_one_pass_gives_the_map_of_each_network_and_of_their_mean(function):
    found = maps(function)
    alone = [maps(function, [model], [scaler])[0] for model, scaler in zip(MODELS, SCALERS)]
    assert len(found) == 3
    for one, other in zip(found, alone):
        np.testing.assert_array_equal(one.mean, other.mean)

    def mean(x):  # both networks in the units of the first
        depths = x.reshape(len(x), N_BINS) * SCALERS[0].x_std + SCALERS[0].x_mean
        amps = [s.amps(model((depths - s.x_mean) / s.x_std)) for model, s in zip(MODELS, SCALERS)]
        return (np.mean(amps, axis=0) - SCALERS[0].y_mean) / SCALERS[0].y_std

    np.testing.assert_allclose(found[2].mean, maps(function, [mean], SCALERS[:1])[0].mean, rtol=1e-3)


def test_the_published_map_takes_a_twentieth_of_the_test_spectra_and_at_least_20():
    assert set(maps()[0].n_spectra) == {20}
    assert set(maps(no_spectra=35)[0].n_spectra) == {35}


def test_an_abundance_cut_that_leaves_no_spectrum_leaves_the_row_empty():
    names = list(DATA.amp_names)
    row = names.index("CO2")
    assert list(empty_rows({"CO2": [-1, 0]}, names, DATA.amps)) == [row]
    cut = maps(abundance={"CO2": [-1, 0], "H2O": [-8, 0]})
    whole = maps(abundance={"H2O": [-8, 0]})
    for one, other in zip(cut, whole):
        assert np.isnan(one.mean[row]).all() and one.n_spectra[row] == 0
        np.testing.assert_array_equal(np.delete(one.mean, row, axis=0), np.delete(other.mean, row, axis=0))


def test_abundance_cuts_that_leave_nothing_or_name_no_amp_are_refused():
    with pytest.raises(ValueError, match="received none for any AMP"):
        empty_rows({"H2O": [-1, 0]}, ["H2O"], DATA.amps[:, :1])
    with pytest.raises(ValueError, match="received 'CH5'"):
        empty_rows({"CH5": [-1, 0]}, DATA.amp_names, DATA.amps)
    assert empty_rows(None, DATA.amp_names, DATA.amps) == {}


def test_a_split_of_other_data_has_scalers_of_its_own():
    from preprocessing import Fold

    split = Split(DATA, np.arange(10), [Fold.of(DATA, np.arange(10, 60), np.arange(60, 100))])
    moved = split.with_data(replace(DATA, spectra=DATA.spectra + 0.01))
    assert moved.folds[0].scaler.x_mean == pytest.approx(split.folds[0].scaler.x_mean + 0.01)
