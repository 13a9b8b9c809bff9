"""Evaluation on images that are in memory, or in files that are listed one by one."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_fabric import Fabric

from stochnorm.data import encode_labels
from stochnorm.data.images.batches import file_batches
from stochnorm.data.images.pictures import Picture, path_of
from stochnorm.evaluation.logits import predict_logits
from stochnorm.evaluation.result import Evaluation
from stochnorm.evaluation.tasks import task_for
from stochnorm.models import Classifier
from stochnorm.text import some

__all__ = ["evaluate_pictures"]


def evaluate_pictures(
    classifier: Classifier,
    pictures: Sequence[Picture],
    labels: Sequence[str] | None,
    fabric: Fabric,
    *,
    batch_size: int,
    ten_crop: bool,
) -> Evaluation:
    """Evaluate a model on images with their labels; every image must be readable.

    Raises:
        ValueError: There is not one label an image, or a label is no class of the model; or an image cannot be read.
    """
    if isinstance(pictures, str):
        raise ValueError(f"labels need the images as a list, got the path {pictures!r}; leave labels out")
    if labels is None or len(labels) != len(pictures) or not len(labels):
        number = "none" if labels is None else len(labels)
        raise ValueError(f"images in a list need one label each, got {len(pictures)} images and {number} labels")
    names = [name for label in labels for name in (label.split("|") if classifier.multi_label else [label]) if name]
    if unknown := sorted(set(names) - set(classifier.classes)):
        raise ValueError(f"unknown classes {some(unknown)}; the model has {some(classifier.classes)}")
    preprocessing = classifier.preprocessing
    size = max(batch_size // (10 if ten_crop else 1), 1)
    batches = (batch for _, batch in file_batches(pictures, preprocessing, size, strict=True))
    model = classifier.model.to(fabric.device)
    logits = predict_logits(model, batches, preprocessing, fabric, ten_crop=ten_crop)
    targets = encode_labels(labels, classifier.classes, multi_label=classifier.multi_label)
    task = task_for(classifier.classes, classifier.multi_label)
    probabilities = task.probabilities(logits)
    return Evaluation(
        "all",
        task.metrics(logits, targets),
        task.classes,
        [str(path_of(picture) or number) for number, picture in enumerate(pictures)],
        list(labels),
        task.decide(probabilities),
        probabilities,
        classifier.multi_label,
    )
