"""Batches of labelled images: their order and augmentation depend on the seed and the step alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stochnorm.data.images.augmentation import Augmentation, Crop, cut
from stochnorm.data.images.pictures import Picture, square
from stochnorm.data.images.plan import Plans
from stochnorm.data.images.preprocessing import Preprocessing, stack
from stochnorm.data.images.readable import readable
from stochnorm.data.images.store import ImageStore
from stochnorm.data.images.stream import send, stream
from stochnorm.data.labels import encode_labels

__all__ = ["Split", "cut_batch", "file_batches", "network_inputs"]

_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images of one purpose."""

    store: ImageStore
    indices: list[int]
    """Places of the images in the store."""
    targets: Tensor
    """Class number of each image, int64 (n,); or findings, float32 (n, c). A list of class numbers is converted."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How training batches are augmented."""
    crops: Split | None = None
    """The same images as training crops are cut from them; None: as they are."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", torch.as_tensor(self.targets))

    @classmethod
    def of(cls, store: ImageStore, name: str, classes: Sequence[str], *, multi_label: bool = False) -> Split:
        """Select the images of a store whose split is called `name`."""
        indices = [i for i, row in enumerate(store.rows) if row.split == name]
        labels = [store.rows[i].label for i in indices]
        return cls(store, indices, encode_labels(labels, classes, multi_label=multi_label))

    def with_images_of(self, other: Split) -> Split:
        """Return the split with the images of another one after its own; both are of one store."""
        if other.store is not self.store:
            raise ValueError("images of two stores cannot be in one split; read them into one store")
        return Split(
            self.store, [*self.indices, *other.indices], torch.cat([self.targets, other.targets]), self.augmentation
        )

    @property
    def multi_label(self) -> bool:
        """True if an image has any number of classes instead of one."""
        return self.targets.ndim == 2

    @property
    def labels(self) -> list[int]:
        """Class number of each image of a single-label split."""
        if self.multi_label:
            raise ValueError("images of a multi-label split have no single label; use targets")
        return cast("list[int]", self.targets.tolist())

    @property
    def groups(self) -> list[str]:
        """Group of each image, such as its patient; empty if the source has none."""
        return [self.store.rows[i].group for i in self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def paths(self) -> list[str]:
        """Path of each image, relative to the root of its source."""
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
        device: torch.device = _CPU,
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """Yield augmented batches of the given steps, on the CPU.

        Each epoch is a new permutation without its last incomplete batch. A step's batch does not depend on the steps
        before it, on `workers` or on `device`. With several processes, each gets its part of every batch.

        Args:
            batch_size: Images per step, over all processes.
            steps: Numbers of the steps.
            seed: Random seed for order and augmentation.
            workers: Number of processes that make batches; see [stochnorm.data.images.stream.stream][].
            rank: Number of this process.
            world_size: Number of processes that share a batch.
            device: Device that the batches go to.

        Returns:
            Images uint8 (b, 3, image_size, image_size), channels_last, and targets (b,) or (b, c).
        """
        plans = self.plans(batch_size, seed=seed, rank=rank, world_size=world_size)
        if self.for_training.augmentation.policy and device.type != "cpu":
            workers = max(workers, 1)  # in a process: a thread would share the global generator with the training step
        return stream(_TrainingBatches(self.for_training, plans), steps, workers=workers, device=device)

    @property
    def for_training(self) -> Split:
        """The images that training crops are cut from."""
        return self if self.crops is None else self.crops

    def plans(self, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1) -> Plans:
        """Return the plans of the training batches: which images, and which crops of them."""
        share = slice(rank, batch_size, world_size)
        images = self.for_training
        preprocessing = images.store.preprocessing
        inside = preprocessing.fit == "crop" and preprocessing.for_crops
        contents = images.store.contents(images.indices) if inside else None
        scale = images.augmentation.scale
        return Plans(len(images), batch_size, preprocessing.resize, seed, share, scale=scale, contents=contents)

    def part(self, start: int, stop: int) -> Split:
        """Return the images from an index up to another one."""
        return Split(self.store, self.indices[start:stop], self.targets[start:stop])

    def evaluation_batches(self, batch_size: int, *, workers: int = 0, device: torch.device = _CPU) -> Iterable[Tensor]:
        """Yield batches of whole images in order, uint8 (b, 3, resize, resize), channels_last, on the CPU.

        Args:
            batch_size: Images per batch.
            workers: Number of processes that make batches.
            device: Device that the batches go to.
        """
        numbers = range(math.ceil(len(self) / batch_size))
        return stream(_EvaluationBatches(self, batch_size), numbers, workers=workers, device=device)


def network_inputs(
    batches: Iterable[tuple[Tensor, Tensor]], preprocessing: Preprocessing, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Move batches of uint8 images and targets to a device, and normalize the images there."""
    for images, targets in batches:
        yield preprocessing.normalize(send(images, device)), send(targets, device)


def cut_batch(split: Split, plan: Tensor) -> tuple[Tensor, Tensor]:
    """Cut the crops of a plan, one after the other, on the CPU; return them and the targets of their images.

    Args:
        split: The labelled images.
        plan: (b, 6), int32, as [stochnorm.data.images.plan.Plans][] has it.

    Returns:
        Images uint8 (b, 3, image_size, image_size), channels_last, and targets (b,) or (b, c).
    """
    size = split.store.preprocessing.image_size
    images = torch.empty((len(plan), size, size, 3), dtype=torch.uint8).movedim(-1, 1)
    for place, (index, top, left, height, width, mirrored) in enumerate(plan.tolist()):
        crop = Crop(top, left, height, width, bool(mirrored))
        images[place] = cut(split.store[split.indices[index]], crop, size)
    return images, split.targets[plan[:, 0].long()]


def file_batches(
    files: Sequence[Picture], preprocessing: Preprocessing, batch_size: int, *, strict: bool
) -> Iterator[tuple[list[Picture], Tensor]]:
    """Read images and yield the readable ones in batches, in order; two batches are read ahead.

    Args:
        files: The images: paths, or as Python has them.
        preprocessing: Size of the images.
        batch_size: Images per batch.
        strict: Raise at the first unreadable image instead of skipping it.

    Returns:
        The given images of each batch, and its pixels, uint8 (b, 3, resize, resize), channels_last.

    Raises:
        ValueError: No image can be read; or, with `strict`, one cannot.
    """
    paths: list[Picture] = []
    images: list[Tensor] = []

    def read(picture: Picture) -> Tensor:
        return square(picture, preprocessing)

    for path, image in readable(read, files, ahead=2 * batch_size, strict=strict):
        paths.append(path)
        images.append(image)
        if len(images) == batch_size:
            yield paths, stack(images)
            paths, images = [], []
    if images:
        yield paths, stack(images)


class _TrainingBatches(Dataset[tuple[Tensor, Tensor]]):
    """Training batches by the number of their step, the same in every process and thread."""

    def __init__(self, split: Split, plans: Plans) -> None:
        self.split, self.plans = split, plans

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        images, targets = cut_batch(self.split, self.plans[step])
        share = range(*self.plans.share.indices(self.plans.batch_size))
        self.split.augmentation.apply(images, self.plans.seed, step, share)
        return images, targets


class _EvaluationBatches(Dataset[Tensor]):
    """Whole images in batches by their number."""

    def __init__(self, split: Split, batch_size: int) -> None:
        self.split, self.batch_size = split, batch_size

    def __getitem__(self, number: int) -> Tensor:
        chosen = self.split.indices[number * self.batch_size :][: self.batch_size]
        return stack([self.split.store[i] for i in chosen])
