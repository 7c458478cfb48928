"""How far the training of all folds is, read from the histories that the folds write, in whatever process."""

import logging
from pathlib import Path

from runio.results import read_history

logger = logging.getLogger(__name__)


class EpochWatch:
    """Counts the epochs of all folds, and logs each as it ends.

    Parameters
    ----------
    folder : path-like
        Of the run: ``history_<fold>.csv`` grows by a row per epoch.
    folds : iterable of int
        Those to count.
    most : int
        Epochs of a fold that does not stop early.
    stage : runio.progress.Stages, optional
        Is told of each epoch.
    """

    def __init__(self, folder, folds, most, stage=None):
        self.paths = {k: Path(folder) / f"history_{k}.csv" for k in folds}
        self.most, self.stage = most, stage
        self.seen = dict.fromkeys(self.paths, 0)
        self.ended = {k for k in self.paths if (Path(folder) / f"model_{k}.keras").is_file()}
        for k, history in self._histories():
            self.seen[k] = len(history.get("epoch", ()))
        if stage:
            stage.found(self.part())

    def _histories(self):
        for k, path in self.paths.items():
            if path.is_file():
                try:
                    history = read_history(path)
                except ValueError:  # damaged: the training says so, and begins the fold again
                    continue
                yield k, history

    def expected_epochs(self):
        """Return how many epochs all folds will take: those under way as many as the others did in the mean."""
        ended = [self.seen[k] for k in self.ended]
        usual = sum(ended) / len(ended) if ended else self.most
        return round(sum(ended) + sum(max(usual, n) for k, n in self.seen.items() if k not in self.ended))

    def part(self):
        """Return which part of the training is done, from 0 to 1."""
        return sum(self.seen.values()) / max(self.expected_epochs(), 1)

    def look(self):
        """Log the epochs that ended since the last look, and move the progress bar."""
        last = {}
        for k, history in self._histories():
            for epoch in range(self.seen[k], len(history.get("epoch", ()))):
                last = {name: float(column[epoch]) for name, column in history.items()}
                logger.debug("fold %d epoch %d: %s", k, epoch, {**last, "epoch": epoch})
                self.seen[k] = epoch + 1
        if last and self.stage:
            words = f"epoch {sum(self.seen.values())} of about {self.expected_epochs()}"
            self.stage.done(self.part(), f"{words}, validation loss {last['val_loss']:.4g}")

    def end(self, k):
        """Say that fold ``k`` is trained."""
        self.look()
        self.ended.add(k)
