"""Learning-rate range test (Smith, WACV 2017) for the settings at hand, on training images alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from stochnorm.data.images.device import batches_for
from stochnorm.methods.catalogue import trains
from stochnorm.regularizers.regularizer import trained_groups
from stochnorm.runs.config import FinetuneConfig
from stochnorm.runs.determinism import repeatable
from stochnorm.runs.directory import Run
from stochnorm.runs.hardware import check_device, check_one_process
from stochnorm.training.display import Display
from stochnorm.training.job import Job, assemble
from stochnorm.training.optimizer import make_optimizer
from stochnorm.training.range_test import RangeTest, rates_between
from stochnorm.training.rates import Rates
from stochnorm.training.step import TrainingStep

__all__ = ["find_lr"]

_ENOUGH = 4.0  # times the lowest loss so far, and the start: a test that is above it is over


def find_lr(
    config: FinetuneConfig, *, steps: int = 60, lowest: float = 1e-5, highest: float = 1.0, quiet: bool = False
) -> RangeTest:
    """Train some steps while the learning rate rises exponentially, and suggest a rate from the losses.

    Method, head, optimizer, batch size and augmentation are those of the settings; the schedule is not used. Validation
    and test images are not used, and nothing is written: a run of the same settings is not touched.

    Args:
        config: The settings. With `head="probe"` the test begins at the probe.
        steps: Number of steps.
        lowest: Learning rate of the first step.
        highest: That of the last one. The test ends before if the loss is no longer finite, or four times its start.
        quiet: Print nothing.

    Raises:
        ValueError: The method does not train at one rate (`auto`, `probe`), or the range or the number of steps is
            impossible; or as [stochnorm.finetune][].
        FileNotFoundError: As [stochnorm.finetune][].

    Example:
        >>> find_lr(FinetuneConfig("photos/", method="frozen")).suggested  # doctest: +SKIP
        0.002
    """
    if config.method == "auto" or not trains(config.method):
        raise ValueError(
            f"method {config.method} has no learning rate to find; choose a --method that trains, such as vanilla"
        )
    config = replace(config, resume=False, log="none", compile=False)
    config.check_used()
    check_one_process("the range test works in one process")
    rates = rates_between(lowest, highest, steps)
    display = Display(quiet=quiet)
    with repeatable(check_device(config.device, config.precision), wanted=config.deterministic):
        job = assemble(config, Run.of(config), display, test=False)
        losses = _sweep(job, rates)
    return RangeTest(config.method, tuple(rates[: len(losses)]), tuple(losses))


class _Rising(TrainingStep):
    """A step whose learning rate is that of the test."""

    rates_of_test: list[float]

    def decay(self, number: int) -> float:
        """Return the factor of the learning rates at a step."""
        return self.rates_of_test[number] / self.config.lr


def _sweep(job: Job, rates: list[float]) -> list[float]:
    """Train a step at each rate; return the loss before each step, up to where it is lost."""
    config, fabric, network = job.config, job.fabric, job.classifier.model
    on_gpu = fabric.device.type == "cuda"
    more = trained_groups(job.objective.regularizers, config.lr)
    optimizer: Any = make_optimizer(config, job.classifier, more, on_gpu=on_gpu)
    model, optimizer = fabric.setup(network, optimizer)
    batches = batches_for(
        job.splits["train"],
        config.batch_size,
        seed=config.seed,
        workers=config.workers,
        rank=0,
        world_size=1,
        device=fabric.device,
    )
    of_optimizer = Rates(optimizer, fabric.device if on_gpu else None)
    step = _Rising(config, job.objective, fabric, model, of_optimizer, batches.make)
    step.rates_of_test = rates
    steps, losses = range(len(rates)), list[float]()
    job.objective.forget()
    with job.display.measuring("learning-rate range test") as progress:
        for number, inputs in zip(steps, batches.inputs(steps), strict=True):
            try:
                step(number, inputs)
                losses.append(step.sums.read().sums["total"])
            except FloatingPointError:
                break
            step.sums.clear()
            progress((number + 1) / len(rates))
            if losses[-1] > _ENOUGH * max(losses[0], 0.1):
                break
    return losses
