"""The training steps of a layer that activation checkpointing may repeat, kept until backward has used them.

A step lives as long as the pass that it belongs to: it hangs on an object that the pass's graph holds and that a
recomputation of the pass finds in its call stack. For `torch.utils.checkpoint` with `use_reentrant=False` this is its
frame; for `use_reentrant=True`, and for every function of other libraries that runs a part of a model without gradients
and again in its backward pass, it is the context of that `torch.autograd.Function`. When the graph is gone, so are the
steps. Passes that nothing can recompute keep none.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Iterator
from contextlib import nullcontext
from enum import Enum
from types import FrameType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.utils._python_dispatch import _disable_current_modes

__all__ = ["NOTHING", "Plain", "Step", "keep", "may_recompute", "step_to_repeat"]

NOTHING = (
    "a StochNorm layer must repeat its last training step (for activation checkpointing or inside hold_statistics), "
    "but it has none: run a forward pass in training mode first, with p below 1 and without torch.compile, which keeps "
    "no steps, nor do the transforms of torch.func and the copies of nn.DataParallel"
)

_top_hooks = torch._C._autograd._top_saved_tensors_default_hooks

_ANOTHER_INPUT = (
    "activation checkpointing recomputed a StochNorm layer on another input than in the forward pass, so the gradient "
    "would be wrong. Make what runs before this layer deterministic, or exclude the layer from checkpointing"
)


class Step(NamedTuple):
    """A training step of a layer."""

    mask: Tensor
    """Where batch statistics were used, (c,)."""
    mean: Tensor
    """Mean that each channel was normalized by, (c,)."""
    var: Tensor
    """Variance likewise."""
    batch_mean: Tensor
    """Mean of the batch."""
    drew: bool
    """Whether the step drew from the generator; False if its mask was given or held."""
    version: int | None
    """Version of a given mask, to notice if it is overwritten; None if the layer drew it."""

    @classmethod
    def of(cls, mask: Tensor, statistics: Iterable[Tensor], drew: bool, version: int | None) -> Step:
        """Return a step with statistics as `stoch_norm_` returns them."""
        mean, var, batch_mean = statistics
        return cls(mask, mean, var, batch_mean, drew, version)

    def check_mask(self) -> None:
        """Raise RuntimeError if the mask was overwritten."""
        if self.version is not None and self.mask._version != self.version:
            raise RuntimeError(
                "the mask of a pass that must be repeated was overwritten: call JointMasks.draw only after the "
                "backward passes of the pass before"
            )

    def check_mean(self, batch_mean: Tensor, eps: float) -> None:
        """Raise RuntimeError unless the step's input had this mean, to rounding."""
        with _disable_current_modes():  # selective checkpoints count the operations
            another = bool(((batch_mean - self.batch_mean).abs() > 1e-3 * (self.var + eps).sqrt()).any())
        if another:
            raise RuntimeError(_ANOTHER_INPUT)

    def moving(self) -> tuple[Tensor, Tensor]:
        """Return copies of mean and variance, for a repetition to change."""
        counted = not torch.compiler.is_compiling() and may_recompute()  # as in check_mean
        with _disable_current_modes() if counted else nullcontext():
            return self.mean.clone(), self.var.clone()


class Plain(Enum):
    """A training pass that is one of BatchNorm, at p = 1 or of no values."""

    BATCH_NORM = "BatchNorm"


class Steps:
    """The passes that a layer made in one checkpointed part, repeated in the order in which they were made."""

    def __init__(self) -> None:
        self._passes: list[Step | Plain] = []
        self._repetition: Hashable = None
        self._repeated = 0

    def append(self, step: Step | Plain) -> None:
        """Add the step of a forward pass."""
        self._passes.append(step)

    def next(self, repetition: Hashable, *, take: bool) -> Step | Plain:
        """Return the step that comes next in a repetition of the part.

        Args:
            repetition: Tells one repetition from another: of one graph, several backward passes may be made.
            take: Go on to the one behind it.
        """
        if repetition != self._repetition:
            self._repetition, self._repeated = repetition, 0
        step = self._passes[self._repeated % len(self._passes)]  # a function may go over its part several times
        self._repeated += take
        return step


# By the objects that hold the steps, then by layers.
_kept: WeakKeyDictionary[Any, WeakKeyDictionary[nn.Module, Steps]] = WeakKeyDictionary()


def may_recompute() -> bool:
    """Return whether the present forward pass may run again in its backward pass."""
    return _top_hooks(True) is not None or not torch.is_grad_enabled()


def keep(layer: nn.Module, step: Step | Plain) -> None:
    """Keep a step of a layer as long as its pass may be recomputed; of other passes, keep nothing."""
    holders: set[Any] = set(_checkpoints())
    if not torch.is_grad_enabled():
        holders.update(context for frame in _stack() if (context := _context(frame, "forward")) is not None)
    for holder in holders:
        _kept.setdefault(holder, WeakKeyDictionary()).setdefault(layer, Steps()).append(step)


def step_to_repeat(layer: nn.Module, *, take: bool = False) -> Step | Plain | None:
    """Return the step that the present pass of a layer repeats.

    It is None outside a backward pass, and inside a function's backward pass whose forward pass did not run the layer.

    Args:
        layer: A StochNorm layer.
        take: The pass is made now, and the next one repeats the step behind it.

    Raises:
        RuntimeError: A checkpoint recomputes a layer that made no step there.
    """
    if torch.compiler.is_compiling() or (torch._C._current_graph_task_id() == -1 and _top_hooks(True) is None):
        return None
    for frame in _stack():
        if of_checkpoint := _is_of_checkpoint(frame, "unpack_hook"):
            holder, repetition = frame.f_locals["frame"], frame.f_locals["gid"]
        elif (holder := _context(frame, "backward")) is not None:
            of_checkpoint = _is_of_checkpoint(frame, "backward")
            repetition = torch._C._current_graph_task_id()
        else:
            continue
        steps = _kept[holder].get(layer) if holder in _kept else None
        if steps is None and of_checkpoint:
            raise RuntimeError(NOTHING)
        return None if steps is None else steps.next(repetition, take=take)
    return None


def _checkpoints() -> Iterator[Any]:
    """Yield the checkpoints that the present pass is in, the innermost first: all that have a hook on saved tensors."""
    hooks = _top_hooks(True)
    if hooks is None:
        return
    pack: Any = hooks[0]
    if getattr(pack, "__module__", None) == "torch.utils.checkpoint" and "frame" in pack.__code__.co_freevars:
        yield pack.__closure__[pack.__code__.co_freevars.index("frame")].cell_contents
    torch._C._autograd._pop_saved_tensors_default_hooks()
    try:
        yield from _checkpoints()
    finally:
        torch._C._autograd._push_saved_tensors_default_hooks(*hooks)


def _is_of_checkpoint(frame: FrameType, name: str) -> bool:
    return name == frame.f_code.co_name and frame.f_globals.get("__name__") == "torch.utils.checkpoint"


def _context(frame: FrameType, name: str) -> FunctionCtx | None:
    """Return the context of a `torch.autograd.Function` if a frame is its pass of this name, forward or backward."""
    code = frame.f_code
    if code.co_name != name or not code.co_argcount or code.co_varnames[0] == "self":
        return None
    context = frame.f_locals.get(code.co_varnames[0])
    return context if isinstance(context, FunctionCtx) else None


def _stack() -> Iterator[FrameType]:
    """Yield the frames of the call stack, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
