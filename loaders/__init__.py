"""Read the data sets people have into one in-memory form, `preprocessing.Dataset`.

Each layout is one function ``load(path) -> Survey`` and one row of ``FORMATS``; what all layouts share (units,
order of the wavelengths, choice of the targets, retrieval space, checks) is done once, in ``survey.finish``.
The layouts are described in data/FORMATS.md, and how to add one in CONTRIBUTING.md.
"""

import errno
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from constants import DATA_FORMATS
from loaders.challenge import detect_level_1, detect_level_2, load_level_1, load_level_2
from loaders.dataset import LayoutError, check_dataset, finish
from loaders.own import detect_own, load_own
from loaders.paper import detect_hela, detect_paper, load_hela, load_paper
from runio.log import one_line

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Format:
    """One layout: what to call it, how to know it, and how to read it.

    Attributes
    ----------
    name : str
        Value of ``data.format`` in config.yaml.
    detect : callable
        ``detect(path) -> bool``, quick, from names and signatures alone.
    load : callable
        ``load(path) -> Survey``.
    """

    name: str
    detect: Callable
    load: Callable

    @property
    def description(self):
        """What a user's file or folder must hold, for messages."""
        return DATA_FORMATS[self.name]


FORMATS = (  # in the order in which they are tried
    Format("challenge", detect_level_2, load_level_2),
    Format("abc1", detect_level_1, load_level_1),
    Format("paper", detect_paper, load_paper),
    Format("hela", detect_hela, load_hela),
    Format("hdf5", detect_own, load_own),
)


def pick_format(path, format):
    """Return the `Format` called ``format``, or with "auto" the first one that knows ``path``; else a ValueError."""
    names = ", ".join(f.name for f in FORMATS)
    if format != "auto" and format not in [f.name for f in FORMATS]:
        raise ValueError(f"data.format must be auto or one of {names}; received {format!r}")
    if not path.exists():
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise ValueError(f"{path}: no such file or folder{where}")
    if not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path}: a pipe or a device, expected a file or a folder")
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise ValueError(f"{path}: cannot be read ({os.strerror(errno.EACCES)})")
    if format != "auto":
        return next(f for f in FORMATS if f.name == format)
    for layout in FORMATS:
        if layout.detect(path):
            return layout
    known = "; ".join(f"{f.name}: {f.description}" for f in FORMATS)
    raise ValueError(f"{path}: matches no known layout. Known are {known}. See data/FORMATS.md")


def load_dataset(path, format="auto", targets=None, auxiliary=(), depth_unit="auto", width="auto"):
    """Read a data set of any known layout.

    Parameters
    ----------
    path : path-like
        A file or a folder, as its layout has it.
    format : str
        "auto", or the name of one of ``FORMATS``.
    targets : sequence of str or None
        Keys of the AMPs to learn, in the order wanted; None takes those of the data set.
    auxiliary : sequence of str
        Names of further inputs, e.g. ``["star_radius"]``.
    depth_unit : {"auto", "fraction", "percent", "ppm"}
        Unit of the depths and errors; "auto" believes the layout, and guesses only where it states none.
    width : {"auto", "full", "half"}
        What a stored bin width is; "auto" believes the layout.

    Returns
    -------
    preprocessing.Dataset
        Checked; depths as fractions, wavelengths ascending in micron, targets in retrieval space.

    Raises
    ------
    ValueError
        With one line that names the file, what was expected, what was found and how many rows are affected.
    """
    path = Path(path)
    layout = pick_format(path, format)
    try:
        survey = layout.load(path)
        data = finish(survey, targets, auxiliary, depth_unit, width)
        check_dataset(data)
    except ValueError as error:
        raise ValueError(_one_line(path, error)) from error
    except Exception as error:  # whatever a broken file provokes in h5py, csv or json, the user gets one line
        where = f"{path}: not readable as {layout.name} ({layout.description})"
        raise ValueError(one_line(f"{where}: {_one_line(path, error)}")) from error
    logger.info(
        "%s: %d spectra of %d bins, targets %s (%s)",
        path,
        *data.spectra.shape,
        ", ".join(data.amp_names),
        layout.name,
    )
    return data


def _one_line(path, error):
    text = one_line(error) or type(error).__name__
    return text if isinstance(error, LayoutError) or one_line(path) in text else one_line(f"{path}: {text}")
