"""The settings of a run. The command line is made from these fields and their documentation."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import tyro

__all__ = ["FinetuneConfig"]


@dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tune a pre-trained backbone on your images; keep the best model on validation; test it once."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A folder with one folder per class, a folder with train/, [val/,] test/ above those, a CSV file with the
    columns path,label[,split], or elpv (the demo's data set)."""

    norm: Literal["stochnorm", "batchnorm", "frozen"] = "stochnorm"
    """Normalization while training: Stochastic Normalization, BatchNorm, or BatchNorm by the inherited statistics
    (scale and shift are trained)."""
    p: float = 0.5
    """stochnorm: probability that a channel is normalized by batch statistics, in [0, 1]; 1 is BatchNorm."""

    backbone: str = "tf_efficientnet_lite0"
    """Any timm or torchvision name; a name both have is timm's, torchvision/NAME the other."""
    weights: str = "auto"
    """bundled (ImageNet weights of tf_efficientnet_lite0, installed with stochnorm), pretrained (timm's or
    torchvision's download), random, or a .safetensors/.pth file. auto: bundled where it fits, else pretrained."""

    rate: float = 100.0
    """Use only this percentage of the training images: ceil(rate % of n) of each class with n."""
    val_fraction: float = 0.2
    """Share of the (sampled) training images that validate, where DATA has no validation split."""
    test_fraction: float = 0.2
    """Share of all images that test, where DATA has no test split; 0 trains without a test."""
    data_seed: int = 0
    """Which images are sampled and split off."""
    strict: bool = False
    """Stop at an image that cannot be read, instead of leaving it out with a warning."""

    steps: int = 300
    """Training steps."""
    batch_size: int = 32
    """Images per step, over all processes."""
    image_size: int = 160
    """Side of the network's input, pixels."""
    lr: float = 0.003
    """Learning rate of the backbone."""
    head_lr_factor: float = 10.0
    """The new head learns this many times as fast."""
    momentum: float = 0.9
    """Of SGD with Nesterov's momentum."""
    weight_decay: float = 5e-4
    """On all parameters, as in the paper's code."""
    decay_at: float = 0.66
    """The learning rates drop to a tenth after this share of the steps; 1 keeps them."""
    eval_every: int = 0
    """Steps between validations; 0: once an epoch, at most 15 times in all."""
    ten_crop: bool = False
    """Test on ten crops, their logits averaged, instead of the center."""
    seed: int = 0
    """Of the new head, order, augmentation and StochNorm's masks."""

    out: str = ""
    """Directory of the run; empty: runs/DATA-NORM-HASH, named by the settings."""
    resume: bool = False
    """Go on from the run's last checkpoint."""
    overwrite: bool = False
    """Delete what the run's directory holds and start anew."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """Autocast. auto: bf16 where the processor computes in it, else 32."""
    workers: int = 0
    """Processes that augment images; 0: none beside the main one, which is enough for images held in memory."""

    def __post_init__(self) -> None:
        """Raises ValueError where a value is out of its range; names the field."""
        for name, low, high in (
            ("p", 0, 1),
            ("val_fraction", 0.01, 0.9),
            ("test_fraction", 0, 0.9),
            ("decay_at", 0, 1),
            ("momentum", 0, 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be in [{low}, {high}], got {getattr(self, name)}")
        if not 0 < self.rate <= 100:
            raise ValueError(f"rate is a percentage in (0, 100], got {self.rate}")
        for name, low in (("steps", 1), ("batch_size", 2), ("image_size", 8), ("eval_every", 0), ("workers", 0)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        for name in ("lr", "head_lr_factor"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be 0 or positive, got {self.weight_decay}")

    def result_fields(self) -> dict[str, Any]:
        """The fields that the result depends on, in order; the run is named by them."""
        bookkeeping = {"out", "resume", "overwrite", "strict", "workers"}
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in bookkeeping}
