"""Run the commands of a page as they stand there, and say what each took: wall time, processor time, load.

    python -m benchmarks.walk --small                 # 300 planets, 3 epochs: shows that the page works (2 minutes)
    python -m benchmarks.walk                         # as a reader would run it (20 minutes of processor time)
    python -m benchmarks.walk --only planet           # the commands that hold this word

To be run by hand, in a fresh clone: it leaves what the commands leave. Blocks indented by four blanks are read;
`pip install` is left to the reader.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/your_planet.md"
SMALL_N, SMALL_EPOCHS = 300, 3


def commands(text):
    """Return the shell commands of a page's indented blocks, continued lines joined."""
    lines = [line[4:] for line in text.replace("\\\n", " ").splitlines() if re.match(r"    (mkdir|python) ", line)]
    return [re.sub(r"\s+", " ", line) for line in lines]


def smaller(command):
    """Return a command of the page with few planets and few epochs."""
    command = re.sub(r" --n \d+", "", command)
    if "runfile.py" in command and "--apply" not in command:
        command += f" --epochs {SMALL_EPOCHS}"
    return command + (f" --n {SMALL_N}" if "--planet" in command else "")


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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.walk", description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--small", action="store_true", help=f"{SMALL_N} planets, {SMALL_EPOCHS} epochs")
    parser.add_argument("--only", default="", help="commands that hold this text")
    arguments = parser.parse_args()
    rows = []
    for command in commands(arguments.page.read_text(encoding="utf-8")):
        if arguments.only not in command:
            continue
        command = smaller(command) if arguments.small else command
        status, wall, processor = run(command)
        load = os.getloadavg()[1]
        rows.append(f"{wall:7.0f} s wall {processor:7.0f} s processor, load {load:4.1f}, status {status}: {command}")
        if status:
            break
    print("\n".join(rows))
    return status if rows else 2


if __name__ == "__main__":
    sys.exit(main())
