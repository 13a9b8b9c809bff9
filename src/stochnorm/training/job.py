"""A job: all that a run needs, assembled from its settings and checked before its directory is made."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lightning_fabric import Fabric

from stochnorm.data import ImageStore, Split, format_manifest, read_source
from stochnorm.data.copies import warnings_of
from stochnorm.data.inspection.warn import near_warnings
from stochnorm.evaluation.tasks import Task
from stochnorm.methods.catalogue import trains
from stochnorm.models import Classifier, build_classifier
from stochnorm.models.build import check_forward
from stochnorm.nn.cpu.accelerate import plain_class
from stochnorm.nn.select import normalization_layers
from stochnorm.regularizers import Regularizer
from stochnorm.runs.config import FinetuneConfig, flat
from stochnorm.runs.directory import Run
from stochnorm.runs.hardware import PeakMemory, check_device, is_first_process, launch
from stochnorm.runs.precision import Precision, resolve, resolve_unmeasured
from stochnorm.runs.trackers import Trackers, tracker_names
from stochnorm.training.checkpoint import begun_with
from stochnorm.training.display import Display
from stochnorm.training.images import check_splits, fitting, for_training, split_rows, task_of, warn_of_classes
from stochnorm.training.mixing import Mixing
from stochnorm.training.objective import Objective
from stochnorm.training.prepare import prepare
from stochnorm.training.probe.probe import Probe, fit_probe, put_into_head

__all__ = ["Job", "Validated", "assemble"]

Validated = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Job:
    """A run that is ready to train: settings, directory, device, images, model, loss, and who is told of it."""

    config: FinetuneConfig
    run: Run
    fabric: Fabric
    """Device, precision, processes."""
    precision: Precision
    """The precision, and what `auto` was decided by."""
    display: Display
    trackers: Trackers
    objective: Objective
    """The classifier and its loss."""
    splits: dict[str, Split]
    """Splits by name: train, val, test; the last may be empty."""
    store: ImageStore
    skipped: int
    """Images that cannot be read."""
    method: dict[str, Any]
    """The methods as they were applied, see [stochnorm.training.job.applied][]."""
    probe: Probe | None
    """The linear probe, if the head starts at it."""
    memory: PeakMemory
    validated: Validated | None
    """Called with the record of each validation, in the first process."""

    @property
    def classifier(self) -> Classifier:
        """The model, its classes and preprocessing."""
        return self.objective.classifier

    @property
    def task(self) -> Task:
        """The kind of labels, with its loss and metrics."""
        return self.objective.task

    @property
    def counts(self) -> dict[str, int]:
        """Number of images by split."""
        return {name: len(split) for name, split in self.splits.items()}

    @property
    def manifest(self) -> str:
        """The images used and their splits, as `split.csv` has them."""
        return format_manifest(self.store.rows, multi_label=self.classifier.multi_label)


def assemble(
    config: FinetuneConfig,
    run: Run,
    display: Display,
    *,
    test: bool = True,
    validated: Validated | None = None,
    probe: Probe | None = None,
    together: bool = False,
) -> Job:
    """Read the images, build the model, apply the methods, and check that they fit; write nothing.

    Args:
        config: The settings.
        run: Where the job will write.
        display: Where it shows its progress.
        test: Read the test images too; False for a search, which must not.
        validated: Called with the record of each validation.
        probe: The linear probe of these settings, for a head that starts at it; None: it is fitted.
        together: Train on the validation images too, whose metrics then say nothing.

    Raises:
        ValueError, FileNotFoundError, ModuleNotFoundError: As [stochnorm.finetune][].
    """
    names = tracker_names(config.log) if is_first_process() else ()
    trackers = Trackers(names, run.path, flat(config.result_fields()))
    source = read_source(config.data)
    rows = [row for row in split_rows(source, config) if test or row.split != "test"]
    for copied in warnings_of(source.root, rows) if is_first_process() else ():
        warnings.warn(f"{config.data}: {copied}", stacklevel=2)
    classifier = build_classifier(
        config.backbone,
        config.weights,
        source.classes,
        image_size=config.image_size,
        seed=config.seed,
        auxiliary=config.auxiliary,
        multi_label=source.multi_label,
        drop_path=config.drop_path,
    )
    classifier.preprocessing = replace(
        classifier.preprocessing, fit=config.resize, test_size=config.test_size, flip=config.flip
    )
    if config.test_size:
        check_forward(classifier)
    device = check_device(config.device, config.precision)
    wanted = (device, config.precision, classifier.model)
    begun = begun_with(run, lambda: resolve_unmeasured(*wanted)) if config.resume else None
    precision = begun or resolve(*wanted)
    fabric = launch(config.device, precision.name)
    memory = PeakMemory(fabric)
    store = ImageStore(
        source.root,
        rows,
        classifier.preprocessing,
        strict=config.strict,
        track=display.track,
        cache=config.cache,
        listed=[row.path for row in source.rows],
    )
    for alike in near_warnings(store) if is_first_process() else ():
        warnings.warn(f"{config.data}: {alike}", stacklevel=2)
    splits = {
        name: Split.of(store, name, source.classes, multi_label=source.multi_label) for name in ("train", "val", "test")
    }
    config = fitting(config, len(splits["train"]), fabric.world_size)
    check_splits(splits, source.classes, config, fabric.world_size)
    if not source.multi_label and is_first_process() and not together:
        warn_of_classes(splits, source.classes, config)
    if together:
        splits["train"] = splits["train"].with_images_of(splits["val"])
    splits["train"] = for_training(splits["train"], source, config, display.track)
    task = task_of(config, source, splits["train"], fabric.device)

    def start_head() -> None:
        nonlocal probe
        probe = probe or fit_probe(
            classifier,
            splits,
            fabric,
            task,
            views=config.probe.views,
            batch_size=config.batch_size,
            refit="never" if trains(config.method) else "few",
            seed=config.seed,
        )
        put_into_head(classifier, probe.head)

    with display.measuring("DELTA's channel attention") as progress:
        start = start_head if config.fits_probe and config.method != "auto" else None  # whose candidates start there
        regularizers = prepare(config, classifier, splits["train"], fabric, progress, start)
    return Job(
        config,
        run,
        fabric,
        precision,
        display,
        trackers,
        Objective(
            classifier,
            task,
            regularizers,
            fabric.autocast,
            fabric.world_size,
            smoothing=config.label_smoothing,
            mixing=_mixing(config, fabric),
        ),
        splits,
        store,
        len(rows) - len(store.rows),
        applied(config, classifier, regularizers),
        probe,
        memory,
        validated,
    )


def _mixing(config: FinetuneConfig, fabric: Fabric) -> Mixing | None:
    return Mixing(config.mixup, config.cutmix, config.seed, fabric.device) if config.mixup or config.cutmix else None


def applied(config: FinetuneConfig, classifier: Classifier, regularizers: Mapping[str, Regularizer]) -> dict[str, Any]:
    """Return how the methods were applied, as `result.json` says it.

    Returns:
        The sum of methods, the number of layers of each kind, the number of frozen scales and shifts, the terms of the
        loss with their own facts, such as the layers that DELTA compares, and the weight decay.
    """
    layers = normalization_layers(classifier.model)
    kinds = Counter(plain_class(layer).__name__ for layer in layers)
    fixed = sum(layer.weight is not None and not layer.weight.requires_grad for layer in layers)
    return {
        "name": config.method,
        "normalization": dict(sorted(kinds.items())),
        **({"affine_frozen": fixed} if fixed else {}),
        "terms": list(regularizers),
        **{name: value for term in regularizers.values() for name, value in term.facts().items()},
        "weight_decay": config.weight_decay_used,
    }
