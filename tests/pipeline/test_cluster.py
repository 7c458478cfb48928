"""Work on many processes: the same numbers as in one, whatever dies on the way, and a clear end when nothing can go on.

Everything runs on the loopback interface, most of it with two workers of one thread each.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cluster_models
import h5py
import numpy as np
import pytest
import yaml
from processes import LINUX, left_of
from synthetic import dataset, write

pytest.importorskip("dask.distributed")

from perturbation.mapstore import MapStore
from pipeline import cluster
from pipeline.cluster import open_scheduler
from runio.log import InputError
from sensitivity import ModelLoader, sensitivity_map

ROOT = Path(__file__).parents[2]
N = 40
RNG = np.random.default_rng(0)
SPECTRA = np.column_stack([np.arange(N), RNG.normal(size=(N, 12))])  # the first bin is the row, and has no error
ERRORS = np.tile(np.where(np.arange(13) > 0, 0.1, 0.0), (N, 1))

pytestmark = pytest.mark.slow


def mapped(*model, **options):
    return sensitivity_map(
        ModelLoader(cluster_models.load, *map(str, model)), None, SPECTRA, ERRORS, np.zeros(3), np.ones(3),
        no_spectra=None, repeat=20, x_mean=0, x_std=1, rng=3, input_layout="flat", **{"chunk_size": 2, **options},
    )  # fmt: skip


def assert_same(one, other):
    for name in ("mean", "standard_error", "repeat_error", "per_spectrum"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return mapped(tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="module")
def two():
    """Two worker processes of one thread each."""
    with open_scheduler("local:2") as executor:
        yield executor


@pytest.mark.skipif(not LINUX, reason="looks for processes in /proc")
def test_local_workers_end_when_their_parent_is_killed():
    code = """
import os, signal
from pipeline.cluster import open_scheduler

if __name__ == "__main__":
    with open_scheduler("local:2") as executor:
        print(*executor._client.run(os.getpid).values(), flush=True)
        executor.submit(os.kill, os.getpid(), signal.SIGKILL).result()
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    workers = {int(word) for word in killed.stdout.split()}
    assert killed.returncode == -9 and len(workers) == 2
    assert not left_of(workers)


def worker_processes(executor):
    return executor._client.run(os.getpid)


