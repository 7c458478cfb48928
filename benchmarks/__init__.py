"""What the software costs in time and memory: each ``python -m benchmarks.NAME``, by hand."""
