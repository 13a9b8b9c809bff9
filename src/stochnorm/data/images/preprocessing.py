"""Preprocessing of images: from the file to the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from stochnorm.data.images.decoding.decode import decode, size_of
from stochnorm.data.images.fitting import bordered, content, middle

__all__ = ["Preprocessing", "stack", "standardize"]

_FIRST = ("image_size", "mean", "std", "interpolation")
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocessing:
    """Resizing to a square, crop and normalization; saved with the model.

    In evaluation the network sees the center of the square, of side `input_size`. In training it sees random crops of
    `image_size`, cut from the images as [stochnorm.data.images.preprocessing.Preprocessing.training][] reads them.
    """

    image_size: int = 224
    """Side of the network's input, pixels."""
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    """Mean of each channel, for values in [0, 1]."""
    std: Sequence[float] = (0.229, 0.224, 0.225)
    """Standard deviation of each channel, for values in [0, 1]."""
    interpolation: str = "bilinear"
    """Interpolation of the resizing: bilinear or bicubic."""
    fit: Literal["squash", "crop", "pad"] = "squash"
    """How an image becomes a square: squash, distorted; crop, its middle square; pad, all of it, with a border of the
    mean colour."""
    test_size: int = 0
    """Side of the network's input in evaluation, pixels; 0 for `image_size`."""
    flip: bool = False
    """Average the logits of each image and its mirror image in evaluation."""
    for_crops: bool = False
    """Keep all of the image, with a border: what training crops are cut from, with `crop` inside the border."""

    @property
    def input_size(self) -> int:
        """Side of the network's input in evaluation, pixels."""
        return self.test_size or self.image_size

    @property
    def resize(self) -> int:
        """Side of the square before cropping, pixels. The paper's ratio: 256 for 224.

        With `pad` the network sees the whole square in evaluation. A square for training crops is a third larger, so
        that an image of 4:3 has the paper's number of pixels along its shorter side.
        """
        if self.for_crops:
            return round(self.image_size * 256 / 224 * 4 / 3)
        return self.input_size if self.fit == "pad" else round(self.input_size * 256 / 224)

    @property
    def training(self) -> Preprocessing:
        """The preprocessing of images that training crops are cut from; this one if it is the same."""
        if self.fit == "squash":
            return self if self.input_size == self.image_size else replace(self, test_size=0)
        return replace(self, test_size=0, for_crops=True)

    @property
    def kind(self) -> tuple[object, ...]:
        """All that the pixels of a read image depend on."""
        if self.fit == "squash":
            return self.resize, self.interpolation
        shape = "border" if self.fit == "pad" or self.for_crops else "middle"
        return self.resize, self.interpolation, shape, *(round(255 * value) for value in self.mean)

    def content(self, path: Path) -> tuple[int, int]:
        """Return height and width of an image inside its border, from the head of its file."""
        return content(*size_of(path), self.resize)[::-1]

    def read(self, path: Path) -> Tensor:
        """Decode an image file and resize it to a square: (3, resize, resize), uint8, RGB.

        Raises:
            DamagedImageError: The file cannot be read as an image; the message names it. It is a ValueError.
            OSError: The system cannot read the file.
        """
        return cast(Tensor, v2.functional.pil_to_tensor(self._square(*decode(path, self._size))))

    def convert(self, image: Image.Image) -> Tensor:
        """Resize an upright image of mode RGB to a square: (3, resize, resize), uint8."""
        return cast(Tensor, v2.functional.pil_to_tensor(self._square(image, self._size(*image.size))))

    def _size(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height that an image is scaled to."""
        if self.fit == "squash":
            return self.resize, self.resize
        if self.fit == "pad" or self.for_crops:
            return content(width, height, self.resize)
        shortest = min(width, height)
        return max(self.resize * width // shortest, 1), max(self.resize * height // shortest, 1)

    def _square(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Make an image a square."""
        resampling = _RESAMPLING[self.interpolation]
        if self.fit == "squash":
            return image.resize(size, resampling)
        if self.fit == "pad" or self.for_crops:
            return bordered(image, size, self.resize, resampling, self.mean)
        return middle(image, self.resize, resampling)

    def center_crop(self, images: Tensor) -> Tensor:
        """Cut the center out of images: (..., 3, resize, resize) to (..., 3, input_size, input_size)."""
        return cast(Tensor, v2.functional.center_crop(images, [self.input_size, self.input_size]))

    def views(self, images: Tensor) -> Tensor:
        """Return the center crop of images, with `flip` also mirrored: (b, 1 or 2, 3, input_size, input_size)."""
        center = self.center_crop(images)
        return torch.stack([center, center.flip(-1)], dim=1) if self.flip else center[:, None]

    def ten_crop(self, images: Tensor) -> Tensor:
        """Cut corners, center and their mirror images: (b, 3, resize, resize) to (b, 10, 3, input_size, input_size)."""
        crops = v2.functional.ten_crop(images, [self.input_size, self.input_size])
        return torch.stack([crop.movedim(1, -1) for crop in crops], dim=1).movedim(-1, 2)

    def normalize(self, images: Tensor) -> Tensor:
        """Convert uint8 images (b, 3, h, w) to the network's input: float32, channels_last, on the same device."""
        pixels = images.movedim(1, -1).contiguous().float()
        return standardize(pixels, *self.lines(images.size(-1), images.device))

    def lines(self, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of a line of pixels, for values in [0, 255]: (3 width,), float32."""
        mean, std = (_line(tuple(values), width, device) for values in (self.mean, self.std))
        return mean, std

    def as_dict(self) -> dict[str, Any]:
        """Return the settings by name; those after the first version only where they are not the default."""
        default = {field.name: field.default for field in fields(self)}
        return {k: v for k, v in asdict(self).items() if k in _FIRST or v != default[k]}


def stack(images: Sequence[Tensor]) -> Tensor:
    """Stack images (3, h, w) to a batch (b, 3, h, w), channels_last."""
    return torch.stack([image.movedim(0, -1) for image in images]).movedim(-1, 1)


def standardize(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Subtract the mean and divide by the standard deviation, in place.

    Args:
        pixels: (b, h, w, 3), float32, contiguous.
        mean: Mean of a line, as [stochnorm.data.images.preprocessing.Preprocessing.lines][] returns it.
        std: Standard deviation of a line.

    Returns:
        The same memory as (b, 3, h, w), channels_last.
    """
    # Line by line and in place: a broadcast along lines of three channels is slow.
    pixels.flatten(2).flatten(0, 1).sub_(mean).div_(std)
    return pixels.movedim(-1, 1)


def _line(values: tuple[float, ...], width: int, device: torch.device) -> Tensor:
    """Return one value per channel, times 255, for each pixel of a line; cached, since a copy to a GPU waits for it."""
    if torch.is_inference_mode_enabled() or torch._C._len_torch_dispatch_stack():
        return _new_line(values, width, device)  # a tensor of this mode is not for others
    return _cached_line(values, width, device)


def _new_line(values: tuple[float, ...], width: int, device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).repeat(width) * 255


_cached_line = lru_cache(maxsize=64)(_new_line)
