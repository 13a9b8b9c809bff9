"""A CUDA graph of a function, and a process that is still usable if it cannot be captured.

This has not run on a GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch

__all__ = ["CudaGraph"]


class CudaGraph:
    """Capture a function's CUDA work and replay it; see [stochnorm.training.captured.Graph][].

    Random numbers: the capture registers the device's default generator. At each replay the graph takes the generator's
    present seed and offset, so `torch.manual_seed` before a replay gives the random numbers that the function itself
    would draw.

    Args:
        device: The CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graph = torch.cuda.CUDAGraph()
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, run: Callable[[], None]) -> str:
        """Run the function on the stream of the capture, and return what waited for the device."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        found: list[str] = []
        with torch.cuda.stream(self._stream), _waits(found):
            run()
        current.wait_stream(self._stream)
        return "; ".join(dict.fromkeys(found))

    def capture(self, run: Callable[[], None]) -> None:
        """Record the function.

        Raises:
            RuntimeError: It cannot be captured.
        """
        current = torch.cuda.current_stream(self._device)
        number = current.device_index
        generator = torch.cuda.default_generators[number]
        before = generator.clone_state()
        try:
            # thread_local: threads that read images ahead may pin memory meanwhile.
            with torch.cuda.graph(self._graph, self._pool, self._stream, capture_error_mode="thread_local"):
                run()
        except BaseException:
            # torch.cuda.graph does not undo its own steps if the capture cannot be ended.
            torch.cuda.set_stream(current)
            generator.graphsafe_set_state(before)  # the old state still counts for the graph and refuses to draw
            with suppress(RuntimeError, AttributeError):
                torch._C._cuda_endAllocateToPool(number, self._pool)  # an error where PyTorch has done it
            self._release(number)
            raise

    def replay(self) -> None:
        """Launch the graph on the current stream."""
        self._graph.replay()

    def _release(self, device: int) -> None:
        """Reset the graph and give its memory back to the allocator, once.

        `reset` does this only if the capture was ended, which `pool` tells by raising an error or not. A second release
        would make each later attempt to empty the allocator's cache fail.
        """
        try:
            self._graph.pool()
            ended = True
        except RuntimeError:
            ended = False
        with suppress(RuntimeError):
            self._graph.reset()
        if not ended:
            with suppress(RuntimeError, AttributeError):  # an error if the capture failed before it took memory
                torch._C._cuda_releasePool(device, self._pool)


@contextmanager
def _waits(found: list[str]) -> Iterator[None]:
    """Append where PyTorch waits for the device: in a capture that is an error, and one that leaves much to undo."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    for warning in caught:
        text = str(warning.message)
        if "synchronizing CUDA operation" in text:
            found.append(f"{warning.filename}:{warning.lineno}")
        elif "Synchronization debug mode" not in text:  # PyTorch's word that the mode does not find everything
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
