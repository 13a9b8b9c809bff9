"""Data sets in their official formats: generated ones, and the real ones beside the checkout."""

from __future__ import annotations

import csv
import gzip
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from torchvision.datasets import FGVCAircraft, StanfordCars

from stochnorm.data import DATASETS, Source, assign_splits, findings, read_source, verify
from stochnorm.data.published.aircraft import list_aircraft
from stochnorm.data.published.cars import list_cars
from stochnorm.data.published.chestxray14 import FINDINGS, list_chestxray14
from stochnorm.data.published.cub import list_cub

Write = Callable[[str, Path], Path]
NAMES = ("cub", "cars", "aircraft", "chestxray14")


def splits(source: Source) -> dict[str, int]:
    return dict(Counter(row.split for row in source.rows))


@pytest.fixture
def cub(tmp_path: Path, write_official: Write) -> Path:
    return write_official("cub", tmp_path / "cub")


@pytest.fixture
def cars(tmp_path: Path, write_official: Write) -> Path:
    return write_official("cars", tmp_path / "cars")


@pytest.fixture
def aircraft(tmp_path: Path, write_official: Write) -> Path:
    return write_official("aircraft", tmp_path / "aircraft")


@pytest.fixture
def nih(tmp_path: Path, write_official: Write) -> Path:
    return write_official("chestxray14", tmp_path / "nih")


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


def test_cub_is_read_as_its_lists_say(cub: Path) -> None:
    with pytest.warns(UserWarning, match="2 of 200 classes, 20 of 11,788 images, 12 of 5,994 train, 8 of 5,794 test"):
        source = read_source(cub)
    assert source.classes == ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    assert Counter((row.label, row.split) for row in source.rows) == {
        (name, split): n for name in source.classes for split, n in (("train", 6), ("test", 4))
    }
    path = "images/001.Black_footed_Albatross/Black_footed_Albatross_0006.jpg"
    assert next(row for row in source.rows if row.path == path)[1:3] == ("001.Black_footed_Albatross", "test")


def test_cars_have_the_classes_and_order_of_the_devkit(cars: Path) -> None:
    source = list_cars(cars)
    assert source.classes == ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012")
    assert [row[:3] for row in source.rows[:2]] == [
        ("cars_train/00001.jpg", "AM General Hummer SUV 2000", "train"),
        ("cars_train/00002.jpg", "Ram C/V Cargo Van Minivan 2012", "train"),
    ]
    assert splits(source) == {"train": 12, "test": 12}


def test_generated_cars_have_the_layout_of_the_real_devkit(cars: Path, shared: Path) -> None:
    real, generated = (
        loadmat(folder / "devkit/cars_train_annos.mat")["annotations"]
        for folder in (shared / "data/annotations/Stanford_Cars", cars)
    )
    assert generated.dtype == real.dtype
    assert (generated.ndim, generated.shape[0]) == (real.ndim, real.shape[0])
    for field in real.dtype.names:
        assert generated[0, 0][field].shape == real[0, 0][field].shape


def test_cars_train_without_the_labels_of_the_test_images(cars: Path) -> None:
    (cars / "cars_test_annos_withlabels.mat").unlink()
    names = [(key, object) for key in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "fname")]
    unlabelled = np.array([(1, 2, 3, 4, f"{n:05d}.jpg") for n in (1, 2)], dtype=names)
    savemat(cars / "devkit/cars_test_annos.mat", {"annotations": unlabelled[None]})
    with pytest.warns(UserWarning, match="0 of 8,041 test; cars_test_annos_withlabels.mat is neither in .*no classes"):
        source = read_source(cars)
    assert splits(source) == {"train": 12}
    assert not verify(cars).surplus


def test_a_mat_file_that_is_none_is_named(cars: Path) -> None:
    (cars / "devkit/cars_meta.mat").write_bytes(b"<html>not found</html>" * 20)
    with pytest.raises(ValueError, match=r"cars_meta.mat: cannot be read as a .mat file"):
        read_source(cars)
    (cars / "devkit/cars_meta.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither .* nor .*devkit holds cars_meta.mat; copy"):
        read_source(cars)


