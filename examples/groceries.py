"""What the examples share: photographs of twelve kinds of fruit (installed with stochnorm), and a network."""

from __future__ import annotations

from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

import stochnorm
from stochnorm.data import read_source

__all__ = ["SIZE", "loaders", "network", "photographs"]

SIZE = 96  # pixels
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def photographs() -> tuple[ImageFolder, ImageFolder]:
    """Return the images to train and to test on: 216 and 120."""
    root = read_source("groceries").root
    crops = [transforms.RandomResizedCrop(SIZE, scale=(0.3, 1)), transforms.RandomHorizontalFlip()]
    center = [transforms.Resize((SIZE, SIZE))]
    tensor = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return (
        ImageFolder(str(root / "train"), transforms.Compose([*crops, *tensor])),
        ImageFolder(str(root / "test"), transforms.Compose([*center, *tensor])),
    )


def loaders(batch_size: int = 24) -> tuple[DataLoader, DataLoader]:
    """Return batches to train and to test on."""
    train, test = photographs()
    return DataLoader(train, batch_size, shuffle=True, drop_last=True), DataLoader(test, batch_size)


def network() -> nn.Module:
    """Return EfficientNet-Lite0 with ImageNet weights, a new head, and StochNorm in place of BatchNorm."""
    model = stochnorm.build_classifier("tf_efficientnet_lite0", "auto", photographs()[1].classes).model
    return stochnorm.convert(model, p=0.5)
