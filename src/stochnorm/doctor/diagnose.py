"""Comparison of the activation statistics of a data set with those that a model inherited, layer by layer."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.data import ImageStore, Split, read_source
from stochnorm.data.images.batches import network_inputs
from stochnorm.data.splits import generator
from stochnorm.doctor.diagnosis import Diagnosis
from stochnorm.doctor.moments import Moments, check_finite, compare
from stochnorm.models import Classifier, build_classifier, check_forward, load_classifier
from stochnorm.models.backbones import find_backbone
from stochnorm.nn.hooks.modes import evaluating
from stochnorm.nn.select import has_moving_statistics
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.hardware import launch
from stochnorm.runs.names import data_name
from stochnorm.training.display import Display
from stochnorm.training.images import split_rows

__all__ = ["diagnose", "doctor"]


@torch.no_grad()
def doctor(model: nn.Module, batches: Iterable[Any], device: torch.device | str | None = None) -> Diagnosis:
    """Compare the statistics of data at the input of each normalization layer with the layer's moving statistics.

    The model runs in eval mode, so that every layer has the inputs that it has at inference: the shift of a deep layer
    includes the effect of the shifts before it. The model is not changed.

    Args:
        model: Network with BatchNorm, StochNorm, frozen or Batch-Instance layers with moving statistics.
        batches: Two or more batches of one size, as in training: tensors (b, ...), or lists or tuples whose first item
            is the inputs.
        device: Device to move the batches to; None: leave them.

    Returns:
        A row per layer, in the order of the forward pass.

    Raises:
        ValueError: The model has no such layer, there are fewer than two batches, or the inherited statistics or the
            inputs of a layer are not finite.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(1))  # mean 0, variance 1
        >>> diagnosis = doctor(model, [torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [4.0]])])
        >>> round(diagnosis.rows[0].shift, 3), round(diagnosis.rows[0].noise, 3)
        (2.5, 0.632)
    """
    layers = _layers(model)
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no normalization layer with moving statistics to compare with; use a "
            "model with BatchNorm"
        )
    for name, layer in layers.items():
        check_finite(layer.running_mean, layer.running_var, f"the moving statistics of {name or 'the layer'} have")
    seen: dict[str, Moments] = {}

    def watch(name: str) -> Any:
        return lambda module, inputs: seen.setdefault(name, Moments(name)).add(inputs[0])

    handles = [module.register_forward_pre_hook(watch(name)) for name, module in layers.items()]
    images = count = 0
    try:
        with evaluating(model):
            for batch in batches:
                inputs: Tensor = batch[0] if isinstance(batch, (list, tuple)) else batch
                model(inputs if device is None else inputs.to(device))
                images, count = images + len(inputs), count + 1
    finally:
        for handle in handles:
            handle.remove()
    if count < 2:
        raise ValueError(f"the doctor needs at least two batches to compare them, got {count}")
    return Diagnosis([compare(name, layers[name], moments) for name, moments in seen.items()], images, count)


def diagnose(
    backbone: str,
    data: str | Path,
    *,
    weights: str = "auto",
    image_size: int = 0,
    batch_size: int = 32,
    max_images: int = 512,
    rate: float = 100.0,
    split_lists: str | Path = "",
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> Diagnosis:
    """Diagnose a backbone on an image data set, with batches as in training: shuffled and augmented.

    Args:
        backbone: A name of timm or torchvision, as for fine-tuning; or a run directory or its `model.safetensors`, to
            compare with the moving statistics of the run.
        data: Folder, CSV manifest, or published data set. Its training images are used; without a training split, those
            that fine-tuning would use with its default settings.
        weights: `auto`, `bundled`, `pretrained`, `random`, or a file.
        image_size: Side of the input, pixels; 0: that of the backbone's weights, or of the run.
        batch_size: Images per batch, as in the planned training: the noise depends on it.
        max_images: Maximum number of images to sample.
        rate: Percentage of the training images of each class that fine-tuning would use.
        split_lists: Folder with train.txt, instead of sampling.
        seed: Random seed for the sample, the order and the augmentation.
        device: auto, cpu, cuda or mps.
        quiet: Print nothing.

    Raises:
        ValueError: A setting is out of its range, there are fewer images than two batches, the model has no BatchNorm,
            or data or model cannot be read.
        FileNotFoundError: Data, lists or weights do not exist.

    Example:
        >>> diagnose("tf_efficientnet_lite0", "photos/").show(Console())  # doctest: +SKIP
    """
    config = FinetuneConfig(
        str(data),
        backbone=backbone,
        weights=weights,
        image_size=image_size,
        batch_size=batch_size,
        rate=rate,
        split_lists=str(split_lists),
        seed=seed,
    )
    if max_images < 2 * batch_size:
        raise ValueError(
            f"max_images must be at least two batches of {batch_size}, got {max_images}; use --max-images "
            f"{2 * batch_size} or more, or a smaller --batch-size"
        )
    source = read_source(config.data)
    train = [row for row in split_rows(source, config) if row.split == "train"]
    order = torch.randperm(len(train), generator=generator("doctor", seed)).tolist()
    sample = [train[i] for i in order[:max_images]]
    if len(sample) < 2 * batch_size:
        raise ValueError(
            f"{data}: {len(sample)} training images are fewer than two batches of {batch_size}; use a smaller "
            "--batch-size"
        )
    classifier, name = _classifier(config, source.classes)
    size = classifier.preprocessing.image_size
    display = Display(quiet=quiet)
    with_weights = f" with {classifier.weights} weights" if name == backbone else ""
    display.note(
        f"{len(sample)} training images of {data} in batches of {batch_size}, through {name}{with_weights} at {size} px"
    )
    store = ImageStore(source.root, sample, classifier.preprocessing, track=display.track)
    split = Split(store, list(range(len(store))), torch.zeros(len(store), dtype=torch.int64))  # labels are not used
    steps = len(store) // batch_size
    device_ = launch(device, "32").device
    model = classifier.model.to(device_, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with display.measuring("Comparing statistics") as progress:

        def batches() -> Iterator[Tensor]:
            augmented = split.training_batches(batch_size, range(steps), seed=seed, device=device_)
            for step, (inputs, _) in enumerate(network_inputs(augmented, classifier.preprocessing, device_)):
                progress(step / steps)
                yield inputs

        diagnosis = doctor(model, batches())
    subject = f"{name} on {data_name(str(data))} at {size} px"
    planned = replace(config, backbone=classifier.backbone, weights=backbone if name != backbone else weights)
    return replace(diagnosis, subject=subject, inherited=weights != "random", training=_training(planned))


def _training(config: FinetuneConfig) -> str:
    """Return the settings of a planned training as arguments of a command line, without its seed."""
    changed = {name: value for name, value in config.changed().items() if name != "seed"}
    options = [part for name, value in changed.items() for part in (f"--{name.replace('_', '-')}", f"{value}")]
    return shlex.join([config.data, *options])


def _classifier(config: FinetuneConfig, classes: tuple[str, ...]) -> tuple[Classifier, str]:
    """Build or load the model, without auxiliary heads, and return it with its name."""
    name, path = config.backbone, Path(config.backbone)
    try:
        find_backbone(name)
    except ValueError:
        if not path.exists():
            raise
        if config.weights != "auto":
            raise ValueError(f"{name} is a run, which has its weights; remove --weights {config.weights}") from None
        classifier = load_classifier(path)
        name = f"{classifier.backbone} of {path}"
        if config.image_size:
            classifier.preprocessing = replace(classifier.preprocessing, image_size=config.image_size)
            check_forward(classifier)
    else:
        classifier = build_classifier(
            name, config.weights, classes, image_size=config.image_size, seed=config.seed, auxiliary=False
        )
    if not _layers(classifier.model):
        raise ValueError(
            f"{name} has no BatchNorm layer with moving statistics to compare with; choose a backbone with BatchNorm, "
            "such as resnet50"
        )
    return classifier, name


def _layers(model: nn.Module) -> dict[str, _BatchNorm]:
    return {n: m for n, m in model.named_modules() if has_moving_statistics(m)}
