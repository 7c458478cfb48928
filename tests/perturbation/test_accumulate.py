"""From the maps of single spectra to a map: every array against NumPy on what the store holds."""

import numpy as np
import pytest
from problems import plain_problem

from sensitivity import sensitivity_map

N, N_BINS, N_AMPS = 14, 5, 2
WEIGHTS, SPECTRA, ERRORS, AMPS = plain_problem(N, N_BINS, N_AMPS)
UNIT = np.array([2.0, 5.0])


def run(store=None, **options):
    how = {"gases": ["H2O", "Tp"], "no_spectra": None, "input_layout": "flat", "rng": 0, "repeat": 6} | options
    return sensitivity_map(
        lambda x: np.tanh(x) @ WEIGHTS, AMPS, SPECTRA, ERRORS, [0, 0], UNIT, x_mean=0, x_std=1, store=store, **how
    )


@pytest.mark.parametrize("cut", [None, (-6, -3)])
@pytest.mark.parametrize("how", [{"scheme": "halving"}, {"scheme": "single"}, {"groups": [[0, 1], [3]]}])
def test_every_array_is_that_of_the_spectra_of_its_amp(how, cut):
    store = {}
    result = run(store, abundance=cut, **how)
    for k in range(N_AMPS):
        chosen = np.ones(N, bool) if cut is None or k == 1 else (cut[0] < AMPS[:, 0]) & (AMPS[:, 0] < cut[1])
        arrays = np.stack([store[row][:, k] for row in np.flatnonzero(chosen)], axis=1)  # (n_arrays, n, n_bins)
        n, (maps, *others) = chosen.sum(), arrays
        assert result.n_spectra[k] == n and (cut is None or k == 1 or 1 < n < N)
        spread, square = maps.std(axis=0, ddof=1) / np.sqrt(n), UNIT[k] ** 2
        tested = np.isin(np.arange(N_BINS), [0, 1, 3]) if "groups" in how else np.ones(N_BINS, bool)
        if how.get("scheme") == "single":
            expected = {
                "repeat_error": np.zeros(N_BINS), "standard_error": spread * square,
                "quadrature_error": others[0].mean(axis=0) * square, "slope": others[1].mean(axis=0) * UNIT[k],
                "curvature": others[2].mean(axis=0) * UNIT[k],
            }  # fmt: skip
        else:
            repeats = np.sqrt(others[0].sum(axis=0)) / n * square
            expected = {"repeat_error": repeats, "standard_error": np.maximum(spread * square, repeats)}
            assert result.quadrature_error is result.slope is result.curvature is None
        expected["mean"] = maps.mean(axis=0) * square
        for name, array in expected.items():
            np.testing.assert_allclose(
                getattr(result, name)[k], np.where(tested, array, np.nan), rtol=1e-9, err_msg=name
            )
        kept = result.per_spectrum[np.isin(result.spectra, np.flatnonzero(chosen)), k]
        np.testing.assert_allclose(kept, np.where(tested, maps * square, np.nan), rtol=1e-9)


def test_scaled_units_are_those_of_the_store():
    store = {}
    result = run(store, scaled=True, scheme="single")
    np.testing.assert_allclose(result.mean, np.mean([store[row][0] for row in range(N)], axis=0), rtol=1e-12)
    assert result.scaled is True and run(scheme="single").scaled is False


def test_errors_are_never_below_the_noise_of_the_repeats():
    lone = run(no_spectra=1)
    assert np.array_equal(lone.standard_error, lone.repeat_error)


def test_what_is_not_kept_is_none():
    kept, lost = run(), run(keep_spectra=False)
    assert lost.per_spectrum is None and lost.spectra is None
    assert np.array_equal(kept.mean, lost.mean) and np.array_equal(kept.share_error, lost.share_error)
    stopped = run(keep_spectra=False, tolerance=100)
    assert stopped.per_spectrum is None and stopped.n_spectra.tolist() == [10, 10]


def test_finished_spectra_reach_the_store_chunk_by_chunk():
    sizes = []

    class Store(dict):
        def update(self, items):
            super().update(items)
            sizes.append(len(self))

    store = Store()
    whole = run(store, chunk_size=4)
    assert sizes == [4, 8, 12, 14] and sorted(store) == list(range(N))
    del store[3], store[9]
    again = run(store, chunk_size=1)
    assert sizes[4:] == [13, 14] and np.array_equal(again.mean, whole.mean)


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        (np.zeros((2, 2, 4)), r"\(2, 2, 4\)"),
        (np.full((2, 2, 5), np.inf), "NaN or infinity"),
        ("maps", "str"),
    ],
)
def test_what_a_store_holds_is_checked_before_the_first_spectrum_is_computed(bad, line):
    store, calls = {}, []
    run(store)
    store[3] = bad
    for row in (0, 1, 2, 13):
        del store[row]
    with pytest.raises(ValueError, match=rf"^store: expected finite maps \(2, 2, 5\) of spectrum 3, received {line}$"):
        sensitivity_map(
            lambda x: calls.append(len(x)) or np.tanh(x) @ WEIGHTS, None, SPECTRA, ERRORS, [0, 0], UNIT, x_mean=0,
            x_std=1, store=store, rng=0, repeat=6, no_spectra=None, input_layout="flat",
        )  # fmt: skip
    assert calls == [12, 1]  # the probe


def test_a_bar_counts_the_spectra_and_shows_the_workers(monkeypatch):
    tqdm, bars = pytest.importorskip("tqdm"), []

    class Bar:
        def __init__(self, maps, total, **_):
            self.maps, self.total, self.done, self.workers = maps, total, 0, []
            bars.append(self)

        def __iter__(self):
            for arrays in self.maps:
                self.done += 1
                yield arrays

        def set_postfix(self, workers, refresh):
            self.workers.append(workers)

    class Executor:
        n_workers = 7

        def submit(self, function, *args):
            from concurrent.futures import Future

            future = Future()
            future.set_result(function(*args))
            return future

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    run(progress=True)
    run(progress=True, executor=Executor(), chunk_size=3, tolerance=100)
    assert [(bar.total, bar.done, bar.workers) for bar in bars] == [(N, N, []), (N, 10, [7] * 10)]
    run()
    assert len(bars) == 2
