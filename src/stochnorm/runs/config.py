"""The settings of a run. The command line is made from these fields and their documentation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from stochnorm.methods.catalogue import METHODS, check_method, concerns
from stochnorm.runs.trackers import tracker_names

__all__ = ["BSSConfig", "DELTAConfig", "FinetuneConfig", "L2SPConfig", "flat"]


@dataclass(frozen=True)
class L2SPConfig:
    """L2-SP: the backbone is held at its pre-trained weights."""

    alpha: float = 0.1
    """Strength of the distance to the pre-trained weights."""
    beta: float = 0.01
    """Strength on the new head."""
    scope: Literal["weights", "all"] = "weights"
    """Convolution and linear weights, or also biases and normalization."""


@dataclass(frozen=True)
class DELTAConfig:
    """DELTA: feature maps are held near those of the pre-trained network."""

    alpha: float = 1e-4
    """Strength of the distance of the feature maps, summed over the batch.
    (The published 0.01 is for other layers, see docs/methods/delta.md.)"""
    beta: float = 0.01
    """Strength on the new head."""
    attention: Literal["channel", "uniform"] = "channel"
    """Channels weigh by what the loss loses without them (computed once and cached), or all alike."""
    attention_images: int = 320
    """Training images that channel attention is measured on, in batches of 32; its cost grows with them."""
    layers: tuple[str, ...] = ()
    """Whose outputs are compared, by name; none: the outputs of the last four stages."""


@dataclass(frozen=True)
class BSSConfig:
    """BSS: the smallest singular values of a batch's features are shrunk."""

    eta: float = 0.001
    """Strength."""
    k: int = 1
    """How many singular values."""


@dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tune a pre-trained backbone on your images; keep the best model on validation; test it once."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A folder with one folder per class, or with train/, [val/,] test/ above those;
    a CSV file with the columns path,label[,split];
    the folder of a data set in its official format (stochnorm ls datasets);
    or elpv, the demo's data set."""

    method: str = "stochnorm"
    """vanilla, stochnorm, l2sp, delta, bss, bin, frozen, or a sum: stochnorm+delta+bss (stochnorm ls methods)."""
    p: float = 0.5
    """stochnorm: probability that a channel is normalized by batch statistics, in [0, 1]; 1 is BatchNorm."""
    p_end: float = 0.5
    """p at the last step, for a schedule other than constant."""
    p_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How p goes from --p to --p-end over the training."""
    norm_layers: str = ""
    """stochnorm, bin, frozen: only layers in whose name this regular expression is found ('layer[34]'); empty: all."""
    norm_momentum: float | None = None
    """Weight of the batch in the moving statistics (the paper's alpha, 0.1 there); None: each layer's own."""
    statistics: Literal["pretrained", "zero_one", "target"] = "pretrained"
    """Moving statistics at the start: inherited, (0, 1), or computed from the training images."""
    freeze: Literal["statistics", "affine", "both"] = "statistics"
    """frozen: keep the inherited statistics, scale and shift, or both."""
    l2sp: L2SPConfig = field(default_factory=L2SPConfig)
    delta: DELTAConfig = field(default_factory=DELTAConfig)
    bss: BSSConfig = field(default_factory=BSSConfig)

    backbone: str = "tf_efficientnet_lite0"
    """Any timm or torchvision name; a name both have is timm's, torchvision/NAME the other."""
    weights: str = "auto"
    """bundled (ImageNet weights of tf_efficientnet_lite0, installed with stochnorm);
    pretrained (timm's or torchvision's download); random; a .safetensors/.pth file; or a run's directory.
    auto: bundled where it fits, else pretrained."""

    auxiliary: bool = True
    """Train the auxiliary classifiers that Inception-v3 and GoogLeNet have, beside the main one."""

    rate: float = 100.0
    """Use only this percentage of the training images: ceil(rate % of n) of each class with n."""
    val_fraction: float = 0.2
    """Share of the (sampled) training images that validate, where DATA has no validation split."""
    test_fraction: float = 0.2
    """Share of all images that test, where DATA has no test split; 0 trains without a test."""
    data_seed: int = 0
    """Which images are sampled and split off."""
    split_lists: str = ""
    """A folder with train.txt[, val.txt][, test.txt], or one list to train on: a published split, not a sample."""
    pool_val: bool = False
    """Train on the validation images of DATA too, and cut validation from the sample (as FGVC-Aircraft's lists)."""
    balance: bool = False
    """Several labels an image: weigh positive images of a finding as much as its negative ones."""
    strict: bool = False
    """Stop at an image that cannot be read, instead of leaving it out with a warning."""

    steps: int = 300
    """Training steps."""
    batch_size: int = 32
    """Images per step, over all processes."""
    accumulate: int = 1
    """Split each batch into this many parts, to save memory: gradients add up, batch statistics are a part's."""
    image_size: int = 0
    """Side of the network's input, pixels; 0: that of the backbone's weights, such as 224."""
    lr: float = 0.003
    """Learning rate of the backbone."""
    head_lr_factor: float = 10.0
    """The new head learns this many times as fast."""
    momentum: float = 0.9
    """Of SGD with Nesterov's momentum."""
    weight_decay: float | None = None
    """None: 5e-4, or 0 beside L2-SP and DELTA, which take its place (their authors')."""
    decay_norm_bias: bool = True
    """Weight decay on normalization and biases too, as in the paper's code."""
    decay_at: float = 0.66
    """The learning rates drop to a tenth after this share of the steps; 1 keeps them."""
    eval_every: int = 0
    """Steps between validations; 0: once an epoch, at most 15 times in all."""
    select: Literal["best", "last"] = "best"
    """The model that is kept and tested: the best on validation, or that of the last step (the paper's protocol)."""
    ten_crop: bool = False
    """Test on ten crops, their logits averaged, instead of the center."""
    seed: int = 0
    """Of the new head, order, augmentation and StochNorm's masks."""

    out: str = ""
    """Directory of the run; empty: runs/DATA-METHOD-HASH, named by the settings."""
    resume: bool = False
    """Go on from the run's last checkpoint."""
    overwrite: bool = False
    """Delete what the run's directory holds and start anew."""
    report: bool = True
    """Write report.html, a page about the run, when it is done."""
    log: str = "csv"
    """Who gets the metrics of each validation too: csv, tensorboard, mlflow, wandb, joined by commas; or none."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """Autocast. auto: bf16 where the processor computes in it and that is not slower, else 32."""
    workers: int = 0
    """Processes that augment images; 0: none beside the main one, which is enough for cached images."""
    cache: Literal["auto", "disk", "memory", "none"] = "auto"
    """Where decoded images are kept: disk, in a file that all runs share; memory; none decodes at each use.
    auto: the first of them in which they fit."""

    def __post_init__(self) -> None:
        """Raises ValueError where a value is out of its range; names the field."""
        for name, low, high in (
            ("p", 0, 1),
            ("p_end", 0, 1),
            ("val_fraction", 0.01, 0.9),
            ("test_fraction", 0, 0.9),
            ("decay_at", 0, 1),
            ("momentum", 0, 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be in [{low}, {high}], got {getattr(self, name)}")
        if not 0 < self.rate <= 100:
            raise ValueError(f"rate is a percentage in (0, 100], got {self.rate}")
        for name, low in (
            ("steps", 1),
            ("batch_size", 2),
            ("accumulate", 1),
            ("image_size", 0),
            ("eval_every", 0),
            ("workers", 0),
        ):
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        for name in ("lr", "head_lr_factor"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        for name, strength in (
            ("weight_decay", self.weight_decay),
            ("l2sp.alpha", self.l2sp.alpha),
            ("l2sp.beta", self.l2sp.beta),
            ("delta.alpha", self.delta.alpha),
            ("delta.beta", self.delta.beta),
            ("bss.eta", self.bss.eta),
        ):
            if strength is not None and not 0 <= strength < math.inf:
                raise ValueError(f"{name} must be 0 or positive, and finite, got {strength}")
        for name, count in (("delta.attention_images", self.delta.attention_images), ("bss.k", self.bss.k)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        if self.norm_momentum is not None and not 0 <= self.norm_momentum <= 1:
            raise ValueError(f"norm_momentum must be in [0, 1], got {self.norm_momentum}")
        if self.batch_size < 2 * self.accumulate:
            raise ValueError(
                f"accumulate {self.accumulate} leaves parts of fewer than 2 images of a batch of {self.batch_size}; "
                f"give --accumulate {self.batch_size // 2} or less"
            )
        tracker_names(self.log)
        methods = check_method(self.method)
        object.__setattr__(self, "method", "+".join(methods))  # one name for one sum
        part = self.batch_size // self.accumulate
        if "bss" in methods and self.bss.k > part:
            raise ValueError(
                f"bss.k {self.bss.k} is more than the singular values of {part} images, which batch_size "
                f"{self.batch_size} and accumulate {self.accumulate} leave; give --bss.k {part} or less"
            )
        if self.split_lists and self.rate != 100:
            raise ValueError(f"split_lists says which images train; leave out rate {self.rate:g}")

    def check_used(self) -> None:
        """Whether the method looks at each setting that is not the default: what does nothing is no setting.

        Raises:
            ValueError: Names one that it does not look at, and whose it is.
        """
        for name, value in self.changed().items():
            if not concerns(name, self.method):
                owners = [owner for owner in METHODS if concerns(name, owner)]
                raise ValueError(
                    f"{name} is for {' or '.join(owners)}, but the method is {self.method}; leave it out, or choose "
                    "another --method"
                )
            if name == "p_end" and self.p_schedule == "constant":
                raise ValueError(f"p_end {value} is for a schedule, but p is constant; give --p-schedule linear")

    def changed(self) -> dict[str, Any]:
        """The settings that are not the defaults, those of a regularizer as ``l2sp.alpha``."""
        default = flat(asdict(FinetuneConfig(self.data)))
        return {name: value for name, value in flat(asdict(self)).items() if value != default[name]}

    def without_unused(self) -> FinetuneConfig:
        """The same with the defaults for what the method does not look at."""
        default = FinetuneConfig(self.data)
        unused = [f.name for f in fields(self) if not concerns(f.name, self.method)]
        return replace(self, **{name: getattr(default, name) for name in unused})

    @classmethod
    def load(cls, path: str | Path) -> FinetuneConfig:
        """The settings in a JSON file: a run's ``config.json``, or what ``stochnorm tune`` chose.

        Raises:
            ValueError: The file is damaged, or holds a setting that there is not, or a value that it cannot have.
        """
        try:
            settings = json.loads(Path(path).read_text(encoding="utf-8"))
            _check_kinds(cls, settings)
            return cls.from_dict(settings)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not a file of stochnorm's settings ({error})") from error

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> FinetuneConfig:
        """The settings as JSON has them; what is missing takes its default.

        Raises:
            TypeError: There is no such setting, or it is no mapping where one belongs.
            ValueError: A value is out of its range.
        """
        nested = {"l2sp": L2SPConfig, "delta": DELTAConfig, "bss": BSSConfig}
        groups: dict[str, Any] = {name: kind(**settings.get(name, {})) for name, kind in nested.items()}
        groups["delta"] = replace(groups["delta"], layers=tuple(groups["delta"].layers))
        return cls(**{**settings, **groups})

    def as_fields(self) -> dict[str, Any]:
        """The fields as they are, to make another object of."""
        return {f.name: getattr(self, f.name) for f in fields(FinetuneConfig)}

    def result_fields(self) -> dict[str, Any]:
        """The fields that the result depends on, in order; the run is named by them."""
        bookkeeping = {"out", "resume", "overwrite", "report", "log", "strict", "workers", "cache"}
        return {name: value for name, value in asdict(self).items() if name not in bookkeeping}


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with those of a group as ``l2sp.alpha``."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {name: value}
    return found


def _check_kinds(kind: type, settings: Mapping[str, Any], group: str = "") -> None:
    """Whether each value that JSON has is of its field's type; raises TypeError, which names the field."""
    hints = get_type_hints(kind)
    for name, value in settings.items():
        hint = hints.get(name, object)
        if is_dataclass(hint) and isinstance(value, Mapping):
            _check_kinds(hint, value, f"{name}.")  # type: ignore[arg-type]
        elif not _fits(value, hint):
            wanted = getattr(hint, "__name__", "") if isinstance(hint, type) else str(hint).replace("typing.", "")
            raise TypeError(f"{group}{name} must be {wanted}, got {value!r}")


def _fits(value: Any, hint: Any) -> bool:
    of = get_args(hint)
    if get_origin(hint) is Literal:
        return value in of
    if get_origin(hint) is tuple:
        return isinstance(value, (list, tuple)) and all(isinstance(item, of[0]) for item in value)
    if of:
        return any(_fits(value, part) for part in of)
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)
