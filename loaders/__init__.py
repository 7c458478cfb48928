"""Read the data sets that people have into one in-memory form, `preprocessing.Dataset`.

Each layout is a function ``load(path) -> Survey`` and a row of ``FORMATS``. What all layouts share (units, order of the
wavelengths, choice of the targets, retrieval space, checks) is done once, in ``dataset.to_dataset``. data/FORMATS.md
describes the layouts, CONTRIBUTING.md how to add one.
"""

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from constants import DATA_FORMATS
from loaders.challenge import detect_level_1, detect_level_2, load_level_1, load_level_2
from loaders.dataset import to_dataset
from loaders.own import is_hdf5, load_own
from loaders.paper import detect_hela, detect_paper, load_hela, load_paper
from runio.log import InputError, one_line

logger = logging.getLogger(__name__)


class Format(NamedTuple):
    """One layout: its name in ``data.format``, how to recognise it (quickly, without reading it) and how to read it."""

    name: str
    detect: Callable  # detect(path) -> bool
    load: Callable  # load(path) -> Survey


FORMATS = (  # in the order in which they are tried
    Format("challenge", detect_level_2, load_level_2),
    Format("abc1", detect_level_1, load_level_1),
    Format("paper", detect_paper, load_paper),
    Format("hela", detect_hela, load_hela),
    Format("hdf5", is_hdf5, load_own),  # any HDF5 file: the error then names what is missing
)


def _pick_format(path, format):
    """Return the `Format` called ``format``, or with "auto" the first one that recognises ``path``."""
    names = [layout.name for layout in FORMATS]
    if format not in ("auto", *names):
        raise InputError(f"data.format must be auto or one of {', '.join(names)}; received {format!r}")
    if not path.exists():
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise InputError(f"{path}: no such file or folder{where}")
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: a pipe or a device, expected a file or a folder")
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise InputError(f"{path}: cannot be read ({os.strerror(errno.EACCES)})")
    for layout in FORMATS:
        if layout.name == format or (format == "auto" and layout.detect(path)):
            return layout
    known = "; ".join(f"{name}: {DATA_FORMATS[name]}" for name in names)
    raise InputError(f"{path}: matches no known layout. Known are {known}. See data/FORMATS.md")


def load_dataset(path, format="auto", targets=None, auxiliary=(), depth_unit="auto", width="auto"):
    """Read a data set of any known layout.

    Parameters
    ----------
    path : path-like
        A file or a folder, depending on the layout.
    format : str
        "auto", or the name of one of ``FORMATS``.
    targets : sequence of str or None
        Keys of the AMPs to learn, in the order wanted; None takes those of the data set.
    auxiliary : sequence of str
        Names of further inputs, e.g. ``["star_radius"]``.
    depth_unit : {"auto", "fraction", "percent", "ppm"}
        Unit of the depths and errors; "auto" takes what the layout states, and guesses only if it states none.
    width : {"auto", "full", "half"}
        Whether the stored bin widths are full or half widths; "auto" takes what the layout states.

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
    layout = _pick_format(path, format)
    try:
        data = to_dataset(layout.load(path), targets, auxiliary, depth_unit, width)
    except InputError:
        raise
    except Exception as error:  # of h5py, csv or json, which a broken file can cause: the user gets one line
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{path}: not readable as {layout.name} ({DATA_FORMATS[layout.name]}): {reason}") from error
    names = ", ".join(data.amp_names)
    logger.info("%s: %d spectra of %d bins, targets %s (%s)", path, *data.spectra.shape, names, layout.name)
    return data
