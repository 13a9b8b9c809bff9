"""The settings of a run that belong to no method: its data and protocol, its optimization, its images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from stochnorm.methods.catalogue import METHODS
from stochnorm.methods.ranges import Range, Search

__all__ = ["METHOD_HELP", "ImageSettings", "RecipeSettings", "RunSettings"]


METHOD_HELP = f"{', '.join(METHODS)}, or a sum such as stochnorm+delta+bss (stochnorm ls methods)."


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run that belong to no method."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Folder with one folder per class, or with train/, [val/,] test/ above those;
    or CSV file with the columns path,label[,split];
    or folder of a data set in its official format, or name of one (stochnorm ls datasets)."""

    method: Annotated[str, tyro.conf.arg(help=METHOD_HELP)] = "auto"
    backbone: str = "tf_efficientnet_lite0"
    """Name of a timm or torchvision model; torchvision/NAME where both have one."""
    weights: str = "auto"
    """bundled (ImageNet weights of tf_efficientnet_lite0, installed with stochnorm);
    pretrained (download by timm or torchvision); random; a run directory;
    or a .safetensors or .pth file; FILE#state_dict_ema for that set of weights in it.
    auto: bundled if it fits the backbone, else pretrained."""

    steps: Annotated[int, Range(1)] = 300
    """Training steps."""
    batch_size: Annotated[int, Range(2)] = 32
    """Images per step, over all processes."""
    image_size: Annotated[int, Range(0)] = 0
    """Side of the network's input, pixels, 32 at least; 0 for that of the backbone's weights, such as 224."""
    lr: Annotated[float, Range(0, above=True), Search(3e-4, 3e-2)] = 0.003
    """Learning rate of the backbone."""
    head_lr_factor: Annotated[float | None, Range(0, above=True)] = None
    """Learning-rate multiplier for the new head; None for 10, or 1 with --head probe."""
    momentum: Annotated[float, Range(0, 1)] = 0.9
    """SGD momentum (Nesterov), or the first beta of AdamW."""
    weight_decay: Annotated[float | None, Range(0)] = None
    """Weight decay; None for 5e-4, or 0 with L2-SP and DELTA, which replace it."""
    decay_norm_bias: bool = True
    """Weight decay on normalization and biases too, as in the paper's code."""
    decay_at: Annotated[float, Range(0, 1)] = 0.66
    """Schedule step: fraction of the steps after which the learning rates drop to a tenth; 1 for never."""
    accumulate: Annotated[int, Range(1)] = 1
    """Parts to split each batch into, to save memory; batch statistics are those of a part."""
    auxiliary: bool = True
    """Train the auxiliary classifiers of Inception-v3 and GoogLeNet too."""

    rate: Annotated[float, Range(0, 100, above=True)] = 100.0
    """Percentage of the training images to use: ceil(rate % of n) of each class with n."""
    val_fraction: Annotated[float, Range(0, 0.9)] = 0.2
    """Fraction of the (sampled) training images held out for validation, if DATA has no validation split;
    0, with --select last, to train on all of them."""
    test_fraction: Annotated[float, Range(0, 0.9)] = 0.2
    """Fraction of all images held out for the test, if DATA has no test split; 0 for no test."""
    folds: Annotated[int, Range(0)] = 0
    """Cross-validation: number of parts, such as 5, each tested by a model trained on the others; 0 for none."""
    data_seed: int = 0
    """Random seed for the split."""
    test_seed: int | None = None
    """Random seed for the test images, if DATA has no test split; None for --data-seed."""
    split_lists: str = ""
    """Folder with train.txt and perhaps val.txt and test.txt, or one list of training images: a published split."""
    pool_val: bool = False
    """Add the validation images of DATA to the training images before sampling (as FGVC-Aircraft's lists)."""
    balance: bool = False
    """Give all classes equal weight in the training loss; with several labels per image, the positive and the negative
    images of each finding."""
    strict: bool = False
    """Stop at an unreadable image, instead of skipping it with a warning."""

    statistics: Literal["pretrained", "zero_one", "target"] = "pretrained"
    """Moving statistics at the start: inherited, (0, 1), or computed from the training images."""
    norm_momentum: Annotated[float | None, Range(0, 1)] = None
    """Weight of the batch in the moving statistics (the paper's alpha, 0.1 there); None for each layer's own."""

    eval_every: Annotated[int, Range(0)] = 0
    """Steps between validations; 0 for once per epoch, at most 15 times in all."""
    select: Literal["best", "last"] = "best"
    """Model to keep and test: best on validation images, or last step (the paper's protocol)."""
    ten_crop: bool = False
    """Test on ten crops with averaged logits, instead of the center crop."""
    seed: int = 0
    """Random seed for training."""

    out: str = ""
    """Run directory; empty for runs/DATA-METHOD-HASH, named by the settings."""
    resume: bool = False
    """Continue from the run's last checkpoint."""
    overwrite: bool = False
    """Delete the run in the run directory and start again."""
    report: bool = True
    """Write report.html, a page about the run, at the end."""
    log: str = "csv"
    """Trackers that receive validation metrics: csv, tensorboard, mlflow, wandb, joined by commas; or none."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to compute on."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """Precision (autocast).
    auto: bf16 where the hardware supports it and, on a CPU, takes at most 1.1 times as long as 32; else 32."""
    compile: bool = False
    """Compile the network for training (torch.compile): for thousands of steps on a GPU;
    takes a minute or more before the first step."""
    deterministic: bool = False
    """Same bits at each repetition on a GPU, also when resumed; slower. A CPU's runs always repeat."""
    workers: Annotated[int, Range(0, 256)] = 0
    """Processes that read and augment images; 0 for the main process, which is enough for cached images;
    unused if the images live on the GPU."""
    cache: Literal["auto", "disk", "memory", "none"] = "auto"
    """Where to keep decoded images: disk, a file that all runs share; memory; none, decode at each use.
    auto: the first of them in which they fit."""


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
