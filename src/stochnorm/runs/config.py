"""The settings of a run. The command line is made from these fields and their documentation."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from stochnorm.methods.catalogue import METHODS, MethodSettings, check_method, concerns, methods_of
from stochnorm.methods.ranges import Range, Search, check_ranges
from stochnorm.runs.kinds import check_kinds
from stochnorm.runs.presets import preset_settings
from stochnorm.runs.recipe import ImageSettings, RecipeSettings
from stochnorm.runs.trackers import tracker_names

__all__ = ["BOOKKEEPING", "METHOD_HELP", "FinetuneConfig", "RunSettings", "added", "flat"]

METHOD_HELP = f"{', '.join(METHODS)}, or a sum such as stochnorm+delta+bss (stochnorm ls methods)."
# How a run computes and what it writes, not what it computes. Compiled code rounds differently and draws other masks
# with the same law.
BOOKKEEPING = (
    "out", "resume", "overwrite", "report", "log", "strict", "workers", "cache", "compile", "deterministic",
)  # fmt: skip
_MOST_EVALUATIONS = 15  # by default
# The settings of the first version. A later one is in a run's name only where it is not the default.
_FIRST = (
    "data method backbone weights steps batch_size image_size lr head_lr_factor momentum weight_decay decay_norm_bias "
    "decay_at accumulate auxiliary rate val_fraction test_fraction data_seed split_lists pool_val balance statistics "
    "norm_momentum eval_every select ten_crop seed device precision p p_end p_schedule norm_layers freeze l2sp delta "
    "bss"
)


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
    pretrained (download by timm or torchvision); random; a .safetensors or .pth file; or a run directory.
    auto: bundled if it fits the backbone, else pretrained."""

    steps: Annotated[int, Range(1)] = 300
    """Training steps."""
    batch_size: Annotated[int, Range(2)] = 32
    """Images per step, over all processes."""
    image_size: Annotated[int, Range(0)] = 0
    """Side of the network's input, pixels; 0 for that of the backbone's weights, such as 224."""
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
    val_fraction: Annotated[float, Range(0.01, 0.9)] = 0.2
    """Fraction of the (sampled) training images held out for validation, if DATA has no validation split."""
    test_fraction: Annotated[float, Range(0, 0.9)] = 0.2
    """Fraction of all images held out for the test, if DATA has no test split; 0 for no test."""
    data_seed: int = 0
    """Random seed for the split."""
    split_lists: str = ""
    """Folder with train.txt[, val.txt][, test.txt], or one list of training images: a published split, not a sample."""
    pool_val: bool = False
    """Add the validation images of DATA to the training images before sampling (as FGVC-Aircraft's lists)."""
    balance: bool = False
    """Several labels per image: give positive and negative images of a finding equal weight in the loss."""
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
    workers: Annotated[int, Range(0)] = 0
    """Processes that read and augment images; 0 for the main process, which is enough for cached images;
    unused if the images live on the GPU."""
    cache: Literal["auto", "disk", "memory", "none"] = "auto"
    """Where to keep decoded images: disk, a file that all runs share; memory; none, decode at each use.
    auto: the first of them in which they fit."""


