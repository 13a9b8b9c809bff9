"""What a run's model makes of labelled images: the run's own test images, or others."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from stochnorm.data import ImageStore, Row, Source, Split, encode_labels, list_images, read_images, read_source
from stochnorm.data.images.readable import Track
from stochnorm.data.manifest import SPLITS, list_manifest
from stochnorm.evaluation.logits import evaluate_split
from stochnorm.evaluation.tasks import Task, task_for
from stochnorm.models import Classifier, load_classifier
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.directory import Run
from stochnorm.runs.hardware import launch
from stochnorm.runs.predictions import format_confusion, format_predictions
from stochnorm.text import interval, some
from stochnorm.training.display import metrics_table

__all__ = ["Evaluation", "evaluate"]

_MOST_CONFUSED = 1000  # classes of a confusion matrix, which grows with their square
_WORST = 10  # classes that are shown


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics, and the prediction for each image."""

    split: str
    """Which images: train, val, test, or all."""
    metrics: dict[str, Any]
    """In percent, see :func:`stochnorm.evaluation.metrics.classification_metrics` and ``multilabel_metrics``; JSON."""
    classes: tuple[str, ...]
    paths: list[str]
    """Of n images, relative to the data's root."""
    truth: list[str]
    """Their labels; findings are joined by "|"."""
    predicted: list[str]
    """The same of the model."""
    probabilities: Tensor
    """(n, num_classes), float32."""
    multi_label: bool

    @classmethod
    def of(cls, name: str, split: Split, task: Task, logits: Tensor, metrics: dict[str, Any]) -> Evaluation:
        """From the logits (n, num_classes) of a split of that name."""
        probabilities = task.probabilities(logits)
        truth = [split.store.rows[i].label for i in split.indices]
        predicted = task.decide(probabilities)
        return cls(name, metrics, task.classes, split.paths, truth, predicted, probabilities, split.multi_label)

    def predictions_csv(self) -> str:
        """A line an image: path, label, predicted class, its probability, and that of each class."""
        return format_predictions(self.paths, self.predicted, self.probabilities.tolist(), self.classes, self.truth)

    def confusion_csv(self) -> str:
        """A row a true class, a column a predicted one; empty with several labels an image, or over 1,000 classes."""
        if self.multi_label or len(self.classes) > _MOST_CONFUSED:
            return ""
        return format_confusion(self.truth, self.predicted, self.classes)

    def metrics_json(self, **about: Any) -> str:
        """What was evaluated; the classes; the metrics, those of each class in the same order.

        Args:
            about: What else to say before them, such as run and data; JSON.
        """
        content = {**about, "split": self.split, "classes": self.classes, **self.metrics}
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def show(self, console: Console) -> None:
        """The metrics, and the classes that the model does worst on."""
        console.print(metrics_table({self.split: self.metrics}))
        scores = self.metrics["per_class"]
        scored = sorted((i for i, score in enumerate(scores) if score is not None), key=lambda i: scores[i])
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("worst classes" if len(scored) > _WORST else "class", overflow="fold")
        for title in ("positive", "AUC %") if self.multi_label else ("images", "right %"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("95 % interval" if self.multi_label else "most often taken for", overflow="fold")
        for i in scored[:_WORST]:
            images, remark = self._finding(i) if self.multi_label else self._class(i)
            table.add_row(escape(self.classes[i]), str(images), f"{scores[i]:.1f}", escape(remark))
        console.print(table)

    def _finding(self, i: int) -> tuple[int, str]:
        """Its positive images, and the interval of its AUC."""
        bounds = self.metrics["per_class_interval"][i]
        return self.metrics["positives"][i], interval(bounds) if bounds else "-"

    def _class(self, i: int) -> tuple[int, str]:
        """Its images, and what they are most often taken for."""
        guesses = [p for label, p in zip(self.truth, self.predicted, strict=True) if label == self.classes[i]]
        wrong = Counter(sorted(guess for guess in guesses if guess != self.classes[i])).most_common(1)
        return len(guesses), "".join(f"{name} ({count})" for name, count in wrong) or "-"


def evaluate(
    model: str | Path,
    data: str = "",
    *,
    split: str = "auto",
    ten_crop: bool = False,
    strict: bool = False,
    batch_size: int = 32,
    device: str = "auto",
    precision: str = "auto",
    track: Track | None = None,
) -> Evaluation:
    """Metrics of a run's model on labelled images.

    Args:
        model: A run's directory; with ``data`` also its ``model.safetensors`` alone.
        data: As for :func:`stochnorm.finetune`; its classes are some of the model's, by name. Empty: the images that
            the run set apart for its test.
        split: Which images of ``data``: train, val, test, all; or auto: those to test on where ``data`` says which,
            else all.
        ten_crop: Average the logits of ten crops of each image, instead of the center's.
        strict: Raise at an image that cannot be read, instead of a warning.
        batch_size: Images, or crops, at a time.
        device: auto, cpu, cuda or mps.
        precision: auto, 32, bf16 or 16, as for the run.
        track: Shows progress while images are read.

    Raises:
        FileNotFoundError: No such model or data.
        ValueError: The data have a class that the model does not know (names it), or another kind of labels, or no
            image of the split; the run has no test images; the batch size is not positive.
        FloatingPointError: A logit is not finite.

    Warns:
        UserWarning: Images are, byte for byte, some that the run trained on or was selected by, so that the metrics are
            not those of new images; or the run's images are no longer there, so that nobody can tell.

    Example:
        >>> evaluate("runs/photos", "photos-of-this-year/").metrics["top1"]  # doctest: +SKIP
        83.1
    """
    if split != "auto" and not data:
        raise ValueError(f"split {split} is for DATA, but there is none; leave it out for the run's own test images")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    classifier = load_classifier(model)
    run = Run(Path(model))
    if data:
        source = read_images(data)
        _check_labels(source, classifier, data)
        if split == "auto":
            split = "test" if any(row.split == "test" for row in source.rows) else "all"
        rows = _rows_of(source, split, data)
        if run.config.is_file():
            _warn_of_known(run, source, rows, data)
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
    """The images of a split."""
    if split not in ("all", *SPLITS.values()):
        raise ValueError(f"split must be auto, train, val, test or all, got {split!r}")
    rows = [row for row in source.rows if split in ("all", row.split)]
    if not rows:
        raise ValueError(f"{data}: none of its {len(source.rows)} images is in the split {split}; give another, or all")
    return rows


def _check_labels(source: Source, classifier: Classifier, data: str) -> None:
    if source.multi_label != classifier.multi_label:
        kinds = "one label", "any number of labels"
        raise ValueError(
            f"{data}: has {kinds[source.multi_label]} an image, but the model {kinds[classifier.multi_label]}; give "
            "data of the kind that the run had (stochnorm verify says what they are read as)"
        )
    unknown = [name for name in source.classes if name not in classifier.classes]
    if unknown:
        raise ValueError(
            f"{data}: {some(unknown)} is no class of the model, which knows {some(list(classifier.classes))}; name "
            "classes as the run's data do"
        )


def _test_images(run: Run) -> tuple[Source, list[Row]]:
    """Those that the run set apart."""
    if not run.config.is_file():
        raise ValueError(f"{run.path}: no run's directory, so it has no test images; give DATA, labelled images")
    data = FinetuneConfig.load(run.config).data
    source = read_source(data)
    names = [row.path for row in list_manifest(run.split).rows if row.split == "test"]
    if not names:
        raise ValueError(f"{run.path}: the run set no images apart to test on; give DATA, labelled images that are new")
    there = {row.path: row for row in source.rows}
    missing = [name for name in names if name not in there]
    if missing:
        raise FileNotFoundError(
            f"{data}: {len(missing)} of the run's {len(names)} test images are not there any more: {some(missing)}; "
            "put them back, or give DATA"
        )
    return source, [there[name] for name in names]


def _warn_of_known(run: Run, source: Source, rows: Sequence[Row], data: str) -> None:
    """Warns of images that the run trained on or was selected by, whatever their names."""
    try:
        root = list_images(FinetuneConfig.load(run.config).data).root
        known = [root / row.path for row in list_manifest(run.split).rows if row.split != "test"]
        copies = _copies([source.root / row.path for row in rows], known)
    except (OSError, ValueError) as error:
        text = f"it could not be checked whether images of {data} are among those that the run trained on ({error})"
        warnings.warn(text, stacklevel=3)
        return
    if copies:
        seen = [row.path for row in rows if source.root / row.path in copies]
        warnings.warn(
            f"{data}: {len(seen)} of {len(rows)} images are among those that the run trained on or was selected by, so "
            f"the figures are not those of new images: {some(seen)}",
            stacklevel=3,
        )


def _copies(files: Sequence[Path], originals: Sequence[Path]) -> set[Path]:
    """The files that have the bytes of an original. Only those of equal sizes are read."""
    sizes = {path: path.stat().st_size for path in (*files, *originals)}
    common = {sizes[path] for path in files} & {sizes[path] for path in originals}
    digests = {_digest(path) for path in originals if sizes[path] in common}
    return {path for path in files if sizes[path] in common and _digest(path) in digests}


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
