"""Files that are written whole or not at all, read within bounds, and recognised by their content."""

import errno
import hashlib
import itertools
import os
import re
import stat
from contextlib import contextmanager
from math import prod
from pathlib import Path

try:
    import fcntl
except ImportError:  # not POSIX
    fcntl = None

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)  # what file systems without flock answer
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MAX_OBJECTS = 20_000  # groups and arrays of an HDF5 file that is checked


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


@contextmanager
def hdf5_written_whole(path):
    """Yield an open HDF5 file that is kept in memory, and written whole to ``path`` if the block succeeds.

    HDF5 itself must not meet a full disk: it would not close the file, and crash when Python ends.
    """
    import h5py

    with h5py.File(path, "w", driver="core", backing_store=False) as file:
        yield file
        file.flush()
        content = file.id.get_file_image()
    with written_whole(path) as part:
        part.write_bytes(content)


def full_disk_message(error, path, advice="repeat the command"):
    """Say what to do if an error, or one that led to it, is that of a full disk; "" if it is another.

    Libraries that meet a full disk name neither the file nor the reason; ``path`` is what was to be written.
    """
    while isinstance(error, Exception):
        stated = re.search(r"errno = (\d+)", str(error))  # HDF5
        number = getattr(error, "errno", None) or (int(stated[1]) if stated else None)
        if number in NO_ROOM:
            return f"{path}: {os.strerror(number)}; make room there and {advice}"
        error = error.__cause__ or error.__context__
    return ""


def csv_text(text):
    """Return text for a CSV cell that no spreadsheet takes for a formula: one that begins like a formula is quoted."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


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

    A larger file, or another kind of file, raises a ValueError whose message does not name it.
    """
    kind = os.stat(path).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # a folder cannot be opened
        raise ValueError("a pipe or a device, expected a file")
    with open(path, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"more than {limit // 1000} kB")
    return content


def lock_file(file, wait=False):
    """Lock an open file until it is closed; False where that cannot be, a BlockingIOError if another process has it."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


@contextmanager
def opened_hdf5(path):
    """Open an HDF5 file for reading once all of it has been checked; a ValueError does not name the file.

    Content that lies elsewhere or was never written is refused, and no other file is opened.
    """
    import h5py

    n_links = itertools.count(1)

    def wrong_link(name, link):  # raised inside the visit, an error would be lost
        if not isinstance(link, h5py.HardLink):
            target = f"{getattr(link, 'filename', '')} {link.path}".strip()
            return f"/{name} is a link to {target}, expected its values in this place"
        return f"expected at most {MAX_OBJECTS} groups and arrays" if next(n_links) > MAX_OBJECTS else None

    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("a pipe or a device, expected a file")
    with h5py.File(path) as file:
        problem = file.visititems_links(wrong_link) or file.visititems(_wrong_array)
        if problem:
            raise ValueError(problem)
        yield file


def _wrong_array(name, array):
    """Say of an array if its values lie in other files, or a part of it was never written (it would read as 0)."""
    if not hasattr(array, "chunks"):  # a group
        return None
    if array.external or array.is_virtual:
        return f"/{name} lies in other files, expected its values in this one"
    if array.chunks is None:
        written = not array.size or array.id.get_storage_size() > 0
    else:
        written = array.id.get_num_chunks() >= prod(-(-n // size) for n, size in zip(array.shape, array.chunks))
    return None if written else f"/{name} has shape {array.shape} but was never written, or only in part"
