"""Files that are written whole or not at all, read within bounds, and recognised by their content."""

import errno
import hashlib
import os
import stat
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path):
    """Yield a path beside ``path`` to write to, with the same suffix; move it into place only if the block succeeds.

    A process that dies in the block leaves the old file, or none, but never half of the new one.
    """
    path = Path(path)
    part = path.with_name(f".part{os.getpid()}-{path.name}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def digest(*paths):
    """SHA-256 of the content of a file, or of several one after the other, as hexadecimal text."""
    found = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    return found.hexdigest()


def read_bounded(path, limit):
    """Return the bytes of a regular file of at most ``limit`` bytes; never wait for a pipe or read a device.

    Raises
    ------
    ValueError
        If the file is larger, or not a regular file. The message does not name the file.
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
