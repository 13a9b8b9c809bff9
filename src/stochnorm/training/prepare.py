"""What the methods of a run do before it starts: to the normalization layers, and as terms of the loss."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stochnorm.data import Preprocessing, Split
from stochnorm.data.images.preprocessing import stack
from stochnorm.data.splits import generator
from stochnorm.files import cache_directory
from stochnorm.methods.catalogue import METHODS, check_method
from stochnorm.models import Classifier
from stochnorm.nn import convert, convert_batch_instance, freeze, initialize_statistics, name_matches
from stochnorm.nn.cpu.accelerate import accelerate, accelerate_convolutions
from stochnorm.nn.cpu.memory import keep_freed_memory
from stochnorm.nn.fold import fold_batch_norm
from stochnorm.nn.hooks.stages import check_layers, stage_names
from stochnorm.nn.select import Where, normalization_layers, pick
from stochnorm.regularizers import BSS, DELTA, L2SP, Regularizer
from stochnorm.regularizers.attention import channel_attention
from stochnorm.regularizers.attention_cache import attention_key, cached_attention
from stochnorm.runs.config import FinetuneConfig

__all__ = ["prepare"]

_ATTENTION_BATCH = 32  # the paper's
_RANDOM_STATISTICS = 64  # images that random weights get their first statistics from


def prepare(
    config: FinetuneConfig,
    classifier: Classifier,
    train: Split,
    fabric: Fabric,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Regularizer]:
    """Apply the methods of a run to its model, in place, before there is an optimizer.

    Args:
        config: Method and its settings.
        classifier: With pre-trained weights; its model is moved to the device.
        train: Training images, for initial statistics and DELTA's attention.
        fabric: Says the device.
        progress: Told the fraction of DELTA's attention that is done.

    Returns:
        The terms of the loss by their methods' names.

    Raises:
        ValueError: A method that this model does not allow; names it.
    """
    methods = check_method(config.method)
    model = classifier.model.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    where = _where(config, methods, model)
    if classifier.weights == "random" and len(train) and normalization_layers(model):
        # Nothing was inherited, and means of 0 and variances of 1 make deep networks explode.
        some = range(min(len(train), _RANDOM_STATISTICS))
        initialize_statistics(model, "target", _batches(config, classifier, train, some, fabric))
    if fabric.device.type == "cpu":
        keep_freed_memory()
        accelerate_convolutions(model)  # not yet normalization: conversions do not know the accelerated layers
    regularizers: dict[str, Regularizer] = {}
    if "delta" in methods:  # first: its reference is the network as it was pre-trained
        regularizers["delta"] = _delta(config, classifier, train, fabric, progress)
    if "l2sp" in methods:
        settings = config.l2sp
        regularizers["l2sp"] = L2SP(
            model, classifier.new_layers, alpha=settings.alpha, beta=settings.beta, scope=settings.scope
        )
    if "bss" in methods:
        regularizers["bss"] = BSS(eta=config.bss.eta, k=config.bss.k)

    if config.statistics != "pretrained":
        every = range(len(train))
        initialize_statistics(model, config.statistics, _batches(config, classifier, train, every, fabric))
    if "stochnorm" in methods:
        convert(model, p=config.p, where=where)
    elif "bin" in methods:
        convert_batch_instance(model, where=where)
    elif "frozen" in methods:
        freeze(model, what=config.freeze, where=where)
    for layer in normalization_layers(model):
        layer.momentum = _momentum(layer.momentum, config)
    if fabric.device.type == "cpu":
        accelerate(model)
    return {name: regularizers[name].to(fabric.device) for name in methods if name in regularizers}


def _where(config: FinetuneConfig, methods: Sequence[str], model: nn.Module) -> Where | None:
    """Which layers the method changes; whatever cannot work with the model is said before attention is measured."""
    changing = [name for name in methods if METHODS[name].acts_on == "normalization"]
    asked = changing[:1] or [f"--statistics {config.statistics}"] * (config.statistics != "pretrained")
    if asked and not normalization_layers(model):
        raise ValueError(
            f"{config.backbone} has no BatchNorm layer for {asked[0]} to act on; choose a backbone that normalizes by "
            "batch, or leave it out"
        )
    where = name_matches(config.norm_layers) if config.norm_layers else None
    if changing:
        try:
            pick(model, where)
        except ValueError as error:
            raise ValueError(f"norm_layers {config.norm_layers!r}: {error}" if where else str(error)) from error
    return where


def _batches(
    config: FinetuneConfig, classifier: Classifier, train: Split, images: Sequence[int], fabric: Fabric
) -> _Batches:
    return _Batches(train, images, classifier.preprocessing, config.batch_size, fabric.device)


def _momentum(own: float | None, config: FinetuneConfig) -> float | None:
    """So that a step's parts move the statistics together as far as one batch does."""
    momentum = own if config.norm_momentum is None else config.norm_momentum
    if momentum is None or config.accumulate == 1:
        return momentum
    return float(1 - (1 - momentum) ** (1 / config.accumulate))


def _delta(
    config: FinetuneConfig,
    classifier: Classifier,
    train: Split,
    fabric: Fabric,
    progress: Callable[[float], None] | None,
) -> DELTA:
    model, size = classifier.model, classifier.preprocessing.image_size
    named = config.delta.layers
    layers = check_layers(model, named) if named else stage_names(model, image_size=size, head=classifier.new_layers)
    weights = None
    if config.delta.attention == "channel":
        order = torch.randperm(len(train), generator=generator("attention", config.seed)).tolist()
        batches = _Batches(train, order, classifier.preprocessing, _ATTENTION_BATCH, fabric.device)
        measured = math.ceil(config.delta.attention_images / _ATTENTION_BATCH)
        preprocessing = classifier.preprocessing.as_dict()
        settings = {"layers": layers, "preprocessing": preprocessing, "measured": measured, "net": config.backbone}
        key = attention_key(model, batches.content(), settings)
        head: Any = classifier.head[0]
        weights = cached_attention(
            cache_directory("attention"),
            key,
            lambda: channel_attention(model, head, layers, batches, measured=measured, progress=progress),
        )
    reference = copy.deepcopy(model).eval()
    fold_batch_norm(reference, keep=layers)
    return DELTA(
        model,
        reference,
        classifier.new_layers,
        layers=layers,
        weights=weights,
        alpha=config.delta.alpha,
        beta=config.delta.beta,
    )


class _Batches:
    """Training images as the network takes them in evaluation, center crops, with targets; as often as wanted."""

    def __init__(
        self, train: Split, order: Any, preprocessing: Preprocessing, batch_size: int, device: torch.device
    ) -> None:
        self.train, self.order, self.preprocessing = train, list(order), preprocessing
        self.batch_size, self.device = batch_size, device

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.order), self.batch_size):
            chosen = self.order[start : start + self.batch_size]
            if len(chosen) < 2:  # a single image has no batch statistics
                continue
            images = stack([self.train.store[self.train.indices[i]] for i in chosen]).to(self.device)
            inputs = self.preprocessing.normalize(self.preprocessing.center_crop(images))
            yield inputs, self.train.targets[chosen].to(self.device)

    def content(self) -> Iterator[Tensor]:
        """Every image and all targets, in order."""
        for i in self.order:
            yield self.train.store[self.train.indices[i]]
        yield self.train.targets[self.order]
