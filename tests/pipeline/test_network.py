"""A network with its scaler answers in the AMPs' own units, and so does the mean of several."""

import numpy as np
import pytest
from synthetic import dataset

pytest.importorskip("keras")

from models import build_model, load_model
from pipeline.network import TrainedNetwork, mean_network
from preprocessing import Scaler


def networks(data, n=3):
    """Networks that were not trained, each with the scaler of other rows."""
    shape = data.spectra.shape[1], len(data.amp_table), 0 if data.auxiliary is None else data.auxiliary.shape[1]
    for k in range(n):
        scaler = Scaler.fit(data, np.arange(20 * (k + 1)))
        yield TrainedNetwork(build_model("mlp", *shape, seed=k, units=(8,)), scaler, data.amp_names)


@pytest.fixture(params=[False, True], ids=["spectra", "and auxiliary inputs"])
def data(request):
    return dataset(n=80, auxiliary=request.param)


def test_the_mean_network_gives_the_mean_answer_in_retrieval_space(data, tmp_path):
    several = list(networks(data))
    expected = np.mean([one.predict(data.spectra, data.auxiliary) for one in several], axis=0)
    mean = mean_network(several)
    np.testing.assert_allclose(mean.predict(data.spectra, data.auxiliary), expected, rtol=1e-5)
    mean.model.save(tmp_path / "mean.keras")
    read = TrainedNetwork(load_model(tmp_path / "mean.keras"), mean.scaler, mean.amp_names)
    np.testing.assert_array_equal(
        read.predict(data.spectra, data.auxiliary), mean.predict(data.spectra, data.auxiliary)
    )


def test_the_sensitivity_of_a_mean_is_that_of_the_mean_answer():
    data = dataset(n=80)
    several = list(networks(data, 2))
    spectra, errors = data.spectra[:3], data.errors[:3]
    mean = mean_network(several)

    def answers(x):  # scaled as the first network has it, flat
        depths = x.reshape(len(x), -1) * mean.scaler.x_std + mean.scaler.x_mean
        both = np.mean([one.predict(depths) for one in several], axis=0)
        return mean.scaler.targets(both)

    options = {"repeat": 4, "rng": 0, "scheme": "single"}
    by_hand = mean.sensitivity(spectra, errors, model=answers, **options)
    np.testing.assert_allclose(mean.sensitivity(spectra, errors, **options).mean, by_hand.mean, rtol=0.02)


def test_auxiliary_inputs_stay_at_their_mean_or_are_the_same_for_all_rows():
    data = dataset(n=80, auxiliary=True)
    (network,) = networks(data, 1)
    few, middle = data.spectra[:5], network.scaler.auxiliary_mean
    np.testing.assert_array_equal(network.predict(few), network.predict(few, middle))
    np.testing.assert_array_equal(network.predict(few, middle), network.predict(few, np.tile(middle, (5, 1))))
