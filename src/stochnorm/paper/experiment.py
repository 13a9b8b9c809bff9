"""What an experiment of the paper is, and the settings that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stochnorm.comparison.grid import Variant
from stochnorm.methods.bss import BSSConfig
from stochnorm.methods.delta import DELTAConfig
from stochnorm.methods.l2sp import L2SPConfig
from stochnorm.runs.config import FinetuneConfig

__all__ = ["INCEPTION_V3", "PAPER", "RESNET50", "VGG16_BN", "Experiment", "Variant", "methods"]

RESNET50 = "resnet50.tv_in1k"
"""torchvision's network and the weights it had in 2020, as timm keeps them: ``torchvision/resnet50`` has newer ones."""
VGG16_BN = "torchvision/vgg16_bn"
INCEPTION_V3 = "torchvision/inception_v3"

PAPER = FinetuneConfig(
    data="",
    backbone=RESNET50,
    weights="pretrained",
    steps=9050,
    batch_size=48,
    lr=1e-3,
    head_lr_factor=10.0,
    momentum=0.9,
    decay_at=6000 / 9050,
    select="last",
    ten_crop=True,
    precision="32",
    pool_val=True,  # concerns FGVC-Aircraft alone, whose released lists sample from train and val together
    p=0.5,
    l2sp=L2SPConfig(alpha=0.1, beta=0.01),
    delta=DELTAConfig(
        alpha=0.01, beta=0.01, layers=("layer1.2.conv3", "layer2.3.conv3", "layer3.5.conv3", "layer4.2.conv3")
    ),
    bss=BSSConfig(eta=0.001, k=1),
    workers=4,
)
"""Section 5.1, and where it says nothing the released code; docs/deviations.md has what differs all the same."""


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper as a grid: every variant on every data set, backbone and rate."""

    name: str
    """On the command line."""
    title: str
    """The paper's caption, shortened."""
    data: tuple[str, ...]
    """Names of ``stochnorm ls datasets``, in the paper's order."""
    rates: tuple[float, ...]
    variants: tuple[Variant, ...]
    """In the paper's order, called as there."""
    hours: int
    """Expected for all runs, one after the other, on one GPU of the class of an A100; never measured."""
    backbones: tuple[str, ...] = (RESNET50,)
    repeats: int = 5
    figure: Literal["", "score", "gain"] = ""
    """Of a figure, what its bars are: the test score, or how much it is above that of the first variant."""
    highlight: str = ""
    """Of a figure, the variant that is the paper's own."""

    @property
    def runs(self) -> int:
        """How many, at the paper's scale."""
        cells = len(self.data) * len(self.backbones) * len(self.rates)
        return cells * len(self.variants) * self.repeats


def methods(*names: str) -> tuple[Variant, ...]:
    """A variant a method, called by its name, with the settings of :data:`PAPER`."""
    return tuple(Variant(name, {"method": name}) for name in names)
