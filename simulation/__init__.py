"""From the parameters of a planet to its transmission spectrum (`python -m simulation --help`)."""
