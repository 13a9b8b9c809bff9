"""Training batches for a device: what goes there each step, and how it becomes the network's input there."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stochnorm.data.images.batches import Split, cut_batch
from stochnorm.data.images.plan import Plans
from stochnorm.data.images.preprocessing import standardize
from stochnorm.data.images.resampling import CropBatch
from stochnorm.data.images.resident import resident
from stochnorm.data.images.stream import send, stream

__all__ = ["Batches", "DeviceBatches", "HostBatches", "batches_for"]


_CHECKED = 8  # crops that are compared with the CPU's before a CUDA device cuts them


class Batches(Protocol):
    """Augmented training batches: inputs made on the host, ahead of the step, and the rest on the device.

    A step's batch depends on the seed and the number of the step alone.
    """

    def inputs(self, steps: range) -> Iterable[tuple[Tensor, ...]]:
        """Yield what goes to the device in each step: tensors of the CPU, pinned for a CUDA device.

        The first axis of each is the images of the batch. Shapes and dtypes are the same in all steps.
        """

    def make(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Make a batch, or a part of it, from inputs on the device, or from slices of them along the first axis.

        Nothing waits for the host, so that a CUDA graph can hold it.

        Returns:
            The network's input, float32 (b, 3, image_size, image_size), channels_last; and the targets, (b,) or (b, c).
        """


class HostBatches:
    """Training batches whose crops are cut on the CPU; the device normalizes them.

    Args:
        split: The labelled images.
        batch_size: Images per step, over all processes.
        seed: Random seed for order and augmentation.
        workers: Number of processes that make batches; see [stochnorm.data.images.stream.stream][].
        rank: Number of this process.
        world_size: Number of processes that share a batch.
        device: Device that the batches go to.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        seed: int,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device,
    ) -> None:
        self._split, self._batch_size, self._device = split, batch_size, device
        self._seed, self._workers, self._rank, self._world_size = seed, workers, rank, world_size

    def inputs(self, steps: range) -> Iterable[tuple[Tensor, Tensor]]:
        """Yield crops, uint8 (b, 3, image_size, image_size), channels_last, and targets."""
        return self._split.training_batches(
            self._batch_size,
            steps,
            seed=self._seed,
            workers=self._workers,
            rank=self._rank,
            world_size=self._world_size,
            device=self._device,
        )

    def make(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Normalize the crops."""
        crops, targets = inputs
        return self._split.store.preprocessing.normalize(crops), targets


class DeviceBatches:
    """Training batches whose crops are cut on the device, out of images that live there or are sent whole.

    The crops are drawn on the CPU and are those of [stochnorm.data.images.device.HostBatches][]; so are the pixels, see
    [stochnorm.data.images.resampling.CropBatch][].

    Args:
        split: The labelled images.
        plans: Images and crops of each step.
        device: Where the batches are made.
        images: The images on the device and their places, as [stochnorm.data.images.resident.resident][] returns them;
            None: the images of each step are sent with its plan.
        workers: Number of processes that read images to send.
    """

    def __init__(
        self,
        split: Split,
        plans: Plans,
        device: torch.device,
        images: tuple[Tensor, Tensor] | None,
        *,
        workers: int = 0,
    ) -> None:
        preprocessing = split.store.preprocessing
        self._resident = images
        self._sent = _Sent(plans, split if images is None else None)
        self._device, self._workers = device, 0 if images else workers
        self._targets = split.targets.to(device)
        self._crops = CropBatch(preprocessing.resize, preprocessing.image_size, device)
        self._lines = preprocessing.lines(preprocessing.image_size, device)

    def inputs(self, steps: range) -> Iterable[tuple[Tensor, ...]]:
        """Yield the plan, int32 (b, 6); and whole images, uint8 (b, resize, resize, 3), unless they live there."""
        return stream(self._sent, steps, workers=self._workers, device=self._device)

    def difference(self, split: Split) -> str:
        """Return how the first crops differ from those that the CPU cuts; empty if they are the same to 1 of 255."""
        sent = self._sent[0]
        plan = sent[0][:_CHECKED]
        try:
            crops, _ = self.make(*(send(part[:_CHECKED], self._device) for part in sent))
            expected = split.store.preprocessing.normalize(send(cut_batch(split, plan)[0], self._device))
            worst = float((crops - expected).abs().max()) * 255 * min(split.store.preprocessing.std)
        except RuntimeError as error:
            return f"{type(error).__name__}: {error}"
        return "" if worst < 1.01 else f"a pixel by {worst:.3g} of 255"

    def make(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Take the images, cut the crops, and normalize them."""
        plan, index = inputs[0], inputs[0][:, 0]
        if self._resident is None:
            images = inputs[1]
        else:
            every, slots = self._resident
            images = every.index_select(0, slots.index_select(0, index))
        crops = standardize(self._crops(images, plan), *self._lines)
        return crops, self._targets.index_select(0, index)


class _Sent(Dataset[tuple[Tensor, ...]]):
    """What is sent to the device in each step."""

    def __init__(self, plans: Plans, split: Split | None) -> None:
        self.plans, self.split = plans, split

    def __getitem__(self, step: int) -> tuple[Tensor, ...]:
        plan = self.plans[step]
        if self.split is None:
            return (plan,)
        side = self.split.store.preprocessing.resize
        images = torch.empty((len(plan), side, side, 3), dtype=torch.uint8)
        for place, index in enumerate(plan[:, 0].tolist()):
            images[place] = self.split.store[self.split.indices[index]].movedim(0, -1)
        return plan, images


def batches_for(
    split: Split,
    batch_size: int,
    *,
    seed: int,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device,
    place: Literal["auto", "host", "resident", "streamed"] = "auto",
) -> Batches:
    """Return the training batches of a split for a device.

    Args:
        split: The labelled images.
        batch_size: Images per step, over all processes.
        seed: Random seed for order and augmentation.
        workers: Number of processes that make batches on the CPU.
        rank: Number of this process.
        world_size: Number of processes that share a batch.
        device: Device of the training step.
        place: Where crops are cut. `host`: on the CPU. `resident`: on the device, out of images that live there.
            `streamed`: on the device, out of images that are sent. `auto`: `resident` on a CUDA device, `streamed` if
            the images do not fit there; `host` elsewhere, and where a CUDA device cuts other pixels than the CPU.

    Raises:
        ValueError: The place is `resident`, and the images do not fit.

    Warns:
        UserWarning: A CUDA device cuts other pixels than the CPU; the crops are cut on the CPU instead.
    """
    split = split.for_training
    host = HostBatches(split, batch_size, seed=seed, workers=workers, rank=rank, world_size=world_size, device=device)
    if place == "host" or split.augmentation.policy or (place == "auto" and device.type != "cuda"):
        return host
    images = None if place == "streamed" else resident(split.store, split.indices, device)
    if place == "resident" and images is None:
        raise ValueError(f"{len(split)} images do not fit into the free memory of {device}; use place='streamed'")
    plans = split.plans(batch_size, seed=seed, rank=rank, world_size=world_size)
    there = DeviceBatches(split, plans, device, images, workers=workers)
    if place == "auto" and (reason := there.difference(split)):
        warnings.warn(
            f"{device} cuts other crops than the CPU ({reason}), so they are cut on the CPU, which is slower; please "
            "report it",
            stacklevel=2,
        )
        return host
    return there
