"""What an instrument's zero point, a tilt, and the loss of one bin would do to the answers for one observation."""

from dataclasses import dataclass

import numpy as np

from sensitivity import offsets, tilt

OFFSET = 5e-5  # 50 ppm, depth
TILT = 5e-5  # 50 ppm at either end
LOST = 10.0  # times its error: a bin that is as good as taken away


@dataclass(frozen=True)
class Systematics:
    """Changes of the answers along directions that move many bins together.

    Attributes
    ----------
    names : tuple of str
        Of the K directions.
    change : ndarray (n_amps, K)
        Root mean square change for one standard deviation along the direction, in the AMPs' retrieval-space units; the
        sign is that of the change when the depths are pushed up (a tilt: redder bins deeper).
    """

    names: tuple
    change: np.ndarray


@dataclass(frozen=True)
class Removals:
    """Changes of the answers when one bin is taken away.

    Attributes
    ----------
    spread : ndarray (n_amps, n_bins)
        Root mean square change when the bin is redrawn within ten times its error.
    shift : ndarray (n_amps, n_bins) or None
        Change when the bin is replaced by what the others lead one to expect; None where that is not known.
    """

    spread: np.ndarray
    shift: np.ndarray | None


def directions(seen):
    """Return names and directions (K, n_bins): the zero point of each instrument, or of all bins, and a tilt.

    Parameters
    ----------
    seen : loaders.observation.Observation
    """
    ppm, instruments = f"{OFFSET * 1e6:g} ppm", seen.instrument
    if instruments is None or len(np.unique(instruments)) < 2:
        names, rows = [f"{ppm} on all bins"], [np.full((1, len(seen.depth)), OFFSET)]
    else:
        names = [f"{ppm} on {name or 'the bins without a name'}" for name in np.unique(instruments)]
        rows = [offsets(instruments, OFFSET)]
    if len(seen.wavelength) > 1:
        names.append(f"tilt of {TILT * 1e6:g} ppm at the ends")
        rows.append(tilt(seen.wavelength, TILT))
    return tuple(names), np.concatenate(rows)


def move_together(network, seen, auxiliary=None):
    """Move bins together and see what the answers do.

    Parameters
    ----------
    network : pipeline.network.TrainedNetwork
    seen : loaders.observation.Observation
        On the bins of the network.
    auxiliary : ndarray (n_auxiliary,), optional

    Returns
    -------
    Systematics
    """
    names, moved = directions(seen)
    found = network.sensitivity(seen.depth[None], None, auxiliary=auxiliary, directions=moved)
    return Systematics(names, np.sign(found.slope) * np.sqrt(found.mean))


def take_away(network, seen, expected=None, auxiliary=None):
    """Take single bins away and see what the answers do; as `move_together`.

    Parameters
    ----------
    expected : ndarray (n_bins,), optional
        What the other bins lead one to expect of each, depth.

    Returns
    -------
    Removals
    """
    found = network.sensitivity(seen.depth[None], LOST * seen.error[None], auxiliary=auxiliary, scheme="single")
    shift = None
    if expected is not None:
        n_bins = len(seen.depth)
        replaced = np.where(np.eye(n_bins, dtype=bool), expected, seen.depth)  # row b: bin b replaced
        answers = network.predict(np.concatenate([seen.depth[None], replaced]), auxiliary)
        shift = (answers[1:] - answers[0]).T
    return Removals(np.sqrt(found.mean), shift)
