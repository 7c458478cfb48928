"""The scripts of docs/cluster.md, taken from the page and made to fit a small machine."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/cluster.md"


def scripts(heading, text=None):
    """Return the fenced blocks below a heading of the page, [(language, script)]."""
    text = PAGE.read_text() if text is None else text
    (section,) = (part for part in re.split(r"^## ", text, flags=re.M) if part.startswith(heading + "\n"))
    return re.findall(r"^```(\w+)\n(.*?)^```$", section, flags=re.M | re.S)


def adapted(script, changes):
    """Return the script with other sizes and paths; each that is named has to be in it."""
    for old, new in changes.items():
        if old not in script:
            raise ValueError(f"docs/cluster.md: expected {old!r} in\n{script}")
        script = script.replace(old, str(new))
    return script
