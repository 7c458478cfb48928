"""Draw the figures and the report of a finished run again, from its folder alone: ``python -m report RUN_DIR``."""

import os
import sys

os.environ["MPLBACKEND"] = "agg"  # figures go to files; a name that is no backend has no say

from report.page import write_figures, write_report
from runio.folder import update_manifest
from runio.log import one_line
from runio.results import load_run


def main(argv=None):
    """Rebuild the figures and the report of a run; return 0, or 2 with one line of what was wrong."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1 or arguments[0].startswith("-"):
        asked = arguments in (["-h"], ["--help"])
        print("usage: python -m report RUN_DIR", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    try:
        run = load_run(arguments[0])
        rendered = write_figures(run)
        path = write_report(run, rendered=rendered)
        drawn = (run.folder / "figures" / f"{name}.{kind}" for name in rendered for kind in ("png", "pdf"))
        update_manifest(run.folder, [path, *drawn])
    except (OSError, ValueError) as error:
        print("error: " + one_line(error), file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
