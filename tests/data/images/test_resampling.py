"""Crops of a batch on a device are those that the CPU cuts one at a time."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from stochnorm.data import Preprocessing
from stochnorm.data.images.augmentation import Crop, cut, draw_crops
from stochnorm.data.images.resampling import CropBatch, _exact_products, filter_taps

CPU = torch.device("cpu")


def random_images(count: int, side: int) -> Tensor:
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def plan_of(crops: Tensor) -> Tensor:
    return torch.cat([torch.arange(len(crops))[:, None], crops], dim=1).int()


def one_at_a_time(images: Tensor, plan: Tensor, size: int) -> Tensor:
    crops = [
        cut(image.movedim(-1, 0), Crop(top, left, height, width, bool(mirrored)), size)
        for image, (_, top, left, height, width, mirrored) in zip(images, plan.tolist(), strict=True)
    ]
    return torch.stack([crop.movedim(0, -1) for crop in crops])


@pytest.mark.parametrize(
    ("side", "size"),
    [(16, 14), (37, 32), (73, 64), (32, 31), (24, 48), (40, 11)],  # odd sides; only enlarged; shrunk up to 3.6 times
)
def test_random_crops_are_the_cpus_bit_for_bit(side: int, size: int, job_device: str) -> None:
    images = random_images(64, side)
    plan = plan_of(draw_crops(64, side, torch.Generator().manual_seed(1)))
    assert plan[:, 5].unique().tolist() == [0, 1]  # mirrored, and not
    crops = CropBatch(side, size, torch.device(job_device))(images.to(job_device), plan.to(job_device))
    assert crops.dtype == torch.float32
    assert torch.equal(crops.cpu(), one_at_a_time(images, plan, size).float())


def test_each_extent_of_a_crop_is_cut_as_on_the_cpu() -> None:
    side, size = 21, 16
    boxes = [[side - h, side - w, h, w, mirrored] for h, w, mirrored in product(range(1, side + 1), (1, 9, 21), (0, 1))]
    plan = plan_of(torch.tensor(boxes))
    images = random_images(1, side).expand(len(boxes), -1, -1, -1)
    assert torch.equal(CropBatch(side, size, CPU)(images, plan), one_at_a_time(images, plan, size).float())


def test_photographs_are_cut_as_on_the_cpu(shared: Path) -> None:
    preprocessing = Preprocessing(224)
    files = sorted((shared / "data/CUB_100/images").rglob("*.jpg"))[:6]
    images = torch.stack([preprocessing.read(file).movedim(0, -1) for file in files])
    plan = plan_of(draw_crops(6, 256, torch.Generator().manual_seed(2)))
    assert torch.equal(CropBatch(256, 224, CPU)(images, plan), one_at_a_time(images, plan, 224).float())


def test_an_image_that_is_shrunk_more_than_four_times_differs_by_one_at_most() -> None:
    images = random_images(4, 100)
    plan = plan_of(torch.tensor([[0, 0, 100, 100, 0]] * 4))
    difference = CropBatch(100, 9, CPU)(images, plan) - one_at_a_time(images, plan, 9).float()
    assert difference.abs().max() <= 1


def test_parts_of_a_batch_are_parts_of_its_crops() -> None:
    images, plan = random_images(7, 16), plan_of(draw_crops(7, 16, torch.Generator().manual_seed(3)))
    crop = CropBatch(16, 14, CPU)
    parts = [crop(*part) for part in zip(images.tensor_split(3), plan.tensor_split(3), strict=True)]
    assert torch.equal(torch.cat(parts), crop(images, plan))


def test_autocast_does_not_reach_the_pixels() -> None:
    images, plan = random_images(4, 16), plan_of(draw_crops(4, 16, torch.Generator().manual_seed(4)))
    crop = CropBatch(16, 14, CPU)
    with torch.autocast("cpu", torch.bfloat16):
        inside = crop(images, plan)
    assert torch.equal(inside, crop(images, plan))


def test_the_setting_for_products_is_as_before() -> None:
    """On a GPU; the setting itself needs none."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        with _exact_products(torch.device("cuda")):
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


def test_no_operation_waits_for_the_host() -> None:
    """Operations of the same number and kind for each plan; the device `meta` has no values to look at."""

    class Names(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            self.names.append(str(func))
            return func(*args, **(kwargs or {}))

    calls = []
    for seed in (0, 1):
        images, plan = random_images(5, 16), plan_of(draw_crops(5, 16, torch.Generator().manual_seed(seed)))
        crop = CropBatch(16, 14, CPU)
        with Names() as mode:
            crop(images, plan)
        calls.append(mode.names)
    assert calls[0] == calls[1]
    assert len(calls[0]) > 20
    assert not {name for name in calls[0] if "local_scalar" in name or "nonzero" in name or "lift_fresh" in name}
    meta = torch.device("meta")
    assert CropBatch(16, 14, meta)(images.to(meta), plan.to(meta)).shape == (5, 14, 14, 3)


def test_weights_of_an_output_pixel_sum_up_to_one() -> None:
    weights, first = filter_taps(64, 56)
    assert (weights[1:].sum(2) - 1).abs().max() < 1e-4
    assert (first >= 0).all()
    assert weights[56].amax(1).tolist() == [1] * 56  # nothing to scale
