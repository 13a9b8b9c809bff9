"""What is around a CUDA graph: what waits for the device, and the state after a capture that failed.

Without a GPU the calls of `torch.cuda` are replaced. The last test captures on a GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from stochnorm.training import cuda_graph
from stochnorm.training.cuda_graph import CudaGraph


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Stands for `torch.cuda`, on whose current stream with number 3 the training runs."""
    cuda = Mock()
    cuda.current_stream.return_value.device_index = 0
    cuda.get_sync_debug_mode.return_value = 0
    cuda.stream.side_effect = lambda stream: nullcontext()
    fake = Mock(cuda=cuda)
    monkeypatch.setattr(cuda_graph, "torch", fake)
    cuda.torch = fake
    return cuda


def test_a_wait_is_found_and_other_warnings_are_passed_on(cuda: Mock) -> None:
    def run() -> None:
        assert cuda.set_sync_debug_mode.call_args.args == ("warn",)
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)
        warnings.warn("something else", UserWarning, stacklevel=1)

    graph = CudaGraph(Mock())
    with pytest.warns(UserWarning, match="something else") as passed:
        reason = graph.warm_up(run)
    assert len(passed) == 1
    assert reason.startswith(f"{__file__}:")
    assert graph.warm_up(lambda: None) == ""
    assert cuda.set_sync_debug_mode.call_args.args == (0,)


def test_after_a_failed_capture_stream_generator_and_allocator_are_as_before(cuda: Mock) -> None:
    @contextmanager
    def capturing(*_: Any, **options: Any) -> Iterator[None]:
        assert options == {"capture_error_mode": "thread_local"}
        try:
            yield
        finally:
            raise RuntimeError("cannot end the capture")

    cuda.graph.side_effect = capturing
    generator = Mock()
    cuda.default_generators = [generator]
    cuda.torch._C._cuda_endAllocateToPool.side_effect = RuntimeError("ended")  # by a PyTorch that does it itself
    graph = CudaGraph(Mock())
    with pytest.raises(RuntimeError, match="cannot end the capture"):
        graph.capture(lambda: 1 / 0)
    cuda.set_stream.assert_called_once_with(cuda.current_stream.return_value)
    generator.graphsafe_set_state.assert_called_once_with(generator.clone_state.return_value)
    cuda.torch._C._cuda_endAllocateToPool.assert_called_once_with(0, cuda.graph_pool_handle.return_value)
    cuda.CUDAGraph.return_value.reset.assert_called_once_with()


def test_a_graph_draws_and_computes_like_the_function(device: torch.device) -> None:
    """Also after another graph could not be captured, in the same process."""
    if device.type != "cuda":
        pytest.skip("needs a GPU")
    total, drawn = torch.zeros(4), torch.zeros(4)

    def run() -> None:
        drawn.copy_(torch.rand(4))
        total.add_(drawn)

    def wait(function: Callable[[], None] = run) -> None:
        function()
        float(total.sum())

    graph, failing = CudaGraph(device), CudaGraph(device)
    assert graph.warm_up(run) == ""
    assert __file__ in failing.warm_up(wait)
    with pytest.raises(RuntimeError):
        failing.capture(wait)
    before = total.clone()
    graph.capture(run)
    assert torch.equal(total, before)
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        graph.replay()
        torch.manual_seed(seed)
        assert torch.equal(drawn, torch.rand(4))