def test_aircraft_keep_their_three_splits_and_names_with_spaces(aircraft: Path) -> None:
    source = list_aircraft(aircraft)
    assert source.classes == ("707-320", "F/A-18", "Boeing 717")  # the order of variants.txt
    assert splits(source) == {"train": 12, "val": 12, "test": 12}
    assert {row.label for row in source.rows} == set(source.classes)
    for split in ("train", "val"):
        (aircraft / f"data/images_variant_{split}.txt").unlink()
    assert splits(list_aircraft(aircraft)) == {"train": 24, "test": 12}
    assert splits(list_aircraft(aircraft / "data")) == {"train": 24, "test": 12}


def test_aircraft_lists_that_contradict_each_other_are_errors(aircraft: Path) -> None:
    trainval = aircraft / "data/images_variant_trainval.txt"
    trainval.write_text(trainval.read_text() + "\n9999999 F/A-18\n")
    with pytest.raises(ValueError, match=r"trainval.txt is not the train and val lists together"):
        list_aircraft(aircraft)
    trainval.unlink()
    test = aircraft / "data/images_variant_test.txt"
    test.write_text("1000000 707-320\n")
    with pytest.raises(ValueError, match=r"1 images are listed more than once: data/images/1000000.jpg"):
        read_source(aircraft)
    test.write_text("1000030 Concorde\n")
    with pytest.raises(ValueError, match=r"not in variants.txt: Concorde"):
        list_aircraft(aircraft)
    (aircraft / "data/images_variant_train.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"aircraft/data is without images_variant_train.txt; copy"):
        list_aircraft(aircraft)


def test_chest_radiographs_are_multi_label_with_patients_as_groups(nih: Path) -> None:
    with pytest.warns(UserWarning, match=r"3 of 14 classes.*20 of 30,805 patients"):
        source = read_source(nih)
    assert source.multi_label
    assert source.classes == ("Cardiomegaly", "Effusion", "Hernia")  # the official order, and only those with images
    rows = {row.path: row for row in source.rows}
    assert rows["images_002/images/00000001_000.png"].label == "Effusion"
    assert rows["images_002/images/00000001_001.png"].label == "Cardiomegaly|Effusion"
    assert rows["images_001/images/00000004_000.png"].label == ""
    assert rows["images_001/images/00000004_000.png"].group == "4"
    assert {int(row.group) <= 14: row.split for row in source.rows} == {True: "train", False: "test"}


def test_radiographs_may_lie_in_one_folder_and_without_lists_have_no_split(nih: Path) -> None:
    (nih / "images").mkdir()
    for path in nih.glob("images_*/images/*.png"):
        path.rename(nih / "images" / path.name)
    for name in ("train_val_list.txt", "test_list.txt"):
        (nih / name).unlink()
    with pytest.warns(UserWarning, match=r"neither train_val_list.txt nor test_list.txt in .*split by patient"):
        source = read_source(nih)
    assert {row.split for row in source.rows} == {""}
    assert all(row.path.startswith("images/") for row in source.rows)
    assigned = assign_splits(source.rows, rate=100, val_fraction=0.2, test_fraction=0.2, seed=0, multi_label=True)
    patients = Counter(group for group, _ in {(row.group, row.split) for row in assigned})
    assert len(patients) == 20
    assert set(patients.values()) == {1}


def test_findings_that_are_rare_or_only_tested_can_be_no_classes(nih: Path) -> None:
    assert list_chestxray14(nih, min_images=7).classes == ("Effusion",)  # 12 images outside the test list; the others 6
    assert {row.label for row in list_chestxray14(nih, min_images=7).rows} == {"", "Effusion"}
    table = nih / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("00000020_000.png,No Finding", "00000020_000.png,Mass"))
    assert "Mass" not in list_chestxray14(nih).classes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Hernia", "Covid", r"Data_Entry_2017.csv:\d+: unknown findings Covid"),
        ("00000002_001.png", "00000002_000.png", "listed before"),
        ("00000002_001.png", "00000099_001.png", "00000099_001.png is in none of train_val_list.txt, test_list.txt"),
        ("Patient ID", "Patient", "must name the columns Image Index, Finding Labels, Patient ID"),
    ],
)
def test_a_bad_table_of_radiographs_is_named(nih: Path, old: str, new: str, message: str) -> None:
    table = nih / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_source(nih)


