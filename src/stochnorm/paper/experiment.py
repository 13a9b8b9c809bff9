"""The definition of an experiment of the paper, and the settings that all experiments share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stochnorm.comparison.grid import Variant
from stochnorm.methods.bss import BSSConfig
from stochnorm.methods.delta import DELTAConfig
from stochnorm.methods.l2sp import L2SPConfig
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.scores import TOP1, Score

__all__ = ["INCEPTION_V3", "PAPER", "RESNET50", "VGG16_BN", "Experiment", "Variant", "methods"]

RESNET50 = "resnet50.tv_in1k"
"""torchvision's network with its weights of 2020, as timm has them; `torchvision/resnet50` has newer weights."""
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
    pool_val=True,  # only affects FGVC-Aircraft, whose released lists sample from train and val together
    p=0.5,
    l2sp=L2SPConfig(alpha=0.1, beta=0.01),
    delta=DELTAConfig(
        alpha=0.01, beta=0.01, layers=("layer1.2.conv3", "layer2.3.conv3", "layer3.5.conv3", "layer4.2.conv3")
    ),
    bss=BSSConfig(eta=0.001, k=1),
    workers=4,
)
"""Settings of section 5.1, or of the released code where the paper is silent; see docs/deviations.md."""


@dataclass(frozen=True)
class Experiment:
    """A table or figure of the paper as a grid: every variant on every data set, backbone and rate."""

    name: str
    """Name on the command line, and of its file."""
    title: str
    """The paper's caption, shortened."""
    data: tuple[str, ...]
    """Names of the data sets (`stochnorm ls datasets`), in the paper's order."""
    rates: tuple[float, ...]
    """Percentages of the training images."""
    variants: tuple[Variant, ...]
    """The variants in the paper's order, with the paper's names."""
    hours: int
    """Expected hours for all runs, one after the other, on one A100; an estimate, not measured."""
    score: Score = TOP1
    """Test score. A score of several labels per image means data sets of that kind."""
    backbones: tuple[str, ...] = (RESNET50,)
    repeats: int = 5
    """Runs per cell and variant."""
    figure: Literal["", "score", "gain"] = ""
    """Bars of a figure: the test score, or its difference from the first variant; empty for a table."""
    highlight: str = ""
    """The variant of a figure that is the paper's own."""

    @property
    def runs(self) -> int:
        """Number of runs at the paper's scale."""
        cells = len(self.data) * len(self.backbones) * len(self.rates)
        return cells * len(self.variants) * self.repeats


def methods(*names: str) -> tuple[Variant, ...]:
    """Return one variant per method, labelled by its name, with the settings of `PAPER`."""
    return tuple(Variant(name, {"method": name}) for name in names)
