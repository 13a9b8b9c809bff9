"""What an inspection finds among real photographs with planted faults: those, and nothing else."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

import stochnorm
from stochnorm.data import list_images
from stochnorm.data.inspection.findings import KINDS
from stochnorm.data.inspection.inspect import Inspection, inspect_data

GROCERIES = Path(stochnorm.__file__).parent / "data/groceries"
CLASSES = "Asparagus", "Avocado", "Carrots"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Ten training and ten test photographs of each of three classes, no two alike."""
    names = sorted(path.name for path in (GROCERIES / "train").iterdir())[:3]
    for split in ("train", "test"):
        for label, name in zip(CLASSES, names, strict=True):
            folder = tmp_path / "shop" / split / label
            folder.mkdir(parents=True)
            for image in sorted((GROCERIES / split / name).iterdir())[:10]:
                shutil.copy(image, folder)
    return tmp_path / "shop"


def photo(shop: Path, label: str = CLASSES[0], number: int = 0) -> Image.Image:
    return Image.open(sorted((shop / "train" / label).iterdir())[number]).convert("RGB")


def rows(inspection: Inspection) -> set[tuple[str, str, str]]:
    """Return kind and the names of the two images of each finding."""
    names = [[Path(row.path).stem if row else "" for row in (f.image, f.other)] for f in inspection.findings]
    return {(finding.kind, *name) for finding, name in zip(inspection.findings, names, strict=True)}


def smaller(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def worse(image: Image.Image) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=30)
    return Image.open(data)


def brighter(image: Image.Image) -> Image.Image:
    return image.point(lambda value: min(255, int(1.2 * value) + 8))


CHANGES = [worse, smaller, brighter, ImageOps.grayscale, ImageOps.mirror]


def test_nothing_is_found_in_photographs_no_two_of_which_are_alike(shop: Path) -> None:
    inspection = inspect_data(shop)
    assert inspection.findings == []
    assert inspection.lines() == ["shop: 3 classes, 60 images, 30 train, 0 val, 30 test", "nothing found"]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_copy_is_found(shop: Path, change: Callable[[Image.Image], Image.Image]) -> None:
    original = photo(shop)
    change(original).convert("RGB").save(shop / f"test/{CLASSES[0]}/copy.png")
    stem = sorted((shop / "train" / CLASSES[0]).iterdir())[0].stem
    found = inspect_data(shop)
    assert ("leak", "copy", stem) in rows(found)
    assert {kind for kind, *_ in rows(found)} <= {"leak", "shortcut"}
    assert ("mirror" in found.of("leak")[0].value) == (change is ImageOps.mirror)


def test_copies_are_told_by_split_and_by_class(shop: Path) -> None:
    first, second, third = (sorted((shop / "train" / label).iterdir())[0] for label in CLASSES)
    shutil.copy(first, shop / f"train/{CLASSES[0]}/z-same.jpg")
    shutil.copy(second, shop / f"train/{CLASSES[2]}/z-other-class.jpg")
    for number in range(3):
        shutil.copy(third, shop / f"test/{CLASSES[2]}/z-test-{number}.jpg")
    found = inspect_data(shop)
    assert rows(found) == {
        ("duplicate", "z-same", first.stem),
        ("contradiction", "z-other-class", second.stem),
        ("leak", "z-test-0", third.stem),
        ("leak", "z-test-1", third.stem),
        ("leak", "z-test-2", third.stem),
        ("duplicate", "z-test-1", "z-test-0"),
        ("duplicate", "z-test-2", "z-test-0"),
    }
    assert {finding.value for finding in found.findings} == {"the same bytes"}
    assert found.counts == {"leak": 3, "contradiction": 1, "duplicate": 3}
    assert found.failed(["leak", "blank"]) == {"leak": 3}
    assert found.failed(["any"]) == found.counts
    assert found.failed([]) == {}