def test_one_radiograph_list_alone_or_an_image_in_both_is_an_error(nih: Path) -> None:
    train = (nih / "train_val_list.txt").read_text()
    (nih / "train_val_list.txt").write_text(train + "\n00000020_000.png")
    with pytest.raises(ValueError, match=r"images in train_val_list.txt and test_list.txt: 00000020_000.png"):
        read_source(nih)
    (nih / "train_val_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"nih is without train_val_list.txt; copy"):
        read_source(nih)


def test_patients_in_both_official_lists_are_a_problem(nih: Path) -> None:
    table = nih / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("00000020_000.png,No Finding,0,20,", "00000020_000.png,No Finding,0,1,"))
    assert any("1 patients are in two splits: 1" in problem for problem in verify(nih).problems)


@pytest.mark.parametrize("name", NAMES)
def test_missing_images_are_counted_and_named_and_surplus_ones_left_out(
    name: str, tmp_path: Path, write_official: Write
) -> None:
    root = write_official(name, tmp_path)
    images = sorted(path for pattern in ("*.jpg", "*.png") for path in root.rglob(pattern))
    shutil.copy(images[0], images[0].with_name("surplus" + images[0].suffix))
    with pytest.warns(UserWarning, match=r"1 image files in no list, left out \(.*surplus"):
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


def test_a_missing_or_contradicting_list_of_cub_is_named(cub: Path) -> None:
    labels = (cub / "image_class_labels.txt").read_text()
    for text, message in (
        (labels + "\n99 1", "image_class_labels.txt: does not number the images of images.txt: 99"),
        (labels.replace("\n20 2", "\n20 7"), "image 20 has class 7 and split 0"),
        (labels.replace("\n20 2", "\n20 1"), "image 20 is 002.Laysan_Albatross/.*, but of class 001"),
        (labels.replace("\n20 2", "\n20"), "'20' has no value"),
        (labels + "\n20 2", "'20 2' repeats its key"),
    ):
        (cub / "image_class_labels.txt").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_source(cub)
        assert message.split(":")[-1].split(",")[0][:9] in verify(cub).problems[0]
    (cub / "image_class_labels.txt").write_text(labels)
    (cub / "classes.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"taken for CUB-200-2011 .*: .*cub is without classes.txt; copy"):
        read_source(cub)


def test_a_class_with_test_images_only_is_an_error(cub: Path) -> None:
    numbers = "\n".join(f"{n + 1} {int(n < 6)}" for n in range(20))
    (cub / "train_test_split.txt").write_text(numbers)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=r"without training images: 002.Laysan_Albatross"):
        read_source(cub)


def test_classes_without_images_are_no_classes(cub: Path) -> None:
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


def test_verify_says_where_it_looked_for_what(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"looked for CUB-200-2011: images.txt.*Stanford Cars: devkit/cars_meta"
    ):
        verify(tmp_path)


