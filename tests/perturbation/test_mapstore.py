"""The store of finished maps: what was written is found again, what was torn is not; chunks may end in any order."""

import os
import signal
import subprocess
import sys
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np
import pytest

from perturbation.mapstore import MapStore
from sensitivity import sensitivity_map

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
MAPS = RNG.random((9, 2, 3, 5))


def filled(path, n=9, key=""):
    with MapStore(path, 3, 5, key) as store:
        store.update((10 * i, MAPS[i]) for i in range(n))
    return path


def test_maps_are_found_again_bit_by_bit(tmp_path):
    path = filled(tmp_path / "maps")
    with MapStore(path, 3, 5) as store:
        assert list(store) == [10 * i for i in range(9)] and len(store) == 9
        assert all(np.array_equal(store[10 * i], MAPS[i]) for i in range(9))
        assert 5 not in store and 10**9 not in store and -10 not in store
        with pytest.raises(KeyError):
            store[5]
        store[5] = MAPS[0]
        store.update({90: MAPS[1], 20: MAPS[3]})  # the later record counts
    with MapStore(path, 3, 5) as store:
        assert len(store) == 11 and np.array_equal(store[20], MAPS[3]) and np.array_equal(store[5], MAPS[0])


def test_a_file_torn_anywhere_keeps_the_maps_before_the_tear_and_goes_on(tmp_path):
    whole = filled(tmp_path / "maps", 2).read_bytes()
    size = (len(whole) - 47) // 2
    for cut in [*range(0, 60), *range(len(whole) - size - 20, len(whole) - size + 20), len(whole) - 1]:
        path = tmp_path / "torn"
        path.write_bytes(whole[:cut])
        with MapStore(path, 3, 5) as store:
            assert list(store) == [0, 10][: max(0, cut - 47) // size]
            store[70] = MAPS[7]
        with MapStore(path, 3, 5) as store:
            assert np.array_equal(store[70], MAPS[7])
            assert all(np.array_equal(store[row], MAPS[row // 10]) for row in store)


@pytest.mark.parametrize("where", [47, 60, 47 + 8 + 240])
def test_a_changed_byte_is_never_read_as_a_map(tmp_path, where):
    path = filled(tmp_path / "maps", 2)
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    with MapStore(path, 3, 5) as store:
        assert len(store) == 0


def test_a_store_of_another_network_or_shape_is_begun_anew(tmp_path):
    path = filled(tmp_path / "maps", key="model a")
    with MapStore(path, 3, 5, "model a") as store:
        assert len(store) == 9
    with MapStore(path, 3, 5, "model b") as store:
        assert len(store) == 0
    filled(path, key="model b")
    with MapStore(path, 5, 3, "model b") as store:
        assert len(store) == 0


@pytest.mark.parametrize("n_arrays", [2, 3, 4])
def test_the_first_map_decides_how_many_arrays_all_have(tmp_path, n_arrays):
    maps = RNG.random((3, n_arrays, 3, 5))
    with MapStore(tmp_path / "maps", 3, 5) as store:
        assert store.shape == (2, 3, 5)
        store.update({})
        store.update({0: maps[0], 7: maps[1]})
        store[3] = maps[2]
        assert store.shape == (n_arrays, 3, 5) and len(store) == 3
        with pytest.raises(ValueError, match="broadcast"):
            store[9] = RNG.random((n_arrays + 1, 3, 5))
    with MapStore(tmp_path / "maps", 3, 5) as store:
        assert [np.array_equal(store[row], maps[k]) for k, row in enumerate((0, 7, 3))] == [True] * 3
        assert os.path.getsize(store.path) == 47 + 3 * (8 + n_arrays * 120 + 4)
        with pytest.raises(ValueError, match=r"^row: expected at least 0, received -1$"):
            store.update({2: maps[0], -1: maps[1]})
        assert sorted(store) == [0, 3, 7]


def test_a_file_of_something_else_is_refused_and_kept(tmp_path):
    (tmp_path / "maps").write_bytes(b"something else")
    with pytest.raises(ValueError, match="expected a file of stored maps, or a new one"):
        MapStore(tmp_path / "maps", 3, 5)
    assert (tmp_path / "maps").read_bytes() == b"something else"
    (tmp_path / "maps").write_bytes(b"peeking")  # killed while it was begun
    with MapStore(tmp_path / "maps", 3, 5) as store:
        assert len(store) == 0 and store.shape == (2, 3, 5) and os.path.getsize(store.path) == 47


def test_rows_may_come_in_any_order(tmp_path):
    rows = np.random.default_rng(3).permutation(40)
    with MapStore(tmp_path / "maps", 1, 1) as store:
        for row in rows:
            store[int(row)] = np.full((2, 1, 1), row)
        assert list(store) == list(range(40)) and all(store[row][0, 0, 0] == row for row in range(40))


def test_a_map_that_changes_while_the_store_is_open_is_an_error(tmp_path):
    with MapStore(filled(tmp_path / "maps", 2), 3, 5) as store:
        with open(store.path, "r+b") as file:
            file.seek(100)
            file.write(b"?")
        with pytest.raises(OSError, match="maps: the map of spectrum 0 has changed on disk"):
            store[0]
        os.truncate(store.path, 47 + 252 + 30)
        with pytest.raises(OSError, match="maps: the map of spectrum 10 has changed on disk"):
            store[10]


def test_a_store_is_closed_and_deleted(tmp_path):
    store = MapStore(filled(tmp_path / "maps"), 3, 5)
    store.delete()
    assert not store.path.exists() and store._file.closed
    store.delete()


def test_a_full_disk_keeps_what_was_there_before(tmp_path):
    code = """
import resource, signal, sys, numpy as np
from perturbation.mapstore import MapStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = MapStore(sys.argv[1], 3, 5)
store[0] = np.ones((2, 3, 5))
resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
try:
    store[1] = np.ones((2, 3, 5))
except OSError:
    assert list(store) == [0]
    print("full")
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "maps"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "full\n", done.stderr
    with MapStore(tmp_path / "maps", 3, 5) as store:
        assert list(store) == [0] and os.path.getsize(store.path) == 47 + 8 + 240 + 4


WEIGHTS = RNG.normal(size=(13, 3))
SPECTRA, ERRORS = 0.01 + 1e-3 * RNG.random((11, 13)), np.full((11, 13), 1e-4)


def mapped(**options):
    return sensitivity_map(
        lambda x: np.tanh(x @ WEIGHTS), None, SPECTRA, ERRORS, np.zeros(3), np.ones(3), no_spectra=None, repeat=20,
        x_mean=0.01, x_std=1e-3, rng=3, chunk_size=2, input_layout="flat", **options,
    )  # fmt: skip


class Backwards(Executor):
    """Runs what it is given only when nothing more comes, the latest first."""

    chunks_ahead = 4

    def __init__(self):
        self.waiting, self.most = [], 0

    def submit(self, function, *arguments):
        future = Future()
        if function.__name__ != "run_chunk":
            future.set_result(function(*arguments))
            return future
        self.waiting.append((future, function, arguments))
        self.most = max(self.most, len(self.waiting))
        if len(self.waiting) == self.chunks_ahead or arguments[1].indices[-1] == len(SPECTRA) - 1:
            while self.waiting:
                latest, function, arguments = self.waiting.pop()
                latest.set_result(function(*arguments))
        return future


def test_chunks_that_end_in_any_order_give_the_same_map_and_store(tmp_path):
    reference, backwards = mapped(), Backwards()
    with MapStore(tmp_path / "maps", 3, 13) as store:
        result = mapped(executor=backwards, store=store)
        assert sorted(store) == list(range(11)) and backwards.most == 4
        resumed = mapped(store=store)
    for found in (result, resumed):
        for name in ("mean", "standard_error", "repeat_error", "per_spectrum"):
            assert np.array_equal(getattr(found, name), getattr(reference, name))


def test_map_killed_in_the_middle_goes_on_where_it_stopped(tmp_path):
    code = """
import os, signal, sys
sys.path.insert(0, "tests/perturbation")
import test_mapstore
from perturbation.mapstore import MapStore
class Killer(MapStore):
    def update(self, items):
        super().update(items)
        if len(self) == 6:
            os.kill(os.getpid(), signal.SIGKILL)
test_mapstore.mapped(store=Killer(sys.argv[1], 3, 13))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "maps"], cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}
    )
    assert done.returncode == -signal.SIGKILL
    with MapStore(tmp_path / "maps", 3, 13) as store:
        assert sorted(store) == list(range(6))
        assert np.array_equal(mapped(store=store).mean, mapped().mean)
