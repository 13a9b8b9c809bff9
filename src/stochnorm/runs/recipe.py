"""The settings of a run's optimization and of its images beyond the paper's protocol, which is their default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from stochnorm.methods.ranges import Range

__all__ = ["ImageSettings", "RecipeSettings"]


@dataclass(frozen=True)
class RecipeSettings:
    """How a run starts and is optimized; the defaults are the paper's protocol."""

    head: Literal["random", "probe"] = "random"
    """Start of the new head: random, or the linear probe on the frozen backbone (LP-FT, Kumar et al., ICLR 2022)."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov momentum, or AdamW."""
    schedule: Literal["step", "cosine", "onecycle", "constant"] = "step"
    """Course of the learning rates: a tenth after --decay-at, cosine to 0, one cycle, or constant."""
    warmup: Annotated[float, Range(0, 0.9)] = 0.0
    """Fraction of the steps over which the learning rates rise from 0."""
    layer_decay: Annotated[float, Range(0, 1, above=True)] = 1.0
    """Factor of the learning rate from one stage of the backbone to the stage below it; 1 for none."""
    clip_grad: Annotated[float, Range(0)] = 0.0
    """Largest norm of the gradient; 0 for no limit."""
    ema: Annotated[float, Range(0, 0.99999)] = 0.0
    """Decay of the moving average of the weights that is validated and kept; 0 for none."""
    drop_path: Annotated[float, Range(0, 0.9)] = 0.0
    """Stochastic depth: probability that the last residual block is skipped, rising with depth; 0 for none."""
    label_smoothing: Annotated[float, Range(0, 0.9)] = 0.0
    """Share of each label that is spread over all classes."""
    patience: Annotated[int, Range(0)] = 0
    """Validations without improvement after which training stops; 0 for never."""


@dataclass(frozen=True)
class ImageSettings:
    """How images become the network's input; the defaults are the paper's protocol."""

    resize: Literal["squash", "crop", "pad"] = "squash"
    """Image to square: squash, crop (aspect kept, center in evaluation), or pad (aspect kept, whole image)."""
    augment: Literal["paper", "gentle", "trivial", "rand"] = "paper"
    """Augmentation: crops and mirrors as in the paper; gentle (large crops); TrivialAugment or RandAugment besides."""
    crop_scale: Annotated[float | None, Range(0.01, 1)] = None
    """Smallest area of a training crop, as a fraction of the image; None for 0.08, or 0.5 with --augment gentle."""
    mixup: Annotated[float, Range(0)] = 0.0
    """Mixup: parameter of the Beta distribution; 0 for none."""
    cutmix: Annotated[float, Range(0)] = 0.0
    """CutMix: parameter of the Beta distribution; 0 for none."""
    test_size: Annotated[int, Range(0)] = 0
    """Side of the network's input in evaluation, pixels; 0 for that of training."""
    flip: bool = False
    """Evaluate each image and its mirror image, with averaged logits."""

    @property
    def crop_scale_used(self) -> float:
        """The smallest area of a training crop as set; else 0.08 as in the paper, or 0.5 with gentle augmentation."""
        if self.crop_scale is not None:
            return self.crop_scale
        return 0.5 if self.augment == "gentle" else 0.08
