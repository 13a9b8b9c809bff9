"""Batches depend on the seed and the step alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stochnorm.data import ImageStore, Preprocessing, Row, Split, read_source
from stochnorm.data.images.batches import network_inputs

SMALL = Preprocessing(image_size=14, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@pytest.fixture
def split(photos: Path) -> Split:
    source = read_source(photos)
    store = ImageStore(source.root, source.rows, SMALL)
    return Split(store, list(range(5, 30)), [0] * 5 + [1] * 10 + [2] * 10)


def test_batches_do_not_depend_on_where_one_starts_on_workers_or_on_prefetching(split: Split) -> None:
    whole = list(split.training_batches(8, range(7), seed=3))
    for other in (
        list(split.training_batches(8, range(4, 7), seed=3)),
        list(split.training_batches(8, range(4, 7), seed=3, workers=2)),
        list(split.training_batches(8, range(4, 7), seed=3, device=torch.device("mps"))),  # ahead, not pinned
    ):
        for (images, labels), (expected, expected_labels) in zip(other, whole[4:], strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(labels, expected_labels)


def test_steps_and_seeds_draw_other_crops(split: Split) -> None:
    one = Split(split.store, split.indices[:2], [0, 0])
    (first, _), (second, _) = one.training_batches(2, range(2), seed=0)
    assert len({image.numpy().tobytes() for image in (*first, *second)}) == 4
    ((other, _),) = one.training_batches(2, range(1), seed=1)
    assert not torch.equal(first.sort(0)[0], other.sort(0)[0])


def test_batches_are_channels_last(split: Split) -> None:
    images, _ = next(iter(split.training_batches(8, range(1), seed=0)))
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert next(iter(split.evaluation_batches(8))).is_contiguous(memory_format=torch.channels_last)


def test_a_gpu_has_its_batches_made_ahead(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    makers = []
    original = ImageStore.__getitem__

    def spy(store: ImageStore, index: int) -> torch.Tensor:
        makers.append(threading.current_thread() is threading.main_thread())
        return original(store, index)

    monkeypatch.setattr(ImageStore, "__getitem__", spy)
    list(split.training_batches(8, range(1), seed=0))
    list(split.training_batches(8, range(1), seed=0, device=torch.device("mps")))
    assert makers == [True] * 8 + [False] * 8


def test_only_batches_for_a_gpu_are_pinned(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda _: pytest.fail("pinned"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    list(split.training_batches(8, range(1), seed=0, device=torch.device("cpu")))
    list(split.evaluation_batches(8, device=torch.device("mps")))


def test_inputs_of_the_network_are_made_on_its_device(split: Split) -> None:
    meta = torch.device("meta")
    augmented = network_inputs(split.training_batches(4, range(1), seed=0, device=meta), SMALL, meta)
    for inputs, targets in augmented:
        assert inputs.shape == (4, 3, 14, 14)
        assert inputs.device == targets.device == meta


def test_an_image_that_breaks_while_it_is_prefetched_is_named_where_it_is_wanted(photos: Path) -> None:
    source = read_source(photos)
    store = ImageStore(source.root, source.rows, SMALL, cache="none")
    split = Split(store, [0, 1, 2, 3], [0, 0, 1, 1])
    for device in ("cpu", "mps"):
        (photos / source.rows[0].path).write_bytes(b"")
        with pytest.raises(ValueError, match=r"blue/000.png: cannot be read as an image"):
            list(split.training_batches(2, range(4), seed=0, device=torch.device(device)))
        assert not [thread for thread in threading.enumerate() if "ahead" in thread.name]


def test_an_epoch_sees_each_image_once(split: Split) -> None:
    labels = torch.cat([labels for _, labels in split.training_batches(5, range(5), seed=0)])
    assert labels.bincount().tolist() == [5, 10, 10]


def test_processes_share_each_batch(split: Split) -> None:
    (images, labels) = next(iter(split.training_batches(8, range(1), seed=0)))
    shares = [next(iter(split.training_batches(8, range(1), seed=0, rank=r, world_size=2))) for r in (0, 1)]
    for rank, (part, part_labels) in enumerate(shares):
        assert torch.equal(part, images[rank::2])
        assert torch.equal(part_labels, labels[rank::2])


def test_loading_leaves_the_generator_of_the_masks_alone(split: Split) -> None:
    batches = split.training_batches(8, range(2), seed=0)
    iterator = iter(batches)
    after_start = torch.get_rng_state()
    next(iterator), next(iterator)
    assert torch.equal(torch.get_rng_state(), after_start)


def test_evaluation_is_in_order(split: Split, write_images: Callable[..., list[Path]]) -> None:
    images = torch.cat(list(split.evaluation_batches(4)))
    assert torch.equal(images, torch.stack([split.store[i] for i in range(5, 30)]))


def test_a_split_is_made_of_a_stores_rows(photos: Path) -> None:
    rows = [
        Row("red/000.png", "red", "train", "p"),
        Row("blue/000.png", "blue", "test"),
        Row("red/001.png", "red", "test"),
    ]
    split = Split.of(ImageStore(photos, rows, SMALL), "test", ("red", "blue"))  # the order that is given, not sorted
    assert split.paths == ["blue/000.png", "red/001.png"]
    assert split.targets.dtype == torch.int64
    assert split.targets.tolist() == split.labels == [1, 0]
    assert split.groups == ["", ""]
    assert not split.multi_label


def test_multi_label_batches_hold_the_findings_of_their_images(photos: Path) -> None:
    labels = ["Mass|Edema", "", "Edema", "Mass"]
    rows = [Row(f"red/{i:03d}.png", label, "train", f"p{i}") for i, label in enumerate(labels)]
    split = Split.of(ImageStore(photos, rows, SMALL), "train", ("Edema", "Mass"), multi_label=True)
    assert split.targets.dtype == torch.float32
    assert split.targets.tolist() == [[1, 1], [0, 0], [1, 0], [0, 1]]
    assert split.groups == ["p0", "p1", "p2", "p3"]
    images, targets = next(iter(split.training_batches(4, range(1), seed=0)))
    assert images.shape == (4, 3, 14, 14)
    assert sorted(targets.tolist()) == sorted(split.targets.tolist())
    with pytest.raises(ValueError, match="no single label; use targets"):
        _ = split.labels


def test_two_splits_of_one_store_are_put_together(split: Split, photos: Path) -> None:
    both = split.with_images_of(Split(split.store, [0, 1], [0, 0]))
    assert both.indices == [*range(5, 30), 0, 1]
    assert both.labels == [*split.labels, 0, 0]
    with pytest.raises(ValueError, match="images of two stores cannot be in one split; read them into one store"):
        split.with_images_of(Split(ImageStore(photos, read_source(photos).rows, SMALL), [0], [0]))
