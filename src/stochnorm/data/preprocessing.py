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

__all__ = ["Preprocessing"]

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
                image: Image.Image = ImageOps.exif_transpose(file)
                if image.mode.startswith(("I", "F")):
                    image = _to_8_bits(image)
                rgb = image.convert("RGB").resize((self.resize, self.resize), _RESAMPLING[self.interpolation])
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = str(error).replace(str(path), "").strip(" ':") or type(error).__name__
            raise ValueError(f"{path}: cannot be read as an image ({reason})") from error
        return cast(Tensor, v2.functional.pil_to_tensor(rgb))

    def augment(self) -> v2.Transform:
        """Training: random resized crop (8 to 100 % of the area) and horizontal flip, uint8 to uint8."""
        return v2.Compose(
            [
                v2.RandomResizedCrop(self.image_size, scale=(0.08, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
            ]
        )

    def center_crop(self, images: Tensor) -> Tensor:
        """(..., 3, resize, resize) to (..., 3, image_size, image_size)."""
        return cast(Tensor, v2.functional.center_crop(images, [self.image_size, self.image_size]))

    def ten_crop(self, images: Tensor) -> Tensor:
        """Corners, center, and their mirror images: (b, 3, resize, resize) to (b, 10, 3, image_size, image_size)."""
        return torch.stack(v2.functional.ten_crop(images, [self.image_size, self.image_size]), dim=1)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 (b, 3, h, w) to the network's float32 input, channels_last."""
        mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) * 255 for v in (self.mean, self.std))
        return ((images - mean) / std).contiguous(memory_format=torch.channels_last)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


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
