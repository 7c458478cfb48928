"""The maps of thirds of an AMP's range."""

from types import SimpleNamespace

import numpy as np

from pipeline.evaluate import FEWEST_OF_THIRD, thirds_of


def test_the_maps_of_thirds_are_those_of_the_spectra_in_them():
    rng = np.random.default_rng(0)
    amps, rows = rng.normal(size=(90, 2)), rng.permutation(90)[:60]
    found = SimpleNamespace(spectra=rows, per_spectrum=rng.random((60, 2, 5)))
    maps, limits = thirds_of(found, amps)
    for k in range(2):
        order = np.argsort(amps[rows, k])
        for third in range(3):
            some = order[20 * third : 20 * third + 20]
            np.testing.assert_allclose(maps[k, third], found.per_spectrum[some, k].mean(axis=0))
            assert limits[k, third] == amps[rows[some], k].min()
        assert limits[k, 3] == amps[rows, k].max()
    np.testing.assert_allclose(maps.mean(axis=1), found.per_spectrum.mean(axis=0))


def test_a_third_of_few_spectra_has_no_map():
    few = 3 * FEWEST_OF_THIRD - 1
    found = SimpleNamespace(spectra=np.arange(few), per_spectrum=np.ones((few, 1, 2)))
    assert thirds_of(found, np.ones((few, 1))) is None
