"""Schedulers and workers that are not as one would wish: each works, or ends the run with a line that says what to do.

Schedulers and workers of these tests live in threads of this process where that can be: no start-up to wait for.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import cluster_models
import numpy as np
import pytest

pytest.importorskip("dask.distributed")

from pipeline.cluster import open_scheduler
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
