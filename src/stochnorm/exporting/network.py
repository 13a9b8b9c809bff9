"""The network that is exported: preprocessing if asked for, plain BatchNorm, probabilities."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stochnorm.data.images.preprocessing import Preprocessing
from stochnorm.models import Classifier
from stochnorm.nn.fold import fold_batch_norm

__all__ = ["Deployed", "Squares", "plain_network"]


def plain_network(classifier: Classifier, *, fold: bool = False) -> nn.Module:
    """Return a copy of a loaded classifier's network, in eval mode, on the CPU.

    A run's model is saved as the BatchNorm that StochNorm is in evaluation, so there is nothing to restore.

    Args:
        classifier: The classifier.
        fold: Move BatchNorm into the convolutions before it.

    Raises:
        ValueError: `fold` is asked for, and no BatchNorm follows a convolution that it can move into.
    """
    network = copy.deepcopy(classifier.model).cpu().eval().requires_grad_(False)
    if fold and not fold_batch_norm(network):
        raise ValueError(f"{classifier.backbone} has no BatchNorm that can be folded into a convolution; remove --fold")
    return network


class Squares(nn.Module):
    """Make squares of the network's input size of images of any size: what `Preprocessing` does to files, as a graph.

    The filter is Pillow's (antialiased). Pillow rounds between its two passes and reads large JPEG files at a fraction
    of their size, so pixels differ a little.

    Shape:
        - Input: (b, h, w, 3), uint8, RGB.
        - Output: (b, 3, input_size, input_size), float32, in [0, 255].
    """

    border: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self._preprocessing = preprocessing
        border = [float(round(255 * value)) for value in preprocessing.mean]
        self.register_buffer("border", torch.tensor(border).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        wanted = self._preprocessing
        pixels = images.movedim(-1, 1).float()
        height, width = pixels.shape[-2:]
        if wanted.fit == "crop":
            side = torch.sym_min(height, width)
            top, left = (height - side) // 2, (width - side) // 2
            lines: Any = (-left, side + left - width, -top, side + top - height)
            pixels = F.pad(pixels, lines)  # not slices, whose sizes torch.export does not know
        elif wanted.fit == "pad":
            side = torch.sym_max(height, width)
            top, left = (side - height) // 2, (side - width) // 2
            lines = (left, side - left - width, top, side - top - height)
            pixels = F.pad(pixels - self.border, lines) + self.border
        size = (wanted.resize, wanted.resize)
        pixels = F.interpolate(pixels, size, mode=wanted.interpolation, antialias=True, align_corners=False)
        first = round((wanted.resize - wanted.input_size) / 2)  # as torchvision's center_crop rounds
        last = first + wanted.input_size
        return pixels.round().clamp(0, 255)[:, :, first:last, first:last]


class Deployed(nn.Module):
    """From images to probabilities.

    Args:
        classifier: Classes and preprocessing.
        network: Its network, as [stochnorm.exporting.network.plain_network][] returns it.
        raw: Take images uint8 (b, h, w, 3) of any size; else float32 (b, 3, input_size, input_size), normalized.
        half: Compute in float16; input and output stay.
    """

    def __init__(self, classifier: Classifier, network: nn.Module, *, raw: bool = False, half: bool = False) -> None:
        super().__init__()
        wanted = classifier.preprocessing
        self.network = copy.deepcopy(network).half() if half else network
        self.squares = Squares(wanted) if raw else None
        self._half, self._flip, self._multi_label = half, wanted.flip, classifier.multi_label
        self.register_buffer("mean", 255 * torch.tensor(wanted.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(wanted.std).view(3, 1, 1), persistent=False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        pixels = images if self.squares is None else (self.squares(images) - self.mean) / self.std
        if self._half:
            pixels = pixels.half()
        logits = self.network(pixels).float()
        if self._flip:
            logits = (logits + self.network(pixels.flip(-1)).float()) / 2
        probabilities: Tensor = logits.sigmoid() if self._multi_label else logits.softmax(-1)
        return probabilities
