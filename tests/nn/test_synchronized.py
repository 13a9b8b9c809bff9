"""StochNorm over several processes: the function of the whole batch, in each of them."""

from __future__ import annotations

import copy
import os
import pickle
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from processes import together
from stochnorm.nn import StochNorm2d, aten, convert, freeze, hold_statistics, restore, set_p
from stochnorm.nn.masks import JointMasks

SPLITS = {"equal": (4, 4), "unequal": (5, 3), "one value": (7, 1), "empty": (8, 0)}


def layer(p: float = 0.5, *, dtype: torch.dtype = torch.float64, **options: Any) -> StochNorm2d:
    torch.manual_seed(3)
    made = StochNorm2d(6, p=p, dtype=dtype, **options)
    with torch.no_grad():
        for tensor in (*made.parameters(), made.running_mean, made.running_var):
            tensor.uniform_(0.5, 2)
    return convert(made, p=p, sync=True)


def data(split: str, step: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    torch.manual_seed(10 + step)
    size = (8, 6, 1, 1) if split == "one value" else (8, 6, 3, 2)
    return (1e2 + 3 * torch.randn(size, dtype=dtype)), torch.randn(size, dtype=dtype)


def train(rank: int, gpu: bool) -> dict[str, Any]:
    """Two steps for each split and p: this process's outputs, gradients, buffers and masks."""
    if gpu:  # the code for GPUs, with the kernels that only GPUs have written out
        written_out = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
        for name in ("batch_norm_elemt", "batch_norm_backward_reduce", "batch_norm_backward_elemt"):
            setattr(torch, name, written_out[f"_{name}"])
        aten.on_gpu = lambda input: input.numel() > 0
    results = {}
    for split, sizes in SPLITS.items():
        for p, momentum in ((0.5, 0.1), (0.5, None), (1.0, 0.1)):
            module, steps = layer(p, momentum=momentum), []
            for step in range(2):
                x, grad = (part.split(sizes)[rank].clone() for part in data(split, step))
                x.requires_grad_()
                torch.manual_seed(100 * step + rank)  # each process has its own numbers
                y = module(x)
                grads = torch.autograd.grad(y, [x, *module.parameters()], grad)
                assert module._last_step is not None
                steps.append([module._last_step[0], y.detach(), *grads, *(b.clone() for b in module.buffers())])
            results[split, p, momentum] = steps
    return results


@pytest.mark.parametrize("gpu", [False, True])
def test_two_processes_of_a_half_are_one_of_the_whole_batch(gpu: bool, tmp_path: Path) -> None:
    first, second = together(train, tmp_path, gpu)
    assert isinstance(first, dict), first
    assert isinstance(second, dict), second
    assert len(first) == 12
    masks = []
    for case, steps in first.items():
        split, p, momentum = case
        whole = convert(layer(p, momentum=momentum), p=p, sync=False)
        for step, (ours, theirs) in enumerate(zip(steps, second[case], strict=True)):
            x, grad = data(split, step)
            x.requires_grad_()
            whole._given = ours[0]
            y = whole(x)
            grads = torch.autograd.grad(y, [x, *whole.parameters()], grad)
            masks += ours[0].tolist() if p == 0.5 else []
            assert torch.equal(ours[0], theirs[0])
            expected = [y.detach(), *grads, *whole.buffers()]
            both = [torch.cat([a, b]) for a, b in zip(ours[1:3], theirs[1:3], strict=True)]
            both += [a + b for a, b in zip(ours[3:5], theirs[3:5], strict=True)]  # DDP averages: half of the sum
            for got, want in zip([*both, *ours[5:]], expected, strict=True):
                torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
            assert all(torch.equal(a, b) for a, b in zip(ours[5:], theirs[5:], strict=True))
    assert {True, False} == set(masks)


def second_passes(rank: int) -> list[Any]:
    """Repeat a step inside hold_statistics, by checkpointing, with given masks; and in half precision."""
    answers = []
    torch.manual_seed(rank)
    x = torch.randn(4, 6, 3, 3, dtype=torch.float64) + rank
    model = nn.Sequential(nn.Conv2d(6, 6, 1, dtype=torch.float64), layer())
    for parameter in model.parameters():
        dist.broadcast(parameter.data, 0)
    first = model(x)
    with hold_statistics(model):
        answers.append(torch.equal(model(x), first))
    results = []
    for reentrant in (None, True, False):
        twin, input = copy.deepcopy(model), x.clone().requires_grad_()
        torch.manual_seed(5 + rank)
        output = twin(input) if reentrant is None else checkpoint(twin, input, use_reentrant=reentrant)
        output.square().sum().backward()
        results.append([input.grad, *(p.grad for p in twin.parameters()), *twin.buffers()])
    answers += [all(torch.allclose(a, b) for a, b in zip(results[0], other, strict=True)) for other in results[1:]]
    masks = JointMasks(model)
    masks.draw()
    model(x)
    answers.append(model[1]._last_step[0])
    half, input = layer(dtype=torch.float32), x.bfloat16().requires_grad_()
    y = half(input)
    y.sum().backward()
    assert input.grad is not None
    answers.append({y.dtype, input.grad.dtype} == {torch.bfloat16} and half.running_mean.dtype == torch.float32)
    group = dist.new_group([0])
    try:
        alone = convert(nn.BatchNorm2d(6), sync=True, process_group=group)
        alone(x.float())
        answers.append("a group of one")
    except RuntimeError as error:
        answers.append(str(error))
    return answers


def test_second_passes_given_masks_and_half_precision(tmp_path: Path) -> None:
    first, second = together(second_passes, tmp_path)
    assert isinstance(first, list), first
    assert isinstance(second, list), second
    for answers in (first, second):
        assert answers[:3] == [True, True, True]
        assert answers[4] is True
    assert torch.equal(first[3], second[3])
    assert first[5] == "a group of one"
    assert "which is not in the layer's process group" in second[5]


def leave(rank: int) -> str:
    if rank == 1:
        os._exit(1)
    module = layer()
    try:
        module(torch.randn(4, 6, 2, 2, dtype=torch.float64))
    except RuntimeError as error:
        return f"it said: {error}"
    return "it went on"


def test_the_death_of_a_process_is_an_error_in_the_other(tmp_path: Path) -> None:
    first, second = together(leave, tmp_path, seconds=15, wait=60)
    assert second is None
    assert isinstance(first, str)
    assert first.startswith("it said: "), first


def test_in_a_single_process_it_is_the_layer_bit_for_bit() -> None:
    plain = convert(layer(), sync=False)
    twin = copy.deepcopy(plain)
    assert convert(twin, sync=True) is twin
    x, outputs = torch.randn(4, 6, 3, 3, dtype=torch.float64), []
    for module in (plain, twin):
        torch.manual_seed(0)
        outputs.append(module(x))
    assert torch.equal(*outputs)
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), twin.buffers(), strict=True))


