"""The order in which images are seen, and their augmentation: functions of the seed, so that a run can be resumed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from stochnorm.data.splits import derive_seed, generator
from stochnorm.data.store import ImageStore

__all__ = ["Split"]


@dataclass(frozen=True)
class Split:
    """Labelled images of one purpose."""

    store: ImageStore
    indices: list[int]
    """Into the store."""
    labels: list[int]
    """Class of each."""

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
        """Augmented batches (images uint8 (b, 3, s, s), labels (b,)) of the given steps.

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


class _Augmented(Dataset[tuple[Tensor, int]]):
    """Augments each draw by a random stream of its own, whichever worker makes it."""

    def __init__(self, split: Split, seed: int) -> None:
        self.split, self.seed = split, seed
        self.augment = split.store.preprocessing.augment()

    def __getitem__(self, draw: tuple[int, int]) -> tuple[Tensor, int]:
        number, index = draw
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("augment", self.seed, number))
            return self.augment(self.split.store[self.split.indices[index]]), self.split.labels[index]


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
