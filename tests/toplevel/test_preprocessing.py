"""Splits, scalers and noise: no leak from the test set, nothing drawn twice, everything from the seed."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic import dataset

from preprocessing import (
    Fold,
    Scaler,
    add_noise,
    epoch_chunks,
    first_layer,
    split_folds,
    split_test,
    take,
)


def test_test_rows_and_folds_never_overlap():
    data = dataset()
    rest, test = split_test(data, 0.2, seed=3)
    assert len(test) == 80 and not set(rest) & set(test)
    for kind in ("kfold", "random"):
        for train, valid in split_folds(rest, 5, kind, 0.2, seed=3):
            assert sorted([*train, *valid]) == list(rest)
            assert len(valid) == 64


def test_kfold_validates_each_row_once_and_random_folds_differ():
    rest = np.arange(100)
    valid = np.concatenate([v for _, v in split_folds(rest, 4, "kfold", 0.2, seed=0)])
    assert sorted(valid) == list(rest)
    (_, a), (_, b) = split_folds(rest, 2, "random", 0.2, seed=0)
    assert list(a) != list(b)


def test_split_follows_the_seed():
    data = dataset()
    assert np.array_equal(split_test(data, 0.2, 1)[1], split_test(data, 0.2, 1)[1])
    assert not np.array_equal(split_test(data, 0.2, 1)[1], split_test(data, 0.2, 2)[1])


def test_test_rows_of_the_data_set_are_kept():
    data = replace(dataset(), test_rows=np.array([7, 3, 5]))
    rest, test = split_test(data, 0.2, 0)
    assert list(test) == [3, 5, 7] and len(rest) == 397


def test_take_keeps_the_last_row_with_minus_one():
    data = dataset(n=10)
    assert len(take(data, -1)) == 10 and len(take(data, 4)) == 4
    for size in (0, 11, -2):
        with pytest.raises(ValueError, match="size"):
            take(data, size)


def test_too_few_spectra_are_refused():
    with pytest.raises(ValueError, match="too few spectra"):
        split_test(dataset(n=3), 0.2, 0)
    with pytest.raises(ValueError, match="too few spectra"):
        split_folds(np.arange(3), 5, "kfold", 0.2, 0)


def test_scaler_uses_its_rows_alone_and_inverts():
    data = dataset()
    rows = np.arange(100)
    scaler = Scaler.fit(data, rows)
    assert np.isscalar(scaler.x_mean) and np.isscalar(scaler.x_std)
    changed = data.spectra.copy()
    changed[100:] = 1.0
    assert Scaler.fit(replace(data, spectra=changed), rows).x_mean == scaler.x_mean
    assert np.allclose(scaler.amps(scaler.targets(data.amps)), data.amps, rtol=1e-6)
    assert scaler.inputs(data.spectra).shape == (400, 13, 1)
    assert abs(scaler.inputs(data.spectra[rows]).mean()) < 1e-5


def test_constant_target_is_refused():
    data = dataset()
    data.amps[:, 2] = 5.0
    with pytest.raises(ValueError, match="Tp is constant"):
        Scaler.fit(data, np.arange(50))


def test_noise_has_the_size_of_the_errors():
    data = dataset(n=4000)
    z = (add_noise(data.spectra, data.errors, np.random.default_rng(0)) - data.spectra) / data.errors
    assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02


def epoch(data, **changes):
    """Return all inputs and targets of one epoch."""
    rows = np.arange(0, 400, 2)
    arguments = {"copies": 3, "noise": "fresh", "seed": (1, 0), "epoch": 0, "chunk_rows": 64} | changes
    chunks = list(epoch_chunks(data, Fold.of(data, rows, rows), **arguments))
    return np.concatenate([c[0] for c in chunks])[..., 0], np.concatenate([c[1] for c in chunks])


def test_an_epoch_holds_every_training_spectrum_copies_times():
    data = dataset(noise=1e-12)
    x, y = epoch(data)
    assert len(x) == 600 and x.dtype == np.float32
    values, counts = np.unique(y[:, 0], return_counts=True)
    assert len(values) == 200 and set(counts) == {3}


def test_noise_is_fresh_in_every_copy_and_epoch():
    data = dataset()
    first, second = epoch(data), epoch(data, epoch=1)
    same = first[0][np.lexsort(first[1].T)], second[0][np.lexsort(second[1].T)]
    assert len(np.unique(same[0][:, 0])) == 600  # every copy its own noise
    assert not np.intersect1d(same[0][:, 0], same[1][:, 0]).size


def test_fixed_noise_gives_the_same_copies_in_every_epoch():
    data = dataset()
    first, second = (epoch(data, noise="fixed", epoch=e)[0] for e in (0, 1))
    assert not np.array_equal(first, second)  # another order
    assert np.array_equal(np.sort(first[:, 0]), np.sort(second[:, 0]))


@pytest.mark.parametrize("noise", ["fresh", "fixed"])
@pytest.mark.parametrize("size", [0.0, 0.5, 1.0])
def test_noise_of_an_epoch_has_the_size_that_is_asked_for(noise, size):
    data = dataset(noise=1e-4)
    clean = replace(data, spectra=np.full_like(data.spectra, 0.01), errors=np.full_like(data.errors, 1e-4))
    fold = Fold.of(data, np.arange(400), np.arange(400))
    scaler = fold.scaler
    chunks = epoch_chunks(clean, fold, 5, noise, (1, 0), 0, 100, noise_size=size)
    added = np.concatenate([x for x, _ in chunks])[..., 0] * scaler.x_std + scaler.x_mean - 0.01
    assert added.std() / 1e-4 == pytest.approx(size, abs=0.02)


def test_an_epoch_is_the_same_again():
    data = dataset()
    assert np.array_equal(epoch(data)[0], epoch(data)[0])
    assert not np.array_equal(epoch(data)[0], epoch(data, seed=(1, 1))[0])


def test_whitened_noisy_spectra_have_unit_covariance():
    data = dataset(n=4000, noise=3e-4)
    fold = Fold.of(data, np.arange(4000), np.arange(4000))
    scaler = fold.scaler
    kernel, bias = first_layer(data, fold, True)
    noisy = add_noise(data.spectra, data.errors, np.random.default_rng(0))
    white = scaler.inputs(noisy)[..., 0] @ kernel + bias
    assert np.allclose(np.cov(white.T), np.eye(13), atol=0.1)
    assert np.allclose(kernel, kernel.T)


@pytest.mark.parametrize("faint, whitened", [(0.01, True), (0.3, False)])
def test_spectra_that_hold_noise_are_whitened_where_a_clear_direction_is_faint(faint, whitened):
    rng = np.random.default_rng(0)
    data = dataset(n=400, noise=1e-6)
    planets = rng.normal(size=(400, 2)) * [1, faint]  # depth of all bins, and of the last one
    spectra = (
        1e-2 + 1e-3 * (planets[:, :1] + planets[:, 1:] * np.eye(13)[-1]) + data.errors * rng.normal(size=(400, 13))
    )
    found = {}
    for noisy in (False, True):
        some = replace(data, spectra=spectra, noisy=noisy)
        fold = Fold.of(some, np.arange(400), np.arange(400))
        found |= {(noisy, asked): first_layer(some, fold, asked) is not None for asked in ("auto", True, False)}
    expected = {True: True, False: False}
    assert found == {(n, a): expected.get(a, whitened or not n) for n in (False, True) for a in ("auto", True, False)}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, 1e38])
def test_inputs_that_a_network_would_answer_with_nonsense_are_refused_by_row(value):
    data = dataset(n=40, auxiliary=True)
    scaler = Scaler.fit(data, np.arange(40))
    spectra, auxiliary, amps = data.spectra.copy(), data.auxiliary.copy(), data.amps.copy()
    spectra[7, 3] = auxiliary[8, 0] = amps[9, 1] = value
    for what, call in {
        r"spectra: .* 1 row \(7\)": lambda: scaler.inputs(spectra),
        r"auxiliary inputs: .* 1 row \(8\)": lambda: scaler.inputs(data.spectra, auxiliary),
        r"AMPs: .* 1 row \(9\)": lambda: scaler.targets(amps),
    }.items():
        with pytest.raises(ValueError, match=what):
            call()


def test_digest_holds_all_that_changes_a_number_or_a_label():
    data = dataset(n=20, auxiliary=True)
    data = replace(data, bin_width=0.1 * data.wavelength, molecule_curves={"H2O": data.spectra[0]})
    other = data.amp_table
    changes = [
        {"amp_table": (other[1], other[0], *other[2:])},
        {"amp_table": (replace(other[0], unit="ppm"), *other[1:])},
        {"amp_table": (replace(other[0], scale="linear"), *other[1:])},
        {"auxiliary_names": ("star_mass",)},
        {"auxiliary": None},
        {"bin_width": 0.2 * data.wavelength},
        {"bin_width": None},
        {"molecule_curves": {"CO2": data.spectra[0]}},
        {"molecule_curves": {"H2O": data.spectra[1]}},
        {"molecule_curves": {}},
        {"noisy": True},
        {"test_rows": np.arange(3)},
        {"spectra": data.spectra.reshape(26, 10)},
        *({name: getattr(data, name) * 1.001} for name in ("spectra", "errors", "wavelength", "amps")),
    ]
    digests = [replace(data, **change).sha256() for change in [{"name": "elsewhere"}, *changes]]
    assert digests[0] == data.sha256()
    assert len(set(digests)) == len(digests)
