"""The command line of a study."""

import argparse


def study_parser(name, description):
    """Return a parser of arguments for ``python -m studies.<name>`` (None: of all), whose help keeps the lines."""
    return argparse.ArgumentParser(
        prog=".".join(filter(None, ("python -m studies", name))),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