def test_the_layer_says_that_it_is_synchronized_and_keeps_it() -> None:
    model = convert(nn.Sequential(nn.BatchNorm2d(3)), sync=True)
    assert repr(model[0]).endswith("p=0.5, sync=True)")
    convert(model, p=0.9)
    for twin in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        assert repr(twin[0]).endswith("p=0.9, sync=True)")
    convert(model, sync=False)
    assert "sync" not in repr(model[0])
    assert (
        restore(convert(model, sync=True)).state_dict().keys() == nn.Sequential(nn.BatchNorm2d(3)).state_dict().keys()
    )
    assert "_sync" not in vars(model[0])
    assert "_sync" not in vars(freeze(convert(model, sync=True))[0])


def test_a_process_group_without_sync_is_an_error() -> None:
    with pytest.raises(ValueError, match="process_group needs sync=True, got sync=None; pass sync=True"):
        convert(nn.BatchNorm2d(3), process_group=object())  # type: ignore[arg-type]


def test_a_group_of_its_own_is_copied_and_not_pickled() -> None:
    module = convert(nn.BatchNorm2d(3), sync=True, process_group=object())  # type: ignore[arg-type]
    assert copy.deepcopy(module)._sync is module._sync
    with pytest.raises(TypeError, match="synchronized over a process group of its own"):
        pickle.dumps(module)


def compiled(rank: int) -> list[Any]:
    model = nn.Sequential(nn.ReLU(), layer(dtype=torch.float32), nn.ReLU())
    function = torch.compile(model, backend="aot_eager")
    x = torch.randn(4, 6, 3, 3, requires_grad=True)
    with torch.no_grad():
        x += rank
    y = function(x)
    y.sum().backward()
    set_p(model, 1.0)
    function(x)
    assert x.grad is not None
    return [*model.buffers(), x.grad.isfinite().all(), y.detach()]


def test_compiled_it_breaks_the_graph_and_stays_synchronized(tmp_path: Path) -> None:
    first, second = together(compiled, tmp_path)
    assert isinstance(first, list), first
    assert isinstance(second, list), second
    assert all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))
    assert first[2] == 2
    assert first[3]
    assert second[3]
    assert not torch.equal(first[4], second[4])
