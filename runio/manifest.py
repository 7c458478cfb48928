"""The manifest of a folder of results: which files a run wrote, and what was in them, so that no other file is lost."""

import hashlib
import json
from pathlib import Path, PurePosixPath

from runio.files import read_bounded, written_whole

MANIFEST = "manifest.json"
LOG = "run.log"  # a run writes its last lines after the manifest
LARGEST = 1_000_000  # bytes


def digest(path):
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def result_files(folder, names):
    """Files of a folder whose first part is one of ``names`` (a compiled pattern): paths relative to it, sorted."""
    found = []
    for top in sorted(Path(folder).iterdir()):
        if names.fullmatch(top.name):
            inside = sorted(top.rglob("*")) if top.is_dir() and not top.is_symlink() else [top]
            found += [path.relative_to(folder).as_posix() for path in inside if path.is_symlink() or not path.is_dir()]
    return found


def write_manifest(folder, files):
    """Note name and content of ``files``, paths relative to ``folder``."""
    _write(folder, {name: digest(Path(folder) / name) for name in files if name != MANIFEST})


def _write(folder, digests):
    with written_whole(Path(folder) / MANIFEST) as part:
        part.write_text(json.dumps({"sha256": digests}, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder, names):
    """Return {path relative to the folder: SHA-256}, or None where there is no manifest that can be believed.

    A path that leads out of the folder, or begins with none of ``names``, is passed over: nobody's files are touched
    because a manifest says so.
    """
    digests = _digests(folder)
    if digests is None:
        return None
    parts = {name: PurePosixPath(name).parts for name in digests}
    return {
        name: digests[name] for name, path in parts.items() if path and names.fullmatch(path[0]) and ".." not in path
    }


def is_unchanged(folder, name, digests):
    """Whether a file is as the manifest says; the log always is; without a manifest every file is, and no folder."""
    if digests is None or name == LOG:
        return (Path(folder) / name).is_file()
    try:
        return digest(Path(folder) / name) == digests[name]
    except OSError:
        return False


def is_another(folder, name):
    """Whether the manifest of ``folder`` lists a file ``name`` whose content is not that of the file there now."""
    digests = _digests(folder) or {}
    return name in digests and not is_unchanged(folder, name, digests)


def note_again(folder, files):
    """Bring the manifest of ``folder`` up to date for ``files`` that were written again."""
    folder = Path(folder)
    digests = _digests(folder)
    if digests is not None:  # a folder without a manifest stays without one
        _write(folder, {**digests, **{Path(file).relative_to(folder).as_posix(): digest(file) for file in files}})


def _digests(folder):
    """Return what the manifest says, whatever it is; None where there is none that can be read."""
    try:
        digests = json.loads(read_bounded(Path(folder) / MANIFEST, LARGEST))["sha256"]
        return {str(name): str(value) for name, value in digests.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
