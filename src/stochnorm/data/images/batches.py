"""The order in which images are seen, and their augmentation: functions of the seed, so that a run can be resumed."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stochnorm.data.images.ahead import map_ahead
from stochnorm.data.images.augmentation import cut, draw_crops
from stochnorm.data.images.preprocessing import Preprocessing, stack
from stochnorm.data.images.store import ImageStore
from stochnorm.data.manifest import findings
from stochnorm.data.splits import generator
from stochnorm.text import some

__all__ = ["CenterCrops", "Split", "encode_labels", "network_inputs"]

Batch = TypeVar("Batch", tuple[Tensor, Tensor], Tensor)


def encode_labels(labels: Sequence[str], classes: Sequence[str], *, multi_label: bool = False) -> Tensor:
    """The classes of images as numbers.

    Returns:
        (n,) int64, the place of each label in ``classes``; of multi-label rows (n, c) float32, 1 for each finding.

    Raises:
        ValueError: A label that ``classes`` does not hold.

    Example:
        >>> encode_labels(["b", "a"], ["a", "b"])
        tensor([1, 0])
        >>> encode_labels(["a|b", ""], ["a", "b"], multi_label=True)
        tensor([[1., 1.],
                [0., 0.]])
    """
    index = {name: i for i, name in enumerate(classes)}
    names = [findings(label) if multi_label else [label] for label in labels]
    unknown = sorted({name for image in names for name in image} - index.keys())
    if unknown:
        raise ValueError(f"labels that are no classes: {some(unknown)}; the classes are {some(list(classes))}")
    if not multi_label:
        return torch.tensor([index[label] for label in labels], dtype=torch.int64)
    targets = torch.zeros(len(labels), len(classes))
    for row, image in zip(targets, names, strict=True):
        row[[index[name] for name in image]] = 1
    return targets


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images of one purpose."""

    store: ImageStore
    indices: list[int]
    """Into the store."""
    targets: Tensor
    """Class of each, int64 (n,), or findings, float32 (n, c); a list of class numbers is made one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", torch.as_tensor(self.targets))

    @classmethod
    def of(cls, store: ImageStore, name: str, classes: Sequence[str], *, multi_label: bool = False) -> Split:
        """The images of a store whose split is called ``name``."""
        indices = [i for i, row in enumerate(store.rows) if row.split == name]
        labels = [store.rows[i].label for i in indices]
        return cls(store, indices, encode_labels(labels, classes, multi_label=multi_label))

    @property
    def multi_label(self) -> bool:
        return self.targets.ndim == 2

    @property
    def labels(self) -> list[int]:
        """Class of each image; of a single-label split."""
        if self.multi_label:
            raise ValueError("images of a multi-label split have no single label; take its targets")
        return cast("list[int]", self.targets.tolist())

    @property
    def groups(self) -> list[str]:
        """What each image is one of several of, such as its patient; empty where the source does not say."""
        return [self.store.rows[i].group for i in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def paths(self) -> list[str]:
        return [self.store.rows[i].path for i in self.indices]

    def training_batches(
        self,
        batch_size: int,
        steps: range,
        *,
        seed: int,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        prefetch: int | None = None,
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """Augmented batches (images uint8 (b, 3, s, s), channels_last, targets (b,) or (b, c)) of the given steps.

        A new permutation each epoch, its last incomplete batch dropped. A step's batch does not depend on which
        steps came before, on ``workers`` or on ``prefetch``. With several processes each gets its share of every batch.

        Args:
            batch_size: Over all processes.
            steps: Which.
            seed: Of order and augmentation.
            workers: Processes that make batches; 0: none beside this one.
            rank: Which process this is.
            world_size: Of how many.
            prefetch: Without workers, batches that a thread makes ahead; None: two for a GPU, else none.
        """
        batches = _TrainingBatches(self, batch_size, seed, slice(rank, batch_size, world_size))
        return _stream(batches, steps, workers, prefetch)

    def evaluation_batches(self, batch_size: int, *, workers: int = 0, prefetch: int | None = None) -> Iterable[Tensor]:
        """Batches of images, uint8 (b, 3, resize, resize), channels_last, in order; arguments as for training."""
        batches = _EvaluationBatches(self, batch_size)
        return _stream(batches, range(math.ceil(len(self) / batch_size)), workers, prefetch)


class CenterCrops:
    """Batches of normalized center crops with their targets, as the network sees them in evaluation.

    They can be iterated any number of times.

    Args:
        split: The labelled images.
        indices: Images of the split to use, in order.
        preprocessing: Crop and normalization.
        batch_size: Images per batch. A last batch of one image is left out: it has no batch statistics.
        device: Device of the crops and targets.
    """

    def __init__(
        self,
        split: Split,
        indices: Iterable[int],
        preprocessing: Preprocessing,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.split, self.indices, self.preprocessing = split, list(indices), preprocessing
        self.batch_size, self.device = batch_size, device

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        cropped = ((self.preprocessing.center_crop(images), targets) for images, targets in self._batches())
        return network_inputs(cropped, self.preprocessing, self.device)

    def content(self) -> Iterator[Tensor]:
        """Yield every image, then the targets: all that the batches depend on."""
        for i in self.indices:
            yield self.split.store[self.split.indices[i]]
        yield self.split.targets[self.indices]

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.indices), self.batch_size):
            chosen = self.indices[start : start + self.batch_size]
            if len(chosen) > 1:
                yield stack([self.split.store[self.split.indices[i]] for i in chosen]), self.split.targets[chosen]


def network_inputs(
    batches: Iterable[tuple[Tensor, Tensor]], preprocessing: Preprocessing, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Move batches of uint8 images and targets to a device, and normalize the images there."""
    for images, targets in batches:
        yield preprocessing.normalize(images.to(device)), targets.to(device)