@pytest.mark.parametrize(
    ("name", "lists", "message"),
    [
        ("cub", ["*.txt"], r"cub is without images.txt, image_class_labels.txt, train_test_split.txt, classes.txt"),
        ("cub", ["[!i]*.txt", "image_*.txt"], r"is without image_class_labels.txt, train_test_split.txt, classes.txt"),
        (
            "cars",
            ["devkit", "*.mat"],
            r"neither .*/cars nor .*/cars/devkit holds cars_meta.mat and cars_train_annos.mat",
        ),
        ("cars", ["devkit"], r"holds cars_meta.mat and cars_train_annos.mat; copy them from the devkit"),
        (
            "aircraft",
            ["data/*.txt"],
            "aircraft/data is without variants.txt, images_variant_train.txt, images_variant_val.txt, "
            "images_variant_test.txt",
        ),
        ("chestxray14", ["*.csv"], r"chestxray14 is without Data_Entry_2017.csv \(or Data_Entry_2017_v2020.csv\)"),
        ("chestxray14", ["*.csv", "*.txt"], r"chestxray14 is without Data_Entry_2017.csv"),
    ],
)
def test_images_without_their_lists_are_no_folder_per_class(
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


def test_an_image_that_a_list_of_cub_has_twice_is_an_error(cub: Path) -> None:
    path = "001.Black_footed_Albatross/Black_footed_Albatross_0000.jpg"  # trains as number 1, would test as 21
    for name, value in (("images", path), ("image_class_labels", "1"), ("train_test_split", "0")):
        (cub / f"{name}.txt").write_text((cub / f"{name}.txt").read_text() + f"\n21 {value}")
    with pytest.raises(ValueError, match=rf"1 images are listed more than once: images/{path}; mend the lists"):
        read_source(cub)
    assert "more than once" in verify(cub).problems[0]


def test_an_image_that_a_list_of_cars_has_twice_is_an_error(cars: Path) -> None:
    path = cars / "devkit/cars_train_annos.mat"
    annotations = loadmat(path)["annotations"]
    savemat(path, {"annotations": np.concatenate([annotations, annotations[:, :1]], axis=1)})
    with pytest.raises(ValueError, match=r"1 images are listed more than once: cars_train/00001.jpg"):
        read_source(cars)


@pytest.mark.parametrize("size", [0, 50, 128, 200, 600])
def test_a_mat_file_that_is_cut_is_named(cars: Path, size: int) -> None:
    path = cars / "devkit/cars_train_annos.mat"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"cars_train_annos.mat: cannot be read as a .mat file .*; copy it anew"):
        read_source(cars)
    assert "cars_train_annos.mat: cannot be read" in verify(cars).problems[0]


@pytest.mark.parametrize("fault", ["cut", "flipped", "no gzip"])
def test_a_damaged_gzip_file_is_named(nih: Path, fault: str) -> None:
    data = gzip.compress((nih / "Data_Entry_2017.csv").read_bytes())
    damaged = {"cut": data[:60], "flipped": data[:30] + b"\xff" * 30 + data[60:], "no gzip": b"path,label"}[fault]
    (nih / "Data_Entry_2017.csv").unlink()
    (nih / "Data_Entry_2017.csv.gz").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"Data_Entry_2017.csv.gz: cannot be read as a .gz file .*; copy it anew"):
        read_source(nih)
    assert "Data_Entry_2017.csv.gz: cannot be read" in verify(nih).problems[0]


def test_lists_that_name_no_image_are_errors(cub: Path, nih: Path) -> None:
    for name in ("images", "image_class_labels", "train_test_split", "classes"):
        (cub / f"{name}.txt").write_text("")
    with pytest.raises(ValueError, match="cub: the lists of CUB-200-2011 name no image"):
        read_source(cub)
    for name in ("train_val_list.txt", "test_list.txt"):
        (nih / name).write_text("")
    with pytest.raises(ValueError, match=r"is in none of train_val_list.txt, test_list.txt"):
        read_source(nih)


@pytest.mark.parametrize("layout", ["images_01/images", "images_001", "images_001/images_001/images", "images/part 1"])
def test_radiographs_are_found_in_whatever_folders_the_archives_were_unpacked_to(nih: Path, layout: str) -> None:
    (nih / "unpacked").mkdir()
    for path in nih.glob("images_*/images/*.png"):
        path.rename(nih / "unpacked" / path.name)
    for folder in nih.glob("images_*"):
        shutil.rmtree(folder)
    (nih / layout).parent.mkdir(parents=True, exist_ok=True)
    (nih / "unpacked").rename(nih / layout)
    with pytest.warns(UserWarning, match=r"is not the official set: [^;]*$"):  # but for the counts, no problem
        assert {str(Path(row.path).parent) for row in read_source(nih).rows} == {layout}


def test_absent_archives_of_radiographs_are_named(nih: Path) -> None:
    shutil.rmtree(nih / "images_002")
    absent = ", ".join(f"images_{i:03d}" for i in range(2, 13))
    with pytest.raises(FileNotFoundError, match=rf"listed images do not exist under .*; no folder {absent} in "):
        read_source(nih)


def test_missing_images_that_lie_elsewhere_are_said_to(cars: Path) -> None:
    for split in ("cars_train", "cars_test"):  # as a much-used copy of the set has them
        (cars / split).rename(cars / "inner")
        (cars / split).mkdir()
        (cars / "inner").rename(cars / split / split)
    with pytest.raises(
        FileNotFoundError,
        match=r"12 of them lie in cars_test/cars_test/; move them to cars_test/; 12 of them lie in cars_train/cars_t",
    ):
        read_source(cars)


