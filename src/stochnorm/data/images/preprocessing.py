"""What a backbone expects of an image, from the file to its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2

__all__ = ["Preprocessing", "stack"]

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocessing:
    """Squash to a square, crop, normalize; saved with the model."""

    image_size: int = 224
    """Side of the network's input, pixels."""
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    """Per channel, of values in [0, 1]."""
    std: Sequence[float] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    """bilinear or bicubic."""

    @property
    def resize(self) -> int:
        """Side to which images are squashed before cropping, pixels: the paper's ratio, 256 for 224."""
        return round(self.image_size * 256 / 224)

    def read(self, path: Path) -> Tensor:
        """Decode an image file and squash it: (3, resize, resize), uint8, RGB.

        Turned upright as its EXIF data say; 16-bit grey is scaled to 8 bits.

        Raises:
            ValueError: The file cannot be read as an image; names it.
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
        """(..., 3, resize, resize) to (..., 3, image_size, image_size)."""
        return cast(Tensor, v2.functional.center_crop(images, [self.image_size, self.image_size]))

    def ten_crop(self, images: Tensor) -> Tensor:
        """Corners, center, and their mirror images: (b, 3, resize, resize) to (b, 10, 3, image_size, image_size)."""
        crops = v2.functional.ten_crop(images, [self.image_size, self.image_size])
        return torch.stack([crop.movedim(1, -1) for crop in crops], dim=1).movedim(-1, 2)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 (b, 3, h, w) to the network's float32 input, channels_last."""
        pixels = images.movedim(1, -1).contiguous().float()
        # Line by line and in place: a broadcast along lines of three channels is slow.
        lines = pixels.flatten(2).flatten(0, 1)
        mean, std = (torch.tensor(v, device=images.device).repeat(images.size(-1)) * 255 for v in (self.mean, self.std))
        lines.sub_(mean).div_(std)
        return pixels.movedim(-1, 1)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def stack(images: Sequence[Tensor]) -> Tensor:
    """Images (3, h, w) as one batch (b, 3, h, w), channels_last."""
    return torch.stack([image.movedim(0, -1) for image in images]).movedim(-1, 1)


def _to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit grey by its upper byte; wider integers and floats stretched from their own range."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("its values are not all finite")  # they would stretch the rest to black
    if image.mode.startswith("I;16"):
        values = values / 257
    else:
        values = (values - values.min()) * (255 / max(values.max() - values.min(), 1e-12))
    return Image.fromarray(values.round().astype(np.uint8))
