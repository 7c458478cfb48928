"""Files are written whole or not at all, and recognised by their content."""

import hashlib
import os

import pytest

from common.files import digest, read_bounded, written_whole


def test_a_block_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "table.csv"
    for content, fails in (("old", False), ("new", True)):
        try:
            with written_whole(path) as part:
                assert part.suffix == ".csv"
                part.write_text(content)
                if fails:
                    raise KeyError
        except KeyError:
            pass
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["table.csv"]


def test_the_digest_is_that_of_all_contents_together(tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode() * 3_000_000)
    both = hashlib.sha256(b"a" * 3_000_000 + b"b" * 3_000_000).hexdigest()
    assert digest(tmp_path / "a", tmp_path / "b") == both


def test_what_is_no_file_or_too_large_is_not_read(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 1001)
    os.mkfifo(tmp_path / "pipe")
    assert len(read_bounded(tmp_path / "file", 1001)) == 1001
    for path, limit, word in ((tmp_path / "file", 1000, "more than 1 kB"), (tmp_path / "pipe", 1, "a pipe")):
        with pytest.raises(ValueError, match=word):
            read_bounded(path, limit)
    with pytest.raises(IsADirectoryError):
        read_bounded(tmp_path, 1)
