"""The engine behind ``sensitivity.py``: NumPy and ``constants`` only."""
