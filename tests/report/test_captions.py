"""Captions, labels and the summary say what was done: noise, loss, scheme, numbers of spectra, each against its run."""

import h5py
import numpy as np
import pytest
from example_runs import write_run

from constants import amp
from report import map_figures, page
from report.pictures import LOSS, MAKERS, TWO_COLUMNS, make_figures
from runio.config import Config, TrainingConfig
from runio.results import load_run

SMALL = {"n_amps": 2, "n_bins": 5, "n_folds": 1, "n_test": 30}
MAPS = ("sensitivity_curves", "sensitivity_profiles", "sensitivity_heatmap", "response_map")


class Pictures(dict):
    """Pictures of a run, each drawn when it is asked for."""

    def __init__(self, run):
        self.run = run

    def __missing__(self, name):
        self[name] = MAKERS[name](self.run, TWO_COLUMNS)
        return self[name]


def example(folder, **changes):
    """Return a small run as it is read from its folder, and its pictures."""
    run = load_run(write_run(folder / "run", **{**SMALL, **changes}))
    return run, Pictures(run)


def said(picture):
    return f"{picture.shows} {picture.read}"


@pytest.mark.parametrize(
    ("survey_noisy", "map_noisy", "expected"),
    [(False, False, "noise-free"), (False, True, "noisy"), (True, False, "noisy"), (True, None, "noisy")],
)
def test_maps_are_called_noise_free_only_where_their_spectra_were(tmp_path, survey_noisy, map_noisy, expected):
    _, pictures = example(tmp_path, survey_noisy=survey_noisy, map_noisy=map_noisy)
    for name in MAPS:
        assert f"{expected} test spectra" in pictures[name].shows
        assert {"noisy": "noise-free", "noise-free": "noisy"}[expected] not in said(pictures[name])


def test_of_a_run_that_did_not_record_its_noise_none_is_claimed(tmp_path):
    folder = write_run(tmp_path / "run", **SMALL)
    with h5py.File(folder / "results.h5", "a") as file:
        del file.attrs["noisy"], file["fold_0/response"].attrs["noisy"]
    for name, picture in make_figures(load_run(folder, unverified=True), "all").items():
        assert "noise-free" not in said(picture), name


@pytest.mark.parametrize("survey_noisy", [False, True])
def test_added_noise_is_told_from_the_noise_of_the_data_set(tmp_path, survey_noisy):
    run, pictures = example(tmp_path, survey_noisy=survey_noisy)
    for text in (pictures["true_vs_predicted"].shows, page.summary(run)["Test spectra"]):
        assert ("noise drawn from their errors" in text) is not survey_noisy
        assert ("noisy as in the data set" in text) is survey_noisy


@pytest.mark.parametrize("loss", TrainingConfig.__dataclass_fields__["loss"].metadata["choices"])
def test_the_loss_is_named_as_it_was_trained(tmp_path, loss):
    _, pictures = example(tmp_path, settings={"training": {"loss": loss}})
    picture, axis = pictures["loss_curves"], pictures["loss_curves"].figure.axes[0]
    assert LOSS[loss][0] in picture.shows and LOSS[loss][1] in axis.get_ylabel()
    for text in (picture.shows, axis.get_ylabel()):
        assert (" log" in text) is (loss == "log_mse")
    assert axis.get_ylabel() != "Loss (mean squared error, scaled)" or loss == "mse"


def test_a_loss_that_is_not_recorded_gets_no_name(tmp_path):
    _, pictures = example(tmp_path, settings={"training": {}})
    assert pictures["loss_curves"].shows.startswith("Loss against epoch.")
    assert pictures["loss_curves"].figure.axes[0].get_ylabel() == "Loss"


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_dropout_is_named_only_where_there_was_some(tmp_path, rate):
    tree = Config().to_dict()
    tree["model"]["mlp"]["dropout"] = rate
    _, pictures = example(tmp_path, settings=tree)
    assert ("dropout" in pictures["loss_curves"].read) is (rate > 0)


