"""From the file to the network's input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from stochnorm.data import Preprocessing

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


def test_what_another_mode_normalizes_is_not_kept_for_the_next_batch() -> None:
    preprocessing, images = Preprocessing(image_size=20), torch.zeros(2, 3, 20, 20, dtype=torch.uint8)
    with FakeTensorMode() as mode:
        assert isinstance(preprocessing.normalize(mode.from_tensor(images)), FakeTensor)
    with torch.inference_mode():
        preprocessing.normalize(images)
    normalized = preprocessing.normalize(images)
    assert type(normalized) is torch.Tensor
    assert not normalized.is_inference()
