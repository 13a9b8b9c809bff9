"""Lists and folders as they come: each is read as it is meant, or refused in a line that names it.

`STOCHNORM_FUZZ=2000 pytest tests/data/test_mutations.py` tries more than the 300 of the suite.
"""

from __future__ import annotations

import csv
import io
import os
import random
import re
import shutil
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from stochnorm.data import Source, assign_splits, read_images
from stochnorm.data.manifest import SPLITS

NUMBER = int(os.environ.get("STOCHNORM_FUZZ", "300"))
LABELS = ["red", "blue", "r\u00e9d", "re\u0301d", "1", "10", "2", "a b", "x" * 300, "\u05d0\u05d1", "=1+1", "a|b"]
BITS = [
    "\ufeff", ";", "\t", "\r\n", "\r", "\n\n", "\\", '"', "\0", "\u00e9", "e\u0301", " ", "  ", "7", ",", ",,,\n",
    "sep=,\n",
    "sep=;\n", "../", "/", "./", "http://x/", "C:\\x\\", "NaN", "nan", "#N/A", "=", "'", "-", "\u2028", "\x0b", "\x85",
    "|",
    "path,label\n", "unknown", "train", "\x1b[2J", "\u202e", "\ud83d".encode("utf-8", "replace").decode(),
]  # fmt: skip


def read(data: Path) -> tuple[Source | None, str]:
    """Return what is read, or None, and the warnings or the error; fail for any other error or a traceback's lines."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            source = read_images(data)
        except (ValueError, OSError) as error:
            assert str(error).strip()
            assert len(str(error)) < 5000
            assert type(error) in (ValueError, FileNotFoundError, PermissionError)
            return None, str(error)
    assert all(issubclass(warning.category, UserWarning) for warning in caught)
    return source, "\n".join(str(warning.message) for warning in caught)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Files whose names are all that a list is about."""
    root = tmp_path / "photos"
    for name in (
        "a/1.png",
        "a/2.png",
        "b/1.png",
        "b/ 3.png",
        "caf\u00e9.png",
        "e\u0301.png",
        "7.png",
        "d e.png",
        "c;d.png",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "round").symlink_to(root)
    return root


def manifest(rng: random.Random, images: Path) -> bytes:
    """Return a manifest with none to four mutations."""
    paths = [path.relative_to(images).as_posix() for path in images.rglob("*.png")]
    columns = ["path", rng.choice(["label", "label", "labels"])]
    columns += [name for name in ("split", "group") if rng.random() < 0.3]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=rng.choice(["\n", "\r\n"]))
    writer.writerow(columns)
    for path in rng.sample(paths, rng.randint(1, len(paths))):
        form = rng.choice(["NFC", "NFC", "NFD"])
        name = unicodedata.normalize(form, path) if rng.random() < 0.2 else path
        name = name.replace("/", "\\") if rng.random() < 0.1 else name
        values = {"path": name, "split": rng.choice(["train", "Test", "valid", "val"]), "group": rng.choice("pq")}
        writer.writerow([values.get(column, rng.choice(LABELS)) for column in columns])
    content = text.getvalue()
    for _ in range(rng.randint(0, 4)):
        at, end = sorted(rng.randint(0, len(content)) for _ in range(2))
        lines = content.splitlines(keepends=True)
        what = rng.randrange(5)
        if what == 0:
            content = content[:at] + rng.choice(BITS) + content[at:]
        elif what == 1:
            content = content[:at] + content[min(end, at + 5) :]
        elif what == 2 and lines:
            content = "".join([*lines, rng.choice(lines)])
        elif what == 3:
            rng.shuffle(lines)
            content = "".join(lines)
        else:
            content = rng.choice(BITS) + content
    data = content.encode("utf-8", "replace")
    return rng.choice([data] * 8 + [data.replace(b"\xc3\xa9", b"\xe9"), content.encode("utf-16")])


def meant(data: bytes) -> Iterator[dict[str, str]]:
    """Yield the records of a manifest by another, simple reading: each line with a value."""
    text = io.StringIO(data.decode("utf-8-sig"), newline="")
    first = text.readline().strip().strip('"')
    mark = first[4:5] or "," if first.lower().startswith("sep=") else ","
    if not first.lower().startswith("sep="):
        text.seek(0)
    titles, *rows = csv.reader(text, delimiter=mark)
    for row in rows:
        values = [value.strip() for value in row]
        if any(values):
            yield dict(zip((title.strip().lower() for title in titles), values, strict=False))


def same(name: str) -> str:
    return unicodedata.normalize("NFC", re.sub(r"^'(?='*[=+\-@\uff1d])", "", name)).strip()


