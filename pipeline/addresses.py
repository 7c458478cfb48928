"""What ``--scheduler`` may say: local:N, the address of a scheduler, or the file that it left."""

import json
import re
from pathlib import Path

from runio.errors import InputError
from runio.files import read_bounded

ADDRESS = r"(\w+://)?[\w.\-\[\]:]+:\d{1,5}"
LARGEST_FILE = 1_000_000  # bytes of a scheduler's file


def parse_address(address):
    """Return ("local", N) or ("address", "tcp://host:port").

    Raises
    ------
    InputError
        If ``address`` is neither of these nor a scheduler's file.
    """
    local = re.fullmatch(r"local:(\d{1,4})", address)
    if local and int(local[1]) > 0:
        return "local", int(local[1])
    if re.fullmatch(ADDRESS, address) and not local:
        return "address", address if "://" in address else f"tcp://{address}"
    if "\0" not in address and len(address) < 4096 and Path(address).is_file():
        return "address", address_in(address)
    raise InputError(f"--scheduler: expected tcp://HOST:PORT, a scheduler file or local:N, received {address!r}")


def address_in(path):
    """Return the address that a scheduler's file (``dask scheduler --scheduler-file``) states."""
    try:
        address = json.loads(read_bounded(path, LARGEST_FILE))["address"]
        if isinstance(address, str) and re.fullmatch(ADDRESS, address):
            return address
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise InputError(f"--scheduler: {path}: expected the file of a scheduler, JSON with an address tcp://HOST:PORT")
