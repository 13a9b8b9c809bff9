"""stoch_norm against the golden vectors of Algorithm 1 and against its own derivatives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stochnorm.nn import stoch_norm
from stochnorm.nn.functional import frozen_norm, stoch_norm_

pytestmark = pytest.mark.usefixtures("device")

CASES = [
    "2d_p0.0", "2d_p0.5", "2d_p1.0", "1d_nc", "1d_ncl", "3d", "2d_noaffine", "2d_momentum0.001", "2d_single_image",
]  # fmt: skip


def golden(shared: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    settings = next(c for c in json.loads((shared / "golden/algorithm1.json").read_text()) if c["name"] == name)
    arrays = np.load(shared / "golden/algorithm1.npz")
    prefix = f"{name}/"
    return settings, {
        key.removeprefix(prefix): torch.as_tensor(arrays[key]) for key in arrays if key.startswith(prefix)
    }


def test_every_golden_case_is_listed(shared: Path) -> None:
    assert [c["name"] for c in json.loads((shared / "golden/algorithm1.json").read_text())] == CASES


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("implementation")
def test_golden_outputs_gradients_and_statistics(shared: Path, name: str, memory_format: torch.memory_format) -> None:
    settings, case = golden(shared, name)
    if memory_format is torch.channels_last and case["x"].dim() != 4:
        pytest.skip("channels_last has 4 dimensions")
    x = case["x"].contiguous(memory_format=memory_format).requires_grad_()
    weight, bias = (case[key].requires_grad_() if settings["affine"] else None for key in ("weight", "bias"))
    y, mean, var = stoch_norm(
        x,
        case["running_mean"],
        case["running_var"],
        weight,
        bias,
        use_batch=case["use_batch"],
        momentum=settings["momentum"],
        eps=settings["eps"],
    )
    y.backward(case["grad_y"])
    expected = {"y": y, "grad_x": x.grad, "new_running_mean": mean, "new_running_var": var}
    if weight is not None and bias is not None:
        expected |= {"grad_weight": weight.grad, "grad_bias": bias.grad}
    for key, value in expected.items():
        torch.testing.assert_close(value, case[key], rtol=1e-12, atol=1e-12, msg=lambda m, key=key: f"{key}: {m}")


def arguments(shape: tuple[int, ...] = (4, 3, 2, 3)) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x, weight, bias, mean, var = (torch.randn(size, dtype=torch.float64) for size in (shape, *[(shape[1],)] * 4))
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), mean, var.abs() + 0.1


MASKS = {"p = 0": [False] * 3, "p = 0.5": [True, False, True], "p = 1": [True] * 3}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2), (4, 3, 2, 3), (2, 3, 2, 2, 2)])
@pytest.mark.usefixtures("implementation")
def test_gradcheck_and_gradgradcheck(mask: list[bool], shape: tuple[int, ...]) -> None:
    x, weight, bias, mean, var = arguments(shape)

    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return stoch_norm(x, mean, var, weight, bias, use_batch=torch.tensor(mask))[0]

    assert torch.autograd.gradcheck(function, (x, weight, bias))
    assert torch.autograd.gradgradcheck(function, (x, weight, bias))


@pytest.mark.usefixtures("implementation")
def test_the_function_changes_none_of_its_arguments() -> None:
    x, weight, bias, mean, var = arguments()
    before = [t.clone() for t in (x, weight, bias, mean, var)]
    y, new_mean, _ = stoch_norm(x, mean, var, weight, bias, use_batch=torch.tensor([True, False, True]))
    y.sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(before, (x, weight, bias, mean, var), strict=True))
    assert not torch.equal(new_mean, mean)


@pytest.mark.usefixtures("implementation")
def test_channels_by_moving_statistics_pass_no_gradient_through_the_statistics() -> None:
    x, weight, bias, mean, var = arguments()
    y = stoch_norm(x, mean, var, weight, bias, use_batch=torch.zeros(3, dtype=torch.bool))[0]
    (grad,) = torch.autograd.grad(y[0].sum(), x)
    assert grad[0].abs().min() > 0
    assert not grad[1:].any()  # one image does not see the others


@pytest.mark.usefixtures("implementation")
def test_only_the_gradients_asked_for_are_computed() -> None:
    x, weight, bias, mean, var = arguments()
    use_batch = torch.tensor([True, False, True])
    full = torch.autograd.grad(stoch_norm(x, mean, var, weight, bias, use_batch=use_batch)[0].square().sum(), weight)[0]
    frozen = stoch_norm(x.detach(), mean, var, weight, bias.detach(), use_batch=use_batch)[0]
    assert torch.equal(torch.autograd.grad(frozen.square().sum(), weight)[0], full)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.usefixtures("implementation")
def test_half_precision_computes_as_float32_and_returns_half(
    dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    x = torch.randn(8, 6, 5, 5).to(dtype, memory_format=memory_format).requires_grad_()
    mean, var, use_batch = torch.randn(6), torch.rand(6) + 0.5, torch.tensor([True, False] * 3)
    weight, bias, grad = torch.randn(6), torch.randn(6), torch.randn(8, 6, 5, 5).to(dtype)
    results = []
    for input in (x, x.detach().float().requires_grad_()):
        y, new_mean, new_var = stoch_norm(input, mean, var, weight, bias, use_batch=use_batch)
        y.backward(grad.to(y.dtype))
        assert y.dtype == input.dtype
        assert input.grad is not None
        for tensor in (y, input.grad):
            assert tensor.is_contiguous(memory_format=memory_format)
        results.append([y.detach(), new_mean, new_var, input.grad])
    resolution = torch.finfo(dtype).eps
    for half, full in zip(*results, strict=True):
        torch.testing.assert_close(half.float(), full, rtol=2 * resolution, atol=4 * resolution)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.usefixtures("implementation")
def test_strides_do_not_matter(dtype: torch.dtype, affine: bool) -> None:
    """Slices and transposed inputs and gradients, and vectors of the input's own half precision."""
    x, weight, bias, mean, var = (tensor.detach().to(dtype) for tensor in arguments((4, 3, 5, 1)))
    use_batch, grad = torch.tensor([True, False, True]), torch.randn(4, 3, 5, 1, dtype=dtype)
    strided = {
        "plain": (x, grad),
        "sliced": (torch.stack([x, x + 1], -1)[..., 0], torch.stack([grad, grad], 1)[:, 1]),
        "transposed": tuple(tensor.transpose(0, 2).contiguous().transpose(0, 2) for tensor in (x, grad)),
        "expanded": (x, grad[:1, :1, :1].expand(4, 3, 5, 1)),
    }
    results = {}
    for name, (input, upstream) in strided.items():
        input = input.detach().requires_grad_()
        vectors = [v.clone().requires_grad_() for v in (weight, bias)] if affine else [None, None]
        y, new_mean, new_var = stoch_norm(input, mean, var, *vectors, use_batch=use_batch)
        y.backward(upstream)
        results[name] = [y, new_mean, new_var, input.grad, *(v.grad for v in vectors if v is not None)]
    y = stoch_norm(x.requires_grad_(), mean, var, use_batch=use_batch)[0]
    y.backward(strided["expanded"][1].contiguous())
    tolerance = 4 * torch.finfo(dtype).eps
    for name in ("sliced", "transposed"):
        for theirs, plain in zip(results[name], results["plain"], strict=True):
            torch.testing.assert_close(theirs, plain, rtol=tolerance, atol=tolerance)
    if not affine:
        torch.testing.assert_close(results["expanded"][3], x.grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("scaled", "shifted"), [(True, False), (False, True)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.usefixtures("implementation")
def test_scale_and_shift_are_optional_one_by_one(
    memory_format: torch.memory_format, dtype: torch.dtype, scaled: bool, shifted: bool
) -> None:
    x, weight, bias, mean, var = (tensor.detach().to(dtype) for tensor in arguments((4, 3, 5, 2)))
    x = x.contiguous(memory_format=memory_format)
    use_batch, grad = torch.tensor([True, False, True]), torch.randn_like(x)

    def gradients(weight: Tensor | None, bias: Tensor | None) -> list[Tensor]:
        leaves = [leaf.clone().requires_grad_() for leaf in (x, weight, bias) if leaf is not None]
        vectors = iter(leaves[1:])
        given = [None if vector is None else next(vectors) for vector in (weight, bias)]
        y = stoch_norm(leaves[0], mean, var, *given, use_batch=use_batch)[0]
        return [y, *torch.autograd.grad(y, leaves, grad)]

    y, grad_x, grad_vector = gradients(weight if scaled else None, bias if shifted else None)
    full = gradients(weight if scaled else torch.ones_like(weight), bias if shifted else torch.zeros_like(bias))
    tolerance = 4 * torch.finfo(dtype).eps
    for ours, theirs in zip((y, grad_x, grad_vector), (*full[:2], full[2 if scaled else 3]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "shape", [(6, 3), (6, 3, 1), (6, 3, 4), (3, 3, 2, 3), (6, 3, 1, 1), (6, 1, 2, 2), (2, 3, 2, 3, 2)]
)
@pytest.mark.usefixtures("implementation")
def test_every_memory_order_gives_the_same(shape: tuple[int, ...]) -> None:
    """Channels first and last, of the input and of its gradient; vectors with gaps."""
    x, weight, bias, mean, var = (tensor.detach() for tensor in arguments(shape))
    use_batch, grad = (torch.arange(shape[1]) % 2).bool(), torch.randn_like(x)

    def last(tensor: Tensor) -> Tensor:
        return tensor.movedim(1, -1).contiguous().movedim(-1, 1)

    results = []
    for input, upstream in ((x, grad), (last(x), last(grad)), (x, last(grad)), (last(x), grad)):
        leaves = [leaf.clone().requires_grad_() for leaf in (input, weight, bias)]
        gaps = [torch.stack([leaf, leaf.detach()], 1)[:, 0] for leaf in leaves[1:]]
        y = stoch_norm(leaves[0], mean, var, *gaps, use_batch=use_batch)[0]
        results.append([y, *torch.autograd.grad(y, leaves, upstream)])
    for others in results[1:]:
        for ours, theirs in zip(others, results[0], strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.usefixtures("implementation")
def test_gradients_can_be_computed_in_batches() -> None:
    x, weight, bias, mean, var = arguments()
    y = stoch_norm(x, mean, var, weight, bias, use_batch=torch.tensor([True, False, True]))[0]
    grads = torch.randn(2, *y.shape, dtype=torch.float64)
    batched = torch.autograd.grad(y, (x, weight, bias), grads, is_grads_batched=True, retain_graph=True)
    for i, grad in enumerate(grads):
        for ours, theirs in zip(
            batched, torch.autograd.grad(y, (x, weight, bias), grad, retain_graph=True), strict=True
        ):
            torch.testing.assert_close(ours[i], theirs)


def test_wrong_arguments_are_named() -> None:
    x, mean, var = torch.randn(4, 3, 2, 2), torch.zeros(3), torch.ones(3)
    with pytest.raises(TypeError, match=r"use_batch must be a bool tensor.*float32"):
        stoch_norm(x, mean, var, use_batch=torch.ones(3))
    with pytest.raises(ValueError, match=r"use_batch must be of shape \(3,\), a value per channel, got \(2,\)"):
        stoch_norm(x, mean, var, use_batch=torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"weight must be of shape \(3,\)"):
        stoch_norm(x, mean, var, torch.ones(2), use_batch=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"use_batch must be on the device of the input, .*, got meta"):
        stoch_norm(x, torch.zeros(3), torch.ones(3), use_batch=torch.ones(3, dtype=torch.bool, device="meta"))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        stoch_norm(torch.randn(1, 3), mean, var, use_batch=torch.ones(3, dtype=torch.bool))


@pytest.mark.usefixtures("implementation")
def test_all_batch_statistics_is_batch_norm() -> None:
    x, weight, bias, mean, var = arguments()
    y, new_mean, new_var = stoch_norm(x, mean, var, weight, bias, use_batch=torch.ones(3, dtype=torch.bool))
    expected = F.batch_norm(x, mean, var, weight, bias, training=True)
    for ours, theirs in ((y, expected), (new_mean, mean), (new_var, var)):
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


@pytest.mark.usefixtures("implementation")
def test_no_mask_is_batch_norm() -> None:
    x, weight, bias, mean, var = arguments()
    batches = torch.tensor(1)
    y, _ = stoch_norm_(
        x, mean, var, weight, bias, use_batch=None, momentum=None, eps=1e-5, batches=batches, activation=nn.SiLU()
    )
    layer = nn.BatchNorm2d(3, momentum=None, dtype=torch.float64)
    _, _, _, *moving = arguments()
    layer.load_state_dict(
        {"weight": weight, "bias": bias, "running_mean": moving[0], "running_var": moving[1],
         "num_batches_tracked": torch.tensor(1)}
    )  # fmt: skip
    expected = F.silu(layer(x))
    pairs = ((y, expected), (mean, layer.running_mean), (var, layer.running_var), (batches, layer.num_batches_tracked))
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_the_cumulative_average_does_not_wait_for_the_device() -> None:
    """Reading a value from the device `meta` would raise."""
    vectors = [torch.ones(3, device="meta") for _ in range(4)]
    batches = torch.ones((), dtype=torch.int64, device="meta")
    mask = torch.ones(3, dtype=torch.bool, device="meta")
    x = torch.randn(4, 3, 2, 2, device="meta")
    y, _ = stoch_norm_(x, *vectors, use_batch=mask, momentum=None, eps=1e-5, batches=batches)
    assert y.shape == x.shape


@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.ReLU6(), nn.SiLU(), nn.GELU()], ids=str)
@pytest.mark.usefixtures("implementation")
def test_frozen_norm_is_batch_norm_in_eval_mode_then_sum_then_activation(activation: nn.Module | None) -> None:
    x, weight, bias, mean, var = arguments()
    residual, grad = torch.randn_like(x).requires_grad_(), torch.randn_like(x)
    y = frozen_norm(x, mean, var, weight, bias, eps=1e-3, residual=residual, activation=activation)
    expected = F.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-3) + residual
    expected = expected if activation is None else activation(expected)
    leaves = (x, weight, bias, residual)
    results = [(y, expected)]
    results += zip(torch.autograd.grad(y, leaves, grad), torch.autograd.grad(expected, leaves, grad), strict=True)
    for ours, theirs in results:
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.SiLU(), nn.GELU()], ids=str)
@pytest.mark.usefixtures("implementation")
def test_activation_and_residual_come_after_the_layer(activation: nn.Module) -> None:
    x, weight, bias, mean, var = arguments()
    residual, mask = torch.randn_like(x), torch.tensor([True, False, True])
    plain = stoch_norm(x, mean, var, weight, bias, use_batch=mask)[0]
    y, _ = stoch_norm_(
        x, mean, var, weight, bias, use_batch=mask, momentum=0.1, eps=1e-5, residual=residual, activation=activation
    )
    torch.testing.assert_close(y, activation(plain + residual))
