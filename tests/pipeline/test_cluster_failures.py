"""Schedulers and workers that are not as one would wish: each works, or ends the run with a line that says what to do.

Schedulers and workers of these tests live in threads of this process where that can be: no start-up to wait for.
"""

import contextlib
import csv
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cluster_models
import numpy as np
import pytest

pytest.importorskip("dask.distributed")

from constants import NETWORKS
from pipeline import cluster
from pipeline.cluster import local_limit, open_scheduler
from pipeline.folds import thread_warning
from runio.log import InputError
from sensitivity import ModelLoader, sensitivity_map

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
SPECTRA = np.column_stack([np.arange(6), RNG.normal(size=(6, 12))])
ERRORS = np.where(np.arange(13) > 0, 0.1, 0.0)

pytestmark = pytest.mark.slow


def mapped(*model, **options):
    loader = ModelLoader(cluster_models.load, *map(str, model))
    return sensitivity_map(
        loader, None, SPECTRA, ERRORS, np.zeros(3), np.ones(3), no_spectra=None, x_mean=0, x_std=1,
        rng=3, scheme="single", input_layout="flat", chunk_size=2, **options,
    )  # fmt: skip


# As in the script of docs/cluster.md, the scheduler lives in the user's own process, in a folder of his own
SCRIPT = """
import sys
from dask.distributed import LocalCluster

if __name__ == "__main__":
    with LocalCluster(n_workers=0, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        try:
            import pipeline
        except ImportError:
            print("no pipeline here", flush=True)
        sys.stdin.read()
"""


@contextlib.contextmanager
def started(*command, path="", **options):
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(
        [sys.executable, *command], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, **options,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def test_scheduler_in_a_script_in_another_folder_needs_nothing_of_this_software(tmp_path):
    (tmp_path / "submit.py").write_text(SCRIPT)
    with started("submit.py", cwd=tmp_path) as script:
        address, found = (script.stdout.readline().strip() for _ in range(2))
        assert found == "no pipeline here"
        worker = ("-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
        with (
            started(*worker, cwd=tmp_path, path=f"{ROOT}{os.pathsep}{ROOT / 'tests'}"),
            open_scheduler(address) as executor,
        ):
            assert np.array_equal(mapped(tmp_path, executor=executor).mean, mapped(tmp_path).mean)
            with pytest.raises(RuntimeError, match="TypeError: no such number"):
                mapped(tmp_path, 0, 0, "raises", executor=executor)


@contextlib.contextmanager
def workers_in_this_process(memory_limit, n=1, protocol="tcp", **options):
    """A scheduler and workers in threads of this process, whose memory counts as that of each of them."""
    from dask.distributed import LocalCluster

    with LocalCluster(
        n_workers=n, threads_per_worker=1, processes=False, protocol=protocol, memory_limit=memory_limit,
        dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL, **options,
    ) as running:  # fmt: skip
        yield running


def test_workers_that_are_all_paused_end_the_run_with_memory_limit_and_what_to_set(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 0.3)
    with workers_in_this_process("50MB", n=2) as running:
        while any(worker.status.name != "paused" for worker in running.workers.values()):
            time.sleep(0.01)
        with (
            open_scheduler(running.scheduler_address) as executor,
            pytest.raises(RuntimeError) as raised,
        ):
            mapped(tmp_path, executor=executor)
    assert re.fullmatch(
        r"tcp://\S+: all workers that are left have been paused for 0\.3 s \(2 of 2, with up to [0-9.]+ [GM]B of a "
        r"limit of 50 MB\); a worker takes about 1\.\d GB with TensorFlow, and the data set: raise its limit "
        r"\(--memory-limit of dask worker, memory= of SLURMCluster\); continue with --resume",
        str(raised.value),
    )
    assert "workers are paused (2 of 2" in caplog.text


def test_worker_that_is_paused_ends_the_task_that_it_is_at(monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 0.3)

    def is_at_work():
        counts = [worker.metrics.get("task_counts", {}) for worker in running.scheduler.workers.values()]
        return any(count.get("executing", 0) for count in counts)

    cluster_models.GATE.clear()
    with (
        workers_in_this_process("1TB") as running,
        open_scheduler(running.scheduler_address) as executor,
    ):
        slow = executor.submit(cluster_models.wait_at_the_gate)
        while not is_at_work():
            time.sleep(0.01)
        running.workers[0].memory_manager.memory_limit = 50_000_000
        while running.workers[0].status.name != "paused":
            time.sleep(0.01)
        time.sleep(1)  # thrice the patience
        cluster_models.GATE.set()
        assert slow.result(timeout=60) == "through"
        with pytest.raises(RuntimeError, match="all workers that are left have been paused"):
            executor.submit(len, "ab").result(timeout=60)


def test_local_workers_share_the_memory_that_is_free(caplog, monkeypatch):
    def limit(n, free):
        monkeypatch.setattr(cluster, "usable_memory", lambda: free)
        return local_limit(n)

    assert limit(4, 8e9) == 2e9
    assert limit(2, float("inf")) is None and not caplog.text
    assert limit(8, 5e9) is None
    assert "local:8: a worker takes about 1.5 GB with TensorFlow, and 5 GB are free; local:3 would fit" in caplog.text


def test_warning_of_threads_comes_for_those_networks_alone_whose_weights_were_found_to_depend_on_them():
    with open(ROOT / "benchmarks/results/threads.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["2 again"] in ("", "the same") for row in rows)
    for network in NETWORKS:
        pairs = [row[pair] for row in rows if row["network"] == network for pair in ("1 and 2", "1 and 4", "2 and 4")]
        depends = len(pairs) > 0 and any(pair != "the same" for pair in pairs)
        assert bool(thread_warning(network, 1, 2)) == depends
        assert thread_warning(network, 2, 2) is None


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Make the keys and certificates of two strangers; return them as settings of Dask."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    settings = []
    for name in ("ours", "theirs"):
        folder = tmp_path_factory.mktemp(name)
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=dask"
        files = {"key": str(folder / "key.pem"), "cert": str(folder / "cert.pem")}
        subprocess.run(
            [*command.split(), "-keyout", files["key"], "-out", files["cert"]], check=True, capture_output=True
        )
        tls = {"distributed.comm.tls.ca-file": files["cert"]}
        for role in ("client", "scheduler", "worker"):
            tls |= {f"distributed.comm.tls.{role}.{what}": path for what, path in files.items()}
        settings.append(tls)
    return settings


def test_tls_from_dasks_own_configuration_lets_in_those_with_our_certificate_alone(certificates, tmp_path, monkeypatch):
    import dask
    from distributed.security import Security

    monkeypatch.setattr(cluster, "CONNECT_PATIENCE", 1)
    ours, theirs = certificates
    with dask.config.set(ours):
        scheduler = workers_in_this_process("1TB", protocol="tls", security=Security(require_encryption=True))
    with scheduler as running:
        address = running.scheduler_address
        assert address.startswith("tls://")
        with dask.config.set(ours), open_scheduler(address) as executor:
            assert np.array_equal(mapped(tmp_path, executor=executor).mean, mapped(tmp_path).mean)
        for setting in ({}, theirs):
            refused = pytest.raises(InputError, match=r"no scheduler answers at tls://.*distributed\.comm\.tls of Dask")
            with dask.config.set(setting), refused, open_scheduler(address):
                pass
        with pytest.raises(InputError, match="no scheduler answers"), open_scheduler(address.replace("tls", "tcp")):
            pass
