"""A run's folder: its lock, its unfinished work, and the manifest of the files that the run wrote.

Results are written in ``.unfinished`` and moved into the folder together. ``manifest.json`` holds the SHA-256 of each
file, so that no other file is ever removed, and a changed one is noticed.
"""

import contextlib
import errno
import itertools
import json
import logging
import os
import re
import shutil
import socket
import stat
from datetime import datetime
from pathlib import Path, PurePosixPath

import yaml

from common.files import digest, full_disk_message, lock_file, read_bounded, written_whole
from runio.config import flatten, read_yaml
from runio.log import InputError

logger = logging.getLogger(__name__)

RESULTS = "results.h5"
MANIFEST = "manifest.json"
LOG = "run.log"  # a run writes its last lines after the manifest
MAX_MANIFEST = 1_000_000  # bytes
RESULT_NAMES = re.compile(
    r"results\.h5|config\.yaml|manifest\.json|(model_\d+|ensemble)\.keras|history_\d+\.csv|MSE\.csv|R2\.csv|figures|"
    r"report\.html|run\.log"
)
HOLDER = re.compile(r"process \d+ on [\w.-]+ since [\d :-]+")  # what a run writes into its lock file
OPEN_LOCK = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # not on Windows


class RunFolderError(InputError):
    """A folder that cannot be used for this run; the message is one line that names it."""


class FolderInUse(RunFolderError):
    """Another process works in the folder."""


def result_files(folder, names):
    """Files of a folder whose first part is one of ``names`` (a compiled pattern): paths relative to it, sorted."""
    found = []
    for top in sorted(Path(folder).iterdir()):
        if names.fullmatch(top.name):
            inside = sorted(top.rglob("*")) if top.is_dir() and not top.is_symlink() else [top]
            found += [path.relative_to(folder).as_posix() for path in inside if path.is_symlink() or not path.is_dir()]
    return found


def read_manifest(folder):
    """Return {path relative to the folder: SHA-256}; None where there is no manifest that can be read."""
    try:
        digests = json.loads(read_bounded(Path(folder) / MANIFEST, MAX_MANIFEST))["sha256"]
        return {str(name): str(value) for name, value in digests.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def write_manifest(folder, files, others=None):
    """Record the digests of ``files``, paths relative to ``folder``, beside those of ``others``."""
    digests = {**(others or {}), **{name: digest(Path(folder) / name) for name in files if name != MANIFEST}}
    with written_whole(Path(folder) / MANIFEST) as part:
        part.write_text(json.dumps({"sha256": digests}, indent=1) + "\n", encoding="utf-8")


def update_manifest(folder, files):
    """Record ``files`` that were written again; a folder without a manifest stays without one."""
    digests = read_manifest(folder)
    if digests is not None:
        write_manifest(folder, [Path(file).relative_to(folder).as_posix() for file in files], digests)


def refuse_changed(folder, *names):
    """Raise a ValueError unless the files ``names`` of the folder of a run are as its manifest says."""
    digests, advice = read_manifest(folder), "; --unverified (in Python: unverified=True) uses it all the same"
    for path in (Path(folder) / name for name in names):
        if digests is None or path.name not in digests:
            raise ValueError(f"{path}: expected its SHA-256 in {MANIFEST} beside it, received none{advice}")
        if digest(path) != digests[path.name]:
            raise ValueError(f"{path}: not the file that the run wrote (its SHA-256 is in {MANIFEST}){advice}")


def _is_unchanged(path, sha256):
    """Whether a path is a file with this digest; None: any file."""
    try:
        return path.is_file() and sha256 in (None, digest(path))
    except OSError:
        return False


def new_folder(root, model_name):
    """Make the next free folder ``root/<model>_<YYYY-MM-DD>_<NNN>``; simultaneous runs get one each."""
    stem = f"{model_name}_{datetime.now():%Y-%m-%d}_"
    taken = [path.name[len(stem) :] for path in Path(root).glob(f"{stem}*")]
    start = max((int(number) for number in taken if number.isdigit()), default=0) + 1
    return _first_free(root, (f"{stem}{number:03d}" for number in itertools.count(start)))


def unique_folder(root, name):
    """Make ``root/name``, or ``root/name_2`` and so on where there is one; simultaneous callers get one each."""
    return _first_free(root, itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2))))


