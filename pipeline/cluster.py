"""Workers of a Dask scheduler behind the interface of ``concurrent.futures.Executor``. Only this module uses Dask.

    with open_scheduler("tcp://10.0.0.1:8786") as executor:
        result = sensitivity_map(ModelLoader(load_model, "model_0.keras"), ..., executor=executor)

Tasks are only given to workers with the same versions as this process. When a worker dies, Dask runs its task again,
three times; then the run ends and names the task. No more tasks are handed to the scheduler than there are worker
threads, so a task that kills its worker has no others queued behind it that would be blamed too.
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
from common.files import digest, read_bounded
from common.processes import MEMORY_PER_PROCESS, quiet_libraries, usable_memory
from runio import log
from runio.log import InputError

logger = logging.getLogger(__name__)

ADDRESS = r"(\w+://)?[\w.\-\[\]:]+:\d{1,5}"
MAX_SCHEDULER_FILE = 1_000_000  # bytes
THE_SAME = ("software", "tensorflow", "keras", "numpy", "code")  # on every worker, or numbers may differ
NOT_RUN = ("tests", "notebooks", "docs")  # folders whose code no worker runs
START_PATIENCE = 600  # seconds to wait for the first worker, which may have to queue
CONNECT_PATIENCE = 15  # seconds for the scheduler to answer
PATIENCE = 60  # seconds without a working worker (gone, or paused because of its memory) before the run gives up
LOOK_EVERY = 1.0  # seconds between two counts of the workers
CHUNKS_PER_THREAD = 4  # chunks under way or ready for every worker thread
# Workers of this machine are not paused, because no other worker would take their task. Beyond the limit they are ended
LOCAL_MEMORY = {f"distributed.worker.memory.{what}": False for what in ("target", "spill", "pause")}
CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)
STOPPED = "the workers were released before the task ended"


def parse_address(address):
    """Return ("local", N) or ("address", "tcp://host:port"); anything else raises an InputError."""
    local = re.fullmatch(r"local:(\d{1,4})", address)
    if local and int(local[1]) > 0:
        return "local", int(local[1])
    if re.fullmatch(ADDRESS, address) and not local:
        return "address", address if "://" in address else f"tcp://{address}"
    if not os.path.isfile(address):
        raise InputError(f"--scheduler: expected tcp://HOST:PORT, a scheduler file or local:N, received {address!r}")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        stated = json.loads(read_bounded(address, MAX_SCHEDULER_FILE))["address"]
        if re.fullmatch(ADDRESS, stated):
            return "address", stated
    raise InputError(f"--scheduler: {address}: expected the file of a scheduler, JSON with an address tcp://HOST:PORT")


def local_limit(n):
    """Return the memory limit (bytes) of each of ``n`` workers on this machine: its share of what is free.

    Where that is less than a worker needs there is a warning and no limit, which could end workers that would fit.
    """
    free = usable_memory()
    if free / n < MEMORY_PER_PROCESS:
        fitting = max(1, int(free / MEMORY_PER_PROCESS))
        logger.warning(
            "--scheduler local:%d: a worker takes about %s with TensorFlow, and %s are free; local:%d would fit",
            *(n, gigabytes(MEMORY_PER_PROCESS), gigabytes(free), fitting),
        )
    return int(free / n) if MEMORY_PER_PROCESS <= free / n < float("inf") else None


def can_work(worker):
    """Say whether a worker, as Dask describes it, takes tasks or is at one: a paused worker ends what it has begun."""
    return worker["status"] == "running" or worker["metrics"].get("task_counts", {}).get("executing", 0) > 0


def paused_words(workers):
    """Return as text how many workers Dask has paused because of their memory, and how much memory they use."""
    paused = [worker for worker in workers if worker["status"] == "paused"]
    used = max((worker["metrics"].get("memory", 0) for worker in paused), default=0)
    return f"{len(paused)} of {len(workers)}, with up to {gigabytes(used)} of {limit_words(paused)}"


def limit_words(workers):
    """Return the lowest memory limit of the workers as text."""
    limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
    return f"a limit of {gigabytes(min(limits))}" if limits else "no limit"


def gigabytes(n):
    """Write a number of bytes as GB, or as MB where that is less than one: '1.5 GB', '80 MB'."""
    return f"{n / 1e9:.2g} GB" if n >= 1e9 else f"{n / 1e6:.0f} MB"


@functools.cache
def fingerprint():
    """Return the versions and a digest of the code of this process, which must be the same on every worker."""
    versions = {**log.versions(), "code": code_digest(Path(constants.__file__).resolve().parent)}
    return {name: versions[name] for name in THE_SAME}


def project_modules(root):
    """Return the sorted paths of all modules of the project in ``root``, without hidden folders and `NOT_RUN`."""
    paths = sorted([*Path(root).glob("*.py"), *Path(root).glob("[!.]*/*.py")])
    return [path for path in paths if path.relative_to(root).parts[0] not in NOT_RUN]


def code_digest(root):
    """Return a digest of the names and contents of `project_modules`."""
    names = "".join(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n" for path in project_modules(root))
    return hashlib.sha256(f"{names}{digest(*project_modules(root))}".encode()).hexdigest()[:12]


def _difference(received, expected):
    """Say what differs between two fingerprints; None if nothing does."""
    for name, value in expected.items():
        if received.get(name) != value:
            return f"has {name} {received.get(name)}, expected {value} as in this process"
    return None


def run_checked(expected, task):
    """Run a pickled task on a worker, after checking its fingerprint: it may have joined after the first check."""
    problem = _difference(fingerprint(), expected)
    if problem:
        raise InputError(f"a worker on {os.uname().nodename} {problem}")
    quiet_libraries()
    with contextlib.nullcontext() if "tensorflow" in sys.modules else log.quiet_stderr():
        function, args, kwargs = pickle.loads(task)  # may import TensorFlow
    return function(*args, **kwargs)


def portable_task(function, args, kwargs):
    """Return a task for `run_checked` and its arguments, which a scheduler can unpickle without this software."""

    def run(expected, task):  # sent as code, not as the name of its module, so it must import what it needs by itself
        from pipeline.cluster import run_checked

        return run_checked(expected, task)

    return run, fingerprint(), pickle.dumps((function, args, kwargs))


class Workers(concurrent.futures.Executor):
    """The workers of a scheduler as an executor and context manager; one thread talks to Dask.

    ``address`` is ``tcp://HOST:PORT`` (or ``tls://``, with certificates from Dask's own configuration) or the scheduler
    file of a running scheduler; or ``local:N``: N new worker processes of one thread each on this machine, which end
    with the context. Raised are an InputError for another address or without Dask; on entering an InputError if no
    scheduler answers or a worker has other versions than this process, and a RuntimeError if no worker comes.
    """

    def __init__(self, address):
        try:
            import dask.distributed  # noqa: F401
        except ImportError:
            raise InputError("--scheduler: needs Dask, not installed here: pip install 'dask[distributed]'") from None
        self.address = address
        self.n_workers = self._n_threads = self._n_paused = 0
        self._workers, self._limit = [], ""  # as the scheduler describes them; their memory limit as text
        self._target = parse_address(address)
        self._events = SimpleQueue()  # calls for the thread to make
        self._waiting, self._running = deque(), {}  # tasks; {Dask's future: (future, name)}
        self._broken = None  # why no task can run any more

    def __enter__(self):
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # this class reports what matters, in one line each
        self._open = contextlib.ExitStack()
        try:
            self._client = self._open.enter_context(self._connect())
            end = time.monotonic() + START_PATIENCE
            while not self._count():
                if time.monotonic() > end:
                    raise RuntimeError(f"{self.address}: no worker came within {START_PATIENCE} s")
                time.sleep(0.2)
            self._check_workers()
        except BaseException:
            self._open.close()
            raise
        self._seen = self._looked = time.monotonic()
        self._thread = threading.Thread(target=self._serve, name="dask", daemon=True)
        self._thread.start()
        logger.info("%s: %d workers", self.address, self.n_workers)
        return self

    def shutdown(self, wait=True, *, cancel_futures=False):
        """End: unfinished tasks fail, and worker processes that were started here are stopped."""
        self._events.put(functools.partial(setattr, self, "_broken", STOPPED))
        self._thread.join()
        self._open.close()

    def submit(self, function, /, *args, **kwargs):
        """Run a function on a worker; return its future. Messages call it by the ``task_name`` of an argument."""
        future = concurrent.futures.Future()
        self._events.put(functools.partial(self._waiting.append, (future, function, args, kwargs)))
        return future

    @property
    def chunks_ahead(self):
        """How many chunks ``perturbation.engine.run_chunks`` should keep under way."""
        return CHUNKS_PER_THREAD * max(self._n_threads, 2)

    def _connect(self):
        """Return the connected Dask client; workers started here end with it."""
        import dask
        from dask.distributed import Client, LocalCluster

        kind, value = self._target
        if kind == "local":
            with dask.config.set(LOCAL_MEMORY):  # read by the workers when they start
                processes = LocalCluster(
                    n_workers=value, threads_per_worker=1, memory_limit=local_limit(value),
                    silence_logs=logging.CRITICAL,
                    dashboard_address="127.0.0.1:0",  # any free port, visible on this machine only
                )  # fmt: skip
            self._open.enter_context(processes)
            return Client(processes)
        try:
            return Client(**{kind: value}, timeout=CONNECT_PATIENCE)
        except (OSError, ValueError, TypeError) as error:
            hint = "; certificates: distributed.comm.tls of Dask's configuration" if "tls://" in value else ""
            raise InputError(f"--scheduler: no scheduler answers at {self.address} ({error}){hint}") from None

    def _count(self):
        """Count workers and threads; return whether there are any workers."""
        self._workers = list(self._client.sync(self._client.scheduler.identity)["workers"].values())
        n_paused = sum(worker["status"] == "paused" for worker in self._workers)
        self._limit = limit_words(self._workers) if self._workers else self._limit
        if len(self._workers) < self.n_workers:
            logger.warning("%s: %d of %d workers are left", self.address, len(self._workers), self.n_workers)
        if n_paused > self._n_paused:
            logger.warning("%s: workers are paused (%s)", self.address, paused_words(self._workers))
        self.n_workers, self._n_paused = len(self._workers), n_paused
        self._n_threads = sum(worker["nthreads"] for worker in self._workers if can_work(worker))
        return bool(self._workers)

    def _check_workers(self):
        """Raise an InputError if a worker cannot import this software, or has another version of it."""

        def look():  # sent as code, so it also runs where this module is missing: it must import it by itself
            from pipeline.cluster import fingerprint

            return fingerprint()

        for worker, found in self._client.run(look, on_error="return").items():
            is_dict, advice = isinstance(found, dict), f"; start it with PYTHONPATH={Path(__file__).parents[1]}"
            problem = _difference(found, fingerprint()) if is_dict else f"cannot run this software ({found}){advice}"
            if problem:
                raise InputError(f"--scheduler: worker {worker} {problem}")

    def _serve(self):
        """Hand out tasks, collect results and count workers until told to stop; every task gets a result or error."""
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
        """Wait for the next event, for a second at most, and handle it."""
        with contextlib.suppress(Empty):
            self._events.get(timeout=LOOK_EVERY)()
        if not self._broken and time.monotonic() > self._looked + LOOK_EVERY:
            self._look()
        while not self._broken and self._waiting and len(self._running) < self._n_threads:
            self._hand_over(*self._waiting.popleft())

    def _look(self):
        """Check that the scheduler is there and workers are working; give up if none has worked for too long."""
        self._looked = time.monotonic()
        if self._client.status != "running":
            self._broken = self._gone
            return
        self._count()
        if any(map(can_work, self._workers)):
            self._seen = self._looked
        elif self._looked > self._seen + PATIENCE:
            why = f"all workers are gone, for {PATIENCE:g} s"
            if self._workers:
                why = (
                    f"all workers that are left have been paused for {PATIENCE:g} s ({paused_words(self._workers)}); "
                    f"a worker takes about {gigabytes(MEMORY_PER_PROCESS)} with TensorFlow, and the data set: raise "
                    "its limit (--memory-limit of dask worker, memory= of SLURMCluster)"
                )
            self._broken = f"{self.address}: {why}; continue with --resume"

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
        """Wait until a task has ended and its result is here; if its worker dies in between, Dask runs it again."""
        result = error = None
        try:
            result = await self._client.gather(inner, asynchronous=True)
        except (Exception, *CANCELLED) as reason:
            error = reason
        self._events.put(functools.partial(self._settle, inner, result, error))

    def _settle(self, inner, result, error):
        """Pass the end of a task on to its future."""
        from dask.distributed import KilledWorker
        from distributed.comm import CommClosedError

        future, name = self._running.pop(inner, (None, None))
        if future is None:  # given up before
            return
        if error is None:
            future.set_result(result)
            return
        if isinstance(error, (*CANCELLED, CommClosedError)):  # CommClosedError: while its result was fetched
            error = self._broken = self._gone
        elif isinstance(error, KilledWorker):
            deaths = error.allowed_failures + 1
            error = f"{name}: {deaths} workers died while running it (out of memory? each had {self._limit})"
        elif not isinstance(error, ValueError):  # a ValueError of ours says where
            kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
            error = f"{name}: {kind}{error}"
        future.set_exception(RuntimeError(error) if isinstance(error, str) else error)

    @property
    def _gone(self):
        return f"{self.address}: the scheduler is gone; start it again and continue with --resume"


open_scheduler = Workers  # the name under which it is used
