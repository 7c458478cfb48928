"""Worker processes end when the process that started them dies, however it dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WAYS_TO_DIE = {
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "told to end": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
    "an exit without goodbye": "os._exit(0)",
    "an error in C": "ctypes.string_at(0)",
}
POOL = """
import ctypes, os, signal, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from data.workers import end_with_parent

if __name__ == "__main__":
    pool = ProcessPoolExecutor(2, get_context("spawn"), end_with_parent)
    print(*(pool.submit(os.getpid).result() for _ in range(9)), flush=True)  # these wait for work when the end comes
    waiting = [pool.submit(time.sleep, 3600) for _ in range(WORK)]
    while sum(future.running() for future in waiting) < min(WORK, 1):
        time.sleep(0.01)
    DIE
"""


def alive(process):
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def assert_they_end(processes):
    end = time.monotonic() + 60
    while any(map(alive, processes)) and time.monotonic() < end:
        time.sleep(0.02)
    left = [process for process in processes if alive(process)]
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert not left


linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


@linux
@pytest.mark.parametrize("work", [0, 2], ids=["waiting for work", "at work"])
@pytest.mark.parametrize("way", WAYS_TO_DIE)
def test_workers_of_a_pool_end_with_their_parent(tmp_path, way, work):
    script = tmp_path / "pool.py"
    script.write_text(POOL.replace("WORK", str(work)).replace("DIE", WAYS_TO_DIE[way]))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        workers = {int(word) for word in parent.stdout.readline().split()}
    assert workers and parent.pid not in workers
    assert_they_end(workers)


def test_a_process_that_multiprocessing_did_not_start_is_refused():
    from data.workers import end_with_parent

    with pytest.raises(ValueError, match="expected a process that multiprocessing started"):
        end_with_parent()