class _TrainingBatches(Dataset[tuple[Tensor, Tensor]]):
    """A batch by the number of its step, whichever process or thread makes it."""

    def __init__(self, split: Split, batch_size: int, seed: int, share: slice) -> None:
        self.split, self.batch_size, self.seed, self.share = split, batch_size, seed, share
        self.order = (-1, torch.empty(0))  # of which epoch

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        store, targets = self.split.store, self.split.targets
        epoch, position = divmod(step, len(self.split) // self.batch_size)
        if self.order[0] != epoch:
            self.order = epoch, torch.randperm(len(self.split), generator=generator("order", self.seed, epoch))
        chosen = self.order[1][position * self.batch_size :][self.share]
        # All processes draw the crops of the whole batch, so that it is the same however many share it.
        drawn = generator("augment", self.seed, step)
        crops = draw_crops(self.batch_size, store.preprocessing.resize, drawn)[self.share]
        size = store.preprocessing.image_size
        images = torch.empty((len(crops), size, size, 3), dtype=torch.uint8).movedim(-1, 1)
        for place, (index, crop) in enumerate(zip(chosen.tolist(), crops, strict=True)):
            images[place] = cut(store[self.split.indices[index]], crop, size)
        return images, targets[chosen]


class _EvaluationBatches(Dataset[Tensor]):
    """A batch by its number."""

    def __init__(self, split: Split, batch_size: int) -> None:
        self.split, self.batch_size = split, batch_size

    def __getitem__(self, number: int) -> Tensor:
        chosen = self.split.indices[number * self.batch_size :][: self.batch_size]
        return stack([self.split.store[i] for i in chosen])


def _stream(batches: Dataset[Batch], numbers: range, workers: int, prefetch: int | None) -> Iterable[Batch]:
    """The batches of these numbers, made by processes, by a thread, or here when they are wanted."""
    pin = torch.cuda.is_available()
    if workers:
        return DataLoader(
            batches,
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            pin_memory=pin,
            worker_init_fn=_ignore_interrupt,
        )
    if prefetch is None:
        # A CPU that computes the step has no core to spare, and making the batch is a hundredth of its work.
        prefetch = 2 if torch.accelerator.is_available() else 0

    def make(number: int) -> Batch:
        return _pinned(batches[number]) if pin else batches[number]

    return map_ahead(make, numbers, threads=1, ahead=prefetch)


def _pinned(batch: Any) -> Any:
    """The same in memory that a GPU copies from directly."""
    return batch.pin_memory() if isinstance(batch, Tensor) else tuple(tensor.pin_memory() for tensor in batch)


def _ignore_interrupt(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the main one decides when the workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