@pytest.mark.filterwarnings("ignore:.*is not the official set")
def test_images_with_extensions_in_upper_case_are_found(cub: Path) -> None:
    for path in cub.rglob("*.jpg"):
        path.rename(path.with_suffix(".JPG"))
    (cub / "images.txt").write_text((cub / "images.txt").read_text().replace(".jpg", ".JPG"))
    assert len(read_source(cub).rows) == 20


@pytest.mark.filterwarnings("ignore:.*is not the official set")
def test_newer_tables_of_radiographs_and_devkits_without_a_folder_are_read(nih: Path, cars: Path) -> None:
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


# The real ones.


def test_real_cub_has_its_official_lists(shared: Path) -> None:
    report = verify(shared / "data/annotations/CUB_200_2011")
    assert report.found == {"classes": 200, "images": 11788, "train": 5994, "test": 5794}
    assert not report.differences
    assert len(report.missing) == 11788
    assert report.problems == (f"no folder images/ in {(shared / 'data/annotations/CUB_200_2011').resolve()}",)
    assert len(list_cub(shared / "data/annotations/CUB_200_2011").classes) == 200


def test_real_cub_100_is_read_with_a_warning(shared: Path) -> None:
    with pytest.warns(UserWarning, match="100 of 200 classes, 5,902 of 11,788 images, 2,999 of 5,994 train, 2,903 of"):
        source = read_source(shared / "data/CUB_100")
    assert len(source.classes) == 100
    assert splits(source) == {"train": 2999, "test": 2903}
    report = verify(shared / "data/CUB_100")
    assert (report.missing, report.surplus, report.problems) == ((), (), ())


def test_real_stanford_cars_have_196_names(shared: Path) -> None:
    source = list_cars(shared / "data/annotations/Stanford_Cars")
    assert len(set(source.classes)) == 196
    assert splits(source) == {"train": 8144}
    assert {row.label for row in source.rows} == set(source.classes)
    test = loadmat(shared / "data/annotations/Stanford_Cars/devkit/cars_test_annos.mat")["annotations"]
    assert test.shape == (1, 8041)
    report = verify(shared / "data/annotations/Stanford_Cars")
    assert not any("class names" in problem for problem in report.problems)


def test_real_chest_radiographs_have_their_official_counts(shared: Path) -> None:
    source = list_chestxray14(shared / "data/annotations/NIH_ChestXray14")
    assert splits(source) == {"train": 86524, "test": 25596}
    assert source.classes == FINDINGS
    assert len({row.group for row in source.rows}) == 30805
    train, test = ({row.group for row in source.rows if row.split == split} for split in ("train", "test"))
    assert not train & test
    positives = Counter(name for row in source.rows for name in findings(row.label))
    assert positives["Hernia"] == 227  # the published number of the rarest
    with gzip.open(shared / "data/annotations/NIH_ChestXray14/Data_Entry_2017.csv.gz", "rt") as file:
        none = sum(record["Finding Labels"] == "No Finding" for record in csv.DictReader(file))
    assert sum(not row.label for row in source.rows) == none


def test_real_radiographs_of_682_patients_are_split_by_patient(shared: Path) -> None:
    with pytest.warns(UserWarning, match=r"1,000 of 112,120 images, 682 of 30,805 patients"):
        source = read_source(shared / "data/NIH_1000")
    assert len(source.rows) == 1000
    assigned = assign_splits(source.rows, rate=100, val_fraction=0.2, test_fraction=0.2, seed=0, multi_label=True)
    parts = {split: {row.group for row in assigned if row.split == split} for split in ("train", "val", "test")}
    assert sum(len(groups) for groups in parts.values()) == 682
    assert len(set.union(*parts.values())) == 682
    assert len(parts["test"]) / 682 == pytest.approx(0.2, abs=0.01)
    for split in parts:
        rows = [row for row in assigned if row.split == split]
        positives = Counter(name for row in rows for name in findings(row.label))
        assert all(positives[name] for name in ("Pneumonia", "Infiltration", "Atelectasis", "Edema", "Effusion"))
