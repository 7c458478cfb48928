"""The command line of a study."""

import argparse


def study_parser(name, description):
    """Return a parser of arguments for ``python -m studies.<name>``, whose help keeps the lines of the description."""
    return argparse.ArgumentParser(
        prog=f"python -m studies.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
