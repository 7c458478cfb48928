"""Simulate a survey of planets: `python -m simulation --help`."""

import sys

from simulation.survey import main

if __name__ == "__main__":
    sys.exit(main())