@pytest.mark.parametrize("part", range(4))
def test_a_mutated_manifest_is_read_as_it_is_meant_or_refused(part: int, images: Path) -> None:
    outcomes = {"read": 0, "refused": 0}
    for seed in range(part, NUMBER * 2 // 3, 4):
        data = manifest(random.Random(seed), images)  # noqa: S311
        file = images / "list.csv"
        file.write_bytes(data)
        source, said = read(file)
        outcomes["read" if source else "refused"] += 1
        if source is None:
            assert "list.csv" in said, f"seed {seed}: {said}"
            continue
        records = list(meant(data))
        assert len(source.rows) == len(records), f"seed {seed}: {said}"
        found = {same(row.path): row for row in source.rows}
        assert len(found) == len(records)
        for record in records:
            row = found[same(os.path.normpath(record["path"].replace("\\", "/")))]
            label = record["labels" if source.multi_label else "label"]
            parts = {same(one) for one in label.split("|")} - {""} if source.multi_label else {same(label)}
            assert {same(one) for one in row.label.split("|")} - {""} == parts or row.label == label, f"seed {seed}"
            assert row.split == SPLITS.get(record.get("split", "").lower(), ""), f"seed {seed}"
            assert same(row.group) == same(record.get("group", "")), f"seed {seed}"
            assert (source.root / row.path).is_file()
        assert source.rows == sorted(source.rows, key=lambda row: row.path.split("/"))
    assert min(outcomes.values()) > 5, outcomes


NAMES = [
    "cat", "dog", " lead", "lead", "caf\u00e9", "cafe\u0301", "NaN", "1", "10", "train", "val", "test", "testing",
    "@eaDir",
    "__MACOSX", ".hidden", "$RECYCLE.BIN", "x" * 200, "=1", "<b>", "\u05d0", "deep", "esc\x1b[2J",
]  # fmt: skip
FILES = [
    "1.png", "2.JPG", "3.jpeg", "._1.png", ".4.png", "Thumbs.db", "desktop.ini", "folder.ico", ".DS_Store", "v.mp4",
    "n.txt",
    "5.tiff", "e\u0301.png", "\u00e9.png", "no extension", "6.webp", " 7.png", "8.png ", "list.csv",
]  # fmt: skip


def tree(rng: random.Random, root: Path) -> None:
    """Make a folder of folders, as phones, desktops and network disks leave them."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    tops = rng.sample(NAMES, rng.randint(1, 4))
    if rng.random() < 0.4:
        tops = [f"{split}/{name}" for split in rng.sample(["train", "val", "test", "extra"], 2) for name in tops]
    for top in tops:
        folder = root / top / ("nested" if rng.random() < 0.1 else "")
        folder.mkdir(parents=True, exist_ok=True)
        for name in rng.sample(FILES, rng.randint(0, 6)) + ["9.png"] * (rng.random() < 0.8):
            (folder / name).touch()
        if rng.random() < 0.2:
            (folder / "round").symlink_to(rng.choice([root, folder, Path("round")]))
        if rng.random() < 0.1:
            (folder / "gone.png").symlink_to("nowhere")
    if rng.random() < 0.1:
        (root / "loose.png").touch()


IMAGES = {".png", ".jpg", ".jpeg", ".tiff", ".webp"}
SYSTEM = {"@eaDir", "__MACOSX", "$RECYCLE.BIN"}


@pytest.mark.parametrize("part", range(2))
def test_a_mutated_folder_is_read_whole_or_refused(part: int, tmp_path: Path) -> None:
    outcomes = {"read": 0, "refused": 0}
    root = tmp_path / "photos"
    for seed in range(part, NUMBER // 3, 2):
        tree(random.Random(seed), root)  # noqa: S311
        source, said = read(root)
        outcomes["read" if source else "refused"] += 1
        if source is None:
            assert str(root) in said or "photos" in said, f"seed {seed}: {said}"
            continue
        files = [path for path in root.rglob("*") if path.is_file() and path.name != "folder.ico"]
        kept = [path.relative_to(root) for path in files if path.suffix.lower() in IMAGES]
        seen = [path for path in kept if not any(part[0] == "." or part in SYSTEM for part in path.parts)]
        loose = {path for path in seen if len(path.parts) == 1}
        assert not loose or "skipped 1 image next to train/: loose.png" in said
        assert {row.path for row in source.rows} == {path.as_posix() for path in seen if path not in loose}, seed
        for row in source.rows:
            first, second, *_ = row.path.split("/")
            assert row.label == (second if row.split else first)
            assert row.split in ("", first)
        for path in kept:  # a hidden image is told, unless it is what macOS leaves or in a hidden folder
            if path.name == ".4.png" and not any(part[0] == "." or part in SYSTEM for part in path.parts[:-1]):
                assert ".4.png" in said or "nested" in path.parts, f"seed {seed}: {said}"
        for path in files:
            if path.name == "v.mp4" and not any(part[0] == "." or part in SYSTEM for part in path.parent.parts):
                assert "v.mp4" in said or " more" in said, f"seed {seed}: {said}"
    assert min(outcomes.values()) > 5, outcomes


def test_no_draw_depends_on_the_order_of_the_lines(images: Path) -> None:
    rng = random.Random(0)  # noqa: S311
    lines = [f"{path.relative_to(images).as_posix()},{'ab'[i % 2]}" for i, path in enumerate(images.rglob("*.png"))]
    drawn = []
    for _ in range(5):
        rng.shuffle(lines)
        (images / "list.csv").write_text("\n".join(["path,label", *lines]))
        rows = read_images(images / "list.csv").rows
        drawn.append(assign_splits(rows, rate=60, val_fraction=0.2, test_fraction=0.2, seed=3))
    assert all(rows == drawn[0] for rows in drawn)
