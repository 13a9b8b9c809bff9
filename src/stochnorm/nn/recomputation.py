"""The training steps of a layer that activation checkpointing may repeat, kept until backward has used them.

A step lives as long as the pass that it belongs to: it hangs on an object that the pass's graph holds and that a
recomputation of the pass finds in its call stack. For `torch.utils.checkpoint` with `use_reentrant=False` this is its
frame; for `use_reentrant=True`, and for every function of other libraries that runs a part of a model without gradients
and again in its backward pass, it is the context of that `torch.autograd.Function`. When the graph is gone, so are the
steps. Passes that nothing can recompute keep none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from stochnorm.nn.probability import is_captured

__all__ = ["NOTHING", "Step", "Ways", "keep", "may_recompute", "steps_to_repeat"]

NOTHING = (
    "a StochNorm layer must repeat its last training step (for activation checkpointing or inside hold_statistics), "
    "but it has none: run a forward pass in training mode first, with p below 1 and without torch.compile, which keeps "
    "no steps, nor do the transforms of torch.func"
)

_top_hooks = torch._C._autograd._top_saved_tensors_default_hooks


_ALIKE = (
    "activation checkpointing cannot tell several passes of a StochNorm layer apart: they had the same input and the "
    "same random numbers, but not the same mask and statistics. Leave preserve_rng_state=True and set no seed between "
    "them, run backward after each pass, or run the second one inside stochnorm.hold_statistics"
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
    drawn: Tensor | None
    """What the step drew from the generator; None if its mask was given or held."""
    version: int | None
    """Version of a given mask, to notice if it is overwritten; None if the layer drew it."""

    @classmethod
    def of(cls, mask: Tensor, statistics: Iterable[Tensor], drawn: Tensor | None, version: int | None) -> Step:
        """Return a step with statistics as `stoch_norm_` returns them."""
        mean, var, batch_mean = statistics
        return cls(mask, mean, var, batch_mean, drawn, version)

    def check_mask(self) -> None:
        """Raise RuntimeError if the mask was overwritten."""
        if self.version is not None and self.mask._version != self.version:
            raise RuntimeError(
                "the mask of a pass that must be repeated was overwritten: call JointMasks.draw only after the "
                "backward passes of the pass before"
            )

    def normalizes_as(self, other: Step) -> bool:
        """Return whether both steps are the same function of their input."""
        if self is other:
            return True
        return torch.equal(self.mask, other.mask) and all(
            torch.equal(mine.masked_fill(self.mask, 0), theirs.masked_fill(self.mask, 0))
            for mine, theirs in ((self.mean, other.mean), (self.var, other.var))
        )

    def had(self, batch_mean: Tensor, eps: float) -> bool:
        """Return whether the step's input had this mean, to rounding."""
        return not bool(((batch_mean - self.batch_mean).abs() > 1e-3 * (self.var + eps).sqrt()).any())


class Ways:
    """The steps that a recomputation may be one of, fewer with everything that is known of it.

    Raises:
        RuntimeError: No step is left, or steps that cannot be told apart.
    """

    def __init__(self, steps: list[Step]) -> None:
        if not steps:
            raise RuntimeError(NOTHING)
        self.steps = steps

    def narrow_by_draw(self, draw: Callable[[], Tensor], input: Tensor) -> None:
        """Keep the step that drew the same numbers, if one did; draw as it did, for the layers behind this one.

        Args:
            draw: Draws, and returns what it drew.
            input: Its device is that of the generator. While a CUDA graph records it, nothing can be compared.
        """
        drew = [step for step in self.steps if step.drawn is not None]
        if not drew:
            return
        mixed = len(drew) < len(self.steps)
        before = _random_state(input.device) if mixed else None
        drawn = draw()
        if is_captured(input):
            return
        same = [step for step in drew if torch.equal(cast(Tensor, step.drawn), drawn)]
        if before is not None and not same:  # it is one of the others, which drew nothing
            _set_random_state(before, input.device)
        self.steps = same or sorted(self.steps, key=lambda step: step.drawn is not None)

    def narrow_by_mean(self, batch_mean: Tensor, eps: float) -> None:
        """Keep the steps whose input had this mean."""
        near = [step for step in self.steps if step.had(batch_mean, eps)]
        if not near:
            raise RuntimeError(
                "activation checkpointing recomputed a StochNorm layer on another input than in the forward pass, so "
                "the gradient would be wrong. Make what runs before this layer deterministic, or exclude the layer "
                "from checkpointing"
            )
        self.steps = [step for step in near if torch.equal(step.batch_mean, batch_mean)] or near

    def only(self, *, compare: bool = True) -> Step:
        """Return the step, or the first of several that are the same function; without comparison if it must wait."""
        first, *others = self.steps
        if not all(step is first or (compare and first.normalizes_as(step)) for step in others):
            raise RuntimeError(_ALIKE)
        return first


