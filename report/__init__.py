"""A finished run, judged, drawn and written; ``python -m report RUN_DIR`` draws it again."""
