"""Stanford Cars: generated annotations, and the real ones next to the checkout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from stochnorm.data import Source, read_source, verify
from stochnorm.data.published.cars import list_cars

Count = Callable[[Source], dict[str, int]]


def test_cars_have_the_classes_and_order_of_the_devkit(cars: Path, splits: Count) -> None:
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


def test_cars_train_without_the_labels_of_the_test_images(cars: Path, splits: Count) -> None:
    (cars / "cars_test_annos_withlabels.mat").unlink()
    names = [(key, object) for key in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "fname")]
    unlabelled = np.array([(1, 2, 3, 4, f"{n:05d}.jpg") for n in (1, 2)], dtype=names)
    savemat(cars / "devkit/cars_test_annos.mat", {"annotations": unlabelled[None]})
    with pytest.warns(UserWarning, match="0 of 8,041 test; cars_test_annos_withlabels.mat is neither in .*no classes"):
        source = read_source(cars)
    assert splits(source) == {"train": 12}
    assert not verify(cars).surplus


def test_a_file_that_is_not_a_mat_file_is_named(cars: Path) -> None:
    (cars / "devkit/cars_meta.mat").write_bytes(b"<html>not found</html>" * 20)
    with pytest.raises(ValueError, match=r"cars_meta.mat: cannot be read as a .mat file"):
        read_source(cars)
    (cars / "devkit/cars_meta.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither .* nor .*devkit has cars_meta.mat; copy"):
        read_source(cars)


def test_an_image_that_a_list_of_cars_has_twice_is_an_error(cars: Path) -> None:
    path = cars / "devkit/cars_train_annos.mat"
    annotations = loadmat(path)["annotations"]
    savemat(path, {"annotations": np.concatenate([annotations, annotations[:, :1]], axis=1)})
    with pytest.raises(ValueError, match=r"1 image listed more than once: cars_train/00001.jpg"):
        read_source(cars)


@pytest.mark.parametrize("size", [0, 50, 128, 200, 600])
def test_a_mat_file_that_is_cut_is_named(cars: Path, size: int) -> None:
    path = cars / "devkit/cars_train_annos.mat"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"cars_train_annos.mat: cannot be read as a .mat file .*; copy it again"):
        read_source(cars)
    assert "cars_train_annos.mat: cannot be read" in verify(cars).problems[0]


def test_real_stanford_cars_have_196_names(shared: Path, splits: Count) -> None:
    source = list_cars(shared / "data/annotations/Stanford_Cars")
    assert len(set(source.classes)) == 196
    assert splits(source) == {"train": 8144}
    assert {row.label for row in source.rows} == set(source.classes)
    test = loadmat(shared / "data/annotations/Stanford_Cars/devkit/cars_test_annos.mat")["annotations"]
    assert test.shape == (1, 8041)
    report = verify(shared / "data/annotations/Stanford_Cars")
    assert not any("class names" in problem for problem in report.problems)