def _first_free(root, names):
    """Make the first folder of these names that does not exist yet; a RunFolderError if none can be made."""
    try:
        Path(root).mkdir(parents=True, exist_ok=True)
        for name in names:
            with contextlib.suppress(FileExistsError):
                (Path(root) / name).mkdir()
                return Path(root) / name
    except OSError as error:
        raise RunFolderError(f"{root}: no folder can be made here ({_reason(error)})") from None


def refuse_closed(path):
    """Raise a RunFolderError for a folder on a read-only disk or without rights; for work that opens it at its end."""
    there = next(folder for folder in (Path(path), *Path(path).absolute().parents) if os.path.exists(folder))
    if there.is_dir() and not os.access(there, os.W_OK | os.X_OK):
        closed = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
        raise RunFolderError(f"{path}: not usable for results ({os.strerror(closed)}: {there})")


class RunFolder:
    """The folder for the results of a run, held by one process at a time; a context manager.

    ``settings`` are nested plain values and go to ``config.yaml`` first; on resuming, keys in ``ignore`` may differ,
    and those in ``versions`` with a warning. ``marker`` is the file whose presence says that results are finished, and
    ``names`` what the first part of the path of a result may be; other files are left alone. With ``resumable=False``
    an interrupted run is discarded. Entering raises a `RunFolderError` if the folder is in use, cannot be written, or
    holds what would be lost. Results are written in ``work``. ``resumed``: earlier work is there; ``finished``: nothing
    is left to do.
    """

    def __init__(
        self, path, settings, overwrite=False, resume=False, ignore=("output",),
        *, marker=RESULTS, names=RESULT_NAMES, resumable=True,
    ):  # fmt: skip
        if overwrite and resume:
            raise RunFolderError("--overwrite starts again, --resume continues: expected one of them, received both")
        self.path = Path(path)
        self.work = self.path / ".unfinished"
        self.settings = yaml.safe_load(yaml.safe_dump(settings, sort_keys=False))
        self.overwrite, self.resume, self.ignore = overwrite, resume, ignore
        self.marker, self.names, self.resumable = marker, names, resumable
        self.resumed = self.finished = False
        self._trash, self._lock_path, self._lock = self.path / ".replaced", self.path / ".lock", None

    def __enter__(self):
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._start()
        except BaseException as error:
            self._release_lock()
            if not isinstance(error, OSError):
                raise
            self._refuse_full_disk(error)
            raise self._refusal(f"not usable for results ({_reason(error)})") from None
        return self

    def __exit__(self, kind, error, traceback):
        if not self.resumable and self.work.exists():
            self._discard(self.work)
        self._release_lock()
        if not self.resumable:
            with contextlib.suppress(OSError):  # it holds something
                self.path.rmdir()
        self._refuse_full_disk(error)

    def _refusal(self, words):
        return RunFolderError(f"{self.path}: {words}")

    def _refuse_full_disk(self, error):
        advice = "continue with --resume" if self.resumable else "repeat the command"
        if message := full_disk_message(error, self.path, advice):
            raise RuntimeError(message) from error

    def finish(self):
        """Move the results from ``work`` into the folder in place of the old ones.

        Files of the old run that were changed since are kept under another name. A kill at any moment leaves the old
        results, or none until the next start has moved the rest.
        """
        if not (self.work / self.marker).is_file():
            raise RunFolderError(f"{self.work}: holds no {self.marker}, so the run is not finished")
        write_manifest(self.work, result_files(self.work, self.names))
        self._trash.mkdir(exist_ok=True)
        (self.work / "COMPLETE").touch()
        self._move()

    def _move(self):
        if not (self.work / "MOVE").exists():
            self._clear_old()
            os.replace(self.work / "COMPLETE", self.work / "MOVE")
        for name in sorted(result_files(self.work, self.names), key=lambda name: name == self.marker):
            path = self.path / name
            if path.parent != self.path and (path.parent.is_symlink() or path.parent.is_file()):
                self._keep(path.parent.name)
            if os.path.lexists(path):  # not of the old run: that one is cleared
                self._keep(name)
            path.parent.mkdir(exist_ok=True, parents=True)
            os.replace(self.work / name, path)
        self._discard(self.work)

    def _clear_old(self):
        """Move the files of the old run away to be deleted; keep those that are not as it wrote them."""
        digests = read_manifest(self.path)
        if digests is None:  # a run of an early version: its figures stay until new ones take their place
            files = [name for name in result_files(self.path, self.names) if "/" not in name]
        else:
            files = [name for name in (*digests, MANIFEST) if self._is_result(name)]
        # Without the marker nothing looks finished, and without the manifest nothing else can be cleared
        for name in sorted(files, key=lambda name: (name == MANIFEST, name != self.marker)):
            path = self.path / name
            if path.parent.is_symlink() or not path.exists():  # the link leads elsewhere
                continue
            if name == MANIFEST or _is_unchanged(path, None if digests is None or name == LOG else digests[name]):
                self._put_away(path)
            else:
                self._keep(name)
        for folder in {(self.path / name).parent for name in files} - {self.path}:
            with contextlib.suppress(OSError):  # it holds something else
                folder.rmdir()

    def _is_result(self, name):
        """Whether a path in a manifest is that of a result, in this folder: no other file is removed."""
        parts = PurePosixPath(name).parts
        return bool(parts) and ".." not in parts and self.names.fullmatch(parts[0]) is not None

    def _keep(self, name):
        """Rename a file that no run wrote, or that was changed since, to a name that no run uses."""
        names = (self.path / f"{name}.kept{number}" for number in itertools.chain([""], itertools.count(2)))
        kept = next(path for path in names if not os.path.lexists(path))
        os.replace(self.path / name, kept)
        logger.warning("%s: not as a run wrote it; kept as %s", self.path / name, kept.name)

    def _put_away(self, path):
        """Move a file or folder into the folder of what is deleted, under a free name."""
        self._trash.mkdir(exist_ok=True)
        places = (self._trash / f"{path.name}.{number}.replaced" for number in itertools.count())
        os.replace(path, next(place for place in places if not place.exists()))

    def _discard(self, path):
        """Move a folder away, then delete it: a kill cannot leave a part of it in its place."""
        self._put_away(path)
        shutil.rmtree(self._trash)

    def _start(self):
        """Decide from the content of the folder, and the flags, what there is to do."""
        self._refuse_foreign()
        if (self.work / "COMPLETE").exists() or (self.work / "MOVE").exists():
            logger.info("%s: an earlier run ended while its results were moved; moving the rest", self.path)
            self._move()
        if self._trash.exists():
            shutil.rmtree(self._trash)
        is_begun = (self.work / "config.yaml").exists() and self.resumable
        is_done = (self.path / self.marker).exists()
        if is_begun and not self.overwrite:
            if not self.resume:
                raise self._refusal("holds an unfinished run; --resume to continue it, --overwrite to start again")
            self._check_same(self.work / "config.yaml", "an unfinished run")
            self.resumed = True
            return
        if is_begun:
            logger.info("%s: the unfinished run is discarded", self.path)
        elif is_done and self.resume:
            self._check_same(self.path / "config.yaml", "finished results")
            self.finished = True
            return
        elif is_done and not self.overwrite:
            raise self._refusal("holds finished results; choose another --output, or --overwrite them")
        elif self.resume:
            logger.info("%s: nothing to resume here, so a new run starts", self.path)
        held = sorted(path.name for path in self.path.iterdir() if self.names.fullmatch(path.name))
        if self.marker not in held:
            if _is_of_software(self.path.resolve()):
                raise self._refusal("a folder of this software; choose another --output, such as runs/new")
            if held:
                advice = "so these are not replaced; choose another --output, or move them away"
                raise self._refusal(f"holds {', '.join(held[:9])} but no {self.marker}, {advice}")
        if self.work.exists():
            self._discard(self.work)
        self.work.mkdir()
        with written_whole(self.work / "config.yaml") as part:
            part.write_text(yaml.safe_dump(self.settings, sort_keys=False), encoding="utf-8")

    def _refuse_foreign(self):
        """Refuse a ``.unfinished`` or ``.replaced`` that no run made: it would be filled or deleted."""
        for path in filter(os.path.lexists, (self.work, self._trash)):
            inside = {entry.name for entry in path.iterdir()} if path.is_dir() and not path.is_symlink() else {""}
            own = all(name.endswith(".replaced") for name in inside)
            if path == self.work:  # a start that was killed leaves it empty, or with half of its settings
                own = inside & {"config.yaml", "MOVE", "COMPLETE"} or all(name.startswith(".part") for name in inside)
            if not own:
                advice = "move it away, or choose another --output"
                raise RunFolderError(f"{path}: expected no file of this name, or one that a run made; {advice}")

    def _check_same(self, path, what):
        """Refuse to resume with settings that differ from those in the file ``path``."""
        old, new = {}, flatten(self.settings)
        with contextlib.suppress(ValueError, AttributeError):
            old = flatten(read_yaml(path))
        if not old:
            raise RunFolderError(f"{path}: the settings of {what} cannot be read; --overwrite to start again")
        for key in dict.fromkeys([*new, *old]):
            before, now = (repr(tree[key]) if key in tree else "nothing" for tree in (old, new))
            if before == now or any(key == k or key.startswith(f"{k}.") for k in self.ignore):
                continue
            if key.split(".")[0] == "versions":
                logger.warning("%s was %s and is %s now: numbers may differ slightly", key[9:], before, now)
                continue
            advice = "give the same settings to resume, or --overwrite to start again"
            raise self._refusal(f"holds {what} with {key} = {before}, received {now}; {advice}")

    def _take_lock(self):
        """Lock the folder for as long as this process lives. A lock file that no run wrote stays as it is."""
        while self._lock is None:
            lock = os.open(self._lock_path, OPEN_LOCK, 0o644)
            try:
                if not stat.S_ISREG(os.fstat(lock).st_mode):
                    raise self._refusal("not usable for results (.lock is not a regular file)")
                content = os.read(lock, 200).decode("ascii", "replace").strip()
                if not lock_file(lock):
                    logger.warning("%s: this file system has no locks; start only one run here", self.path)
                if self._is_current(lock):  # else its owner ended, and deleted the file, while we opened it
                    self._lock = lock
            except BlockingIOError:
                holder = content if HOLDER.fullmatch(content) else "another run"
                raise FolderInUse(
                    f"{self.path}: in use by {holder}; wait for it, or choose another --output "
                    f"(if that machine is lost, delete {self._lock_path} and start with --resume)"
                ) from None
            finally:
                if self._lock is None:
                    os.close(lock)
        self._own_lock = os.fstat(self._lock).st_nlink == 1 and (not content or HOLDER.fullmatch(content))
        if self._own_lock:
            now = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
            os.truncate(self._lock, 0)
            os.lseek(self._lock, 0, os.SEEK_SET)
            os.write(self._lock, f"process {os.getpid()} on {socket.gethostname()} since {now}\n".encode())

    def _is_current(self, lock):
        try:
            return os.path.samestat(os.fstat(lock), os.stat(self._lock_path))
        except FileNotFoundError:
            return False

    def _release_lock(self):
        if self._lock is not None:
            if self._own_lock and self._is_current(self._lock):
                self._lock_path.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None


def _is_of_software(path):
    """Whether a folder is part of this software."""
    root = Path(__file__).parents[1]
    kinds = ("*.py", "*.md", "*.yaml", "*.ipynb")
    return path == root or (path.parent == root and any(file for kind in kinds for file in path.glob(kind)))


def _reason(error):
    return (error.strerror or str(error)) + (f": {error.filename}" if error.filename else "")
