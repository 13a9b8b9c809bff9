"""Classification of images with the model of a run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from torch import Tensor

from stochnorm.data.folder import image_files
from stochnorm.data.images.batches import file_batches
from stochnorm.data.images.pictures import Picture, is_picture, path_of
from stochnorm.evaluation.logits import predict_logits
from stochnorm.evaluation.tasks import task_for
from stochnorm.files import refuse_url
from stochnorm.models import Classifier, load_classifier
from stochnorm.runs.hardware import launch

__all__ = ["Prediction", "predict"]


@dataclass(frozen=True)
class Prediction:
    """The predicted class of one image."""

    path: Path | None
    """Its file; None for an image that has none."""
    label: str
    """The most probable class; of a multi-label model the findings of probability 0.5 and more, joined by "|"."""
    probability: float
    """Probability of the most probable class, in [0, 1]."""
    probabilities: dict[str, float] = field(repr=False)
    """Probability of each class."""


def predict(
    run: str | os.PathLike[str] | Classifier,
    images: Picture | Iterable[Picture],
    *,
    ten_crop: bool = False,
    flip: bool = False,
    strict: bool = False,
    batch_size: int = 32,
    device: str = "auto",
) -> list[Prediction]:
    """Classify images by their center crops, or by ten crops.

    Args:
        run: A run directory, its `model.safetensors`, the result of [stochnorm.finetune][], or a loaded model, which is
            moved to the device.
        images: Files, folders (all images in them), PIL images, arrays (h, w, 3) or tensors (3, h, w) of uint8; or one
            of them.
        ten_crop: Average the logits of ten crops of each image, instead of using the center crop.
        flip: Average the logits of each image and its mirror image, also if the run did not.
        strict: Raise at the first unreadable image instead of warning.
        batch_size: Images, or crops, per batch.
        device: auto, cpu, cuda or mps.

    Returns:
        One prediction per readable image, in order.

    Raises:
        FileNotFoundError: A run, file or folder does not exist.
        ValueError: No image can be read, or, with `strict`, one cannot; a folder has no images; or an array has another
            shape or dtype.
        TypeError: What is given is no image.
        OSError: The system cannot read an image.

    Example:
        >>> predict("runs/photos", ["new.jpg"])[0].label  # doctest: +SKIP
        'cat'
    """
    classifier = run if isinstance(run, Classifier) else load_classifier(run)
    fabric = launch(device, model=classifier.model)
    model, preprocessing = classifier.model.to(fabric.device), classifier.preprocessing
    preprocessing = replace(preprocessing, flip=flip or preprocessing.flip)
    files = list(_expand(images))
    if not files:
        raise ValueError("no images given; list image files or folders after the run")
    seen: list[Picture] = []

    def batches() -> Iterator[Tensor]:
        crops = 10 if ten_crop else 1
        for part, batch in file_batches(files, preprocessing, max(batch_size // crops, 1), strict=strict):
            seen.extend(part)
            yield batch

    logits = predict_logits(model, batches(), preprocessing, fabric, ten_crop=ten_crop)
    task = task_for(classifier.classes, classifier.multi_label)
    probabilities = task.probabilities(logits)
    return [
        Prediction(path_of(picture), label, max(p), dict(zip(task.classes, p, strict=True)))
        for picture, label, p in zip(seen, task.decide(probabilities), probabilities.tolist(), strict=True)
    ]


def _expand(images: Picture | Iterable[Picture]) -> Iterator[Picture]:
    for image in [cast("Picture", images)] if is_picture(images) else cast("Iterable[Picture]", images):
        if not isinstance(image, (str, os.PathLike)):
            yield image
        elif (path := Path(image)).is_dir():
            files = image_files(path)
            if not files:
                raise ValueError(f"{path}: the folder has no images; give another")
            yield from files
        elif path.is_file():
            yield path
        else:
            refuse_url(path)
            raise FileNotFoundError(f"{path}: no such image or folder")
