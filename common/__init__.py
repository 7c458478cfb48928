"""What every package of the project may use: files written whole, digests, metrics, worker processes."""
