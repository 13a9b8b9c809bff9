"""Classify images with the model of a run."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stochnorm.data.folder import image_files
from stochnorm.data.manifest import some
from stochnorm.data.preprocessing import Preprocessing
from stochnorm.evaluate import predict_logits
from stochnorm.hardware import launch
from stochnorm.models import load_classifier

__all__ = ["Prediction", "format_predictions", "predict"]


@dataclass(frozen=True)
class Prediction:
    """The class of one image."""

    path: Path
    label: str
    probability: float
    """Softmax of the label, in [0, 1]."""
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
        ValueError: No image can be read, or with ``strict`` one cannot.

    Example:
        >>> predict("runs/photos", ["new.jpg"])[0].label  # doctest: +SKIP
        'cat'
    """
    classifier = load_classifier(run)
    fabric = launch(device)
    model = classifier.model.to(fabric.device)
    files = list(_expand(images))
    read: list[Path] = []
    logits = predict_logits(
        model, _batches(files, classifier.preprocessing, batch_size, strict, read), classifier.preprocessing, fabric
    )
    return [
        Prediction(path, *_top(p, classifier.classes), dict(zip(classifier.classes, p.tolist(), strict=True)))
        for path, p in zip(read, logits.softmax(1), strict=True)
    ]


def format_predictions(
    paths: Sequence[str], probabilities: Tensor, classes: Sequence[str], labels: Sequence[int] | None = None
) -> str:
    """CSV text: path, [label,] predicted, probability, and a column per class.

    Args:
        paths: n names.
        probabilities: (n, num_classes).
        classes: num_classes names.
        labels: n class indices, where known.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    known = [] if labels is None else ["label"]
    writer.writerow(["path", *known, "predicted", "probability", *(f"p({name})" for name in classes)])
    for i, (path, p) in enumerate(zip(paths, probabilities, strict=True)):
        label, probability = _top(p, classes)
        truth = [] if labels is None else [classes[labels[i]]]
        writer.writerow([path, *truth, label, f"{probability:.6f}", *(f"{value:.6f}" for value in p.tolist())])
    return text.getvalue()


def _expand(images: Iterable[str | Path]) -> Iterator[Path]:
    for path in map(Path, images):
        if path.is_dir():
            yield from image_files(path)
        elif path.is_file():
            yield path
        else:
            raise FileNotFoundError(f"{path}: no such image or folder")


def _batches(
    files: list[Path], preprocessing: Preprocessing, batch_size: int, strict: bool, read: list[Path]
) -> Iterator[Tensor]:
    """Batches of the readable files, whose paths are appended to ``read``."""
    broken: list[str] = []
    batch: list[Tensor] = []
    for path in files:
        try:
            batch.append(preprocessing.read(path))
        except ValueError as error:
            if strict:
                raise
            broken.append(str(error))
            continue
        read.append(path)
        if len(batch) == batch_size:
            yield torch.stack(batch)
            batch = []
    if not read:
        raise ValueError(f"none of {len(files)} images can be read: {some(broken)}" if files else "no images given")
    if batch:
        yield torch.stack(batch)
    if broken:
        warnings.warn(f"left out {len(broken)} of {len(files)} images: {some(broken)}", stacklevel=2)


def _top(probabilities: Tensor, classes: Sequence[str]) -> tuple[str, float]:
    best = int(probabilities.argmax())
    return classes[best], float(probabilities[best])
