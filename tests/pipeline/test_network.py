"""A network with its scaler answers in the AMPs' own units, and so does the mean of several."""

import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import yaml
from example_runs import write_run
from synthetic import dataset

pytest.importorskip("keras")

from models import build_model, load_model
from pipeline.network import Known, TrainedNetwork, mean_network
from preprocessing import Scaler
from runio.folder import write_manifest
from runio.results import load_run


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
    by_hand = replace(mean, model=answers).sensitivity(spectra, errors, **options)
    np.testing.assert_allclose(mean.sensitivity(spectra, errors, **options).mean, by_hand.mean, rtol=0.02)


def test_auxiliary_inputs_stay_at_their_mean_or_are_the_same_for_all_rows():
    data = dataset(n=80, auxiliary=True)
    (network,) = networks(data, 1)
    few, middle = data.spectra[:5], network.scaler.auxiliary_mean
    np.testing.assert_array_equal(network.predict(few), network.predict(few, middle))
    np.testing.assert_array_equal(network.predict(few, middle), network.predict(few, np.tile(middle, (5, 1))))


class Quantity(np.ndarray):
    """As astropy's: an array with a unit, which np.asarray drops."""

    unit = "ppm"


REFUSED = [  # arguments of `predict`, piece of the line
    ("a unit", lambda x: (x.view(Quantity),), "spectra: expected plain numbers, received Quantity in ppm; give plain"),
    ("units in a list", lambda x: ([row.view(Quantity) for row in x],), "spectra: expected plain numbers"),
    ("a unit of auxiliary inputs", lambda x: (x, np.ones(1).view(Quantity)), "auxiliary: expected plain numbers"),
    ("a mask", lambda x: (np.ma.masked_less(x, 1),), "spectra: expected no masked entries, received 65"),
    ("masks in a list", lambda x: (list(np.ma.masked_less(x, 1)),), "spectra: expected no masked entries"),
    ("complex numbers", lambda x: (x + 0j,), "spectra: expected real numbers of shape (N, 13), received complex128"),
    ("dates", lambda x: (x.astype("datetime64[s]"),), "spectra: expected real numbers of shape (N, 13), received date"),
    ("text", lambda x: (x.astype(str),), "spectra: expected real numbers of shape (N, 13)"),
    ("text as objects", lambda x: (x.astype(str).astype(object),), "spectra: expected real numbers of shape (N, 13)"),
    ("nothing", lambda x: (None,), "spectra: expected shape (N, 13)"),
    ("no spectra", lambda x: (x[:0],), "spectra: expected shape (N, 13), received (0, 13)"),
    ("one spectrum", lambda x: (x[0],), "spectra: expected shape (N, 13), received (13,)"),
    ("other bins", lambda x: (x[:, 1:],), "spectra: expected shape (N, 13), received (5, 12)"),
    ("one more axis", lambda x: (x[..., None],), "spectra: expected shape (N, 13), received (5, 13, 1)"),
    ("NaN", lambda x: (np.where(x > x.min(), x, np.nan),), "received others in 1 row"),
    ("ppm", lambda x: (x * 1e300,), "received others in 5 rows"),
    ("auxiliary NaN", lambda x: (x, [np.nan]), "auxiliary inputs: expected finite numbers"),
    ("two auxiliary inputs", lambda x: (x, [1.0, 2.0]), "auxiliary: expected shape (1,) or (5, 1), received (2,)"),
    ("auxiliary of four spectra", lambda x: (x, np.ones((4, 1))), "auxiliary: expected shape (1,) or (5, 1), received"),
    ("auxiliary of text", lambda x: (x, ["7e8"]), "auxiliary: expected real numbers"),
]  # fmt: skip


@pytest.fixture(scope="module")
def with_auxiliary():
    data = dataset(n=80, auxiliary=True)
    return next(networks(data, 1)), data.spectra[:5]


