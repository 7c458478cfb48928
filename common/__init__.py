"""What every package may use: files written whole, digests, metrics, worker processes."""
