"""What a CUDA graph does, on the CPU: a list of operations that is repeated on the same tensors.

While the function runs, a dispatch mode writes down each ATen operation, also those of backward and of the optimizer,
with its arguments and results. A replay calls the same operations on the same tensors, and copies what they return into
the tensors that they returned before. As in a graph, numbers keep the values that they had, random numbers are drawn
again, and Python does not run. Reading a value on the host raises.

A CUDA graph's capture computes nothing, but a tape's does. So the tensors that the test names are put back afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

_READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default, torch.ops.aten.nonzero.default}


class Reads(TorchDispatchMode):
    """Count the operations that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS:
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, tree_flatten(result)[0]))
        return result


class Tape:
    """Stands where a CUDA graph does, see `stochnorm.training.captured.Graph`.

    Args:
        state: Returns the tensors that a step changes; None among them are left out.
    """

    def __init__(self, state: Callable[[], Sequence[Tensor | None]]) -> None:
        self.state = state
        self.calls: list[tuple[Any, Any, Any, list[Any]]] = []
        self.warm_ups = self.captures = self.replays = 0

    def warm_up(self, run: Callable[[], None]) -> str:
        self.warm_ups += 1
        with Reads() as reads:
            run()
        return "; ".join(dict.fromkeys(reads.names))

    def capture(self, run: Callable[[], None]) -> None:
        self.captures += 1
        tensors = [tensor for tensor in self.state() if tensor is not None]
        before, random = [tensor.detach().clone() for tensor in tensors], torch.get_rng_state()
        try:
            with _Recorder() as recorder:
                run()
        finally:
            with torch.no_grad():
                for tensor, value in zip(tensors, before, strict=True):
                    tensor.copy_(value)
            torch.set_rng_state(random)
        self.calls = recorder.calls

    @torch.no_grad()
    def replay(self) -> None:
        assert self.calls, "nothing was recorded"
        self.replays += 1
        for func, args, kwargs, results in self.calls:
            for before, now in zip(results, tree_flatten(func(*args, **kwargs))[0], strict=True):
                if isinstance(before, Tensor) and before.data_ptr() != now.data_ptr():
                    before.copy_(now)
