"""Files are written atomically."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from stochnorm.files import FileStamp, atomic_path, cache_directory, check_target, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="half"), atomic_path(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    message = r"cannot write .*file.txt: No space left on device; free some space"
    with pytest.raises(OSError, match=message), atomic_path(tmp_path / "file.txt"):
        raise full
    assert not list(tmp_path.iterdir())


def test_only_a_full_disk_asks_for_space(tmp_path: Path) -> None:
    read_only = OSError(errno.EROFS, os.strerror(errno.EROFS))
    with (
        pytest.raises(OSError, match=r"cannot write .*file.txt: Read-only file system$"),
        atomic_path(tmp_path / "file.txt"),
    ):
        raise read_only


def test_a_target_that_cannot_be_written_is_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    check_target(tmp_path / "file.txt")
    for act in (check_target, lambda path: write_text(path, "text")):
        with pytest.raises(IsADirectoryError, match=r"cannot write .*folder: it is a folder; choose a file name"):
            act(tmp_path / "folder")
        with pytest.raises(
            FileNotFoundError, match=r"cannot write .*file.txt: the folder .*missing does not exist; make it"
        ):
            act(tmp_path / "missing/file.txt")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_the_cache_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory("images") == tmp_path / "stochnorm" / "images"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory("images") == tmp_path / ".cache" / "stochnorm" / "images"


def test_a_stamp_tells_a_file_that_was_written_or_replaced_with_the_size_and_time_of_before(tmp_path: Path) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    for path in (file, other):
        path.write_text("old")
        os.utime(path, (1e9, 1e9))
    stamps = [FileStamp.of(file)]
    file.write_text("new")
    os.utime(file, (1e9, 1e9))
    stamps.append(FileStamp.of(file))
    other.replace(file)
    stamps.append(FileStamp.of(file))
    assert len({(stamp.size, stamp.modified) for stamp in stamps}) == 1
    assert stamps[0] != stamps[1]
    assert stamps[1].inode != stamps[2].inode
