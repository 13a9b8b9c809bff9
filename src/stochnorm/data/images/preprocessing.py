"""Preprocessing of images: from the file to the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2

__all__ = ["Preprocessing", "stack", "standardize"]

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocessing:
    """Resizing to a square, crop and normalization; saved with the model."""

    image_size: int = 224
    """Side of the network's input, pixels."""
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    """Mean of each channel, for values in [0, 1]."""
    std: Sequence[float] = (0.229, 0.224, 0.225)
    """Standard deviation of each channel, for values in [0, 1]."""
    interpolation: str = "bilinear"
    """Interpolation of the resizing: bilinear or bicubic."""

    @property
    def resize(self) -> int:
        """Side of the square before cropping, pixels. The paper's ratio: 256 for 224."""
        return round(self.image_size * 256 / 224)

    def read(self, path: Path) -> Tensor:
        """Decode an image file and resize it to a square: (3, resize, resize), uint8, RGB.

        EXIF orientation is applied; 16-bit grey is scaled to 8 bits.

        Raises:
            ValueError: The file cannot be read as an image; the message names it.
        """
        try:
            with Image.open(path) as file:
                file.draft("RGB", (self.resize, self.resize))  # JPEG: decode large photographs at reduced size
                ImageOps.exif_transpose(file, in_place=True)
                image: Image.Image = _to_8_bits(file) if file.mode.startswith(("I", "F")) else file
                image = image if image.mode == "RGB" else image.convert("RGB")
                image = image.resize((self.resize, self.resize), _RESAMPLING[self.interpolation])
        except (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError) as error:
            reason = str(error).replace(str(path), "").strip(" ':") or type(error).__name__
            raise ValueError(f"{path}: cannot be read as an image ({reason})") from error
        return cast(Tensor, v2.functional.pil_to_tensor(image))

    def center_crop(self, images: Tensor) -> Tensor:
        """Cut the center out of images: (..., 3, resize, resize) to (..., 3, image_size, image_size)."""
        return cast(Tensor, v2.functional.center_crop(images, [self.image_size, self.image_size]))

    def ten_crop(self, images: Tensor) -> Tensor:
        """Cut corners, center and their mirror images: (b, 3, resize, resize) to (b, 10, 3, image_size, image_size)."""
        crops = v2.functional.ten_crop(images, [self.image_size, self.image_size])
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
        """Return the settings by name."""
        return asdict(self)


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


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Keep the upper byte of 16-bit grey; stretch the range of wider integers and floats."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("its values are not all finite")  # they would stretch the rest to black
    if image.mode.startswith("I;16"):
        values = values / 257
    else:
        values = (values - values.min()) * (255 / max(values.max() - values.min(), 1e-12))
    return Image.fromarray(values.round().astype(np.uint8))
