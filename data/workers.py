"""Worker processes that end when the process that started them ends, however it ends."""

import os
import threading
from multiprocessing import parent_process


def end_with_parent():
    """Let this worker process end as soon as its parent has ended. To be called first in a worker.

    A parent that is killed tells its workers nothing, and a worker of ``concurrent.futures.ProcessPoolExecutor``
    then waits for work for ever. Works on every system, in processes started by ``multiprocessing``, best by its
    method "spawn": a worker that was forked may hold the pipe by which another one hears of the parent's end.

    Raises
    ------
    ValueError
        If ``multiprocessing`` did not start this process.
    """
    parent = parent_process()
    if parent is None:
        raise ValueError("end_with_parent: expected a process that multiprocessing started, received the main process")
    threading.Thread(target=_end_after, args=(parent,), name="end with parent", daemon=True).start()


def _end_after(parent):
    parent.join()
    os._exit(1)  # at once: sys.exit would end this thread alone
