"""The layer under torch.compile: the same function, one compilation whatever p, no graph break."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend

from stochnorm.nn import StochNorm2d, convert, restore, set_p, traced
from stochnorm.nn.functional import stoch_norm_
from stochnorm.nn.probability import draw_mask

pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture(autouse=True)
def _forget_compiled_code() -> None:
    torch.compiler.reset()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_traced_operations_are_algorithm_1(
    dtype: torch.dtype, affine: bool, memory_format: torch.memory_format
) -> None:
    vectors = torch.float32 if dtype is torch.bfloat16 else dtype
    x, grad = (torch.randn(4, 6, 5, 3).to(dtype).contiguous(memory_format=memory_format) for _ in range(2))
    state = torch.randn(6, dtype=vectors), torch.rand(6, dtype=vectors) + 0.5
    mask = torch.tensor([True, False, True, True, False, False])
    results = []
    for function, use_batch in ((stoch_norm_, mask), (traced.stoch_norm_, mask), (traced.stoch_norm_, mask.float())):
        weight = torch.linspace(0.5, 2, 6, dtype=vectors).requires_grad_() if affine else None
        bias = torch.linspace(-1, 1, 6, dtype=vectors).requires_grad_() if affine else None
        input, (mean, var) = x.clone().requires_grad_(), (tensor.clone() for tensor in state)
        output, statistics = function(input, mean, var, weight, bias, use_batch=use_batch, momentum=0.1, eps=1e-5)
        assert output.is_contiguous(memory_format=memory_format)
        leaves = [leaf for leaf in (input, weight, bias) if leaf is not None]
        results.append([output, mean, var, *statistics, *torch.autograd.grad(output, leaves, grad)])
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype is torch.bfloat16 else {"rtol": 1e-11, "atol": 1e-11}
    for expected, bools, numbers in zip(*results, strict=True):
        assert torch.equal(bools, numbers)
        assert bools.dtype == expected.dtype
        torch.testing.assert_close(bools, expected, **tolerance)


def test_the_traced_gradient_is_that_of_the_function() -> None:
    mask = torch.tensor([True, False])
    mean, var = torch.randn(2, dtype=torch.float64), torch.rand(2, dtype=torch.float64) + 0.5

    def function(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        moving = mean.clone(), var.clone()
        return traced.stoch_norm_(input, *moving, weight, bias, use_batch=mask, momentum=0.1, eps=1e-5)[0]

    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 2, 4), (2,), (2,))]
    torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("compiling", [True, False])
def test_masks_drawn_on_the_device_have_the_law_of_p(
    p: float, compiling: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    torch.manual_seed(0)
    mask = draw_mask(100_000, torch.tensor(p)).float()
    assert set(mask.tolist()) <= {0.0, 1.0}
    assert mask.mean().item() == pytest.approx(p, abs=0.006)


def test_twenty_values_of_p_are_one_compilation_without_a_break() -> None:
    counter = CompileCounter()
    model = convert(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8)), p=1.0)
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    x = torch.randn(4, 3, 6, 6)
    for step in range(21):
        set_p(model, 1 - step / 20)
        compiled(x)
    assert counter.frame_count == 1


def test_compiled_code_follows_p() -> None:
    """At 1 it is BatchNorm, at 0 inference; and p may change between forward and backward."""
    layer, x = StochNorm2d(8, p=1.0), torch.randn(4, 8, 5, 5) + 3
    counter = CompileCounterWithBackend("inductor")
    compiled = torch.compile(layer, backend=counter, fullgraph=True)
    for p in (1.0, 0.0):
        layer.p = p
        plain = copy.deepcopy(layer)
        input = x.clone().requires_grad_()
        output, expected = compiled(input), plain(x) if p else plain.eval()(x)
        torch.testing.assert_close(output, expected)
        layer.p = 0.5
        output.square().sum().backward()
        reference = x.clone().requires_grad_()
        restored = restore(copy.deepcopy(plain)).train(p == 1.0)
        restored(reference).square().sum().backward()
        torch.testing.assert_close(input.grad, reference.grad, rtol=1e-3, atol=1e-3)
    assert counter.frame_count == 1


def test_the_tensor_of_p_belongs_to_the_layer_but_not_to_its_state(device: torch.device) -> None:
    layer = StochNorm2d(4, p=0.3)
    tensor = layer._p_tensor
    assert tensor.device.type == device.type
    assert layer.state_dict().keys() == nn.BatchNorm2d(4).state_dict().keys()
    layer.half()
    layer.p = 0.1
    assert layer._p_tensor is tensor
    assert tensor == torch.tensor(0.1)  # float32, in place
    layer.to("meta")
    assert layer._p_tensor.device.type == "meta"
    layer.p = 0.7
    layer.to_empty(device=device)
    assert layer._p_tensor == torch.tensor(0.7)


def test_copies_pickles_and_earlier_pickles_have_a_tensor_of_their_own() -> None:
    layer = StochNorm2d(4, p=0.3)
    earlier = copy.deepcopy(layer)
    del earlier.__dict__["_p_tensor"]
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), pickle.loads(pickle.dumps(earlier))):  # noqa: S301
        twin.p = 0.9
        assert twin._p_tensor == torch.tensor(0.9)
        assert layer._p_tensor == torch.tensor(0.3)


def test_a_layer_made_in_inference_mode_follows_p() -> None:
    with torch.inference_mode():
        layer = StochNorm2d(4)
    layer.p = 0.25
    assert layer._p_tensor == 0.25


def test_restored_layers_keep_nothing() -> None:
    layer = nn.BatchNorm2d(4)
    before = set(vars(layer))
    restore(convert(layer))
    assert set(vars(layer)) == before


def test_a_shallow_copy_has_a_p_of_its_own() -> None:
    layer = StochNorm2d(3, p=0.3)
    twin = copy.copy(layer)
    twin.p = 0.9
    assert (layer._p_tensor, twin._p_tensor) == (torch.tensor(0.3), torch.tensor(0.9))


def test_a_compiled_cumulative_average_is_as_exact_as_the_statistics() -> None:
    layer = convert(nn.BatchNorm2d(3, momentum=None, dtype=torch.float64), p=0.5)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    batches = [torch.randn(4, 3, 2, 2, dtype=torch.float64) for _ in range(7)]
    for batch in batches:
        compiled(batch)
    expected = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(layer.running_mean, expected, rtol=0, atol=1e-14)
