"""How far the activation statistics of a data set lie from those a model inherited, layer by layer, with advice."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.data import ImageStore, Split, assign_splits, read_source
from stochnorm.data.splits import generator
from stochnorm.diagnosis import Diagnosis, LayerStatistics
from stochnorm.hardware import launch
from stochnorm.models import build_classifier

__all__ = ["diagnose", "doctor"]


@torch.no_grad()
def doctor(model: nn.Module, batches: Iterable[Any], device: torch.device | str | None = None) -> Diagnosis:
    """Compare the statistics of data, at each normalization layer's input, with the layer's moving statistics.

    The model runs in eval mode, so that every layer sees what it sees at inference: a deep layer's shift includes what
    the shifts of those before it do to it. Nothing in the model changes.

    Args:
        model: With BatchNorm, StochNorm, frozen or Batch-Instance layers that hold moving statistics.
        batches: Two or more, of one size, as in training; tensors (b, ...), or lists, tuples whose first item is the
            inputs.
        device: Where batches are moved; None leaves them.

    Returns:
        A row per layer that was run, in order.

    Raises:
        ValueError: The model has no such layer, or there are fewer than two batches.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(1))  # mean 0, variance 1
        >>> diagnosis = doctor(model, [torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [4.0]])])
        >>> round(diagnosis.rows[0].shift, 3), round(diagnosis.rows[0].noise, 3)
        (2.5, 0.707)
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is not None}
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no normalization layer with moving statistics, so there is nothing to compare"
        )
    seen: dict[str, _Moments] = {}

    def watch(name: str) -> Any:
        return lambda module, inputs: seen.setdefault(name, _Moments()).add(inputs[0])

    training = {module: module.training for module in model.modules()}
    handles = [module.register_forward_pre_hook(watch(name)) for name, module in layers.items()]
    images = count = 0
    try:
        model.eval()
        for batch in batches:
            inputs: Tensor = batch[0] if isinstance(batch, (list, tuple)) else batch
            model(inputs if device is None else inputs.to(device))
            images, count = images + len(inputs), count + 1
    finally:
        for handle in handles:
            handle.remove()
        for module, flag in training.items():
            module.training = flag
    if count < 2:
        raise ValueError(f"the doctor needs two or more batches to see how they differ, got {count}")
    return Diagnosis([_compare(name, layers[name], moments) for name, moments in seen.items()], images, count)


def diagnose(
    backbone: str,
    data: str | Path,
    *,
    weights: str = "auto",
    image_size: int = 0,
    batch_size: int = 32,
    max_images: int = 512,
    seed: int = 0,
    device: str = "auto",
) -> Diagnosis:
    """Diagnose a backbone on an image data set, with batches as in training: shuffled and augmented.

    Args:
        backbone: A name of timm or torchvision, as for fine-tuning.
        data: A folder, a CSV manifest, or a known data set. Its training images are used; where it does not say which
            they are, those that fine-tuning would train on with its default settings.
        weights: ``auto``, ``bundled``, ``pretrained``, ``random``, or a file.
        image_size: Side of the input, pixels; 0: that of the backbone's weights.
        batch_size: As in the training to come: the noise depends on it.
        max_images: At most so many images, drawn at random.
        seed: Of the draw, the order and the augmentation.
        device: auto, cpu, cuda or mps.

    Raises:
        ValueError: Fewer images than two batches; no normalization layer; or what reading the data says.

    Example:
        >>> diagnose("tf_efficientnet_lite0", "photos/").show(Console())  # doctest: +SKIP
    """
    source = read_source(data)
    rows = assign_splits(
        source.rows, rate=100, val_fraction=0.2, test_fraction=0.2, seed=0, multi_label=source.multi_label
    )
    train = [row for row in rows if row.split == "train"]
    order = torch.randperm(len(train), generator=generator("doctor", seed)).tolist()
    sample = [train[i] for i in order[:max_images]]
    classifier = build_classifier(backbone, weights, source.classes, image_size=image_size)
    store = ImageStore(source.root, sample, classifier.preprocessing)
    steps = len(store) // batch_size
    if steps < 2:
        raise ValueError(
            f"{data}: {len(store)} training images are fewer than two batches of {batch_size}; give a smaller "
            "--batch-size"
        )
    split = Split(store, list(range(len(store))), torch.zeros(len(store), dtype=torch.int64))  # no label is looked at
    batches = split.training_batches(batch_size, range(steps), seed=seed)
    device_ = launch(device, "32").device
    model = classifier.model.to(device_, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return doctor(model, (classifier.preprocessing.normalize(images.to(device_)) for images, _ in batches))


class _Moments:
    """Per-channel mean and variance of each batch that came by."""

    def __init__(self) -> None:
        self.values: list[int] = []
        self.means: list[Tensor] = []
        self.variances: list[Tensor] = []

    def add(self, input: Tensor) -> None:
        channels_last = input.detach().float().movedim(1, -1).reshape(-1, input.size(1))
        variance, mean = torch.var_mean(channels_last, 0, correction=0)
        self.values.append(len(channels_last))
        self.means.append(mean.double().cpu())
        self.variances.append(variance.double().cpu())


def _compare(name: str, layer: _BatchNorm, moments: _Moments) -> LayerStatistics:
    running_mean, running_var = (torch.as_tensor(b).double().cpu() for b in (layer.running_mean, layer.running_var))
    sigma = (running_var + layer.eps).sqrt()
    means, variances = torch.stack(moments.means), torch.stack(moments.variances)
    share = torch.tensor(moments.values, dtype=torch.float64)[:, None] / sum(moments.values)
    mean = (share * means).sum(0)
    variance = (share * (variances + (means - mean).square())).sum(0)

    shift = (mean - running_mean).abs() / sigma
    scale = ((variance + layer.eps) / (running_var + layer.eps)).log2().abs()
    noise = means.std(0) / sigma
    dead = running_var < layer.eps
    awake = dead & ((variance.sqrt() > 2 * sigma) | (shift > 1))
    low, middle, high = _quantiles(shift[~dead], (0.1, 0.5, 0.9))
    return LayerStatistics(
        name=name or type(layer).__name__,
        channels=layer.num_features,
        shift=middle,
        shift_low=low,
        shift_high=high,
        beyond=float((shift[~dead] > 1).double().mean()),
        scale=_quantiles(scale[~dead], (0.5,))[0],
        noise=_quantiles(noise[~dead], (0.5,))[0],
        dead=int(dead.sum()),
        awake=int(awake.sum()),
    )


def _quantiles(values: Tensor, shares: tuple[float, ...]) -> list[float]:
    if not len(values):
        return [math.nan] * len(shares)
    return [float(q) for q in values.quantile(torch.tensor(shares, dtype=values.dtype))]