# By the objects that hold the steps, then by layers, each in the order of its passes.
_kept: WeakKeyDictionary[Any, WeakKeyDictionary[nn.Module, list[Step]]] = WeakKeyDictionary()


def may_recompute() -> bool:
    """Return whether the present forward pass may run again in its backward pass."""
    return _top_hooks(True) is not None or not torch.is_grad_enabled()


def keep(layer: nn.Module, step: Step) -> None:
    """Keep a step of a layer as long as its pass may be recomputed; of other passes, keep nothing."""
    holders: set[Any] = set()
    hooks = _top_hooks(True)
    if hooks is not None:
        holders.update(_checkpoints(hooks[0]))
    if not torch.is_grad_enabled():
        holders.update(context for frame in _stack() if (context := _context(frame, "forward")) is not None)
    for holder in holders:
        _kept.setdefault(holder, WeakKeyDictionary()).setdefault(layer, []).append(step)


def steps_to_repeat(layer: nn.Module) -> list[Step] | None:
    """Return the steps of which a recomputation repeats one; None if the present pass is no recomputation.

    It is none outside a backward pass, and none inside a function's backward pass whose forward pass ran no layer.
    The list is empty if the layer made no step that could be repeated.
    """
    if torch.compiler.is_compiling() or (torch._C._current_graph_task_id() == -1 and _top_hooks(True) is None):
        return None
    for frame in _stack():
        if _is_of_checkpoint(frame, "unpack_hook"):
            return _steps_of(frame.f_locals["frame"], layer)
        context = _context(frame, "backward")
        if context is not None:
            known = context in _kept or _is_of_checkpoint(frame, "backward")
            return _steps_of(context, layer) if known else None
    return None


def _steps_of(holder: Any, layer: nn.Module) -> list[Step]:
    return _kept[holder].get(layer, []) if holder in _kept else []


def _checkpoints(pack_hook: Any) -> Iterator[Any]:
    """Yield the checkpoint that a hook on saved tensors belongs to, if any, and those in the call stack."""
    code = getattr(pack_hook, "__code__", None)
    if code is not None and "frame" in code.co_freevars:
        yield pack_hook.__closure__[code.co_freevars.index("frame")].cell_contents
    for frame in _stack():
        if _is_of_checkpoint(frame) and "gen" in frame.f_code.co_varnames and "gen" in frame.f_locals:
            yield frame.f_locals["gen"].gi_frame.f_locals["new_frame"]


def _is_of_checkpoint(frame: FrameType, name: str | None = None) -> bool:
    return name in (None, frame.f_code.co_name) and frame.f_globals.get("__name__") == "torch.utils.checkpoint"


def _context(frame: FrameType, name: str) -> FunctionCtx | None:
    """Return the context of a `torch.autograd.Function` if a frame is its pass of this name, forward or backward."""
    code = frame.f_code
    if code.co_name != name or not code.co_argcount or code.co_varnames[0] == "self":
        return None
    context = frame.f_locals.get(code.co_varnames[0])
    return context if isinstance(context, FunctionCtx) else None


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(state: Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def _stack() -> Iterator[FrameType]:
    """Yield the frames of the call stack, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
