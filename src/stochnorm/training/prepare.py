"""Applies the methods of a run to its model before training: normalization layers, and terms of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from lightning_fabric import Fabric
from torch import nn

from stochnorm.data import Split
from stochnorm.data.images.center import CenterCrops
from stochnorm.data.splits import generator
from stochnorm.methods.catalogue import methods_of
from stochnorm.methods.method import Method, Setup
from stochnorm.models import Classifier
from stochnorm.models.source import source_head, source_network
from stochnorm.nn import fuse, initialize_statistics, name_matches
from stochnorm.nn.cpu.accelerate import accelerate, accelerate_convolutions
from stochnorm.nn.cpu.memory import keep_freed_memory
from stochnorm.nn.select import Where, normalization_layers, pick
from stochnorm.regularizers import Regularizer
from stochnorm.runs.config import FinetuneConfig

__all__ = ["prepare"]

_RANDOM_STATISTICS = 64  # images that random weights get their first statistics from


def prepare(
    config: FinetuneConfig,
    classifier: Classifier,
    train: Split,
    fabric: Fabric,
    progress: Callable[[float], None] | None = None,
    start_head: Callable[[], None] | None = None,
) -> dict[str, Regularizer]:
    """Apply the methods of a run to its model, in place, before there is an optimizer.

    Args:
        config: Method and its settings.
        classifier: Classifier with pre-trained weights; its model is moved to the device.
        train: Training images, for initial statistics and DELTA's attention.
        fabric: The device.
        progress: Told the fraction of DELTA's attention that is done.
        start_head: Gives the head its start while the network computes as it was pre-trained; None leaves it random.

    Returns:
        The terms of the loss by their methods' names.

    Raises:
        ValueError: The model does not allow a method; the message names it.
    """
    methods = methods_of(config.method)
    model = classifier.model.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    where = _where(config, methods, model)

    def crops(order: Iterable[int], batch_size: int) -> CenterCrops:
        return CenterCrops(train, order, classifier.preprocessing, batch_size, fabric.device)

    def images(order: list[int]) -> CenterCrops:
        most = math.ceil(len(order) / config.batch_size)
        sizes = (math.ceil(len(order) / parts) for parts in range(most, 0, -1))  # like ones; one image is no batch
        return crops(order, next(size for size in sizes if len(order) % size != 1))

    # Images are sorted by class: a batch of one would hide the variance between them.
    order = torch.randperm(len(train), generator=generator("statistics", config.seed)).tolist()
    if classifier.weights == "random" and len(train) and normalization_layers(model):
        # Nothing was inherited, and means of 0 and variances of 1 make deep networks explode.
        initialize_statistics(model, "target", images(order[:_RANDOM_STATISTICS]))
    if fabric.device.type == "cpu":
        keep_freed_memory()
        accelerate_convolutions(model)  # not yet normalization: conversions do not know the accelerated layers
    if start_head is not None:
        start_head()

    def source() -> tuple[nn.Module, nn.Module]:
        head = source_head(classifier).to(fabric.device)
        return head, source_network(classifier, head)

    setup = Setup(classifier, fabric.device, where, config.seed, crops, len(train), source, progress)

    def apply(acts_on: str) -> dict[str, Regularizer | None]:
        return {m.name: m.apply(setup, m.settings_of(config)) for m in methods if m.acts_on == acts_on}

    terms = apply("loss")  # first: references and anchors are the network as it was pre-trained
    for name, term in terms.items():
        if fabric.world_size > 1 and term is not None and any(p.requires_grad for p in term.parameters()):
            raise ValueError(
                f"{name} trains a head of its own, which several processes would not share; use one process"
            )
    if config.statistics != "pretrained":
        initialize_statistics(model, config.statistics, images(order))
    apply("normalization")
    for layer in normalization_layers(model):
        layer.momentum = _momentum(layer.momentum, config)
    if fabric.device.type == "cpu":
        accelerate(model)
    if fabric.device.type == "cuda":
        fuse(model)
    return {name: term.to(fabric.device) for name, term in terms.items() if term is not None}


def _where(config: FinetuneConfig, methods: list[Method], model: nn.Module) -> Where | None:
    """Return which layers the methods change; raise ValueError, before any long work, where there are none."""
    changing = [method.name for method in methods if method.acts_on == "normalization"]
    asked = changing[:1] or [f"--statistics {config.statistics}"] * (config.statistics != "pretrained")
    if asked and not normalization_layers(model):
        raise ValueError(
            f"{config.backbone} has no BatchNorm layer, which {asked[0]} needs; choose a backbone with BatchNorm, or "
            f"remove {asked[0]}"
        )
    where = name_matches(config.norm_layers) if config.norm_layers else None
    if changing:
        try:
            pick(model, where)
        except ValueError as error:
            raise ValueError(f"norm_layers {config.norm_layers!r}: {error}" if where else str(error)) from error
    return where


def _momentum(own: float | None, config: FinetuneConfig) -> float | None:
    """Return the momentum with which the parts of a step move the statistics as far as one batch does."""
    momentum = own if config.norm_momentum is None else config.norm_momentum
    if momentum is None or config.accumulate == 1:
        return momentum
    return float(1 - (1 - momentum) ** (1 / config.accumulate))
