"""The main job: from the settings to a tested model."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from stochnorm.data import (
    ImageStore,
    Row,
    Source,
    Split,
    assign_splits,
    format_manifest,
    read_lists,
    read_source,
)
from stochnorm.evaluation.evaluate import Evaluation
from stochnorm.evaluation.logits import evaluate_split
from stochnorm.evaluation.tasks import MultiLabel, SingleLabel, Task, pos_weight_of
from stochnorm.files import write_text
from stochnorm.models import Classifier, build_classifier
from stochnorm.models.weights import read_state_dict
from stochnorm.nn.cpu.accelerate import plain_class
from stochnorm.nn.select import normalization_layers
from stochnorm.regularizers import DELTA, Regularizer
from stochnorm.runs.config import FinetuneConfig, flat
from stochnorm.runs.directory import Run
from stochnorm.runs.hardware import PeakMemory, environment, launch
from stochnorm.runs.trackers import Trackers, tracker_names
from stochnorm.text import some
from stochnorm.training.display import Display
from stochnorm.training.loop import fit, selected, weight_decay
from stochnorm.training.objective import Objective
from stochnorm.training.prepare import prepare

__all__ = ["Result", "finetune"]


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    run: Path
    """Its directory."""
    record: dict[str, Any]
    """The content of ``result.json``."""

    @property
    def validation(self) -> dict[str, Any]:
        """Metrics of the selected model on the validation split, which selects it unless ``select`` is last."""
        return self.record["validation"]  # type: ignore[no-any-return]

    @property
    def test(self) -> dict[str, Any] | None:
        """Metrics on the test split; None without one."""
        return self.record["test"]  # type: ignore[no-any-return]


def finetune(
    config: FinetuneConfig,
    *,
    quiet: bool = False,
    test: bool = True,
    validated: Callable[[dict[str, Any]], None] | None = None,
) -> Result:
    """Fine-tune a pre-trained backbone; select on validation, or take the last iterate; test once.

    Leaves a directory, see :class:`stochnorm.runs.directory.Run`. Ctrl-C (and SIGTERM) writes a checkpoint after the
    running step; with ``resume=True`` the same call goes on from the last one and on the CPU ends with the same
    weights, bit for bit. Under ``torchrun`` every process trains on its share of each batch.

    Args:
        config: The settings.
        quiet: Print nothing.
        test: Open the test split in the end; False leaves its images unread, for a search.
        validated: Called with the record of each validation.

    Returns:
        The result; that of a finished run at once, with ``resume``.

    Raises:
        ValueError: Settings, data or weights that cannot work, or a setting that the method does not look at; says
            which and what to do.
        FileNotFoundError: No such data or weights.
        ModuleNotFoundError: A package that a tracker of ``log`` needs is not installed.
        FileExistsError: The run's directory is in use, or another process works on it.
        FloatingPointError: The loss is not finite, or what the model makes of validation or test images.
        KeyboardInterrupt: Stopped; the checkpoint is written.

    Example:
        >>> finetune(FinetuneConfig("photos/", p=0.5, steps=300)).test["top1"]  # doctest: +SKIP
        87.5
    """
    config.check_used()
    fabric = launch(config.device, config.precision)
    display = Display(quiet=quiet or not fabric.is_global_zero)
    run = Run.of(config)
    if fabric.is_global_zero:
        run.check_place(config)
    with run.held() if fabric.is_global_zero else nullcontext():
        return _finetune(config, fabric, display, run, test, validated)


def _finetune(
    config: FinetuneConfig,
    fabric: Fabric,
    display: Display,
    run: Run,
    test: bool,
    validated: Callable[[dict[str, Any]], None] | None,
) -> Result:
    if fabric.is_global_zero:
        run.check(config)
    if config.resume and run.result.is_file():
        display.note(f"{run.path} is finished; this is its result")
        run.checkpoint.unlink(missing_ok=True)  # of a process that was killed between the two
        return _finished(run, display)

    names = tracker_names(config.log) if fabric.is_global_zero else ()
    trackers = Trackers(names, run.path, flat(config.result_fields()))
    memory = PeakMemory(fabric)
    # Data and model: everything that can be wrong with them is said before the run's directory is made.
    source = read_source(config.data)
    rows = [row for row in split_rows(source, config) if test or row.split != "test"]
    classifier = build_classifier(
        config.backbone,
        config.weights,
        source.classes,
        image_size=config.image_size,
        seed=config.seed,
        auxiliary=config.auxiliary,
        multi_label=source.multi_label,
    )
    fabric = launch(config.device, config.precision, classifier.model)  # auto looks at the network
    store = ImageStore(
        source.root,
        rows,
        classifier.preprocessing,
        strict=config.strict,
        track=display.track,
        cache=config.cache,
        listed=[row.path for row in source.rows],
    )
    splits = {
        name: Split.of(store, name, source.classes, multi_label=source.multi_label) for name in ("train", "val", "test")
    }
    _check(splits, source.classes, config, fabric.world_size)
    task = _task(config, source, splits["train"])
    with display.measuring("DELTA's channel attention") as progress:
        regularizers = prepare(config, classifier, splits["train"], fabric, progress)
    objective = Objective(classifier, task, regularizers, fabric.autocast, fabric.world_size)

    if fabric.is_global_zero:
        manifest = format_manifest(store.rows, multi_label=source.multi_label)
        if config.resume and run.split.is_file() and run.split.read_text(encoding="utf-8") != manifest:
            raise ValueError(
                f"cannot resume {run.path}: the images of {config.data} are not those of its split.csv, so test images "
                "could be trained on; put the images back, or start anew with --overwrite"
            )
        run.open(config)
        write_text(run.split, manifest)
    counts = {name: len(split) for name, split in splits.items()}
    display.header(config, classifier, counts, fabric, _what_was_done(config, classifier, regularizers))
    fabric.barrier()
    history = fit(config, fabric, run, display, objective, splits["train"], splits["val"], trackers, validated)

    # The selected model; the test split, once.
    if fabric.is_global_zero:
        classifier.model.load_state_dict(read_state_dict(run.model))
        final = replace(task, resamples=1000) if isinstance(task, MultiLabel) else task
        _, validation = evaluate_split(classifier, splits["val"], fabric, batch_size=config.batch_size, task=final)
        tested = _test(config, fabric, run, classifier, final, splits["test"]) if len(splits["test"]) else None
        record = {
            "config": asdict(config),
            "weights": classifier.weights,
            "classes": source.classes,
            "score": task.score,
            "images": counts,
            "left_out": len(rows) - len(store.rows),
            "method": _what_was_done(config, classifier, regularizers),
            "selected": {
                "step": selected(history, config.select)["step"],
                "by": f"validation {task.score_title}, then loss" if config.select == "best" else "last iterate",
            },
            "validation": validation,
            "test": tested,
            "cost": {
                **{key: history[-1][key] for key in ("seconds", "images_per_second")},
                "peak_memory_gigabytes": memory.gigabytes(),
            },
            "environment": environment(fabric),
        }
        write_text(run.result, json.dumps(record, indent=2, allow_nan=False) + "\n")
        run.checkpoint.unlink(missing_ok=True)
        trackers.finish(record)
        if config.report:
            _write_page(run)
    fabric.barrier()
    return _finished(run, display)


def split_rows(source: Source, config: FinetuneConfig) -> list[Row]:
    """The images of a run with their splits: by lists, or by the sampling rule.

    With lists no image but theirs trains: ``pool_val`` lets validation be cut from them, and no test is.
    """
    rows = source.rows
    if config.split_lists:
        if config.pool_val:
            rows = [row._replace(split="train") if row.split == "val" else row for row in rows]
        rows = read_lists(Path(config.split_lists), rows)
        if config.pool_val and any(row.split == "val" for row in rows):
            raise ValueError(f"{config.split_lists}: val.txt says which images validate; leave out --pool-val")
    return assign_splits(
        rows,
        rate=config.rate,  # 100 beside lists, see FinetuneConfig
        val_fraction=config.val_fraction,
        test_fraction=0 if config.split_lists else config.test_fraction,
        seed=config.data_seed,
        multi_label=source.multi_label,
        pool_val=config.pool_val,
    )


def _task(config: FinetuneConfig, source: Source, train: Split) -> Task:
    if not source.multi_label:
        if config.balance:
            raise ValueError(f"{config.data}: balance is for data with several labels an image; leave out --balance")
        return SingleLabel(source.classes)
    if not config.balance:
        return MultiLabel(source.classes, resamples=0)
    one_sided = [name for name, of in zip(source.classes, train.targets.T, strict=True) if len(of.unique()) == 1]
    if one_sided:
        warnings.warn(
            f"{config.data}: no training image is positive, or none negative, for {', '.join(one_sided)}; "
            "balance leaves their weight at 1",
            stacklevel=2,
        )
    return MultiLabel(source.classes, pos_weight_of(train.targets), resamples=0)


def _test(
    config: FinetuneConfig, fabric: Fabric, run: Run, classifier: Classifier, task: Task, split: Split
) -> dict[str, Any]:
    """Metrics of the test split; writes predictions and the confusion matrix."""
    logits, metrics = evaluate_split(
        classifier, split, fabric, batch_size=config.batch_size, ten_crop=config.ten_crop, task=task
    )
    tested = Evaluation.of("test", split, task, logits, metrics)
    write_text(run.predictions, tested.predictions_csv())
    if confusion := tested.confusion_csv():
        write_text(run.confusion, confusion)
    return metrics


def _write_page(run: Run) -> None:
    """The page about the run; whatever goes wrong with it, the result stands."""
    try:
        from stochnorm.report import write_report
        from stochnorm.runs.records import record_of

        write_report([record_of(run)], run.report, root=Path())
    except Exception as error:
        warnings.warn(
            f"{run.report} was not written ({error}); the result is whole, and stochnorm report {run.path} tries again",
            stacklevel=2,
        )


def _what_was_done(
    config: FinetuneConfig, classifier: Classifier, regularizers: Mapping[str, Regularizer]
) -> dict[str, Any]:
    """What the result says of the methods: how many layers of each kind, which terms, which weight decay; of frozen
    scale and shift how many, and which layers DELTA compared."""
    layers = normalization_layers(classifier.model)
    kinds = Counter(plain_class(layer).__name__ for layer in layers)
    fixed = sum(layer.weight is not None and not layer.weight.requires_grad for layer in layers)
    delta = regularizers.get("delta")
    return {
        "name": config.method,
        "normalization": dict(sorted(kinds.items())),
        **({"affine_frozen": fixed} if fixed else {}),
        "terms": list(regularizers),
        **({"delta_layers": delta.layers} if isinstance(delta, DELTA) else {}),
        "weight_decay": weight_decay(config),
    }


def _check(splits: dict[str, Split], classes: tuple[str, ...], config: FinetuneConfig, world_size: int) -> None:
    train, val = splits["train"], splits["val"]
    seen = set(range(len(classes))) if train.multi_label else set(train.labels)
    empty = [name for i, name in enumerate(classes) if i not in seen]
    where = config.split_lists or config.data
    if empty:
        raise ValueError(f"{where}: no readable training image of class {some(empty)}; add some")
    if not len(val):
        raise ValueError(
            f"{where}: no readable image is left to validate on; add images: a class needs one to train, one to "
            "validate and, where a test is cut too, one to test (--test-fraction 0 cuts none)"
        )
    if train.multi_label and not ((val.targets.sum(0) > 0) & (val.targets.sum(0) < len(val))).any():
        raise ValueError(
            f"{config.data}: no finding has both positive and negative images among {len(val)} that validate, so no "
            "AUC could select a model; raise --val-fraction or --rate"
        )
    if config.batch_size > len(train):
        raise ValueError(
            f"batch_size {config.batch_size} is larger than the {len(train)} training images; "
            f"give --batch-size {len(train)} or less"
        )
    if config.batch_size % world_size:
        raise ValueError(
            f"batch_size {config.batch_size} does not divide among {world_size} processes; "
            f"give --batch-size a multiple of {world_size}"
        )


def _finished(run: Run, display: Display) -> Result:
    result = Result(run.path, run.read_result())
    display.result(result.record, run)
    return result
