"""What can be learnt from a spectrum, and whether networks look there: ``python -m studies.limit RUN_DIR``."""
