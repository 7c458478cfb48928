"""The report of a finished run: verdicts, figures, pages; ``python -m report RUN_DIR`` writes it again."""
