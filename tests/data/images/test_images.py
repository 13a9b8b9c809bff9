"""From the file to the network's input."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stochnorm.data import ImageStore, Preprocessing, Row, Split, encode_labels, read_source
from stochnorm.data.images.batches import CenterCrops

SMALL = Preprocessing(image_size=14, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def test_sizes_keep_the_papers_ratio() -> None:
    assert Preprocessing(224).resize == 256
    assert SMALL.resize == 16


def test_every_mode_of_image_is_read(tmp_path: Path) -> None:
    pixels = np.full((20, 20), 128, dtype=np.uint8)
    grey16 = Image.fromarray((np.arange(400).reshape(20, 20) * 164).astype(np.uint16))
    images = {
        "grey": Image.fromarray(pixels),
        "color": Image.fromarray(pixels).convert("RGB"),
        "alpha": Image.fromarray(pixels).convert("RGBA"),
        "palette": Image.fromarray(pixels).convert("P"),
        "bilevel": Image.fromarray(pixels).convert("1"),
    }
    for name, image in images.items():
        image.save(tmp_path / f"{name}.png")
        assert SMALL.read(tmp_path / f"{name}.png").shape == (3, 16, 16)
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "cmyk.jpg")
    assert SMALL.read(tmp_path / "cmyk.jpg").shape == (3, 16, 16)
    grey16.save(tmp_path / "grey16.png")
    values = SMALL.read(tmp_path / "grey16.png")[0].float()
    assert values[0].mean() < 20  # not cut at 255, which would make all but the first pixels white
    assert 110 < values.mean() < 145


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 32))
    image.paste((255, 255, 255), (0, 0, 32, 16))  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: the upper half is shown on the right
    image.save(tmp_path / "turned.png", exif=exif)
    shown = SMALL.read(tmp_path / "turned.png")[0].float()
    assert shown[:, 9:].mean() > 250
    assert shown[:, :7].mean() < 5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_floats_that_are_not_finite_are_unreadable_and_not_black(tmp_path: Path, value: float) -> None:
    pixels = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    Image.fromarray(pixels).save(tmp_path / "good.tif")
    assert SMALL.read(tmp_path / "good.tif").float().mean() > 100
    pixels[3, 4] = value
    Image.fromarray(pixels).save(tmp_path / "bad.tif")
    with pytest.raises(ValueError, match=r"bad.tif: cannot be read as an image \(its values are not all finite\)"):
        SMALL.read(tmp_path / "bad.tif")


def test_an_error_that_a_decoder_raises_is_one_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow raises RuntimeError for a damaged AVIF file."""

    def damaged(path: Path) -> None:
        raise RuntimeError("Failed to decode image: Truncated data")

    monkeypatch.setattr(Image, "open", damaged)
    with pytest.raises(
        ValueError, match=r"x.avif: cannot be read as an image \(Failed to decode image: Truncated data"
    ):
        SMALL.read(tmp_path / "x.avif")


def test_crops_and_normalization() -> None:
    images = torch.arange(16, dtype=torch.uint8).view(1, 1, 1, 16).expand(1, 3, 16, 16)
    assert SMALL.center_crop(images)[0, 0, 0].tolist() == list(range(1, 15))
    ten = SMALL.ten_crop(images)
    assert ten.shape == (1, 10, 3, 14, 14)
    assert [crop[0, 0, 0].item() for crop in ten[0]] == [0, 2, 0, 2, 1, 15, 13, 15, 13, 14]
    x = SMALL.normalize(torch.full((2, 3, 4, 4), 255, dtype=torch.uint8))
    assert torch.equal(x, torch.full((2, 3, 4, 4), 2.0))
    assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels_last", [False, True])
def test_normalization_is_the_formula_to_the_bit(channels_last: bool) -> None:
    preprocessing = Preprocessing()
    images = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (preprocessing.mean, preprocessing.std))
    before = images.clone()
    x = preprocessing.normalize(images)
    assert torch.equal(x, (images - mean) / std)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_mean_and_deviation_are_copied_to_a_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.zeros(1, 3, 5, 7, dtype=torch.uint8)
    first = SMALL.normalize(images)
    monkeypatch.setattr(torch, "tensor", lambda *_, **__: pytest.fail("made again"))
    assert torch.equal(SMALL.normalize(images), first)


def broken_files(photos: Path) -> None:
    (photos / "red/000.png").write_bytes(b"not an image")
    whole = (photos / "red/001.png").read_bytes()
    (photos / "red/001.png").write_bytes(whole[: len(whole) // 2])
    (photos / "red/002.png").write_bytes(b"")


def test_images_that_cannot_be_read_are_counted_and_named(photos: Path) -> None:
    broken_files(photos)
    source = read_source(photos)
    with pytest.warns(UserWarning, match=r"skipped 3 of 30 images: .*red/000.png.*red/001.png.*red/002.png"):
        store = ImageStore(source.root, source.rows, SMALL)
    assert len(store) == 27
    assert {row.path for row in source.rows} - {row.path for row in store.rows} == {f"red/00{i}.png" for i in range(3)}


def test_strict_stops_at_the_first_bad_image(photos: Path) -> None:
    broken_files(photos)
    source = read_source(photos)
    with pytest.raises(ValueError, match=r"red/000.png: cannot be read as an image"):
        ImageStore(source.root, source.rows, SMALL, strict=True)


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(ValueError, match="none of 1 images can be read"):
        ImageStore(tmp_path, [Row("x.png", "a")], SMALL)


def test_images_kept_in_memory_are_those_on_disk(photos: Path) -> None:
    source = read_source(photos)
    kept, reread = (ImageStore(source.root, source.rows, SMALL, max_bytes=size) for size in (1e9, 0))
    assert all(torch.equal(kept[i], reread[i]) for i in range(30))


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


def test_center_crops_are_what_the_network_sees_in_evaluation(split: Split) -> None:
    crops = CenterCrops(split, [3, 0, 7], SMALL, 2, torch.device("cpu"))
    for _ in range(2):
        ((inputs, targets),) = crops  # the last image alone has no batch statistics
        expected = torch.stack([split.store[split.indices[i]] for i in (3, 0)])
        assert torch.equal(inputs, SMALL.normalize(SMALL.center_crop(expected)))
        assert torch.equal(targets, split.targets[[3, 0]])
    *images, every_target = crops.content()
    assert all(torch.equal(image, split.store[split.indices[i]]) for image, i in zip(images, (3, 0, 7), strict=True))
    assert torch.equal(every_target, split.targets[[3, 0, 7]])


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


def test_a_label_that_is_no_class_is_named() -> None:
    with pytest.raises(ValueError, match="unknown classes c, d; the classes are a, b"):
        encode_labels(["a", "d", "c"], ["a", "b"])