@dataclass(frozen=True)
class FinetuneConfig(MethodSettings, ImageSettings, RecipeSettings, RunSettings):
    """Fine-tune a pre-trained backbone on your images; keep the best validation checkpoint; score it on test images.

    The fields are those of `RunSettings`, `RecipeSettings` and `ImageSettings`, then those of the methods
    (`stochnorm.methods`). Values are checked when the
    object is made.

    Raises:
        ValueError: A value is out of its range; the message names the field.
        TypeError: A value is not of its field's type.

    Example:
        >>> FinetuneConfig("photos/", method="l2sp+stochnorm", lr=0.01).method
        'stochnorm+l2sp'
    """

    def __post_init__(self) -> None:
        for name in ("data", "weights", "split_lists", "out"):
            object.__setattr__(self, name, os.fspath(getattr(self, name)))
        check_kinds(type(self), self.__dict__)
        check_ranges(self)
        for method in METHODS.values():
            method.check_ranges(self)
        if self.batch_size < 2 * self.accumulate:
            raise ValueError(
                f"accumulate must leave at least 2 images in each part of a batch of {self.batch_size}, got "
                f"{self.accumulate}; give --accumulate {self.batch_size // 2} or less"
            )
        tracker_names(self.log)
        object.__setattr__(self, "method", "+".join(check_method(self.method)))  # one name for one sum
        for method in methods_of(self.method):
            method.check(method.settings_of(self), self.batch_size // self.accumulate)
        if self.optimizer == "adamw" and self.momentum == 1:
            raise ValueError("momentum must be below 1 with --optimizer adamw, whose first beta it is, got 1")
        if self.split_lists and self.rate != 100:
            raise ValueError(f"split_lists already names the training images; remove rate {self.rate:g}")

    def check_used(self) -> None:
        """Raise ValueError where a setting that the method does not use is not the default.

        Raises:
            ValueError: The message names the setting and the methods that use it.
        """
        for name, value in self.changed().items():
            if not concerns(name, self.method):
                owners = [owner for owner in METHODS if concerns(name, owner)]
                raise ValueError(
                    f"method {self.method} does not use {name}, which is for {' or '.join(owners)}; remove it, or "
                    "choose another --method"
                )
            if name == "p_end" and self.p_schedule == "constant":
                raise ValueError(f"p_end {value} needs a schedule, but p is constant; give --p-schedule linear")

    def changed(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults; those of a group as `l2sp.alpha`."""
        default = flat(asdict(FinetuneConfig(self.data)))
        return {name: value for name, value in flat(asdict(self)).items() if value != default[name]}

    def without_unused(self) -> FinetuneConfig:
        """Return a copy with the defaults for the settings that the method does not use."""
        default = FinetuneConfig(self.data)
        unused = [f.name for f in fields(self) if not concerns(f.name, self.method)]
        return replace(self, **{name: getattr(default, name) for name in unused})

    @classmethod
    def of_preset(cls, preset: str, data: str | Path, **settings: Any) -> FinetuneConfig:
        """Return the settings of a preset, some of them replaced.

        Raises:
            ValueError: There is no such preset, or a value is out of its range.

        Example:
            >>> FinetuneConfig.of_preset("gentle", "photos/", lr=0.002).schedule
            'cosine'
        """
        return cls(os.fspath(data), **(preset_settings(preset) | settings))

    @classmethod
    def load(cls, path: str | Path) -> FinetuneConfig:
        """Read the settings in a JSON file: a run's `config.json`, or `chosen.json` of `stochnorm tune`.

        Raises:
            ValueError: The file is damaged, or has an unknown setting or a value out of its range.
        """
        try:
            settings = json.loads(Path(path).read_text(encoding="utf-8"))
            check_kinds(cls, settings)
            return cls.from_dict(settings)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not a file of stochnorm's settings ({error})") from error

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> FinetuneConfig:
        """Return the settings in a mapping, as JSON has them; missing ones take their defaults.

        Raises:
            TypeError: There is no such setting, or a group is not a mapping.
            ValueError: A value is out of its range.
        """
        groups: dict[str, Any] = {}
        for name, method in METHODS.items():
            if method.group:
                given = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.get(name, {}).items()}
                groups[name] = method.group(**given)
        return cls(**{**settings, **groups})

    def as_fields(self) -> dict[str, Any]:
        """Return the fields as they are, to make another object from."""
        return {f.name: getattr(self, f.name) for f in fields(FinetuneConfig)}

    def result_fields(self) -> dict[str, Any]:
        """Return the fields that the result depends on; the run is named by them."""
        left_out = {*BOOKKEEPING, *(added() - self.changed_fields())}
        used = {"head_lr_factor": self.head_lr_factor_used}
        return {name: value for name, value in (asdict(self) | used).items() if name not in left_out}

    def changed_fields(self) -> set[str]:
        """Return the fields that differ from the defaults; a group as one."""
        default = FinetuneConfig(self.data)
        return {f.name for f in fields(self) if getattr(self, f.name) != getattr(default, f.name)}

    @property
    def head_lr_factor_used(self) -> float:
        """The learning-rate multiplier of the head as set; else 1 if it starts at the probe, or 10 as in the paper."""
        if self.head_lr_factor is not None:
            return self.head_lr_factor
        return 1.0 if self.head == "probe" else 10.0

    @property
    def weight_decay_used(self) -> float:
        """The weight decay as set; else 0 with a method that replaces it, else 5e-4 as in the paper."""
        if self.weight_decay is not None:
            return self.weight_decay
        return 0.0 if any(method.replaces_weight_decay for method in methods_of(self.method)) else 5e-4

    def eval_every_used(self, images: int) -> int:
        """Return the steps between two validations, for so many training images: as set; else an epoch or more."""
        return self.eval_every or max(images // self.batch_size, math.ceil(self.steps / _MOST_EVALUATIONS))


def added() -> frozenset[str]:
    """Return the settings that runs of the first version lack."""
    return frozenset(f.name for f in fields(FinetuneConfig)) - {*_FIRST.split()}


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without groups: those of a group as `l2sp.alpha`."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {name: value}
    return found
