"""The folds of a run: load and split its data, and train one network for each fold, here or on other processes.

The results folder and the data set have to be on a file system that all processes see under the same path.
"""

import concurrent.futures
import contextlib
import functools
import gc
import json
import logging
import os
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.files import lock_file
from common.processes import process_count, process_pool, usable_cores
from constants import Stream, stream
from perturbation.arguments import abundance_cuts, find_amps
from runio import log
from runio.config import DataConfig, build_config
from runio.folder import FolderInUse, RunFolder
from runio.log import InputError, as_input_error
from runio.results import network_file, read_history

logger = logging.getLogger(__name__)

NO_RESULT = (  # settings that change no number; a data set is recognised by its digest, not its path
    "output", "command", "training.processes", "sensitivity.chunk_size", "data.path"
)  # fmt: skip
THREADS_MATTER = ("cnn", "hybrid")  # convolutions: their gradient is summed in as many parts as there are threads
LOOK_EVERY = 0.5  # seconds between two looks at the progress of other processes
LOCK_PATIENCE = 120  # seconds that the tasks of a job array wait for each other to make the folder


@dataclass(frozen=True)
class Split:
    """A data set (`preprocessing.Dataset`), the rows (n_test,) to test on, and a list of `preprocessing.Fold`."""

    data: object
    test: object
    folds: list


class EpochWatch:
    """Counts the epochs of ``folds`` as ``history_<fold>.csv`` grows in ``folder``, and logs each as it ends.

    A fold that does not stop early has ``max_epochs``. ``stage`` (a `runio.log.Stages`) is updated after each epoch.
    """

    def __init__(self, folder, folds, max_epochs, stage=None):
        self.paths = {k: Path(folder) / f"history_{k}.csv" for k in folds}
        self.max_epochs, self.stage = max_epochs, stage
        self.ended = {k for k in folds if network_file(folder, k).is_file()}
        self.seen = dict.fromkeys(folds, 0)
        for k, _ in self._new_rows():
            self.seen[k] += 1
        if stage:
            stage.found(self.part())

    def _new_rows(self):
        """Yield (fold, row of its history) of the epochs that ended since the last look."""
        for k, path in self.paths.items():
            with contextlib.suppress(FileNotFoundError, ValueError):  # damaged: the training says so, and goes back
                history = read_history(path)
                rows = np.column_stack(list(history.values()))[self.seen[k] :].tolist()
                yield from ((k, dict(zip(history, row))) for row in rows)

    def expected_epochs(self):
        """Return how many epochs all folds will take: unfinished ones as many as the finished ones on average."""
        ended = [self.seen[k] for k in self.ended]
        usual = sum(ended) / len(ended) if ended else self.max_epochs
        return round(sum(ended) + sum(max(usual, n) for k, n in self.seen.items() if k not in self.ended))

    def part(self):
        """Return which part of the training is done, from 0 to 1."""
        return sum(self.seen.values()) / max(self.expected_epochs(), 1)

    def look(self):
        """Log the epochs that ended since the last look, and move the progress bar."""
        row = None
        for k, row in self._new_rows():
            logger.debug("fold %d epoch %d: %s", k, self.seen[k], {**row, "epoch": self.seen[k]})
            self.seen[k] += 1
        if row and self.stage:
            words = f"epoch {sum(self.seen.values())} of about {self.expected_epochs()}"
            self.stage.done(self.part(), f"{words}, validation loss {row['val_loss']:.4g}")

    def end(self, k):
        """Say that fold ``k`` is trained."""
        self.look()
        self.ended.add(k)


def data_path(config):
    """Return the path of the data set: relative to the present folder; the shipped one is found from anywhere."""
    shipped = config.data.path == DataConfig().path and not os.path.exists(config.data.path)
    return str(Path(__file__).parents[1] / config.data.path) if shipped else config.data.path


def load_split(config):
    """Load the data set of a run and split it into a `Split`; what cannot be used raises an `InputError`."""
    from loaders import load_dataset
    from preprocessing import Fold, split_folds, split_test, take

    chosen, training, path = config.data, config.training, data_path(config)
    with as_input_error():
        data = load_dataset(path, chosen.format, chosen.targets, chosen.auxiliary, chosen.depth_unit, chosen.width)
        data = take(data, chosen.size)
        rest, test = split_test(data, chosen.test_fraction, config.seed)
        if config.sensitivity.enabled:
            empty_rows(config.sensitivity.abundance, data.amp_names, data.amps[test])  # refuses what is no cut
        folds = split_folds(rest, training.cv, training.folds, chosen.valid_fraction, config.seed)
        return Split(data, test, [Fold.of(data, train, valid) for train, valid in folds])


