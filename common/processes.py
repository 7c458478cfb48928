"""Worker processes on this machine: how many it has room for, and a pool that ends when its work ends or fails."""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import parent_process
from pathlib import Path

MEMORY_PER_PROCESS = 1.5e9  # bytes: training on the shipped data takes up to 1.0e9 (benchmarks/worker_memory.py)


def quiet_libraries():
    """Let libraries log errors only: their warnings are meant for programmers, not for those who run this."""
    for name in ("tensorflow", "absl", "matplotlib", "fontTools", "h5py", "taurex"):
        logging.getLogger(name).setLevel(logging.ERROR)


def is_starting_worker():
    """Whether this process is a worker that imports its parent's script, which CPython marks so itself."""
    return getattr(multiprocessing.current_process(), "_inheriting", False)


def usable_cores():
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_memory():
    """Bytes of memory that are free, within the limit of the control group if there is one; inf where it is unknown."""
    free = [float("inf")]
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with contextlib.suppress(OSError, ValueError):  # the word "max" where there is no limit
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text())
        free.append(int((group / "memory.max").read_text()) - used)
    return min(free)


def process_count(asked, n_tasks, memory=MEMORY_PER_PROCESS):
    """Return how many processes to use for ``n_tasks``: as many as asked, or with "auto" as cores and memory allow."""
    if asked == "auto":
        asked = min(usable_cores(), int(min(usable_memory() / memory, n_tasks)))
    return max(1, min(asked, n_tasks))


def device_words():
    """Say where TensorFlow computes: the names of its GPUs, or else how many processor cores there are."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return f"TensorFlow on the CPU, no GPU found; processor cores: {usable_cores()}"
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    names = [known.get("device_name", gpu.name) for known, gpu in zip(details, gpus)]
    return f"TensorFlow on {len(gpus)} GPU{'s' if len(gpus) > 1 else ''}: {', '.join(names)}"


@contextlib.contextmanager
def process_pool(n, threads):
    """Yield a pool of ``n`` processes, each of ``threads`` TensorFlow threads; they are killed if the block fails."""
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(n, context, _begin, (threads,))
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        pool._result_queue._writer.close()  # else the pool waits for the rest of an answer that one was writing
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(threads):
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then kills the others
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)  # read when TensorFlow starts
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    quiet_libraries()


def end_with_parent():
    """Let this worker process end as soon as its parent has ended. To be called first in a worker.

    A parent that is killed tells its workers nothing, and a worker of ``concurrent.futures.ProcessPoolExecutor`` then
    waits for work for ever. For the method "spawn": a forked worker may hold the pipe by which another one hears of it.
    """

    def end_after(parent):
        parent.join()
        os._exit(1)  # at once: sys.exit would end this thread alone

    threading.Thread(target=end_after, args=(parent_process(),), name="end with parent", daemon=True).start()
