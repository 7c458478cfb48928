"""The one exception that means: the user's input cannot be used."""

import contextlib


class InputError(ValueError):
    """Bad input; the message is one line: what, expected, received. ``runfile.py`` exits with status 2."""


@contextlib.contextmanager
def as_input_error():
    """Turn what a library refuses, or cannot open, while it reads the user's input into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
