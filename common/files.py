"""Files that are written whole or not at all, and read within bounds."""

import errno
import os
import stat
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path):
    """Yield a path beside ``path`` to write to; move it into place only when the block ends well.

    A block that dies leaves the old file, or none, and no half-written one.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_bounded(path, limit):
    """Return the bytes of a regular file of at most ``limit`` bytes; a pipe or a device is not waited for.

    Raises
    ------
    ValueError
        If it is larger, or not a regular file. The message does not name the file.
    OSError
        If it cannot be read.
    """
    kind = os.stat(path).st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(kind):
        raise ValueError("a pipe or a device, expected a file")
    with open(path, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"more than {limit // 1000} kB")
    return content
