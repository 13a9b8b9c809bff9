"""The main job: from the settings to a tested model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from stochnorm.config import FinetuneConfig
from stochnorm.data import ImageStore, Split, assign_splits, format_manifest, read_source
from stochnorm.display import Display
from stochnorm.evaluate import evaluate
from stochnorm.files import write_text
from stochnorm.hardware import environment, launch
from stochnorm.models import build_classifier
from stochnorm.nn import convert
from stochnorm.prediction import format_predictions
from stochnorm.runs import Run
from stochnorm.train import fit, score
from stochnorm.weights import read_state_dict

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
        """Metrics of the selected model on the validation split, which selected it."""
        return self.record["validation"]  # type: ignore[no-any-return]

    @property
    def test(self) -> dict[str, Any] | None:
        """Metrics on the test split; None without one."""
        return self.record["test"]  # type: ignore[no-any-return]


def finetune(config: FinetuneConfig, *, quiet: bool = False) -> Result:
    """Fine-tune a pre-trained backbone; select on validation; test once.

    Leaves a directory, see :class:`stochnorm.runs.Run`. Ctrl-C (and SIGTERM) writes a checkpoint after the running
    step; with ``resume=True`` the same call goes on from the last one and on the CPU ends with the same weights, bit
    for bit. Under ``torchrun`` every process trains on its share of each batch.

    Args:
        config: The settings.
        quiet: Print nothing.

    Returns:
        The result; that of a finished run at once, with ``resume``.

    Raises:
        ValueError: Settings, data or weights that cannot work; says which and what to do.
        FileNotFoundError: No such data or weights.
        FileExistsError: The run's directory is in use.
        FloatingPointError: The loss is not finite.
        KeyboardInterrupt: Stopped; the checkpoint is written.

    Example:
        >>> finetune(FinetuneConfig("photos/", p=0.5, steps=300)).test["top1"]  # doctest: +SKIP
        87.5
    """
    fabric = launch(config.device, config.precision)
    display = Display(quiet=quiet or not fabric.is_global_zero)
    run = Run.of(config)
    if fabric.is_global_zero:
        run.check(config)
    if config.resume and run.result.is_file():
        display.note(f"{run.path} is finished; this is its result")
        return _finished(run, display)

    # Data and model: everything that can be wrong with them is said before the run's directory is made.
    source = read_source(config.data)
    rows = assign_splits(
        source.rows,
        rate=config.rate,
        val_fraction=config.val_fraction,
        test_fraction=config.test_fraction,
        seed=config.data_seed,
    )
    classes = tuple(sorted({row.label for row in rows}))
    classifier = build_classifier(
        config.backbone, config.weights, classes, image_size=config.image_size, seed=config.seed
    )
    normalization = _set_norm(classifier.model, config)
    store = ImageStore(source.root, rows, classifier.preprocessing, strict=config.strict, track=display.track)
    splits = {name: _split(store, name, classes) for name in ("train", "val", "test")}
    _check(splits, classes, config, fabric.world_size)
    counts = {name: len(split) for name, split in splits.items()}

    if fabric.is_global_zero:
        manifest = format_manifest(store.rows)
        if config.resume and run.split.is_file() and run.split.read_text(encoding="utf-8") != manifest:
            raise ValueError(
                f"cannot resume {run.path}: the images of {config.data} are not those of its split.csv, so test images "
                "could be trained on; put the images back, or start anew with --overwrite"
            )
        run.open(config)
        write_text(run.split, manifest)
    display.header(config, classifier, counts, fabric)
    fabric.barrier()
    history = fit(config, fabric, run, display, classifier, splits["train"], splits["val"])

    # The selected model; the test split, once.
    if fabric.is_global_zero:
        classifier.model.load_state_dict(read_state_dict(run.model))
        _, validation = evaluate(classifier, splits["val"], fabric, batch_size=config.batch_size)
        test = None
        if len(splits["test"]):
            logits, test = evaluate(
                classifier, splits["test"], fabric, batch_size=config.batch_size, ten_crop=config.ten_crop
            )
            predictions = format_predictions(splits["test"].paths, logits.softmax(1), classes, splits["test"].labels)
            write_text(run.predictions, predictions)
        record = {
            "config": asdict(config),
            "weights": classifier.weights,
            "classes": classes,
            "images": counts,
            "left_out": len(rows) - len(store.rows),
            "normalization": normalization,
            "selected": {"step": max(history, key=score)["step"], "by": "validation top-1, then loss"},
            "validation": validation,
            "test": test,
            "cost": {key: history[-1][key] for key in ("seconds", "images_per_second")},
            "environment": environment(fabric),
        }
        write_text(run.result, json.dumps(record, indent=2) + "\n")
        run.checkpoint.unlink(missing_ok=True)
    fabric.barrier()
    return _finished(run, display)


def _set_norm(model: nn.Module, config: FinetuneConfig) -> dict[str, Any]:
    """Applies ``norm`` to the model; returns what the result says of it."""
    layers = sum(isinstance(m, _BatchNorm) and m.running_mean is not None for m in model.modules())
    if not layers:
        raise ValueError(
            f"{config.backbone} has no BatchNorm layer, so norm {config.norm} would do nothing; "
            "choose a backbone that normalizes by batch"
        )
    if config.norm == "stochnorm":
        convert(model, p=config.p)
    return {"method": config.norm, "p": config.p if config.norm == "stochnorm" else None, "layers": layers}


def _split(store: ImageStore, name: str, classes: tuple[str, ...]) -> Split:
    index = {label: i for i, label in enumerate(classes)}
    indices = [i for i, row in enumerate(store.rows) if row.split == name]
    return Split(store, indices, [index[store.rows[i].label] for i in indices])


def _check(splits: dict[str, Split], classes: tuple[str, ...], config: FinetuneConfig, world_size: int) -> None:
    train = splits["train"]
    empty = [name for i, name in enumerate(classes) if i not in set(train.labels)]
    if empty:
        raise ValueError(f"{config.data}: no readable training image of class {', '.join(empty)}; add some")
    if not len(splits["val"]):
        raise ValueError(f"{config.data}: no image is left to validate, since no class has two; add images")
    if config.batch_size > len(train):
        raise ValueError(
            f"batch_size {config.batch_size} is larger than the {len(train)} training images; "
            f"give --batch-size {len(train)} or less"
        )
    if config.batch_size % world_size:
        raise ValueError(f"batch_size {config.batch_size} does not divide among {world_size} processes")


def _finished(run: Run, display: Display) -> Result:
    result = Result(run.path, run.read_result())
    display.result(result.record, run)
    return result
