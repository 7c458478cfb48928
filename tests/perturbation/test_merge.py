"""The map of a survey put together from the maps of its parts is the map of the whole."""

from dataclasses import replace

import numpy as np
import pytest
from problems import plain_problem

from perturbation.accumulate import merge_maps
from sensitivity import sensitivity_map

N, N_BINS, N_AMPS = 12, 5, 2
WEIGHTS, SPECTRA, ERRORS, AMPS = plain_problem(N, N_BINS, N_AMPS)
AMPS[[0, 1, 5, 9], 0] = -5


def mapped(rows=slice(None), **options):
    how = {"scheme": "single", "gases": ["H2O", "Tp"], "no_spectra": None, "input_layout": "flat"} | options
    return sensitivity_map(
        lambda x: np.tanh(x) @ WEIGHTS,
        AMPS[rows],
        SPECTRA[rows],
        ERRORS[rows],
        [0, 0],
        [1, 3],
        x_mean=0,
        x_std=1,
        **how,
    )


PARTS = [slice(0, 2), slice(2, 3), slice(3, 9), slice(9, 12)]  # one is a single spectrum


def test_exact_map_of_the_parts_is_that_of_the_whole():
    whole, merged = mapped(), merge_maps(mapped(part) for part in PARTS)
    for name in ("mean", "standard_error", "quadrature_error", "slope", "curvature", "repeat_error"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-12, err_msg=name)
    assert merged.n_spectra.tolist() == [N, N] and merged.per_spectrum is None and merged.spectra is None
    assert (merged.scheme, merged.nodes, merged.amp_names) == (whole.scheme, whole.nodes, whole.amp_names)


def test_two_spectra_are_spread_as_two():
    whole, merged = mapped(slice(0, 2)), merge_maps([mapped(slice(0, 1)), mapped(slice(1, 2))])
    np.testing.assert_allclose(merged.standard_error, whole.standard_error, rtol=1e-12)


def test_each_amp_keeps_its_own_number_of_spectra():
    parts = [mapped(slice(0, 4), abundance=(-6, -4)), mapped(slice(4, 12), abundance=(-6, -4))]
    whole, merged = mapped(abundance=(-6, -4)), merge_maps(parts)
    assert merged.n_spectra.tolist() == whole.n_spectra.tolist() and whole.n_spectra[0] < N
    np.testing.assert_allclose(merged.standard_error, whole.standard_error, rtol=1e-12)


def test_errors_of_repeats_are_those_of_all_spectra():
    parts = [mapped(part, scheme="halving", repeat=9, rng=k) for k, part in enumerate(PARTS)]
    merged = merge_maps(parts)
    n = np.array([2, 1, 6, 3])[:, None, None]
    np.testing.assert_allclose(merged.mean, sum(n * [part.mean for part in parts]) / N, rtol=1e-12)
    variance = sum((n * [part.repeat_error for part in parts]) ** 2)
    np.testing.assert_allclose(merged.repeat_error, np.sqrt(variance) / N, rtol=1e-12)
    assert (merged.standard_error >= merged.repeat_error).all()
    assert merged.seed == 0 and merged.quadrature_error is None and merged.slope is None


def test_error_of_shares_adds_in_quadrature_by_the_size_of_the_parts():
    parts = [mapped(slice(0, 5)), mapped(slice(5, 12))]
    merged = merge_maps(parts)
    size = np.array([5, 7])[:, None, None] * [part.mean.sum(axis=1, keepdims=True) for part in parts]
    expected = np.sqrt(sum((size * [part.share_error for part in parts]) ** 2)) / sum(size)
    np.testing.assert_allclose(merged.share_error, expected, rtol=1e-12)
    assert np.isnan(merge_maps([*parts, mapped(slice(0, 1))]).share_error).all()
    old = replace(parts[1], share_error=None)
    assert merge_maps([parts[0], old]).share_error is None and merge_maps([old, parts[0]]).share_error is None


def test_bins_in_no_group_stay_nan_and_do_not_spoil_the_shares():
    parts = [mapped(part, scheme="halving", groups=[[0, 1], [3]], repeat=9, rng=0) for part in PARTS[2:]]
    merged = merge_maps(parts)
    assert np.isnan(merged.mean[:, [2, 4]]).all() and np.isfinite(merged.mean[:, [0, 1, 3]]).all()
    assert np.isfinite(merged.share_error[:, [0, 1, 3]]).all()


@pytest.mark.filterwarnings("error")
def test_a_lone_spectrum_keeps_its_own_error_and_nothing_is_warned_of():
    lone = mapped(slice(2, 3))
    np.testing.assert_array_equal(merge_maps([lone]).standard_error, lone.quadrature_error)
    silent = replace(lone, mean=np.zeros_like(lone.mean))
    assert np.isnan(merge_maps([silent, silent]).share_error).all()


def test_parts_that_were_not_made_alike_are_refused_by_name():
    first = mapped(slice(0, 5))
    changes = {
        "scheme": "halving", "repeat": 3, "scaled": True, "abundance": (-6, -4), "amp_names": (), "nodes": 3,
        "rule": "spline",
    }  # fmt: skip
    for name, value in changes.items():
        with pytest.raises(ValueError, match=f"^maps: expected the {name} .* of the first, received "):
            merge_maps([first, replace(first, **{name: value})])
    with pytest.raises(ValueError, match=r"^maps: expected the shape \(2, 5\) of the first, received \(2, 4\)"):
        merge_maps([first, replace(first, mean=first.mean[:, :4])])
    grouped = replace(first, groups=np.array([0, 0, 1, 1, -1]))
    with pytest.raises(
        ValueError, match=r"^maps: expected the groups \[0, 0, 1, 1, -1\] of the first, received \[0, 0, 1, -1, 1\]$"
    ):
        merge_maps([grouped, replace(first, groups=np.array([0, 0, 1, -1, 1]))])
    with pytest.raises(ValueError, match="groups None of the first"):
        merge_maps([first, grouped])
    merge_maps([grouped, replace(grouped, groups=grouped.groups.copy())])
    with pytest.raises(ValueError, match=r"^maps: expected at least one, received none$"):
        merge_maps([])
