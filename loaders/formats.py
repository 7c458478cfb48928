"""The table of known layouts, and which of them a path holds."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from constants import DATA_FORMATS
from loaders.challenge import detect_level_1, detect_level_2, load_level_1, load_level_2
from loaders.hela import detect_hela, load_hela
from loaders.own import detect_own, load_own
from loaders.paper import detect_paper, load_paper


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
