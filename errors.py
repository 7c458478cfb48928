"""The one exception that means: the user's input cannot be used."""


class InputError(ValueError):
    """Bad input; the message is one line: what, expected, received. ``runfile.py`` exits with status 2."""