@contextlib.contextmanager
def process(module, *arguments, cwd=ROOT, path=f"{ROOT}{os.pathsep}{ROOT / 'tests'}"):
    """A scheduler or worker of its own, as an administrator would start it."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, "-m", f"distributed.cli.dask_{module}", *map(str, arguments), "--no-dashboard"]
    running = subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@contextlib.contextmanager
def scheduler(folder):
    """A scheduler on the loopback interface; yields its process and its file."""
    file = folder / "scheduler.json"
    with process("scheduler", "--host", "127.0.0.1", "--port", 0, "--scheduler-file", file) as running:
        end = time.monotonic() + 60
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.05)
        yield running, file


def worker(file, **where):
    return process("worker", "--scheduler-file", file, "--nthreads", 1, "--no-nanny", **where)


def when_maps_are_there(store, n, action):
    """Do something, in a thread, as soon as ``n`` maps are in the store."""

    def wait():
        while len(store) < n:
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_two_workers_give_the_map_of_one_process_and_load_the_model_once_each(two, reference, tmp_path):
    for chunk_size in (1, 3):
        assert_same(mapped(tmp_path, executor=two, chunk_size=chunk_size), reference)
    loads = [p.name.split("-")[1] for p in tmp_path.iterdir()]
    assert len(loads) == len(set(loads)) <= 2


@pytest.mark.parametrize("n", [1, 4])
def test_any_number_of_workers_gives_the_same_map(n, reference, tmp_path):
    with open_scheduler(f"local:{n}") as executor:
        assert executor.n_workers == n
        assert_same(mapped(tmp_path, executor=executor), reference)


def test_worker_killed_in_the_middle_changes_no_number(two, reference, tmp_path):
    victim = next(iter(worker_processes(two).values()))
    with MapStore(tmp_path / "maps", 3, 13) as store:
        when_maps_are_there(store, 8, lambda: os.kill(victim, signal.SIGKILL))
        assert_same(mapped(tmp_path, 0.03, executor=two, store=store), reference)
    assert victim not in worker_processes(two).values()


def test_task_that_kills_every_worker_ends_the_run_with_its_spectra_named(two, tmp_path):
    with pytest.raises(RuntimeError, match=r"^spectra 6 to 7: 4 workers died while running it"):
        mapped(tmp_path, 0.0, 7, executor=two)


def test_task_that_always_fails_ends_the_run_with_its_spectra_named(two, reference, tmp_path):
    with pytest.raises(RuntimeError, match=r"^spectra 6 to 7: TypeError: no such number"):
        mapped(tmp_path, 0.0, 7, True, executor=two)
    assert_same(mapped(tmp_path, executor=two), reference)  # the workers are as good as before


def test_tasks_that_nobody_waits_for_any_more_are_not_run(two, tmp_path):
    futures = [two.submit(cluster_models.touch, str(tmp_path / str(k)), 0.3) for k in range(12)]
    futures[0].result(timeout=60)
    for future in futures:
        future.cancel()
    assert two.submit(len, "ab").result(timeout=60) == 2
    assert 1 <= len(list(tmp_path.iterdir())) <= 5


def test_scheduler_killed_in_the_middle_loses_no_finished_map(reference, tmp_path):
    with (
        scheduler(tmp_path) as (running, file), worker(file), worker(file), MapStore(tmp_path / "m", 3, 13) as store,
        open_scheduler(str(file)) as executor,
    ):  # fmt: skip
        when_maps_are_there(store, 8, running.kill)
        with pytest.raises(RuntimeError, match=r"the scheduler is gone.*--resume"):
            mapped(tmp_path, 0.03, executor=executor, store=store)
    with MapStore(tmp_path / "m", 3, 13) as store:
        finished = len(store)
        assert 8 <= finished < N
        with open_scheduler("local:1") as executor:
            assert_same(mapped(tmp_path, executor=executor, store=store), reference)
        assert len(store) == N and store._records == N  # each was computed once


def test_all_workers_gone_is_a_clear_end(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    with scheduler(tmp_path) as (_, file), worker(file) as only, MapStore(tmp_path / "maps", 3, 13) as store:  # noqa: SIM117
        with open_scheduler(str(file)) as executor:
            when_maps_are_there(store, 4, only.kill)
            start = time.monotonic()
            with pytest.raises(RuntimeError, match=r"all workers are gone.*--resume"):
                mapped(tmp_path, 0.03, executor=executor, store=store)
            assert time.monotonic() - start < 60
            with pytest.raises(RuntimeError, match="all workers are gone"):  # and so for what comes later
                executor.submit(len, ()).result(timeout=10)


def test_workers_without_this_software_or_with_another_version_are_refused(tmp_path):
    other, empty = tmp_path / "other", tmp_path / "empty"
    empty.mkdir()
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*/*.py")]:
        copy = other / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    (other / "perturbation" / "__init__.py").write_text('__version__ = "0.0.9"\n')
    with scheduler(tmp_path) as (_, file):
        for folder, message in (
            (empty, rf"worker tcp://.* cannot run this software \(No module named .*start it with PYTHONPATH={ROOT}"),
            (other, rf"worker tcp://.* has software 0\.0\.9, expected {cluster.log.VERSION} as in this process"),
        ):
            with (
                worker(file, cwd=folder, path=folder),
                pytest.raises(InputError, match=message),
                open_scheduler(str(file)),
            ):
                pass
            wait_until_free(file)
        with (
            worker(file),
            open_scheduler(str(file)) as executor,
            worker(file, cwd=other, path=f"{other}{os.pathsep}{ROOT / 'tests'}"),
            pytest.raises(InputError, match=r"a worker on .* has software 0\.0\.9"),
        ):
            while executor.n_workers < 2:  # it joins later
                time.sleep(0.1)
            mapped(tmp_path, 0.03, executor=executor)


def test_fingerprint_changes_with_every_module_of_the_project(tmp_path):
    room = tmp_path / "room"
    room.mkdir()
    modules = [tmp_path / "models.py", tmp_path / "constants.py", room / "training.py", room / "__init__.py"]
    for path in modules:
        path.write_text("VALUE = 1\n")
    digests = {cluster.code_digest(tmp_path)}
    for path in modules:
        path.write_text("VALUE = 2\n")
        digests.add(cluster.code_digest(tmp_path))
    modules[0].rename(room / "models.py")
    digests.add(cluster.code_digest(tmp_path))
    assert len(digests) == 2 + len(modules)
    for folder in (".venv", "tests"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "other.py").write_text("VALUE = 3\n")
    assert cluster.code_digest(tmp_path) in digests


def test_fingerprint_covers_every_imported_module_of_the_project():
    import runfile  # noqa: F401

    files = {Path(m.__file__) for m in list(sys.modules.values()) if getattr(m, "__file__", None)}
    ours = {p for p in files if p.is_relative_to(ROOT) and not p.is_relative_to(ROOT / "tests")}
    ours = {p for p in ours if not p.relative_to(ROOT).parts[0].startswith(".")}  # a virtual environment
    assert ours and ours <= set(cluster.project_modules(ROOT))


def wait_until_free(file):
    """Wait until the scheduler has noticed that its worker is gone."""
    from dask.distributed import Client

    with Client(scheduler_file=str(file)) as client:
        while client.nthreads():
            time.sleep(0.1)


@pytest.mark.parametrize("address", ["", "local:", "local:0", "local:two", "here", "tcp://host", "/no/such/file.json"])
def test_address_that_is_none_is_refused(address):
    with pytest.raises(InputError, match=r"--scheduler: expected tcp://HOST:PORT, a scheduler file or local:N"):
        open_scheduler(address)


def test_scheduler_that_does_not_answer_is_refused(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_PATIENCE", 1)
    with pytest.raises(InputError, match=r"no scheduler answers at 127\.0\.0\.1:9"), open_scheduler("127.0.0.1:9"):
        pass


def test_without_dask_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(InputError, match=r"pip install 'dask\[distributed\]'"):
        open_scheduler("local:2")


# The main job


def settings(folder, **changes):
    """Write a small data set and the settings of two folds of a small network."""
    folder.mkdir(exist_ok=True)
    tree = {
        "data": {"path": write(folder / "data.h5", dataset(n=120))},
        "model": {"mlp": {"units": [16, 8], "dropout": 0.1}},
        "training": {"epochs": 2, "batch_size": 32, "copies": 1, "cv": 2, "processes": 1},
        "sensitivity": {"no_spectra": 9, "repeat": 20, "batch_size": 512},
        **changes,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return ["--quiet", "--config", str(folder / "config.yaml"), "--output", str(folder / "run")]


def numbers(folder):
    """Weights and results of a finished run."""
    from models import load_model

    found = {}
    for path in sorted(folder.glob("model_*.keras")):
        for i, array in enumerate(load_model(path).get_weights()):
            found[f"{path.name}/{i}"] = array
    with h5py.File(folder / "results.h5") as file:
        for k in (0, 1):
            for name in ("y_pred", "sensitivity/mean", "sensitivity/standard_error"):
                found[f"{k}/{name}"] = file[f"fold_{k}/{name}"][()]
    return found


def run(arguments):
    return subprocess.run([sys.executable, ROOT / "runfile.py", *arguments], capture_output=True, text=True, cwd=ROOT)


def test_folds_and_maps_on_workers_or_as_single_jobs_equal_those_of_one_process(tmp_path, warm):
    def finish(name, *flags):
        return warm.run([*arguments[name], *flags], tmp_path / "output", quick_figures=True)

    arguments = {name: settings(tmp_path / name) for name in ("here", "workers", "jobs")}
    assert finish("here").status == 0
    ended = finish("workers", "--scheduler", "local:2")
    assert ended.status == 0 and not ended.stderr, ended.stderr
    jobs = [[*arguments["jobs"], "--fold", k] for k in "01"]
    assert [job.status for job in warm.run_together(jobs, [tmp_path / k for k in "01"])] == [0, 0]
    assert {"model_0.keras", "model_1.keras"} < {p.name for p in (tmp_path / "jobs/run/.unfinished").iterdir()}
    assert finish("jobs", "--resume").status == 0
    here = numbers(tmp_path / "here/run")
    for name in ("workers", "jobs"):
        found = numbers(tmp_path / name / "run")
        assert found.keys() == here.keys()
        assert [key for key, array in here.items() if not np.array_equal(found[key], array)] == [], name


def test_bad_folds_and_schedulers_are_refused_in_one_line(tmp_path):
    arguments = settings(tmp_path)
    for extra, message in (
        (["--fold", "2"], "error: --fold: expected 0 to 1 (training.cv - 1), received 2"),
        (["--scheduler", "there"], "error: --scheduler: expected tcp://HOST:PORT"),
    ):
        ended = run([*arguments, *extra])
        assert ended.returncode == 2 and ended.stderr.startswith(message) and ended.stderr.count("\n") == 1
    for extra in (["--fold", "0", "--overwrite"], ["--fold", "0", "--scheduler", "local:2"]):
        ended = run([*arguments, *extra])
        assert ended.returncode == 2 and "--fold: expected --output DIR" in ended.stderr


def test_all_networks_get_a_folder_each(tmp_path, monkeypatch):
    import runfile
    from report import compare

    runs = []
    monkeypatch.setattr(compare, "write_comparison", lambda folders, path: path)
    monkeypatch.setattr(runfile, "run", lambda config, arguments, *_: runs.append((config, arguments)))
    assert runfile.main([*settings(tmp_path), "--model", "all"]) == 0
    assert runfile.main([*settings(tmp_path), "--model", "lstm"]) == 0
    names = ["mlp", "cnn", "lstm", "hybrid"]
    assert [config.model.name for config, _ in runs] == [*names, "lstm"]
    assert [arguments.output for _, arguments in runs[:4]] == [str(tmp_path / "run" / name) for name in names]
    assert {config.training.cv for config, _ in runs} == {2}
