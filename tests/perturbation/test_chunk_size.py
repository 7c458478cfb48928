"""How many spectra go into one task: a second's work, tasks for all workers, maps that fit; never another number."""

import time
from concurrent.futures import Executor, Future

import numpy as np
import pytest

from perturbation import plan
from perturbation.engine import run_chunk
from sensitivity import sensitivity_map

N_AMPS, N_BINS = 2, 5
WEIGHTS = np.random.default_rng(0).normal(size=(N_BINS, N_AMPS))


class Here(Executor):
    """Runs tasks at once, and keeps the sizes of chunks."""

    def __init__(self, chunks_ahead):
        self.chunks_ahead, self.sizes = chunks_ahead, []

    def submit(self, function, /, *args, **kwargs):
        future = Future()
        future.set_result(function(*args, **kwargs))
        if function is run_chunk:
            self.sizes.append(len(args[1].indices))
        return future


def run(executor=None, n=240, seconds=0.0, **options):
    def model(x):
        time.sleep(seconds)
        return np.tanh(x) @ WEIGHTS

    spectra = np.random.default_rng(1).normal(size=(n, N_BINS))
    return sensitivity_map(
        model, None, spectra, np.ones(N_BINS), scaled=True, no_spectra=None, x_mean=0, x_std=1, rng=0,
        input_layout="flat", executor=executor, **{"scheme": "single", "batch_size": 21 * 2, **options},
    )  # fmt: skip


def largest_chunk(chunks_ahead, **options):
    executor = Here(chunks_ahead)
    result = run(executor, **options)
    assert np.array_equal(result.mean, run(**{**options, "seconds": 0}).mean)
    assert sum(executor.sizes) == options.get("n", 240)
    return max(executor.sizes)


def test_small_surveys_are_divided_among_all_workers():
    assert largest_chunk(chunks_ahead=8) == 30
    assert largest_chunk(chunks_ahead=10_000) == 2  # a whole call of two spectra


def test_a_chunk_takes_about_as_long_as_wanted(monkeypatch):
    monkeypatch.setattr(plan, "CHUNK_SECONDS", 0.05)
    assert 4 <= largest_chunk(chunks_ahead=1, n=60, seconds=0.01) <= 10


def test_maps_that_come_back_fit_the_memory(monkeypatch):
    monkeypatch.setattr(plan, "CHUNK_BYTES", 12 * 8 * 4 * N_AMPS * N_BINS)
    assert largest_chunk(chunks_ahead=1) == 12


@pytest.mark.parametrize("nodes", [5, None])
def test_a_size_that_is_given_is_taken(nodes):
    assert largest_chunk(chunks_ahead=8, nodes=nodes, repeat=3, chunk_size=4) == 4
