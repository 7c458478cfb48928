"""The one exception that means: the user's input cannot be used. And how any text is brought to one line."""

import contextlib

LONGEST = 900  # letters of a message


def one_line(text, limit=LONGEST):
    """Return a text as one line that a terminal can be given: no control characters, cut in the middle if too long."""
    text = str(text)
    if len(text) > 10 * limit:  # before work is put into it
        text = f"{text[: 5 * limit]} {text[-5 * limit :]}"
    text = printable(" ".join(text.split()))
    if len(text) > limit:
        text = f"{text[: limit * 2 // 3]} ... {text[5 - limit // 3 :]}"
    return text


def printable(text, keep=""):
    """Return a text with its control characters, and what is no Unicode, written as escapes, but for those to keep."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


class InputError(ValueError):
    """Bad input; the message is one line: what, expected, received. ``runfile.py`` exits with status 2."""

    def __init__(self, message=""):
        super().__init__(one_line(message))


@contextlib.contextmanager
def as_input_error():
    """Turn what a library refuses, or cannot open, while it reads the user's input into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