def test_odd_images_are_found_and_each_is_said_once(shop: Path) -> None:
    folder = shop / f"train/{CLASSES[1]}"
    image = photo(shop, CLASSES[2], 3)
    Image.new("RGB", (200, 200), (90, 120, 60)).save(folder / "blank.png")
    Image.new("RGB", (200, 200), (91, 120, 60)).save(folder / "blank-too.png")
    image.point(lambda value: value // 8).resize((150, 190)).rotate(180).save(folder / "dark.png")
    photo(shop, CLASSES[2], 4).rotate(180).filter(ImageFilter.GaussianBlur(5)).save(folder / "blurred.jpg")
    hidden = photo(shop, CLASSES[2], 5).rotate(180)
    hidden.putalpha(0)
    hidden.save(folder / "hidden.png")
    photo(shop, CLASSES[2], 6).rotate(180).resize((20, 24)).save(folder / "tiny.png")
    photo(shop, CLASSES[2], 7).rotate(180).resize((900, 200)).save(folder / "wide.png")
    (folder / "cut.jpg").write_bytes(sorted((shop / "train" / CLASSES[2]).iterdir())[8].read_bytes()[:3000])
    (folder / "text.jpg").write_text("no image")
    found = [(kind, name) for kind, name, _ in rows(inspect_data(shop)) if kind != "shortcut"]
    assert sorted(found) == [
        ("blank", "blank"), ("blank", "blank-too"), ("blurred", "blurred"), ("dark", "dark"), ("hidden", "hidden"),
        ("odd-shape", "wide"), ("odd-size", "tiny"), ("unreadable", "cut"), ("unreadable", "text"),
    ]  # fmt: skip


def test_small_and_uneven_classes_are_found(shop: Path) -> None:
    for split in ("train", "test"):
        for image in sorted((shop / split / CLASSES[0]).iterdir())[1:]:
            image.unlink()
    rng = np.random.default_rng(0)
    for number in range(20):
        noise = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((96, 96))
        noise.save(shop / f"train/{CLASSES[1]}/noise-{number}.png")
    found = inspect_data(shop)
    assert [finding.value for finding in found.of("small-class")] == ["Asparagus: 2 images"]
    assert [finding.value for finding in found.of("imbalance")] == ["Avocado has 40 images, Asparagus has 2"]


def test_a_camera_that_tells_splits_apart_is_found(shop: Path) -> None:
    for split, maker in (("train", "Nikon"), ("test", "Canon")):
        for path in (shop / split).glob("*/*.jpg"):
            image = Image.open(path)
            exif = image.getexif()
            exif[271], exif[272] = maker, f"{maker} X"
            image.save(path, exif=exif)
    found = inspect_data(shop)
    assert found.cameras == {"Nikon X": 30, "Canon X": 30}
    assert [f.value for f in found.findings] == [
        "camera tells splits apart: test is 100 % Canon X; train is 100 % Nikon X"
    ]
    assert "2 cameras by EXIF: Canon X (30), Nikon X (30)" in str(found)


def test_listed_images_that_do_not_exist_are_unreadable(shop: Path) -> None:
    lines = [f"{row.path},{row.label}" for row in list_images(shop).rows]
    manifest = shop / "list.csv"
    manifest.write_text("\n".join(["path,label", *lines, "gone.jpg,Avocado"]))
    assert rows(inspect_data(manifest)) == {("unreadable", "gone", "")}


def test_findings_are_a_row_each_and_safe_in_a_spreadsheet(shop: Path) -> None:
    image = sorted((shop / "train" / CLASSES[0]).iterdir())[0]
    shutil.copy(image, shop / f"test/{CLASSES[0]}/=1+1.jpg")
    (shop / f"train/{CLASSES[0]}/broken.jpg").write_bytes(b"")
    header, unreadable, leak = inspect_data(shop).csv().splitlines()
    assert header == "kind,path,other path,value,label,other label,split,other split"
    assert unreadable.startswith(
        "unreadable,train/Asparagus/broken.jpg,,cannot be read as an image (the file is empty)"
    )
    assert (
        leak
        == f"leak,test/Asparagus/=1+1.jpg,train/Asparagus/{image.name},the same bytes,Asparagus,Asparagus,test,train"
    )


def test_the_documentation_names_every_kind() -> None:
    text = (Path(__file__).parents[3] / "docs/inspect.md").read_text()
    assert [kind for kind in KINDS if f"`{kind}`" not in text] == []


def test_training_warns_of_images_that_are_nearly_the_same(
    shop: Path, config: Callable[..., stochnorm.FinetuneConfig], tmp_path: Path
) -> None:
    worse(photo(shop)).save(shop / f"test/{CLASSES[0]}/z-worse.jpg", quality=90)
    brighter(photo(shop, CLASSES[1])).save(shop / f"train/{CLASSES[2]}/z-brighter.jpg")
    with pytest.warns(UserWarning) as caught:
        stochnorm.finetune(config(shop, tmp_path / "run", steps=2, eval_every=0), quiet=True)
    said = [str(warning.message) for warning in caught if "nearly" in str(warning.message)]
    assert len(said) == 2
    assert (
        f"1 image nearly the same as others, in two splits, so scores are too optimistic: test/{CLASSES[0]}/z-w"
        in said[0]
    )
    assert f"under two classes: train/{CLASSES[2]}/z-brighter.jpg = train/{CLASSES[1]}/" in said[1]


def test_a_thing_in_another_colour_is_no_copy(shop: Path) -> None:
    red, green, blue = photo(shop).split()
    Image.merge("RGB", (blue, red, green)).save(shop / f"train/{CLASSES[1]}/recoloured.png")
    assert inspect_data(shop).counts in ({}, {"shortcut": 1})
