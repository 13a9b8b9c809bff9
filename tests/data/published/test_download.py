"""Downloads from a server that the test starts; none leaves the machine."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stochnorm.data import DATASETS, download, verify

Write = Callable[[str, Path], Path]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(60)


@pytest.fixture
def site(tmp_path: Path, write_official: Write, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a small CUB archive, with its address in the catalogue."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    site = tmp_path / "site"
    site.mkdir()
    write_official("cub", tmp_path / "made/CUB_200_2011")
    with tarfile.open(site / "cub.tgz", "w:gz") as archive:
        archive.add(tmp_path / "made/CUB_200_2011", "CUB_200_2011")
        archive.addfile(
            tarfile.TarInfo("attributes.txt"), io.BytesIO()
        )  # as in the official one: a file next to the folder
    digest = hashlib.md5((site / "cub.tgz").read_bytes(), usedforsecurity=False).hexdigest()
    with served(site) as address:
        monkeypatch.setitem(DATASETS, "cub", replace(DATASETS["cub"], url=f"{address}/cub.tgz", md5=digest))
        yield site


def test_an_archive_is_fetched_checked_and_unpacked(site: Path, tmp_path: Path) -> None:
    folder = download("cub", tmp_path / "data")
    assert folder == tmp_path / "data/CUB_200_2011"
    assert verify(folder).found["images"] == 20
    assert not verify(folder).missing
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["CUB_200_2011"]  # no archive, no attributes.txt
    with pytest.raises(FileExistsError, match="CUB_200_2011 exists"):
        download("cub", tmp_path / "data")


@pytest.mark.parametrize("fault", ["gone", "changed", "cut", "no server"])
def test_a_failed_download_is_an_error_and_leaves_nothing(
    site: Path, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = site / "cub.tgz"
    if fault == "gone":
        archive.unlink()
    elif fault == "changed":
        archive.write_bytes(archive.read_bytes() + b"x")
    elif fault == "cut":  # with the checksum of the cut archive, so that unpacking is what fails
        archive.write_bytes(archive.read_bytes()[:2000])
        digest = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
        monkeypatch.setitem(DATASETS, "cub", replace(DATASETS["cub"], md5=digest))
    else:
        monkeypatch.setitem(DATASETS, "cub", replace(DATASETS["cub"], url="http://127.0.0.1:9/cub.tgz"))
    with pytest.raises(OSError, match=r"CUB-200-2011 could not be downloaded from http.*: .+; try again") as caught:
        download("cub", tmp_path / "new/data")
    assert ("its MD5 is not the official one" in str(caught.value)) == (fault == "changed")
    assert not (tmp_path / "new").exists()
    (tmp_path / "data").mkdir()
    with pytest.raises(OSError, match="could not be downloaded"):
        download("cub", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []  # a folder that was there stays


@pytest.mark.parametrize("name", ["../../escaped.txt", "{}/escaped.txt", "CUB_200_2011/../../../escaped.txt", "link"])
def test_paths_that_lead_out_of_an_archive_are_not_unpacked(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    member = tarfile.TarInfo(name.format(tmp_path))
    if name == "link":
        member.type, member.linkname = tarfile.SYMTYPE, "../.."
    with tarfile.open(site / "cub.tgz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("CUB_200_2011/images.txt"), io.BytesIO())
        archive.addfile(member, io.BytesIO())
    digest = hashlib.md5((site / "cub.tgz").read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setitem(DATASETS, "cub", replace(DATASETS["cub"], md5=digest))
    with pytest.raises(
        OSError, match=r"could not be downloaded .* is not a file or folder inside the archive; try again"
    ):
        download("cub", tmp_path / "deep/data")
    assert not list(tmp_path.rglob("escaped.txt"))
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "cars",
            r"server is offline.*unpack it to .*stanford_cars with devkit/cars_meta.mat, .*cars_test_annos_withlabels",
        ),
        ("chestxray14", r"Box folder.*unpack it to .* with Data_Entry_2017.csv, train_val_list.txt, test_list.txt"),
        ("elpv", r"pip install 'stochnorm\[elpv\]'"),
    ],
)
def test_what_cannot_be_downloaded_says_where_to_get_it(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        download(name, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_an_unknown_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="unknown data set 'imagenet'; choose one of: cub, cars, aircraft, chestxray14, elpv"
    ):
        download("imagenet", tmp_path)


def test_every_download_has_a_checksum() -> None:
    assert all(len(dataset.md5) == 32 for dataset in DATASETS.values() if dataset.url)
    assert all(dataset.url or dataset.obtain for dataset in DATASETS.values())
