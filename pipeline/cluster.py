"""Workers of a Dask scheduler behind the interface of ``concurrent.futures.Executor``. All that is Dask is here.

    with open_scheduler("tcp://10.0.0.1:8786") as executor:
        result = sensitivity_map(ModelLoader(load_model, "model_0.keras"), ..., executor=executor)

Every task goes to a worker with the same versions as this process; else the run ends and names the worker.
A task whose worker dies is run again by Dask, three times; then the run ends and names the task. No more tasks are
handed to the scheduler than there are worker threads: so a task that kills its worker has no others queued behind
it that would be blamed too, and the scheduler holds little whatever the length of the survey.
"""

import asyncio
import concurrent.futures
import contextlib
import functools
import hashlib
import json
import logging
import os
import pickle
import re
import sys
import threading
import time
from collections import deque
from pathlib import Path
from queue import Empty, SimpleQueue

import constants
from common.files import read_bounded
from common.processes import MEMORY_PER_PROCESS, quiet_libraries, usable_memory
from runio import log
from runio.log import InputError

logger = logging.getLogger(__name__)

ADDRESS = r"(\w+://)?[\w.\-\[\]:]+:\d{1,5}"
LARGEST_FILE = 1_000_000  # bytes of a scheduler's file


def parse_address(address):
    """Return ("local", N) or ("address", "tcp://host:port").

    Raises
    ------
    InputError
        If ``address`` is neither of these nor a scheduler's file.
    """
    local = re.fullmatch(r"local:(\d{1,4})", address)
    if local and int(local[1]) > 0:
        return "local", int(local[1])
    if re.fullmatch(ADDRESS, address) and not local:
        return "address", address if "://" in address else f"tcp://{address}"
    if "\0" not in address and len(address) < 4096 and Path(address).is_file():
        return "address", address_in(address)
    raise InputError(f"--scheduler: expected tcp://HOST:PORT, a scheduler file or local:N, received {address!r}")


def address_in(path):
    """Return the address that a scheduler's file (``dask scheduler --scheduler-file``) states."""
    try:
        address = json.loads(read_bounded(path, LARGEST_FILE))["address"]
        if isinstance(address, str) and re.fullmatch(ADDRESS, address):
            return address
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise InputError(f"--scheduler: {path}: expected the file of a scheduler, JSON with an address tcp://HOST:PORT")


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


PACKAGES = ("software", "tensorflow", "keras", "numpy")  # of one version everywhere, or numbers could differ
NOT_RUN = ("tests", "notebooks", "docs")  # folders of the project whose code no worker runs
START_PATIENCE = 600  # seconds to wait for the first worker: it may have to queue
CONNECT_PATIENCE = 15  # seconds for the scheduler to answer
PATIENCE = 60  # seconds without any worker at work before the run is given up
LOOK_EVERY = 1.0  # seconds between two counts of the workers
CHUNKS_PER_THREAD = 4  # chunks under way or ready for every worker thread
# Workers of this machine are not paused: nobody else would take their task. Beyond their limit they are ended
LOCAL_MEMORY = {f"distributed.worker.memory.{what}": False for what in ("target", "spill", "pause")}
CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)
STOPPED = "the workers were given back before the task ended"


def open_scheduler(address, patience=PATIENCE, start_patience=START_PATIENCE):
    """Return the workers of a scheduler as an executor, to be used as a context manager.

    Parameters
    ----------
    address : str
        ``tcp://HOST:PORT`` (or ``tls://``, with certificates from Dask's own configuration) or the path of a
        scheduler file, of a scheduler that runs; or ``local:N``: N new worker processes of one thread each on this
        machine, for the time of the context.
    patience : float
        Seconds without any worker, or with none but those that Dask paused because of their memory, before all work
        is given up with a RuntimeError.
    start_patience : float
        The same before the first worker is there.

    Returns
    -------
    Workers

    Raises
    ------
    InputError
        If the address is none of these, or Dask is not installed; on entering the context if no scheduler answers,
        or a worker has other versions than this process.
    RuntimeError
        On entering, if no worker comes.
    """
    return Workers(address, patience, start_patience)


@functools.cache
def fingerprint():
    """Versions and the digest of the code of this process, as a dict: the same on every worker as here."""
    versions = log.versions()
    code = code_digest(Path(constants.__file__).resolve().parent)
    return {**{name: versions[name] for name in PACKAGES}, "code": code}


def project_modules(root):
    """Return the paths, sorted, of all modules of the project whose root folder is ``root``.

    These are the Python files of the root and of its rooms, found by looking: a new module counts without being
    listed anywhere. Hidden folders (virtual environments) and those of ``NOT_RUN`` do not count.
    """
    paths = sorted([*Path(root).glob("*.py"), *Path(root).glob("[!.]*/*.py")])
    return [path for path in paths if path.relative_to(root).parts[0] not in NOT_RUN]


