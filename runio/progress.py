"""The stages of a run: how long each took, and one progress bar for all of them."""

import contextlib
import time

from tqdm import tqdm

SHARES = {"training": 87, "answers and maps": 8, "figures": 5}  # % of the time of the README's first command
BAR = "{desc} |{bar}| {percentage:.0f}%, {elapsed} gone, about {remaining} left"


class Stages:
    """Times the stages of a run, for the line at its end, and shows how far the whole of it is.

    The stages named in ``SHARES`` fill the bar. Time left follows from the part that is done: right within a few per
    cent as long as the stages take their usual shares.

    Parameters
    ----------
    quiet : bool
        Show no bar; nor is one shown where stderr is not a terminal.
    shown : sequence of str
        The stages of ``SHARES`` that this run has.
    """

    def __init__(self, quiet=False, shown=tuple(SHARES)):
        self.seconds = {}
        self._quiet, self._shares = quiet, {name: SHARES[name] for name in shown}
        self._bar, self._name = None, None

    @contextlib.contextmanager
    def __call__(self, name):
        """Add the time of the block to the stage called ``name``."""
        start, self._name = time.perf_counter(), name
        self.done(0.0)
        try:
            yield
            self.done(1.0)
        except BaseException:
            self.close()
            raise
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        if name == list(self._shares)[-1]:
            self.close()

    def done(self, part, words=""):
        """Say that a part of the present stage is done.

        Parameters
        ----------
        part : float
            From 0 to 1.
        words : str
            What to write beside the stage's name.
        """
        if self._name not in self._shares:
            return
        if self._bar is None:
            self._bar = tqdm(total=sum(self._shares.values()), bar_format=BAR, smoothing=0, disable=self._quiet or None)
        before = list(self._shares).index(self._name)
        self._bar.set_description_str(f"{self._name}{', ' if words else ''}{words}", refresh=False)
        self._bar.n = sum(list(self._shares.values())[:before]) + part * self._shares[self._name]
        self._bar.refresh()

    def found(self, part):
        """Say that a part of the present stage was done by an earlier run: it tells nothing of the pace."""
        if self._bar is not None:
            self._bar.initial = part * self._shares[self._name]
        self.done(part)

    def close(self):
        """Leave the bar as it is, whatever comes next on the screen."""
        if self._bar is not None:
            self._bar.close()

    def __str__(self):
        return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