@pytest.mark.parametrize(("name", "change", "piece"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_is_no_plain_spectrum_is_refused_in_one_line(with_auxiliary, name, change, piece):
    network, spectra = with_auxiliary
    with pytest.raises(ValueError) as refusal:
        network.predict(*change(spectra))
    assert piece in str(refusal.value) and len(str(refusal.value).splitlines()) == 1


def test_auxiliary_input_of_a_network_without_one_is_refused():
    data = dataset(n=80)
    with pytest.raises(ValueError, match="auxiliary: expected None, as the network has no auxiliary inputs"):
        next(networks(data, 1)).predict(data.spectra, [1.0])


# Spectra and errors in another unit


@pytest.fixture(scope="module")
def guarded():
    """A network that knows the spectra of its run, and these spectra and errors."""
    data = dataset(n=80)
    network, error = next(networks(data, 1)), np.median(data.errors, axis=0)
    reference = {"spectra": data.spectra, "error": error, "error_level": np.median(data.errors / error, axis=1)}
    return replace(network, known=Known.of_run(SimpleNamespace(reference=reference), network.scaler)), data


OTHER_UNITS = [  # what is done to spectra and errors, end of the line
    ("ppm", lambda x, e: (x * 1e6, e), "; are they ppm?"),
    ("per cent", lambda x, e: (x * 1e2, e * 1e2), "; are they per cent?"),
    ("parts per thousand", lambda x, e: (x * 1e3, e), "; are they parts per thousand?"),
    ("radius ratios", lambda x, e: (np.sqrt(x), e), "; are they radius ratios Rp/Rs?"),
    ("one spectrum of all in ppm", lambda x, e: (np.vstack([x[:-1], 1e6 * x[-1:]]), e), "; are they ppm?"),
    ("no unit explains it", lambda x, e: (x + 0.5, e), " deviations of the mean in training as in this run, received "),
    ("errors in ppm", lambda x, e: (x, e * 1e6), "; are they ppm?"),
    ("errors in per cent", lambda x, e: (x, e * 1e2), "; are they per cent?"),
    ("variances", lambda x, e: (x, e**2), "; are they variances?"),
    ("errors larger than the depths", lambda x, e: (x, 0 * e + 0.3), "of the training set as in this run, received "),
]


@pytest.mark.parametrize(("name", "change", "end"), OTHER_UNITS, ids=[row[0] for row in OTHER_UNITS])
def test_another_unit_is_refused_and_named(guarded, name, change, end):
    network, data = guarded
    spectra, errors = change(data.spectra, data.errors)
    with pytest.raises(ValueError) as refusal:
        network.sensitivity(spectra, errors, scheme="single")
    assert end in str(refusal.value) and len(str(refusal.value).splitlines()) == 1
    if spectra is not data.spectra:
        with pytest.raises(ValueError, match="expected transit depths as fractions"):
            network.predict(spectra)


def test_spectra_of_the_run_and_errors_of_any_observation_pass(guarded):
    network, data = guarded
    network.predict(data.spectra + data.errors * np.random.default_rng(0).standard_normal(data.spectra.shape))
    for factor in (0.1, 1, 10):
        network.sensitivity(data.spectra[:1], factor * data.errors[:1], scheme="single")


def test_a_frame_names_the_amps_and_gives_them_in_the_units_of_the_report(guarded):
    pytest.importorskip("pandas")
    network, data = guarded
    frame = replace(network, amp_table=data.amp_table).predict_frame(data.spectra[:3])
    assert list(frame.columns[:2]) == ["H2O (log10 VMR)", "CO2 (log10 VMR)"]
    assert {"Rp (R_J)", "Tp (K)"} <= set(frame.columns)
    plain = network.predict(data.spectra[:3])
    np.testing.assert_allclose(frame["H2O (log10 VMR)"], plain[:, 0])
    radius = data.amp_names.index("Rp")
    np.testing.assert_allclose(frame["Rp (R_J)"], plain[:, radius] / 6.9911e7)
    with pytest.raises(ValueError, match="loaded from a run"):
        network.predict_frame(data.spectra[:3])


# The files of a run belong together


def save(path, n_bins=5, n_amps=3, n_auxiliary=0, seed=0):
    build_model("mlp", n_bins, n_amps, n_auxiliary, seed=seed, units=(4,)).save(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of two folds, their mean, five bins and three AMPs."""
    folder = write_run(tmp_path_factory.mktemp("finished") / "run", n_amps=3, n_bins=5, n_folds=2, n_test=20)
    for seed, name in enumerate(NETWORKS):
        save(folder / name, seed=seed)
    write_manifest(folder, [*NETWORKS, "results.h5", "config.yaml"])
    return folder


NETWORKS = ("model_0.keras", "model_1.keras", "ensemble.keras")
SWAPPED = [  # what is put in place, of which network, piece of the line
    ("other bins", lambda path: save(path, n_bins=6), 0, "expected inputs of shape (5, 1), as the run has 5 bins"),
    ("other AMPs", lambda path: save(path, n_amps=4), 0, "expected outputs of shape (3,)"),
    ("an auxiliary input", lambda path: save(path, n_auxiliary=1), 1, "received (5, 1) and (1,): is it the network of"),
    ("a mean of other bins", lambda path: save(path, n_bins=4), None, "ensemble.keras: expected inputs of shape"),
    ("no mean", os.remove, "ensemble", "ensemble.keras: no such file"),
    ("the other fold", lambda path: shutil.copy(path.with_name("model_1.keras"), path), 0, "not the file"),
    ("a fold for the mean", lambda path: shutil.copy(path.with_name("model_1.keras"), path), None, "not the file"),
    ("one trained elsewhere", lambda path: save(path, seed=7), 1, "not the file"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "put", "fold", "piece"), SWAPPED, ids=[row[0] for row in SWAPPED])
def test_network_of_another_run_is_refused_in_one_line(tmp_path, finished, name, put, fold, piece):
    folder = shutil.copytree(finished, tmp_path / "run")
    put(folder / NETWORKS[2 if fold in (None, "ensemble") else fold])
    with pytest.raises(ValueError) as refusal:
        TrainedNetwork.load(folder, fold)
    assert piece in str(refusal.value) and len(str(refusal.value).splitlines()) == 1


def test_network_without_the_auxiliary_input_of_its_run_is_refused(tmp_path, finished):
    folder = shutil.copytree(finished, tmp_path / "run")
    with h5py.File(folder / "results.h5", "a") as file:
        file["reference/auxiliary"] = np.ones((20, 2))
        for name in ("fold_0", "fold_1", "ensemble"):
            file[f"{name}/scaler/auxiliary_mean"], file[f"{name}/scaler/auxiliary_std"] = np.zeros(2), np.ones(2)
    with pytest.raises(ValueError, match=r"data\.auxiliary: expected 2 names, as results.h5 has, received"):
        load_run(folder, unverified=True)
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**settings, "data": {"auxiliary": ["a", "b"]}}))
    with pytest.raises(ValueError, match=r"expected inputs of shape \(5, 1\) and \(2,\), .* received \(5, 1\)"):
        TrainedNetwork.load(folder, unverified=True)


@pytest.mark.parametrize("fold", [0, 1, "ensemble", None])
def test_the_good_run_of_these_tests_is_good_with_and_without_a_manifest(tmp_path, finished, fold):
    """Otherwise every refusal above might be for another reason."""
    spectra = np.full((2, 5), 0.015)
    network = TrainedNetwork.load(finished, fold)
    assert len(network.amp_table) == 3
    mapped = network.sensitivity(spectra, np.full((2, 5), 1e-5), scheme="single")
    np.testing.assert_array_equal(mapped.wavelength, network.wavelength)
    expected = network.predict(spectra)
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"expected its SHA-256 in manifest\.json"):
        TrainedNetwork.load(folder, fold)
    again = TrainedNetwork.load(folder, fold, unverified=True)
    np.testing.assert_array_equal(again.predict(spectra), expected)
    with pytest.raises(ValueError, match="fold: expected one of 0, 1, ensemble, received 7"):
        TrainedNetwork.load(finished, 7)