def empty_rows(abundance, names, amps):
    """Return {column: range of the truth} of the AMPs whose abundance cut leaves none of ``amps`` (N, n_amps).

    An unknown AMP, or cuts that leave no spectrum for any AMP, raise a ValueError.
    """
    cuts = abundance_cuts(abundance, find_amps(names, len(names)))
    inside = {k: (low < amps[:, k]) & (amps[:, k] < high) for k, (low, high) in cuts.items()}
    empty = {k: (amps[:, k].min(), amps[:, k].max()) for k, rows in inside.items() if not rows.any()}
    if len(empty) == len(names):
        raise ValueError("sensitivity.abundance: expected some test spectra in the range, received none for any AMP")
    return empty


def prepare_tensorflow():
    """Import TensorFlow, quietly, and let the same seed give the same weights."""
    gc.disable()  # looking for garbage among its modules would be a quarter of the time
    try:
        with log.quiet_stderr():
            import tensorflow as tf
    finally:
        gc.enable()
    tf.config.experimental.enable_op_determinism()


def network_builder(config, data, fold, k):
    """Return a function that builds the untrained network of a fold k."""
    from models import build_model
    from preprocessing import first_layer

    name = config.model.name
    shape = data.spectra.shape[1], len(data.amp_table), 0 if data.auxiliary is None else data.auxiliary.shape[1]
    layers = {**vars(getattr(config.model, name)), "whitening": first_layer(data, fold, config.model.whiten)}
    if layers["activation"] == "auto" and name == "mlp" and data.noisy and layers["whitening"] is None:
        layers["activation"] = "relu"  # measured by studies.noisy_data
    return functools.partial(build_model, name, *shape, **layers, seed=stream(config.seed, Stream.WEIGHTS, k))


def train_network(config, split, folder, k, on_epoch=lambda row: None, until=None):
    """Train, continue or load the network of fold ``k`` at its best epoch; see `pipeline.training.train_fold`."""
    from pipeline import training

    data, fold = split.data, split.folds[k]
    n_train, n_valid = len(fold.train), len(fold.valid)
    logger.info("fold %d: training the %s on %d spectra, validating on %d", k, config.model.name, n_train, n_valid)
    build = network_builder(config, data, fold, k)
    with open(Path(folder) / f".fold_{k}.lock", "w") as file:  # a worker that is believed lost may still be training it
        try:
            lock_file(file)
        except BlockingIOError:
            logger.warning("fold %d: another process is still training it; waiting until that ends", k)
            lock_file(file, wait=True)
        return training.train_fold(build, data, fold, config.training, config.seed, folder, k, on_epoch, until)


@dataclass(frozen=True)
class FoldTask:
    """All that a worker needs to train a fold."""

    settings: str  # of the run, as JSON
    data_sha256: str
    folder: str
    fold: int
    threads: int  # of TensorFlow in the process that asks
    until: int | None = None  # epochs after which another task goes on

    @property
    def task_name(self):
        """What a message calls this task."""
        return f"fold {self.fold}"


