"""How far the activation statistics of a data set lie from those a model inherited, layer by layer, with advice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.data import ImageStore, Split, read_source
from stochnorm.data.splits import generator
from stochnorm.doctor.diagnosis import Diagnosis
from stochnorm.doctor.moments import Moments, check_finite, compare
from stochnorm.models import Classifier, build_classifier, check_forward, load_classifier
from stochnorm.models.backbones import find_backbone
from stochnorm.nn.hooks.modes import evaluating
from stochnorm.nn.select import has_moving_statistics
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import data_name
from stochnorm.runs.hardware import launch
from stochnorm.training.display import Display
from stochnorm.training.finetune import split_rows

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
        ValueError: The model has no such layer, there are fewer than two batches, or NaN or infinity among what a
            layer inherited or is given.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(1))  # mean 0, variance 1
        >>> diagnosis = doctor(model, [torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [4.0]])])
        >>> round(diagnosis.rows[0].shift, 3), round(diagnosis.rows[0].noise, 3)
        (2.5, 0.632)
    """
    layers = _layers(model)
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no normalization layer with moving statistics, so there is nothing to "
            "compare; give a model with BatchNorm"
        )
    for name, layer in layers.items():
        check_finite(layer.running_mean, layer.running_var, f"the moving statistics of {name or 'the layer'} hold")
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
        raise ValueError(f"the doctor needs two or more batches to see how they differ, got {count}")
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
        backbone: A name of timm or torchvision, as for fine-tuning; or a finished run, by its directory or its
            ``model.safetensors``, whose moving statistics are then those that are looked at.
        data: A folder, a CSV manifest, or a known data set. Its training images are used; where it does not say which
            they are, those that fine-tuning would train on with its default settings.
        weights: ``auto``, ``bundled``, ``pretrained``, ``random``, or a file.
        image_size: Side of the input, pixels; 0: that of the backbone's weights, or of the run.
        batch_size: As in the training to come: the noise depends on it.
        max_images: At most so many images, drawn at random.
        rate: Percentage of the training images of each class that fine-tuning would use.
        split_lists: A folder with train.txt, in place of sampling.
        seed: Of the draw, the order and the augmentation.
        device: auto, cpu, cuda or mps.
        quiet: Print nothing.

    Raises:
        ValueError: A setting out of its range; fewer images than two batches; no BatchNorm; or what reading data and
            model says.
        FileNotFoundError: No such data, lists or weights.

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
            f"max_images {max_images} is fewer than two batches of {batch_size}; give --max-images {2 * batch_size} or "
            "more, or a smaller --batch-size"
        )
    source = read_source(config.data)
    train = [row for row in split_rows(source, config) if row.split == "train"]
    order = torch.randperm(len(train), generator=generator("doctor", seed)).tolist()
    sample = [train[i] for i in order[:max_images]]
    if len(sample) < 2 * batch_size:
        raise ValueError(
            f"{data}: {len(sample)} training images are fewer than two batches of {batch_size}; give a smaller "
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
    split = Split(store, list(range(len(store))), torch.zeros(len(store), dtype=torch.int64))  # no label is looked at
    steps = len(store) // batch_size
    device_ = launch(device, "32").device
    model = classifier.model.to(device_, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with display.measuring("Comparing statistics") as progress:

        def batches() -> Iterator[Tensor]:
            for step, (images, _) in enumerate(split.training_batches(batch_size, range(steps), seed=seed)):
                progress(step / steps)
                yield classifier.preprocessing.normalize(images.to(device_))

        diagnosis = doctor(model, batches())
    subject = f"{name} on {data_name(str(data))} at {size} px"
    return replace(diagnosis, subject=subject, inherited=weights != "random")


def _classifier(config: FinetuneConfig, classes: tuple[str, ...]) -> tuple[Classifier, str]:
    """The model to look at, without auxiliary heads, and its name."""
    name, path = config.backbone, Path(config.backbone)
    try:
        find_backbone(name)
    except ValueError:
        if not path.exists():
            raise
        if config.weights != "auto":
            raise ValueError(
                f"{name} is a run, with weights of its own; leave out --weights {config.weights}"
            ) from None
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
            f"{name} has no BatchNorm layer with moving statistics, so there is nothing to compare; choose a backbone "
            "that normalizes by batch, such as resnet50"
        )
    return classifier, name


def _layers(model: nn.Module) -> dict[str, _BatchNorm]:
    return {n: m for n, m in model.named_modules() if has_moving_statistics(m)}
