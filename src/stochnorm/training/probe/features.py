"""Features of images: what goes into the head of a network, in one pass over the images."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from stochnorm.data import Preprocessing, Split
from stochnorm.data.images.whole import WholeImages
from stochnorm.models import Classifier, pooled
from stochnorm.nn.hooks.modes import evaluating
from stochnorm.nn.hooks.taps import InputTap

__all__ = ["features", "linear_head", "views_of"]

_CENTER = 4  # in torchvision's ten crops: four corners, the center, and their mirror images


def linear_head(classifier: Classifier) -> Any:
    """Return the head, if it is one linear layer (or convolution of 1 x 1) with a bias.

    Raises:
        ValueError: The network has another kind of head.
    """
    layer = classifier.head[0]
    linear = isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))
    if len(classifier.head) != 1 or not linear or layer.bias is None:
        raise ValueError(_refusal(classifier))
    return layer


def features(classifier: Classifier, split: Split, fabric: Fabric, *, views: str, batch_size: int) -> Tensor:
    """Compute what the head of a network gets, in eval mode.

    Args:
        classifier: The network, on its device.
        split: The images.
        fabric: Device and precision.
        views: center, flip or crops, see [stochnorm.training.probe.features.views_of][].
        batch_size: Images per batch, over all views of them.

    Returns:
        (v, n, d), float32, on the CPU: v views of n images; the first view is the center crop.

    Raises:
        ValueError: The logits are not a linear map of these features.
    """
    layer, name, preprocessing = linear_head(classifier), classifier.head_name, classifier.preprocessing
    parts: list[Tensor] = []
    count = {"center": 1, "flip": 2, "crops": 10}[views]
    images = WholeImages(split, fabric.device)
    with torch.no_grad(), evaluating(classifier.model), InputTap(classifier.model, [name]) as tap:
        for batch in images.batches(max(batch_size // count, 1)):
            crops = views_of(batch, preprocessing, views)
            with fabric.autocast():
                logits = classifier.model(preprocessing.normalize(crops.flatten(0, 1)))
            found = pooled(tap.values[name]).float()
            if not parts and not _agree(F.linear(found, layer.weight.flatten(1), layer.bias), logits.float()):
                raise ValueError(_refusal(classifier))
            parts.append(found.view(*crops.shape[:2], -1).cpu())
    return torch.cat(parts).transpose(0, 1).contiguous()


def views_of(images: Tensor, preprocessing: Preprocessing, views: str) -> Tensor:
    """Cut the views of images out: (b, 3, resize, resize) to (b, v, 3, image_size, image_size).

    Args:
        images: uint8.
        preprocessing: The crop.
        views: center: the center crop; flip: its mirror image too; crops: both, and four corners with their mirror
            images.
    """
    if views == "crops":
        crops = preprocessing.ten_crop(images)
        order = [_CENTER, *(i for i in range(crops.shape[1]) if i != _CENTER)]
        return crops[:, order]
    center = preprocessing.center_crop(images)
    return torch.stack([center, center.flip(-1)][: 2 if views == "flip" else 1], dim=1)


def _agree(linear: Tensor, logits: Tensor) -> bool:
    """Return whether two results of the same linear map are equal, but for the precision of the network."""
    if linear.shape != logits.shape:
        return False
    return bool((linear - logits).abs().max() <= 0.02 * logits.abs().max() + 1e-6)


def _refusal(classifier: Classifier) -> str:
    return (
        f"the probe needs a backbone whose logits are one linear layer on pooled features, which {classifier.backbone} "
        "is not; choose another backbone, or another --method with --head random"
    )
