"""The training step as a graph: recorded once, and then repeated by one call in place of a launch of each kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from stochnorm.runs.hardware import precision_of
from stochnorm.training.step import TrainingStep

__all__ = ["CapturedStep", "Graph", "obstacle"]

_EAGER_STEPS = 3  # before the capture: they make the optimizer's state and let libraries choose and load their kernels


class Graph(Protocol):
    """What records and repeats a step: [stochnorm.training.cuda_graph.CudaGraph][], and in tests a list of operations.

    The function is always the same. It takes no arguments: tensors keep their places between the calls.
    """

    def warm_up(self, run: Callable[[], None]) -> str:
        """Run the function as it will be captured; return what in it waited for the device, empty if nothing did."""

    def capture(self, run: Callable[[], None]) -> None:
        """Record the function without computing anything.

        Raises:
            RuntimeError: It cannot be recorded. The process and its random generators are as before.
        """

    def replay(self) -> None:
        """Compute what was recorded, with the present values of its tensors."""


class CapturedStep:
    """A training step that is recorded in a graph after a few steps, and repeated from then on.

    The first steps run as they are, so no step is lost or computed twice, and the capture computes nothing. If one of
    them waits for the device, or if the capture fails, all steps run without a graph, and `reason` says why.

    Inputs are copied into tensors that keep their place. The rest that changes from step to step is read from tensors,
    too: learning rates, p, and the state of the random generator, which `torch.manual_seed` sets before each replay.

    Args:
        step: The step.
        graph: Records it; None: all steps run without.
        reason: Why there is no graph.
        tell: Told the reason, if it turns out during the training.
    """

    def __init__(
        self, step: TrainingStep, graph: Graph | None, reason: str = "", tell: Callable[[str], None] | None = None
    ) -> None:
        self.step, self._graph, self.reason, self._tell = step, graph, reason, tell
        self._inputs: tuple[Tensor, ...] = ()
        self._eager_steps, self._captured = 0, False
        if graph is not None and not reason:
            self.reason = f"the graph is captured after {_EAGER_STEPS} steps, which the training did not reach"

    def __call__(self, number: int, inputs: Sequence[Tensor]) -> None:
        """Train a step; arguments and errors are those of [stochnorm.training.step.TrainingStep][]."""
        if self._graph is None:
            self.step(number, inputs)
            return
        self.step.prepare(number)
        self._place(inputs)
        if self._eager_steps < _EAGER_STEPS:
            waits = self._graph.warm_up(self._compute)
            self._eager_steps += 1
            if waits and self._eager_steps == _EAGER_STEPS:
                self._do_without(f"a step waits for the device: {waits}")
            return
        if not self._captured:
            try:
                self.step.optimizer.zero_grad()  # the graph allocates gradients of its own, which keep their place
                self._graph.capture(self._compute)
            except RuntimeError as error:
                self._do_without(f"the capture failed: {str(error).splitlines()[0]}")
                self.step.optimizer.zero_grad()
                self.step(number, inputs)
                return
            self._captured, self.reason = True, ""
        self._graph.replay()

    @property
    def facts(self) -> bool | str:
        """Return True if steps were replayed from a graph, else why not: for the result of a run."""
        return self.reason or True

    def _place(self, inputs: Sequence[Tensor]) -> None:
        """Copy the inputs into the tensors that the graph reads."""
        if not self._inputs:
            device = self.step.fabric.device
            self._inputs = tuple(torch.empty_like(tensor, device=device) for tensor in inputs)
        for place, tensor in zip(self._inputs, inputs, strict=True):
            place.copy_(tensor, non_blocking=True)

    def _compute(self) -> None:
        with _no_autocast_cache():
            self.step.compute(*self._inputs)

    def _do_without(self, reason: str) -> None:
        self._graph, self.reason = None, reason
        if self._tell is not None:
            self._tell(f"training steps run without a CUDA graph: {reason}")


def obstacle(step: TrainingStep) -> str:
    """Return why a CUDA graph cannot hold a step; empty if nothing is known to forbid it."""
    fabric = step.fabric
    if fabric.device.type != "cuda":
        return f"{fabric.device.type} has no CUDA graphs"
    if fabric.world_size > 1:
        return "several processes exchange their gradients"
    if precision_of(fabric).startswith("16"):
        return "the loss scale of float16 was not written for graphs"
    for name, regularizer in step.objective.regularizers.items():
        if regularizer.waits:
            return f"{name}: {regularizer.waits}"
    return ""


@contextmanager
def _no_autocast_cache() -> Iterator[None]:
    """Let autocast convert weights at each use: converted ones from outside of a graph are not those of its replay."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
