"""Classify images with the model of a run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from stochnorm.data.folder import image_files
from stochnorm.data.images.ahead import map_ahead
from stochnorm.data.images.preprocessing import Preprocessing, stack
from stochnorm.evaluation.logits import predict_logits
from stochnorm.evaluation.tasks import task_for
from stochnorm.models import load_classifier
from stochnorm.runs.hardware import launch
from stochnorm.text import some

__all__ = ["Prediction", "predict"]


@dataclass(frozen=True)
class Prediction:
    """The class of one image."""

    path: Path
    label: str
    """The most probable class; of a model with several labels an image those of 0.5 and more, joined by "|"."""
    probability: float
    """Of the most probable class, in [0, 1]."""
    probabilities: dict[str, float]
    """Of every class."""


def predict(
    run: str | Path, images: Iterable[str | Path], *, strict: bool = False, batch_size: int = 32, device: str = "auto"
) -> list[Prediction]:
    """Classify image files, and all images in folders, by their center crop.

    Args:
        run: A run's directory or its ``model.safetensors``.
        images: Files and folders.
        strict: Raise at an image that cannot be read, instead of a warning.
        batch_size: Images at a time.
        device: auto, cpu, cuda or mps.

    Returns:
        One prediction per readable image, in order.

    Raises:
        FileNotFoundError: No such run, file or folder.
        ValueError: No image can be read, or with ``strict`` one cannot; a folder holds none.

    Example:
        >>> predict("runs/photos", ["new.jpg"])[0].label  # doctest: +SKIP
        'cat'
    """
    classifier = load_classifier(run)
    fabric = launch(device, model=classifier.model)
    model = classifier.model.to(fabric.device)
    files = list(_expand(images))
    if not files:
        raise ValueError("no images given; name image files, or folders of them, after the run")
    read: list[Path] = []
    logits = predict_logits(
        model, _batches(files, classifier.preprocessing, batch_size, strict, read), classifier.preprocessing, fabric
    )
    task = task_for(classifier.classes, classifier.multi_label)
    probabilities = task.probabilities(logits)
    return [
        Prediction(path, label, max(p), dict(zip(task.classes, p, strict=True)))
        for path, label, p in zip(read, task.decide(probabilities), probabilities.tolist(), strict=True)
    ]


def _expand(images: Iterable[str | Path]) -> Iterator[Path]:
    for path in map(Path, images):
        if path.is_dir():
            files = image_files(path)
            if not files:
                raise ValueError(f"{path}: this folder holds no images")
            yield from files
        elif path.is_file():
            yield path
        else:
            raise FileNotFoundError(f"{path}: no such image or folder")


def _batches(
    files: list[Path], preprocessing: Preprocessing, batch_size: int, strict: bool, read: list[Path]
) -> Iterator[Tensor]:
    """Batches of the readable files, whose paths are appended to ``read``; two are read ahead of the model."""

    def try_read(path: Path) -> Tensor | ValueError:
        try:
            return preprocessing.read(path)
        except ValueError as error:
            return error

    broken: list[str] = []
    batch: list[Tensor] = []
    with closing(map_ahead(try_read, files, threads=os.cpu_count() or 1, ahead=2 * batch_size)) as images:
        for path, image in zip(files, images, strict=True):
            if isinstance(image, ValueError):
                if strict:
                    raise image
                broken.append(str(image))
                continue
            batch.append(image)
            read.append(path)
            if len(batch) == batch_size:
                yield stack(batch)
                batch = []
    if not read:
        raise ValueError(f"none of {len(files)} images can be read: {some(broken)}")
    if batch:
        yield stack(batch)
    if broken:
        warnings.warn(f"left out {len(broken)} of {len(files)} images: {some(broken)}", stacklevel=2)
