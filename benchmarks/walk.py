"""Run the commands of a page as they are written there, and report wall time, processor time and load of each.

    python -m benchmarks.walk --n 300 --epochs 3      # few planets: shows that the page works (3 minutes)
    python -m benchmarks.walk                         # as a reader would run it (40 minutes of processor time)
    python -m benchmarks.walk --only "runfile.py --observation"  # the commands that hold this text

To be run by hand in a fresh clone, since the files that the commands write stay. Commands are the blocks indented by
four blanks; `pip install` is not run.
"""

import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measuring import ROOT, benchmark_parser

PAGE = ROOT / "docs/your_planet.md"


def commands(text):
    """Return the shell commands of a page's indented blocks, continued lines joined."""
    lines = [line[4:] for line in text.replace("\\\n", " ").splitlines() if re.match(r"    (mkdir|python) ", line)]
    return [re.sub(r"\s+", " ", line) for line in lines]


def resized(command, n=None, epochs=None):
    """Return a command of the page with so many planets and epochs, where it simulates and trains; None: as it is."""
    if n and "--planet" in command:
        command = f"{re.sub(r' --n [0-9]+', '', command)} --n {n}"
    trains = "runfile.py" in command and "--apply" not in command
    return f"{command} --epochs {epochs}" if epochs and trains else command


def run(command):
    """Run one command in a shell at the root; return its status, wall and processor time in seconds."""

    def used():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before, start = used(), time.perf_counter()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    status = subprocess.run(command, shell=True, cwd=ROOT, env={**os.environ, "PATH": path}).returncode
    return status, time.perf_counter() - start, used() - before


def main():
    parser = benchmark_parser("walk", __doc__)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--n", type=int, help="planets to simulate, instead of those of the page")
    parser.add_argument("--epochs", type=int, help="epochs at most, instead of those of the settings")
    parser.add_argument("--only", default="", help="commands that hold this text")
    arguments = parser.parse_args()
    status = 2  # nothing was run
    for command in commands(arguments.page.read_text(encoding="utf-8")):
        if arguments.only not in command:
            continue
        command = resized(command, arguments.n, arguments.epochs)
        status, wall, processor = run(command)
        load = os.getloadavg()[1]
        print(
            f"{wall:7.0f} s wall {processor:7.0f} s processor, load {load:4.1f}, status {status}: {command}", flush=True
        )
        if status:
            break
    return status


if __name__ == "__main__":
    sys.exit(main())
