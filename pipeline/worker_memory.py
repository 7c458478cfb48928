"""Memory of Dask's workers: limits that fit this machine, and what to say of workers that stand still.

Dask gives a worker no new task while it takes more than 80 % of its limit ("paused"), and ends it at 95 %.
"""

import logging

from pipeline.processes import MEMORY_PER_PROCESS, usable_memory

logger = logging.getLogger(__name__)


def local_limit(n, free=None):
    """Return the limit of memory, in bytes, of each of ``n`` workers on this machine; None where there is too little.

    Each gets the same share of what is free. Where a share is less than a worker needs, a limit would end workers
    that the machine might still carry: then there is none, and a warning.

    Parameters
    ----------
    n : int
    free : float, optional
        Bytes; by default what this machine has now.
    """
    free = usable_memory() if free is None else free
    share = free / n
    if share == float("inf"):
        return None
    if share < MEMORY_PER_PROCESS:
        fitting = max(1, int(free / MEMORY_PER_PROCESS))
        logger.warning(
            "--scheduler local:%d: a worker takes about %s with TensorFlow, and %s are free; local:%d would fit",
            *(n, gigabytes(MEMORY_PER_PROCESS), gigabytes(free), fitting),
        )
        return None
    return int(share)


def can_work(worker):
    """Whether a worker takes tasks, or is still at one: paused, it ends what it began.

    Parameters
    ----------
    worker : dict
        As ``identity`` of Dask's scheduler describes it.
    """
    return worker["status"] == "running" or worker["metrics"].get("task_counts", {}).get("executing", 0) > 0


def is_paused(worker):
    """Whether Dask gives the worker no task because of its memory."""
    return worker["status"] == "paused"


def standstill(workers, seconds):
    """Say of workers none of which could work for so long why that is, and what to do.

    Parameters
    ----------
    workers : sequence of dict
    seconds : float
    """
    if not workers:
        return f"all workers are gone, for {seconds:g} s"
    return (
        f"all workers that are left have been paused for {seconds:g} s ({paused_words(workers)}); a worker takes about "
        f"{gigabytes(MEMORY_PER_PROCESS)} with TensorFlow, and the data set: raise its limit (--memory-limit of dask "
        "worker, memory= of SLURMCluster)"
    )


def paused_words(workers):
    """Return how many of the workers are paused, with how much memory, as text."""
    paused = [worker for worker in workers if is_paused(worker)]
    used = max((worker["metrics"].get("memory", 0) for worker in paused), default=0)
    return f"{len(paused)} of {len(workers)}, with up to {gigabytes(used)} of {limit_words(paused)}"


def limit_words(workers):
    """Return the lowest limit of memory of the workers, as text."""
    limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
    return f"a limit of {gigabytes(min(limits))}" if limits else "no limit"


def gigabytes(n):
    """Write a number of bytes as GB, or as MB where that is less than one.

    >>> gigabytes(1.5e9), gigabytes(8e7)
    ('1.5 GB', '80 MB')
    """
    return f"{n / 1e9:.2g} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"
