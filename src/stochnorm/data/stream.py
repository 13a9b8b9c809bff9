"""The order in which images are seen, and their augmentation: functions of the seed, so that a run can be resumed."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from stochnorm.data.manifest import findings, some
from stochnorm.data.splits import derive_seed, generator
from stochnorm.data.store import ImageStore

__all__ = ["Split", "encode_labels"]


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
    ) -> DataLoader[Any]:
        """Augmented batches (images uint8 (b, 3, s, s), targets (b,) or (b, c)) of the given steps.

        A new permutation each epoch, its last incomplete batch dropped. A step's batch does not depend on which
        steps came before, or on ``workers``. With several processes each gets its share of every batch.
        """
        draws = _Draws(len(self), batch_size, steps, seed, rank, world_size)
        return DataLoader(
            _Augmented(self, seed),
            batch_sampler=draws,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_ignore_interrupt,
        )

    def evaluation_batches(self, batch_size: int, *, workers: int = 0) -> DataLoader[Any]:
        """Batches of images, uint8 (b, 3, resize, resize), in order."""
        return DataLoader(_Squashed(self), batch_size, num_workers=workers, worker_init_fn=_ignore_interrupt)


class _Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Augments each draw by a random stream of its own, whichever worker makes it."""

    def __init__(self, split: Split, seed: int) -> None:
        self.split, self.seed = split, seed
        self.augment = split.store.preprocessing.augment()

    def __getitem__(self, draw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        number, index = draw
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("augment", self.seed, number))
            return self.augment(self.split.store[self.split.indices[index]]), self.split.targets[index]


class _Draws(Sampler[list[tuple[int, int]]]):
    """Batches of (number of the draw, index)."""

    def __init__(self, size: int, batch_size: int, steps: range, seed: int, rank: int, world_size: int) -> None:
        self.size, self.batch_size, self.steps = size, batch_size, steps
        self.seed, self.rank, self.world_size = seed, rank, world_size

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = self.size // self.batch_size
        order: list[int] = []
        for step in self.steps:
            epoch, position = divmod(step, per_epoch)
            if position == 0 or not order:
                order = torch.randperm(self.size, generator=generator("order", self.seed, epoch)).tolist()
            share = range(self.rank, self.batch_size, self.world_size)
            yield [(step * self.batch_size + i, order[position * self.batch_size + i]) for i in share]


class _Squashed(Dataset[Tensor]):
    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Tensor:
        return self.split.store[self.split.indices[index]]


def _ignore_interrupt(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the main one decides when the workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
