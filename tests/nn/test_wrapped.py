"""Converted models inside the wrappers of several processes: DDP and FSDP2 train them as they are."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from processes import together
from stochnorm.nn import convert, set_p


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return convert(
        nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
            nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()),
            nn.Linear(128, 2),
        ),
        sync=True,
    )


def steps(model: nn.Module, x: Tensor, layers: nn.Module, masks: list[list[Tensor]] | None = None) -> list[Any]:
    """Two steps of SGD: losses, masks and moving statistics."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses, drawn = [], []
    stochastic = [layers[0][1], layers[1][1]]  # type: ignore[index]
    for step in range(2):
        for number, layer in enumerate(stochastic):
            layer._given = None if masks is None else masks[step][number]
        loss = model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        drawn.append([layer._last_step[0] for layer in stochastic])
    return [losses, drawn, [buffer.clone() for layer in stochastic for buffer in layer.buffers()]]


def wrapped(rank: int, wrapper: str) -> Any:
    x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    x = x.chunk(dist.get_world_size())[rank]
    model = network()
    torch.manual_seed(rank)
    if wrapper == "ddp":
        return steps(DistributedDataParallel(model), x, model)
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for block in model:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    answer = steps(model, x, model)
    set_p(model, 1.0)
    assert model(x).isfinite().all()
    return answer


@pytest.mark.parametrize(("wrapper", "size"), [("ddp", 2), ("fsdp", 1), ("fsdp", 2)])
def test_a_wrapped_model_takes_the_steps_of_one_process(wrapper: str, size: int, tmp_path: Path) -> None:
    answers = together(wrapped, tmp_path, wrapper, size=size)
    for answer in answers:
        assert isinstance(answer, list), answer
    masks, model = answers[0][1], copy.deepcopy(network())
    x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    losses, _, buffers = steps(model, x, model, masks)
    for number, loss in enumerate(losses):
        assert loss.isfinite()
        torch.testing.assert_close(torch.stack([a[0][number] for a in answers]).mean(), loss)
    for answer in answers:
        for drawn, expected in zip(answer[1], masks, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(drawn, expected, strict=True))
        for buffer, expected in zip(answer[2], buffers, strict=True):
            torch.testing.assert_close(buffer, expected)
        assert all(torch.equal(a, b) for a, b in zip(answer[2], answers[0][2], strict=True))
