"""Evaluation of a run's model on its test images or on other labelled images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

from stochnorm.data import ImageStore, Row, Source, Split, encode_labels, read_images, read_source
from stochnorm.data.images.pictures import Picture
from stochnorm.data.images.readable import Track
from stochnorm.data.manifest import SPLITS, list_manifest
from stochnorm.data.spelling import alike
from stochnorm.evaluation.known_images import warn_of_known_images
from stochnorm.evaluation.logits import evaluate_split
from stochnorm.evaluation.pictures import evaluate_pictures
from stochnorm.evaluation.result import Evaluation
from stochnorm.evaluation.tasks import task_for
from stochnorm.models import Classifier, load_classifier
from stochnorm.runs.directory import Run
from stochnorm.runs.hardware import launch
from stochnorm.runs.images import changed_images
from stochnorm.text import some

__all__ = ["evaluate"]


def evaluate(
    model: str | os.PathLike[str] | Classifier,
    data: str | os.PathLike[str] | Sequence[Picture] = "",
    *,
    labels: Sequence[str] | None = None,
    split: str = "auto",
    ten_crop: bool = False,
    flip: bool = False,
    strict: bool = False,
    batch_size: int = 32,
    device: str = "auto",
    precision: str = "auto",
    track: Track | None = None,
) -> Evaluation:
    """Evaluate a run's model on labelled images.

    Args:
        model: A run directory, or the result of [stochnorm.finetune][]; with `data` also its `model.safetensors` alone,
            or a loaded model, which is moved to the device.
        data: Labelled images, as for [stochnorm.finetune][]; their classes are some of the model's, by name. Empty: the
            test images of the run. With `labels`: the images themselves, as for [stochnorm.predict][].
        labels: Class of each image in `data`; several findings are joined by "|".
        split: Split of `data`: train, val, test, all; or auto: the test split if there is one, else all.
        ten_crop: Average the logits of ten crops of each image, instead of using the center crop.
        flip: Average the logits of each image and its mirror image, also if the run did not.
        strict: Raise at the first unreadable image instead of warning.
        batch_size: Images, or crops, per batch.
        device: auto, cpu, cuda or mps.
        precision: auto, 32, bf16 or 16, as for the run.
        track: Progress display for reading images.

    Raises:
        FileNotFoundError: The model or the data do not exist.
        ValueError: The data have a class that the model does not have (the message names it), another kind of labels,
            or no image of the split; the run has no test images; or the batch size is not positive.
        FloatingPointError: A logit is not finite.

    Warns:
        UserWarning: Images are byte for byte the same as some that the run was trained on or selected by, so that the
            scores are too optimistic; or the run's images no longer exist, so that this cannot be checked.

    Example:
        >>> evaluate("runs/photos", "photos-of-this-year/").metrics["top1"]  # doctest: +SKIP
        83.1
    """
    if split != "auto" and isinstance(data, str) and not data:
        raise ValueError(f"split {split} needs DATA, got none; leave split out to use the run's test images")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    classifier = copy(model) if isinstance(model, Classifier) else load_classifier(model)
    data = os.fspath(data) if isinstance(data, os.PathLike) else data
    if flip:
        classifier.preprocessing = replace(classifier.preprocessing, flip=True)
    if labels is not None or not isinstance(data, str):
        fabric = launch(device, precision, classifier.model)
        return evaluate_pictures(classifier, data, labels, fabric, batch_size=batch_size, ten_crop=ten_crop)
    if isinstance(model, Classifier) and not data:
        raise ValueError("a loaded model has no test images; give labelled images as data, or the run's directory")
    run = Run(Path()) if isinstance(model, Classifier) else Run(Path(model))
    if data:
        source = _named_as(classifier, read_images(data))
        _check_labels(source, classifier, data)
        if split == "auto":
            split = "test" if any(row.split == "test" for row in source.rows) else "all"
        rows = _rows_of(source, split, data)
        if not isinstance(model, Classifier) and run.config.is_file():
            warn_of_known_images(run, source, rows, data)
    else:
        split = "test"
        source, rows = _test_images(run)
    fabric = launch(device, precision, classifier.model)
    classifier.model.to(fabric.device)
    store = ImageStore(
        source.root,
        rows,
        classifier.preprocessing,
        strict=strict,
        track=track,
        cache="auto",
        listed=[row.path for row in source.rows],
    )
    labels = [row.label for row in store.rows]
    targets = encode_labels(labels, classifier.classes, multi_label=classifier.multi_label)
    images = Split(store, list(range(len(store))), targets)
    task = task_for(classifier.classes, classifier.multi_label)
    logits, metrics = evaluate_split(classifier, images, fabric, batch_size=batch_size, ten_crop=ten_crop, task=task)
    return Evaluation.of(split, images, task, logits, metrics)


def _rows_of(source: Source, split: str, data: str) -> list[Row]:
    """Select the images of a split."""
    if split not in ("all", *SPLITS.values()):
        raise ValueError(f"split must be auto, train, val, test or all, got {split!r}")
    rows = [row for row in source.rows if split in ("all", row.split)]
    if not rows:
        raise ValueError(f"{data}: none of {len(source.rows)} images is in split {split}; choose another, or all")
    return rows


def _named_as(classifier: Classifier, source: Source) -> Source:
    """Return the images with the model's spelling of classes that look the same: a space apart, or an accent."""
    known = {alike(name): name for name in classifier.classes}
    spelled = {name: known.get(alike(name), name) for name in source.classes if name not in classifier.classes}
    if all(name == other for name, other in spelled.items()) or source.multi_label:
        return source
    rows = [row._replace(label=spelled.get(row.label, row.label)) for row in source.rows]
    return replace(source, rows=rows, classes=tuple(dict.fromkeys(spelled.get(name, name) for name in source.classes)))


def _check_labels(source: Source, classifier: Classifier, data: str) -> None:
    if source.multi_label != classifier.multi_label:
        kinds = "one label", "any number of labels"
        raise ValueError(
            f"{data}: images have {kinds[source.multi_label]}, but the model was trained on images with "
            f"{kinds[classifier.multi_label]}; use data of the same kind (stochnorm verify shows how data are read)"
        )
    unknown = [name for name in source.classes if name not in classifier.classes]
    if unknown:
        raise ValueError(
            f"{data}: unknown classes {some(unknown)}; the model has {some(classifier.classes)}: use the class "
            "names of the run's data"
        )


def _test_images(run: Run) -> tuple[Source, list[Row]]:
    """Return the test images of a run, and the data that they are part of."""
    if not run.config.is_file():
        raise ValueError(f"{run.path}: not a run directory, so there are no test images; give labelled images as DATA")
    data = run.data()
    try:
        source = read_source(data)
    except FileNotFoundError as error:
        if Path(data).exists():
            raise
        raise FileNotFoundError(
            f"{data}: the images of {run.path} are not there, as seen from {Path.cwd()}; give DATA"
        ) from error
    names = [row.path for row in list_manifest(run.split, exact=True).rows if row.split == "test"]
    if not names:
        raise ValueError(f"{run.path}: the run has no test images; give new labelled images as DATA")
    there = {row.path: row for row in source.rows}
    missing = [name for name in names if name not in there]
    if missing:
        raise FileNotFoundError(
            f"{data}: {len(missing)} of the run's {len(names)} test images no longer exist: {some(missing)}; restore "
            "them, or give DATA"
        )
    if changed := changed_images(run, source.root, set(names)):
        raise ValueError(
            f"{data}: {len(changed)} of the run's {len(names)} test images have changed since: {some(changed)}; "
            "restore them, or give DATA"
        )
    return source, [there[name] for name in names]
