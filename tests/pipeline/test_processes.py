"""Folds are trained side by side, as many as there is room for, and end with the weights of one after the other."""

import functools
import io
import multiprocessing.connection
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
from synthetic import configured, dataset
from tqdm import tqdm

from common import processes
from common.processes import process_count, process_pool
from pipeline import folds
from pipeline.folds import EpochWatch
from report import style
from runio.config import build_config
from runio.log import SHARES, Stages


@pytest.mark.parametrize(
    ("asked", "n_tasks", "cores", "memory", "expected"),
    [
        ("auto", 5, 2, 10e9, 2),
        ("auto", 5, 16, 100e9, 5),
        ("auto", 5, 16, 4e9, 2),
        ("auto", 5, 2, 1e8, 1),
        ("auto", 5, 4, float("inf"), 4),
        (3, 5, 2, 1e8, 3),
        (3, 1, 8, 1e11, 1),
    ],
)
def test_there_are_as_many_processes_as_cores_memory_and_tasks_allow(
    monkeypatch, asked, n_tasks, cores, memory, expected
):
    monkeypatch.setattr(processes, "usable_cores", lambda: cores)
    monkeypatch.setattr(processes, "usable_memory", lambda: memory)
    assert process_count(asked, n_tasks) == expected


def test_a_block_that_fails_does_not_wait_for_its_processes(monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "7")
    begun = time.monotonic()
    with pytest.raises(ZeroDivisionError), process_pool(1, 3) as pool:
        assert pool.submit(os.getenv, "TF_NUM_INTRAOP_THREADS").result() == "3"
        assert pool.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_IGN  # Ctrl-C is for this process
        pool.submit(time.sleep, 3600)
        raise ZeroDivisionError
    assert time.monotonic() - begun < 60
    assert os.environ["TF_NUM_INTRAOP_THREADS"] == "7"


HALF_AN_ANSWER = """
import gc, multiprocessing.queues, os
answers = next(one for one in gc.get_objects() if isinstance(one, multiprocessing.queues.SimpleQueue))
os.write(answers._writer.fileno(), bytes([0, 0, 255, 255]) + b"its length and no more")
os._exit(9)
"""


def test_a_process_that_dies_while_it_answers_is_not_waited_for():
    with pytest.raises(ZeroDivisionError), process_pool(1, 1) as pool:
        pool.submit(exec, HALF_AN_ANSWER)
        multiprocessing.connection.wait([one.sentinel for one in pool._processes.values()])
        raise ZeroDivisionError


class Deadly:
    """An argument of 1 MB that ends the worker process that receives it, as the kernel does when memory runs out."""

    def __reduce__(self):
        return os._exit, (9,), bytes(10**6)

    def __repr__(self):
        time.sleep(0.1)  # in this process, meanwhile the other one begins and dies
        return "drawn"


def test_a_worker_that_dies_while_it_draws_ends_the_others_and_the_wait(monkeypatch):
    monkeypatch.setattr(style, "drawn", repr)
    before = set(threading.enumerate())
    with pytest.raises(BrokenProcessPool):
        style.all_drawn([(Deadly(),)] * 9, 2)
    assert set(threading.enumerate()) <= before


def write_history(folder, k, n):
    rows = "".join(f"{epoch},0.5,0.5,0.001\n" for epoch in range(n))
    (folder / f"history_{k}.csv").write_text("epoch,loss,val_loss,learning_rate\n" + rows)


def test_the_bar_learns_from_the_first_fold_how_long_the_others_take(tmp_path):
    watch = EpochWatch(tmp_path, [0, 1, 2, 3], 100)
    assert watch.expected_epochs() == 400
    for k, n in ((0, 60), (1, 30), (2, 70)):
        write_history(tmp_path, k, n)
    watch.end(0)
    assert watch.seen == {0: 60, 1: 30, 2: 70, 3: 0}
    assert watch.expected_epochs() == 60 + 60 + 70 + 60
    assert watch.part() == 160 / 250


def test_time_left_counts_only_what_this_run_did_itself(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("runio.log.tqdm", functools.partial(tqdm, file=screen, mininterval=0))
    write_history(tmp_path, 0, 50)  # by an interrupted run
    stage = Stages(shown=["training"])
    with stage("training"):
        watch = EpochWatch(tmp_path, [0, 1], 100, stage)
        clock[0] = 60.1
        write_history(tmp_path, 0, 80)  # 30 epochs in a minute and a bit: 120 are left
        watch.look()
    assert "epoch 80 of about 200, validation loss 0.5 |" in screen.getvalue()
    assert "40%, 01:00 gone, about 04:00 left" in screen.getvalue()


def test_one_bar_goes_through_all_stages_and_never_back(monkeypatch):
    parts = []
    monkeypatch.setattr("runio.log.tqdm.refresh", lambda bar: parts.append(bar.n))
    stage = Stages()
    for name in ("data", *SHARES):
        with stage(name):
            stage.done(0.5)
    assert parts[0] == 0 and parts[-1] == sum(SHARES.values()) == 100
    assert parts == sorted(parts) and len(set(parts)) == 1 + 2 * len(SHARES)


def test_the_fold_left_over_is_trained_in_two_halves_so_that_no_process_idles(tmp_path, monkeypatch):
    """Five folds on two processes take two and a half times as long as one: halves first and last."""
    order = []

    def train(task):
        order.append((task.fold, task.until))
        if task.until is None:
            (tmp_path / f"model_{task.fold}.keras").touch()

    monkeypatch.setattr(folds, "train_on_worker", train)
    data, config = dataset(), build_config({"training": {"epochs": 60}})
    split = folds.Split(data, np.arange(10), [None] * 5)
    with ThreadPoolExecutor(1) as pool:
        folds.train_folds(pool, config, split, tmp_path, EpochWatch(tmp_path, range(5), 60), 2)
    assert order == [(4, 30), (0, None), (1, None), (2, None), (3, None), (4, None)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn"])  # sums in a convolution's gradient are cut by threads
def test_folds_side_by_side_have_the_weights_of_one_after_the_other(tmp_path, warm, name):
    from models import load_model

    weights, model = [], {"name": name, "cnn": {"filters": [8, 8], "patch_filters": 16, "dense": [16]}}
    for n in (1, 2):
        training = {"epochs": 2, "batch_size": 32, "lr": 0.003, "copies": 2, "cv": 2, "processes": n}
        config = configured(
            tmp_path / str(n), dataset(n=200), training=training, model=model, sensitivity={"enabled": False}
        )
        command = ["--config", config, "--output", tmp_path / str(n) / "out", "--quiet", "--no-sensitivity"]
        done = warm.run(command, tmp_path / str(n) / "output", quick_figures=True, fork_workers=True)
        assert done.status == 0, done.stderr
        networks = [load_model(tmp_path / f"{n}/out/model_{k}.keras") for k in (0, 1)]
        weights.append([w for network in networks for w in network.get_weights()])
        log = (tmp_path / f"{n}/out/run.log").read_text()
        assert log.count("fold 0 epoch") == log.count("fold 1 epoch") == 2
        assert ("training side by side" in log) == (n == 2)
    assert all(np.array_equal(one, other) for one, other in zip(*weights, strict=True))
