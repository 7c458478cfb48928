"""Sums over spectra against NumPy on the whole survey: means, spreads and shares, where AMPs use different spectra."""

from types import SimpleNamespace

import numpy as np
import pytest

from perturbation.accumulate import RunningMoments, Totals

N_AMPS, N_BINS = 3, 4


def survey(n, seed=0, all_wanted=False):
    """Maps (n, n_AMPs, n_bins) and which AMPs each spectrum enters, (n, n_AMPs)."""
    rng = np.random.default_rng(seed)
    wanted = np.ones((n, N_AMPS), bool) if all_wanted else rng.random((n, N_AMPS)) < 0.6
    wanted[:, 0] = True
    return rng.uniform(0.1, 2, (n, N_AMPS, N_BINS)), wanted


def added(sums, maps, wanted):
    for spectrum_map, some in zip(maps, wanted):
        sums.add(spectrum_map, slice(None) if some.all() else np.flatnonzero(some))
    return sums


def test_each_amp_has_the_mean_and_standard_error_of_its_own_spectra():
    maps, wanted = survey(12)
    moments = added(RunningMoments(N_AMPS, N_BINS), maps, wanted)
    for k in range(N_AMPS):
        own = maps[wanted[:, k], k]
        np.testing.assert_allclose(moments.mean[k], own.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(moments.standard_error[k], own.std(axis=0, ddof=1) / len(own) ** 0.5, rtol=1e-12)
        assert moments.count[k] == len(own)


@pytest.mark.parametrize("fewest", [12, 13])
def test_within_needs_the_fewest_spectra_and_a_standard_error_of_at_most_the_tolerance(fewest):
    maps, wanted = survey(12, all_wanted=True)
    moments = added(RunningMoments(N_AMPS, N_BINS), maps, wanted)
    largest = (moments.standard_error / moments.mean).max()
    assert moments.within(1.001 * largest, fewest) == (fewest == 12)
    assert not moments.within(0.999 * largest, fewest)


def test_within_asks_for_ten_spectra_unless_told():
    maps, wanted = survey(10, all_wanted=True)
    assert added(RunningMoments(N_AMPS, N_BINS), maps, wanted).within(100)
    assert not added(RunningMoments(N_AMPS, N_BINS), maps[1:], wanted[1:]).within(100)


@pytest.mark.parametrize("all_wanted", [True, False])
def test_sums_hold_the_wanted_spectra_alone(all_wanted):
    maps, wanted = survey(9, all_wanted=all_wanted)
    plan = SimpleNamespace(used=np.arange(9), shape=(N_AMPS, N_BINS), n_arrays=3)
    totals = Totals(plan, keep_spectra=True)
    for k in range(9):
        totals.add(k, np.stack([maps[k], 2 * maps[k], 3 * maps[k]]), np.flatnonzero(wanted[k]))
    expected = (maps * wanted[:, :, None]).sum(axis=0)
    np.testing.assert_allclose(totals.others, np.stack([2 * expected, 3 * expected]), rtol=1e-12)
    assert np.array_equal(totals.per_spectrum, np.where(wanted[:, :, None], maps, np.nan), equal_nan=True)


@pytest.mark.parametrize("all_wanted", [True, False])
@pytest.mark.parametrize("n", [2, 5, 14])  # fewer than the groups, as many, and more
def test_errors_of_shares_are_the_grouped_jackknife(n, all_wanted):
    maps, wanted = survey(n, seed=2, all_wanted=all_wanted)
    wanted[:2] = True
    errors = added(RunningMoments(N_AMPS, N_BINS, n_groups=5), maps, wanted).share_error
    for k in range(N_AMPS):
        own = maps[wanted[:, k], k]
        m = min(len(own), 5)
        left_out = np.stack([np.delete(own, np.arange(g, len(own), 5), axis=0).sum(axis=0) for g in range(m)])
        left_out /= left_out.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(errors[k], np.sqrt((m - 1) * left_out.var(axis=0)), rtol=1e-9)


@pytest.mark.filterwarnings("error")
def test_one_spectrum_and_silent_maps_have_no_errors_and_warn_of_nothing():
    assert np.isnan(added(RunningMoments(N_AMPS, N_BINS), *survey(1, all_wanted=True)).share_error).all()
    silent = added(RunningMoments(N_AMPS, N_BINS), np.zeros((3, N_AMPS, N_BINS)), np.ones((3, N_AMPS), bool))
    assert np.isnan(silent.share_error).all()
    one = added(RunningMoments(N_AMPS, N_BINS), *survey(1, all_wanted=True))
    assert np.isnan(one.standard_error).all()
