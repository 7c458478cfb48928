"""Finished maps of single spectra on disk, so that a sensitivity test that was killed goes on where it stopped.

One file, only ever appended to: a header that says whose maps these are, then one record, with a checksum, for each
spectrum. A truncated last record is dropped on reopening.
"""

import hashlib
import os
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

MAGIC = b"peeking maps 1\n"
MAX_ARRAYS = 4  # of one spectrum


class MapStore(Mapping, AbstractContextManager):
    """A mapping of int to ndarray of shape (k, n_AMPs, n_bins) that lives in a file, for ``sensitivity_map(store=)``.

    Random repeats keep k = 2 arrays of a spectrum, quadrature 4; the first map that is stored decides. Memory
    holds only the place of each map in the file, 16 bytes for each spectrum of a survey. Use as a context manager.

    Parameters
    ----------
    path : path-like
        The file; created if there is none.
    n_amps, n_bins : int
        Rows and columns of a map; give the number of ``directions`` for ``n_bins`` where there are any.
    key : str
        What the maps depend on. A file of maps with another key, or another shape, is emptied; a file of something
        else raises a ValueError.
    """

    def __init__(self, path, n_amps, n_bins, key=""):
        self.path, self.key = Path(path), key
        self._settle((2, n_amps, n_bins))
        self._places = np.zeros(0, np.int64)  # record of each row, counted from 1; 0: not there
        self._records = 0
        self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 - closed by close()
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def _settle(self, shape):
        """Decide on the shape of a spectrum's arrays, and so on the header and the records."""
        self.shape = shape
        self._record = np.dtype([("row", "<i8"), ("maps", "<f8", shape), ("checksum", "<u4")])
        self._header = MAGIC + hashlib.sha256(f"{shape} {self.key}".encode()).digest()

    def _read(self):
        """Find the records of an earlier run; drop a truncated one, and all records of another key or shape."""
        self._file.seek(0)
        header = self._file.read(len(self._header))
        if not (header.startswith(MAGIC) or MAGIC.startswith(header)):
            raise ValueError(f"{self.path}: expected a file of stored maps, or a new one, received something else")
        for n_arrays in range(2, MAX_ARRAYS + 1):
            self._settle((n_arrays, *self.shape[1:]))
            if header == self._header:
                break
        else:
            self._begin(2)
            return
        while self._is_whole(record := self._file.read(self._record.itemsize)):
            self._note(int(np.frombuffer(record, self._record)["row"][0]))
        self._file.truncate(self._place(self._records))

    def _begin(self, n_arrays):
        """Empty the file, for maps of that many arrays."""
        self._settle((n_arrays, *self.shape[1:]))
        self._file.truncate(0)
        self._append(self._header)

    def _append(self, data):
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]

    def _place(self, record):
        """Return where a record of that number, from 0, begins in the file."""
        return len(self._header) + record * self._record.itemsize

    def _is_whole(self, record):
        length = self._record.itemsize
        return len(record) == length and zlib.crc32(record[:-4]) == int.from_bytes(record[-4:], "little")

    def _note(self, row):
        """Remember that the next record is that of ``row``; a later record replaces an earlier one."""
        if row >= len(self._places):
            self._places = np.concatenate([self._places, np.zeros(row + 1 + len(self._places) // 2, np.int64)])
        self._records += 1
        self._places[row] = self._records

    def update(self, items):
        """Add many maps in one write, or none of them."""
        items = list(items.items() if hasattr(items, "items") else items)
        n_arrays = len(items[0][1]) if items else self.shape[0]
        if n_arrays != self.shape[0] and not self._records:
            self._begin(n_arrays)
        table = np.zeros(len(items), self._record)
        for line, (row, maps) in zip(table, items, strict=True):
            if row < 0:
                raise ValueError(f"row: expected at least 0, received {row}")
            line["row"], line["maps"] = row, maps
            line["checksum"] = zlib.crc32(line.tobytes()[:-4])
        try:
            self._append(table.tobytes())
        except OSError:  # the disk is full
            self._file.truncate(self._place(self._records))
            raise
        for row, _ in items:
            self._note(row)

    def __setitem__(self, row, maps):
        self.update([(row, maps)])

    def __getitem__(self, row):
        if row not in self:
            raise KeyError(row)
        record = os.pread(self._file.fileno(), self._record.itemsize, self._place(int(self._places[row]) - 1))
        if not self._is_whole(record):
            raise OSError(f"{self.path}: the map of spectrum {row} has changed on disk")
        return np.frombuffer(record, self._record)["maps"][0].astype(np.float64)

    def __contains__(self, row):
        return 0 <= row < len(self._places) and self._places[row] > 0

    def __iter__(self):
        return iter(np.flatnonzero(self._places).tolist())

    def __len__(self):
        return np.count_nonzero(self._places)

    def close(self):
        """Close the file and leave it where it is."""
        self._file.close()

    def delete(self):
        """Close the file and delete it."""
        self.close()
        self.path.unlink(missing_ok=True)

    def __exit__(self, *_):
        self.close()