@pytest.mark.parametrize(("survey_noisy", "size"), [(True, 0.5), (True, 0.0), (False, 0.5)])
def test_extra_noise_is_named_only_where_it_was_added(tmp_path, survey_noisy, size):
    tree = Config().to_dict()
    tree["training"]["extra_noise"] = size
    _, pictures = example(tmp_path, settings=tree, survey_noisy=survey_noisy)
    assert ("with extra noise" in pictures["loss_curves"].read) is (survey_noisy and size > 0)


@pytest.mark.parametrize("scheme", ["halving", "single"])
def test_groups_and_floor_are_named_only_where_bins_moved_together(tmp_path, scheme):
    _, pictures = example(tmp_path, scheme=scheme)
    assert f"scheme {scheme}," in pictures["sensitivity_profiles"].shows
    for name in ("sensitivity_curves", "sensitivity_profiles"):
        assert ("group" in pictures[name].read) is (scheme == "halving")
    assert ("floor" in pictures["sensitivity_curves"].read) is (scheme == "halving")


def test_repeats_are_named_only_where_something_was_drawn(tmp_path):
    folder = write_run(tmp_path / "run", **SMALL, scheme="single")
    assert "single, 20 repeats, " in Pictures(load_run(folder))["sensitivity_curves"].shows
    with h5py.File(folder / "results.h5", "a") as file:
        file["fold_0/sensitivity"].attrs.update(nodes=5, rule="hermite", repeat=0)
    shows = Pictures(load_run(folder, unverified=True))["sensitivity_curves"].shows
    assert "single, 5 nodes of quadrature (hermite), " in shows and "repeat" not in shows


def test_the_number_of_spectra_spans_the_amps_and_the_folds(tmp_path):
    folder = write_run(tmp_path / "run", **{**SMALL, "n_folds": 2})
    with h5py.File(folder / "results.h5", "a") as file:
        file["fold_0/sensitivity"].attrs["n_spectra"] = [20, 21]
        file["fold_1/sensitivity"].attrs["n_spectra"] = [12, 30]
    pictures = Pictures(load_run(folder, unverified=True))
    assert "20 repeats, 12 to 30 noise-free test spectra, mean of 2 folds" in pictures["sensitivity_profiles"].shows
    assert "averaged over the first 5 noise-free test spectra (mean of 2 folds)" in pictures["response_map"].shows


def test_bands_are_named_only_where_they_are_drawn(tmp_path):
    for number, (amps, drawn) in enumerate(((["H2O", "Tp"], True), (["Rp", "Tp"], False))):
        _, pictures = example(tmp_path / str(number), amps=amps)
        assert ("band" in said(pictures["sensitivity_heatmap"])) is drawn


def test_inputs_that_the_response_map_holds_still_are_named(tmp_path):
    _, pictures = example(tmp_path, settings={"data": {"auxiliary": ["star_radius", "log_error"]}})
    assert "with star_radius and log_error at the training mean" in pictures["response_map"].shows


def test_marks_of_the_kept_epoch_are_named_only_where_there_are_any(tmp_path):
    folder = write_run(tmp_path / "run", **SMALL)
    (folder / "history_0.csv").write_text("epoch,loss\n0,1.0\n1,0.5\n")
    assert "Marks" not in Pictures(load_run(folder))["loss_curves"].shows


def test_one_sensitive_bin_of_many_is_not_called_insensitive():
    sensitivity = np.zeros((1, 52))
    sensitivity[0, 7] = 4.0
    wavelength, depth = np.geomspace(1, 5, 52), np.full(52, 0.01)
    figure = map_figures.sensitivity_curves(wavelength, None, sensitivity, [amp("Tp")], {}, depth)
    assert not figure.axes[0].texts
    dots = figure.axes[0].collections[0]
    np.testing.assert_array_equal(dots.norm(dots.get_array()), np.arange(52) == 7)


def test_every_caption_is_whole_sentences(tmp_path):
    for changes in ({}, {"n_folds": 2, "survey_noisy": True, "scheme": "single", "settings": {"training": {}}}):
        run, _ = example(tmp_path / str(len(changes)), **changes)
        for name, picture in make_figures(run, "all").items():
            for text in (picture.shows, picture.read):
                assert text.endswith(".") and "  " not in text and " ." not in text and "None" not in text, (name, text)
