"""Time and memory of loading a challenge-layout data set, first and from the cached copy.

    python -m benchmarks.bench_loading --planets 100000

Each load runs in a process of its own, so that its peak memory is its own. Writing the made-up data (one HDF5 group
per planet, scrambled keys) takes about as long as everything else.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import ROOT, benchmark_parser

FIRST_LIMIT, CACHED_LIMIT, MEMORY_LIMIT = 60.0, 2.0, 1.5  # s, s, GB: the aim for 100,000 planets


def load(folder):
    """Load once; print seconds on the wall and of the processor, and peak memory in GB."""
    from loaders import load_dataset

    start = time.perf_counter()
    data = load_dataset(folder, auxiliary=["star_radius"])
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB on Linux
    print(len(data), f"{seconds:.2f}", f"{time.process_time():.2f}", f"{peak:.3f}")


def main():
    parser = benchmark_parser("bench_loading", __doc__)
    parser.add_argument("--planets", type=int, default=100_000)
    parser.add_argument("--bins", type=int, default=52)
    parser.add_argument("--load", help="folder to load once, in this process")
    arguments = parser.parse_args()
    if arguments.load:
        return load(arguments.load)
    sys.path.append(str(ROOT / "tests"))
    import layouts

    with tempfile.TemporaryDirectory() as folder:
        truth = layouts.Truth(arguments.planets, arguments.bins)
        start = time.perf_counter()
        layouts.write_challenge(Path(folder), truth)
        print(f"written in {time.perf_counter() - start:.1f} s")
        failed = False
        for what, limit in (("first", FIRST_LIMIT), ("cached", CACHED_LIMIT), ("cached", CACHED_LIMIT)):
            command = [sys.executable, "-m", "benchmarks.bench_loading", "--load", folder]
            out = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
            n, seconds, busy, peak = out.split()
            good = float(seconds) < limit and float(peak) < MEMORY_LIMIT
            failed |= not good
            print(f"{what:7s} {n} spectra: {seconds} s (limit {limit:g}), {busy} s of processor, {peak} GB")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
