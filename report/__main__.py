"""Draw the figures and the report of a finished run again, or compare several runs.

python -m report RUN_DIR                  # figures/ and report.html, from the folder alone
python -m report --all-figures RUN_DIR    # also the figures that show the same numbers in another way
python -m report RUN_A RUN_B ...          # comparison.html in the current folder; --output FILE: elsewhere
"""

import argparse
import os
import sys
from pathlib import Path

os.environ["MPLBACKEND"] = "agg"  # figures go to files; a user's choice of a backend does not matter

from common.files import full_disk_message
from runio.log import one_line

USAGE = "python -m report [--all-figures] RUN_DIR [RUN_DIR ...]"


def main(argv=None):
    """Write the report of one run, or the comparison of several; return the exit status, as runfile.py does."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m report", USAGE, __doc__, formatter_class=formatter, allow_abbrev=False)
    parser.error = lambda message: parser.exit(2, f"error: {one_line(message)}; usage: {USAGE}\n")
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="folder of a finished run")
    parser.add_argument("--all-figures", action="store_true", help="every figure, not only those of the report")
    parser.add_argument("--unverified", action="store_true", help="also of a run whose files were changed since")
    parser.add_argument("--output", default="comparison.html", metavar="FILE", help="where the comparison goes")
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:
        return stop.code
    try:
        from report import compare, page  # here, as each process that draws imports this module
        from runio.folder import update_manifest
        from runio.results import load_run

        if len(arguments.runs) > 1:
            path = compare.write_comparison(arguments.runs, arguments.output)
        else:
            run = load_run(arguments.runs[0], arguments.unverified)
            rendered = page.write_figures(run, figures="all" if arguments.all_figures else "report", processes="auto")
            path = page.write_report(run, rendered)
            drawn = [Path(run.folder) / "figures" / f"{name}.{kind}" for name in rendered for kind in ("png", "pdf")]
            update_manifest(run.folder, [path, *drawn])
    except (OSError, ValueError, RuntimeError) as error:
        no_room = full_disk_message(error, arguments.output if len(arguments.runs) > 1 else arguments.runs[0])
        print("error: " + one_line(no_room or error), file=sys.stderr)
        return 1 if no_room or isinstance(error, RuntimeError) else 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
