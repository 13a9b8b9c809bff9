"""Training batches that a device makes are those of the CPU, wherever the images are."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from stochnorm.data import ImageStore, Preprocessing, Split, read_source
from stochnorm.data.images import device as module
from stochnorm.data.images.device import Batches, DeviceBatches, HostBatches, batches_for
from stochnorm.data.images.resident import resident
from stochnorm.data.images.stream import send

CPU, META = torch.device("cpu"), torch.device("meta")
SMALL = Preprocessing(image_size=14)


@pytest.fixture
def split(photos: Path) -> Split:
    source = read_source(photos)
    store = ImageStore(source.root, source.rows, SMALL)
    return Split(store, list(range(5, 30)), [0] * 5 + [1] * 10 + [2] * 10)


def made(batches: Batches, steps: range, device: torch.device = CPU) -> list[tuple[Tensor, Tensor]]:
    return [batches.make(*(send(part, device) for part in inputs)) for inputs in batches.inputs(steps)]


def assert_same(some: list[tuple[Tensor, Tensor]], others: list[tuple[Tensor, Tensor]]) -> None:
    for (images, targets), (expected, expected_targets) in zip(some, others, strict=True):
        assert torch.equal(images.cpu(), expected.cpu())
        assert torch.equal(targets.cpu(), expected_targets.cpu())


@pytest.mark.parametrize("place", ["resident", "streamed"])
def test_batches_are_the_cpus_bit_for_bit(
    split: Split, place: Literal["resident", "streamed"], job_device: str
) -> None:
    device = torch.device(job_device)
    there = made(batches_for(split, 8, seed=3, device=device, place=place), range(2, 7), device)
    assert_same(there, made(batches_for(split, 8, seed=3, device=CPU, place="host"), range(2, 7)))
    for images, _ in there:
        assert images.shape == (8, 3, 14, 14)
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_batches_of_the_host_are_the_normalized_training_batches(split: Split) -> None:
    batches = batches_for(split, 8, seed=3, device=CPU)
    assert isinstance(batches, HostBatches)
    crops = split.training_batches(8, range(4), seed=3)
    assert_same(made(batches, range(4)), [(SMALL.normalize(images), targets) for images, targets in crops])


@pytest.mark.parametrize("place", ["host", "resident", "streamed"])
def test_parts_of_the_inputs_make_parts_of_the_batch(
    split: Split, place: Literal["host", "resident", "streamed"]
) -> None:
    batches = batches_for(split, 8, seed=0, device=CPU, place=place)
    (inputs,) = batches.inputs(range(1))
    whole = batches.make(*inputs)
    parts = [batches.make(*part) for part in zip(*(tensor.tensor_split(3) for tensor in inputs), strict=True)]
    assert_same([(torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]))], [whole])


@pytest.mark.parametrize("place", ["host", "resident", "streamed"])
def test_processes_share_each_batch(split: Split, place: Literal["host", "resident", "streamed"]) -> None:
    ((images, targets),) = made(batches_for(split, 8, seed=0, device=CPU, place=place), range(1))
    for rank in (0, 1):
        part = batches_for(split, 8, seed=0, rank=rank, world_size=2, device=CPU, place=place)
        assert_same(made(part, range(1)), [(images[rank::2], targets[rank::2])])


def test_inputs_have_the_same_shapes_in_all_steps(split: Split) -> None:
    for place, shapes in (("resident", [(8, 6)]), ("streamed", [(8, 6), (8, 16, 16, 3)])):
        batches = batches_for(split, 8, seed=0, device=CPU, place=place)  # type: ignore[arg-type]
        for inputs in batches.inputs(range(5)):
            assert [tuple(tensor.shape) for tensor in inputs] == shapes
            assert inputs[0].dtype == torch.int32


def test_a_plan_takes_images_of_the_split_and_crops_inside_of_them(split: Split) -> None:
    for step in range(30):
        index, top, left, height, width, mirrored = split.plans(8, seed=1)[step].unbind(1)
        assert len(index.unique()) == 8
        assert index.max() < 25
        assert (torch.stack([top, left]) >= 0).all()
        assert (torch.stack([top + height, left + width]) <= 16).all()
        assert set(mirrored.tolist()) <= {0, 1}


def test_several_findings_come_with_their_images(split: Split) -> None:
    several = Split(split.store, split.indices, torch.rand(25, 4, generator=torch.Generator().manual_seed(0)))
    there = made(batches_for(several, 8, seed=0, device=CPU, place="resident"), range(2))
    assert_same(there, made(batches_for(several, 8, seed=0, device=CPU), range(2)))


def test_nothing_looks_at_a_value_on_the_device(split: Split) -> None:
    for place in ("resident", "streamed"):
        batches = batches_for(split, 8, seed=0, device=META, place=place)  # type: ignore[arg-type]
        ((images, targets),) = made(batches, range(1), META)
        assert (images.shape, images.device, targets.shape, targets.device) == ((8, 3, 14, 14), META, (8,), META)


def test_a_thread_makes_the_inputs_of_a_device(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()
    original = ImageStore.__getitem__

    def spy(store: ImageStore, index: int) -> Tensor:
        threads.add(threading.current_thread().name)
        return original(store, index)

    batches = batches_for(split, 8, seed=0, device=META, place="streamed")
    monkeypatch.setattr(ImageStore, "__getitem__", spy)
    assert len(list(batches.inputs(range(3)))) == 3
    assert all("ahead" in name for name in threads)
    assert threads


def test_processes_read_the_images_to_send(split: Split) -> None:
    alone = made(batches_for(split, 8, seed=0, device=CPU, place="streamed"), range(3))
    assert_same(made(batches_for(split, 8, seed=0, workers=2, device=CPU, place="streamed"), range(3)), alone)


def test_images_that_must_live_on_a_device_and_do_not_fit_are_an_error(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "resident", lambda *_: None)
    with pytest.raises(ValueError, match="25 images do not fit into the free memory of cpu; use place='streamed'"):
        batches_for(split, 8, seed=0, device=CPU, place="resident")


def test_a_device_that_cuts_other_pixels_is_found_out(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    there = DeviceBatches(split, split.plans(8, seed=0), CPU, resident(split.store, split.indices, CPU))
    assert there.difference(split) == ""
    crops = there._crops
    monkeypatch.setattr(there, "_crops", lambda *inputs: crops(*inputs) + 2)
    assert "a pixel by 2 of 255" in there.difference(split)
    monkeypatch.setattr(there, "_crops", lambda *inputs: crops(*inputs) + torch.nan)
    assert "a pixel by nan of 255" in there.difference(split)


def test_a_gpu_that_cuts_other_pixels_leaves_them_to_the_cpu(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_pixels(there: DeviceBatches, _: Split) -> str:
        return "a pixel by 9 of 255"

    monkeypatch.setattr(DeviceBatches, "difference", other_pixels)
    monkeypatch.setattr(module, "DeviceBatches", lambda split, plans, _, images, workers: DeviceBatches(
        split, plans, CPU, images, workers=workers))  # fmt: skip
    monkeypatch.setattr(module, "resident", lambda *_: resident(split.store, split.indices, CPU))
    with pytest.warns(UserWarning, match=r"cuda cuts other crops than the CPU \(a pixel by 9 of 255\)"):
        assert isinstance(batches_for(split, 8, seed=0, device=torch.device("cuda")), HostBatches)
