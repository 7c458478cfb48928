"""The folds of a run: load and split its data, train one network, or all of them on the workers of an executor.

A fold is trained as a whole by one process. Its files go to the results folder, which has to be on a file system
that all workers see, under the same path; so has the data set.
"""

import concurrent.futures
import contextlib
import functools
import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from constants import Stream, stream
from pipeline.processes import process_count, process_pool, usable_cores
from runio import console
from runio.config import DataConfig, build_config
from runio.errors import InputError, as_input_error
from runio.results import read_history
from runio.rundir import FolderInUse, RunFolder

logger = logging.getLogger(__name__)

NO_RESULT = ("output", "command", "training.processes", "sensitivity.chunk_size")  # settings that change no number
THREADS_MATTER = ("cnn", "hybrid")  # networks with convolutions, whose gradient is summed thread by thread
LOOK_EVERY = 0.5  # seconds between two looks at the progress of other processes
LOCK_PATIENCE = 120  # seconds that the tasks of a job array wait for each other to make the folder


@dataclass(frozen=True)
class Split:
    """A data set, the rows to test on, and each fold's rows and scaler."""

    data: object  # preprocessing.Dataset
    test: object  # (n_test,) rows
    folds: list  # of (train rows, validation rows)
    scalers: list


def data_path(config):
    """Return the path of the data set: relative to the present folder; the shipped one is found from anywhere."""
    path = config.data.path
    if path == DataConfig().path and not os.path.exists(path):
        return str(Path(__file__).parents[1] / path)
    return path


def load_split(config):
    """Load the data set of a run and split it; refuse what cannot be used with an `InputError`."""
    from loaders import load_dataset
    from preprocessing import Scaler, split_folds, split_test, take

    chosen, training = config.data, config.training
    with as_input_error():
        data = load_dataset(
            data_path(config), chosen.format, chosen.targets, chosen.auxiliary, chosen.depth_unit, chosen.width
        )
        data = take(data, chosen.size)
        rest, test = split_test(data, chosen.test_fraction, config.seed)
        folds = split_folds(rest, training.cv, training.folds, chosen.valid_fraction, config.seed)
        return Split(data, test, folds, [Scaler.fit(data, train) for train, _ in folds])


def prepare_tensorflow():
    """Import TensorFlow, quietly, and let the same seed give the same weights."""
    with console.quiet_stderr():
        import tensorflow as tf
    tf.config.experimental.enable_op_determinism()


def train_network(config, split, folder, k, quiet):
    """Return the network of fold ``k`` at its best epoch: train it, or go on with, or load, what is there."""
    from tqdm import tqdm

    from models import build_model
    from pipeline import training
    from preprocessing import whitening

    name, data, scaler = config.model.name, split.data, split.scalers[k]
    train, valid = split.folds[k]
    n_auxiliary = 0 if data.auxiliary is None else data.auxiliary.shape[1]
    kernel_and_bias = whitening(data, train, scaler) if config.model.whiten else None

    def build():
        layers = vars(getattr(config.model, name))
        shape = data.spectra.shape[1], len(data.amp_table), n_auxiliary
        return build_model(
            name, *shape, whitening=kernel_and_bias, seed=stream(config.seed, Stream.WEIGHTS, k), **layers
        )

    logger.info("fold %d: training the %s on %d spectra, validating on %d", k, name, len(train), len(valid))
    with tqdm(total=config.training.epochs, unit="epoch", disable=quiet or None) as bar:

        def on_epoch(row):
            bar.update()
            bar.set_postfix(loss=row["loss"], val_loss=row["val_loss"], lr=row["learning_rate"])
            logger.debug("fold %d epoch %d: %s", k, row["epoch"], row)

        return training.train_fold(build, data, train, valid, scaler, config.training, config.seed, folder, k, on_epoch)


@dataclass(frozen=True)
class FoldTask:
    """All that a worker needs to train a fold."""

    settings: str  # of the run, as JSON
    data_sha256: str
    folder: str
    fold: int
    threads: int  # of TensorFlow in the process that asks

    @property
    def task_name(self):
        """What a message calls this task."""
        return f"fold {self.fold}"


def train_folds(executor, config, split, folder, quiet):
    """Train all folds that are not yet trained as tasks of ``executor``; their networks appear in ``folder``.

    The weights are those that the folds get one after the other in this process, bit by bit if the workers'
    machines are of its kind and TensorFlow uses as many threads there as here.

    Raises
    ------
    RuntimeError
        If a fold fails, or its network is not in ``folder`` as this process sees it.
    """
    from tqdm import tqdm

    tree = config.to_dict()
    tree["data"]["path"] = os.path.abspath(data_path(config))
    settings, folder = json.dumps(tree), Path(folder).resolve()
    missing = [k for k in range(len(split.folds)) if not _network(folder, k).is_file()]
    sha256 = split.data.sha256()
    tasks = [FoldTask(settings, sha256, str(folder), k, tensorflow_threads()) for k in missing]
    futures = {executor.submit(train_on_worker, task): task.fold for task in tasks}
    if tasks:
        logger.info("folds %s: training side by side", ", ".join(map(str, missing)))
    watch, waiting = EpochWatch(folder, missing), set(futures)
    with tqdm(total=len(tasks) * config.training.epochs, desc="training", unit="epoch", disable=quiet or None) as bar:
        while waiting:
            ended, waiting = concurrent.futures.wait(
                waiting, LOOK_EVERY, return_when=concurrent.futures.FIRST_COMPLETED
            )
            bar.update(watch.new_epochs())
            for future in ended:
                k = futures[future]
                for warning in future.result():
                    logger.warning("fold %d: %s", k, warning)
                if not _network(folder, k).is_file():
                    raise RuntimeError(
                        f"fold {k}: trained, but {_network(folder, k)} is not here; --output has to lie on a file "
                        "system that the workers share"
                    )
            bar.total = watch.expected_epochs(config.training.epochs, [futures[future] for future in waiting])
            bar.refresh()


