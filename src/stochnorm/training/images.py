"""The images of a run: which split each one is in, whether they can be trained on, and the task they make."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import torch

from stochnorm.data import ImageStore, Row, Source, Split, assign_splits, read_lists
from stochnorm.data.images.augmentation import Augmentation
from stochnorm.data.images.readable import Track
from stochnorm.evaluation.tasks import MultiLabel, SingleLabel, Task, class_weights_of, pos_weight_of
from stochnorm.runs.config import FinetuneConfig
from stochnorm.text import count, printable, some

__all__ = ["check_splits", "fitting", "for_training", "split_rows", "task_of", "warn_of_classes"]


_UNEVEN = 20  # times as many images in one class as in another, to warn of it


def split_rows(source: Source, config: FinetuneConfig) -> list[Row]:
    """Return the images of a run with their splits: by lists, or by the sampling rule.

    With lists only their images train: `pool_val` lets validation images be taken from them, and there is no test.
    """
    rows = source.rows
    if config.split_lists:
        if config.pool_val:
            rows = [row._replace(split="train") if row.split == "val" else row for row in rows]
        rows = read_lists(Path(config.split_lists), rows)
        if config.pool_val and any(row.split == "val" for row in rows):
            raise ValueError(f"{config.split_lists}: val.txt already names the validation images; remove --pool-val")
    return assign_splits(
        rows,
        rate=config.rate,  # 100 with lists, see FinetuneConfig
        val_fraction=config.val_fraction,
        test_fraction=0 if config.split_lists else config.test_fraction,
        seed=config.data_seed,
        test_seed=config.test_seed,
        multi_label=source.multi_label,
        pool_val=config.pool_val,
    )


def task_of(config: FinetuneConfig, source: Source, train: Split, device: torch.device) -> Task:
    """Return the task of a run: one label per image or several, with weights of classes or findings for `balance`.

    The weights are on the device, so that no step copies them there.
    """
    if not source.multi_label:
        weights = class_weights_of(train.targets, len(source.classes)).to(device) if config.balance else None
        return SingleLabel(source.classes, weights)
    if not config.balance:
        return MultiLabel(source.classes, resamples=0)
    one_sided = [name for name, of in zip(source.classes, train.targets.T, strict=True) if len(of.unique()) == 1]
    if one_sided:
        warnings.warn(
            f"{config.data}: all training images are positive, or all negative, for {', '.join(one_sided)}; balance "
            "keeps the weight 1 there",
            stacklevel=2,
        )
    return MultiLabel(source.classes, pos_weight_of(train.targets).to(device), resamples=0)


def for_training(train: Split, source: Source, config: FinetuneConfig, track: Track | None) -> Split:
    """Say how the training images are augmented, and read them a second time if crops are cut from other squares.

    Args:
        train: The training images as evaluation reads them.
        source: Where they are from.
        config: The settings.
        track: Progress display.

    Raises:
        ValueError: An image can no longer be read.
    """
    policy = config.augment if config.augment in ("trivial", "rand") else ""
    augmentation = Augmentation(config.crop_scale_used, policy)
    preprocessing = train.store.preprocessing
    if preprocessing.training == preprocessing:
        return replace(train, augmentation=augmentation)
    rows, listed = [train.store.rows[i] for i in train.indices], [row.path for row in source.rows]
    store = ImageStore(
        source.root, rows, preprocessing.training, strict=True, track=track, cache=config.cache, listed=listed
    )
    return replace(train, crops=Split(store, list(range(len(rows))), train.targets, augmentation))


def fitting(config: FinetuneConfig, images: int, processes: int) -> FinetuneConfig:
    """Return the settings with a batch of all training images, if the default batch is larger; say so.

    A batch size that was asked for stays; `check_splits` refuses it.

    Args:
        config: The settings.
        images: Number of training images.
        processes: Processes that share each batch.
    """
    fits = images // processes * processes
    if config.batch_size <= images or "batch_size" in config.changed_fields() or fits < 2 * config.accumulate:
        return config
    warnings.warn(
        f"batch_size is {fits} instead of {config.batch_size}: there are only {images} training images", stacklevel=2
    )
    return replace(config, batch_size=fits)


def warn_of_classes(splits: dict[str, Split], classes: tuple[str, ...], config: FinetuneConfig) -> None:
    """Warn of classes of very different sizes, unless they are balanced, and of classes without validation images.

    Args:
        splits: Splits by name: train, val; one label per image.
        classes: Class names.
        config: The settings.
    """
    train, val = (splits[name].targets.bincount(minlength=len(classes)).tolist() for name in ("train", "val"))
    by_size = sorted(range(len(classes)), key=train.__getitem__)
    smallest, largest = by_size[0], by_size[-1]
    if train[largest] >= _UNEVEN * train[smallest] and not config.balance:
        warnings.warn(
            f"{config.data}: class {printable(classes[largest])} has {train[largest]} training images and "
            f"{printable(classes[smallest])} {train[smallest]}; --balance gives all classes equal weight, and F1 and "
            "the accuracy per class tell more than top-1",
            stacklevel=2,
        )
    unseen = [name for name, images in zip(classes, val, strict=True) if not images]
    if unseen and any(val):
        warnings.warn(
            f"{config.data}: no validation image of {count(len(unseen), 'class')}, whose mistakes no choice of a "
            f"model sees: {some(unseen)}; add images, or raise --rate or --val-fraction",
            stacklevel=2,
        )


def check_splits(splits: dict[str, Split], classes: tuple[str, ...], config: FinetuneConfig, processes: int) -> None:
    """Raise ValueError where the splits cannot train and select a model.

    Args:
        splits: Splits by name: train, val.
        classes: Class names.
        config: The settings.
        processes: Processes that share each batch.
    """
    train, val = splits["train"], splits["val"]
    seen = set(range(len(classes))) if train.multi_label else set(train.labels)
    empty = [name for i, name in enumerate(classes) if i not in seen]
    where = config.split_lists or config.data
    if empty:
        raise ValueError(f"{where}: no readable training image of class {some(empty)}; add some")
    if not len(val) and config.val_fraction:
        raise ValueError(
            f"{where}: no readable validation image; add images: a class needs one for training, one for validation "
            "and, unless DATA has a test split, one for the test (--test-fraction 0 for no test)"
        )
    if train.multi_label and len(val) and not ((val.targets.sum(0) > 0) & (val.targets.sum(0) < len(val))).any():
        raise ValueError(
            f"{config.data}: none of the findings has both positive and negative images among the {len(val)} "
            "validation images, so no AUC can select a model; raise --val-fraction or --rate"
        )
    if config.batch_size > len(train):
        raise ValueError(
            f"batch_size {config.batch_size} is larger than the {len(train)} training images; "
            f"give --batch-size {len(train)} or less"
        )
    if config.batch_size % processes:
        raise ValueError(
            f"batch_size {config.batch_size} is not a multiple of the {processes} processes; "
            f"give --batch-size a multiple of {processes}"
        )
