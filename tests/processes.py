"""Processes that tests start: how to see them, and how to see that none is left behind. Linux only."""

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

LINUX = sys.platform == "linux"
PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


def adopt_orphans():
    """Make every process that loses its parent, below this one, a child of this one: none can be overlooked."""
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def alive(process):
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    return _status(process)[0] not in "ZX"


def children(parent=None):
    """Return the numbers of the processes at work that ``parent`` (this process) started or adopted."""
    parent = os.getpid() if parent is None else parent
    everyone = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {process for process in everyone if _status(process)[1] == parent and alive(process)}


def command(process):
    """Return the command line of a process."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def left_of(processes, patience=60):
    """Wait until the processes have ended; return those that have not, after ending them by force."""
    end = time.monotonic() + patience
    while any(map(alive, processes)) and time.monotonic() < end:
        time.sleep(0.02)
    left = {process: command(process) for process in processes if alive(process)}
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return left


def _status(process):
    """Return the state of a process as one letter, and its parent; ("X", 0) where there is none."""
    try:
        state, parent, *_ = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        return state, int(parent)
    except OSError:
        return "X", 0