def code_digest(root):
    """Return a digest of the names and contents of `project_modules`."""
    digest = hashlib.sha256()
    for path in project_modules(root):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:12]


def run_checked(expected, task):
    """Run a pickled task on a worker, if the worker is one of ours: it may have joined after the others were asked."""
    problem = _difference(fingerprint(), expected)
    if problem:
        raise InputError(f"a worker on {os.uname().nodename} {problem}")
    quiet_libraries()
    with contextlib.nullcontext() if "tensorflow" in sys.modules else log.quiet_stderr():
        function, args, kwargs = pickle.loads(task)  # may import TensorFlow
    return function(*args, **kwargs)


def portable_task(function, args, kwargs):
    """Return a task for `run_checked` and its arguments, of which a scheduler can read all without this software.

    Dask's scheduler looks into the tasks it passes on, and may live in a script of the user's, in any folder. A local
    function travels as code, not by the name of its module.
    """

    def run(expected, task):

        return run_checked(expected, task)

    return run, fingerprint(), pickle.dumps((function, args, kwargs))


def _difference(received, expected):
    """Say in words what differs between two fingerprints; None if nothing does."""
    for name, value in expected.items():
        if received.get(name) != value:
            return f"has {name} {received.get(name)}, expected {value} as in this process"
    return None


