"""Worker processes end when the process that started them dies, however it dies."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import LINUX, left_of

ROOT = Path(__file__).resolve().parents[2]
WAYS_TO_DIE = {
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "told to end": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(600)",
    "an exit without goodbye": "os._exit(0)",
    "an error in C": "ctypes.string_at(0)",
}
POOL = """
import ctypes, os, signal, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from common.processes import end_with_parent

if __name__ == "__main__":
    pool = ProcessPoolExecutor(2, get_context("spawn"), end_with_parent)
    print(*(pool.submit(os.getpid).result() for _ in range(9)), flush=True)  # these wait for work when the end comes
    waiting = [pool.submit(time.sleep, 3600) for _ in range(WORK)]
    while sum(future.running() for future in waiting) < min(WORK, 1):
        time.sleep(0.01)
    DIE
"""

linux = pytest.mark.skipif(not LINUX, reason="looks for processes in /proc")


@linux
@pytest.mark.parametrize(("way", "work"), [("killed", 0), *((way, 2) for way in WAYS_TO_DIE)])
def test_workers_of_a_pool_end_with_their_parent(tmp_path, way, work):
    script = tmp_path / "pool.py"
    script.write_text(POOL.replace("WORK", str(work)).replace("DIE", WAYS_TO_DIE[way]))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        workers = {int(word) for word in parent.stdout.readline().split()}
    assert workers and parent.pid not in workers
    assert not left_of(workers)
