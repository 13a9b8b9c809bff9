"""Images on a device: uploaded once, found again by their content, and gone with their store."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from stochnorm.data import ImageStore, Preprocessing, read_source
from stochnorm.data.images import resident as module
from stochnorm.data.images.resident import ResidentImages, fits, keep, release, resident

CPU = torch.device("cpu")
SMALL = Preprocessing(14)
BYTES = 3 * SMALL.resize**2  # of an image


@pytest.fixture(autouse=True)
def _released() -> Iterator[None]:
    yield
    release()


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of images of each upload."""
    counts: list[int] = []

    class Counted(ResidentImages):
        def __init__(self, store: ImageStore, indices: Sequence[int], device: torch.device) -> None:
            counts.append(len(indices))
            super().__init__(store, indices, device)

    monkeypatch.setattr(module, "ResidentImages", Counted)
    return counts


def store_of(photos: Path, preprocessing: Preprocessing = SMALL) -> ImageStore:
    source = read_source(photos)
    return ImageStore(source.root, source.rows, preprocessing)


def images_of(
    store: ImageStore, *indices: int, device: torch.device = CPU, free: float | None = None
) -> tuple[torch.Tensor, torch.Tensor] | None:
    return resident(store, indices, device, free=free)


def test_each_image_is_where_its_slot_says(photos: Path, monkeypatch: pytest.MonkeyPatch, job_device: str) -> None:
    monkeypatch.setattr(module, "_CHUNK", 4 * BYTES)  # 30 images in 8 chunks
    store, device = store_of(photos), torch.device(job_device)
    found = images_of(store, 7, 0, 29, device=device)
    assert found is not None
    images, slots = found
    assert images.shape == (30, 16, 16, 3)
    assert images.device.type == slots.device.type == device.type
    for place, index in enumerate((7, 0, 29)):
        assert torch.equal(images[slots[place]].cpu(), store[index].movedim(0, -1))


def test_splits_of_a_store_share_one_upload(photos: Path, uploads: list[int]) -> None:
    store = store_of(photos)
    train, val = images_of(store, 0, 1), images_of(store, 2)
    assert train is not None
    assert val is not None
    assert train[0] is val[0]
    assert uploads == [30]


def test_a_store_that_does_not_fit_uploads_the_split_that_asks_first(photos: Path, uploads: list[int]) -> None:
    store, free = store_of(photos), 4 * 5 * BYTES
    train = images_of(store, 3, 1, 4, free=free)
    assert train is not None
    assert train[1].tolist() == [0, 1, 2]
    assert images_of(store, 5, 6, free=free) is None  # it would take the place of those that train
    part = images_of(store, 4, 1, free=free)
    assert part is not None
    assert part[1].tolist() == [2, 1]
    assert uploads == [3]
    assert images_of(store_of(photos), *range(6), free=free) is None


def test_images_fit_into_a_quarter_of_the_free_memory() -> None:
    assert fits(10, 16, 4 * 10 * BYTES)
    assert not fits(10, 16, 4 * 10 * BYTES - 1)


def test_images_are_gone_with_their_store(photos: Path) -> None:
    store = store_of(photos)
    found = images_of(store, 0)
    assert found is not None
    images = weakref.ref(found[0])
    del found, store
    gc.collect()
    assert images() is None


def test_kept_images_are_found_by_the_next_store(photos: Path, uploads: list[int]) -> None:
    keep()
    first = images_of(store_of(photos), 0)
    gc.collect()
    again = images_of(store_of(photos), 8, 2)
    assert first is not None
    assert again is not None
    assert again[0] is first[0]
    assert again[1].tolist() == [8, 2]
    assert uploads == [30]


@pytest.mark.parametrize(
    "change",
    [
        lambda photos: (photos / "blue/000.png").write_bytes((photos / "red/000.png").read_bytes()),
        lambda photos: (photos / "green/004.png").rename(photos / "green/new.png"),
    ],
)
def test_changed_images_are_uploaded_again(photos: Path, uploads: list[int], change: Callable[[Path], object]) -> None:
    keep()
    images_of(store_of(photos), 0)
    change(photos)
    store = store_of(photos)
    found = images_of(store, *range(30))
    assert found is not None
    assert torch.equal(found[0][found[1][0]], store[0].movedim(0, -1))
    assert uploads == [30, 30]


def test_another_size_or_device_is_another_upload(photos: Path, uploads: list[int]) -> None:
    keep()
    for preprocessing in (SMALL, Preprocessing(16), Preprocessing(14, interpolation="bicubic")):
        images_of(store_of(photos, preprocessing), 0)
    images_of(store_of(photos, preprocessing), 0, device=torch.device("meta"))
    assert uploads == [30] * 4


def test_kept_images_are_dropped_before_others_are_uploaded(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep()
    found = images_of(store_of(photos), 0)
    assert found is not None
    images = weakref.ref(found[0])
    del found
    gc.collect()
    assert images() is not None
    alive = []

    def upload(store: ImageStore, indices: Sequence[int], device: torch.device) -> ResidentImages:
        gc.collect()
        alive.append(images() is not None)
        return ResidentImages(store, indices, device)

    monkeypatch.setattr(module, "ResidentImages", upload)
    images_of(store_of(photos, Preprocessing(16)), 0)
    assert alive == [False]


def test_a_device_that_is_full_after_all_gets_no_images(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("another process was faster")

    monkeypatch.setattr(module, "ResidentImages", full)
    assert images_of(store_of(photos), 0) is None