class Workers(concurrent.futures.Executor):
    """The executor that `open_scheduler` returns.

    One thread speaks with Dask: it hands out as many tasks as there are worker threads, and counts the workers
    every second.

    Attributes
    ----------
    n_workers : int
        Workers alive.
    """

    def __init__(self, address, patience, start_patience):
        try:
            import dask.distributed  # noqa: F401
        except ImportError:
            raise InputError("--scheduler: needs Dask, not installed here: pip install 'dask[distributed]'") from None
        self.address, self.patience, self.start_patience = address, patience, start_patience
        self.n_workers = self._n_threads = self._n_paused = 0
        self._workers, self._limit = [], ""  # as the scheduler describes them; the memory they may take, in words
        self._target = parse_address(address)
        self._events = (
            SimpleQueue()
        )  # ("submit", future, function, args, kwargs), ("ended", inner, answer, error) or stop
        self._waiting, self._running = deque(), {}  # tasks; and Dask's futures, each to (future, name)
        self._broken = None  # why nothing can be run any more

    def __enter__(self):
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said here, in one line each
        self._open = contextlib.ExitStack()
        try:
            self._client = self._open.enter_context(self._connect())
            self._await_workers()
            self._refuse_strangers()
        except BaseException:
            self._open.close()
            raise
        self._seen = self._looked = time.monotonic()
        self._thread = threading.Thread(target=self._serve, name="dask", daemon=True)
        self._thread.start()
        logger.info("%s: %d workers", self.address, self.n_workers)
        return self

    def __exit__(self, *exception):
        self.shutdown()

    def shutdown(self, wait=True, *, cancel_futures=False):
        """End: tasks that have not ended fail, worker processes that were started here are stopped."""
        self._events.put(("stop",))
        self._thread.join()
        self._open.close()

    def submit(self, function, /, *args, **kwargs):
        """Run ``function(*args, **kwargs)`` on a worker; return its ``concurrent.futures.Future``.

        An argument with the attribute ``task_name`` says what the task is called in messages.
        """
        future = concurrent.futures.Future()
        self._events.put(("submit", future, function, args, kwargs))
        return future

    @property
    def chunks_ahead(self):
        """How many chunks ``perturbation.run_chunks`` should keep under way."""
        return CHUNKS_PER_THREAD * max(self._n_threads, 2)

    def _connect(self):
        """Return the Dask client, connected; its end is also that of workers started here."""
        import dask
        from dask.distributed import Client, LocalCluster

        kind, value = self._target
        if kind == "local":
            with dask.config.set(LOCAL_MEMORY):  # the workers keep what is set when they begin
                processes = LocalCluster(
                    n_workers=value,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address="127.0.0.1:0",  # any free port, seen from here only
                    memory_limit=local_limit(value),
                    silence_logs=logging.CRITICAL,
                )
            self._open.enter_context(processes)
            return Client(processes)
        try:
            return Client(**{kind: value}, timeout=CONNECT_PATIENCE)
        except (OSError, ValueError, TypeError) as error:
            hint = "; certificates: distributed.comm.tls of Dask's configuration" if "tls://" in value else ""
            raise InputError(f"--scheduler: no scheduler answers at {self.address} ({error}){hint}") from None

    def _await_workers(self):
        end = time.monotonic() + self.start_patience
        while not self._count():
            if time.monotonic() > end:
                raise RuntimeError(f"{self.address}: no worker came within {self.start_patience:.0f} s")
            time.sleep(0.2)

    def _count(self):
        """Count workers and threads; return whether there are any."""
        self._workers = list(self._client.sync(self._client.scheduler.identity)["workers"].values())
        n_paused = sum(map(is_paused, self._workers))
        self._limit = limit_words(self._workers) if self._workers else self._limit
        if len(self._workers) < self.n_workers:
            logger.warning("%s: %d of %d workers are left", self.address, len(self._workers), self.n_workers)
        if n_paused > self._n_paused:
            logger.warning("%s: workers are paused (%s)", self.address, paused_words(self._workers))
        self.n_workers, self._n_paused = len(self._workers), n_paused
        self._n_threads = sum(worker["nthreads"] for worker in self._workers if can_work(worker))
        return bool(self._workers)

    def _refuse_strangers(self):
        """Raise InputError if some worker cannot import this software, or another version of it."""

        def look():  # a local function travels as code, so it also runs where there is no module of this name

            return fingerprint()

        for worker, answer in self._client.run(look, on_error="return").items():
            problem = f"cannot run this software ({answer})"
            if isinstance(answer, ImportError):
                problem += f"; start it with PYTHONPATH={Path(__file__).parents[1]}"
            elif isinstance(answer, dict):
                problem = _difference(answer, fingerprint())
            if problem:
                raise InputError(f"--scheduler: worker {worker} {problem}")

    def _serve(self):
        """Hand out tasks, take answers, count workers, until told to stop; never leave a task without an end."""
        while self._broken != STOPPED:
            try:
                self._step()
            except Exception as error:
                logger.debug("failed", exc_info=True)
                self._broken = self._broken or f"{self.address}: {type(error).__name__}: {error}"
            if self._broken:
                while self._waiting:
                    future, *_ = self._waiting.popleft()
                    if future.set_running_or_notify_cancel():
                        future.set_exception(RuntimeError(self._broken))
                while self._running:
                    self._running.popitem()[1][0].set_exception(RuntimeError(self._broken))

    def _step(self):
        """Wait for the next event, for a second at most, and do what it asks."""
        with contextlib.suppress(Empty):
            kind, *event = self._events.get(timeout=LOOK_EVERY)
            if kind == "stop":
                self._broken = STOPPED
            elif kind == "submit":
                self._waiting.append(event)
            elif kind == "ended":
                self._settle(*event)
        if not self._broken and time.monotonic() > self._looked + LOOK_EVERY:
            self._look()
        while not self._broken and self._waiting and len(self._running) < self._n_threads:
            self._hand_over(*self._waiting.popleft())

    def _look(self):
        """See whether the scheduler is there and workers are at work; give up if none was for too long."""
        self._looked = time.monotonic()
        if self._client.status != "running":
            self._broken = self._gone
            return
        self._count()
        if any(map(can_work, self._workers)):
            self._seen = self._looked
        elif self._looked > self._seen + self.patience:
            self._broken = f"{self.address}: {standstill(self._workers, self.patience)}; go on with --resume"

    def _hand_over(self, future, function, args, kwargs):
        if not future.set_running_or_notify_cancel():
            return
        name = next((arg.task_name for arg in args if hasattr(arg, "task_name")), function.__name__)
        try:
            inner = self._client.submit(*portable_task(function, args, kwargs), pure=False)
        except Exception as error:  # it cannot be pickled
            future.set_exception(error)
            return
        self._running[inner] = future, name
        self._client.loop.add_callback(self._await_end, inner)

    async def _await_end(self, inner):
        """Wait until a task has ended and its answer is here; if its worker dies in between, Dask runs it again."""
        answer = error = None
        try:
            answer = await self._client.gather(inner, asynchronous=True)
        except (Exception, *CANCELLED) as reason:
            error = reason
        self._events.put(("ended", inner, answer, error))

    def _settle(self, inner, answer, error):
        """Pass the end of a task on to its future."""
        from dask.distributed import KilledWorker

        future, name = self._running.pop(inner, (None, None))
        if future is None:  # given up before
            return
        if error is None:
            future.set_result(answer)
            return
        if isinstance(error, CANCELLED):
            error = self._broken = self._gone
        elif isinstance(error, KilledWorker):
            deaths = error.allowed_failures + 1
            error = f"{name}: {deaths} workers died of it, one after the other (out of memory? they had {self._limit})"
        elif not isinstance(error, ValueError):  # a ValueError of ours says where
            kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
            error = f"{name}: {kind}{error}"
        future.set_exception(RuntimeError(error) if isinstance(error, str) else error)

    @property
    def _gone(self):
        return f"{self.address}: the scheduler is gone; start it again and go on with --resume"
