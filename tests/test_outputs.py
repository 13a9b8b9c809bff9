"""Files that the user names are never lost; a link stays; pipes and devices are written into."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from stochnorm.files import locked, private_directory, sqlite_url, write_all, write_text
from stochnorm.outputs import LAYERS, METRICS, PAGE, PICTURE, PREDICTIONS, RATE, TABLES, Kind, Output

OURS = "path,predicted,probability,p(a),p(b)\nx.png,a,0.9,0.9,0.1\n"


@pytest.mark.parametrize("kind", [PREDICTIONS, METRICS, LAYERS, RATE, PAGE, PICTURE, *TABLES.values()])
@pytest.mark.parametrize(
    "content",
    [b"\xff\xd8\xff\xe0 a photograph", b"name,age\n", b"{}", b"<!doctype html><p>mine", b"\x89PNG\r\n\x1a\nmine"],
)
def test_what_stochnorm_did_not_write_is_refused(tmp_path: Path, kind: Kind, content: bytes) -> None:
    path = tmp_path / "mine"
    path.write_bytes(content)
    message = r"cannot write .*mine: it exists, and is no file of .* that stochnorm wrote; .* with --overwrite"
    for act in (lambda: Output(path, kind).check(), lambda: Output(path, kind).write("x")):
        with pytest.raises(FileExistsError, match=message):
            act()
    assert path.read_bytes() == content
    Output(path, kind, overwrite=True).write("new")
    assert path.read_text() == "new"


def test_an_earlier_file_of_the_kind_and_an_empty_one_are_replaced(tmp_path: Path) -> None:
    for before in (OURS, ""):
        (tmp_path / "table.csv").write_text(before)
        Output(tmp_path / "table.csv", PREDICTIONS).write(OURS + "y.png,b,0.8,0.2,0.8\n")
        assert (tmp_path / "table.csv").read_text().count("\n") == 3


def test_a_read_only_file_stays_even_with_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(OURS)
    path.chmod(0o444)
    with pytest.raises(PermissionError, match="it is read-only; choose another"):
        Output(path, PREDICTIONS, overwrite=True).write("new")
    assert path.read_text() == OURS


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path: Path, *, there: bool) -> None:
    target, link = tmp_path / "disk/table.csv", tmp_path / "link.csv"
    target.parent.mkdir()
    if there:
        target.write_text(OURS)
    link.symlink_to("disk/table.csv")
    Output(link, PREDICTIONS).write(OURS * 2)
    assert link.is_symlink()
    assert target.read_text() == OURS * 2
    target.write_text("mine")
    with pytest.raises(FileExistsError, match="no file of predictions"):
        Output(link, PREDICTIONS).check()


@pytest.mark.parametrize(
    ("target", "reason"), [("link.csv", "it is a link that goes round"), ("no/x.csv", "whose folder does not exist")]
)
def test_a_link_that_leads_nowhere_is_refused_before_the_work(target: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(target)
    with pytest.raises(OSError, match=rf"cannot write .*link.csv: .*{reason}"):
        Output(tmp_path / "link.csv", PREDICTIONS).check()


def test_the_predictions_of_a_run_are_its_own(tmp_path: Path) -> None:
    path = tmp_path / "test_predictions.csv"
    path.write_text(OURS)
    Output(path, PREDICTIONS).check()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileExistsError, match="it belongs to a run; choose another file name, or replace it with"):
        Output(path, PREDICTIONS).check()
    Output(path, PREDICTIONS, overwrite=True).check()


def test_a_lock_that_cannot_be_made_is_not_one_that_another_process_holds() -> None:
    with pytest.raises(OSError, match=r"/proc/x\.lock cannot be made"), locked(Path("/proc/x.lock"), timeout=0):
        pass


@pytest.mark.parametrize("name", ["a%20b", "a#b", "a@b:c", "a b", "a?b"])
def test_an_sqlite_file_is_in_the_folder_that_is_named(name: str, tmp_path: Path) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    (tmp_path / name).mkdir()
    file = tmp_path / name / "study.db"
    try:
        url = sqlite_url(file)
    except ValueError as error:  # earlier versions have no way to write it
        assert name == "a?b" and "a database cannot be in a folder of this name" in str(error)
        return
    with sqlalchemy.create_engine(url).connect() as connection:
        connection.exec_driver_sql("create table x (y)")
    assert file.is_file()


def test_a_fifo_is_written_into_and_stays(tmp_path: Path) -> None:
    fifo, got = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: got.append(fifo.read_text()), daemon=True)
    reader.start()
    output = Output(fifo, PREDICTIONS)
    output.check()
    output.write(OURS * 5000)  # more than a pipe holds
    reader.join(timeout=60)
    assert got == [OURS * 5000]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_devices_are_written_into() -> None:
    Output(Path("/dev/null"), PREDICTIONS).write(OURS)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(OSError, match=r"cannot write /dev/full: No space left on device; free some space"):
        Output(Path("/dev/full"), PREDICTIONS).write(OURS)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_in_a_file_is_added_to(tmp_path: Path, name: str) -> None:
    code = "from stochnorm.outputs import *; from pathlib import Path; print('table', flush=True); "
    code += f"o = Output(Path('{name}'), PREDICTIONS); o.check(); o.write('text')"
    with (tmp_path / "log").open("w") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True, timeout=120)
    assert (tmp_path / "log").read_text() == "table\ntext"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        Output(tmp_path, PREDICTIONS, overwrite=True).check()


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_new_files_have_what_the_umask_leaves_and_old_ones_keep_theirs(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "new", "text")
        (tmp_path / "old").touch()
        (tmp_path / "old").chmod(0o640)
        write_text(tmp_path / "old", "text")
        with locked(tmp_path / ".lock"):
            pass
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes["new"] == mode
    assert modes["old"] == 0o640
    assert modes.get(".lock", mode) == mode


def test_folders_of_caches_are_the_users_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private_directory(tmp_path / "stochnorm" / "images")
        (tmp_path / "open/stochnorm/images").mkdir(parents=True)  # of an earlier version
        private_directory(tmp_path / "open/stochnorm/images")
    finally:
        os.umask(before)
    folders = [tmp_path / "stochnorm", tmp_path / "stochnorm/images", tmp_path / "open/stochnorm/images"]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700] * 3


@pytest.mark.parametrize("make", [lambda path: path.symlink_to(path.parent / "precious"), Path.mkdir])
def test_a_link_in_place_of_a_lock_is_not_followed(tmp_path: Path, make: Callable[[Path], None]) -> None:
    (tmp_path / "precious").write_text("mine")
    make(tmp_path / ".run.lock")
    with (
        pytest.raises(OSError, match=r"\.run\.lock is a (link|folder), where the file of a lock should be; remove it"),
        locked(tmp_path / ".run.lock"),
    ):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_temporary_file_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = iter(["aaaaaaaa", "bbbbbbbb"])
    monkeypatch.setattr("stochnorm.files.secrets.token_hex", lambda n: next(names))
    (tmp_path / "precious").write_text("mine")
    (tmp_path / ".file-aaaaaaaa.txt").symlink_to(tmp_path / "precious")
    write_text(tmp_path / "file.txt", "text")
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "file.txt").read_text() == "text"


def test_a_write_that_takes_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("write", "pwrite"):
        monkeypatch.setattr(os, name, lambda *_: 0)
    for place in (None, 3):
        with pytest.raises(OSError, match=r"none of 4 bytes were written; is the disk full\?"):
            write_all(1, b"text", place)
