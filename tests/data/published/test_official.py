"""Published data sets: recognised, compared with the official facts, and verified."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torchvision.datasets import FGVCAircraft, StanfordCars

from stochnorm.data import DATASETS, Source, read_source, verify
from stochnorm.data.published.cub import list_cub

Count = Callable[[Source], dict[str, int]]


Write = Callable[[str, Path], Path]


NAMES = ("cub", "cars", "aircraft", "chestxray14")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("inside", [False, True])
def test_each_format_is_recognised_by_its_files(name: str, inside: bool, tmp_path: Path, write_official: Write) -> None:
    folder = tmp_path / DATASETS[name].folder
    write_official(name, folder)
    with pytest.warns(UserWarning, match=rf"{DATASETS[name].title} in .* is not the official set: \d+ of .* classes"):
        source = read_source(tmp_path if inside else folder)
    assert source.name == name
    assert source.root == folder.resolve()
    assert source.rows
    assert all((source.root / row.path).is_file() for row in source.rows)


@pytest.mark.parametrize("name", NAMES)
def test_a_set_of_the_official_size_is_complete(
    name: str, tmp_path: Path, write_official: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_official(name, tmp_path)
    monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], counts=verify(root).found, class_digest=""))
    report = verify(root)
    assert report.ok, report.lines()
    assert "complete" in report.lines()[0]
    assert read_source(root).rows  # and no warning, which would be an error here


@pytest.mark.parametrize("name", NAMES)
def test_missing_images_are_counted_and_named_and_surplus_ones_left_out(
    name: str, tmp_path: Path, write_official: Write
) -> None:
    root = write_official(name, tmp_path)
    images = sorted(path for pattern in ("*.jpg", "*.png") for path in root.rglob(pattern))
    shutil.copy(images[0], images[0].with_name("surplus" + images[0].suffix))
    with pytest.warns(UserWarning, match=r"skipped 1 image file not listed \(.*surplus"):
        source = read_source(root)
    assert not [row for row in source.rows if "surplus" in row.path]
    lost = [path.relative_to(root).as_posix() for path in images[3:5]]
    for path in lost:
        (root / path).unlink()
    names = [Path(path).name for path in lost]
    with pytest.raises(FileNotFoundError, match=rf"2 of \d+ listed images do not exist under .*{names[0]}.*{names[1]}"):
        read_source(root)
    report = verify(root)
    assert not report.ok
    if name == "chestxray14":  # which of the folders they should lie in, no list says
        lost = [f"images_*/{name}" for name in names]
    assert report.missing == tuple(lost)
    assert [Path(path).stem for path in report.surplus] == ["surplus"]
    assert any(lost[0] in line for line in report.lines())


def test_a_class_with_test_images_only_is_an_error(cub: Path) -> None:
    numbers = "\n".join(f"{n + 1} {int(n < 6)}" for n in range(20))
    (cub / "train_test_split.txt").write_text(numbers)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"without training images: 002.Laysan_Albatross"):
        read_source(cub)


def test_classes_without_images_are_left_out(cub: Path) -> None:
    (cub / "classes.txt").write_text((cub / "classes.txt").read_text() + "\n3 003.Sooty_Albatross")
    assert len(list_cub(cub).classes) == 3
    with pytest.warns(UserWarning, match="2 of 200 classes"):
        assert read_source(cub).classes == ("001.Black_footed_Albatross", "002.Laysan_Albatross")


def test_linked_folders_of_images_are_followed(cub: Path, tmp_path: Path) -> None:
    folder = cub / "images/002.Laysan_Albatross"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert not verify(cub).missing


def test_class_names_that_are_not_the_official_ones_are_noticed(cub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "cub", replace(DATASETS["cub"], counts={"classes": 2}))
    assert verify(cub).problems == ("the class names are not the official ones",)


def test_verify_says_which_files_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"looked for CUB-200-2011: images.txt.*Stanford Cars: devkit/cars_meta"
    ):
        verify(tmp_path)


@pytest.mark.parametrize(
    ("name", "lists", "message"),
    [
        ("cub", ["*.txt"], r"cub has no images.txt, image_class_labels.txt, train_test_split.txt, classes.txt"),
        ("cub", ["[!i]*.txt", "image_*.txt"], r"has no image_class_labels.txt, train_test_split.txt, classes.txt"),
        (
            "cars",
            ["devkit", "*.mat"],
            r"neither .*/cars nor .*/cars/devkit has cars_meta.mat and cars_train_annos.mat",
        ),
        ("cars", ["devkit"], r"has cars_meta.mat and cars_train_annos.mat; copy them from the devkit"),
        (
            "aircraft",
            ["data/*.txt"],
            "aircraft/data has no variants.txt, images_variant_train.txt, images_variant_val.txt, "
            "images_variant_test.txt",
        ),
        ("chestxray14", ["*.csv"], r"chestxray14 has no Data_Entry_2017.csv \(or Data_Entry_2017_v2020.csv\)"),
        ("chestxray14", ["*.csv", "*.txt"], r"chestxray14 has no Data_Entry_2017.csv"),
    ],
)
def test_images_without_their_lists_are_not_a_folder_per_class(
    name: str, lists: list[str], message: str, tmp_path: Path, write_official: Write
) -> None:
    root = write_official(name, tmp_path / name)
    for path in [path for pattern in lists for path in root.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"taken for {DATASETS[name].title} by its files: .*{message}"):
        read_source(root)
    assert not verify(root).ok
    assert DATASETS[name].title in verify(root).lines()[0]


@pytest.mark.parametrize(
    "files",
    [
        ["cat/1234567.jpg", "dog/1234568.jpg", "classes.txt", "test_list.txt", "train_val_list.txt"],
        ["images/1234567.jpg", "masks/1234567.jpg", "images.txt"],
        ["images/001.jpg", "masks/001.jpg", "classes.txt"],
        ["images_001/1.png", "images_002/2.png"],
        ["cars_train/1.jpg", "buses/1.jpg"],
        ["data/1234567.jpg", "other/1.jpg", "train_test_split.txt"],
    ],
)
def test_a_folder_per_class_is_not_taken_for_a_published_set(
    files: list[str], tmp_path: Path, write_images: Callable[..., list[Path]]
) -> None:
    for name in files:
        path = tmp_path / "mine" / name
        (image,) = write_images(path.parent, 1, suffix=".jpg")
        image.rename(path)
    images = [name for name in files if not name.endswith("txt")]
    assert [row.path for row in read_source(tmp_path / "mine").rows] == sorted(images)


def test_lists_that_name_no_image_are_errors(cub: Path, nih: Path) -> None:
    for name in ("images", "image_class_labels", "train_test_split", "classes"):
        (cub / f"{name}.txt").write_text("")
    with pytest.raises(ValueError, match="cub: the lists of CUB-200-2011 name no image"):
        read_source(cub)
    for name in ("train_val_list.txt", "test_list.txt"):
        (nih / name).write_text("")
    with pytest.raises(ValueError, match=r"is in none of train_val_list.txt, test_list.txt"):
        read_source(nih)


def test_missing_images_that_are_elsewhere_are_found(cars: Path) -> None:
    for split in ("cars_train", "cars_test"):  # as a much-used copy of the set has them
        (cars / split).rename(cars / "inner")
        (cars / split).mkdir()
        (cars / "inner").rename(cars / split / split)
    with pytest.raises(
        FileNotFoundError,
        match=r"12 of them are in cars_test/cars_test/; move them to cars_test/; 12 of them are in cars_train/cars_t",
    ):
        read_source(cars)


@pytest.mark.filterwarnings("ignore:.*is not the official set")
def test_images_with_extensions_in_upper_case_are_found(cub: Path) -> None:
    for path in cub.rglob("*.jpg"):
        path.rename(path.with_suffix(".JPG"))
    (cub / "images.txt").write_text((cub / "images.txt").read_text().replace(".jpg", ".JPG"))
    assert len(read_source(cub).rows) == 20


@pytest.mark.filterwarnings("ignore:.*is not the official set")
def test_newer_tables_of_radiographs_and_flat_devkits_are_read(nih: Path, cars: Path, splits: Count) -> None:
    (nih / "Data_Entry_2017.csv").rename(nih / "Data_Entry_2017_v2020.csv")
    assert len(read_source(nih).rows) == 41
    for path in (cars / "devkit").iterdir():
        path.rename(cars / path.name)
    assert splits(read_source(cars)) == {"train": 12, "test": 12}


def test_counts_are_the_published_ones() -> None:
    assert {name: dict(DATASETS[name].counts) for name in NAMES} == {
        "cub": {"classes": 200, "images": 11788, "train": 5994, "test": 5794},
        "cars": {"classes": 196, "images": 16185, "train": 8144, "test": 8041},
        "aircraft": {"classes": 100, "images": 10000, "train": 3334, "val": 3333, "test": 3333},
        "chestxray14": {"classes": 14, "images": 112120, "patients": 30805, "train": 86524, "test": 25596},
    }


@pytest.mark.filterwarnings("ignore:.*is not the official set")
def test_cars_and_aircraft_are_read_as_torchvision_reads_them(tmp_path: Path, write_official: Write) -> None:
    aircraft = read_source(write_official("aircraft", tmp_path / "fgvc-aircraft-2013b"))
    cars = read_source(write_official("cars", tmp_path / "stanford_cars"))

    def ours(source: Source, split: str) -> dict[str, int]:
        return {
            str(source.root / row.path): source.classes.index(row.label) for row in source.rows if row.split == split
        }

    for split in ("train", "val", "test"):
        theirs = FGVCAircraft(tmp_path.resolve(), split, "variant")
        assert dict(zip(map(str, theirs._image_files), theirs._labels, strict=True)) == ours(aircraft, split)
        assert tuple(theirs.classes) == aircraft.classes
    for split in ("train", "test"):
        assert dict(StanfordCars(tmp_path.resolve(), split)._samples) == ours(cars, split)
        assert tuple(StanfordCars(tmp_path.resolve(), split).classes) == cars.classes