class EpochWatch:
    """Reads the histories of folds that other processes train, and logs each epoch as it ends."""

    def __init__(self, folder, folds):
        self.paths = {k: Path(folder) / f"history_{k}.csv" for k in folds}
        self.seen = dict.fromkeys(folds, 0)

    def expected_epochs(self, most, unfinished):
        """Return how many epochs all folds will take: the unfinished ones as many as the others did in the mean.

        Parameters
        ----------
        most : int
            Epochs of a fold that does not stop early; taken for all until the first fold has ended.
        unfinished : sequence of int
        """
        ended = [epochs for k, epochs in self.seen.items() if k not in unfinished]
        usual = sum(ended) / len(ended) if ended else most
        return round(sum(ended) + sum(max(usual, self.seen[k]) for k in unfinished))

    def new_epochs(self):
        """Log the epochs that ended since the last call; return how many."""
        before = sum(self.seen.values())
        for k, path in self.paths.items():
            if not path.is_file():
                continue
            history = read_history(path)
            for epoch in range(self.seen[k], len(history.get("epoch", ()))):
                row = {name: float(column[epoch]) for name, column in history.items()}
                logger.debug("fold %d epoch %d: %s", k, epoch, {**row, "epoch": epoch})
                self.seen[k] = epoch + 1
        return sum(self.seen.values()) - before


def train_on_worker(task):
    """Train one fold, in a worker process; return what the user should be warned of, a list of lines."""
    prepare_tensorflow()
    config = build_config(json.loads(task.settings))
    if not Path(task.folder).is_dir():
        raise RuntimeError(f"{task.folder}: not on this worker; --output has to lie on a file system all see")
    split, sha256 = _load_once(task.settings)
    if sha256 != task.data_sha256:
        raise InputError(f"{config.data.path}: another data set on {os.uname().nodename} than here")
    with fold_lock(task.folder, task.fold):
        train_network(config, split, Path(task.folder), task.fold, quiet=True)
    return thread_warnings(config.model.name, tensorflow_threads(), task.threads)


def thread_warnings(network, there, here):
    """Return what to say of a fold trained with as many threads of TensorFlow as ``there``: a list of lines."""
    if there == here or network not in THREADS_MATTER:
        return []
    return [f"trained with {there} threads of TensorFlow, here it uses {here}: the last digits may differ"]


@functools.lru_cache(maxsize=1)
def _load_once(settings):
    split = load_split(build_config(json.loads(settings)))
    return split, split.data.sha256()


def _network(folder, k):
    return Path(folder) / f"model_{k}.keras"


def tensorflow_threads():
    """Threads that TensorFlow cuts one operation into; sums over the batch in a convolution's gradient depend on it.

    Those of dense layers and LSTMs do not (benchmarks/threads.py).
    """
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0) or usable_cores()


def share_cores(n_folds):
    """Let TensorFlow use no more threads than a fold's share of the cores, if it is not loaded and nobody has chosen.

    So the weights are the same bit for bit whether the folds are trained side by side or one after the other.
    """
    if "tensorflow" not in sys.modules and n_folds > 1:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, usable_cores() // n_folds)))


def train_networks(config, split, folder, quiet, executor=None):
    """Train all folds: on the workers of ``executor``, else side by side on this machine, else one after the other.

    Returns
    -------
    dict of int to pipeline.network.TrainedNetwork
        By fold; those that were trained before are read from ``folder``.
    """
    from pipeline.network import TrainedNetwork

    n = process_count(config.training.processes, len(split.folds))
    if executor is not None:
        train_folds(executor, config, split, folder, quiet)
    elif n > 1:
        with process_pool(n, tensorflow_threads()) as pool:
            train_folds(pool, config, split, folder, quiet)
    models = {k: train_network(config, split, folder, k, quiet) for k in range(len(split.folds))}
    return {k: TrainedNetwork(model, split.scalers[k], split.data.amp_names) for k, model in models.items()}


@contextlib.contextmanager
def fold_lock(folder, k):
    """Let one process at a time train fold ``k``: a worker that was given up for lost may still be training it."""
    try:
        import fcntl
    except ImportError:  # not POSIX
        yield
        return
    with open(Path(folder) / f".fold_{k}.lock", "w") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def train_alone(config, split, output, settings, k, quiet):
    """Train fold ``k`` and nothing else, beside other processes that train the others (``--fold K``).

    The first to come makes the folder; all must have the same settings. A run with ``resume`` finishes the rest.

    Raises
    ------
    InputError
        If there is no such fold, or the folder cannot be used.
    """
    if not 0 <= k < len(split.folds):
        raise InputError(f"--fold: expected 0 to {len(split.folds) - 1} (training.cv - 1), received {k}")
    end = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            with RunFolder(output, settings, resume=True, ignore=NO_RESULT) as folder:
                work, finished = folder.work, folder.finished
            break
        except FolderInUse:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
    if finished:
        logger.info("%s: this run is already finished, nothing to do", output)
        return
    prepare_tensorflow()
    with fold_lock(work, k):
        train_network(config, split, work, k, quiet)
    logger.info("fold %d: trained; when all folds are, finish the run with --resume --output %s", k, output)