def train_folds(executor, config, split, folder, watch, n_processes=1):
    """Train all folds that are not yet trained as tasks of ``executor``; their networks appear in ``folder``.

    Five folds on two processes: the fifth is trained in two halves, first and last, so that no process idles meanwhile.
    A fold that fails, or whose network does not appear, raises a RuntimeError.
    """
    tree = config.to_dict()
    tree["data"]["path"] = os.path.abspath(data_path(config))
    settings, folder = json.dumps(tree), Path(folder).resolve()
    missing = [k for k in range(len(split.folds)) if not network_file(folder, k).is_file()]
    common = settings, split.data.sha256(), str(folder)
    tasks = [FoldTask(*common, k, tensorflow_threads()) for k in missing]
    n_halved = len(tasks) % n_processes
    halves = [replace(task, until=config.training.epochs // 2) for task in tasks[len(tasks) - n_halved :]]
    running = {executor.submit(train_on_worker, task): task for task in [*halves, *tasks[: len(tasks) - n_halved]]}
    if tasks:
        logger.info("folds %s: training side by side", ", ".join(map(str, missing)))
    while running:
        ended, _ = concurrent.futures.wait(running, LOOK_EVERY, return_when=concurrent.futures.FIRST_COMPLETED)
        watch.look()
        for future in ended:
            task = running.pop(future)
            warning, path = future.result(), network_file(folder, task.fold)
            if warning:
                logger.warning("%s: %s", task.task_name, warning)
            if task.until is not None:
                rest = replace(task, until=None)
                running[executor.submit(train_on_worker, rest)] = rest
            elif not path.is_file():
                raise RuntimeError(f"{path}: trained, but not here; expected an --output that all workers see")
            else:
                watch.end(task.fold)


def train_on_worker(task):
    """Train one fold in a worker process; return a warning for the user, or None."""
    prepare_tensorflow()
    config = build_config(json.loads(task.settings))
    if not Path(task.folder).is_dir():
        raise RuntimeError(f"{task.folder}: not on this worker; expected an --output that all workers see")
    split, sha256 = _load_once(task.settings)
    if sha256 != task.data_sha256:
        raise InputError(f"{config.data.path}: another data set on {os.uname().nodename} than here")
    train_network(config, split, task.folder, task.fold, until=task.until)
    return thread_warning(config.model.name, tensorflow_threads(), task.threads)


def thread_warning(network, there, here):
    """Return a warning of a fold trained with ``there`` threads of TensorFlow instead of ``here``; None: no effect."""
    if there != here and network in THREADS_MATTER:
        return f"trained with {there} threads of TensorFlow, here it uses {here}: the last digits may differ"


@functools.lru_cache(maxsize=1)
def _load_once(settings):
    split = load_split(build_config(json.loads(settings)))
    return split, split.data.sha256()


def tensorflow_threads():
    """Return the number of threads of a TensorFlow operation; a cnn's weights depend on it in their last digits."""
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0) or usable_cores()


def share_cores(n_folds):
    """Limit TensorFlow's threads to one fold's share of the cores, unless it is loaded or the user has set a number.

    The weights are then the same bit for bit whether folds are trained side by side or one after the other.
    """
    if "tensorflow" not in sys.modules and n_folds > 1:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, usable_cores() // n_folds)))


def train_networks(config, split, folder, stage=None, executor=None):
    """Return {fold: TrainedNetwork}: trained on ``executor``, else side by side on this machine, else one by one.

    Folds that were trained before are read from ``folder``. ``stage`` (a `runio.log.Stages`) follows the progress.
    """
    from pipeline.network import TrainedNetwork
    from pipeline.training import rate_note

    n_folds = len(split.folds)
    logger.info("training: %s", rate_note(config.training, len(split.folds[0].train)))
    if config.sensitivity.enabled:
        truth = split.data.amps[split.test]
        for k, span in empty_rows(config.sensitivity.abundance, split.data.amp_names, truth).items():
            logger.warning(
                "sensitivity.abundance: the test spectra have %s from %.3g to %.3g, none is in the range: "
                "its row of the published map stays empty", split.data.amp_names[k], *span,
            )  # fmt: skip
    watch = EpochWatch(folder, range(n_folds), config.training.epochs, stage)
    n = process_count(config.training.processes, n_folds)
    if executor is not None:
        train_folds(executor, config, split, folder, watch)
    elif n > 1:
        with process_pool(n, tensorflow_threads()) as pool:
            train_folds(pool, config, split, folder, watch, n)
    networks = {}
    for k, fold in enumerate(split.folds):
        model = train_network(config, split, folder, k, lambda row: watch.look())
        networks[k] = TrainedNetwork(model, fold.scaler, split.data.amp_names)
        watch.end(k)
    return networks


def train_alone(config, split, output, settings, k, stage):
    """Train fold ``k`` alone, beside other processes that train the other folds; a run with ``--resume`` does the rest.

    A fold that does not exist, or a folder that cannot be used, raises an `InputError`.
    """
    if not 0 <= k < len(split.folds):
        raise InputError(f"--fold: expected 0 to {len(split.folds) - 1} (training.cv - 1), received {k}")
    end = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            with RunFolder(output, settings, resume=True, ignore=NO_RESULT) as folder:
                break
        except FolderInUse:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
    if folder.finished:
        logger.info("%s: this run is already finished, nothing to do", output)
        return
    prepare_tensorflow()
    with stage("training"):
        watch = EpochWatch(folder.work, [k], config.training.epochs, stage)
        train_network(config, split, folder.work, k, lambda row: watch.look())
    logger.info("fold %d: trained; when all folds are, finish the run with --resume --output %s", k, output)
