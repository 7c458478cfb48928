"""The engine behind ``sensitivity.py``. It imports NumPy and itself alone."""

__version__ = "0.3.0"
