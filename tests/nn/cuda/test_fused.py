"""The Triton kernels against the golden vectors and against the written formula in float64.

They run on a GPU with `--device cuda`, at realistic shapes too, and otherwise in Triton's interpreter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stochnorm.nn import StochNorm2d, stoch_norm
from stochnorm.nn.double_backward import formula
from stochnorm.nn.functional import frozen_norm, stoch_norm_

pytestmark = pytest.mark.usefixtures("kernels")

EPS = 1e-5
CASES = [
    "2d_p0.0", "2d_p0.5", "2d_p1.0", "1d_nc", "1d_ncl", "3d", "2d_noaffine", "2d_momentum0.001", "2d_single_image",
]  # fmt: skip
ACTIVATIONS = {"none": None, "relu": nn.ReLU(), "relu6": nn.ReLU6(), "silu": nn.SiLU()}
SMALL = [
    (2, 3), (37, 5), (5, 1000, 1), (9, 3, 1, 1), (3, 1, 4, 4), (1, 3, 5, 7), (2, 7, 11, 13), (7, 24, 5, 5),
    (2, 8, 8, 8), (2, 3, 3, 3, 3), (1, 2, 70, 70),
]  # fmt: skip
LARGE = [(48, 64, 112, 112), (48, 2048, 7, 7), (48, 256, 14, 14), (31, 24, 57, 57), (5, 3, 224, 224), (4096, 1000)]
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@pytest.fixture(params=["contiguous", "channels_last"])
def memory(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ordered(tensor: Tensor, memory: str) -> Tensor:
    if memory == "contiguous":
        return tensor.contiguous()
    if tensor.dim() not in LAST:
        pytest.skip("channels_last has 4 or 5 dimensions")
    return tensor.contiguous(memory_format=LAST[tensor.dim()])


def close(ours: Tensor, right: Tensor, dtype: torch.dtype, what: str, factor: float = 1.0) -> None:
    """Check for equality up to rounding on the scale of each channel's largest value."""
    assert ours.shape == right.shape, what
    axes = [axis for axis in range(right.dim()) if axis != 1] if right.dim() > 1 else [0]
    scale = right.double().abs().amax(axes, keepdim=True) + right.double().abs().max() * 1e-2 + 1e-3
    eps = {torch.float32: 4e-6}.get(dtype, 2 * torch.finfo(dtype).eps) * factor
    worst = ((ours.double() - right.double()).abs() / scale).max().item()
    assert worst <= eps, f"{what}: off by {worst:.1e} of the largest value, {eps:.1e} allowed"


def run(
    x: Tensor,
    memory: str,
    *,
    mask: Tensor | None = None,
    frozen: bool = False,
    affine: bool = True,
    activation: nn.Module | None = None,
    added: bool = False,
    momentum: float | None = 0.1,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return what the kernels compute beside what the formula gives in float64: outputs, gradients, statistics."""
    torch.manual_seed(1)
    c, dtype = x.size(1), x.dtype
    mean, var = torch.randn(c), torch.rand(c) + 0.5
    mask = torch.rand(c) < 0.5 if mask is None else mask
    grad = ordered(torch.randn(x.shape).to(dtype), memory)
    names = {"x": x, "weight": torch.randn(c), "bias": torch.randn(c), "residual": torch.randn(x.shape).to(dtype)}
    if not affine:
        del names["weight"], names["bias"]
    if not added:
        del names["residual"]
    ours = {k: (ordered(v, memory) if v.dim() > 1 else v).clone().requires_grad_() for k, v in names.items()}
    wide = {k: v.detach().double().requires_grad_() for k, v in names.items()}

    def tensors(of: dict[str, Tensor]) -> list[Any]:
        return [of.get(k) for k in ("weight", "bias", "residual")]

    weight, bias, residual = tensors(wide)
    right = formula(wide["x"], mean.double(), var.double(), weight, bias, None if frozen else mask, EPS)
    right = right if residual is None else right + residual
    if isinstance(activation, (nn.ReLU, nn.ReLU6)):  # rounding decides at the kinks
        grad = torch.where((right.abs() < 0.05) | ((right - 6).abs() < 0.05), 0, grad)
    grad = ordered(grad, memory)
    right = right if activation is None else activation(right)
    weight, bias, residual = tensors(ours)
    results: dict[str, tuple[Tensor, Tensor]] = {}
    if frozen:
        y = frozen_norm(ours["x"], mean, var, weight, bias, eps=EPS, residual=residual, activation=activation)
    else:
        m = x.numel() // c
        axes = [axis for axis in range(x.dim()) if axis != 1]
        batch_var, batch_mean = torch.var_mean(x.double(), axes, correction=0)
        batches = torch.tensor(3)
        rate = 1 / 4 if momentum is None else momentum
        expected = [mean.double().lerp(batch_mean, rate), var.double().lerp(batch_var * m / (m - 1), rate)]
        chosen = torch.where(mask, batch_mean, mean), torch.where(mask, batch_var, var)
        y, statistics = stoch_norm_(
            ours["x"], mean, var, weight, bias, use_batch=mask, momentum=momentum, eps=EPS, batches=batches,
            residual=residual, activation=activation,
        )  # fmt: skip
        assert batches.item() == 4
        results |= {"running_mean": (mean, expected[0]), "running_var": (var, expected[1])}
        results |= dict(
            zip(("mean", "var", "batch_mean"), zip(statistics, (*chosen, batch_mean), strict=True), strict=True)
        )
    assert y.dtype is dtype
    assert y.stride() == ours["x"].stride()
    gradients = torch.autograd.grad(y, list(ours.values()), grad)
    rights = torch.autograd.grad(right, list(wide.values()), grad.double())
    results["y"] = (y.detach(), right.detach())
    return results | {f"grad of {k}": pair for k, pair in zip(ours, zip(gradients, rights, strict=True), strict=True)}


def check(results: dict[str, tuple[Tensor, Tensor]], dtype: torch.dtype, factor: float = 1.0) -> None:
    for what, (ours, right) in results.items():
        close(ours, right, dtype if ours.dim() > 1 else torch.float32, what, factor)


@pytest.mark.parametrize("name", CASES)
def test_golden_vectors_in_float32(shared: Path, kernels: list[str], name: str, memory: str) -> None:
    settings = next(c for c in json.loads((shared / "golden/algorithm1.json").read_text()) if c["name"] == name)
    with np.load(shared / "golden/algorithm1.npz") as arrays:
        case = {key.split("/")[1]: torch.as_tensor(arrays[key]) for key in arrays if key.startswith(f"{name}/")}
    given = {k: v.float() if v.is_floating_point() else v for k, v in case.items()}
    x = ordered(given["x"], memory).requires_grad_()
    weight, bias = (given[k].requires_grad_() if settings["affine"] else None for k in ("weight", "bias"))
    y, mean, var = stoch_norm(
        x, given["running_mean"], given["running_var"], weight, bias, use_batch=given["use_batch"],
        momentum=settings["momentum"], eps=settings["eps"],
    )  # fmt: skip
    y.backward(given["grad_y"])
    assert set(kernels) == {"moments", "apply", "products", "gradient"}
    computed = {"y": y, "grad_x": x.grad, "new_running_mean": mean, "new_running_var": var}
    if weight is not None and bias is not None:
        computed |= {"grad_weight": weight.grad, "grad_bias": bias.grad}
    for key, value in computed.items():
        assert value is not None
        torch.testing.assert_close(
            value.double(), case[key], rtol=2e-5, atol=2e-5, msg=lambda m, key=key: f"{key}: {m}"
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_every_shape(shape: tuple[int, ...], dtype: torch.dtype, memory: str) -> None:
    check(run(torch.randn(shape).mul(2).add(0.5).to(dtype), memory), dtype)


def test_float16(memory: str) -> None:
    check(run(torch.randn(7, 24, 5, 5).half(), memory, activation=nn.SiLU(), added=True), torch.float16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_every_realistic_shape(device: torch.device, shape: tuple[int, ...], dtype: torch.dtype, memory: str) -> None:
    if device.type != "cuda":
        pytest.skip("takes too long in the interpreter")
    for activation in ACTIVATIONS.values():
        for added in (False, True):
            for frozen in (False, True):
                x = torch.randn(shape).mul(2).add(0.5).to(dtype)
                check(run(x, memory, activation=activation, added=added, frozen=frozen), dtype, 4)


@pytest.mark.parametrize("frozen", [False, True], ids=["stochastic", "frozen"])
@pytest.mark.parametrize("added", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_and_residual_in_the_same_passes(
    kernels: list[str], activation: str, added: bool, frozen: bool, memory: str
) -> None:
    x = torch.randn(3, 10, 6, 7) * 4
    check(run(x, memory, activation=ACTIVATIONS[activation], added=added, frozen=frozen), torch.float32)
    expected = ["apply", "products"] if frozen else ["moments", "apply", "products", "gradient"]
    assert kernels == expected


@pytest.mark.parametrize("activation", ["none", "silu"])
def test_without_scale_and_shift(activation: str, memory: str) -> None:
    check(run(torch.randn(4, 6, 5, 5), memory, affine=False, activation=ACTIVATIONS[activation]), torch.float32)


def test_no_momentum_is_the_cumulative_average(memory: str) -> None:
    check(run(torch.randn(4, 6, 5, 5), memory, momentum=None), torch.float32)


@pytest.mark.parametrize("value", [True, False])
def test_every_or_no_channel_by_its_batch(value: bool, memory: str) -> None:
    check(run(torch.randn(4, 6, 5, 5), memory, mask=torch.full((6,), value)), torch.float32)


def test_no_mask_is_batch_normalization(memory: str) -> None:
    x, norm = ordered(torch.randn(4, 6, 5, 5), memory).requires_grad_(), nn.BatchNorm2d(6)
    right = norm(x)
    mean, var = torch.zeros(6), torch.ones(6)
    y, _ = stoch_norm_(x, mean, var, norm.weight, norm.bias, use_batch=None, momentum=0.1, eps=norm.eps)
    grad = torch.randn_like(x)
    pairs = [(y, right), (mean, norm.running_mean), (var, norm.running_var)]
    inputs = (x, norm.weight, norm.bias)
    pairs += zip(torch.autograd.grad(y, inputs, grad), torch.autograd.grad(right, inputs, grad), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_digits_survive_a_mean_far_from_zero(memory: str) -> None:
    """Mean 1e4, deviation 1e-2, where the values of float32 lie 1e-3 apart."""
    x = (1e4 + 1e-2 * torch.randn(8, 3, 24, 24, dtype=torch.float64)).float()
    results = run(x, memory, mask=torch.ones(3, dtype=torch.bool))
    ours, right = results["mean"]
    assert (ours.double() - right).abs().max() <= 5e-4  # half the distance of two values
    ours, right = results["var"]
    torch.testing.assert_close(ours.double(), right, rtol=2e-3, atol=0)
    # The mean is rounded to float32; apart from that shift the output keeps its digits.
    ours, right = results["y"]
    shift = (ours.double() - right).mean((0, 2, 3), keepdim=True)
    assert ((ours.double() - right - shift).abs() / right.abs().amax((0, 2, 3), keepdim=True)).max() < 1e-3


def test_values_that_begin_with_a_constant(memory: str) -> None:
    """The first values of every share are far from the others: the shifted sums keep their digits."""
    x = torch.randn(2, 3, 40, 40)
    x[:, :, :3] = -1000
    check(run(x, memory, mask=torch.ones(3, dtype=torch.bool)), torch.float32, 4)


@pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")  # of the interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_infinity_and_nan_stay_in_their_channel(bad: float, dtype: torch.dtype, memory: str) -> None:
    x = torch.randn(3, 5, 6, 7).to(dtype)
    mask = torch.tensor([True, True, False, False, True])
    clean = run(x, memory, mask=mask)
    x[0, 1, 0, 0] = x[2, 3, 5, 6] = bad
    dirty = run(x, memory, mask=mask)
    good = [0, 2, 4]
    for what, (ours, _) in dirty.items():
        axis = 1 if ours.dim() > 1 else 0
        index = torch.tensor(good)
        assert torch.equal(ours.index_select(axis, index), clean[what][0].index_select(axis, index)), what
    y, grad = dirty["y"][0], dirty["grad of x"][0]
    assert not y[:, 1].isfinite().all()
    assert not y[2, 3, 5, 6].isfinite()  # by moving statistics, only the value itself
    assert y[:, 3].isfinite().sum() == y[:, 3].numel() - 1
    assert grad[:, 3].isfinite().all()  # it depends on no input


@pytest.mark.parametrize("needed", [("x",), ("weight",), ("bias",), ("x", "bias"), ("residual",)], ids=str)
@pytest.mark.parametrize("frozen", [False, True], ids=["stochastic", "frozen"])
def test_only_the_gradients_asked_for(needed: tuple[str, ...], frozen: bool) -> None:
    leaves = {"x": torch.randn(3, 4, 5, 5), "weight": torch.randn(4), "bias": torch.randn(4)}
    leaves["residual"] = torch.randn(3, 4, 5, 5)
    mean, var, grad, results = torch.randn(4), torch.rand(4) + 0.5, torch.randn(3, 4, 5, 5), []
    for asked in (needed, tuple(leaves)):
        given = {k: v.clone().requires_grad_(k in asked) for k, v in leaves.items()}
        options: dict[str, Any] = {"eps": EPS, "residual": given["residual"], "activation": nn.ReLU()}
        vectors = mean.clone(), var.clone(), given["weight"], given["bias"]
        if frozen:
            y = frozen_norm(given["x"], *vectors, **options)
        else:
            y, _ = stoch_norm_(given["x"], *vectors, use_batch=torch.arange(4) > 1, momentum=0.1, **options)
        results.append(torch.autograd.grad(y, [given[k] for k in needed], grad))
    for ours, right in zip(*results, strict=True):
        torch.testing.assert_close(ours, right)


def test_a_frozen_layer_without_learned_scale_takes_one_pass_backward(kernels: list[str]) -> None:
    x = torch.randn(3, 4, 5, 5, requires_grad=True)
    y = frozen_norm(x, torch.randn(4), torch.rand(4), torch.randn(4), torch.randn(4), eps=EPS, activation=nn.ReLU())
    y.sum().backward()
    assert kernels == ["apply", "gradient"]


@pytest.mark.parametrize("added", [False, True], ids=["alone", "residual"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("frozen", [False, True], ids=["stochastic", "frozen"])
def test_gradients_of_gradients(activation: str, added: bool, frozen: bool) -> None:
    """By autograd through the formula: its first gradients are the kernels'."""
    torch.manual_seed(0)
    shapes = [(3, 4, 2, 2), (4,), (4,), *([(3, 4, 2, 2)] if added else [])]
    leaves = [torch.randn(shape, requires_grad=True) for shape in shapes]
    mean, var, mask, grad = torch.randn(4), torch.rand(4) + 0.5, torch.arange(4) > 1, torch.randn(3, 4, 2, 2)

    def output(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None) -> Tensor:
        options: dict[str, Any] = {"eps": EPS, "residual": residual, "activation": ACTIVATIONS[activation]}
        if frozen:
            return frozen_norm(x, mean, var, weight, bias, **options)
        return stoch_norm_(x, mean.clone(), var.clone(), weight, bias, use_batch=mask, momentum=0.1, **options)[0]

    first = torch.autograd.grad(output(*leaves), leaves, grad)
    second = torch.autograd.grad(output(*leaves), leaves, grad, create_graph=True)
    for ours, right in zip(first, second, strict=True):
        torch.testing.assert_close(ours, right.detach(), rtol=1e-4, atol=1e-4)
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    right = formula(wide[0], mean.double(), var.double(), wide[1], wide[2], None if frozen else mask, EPS)
    right = (ACTIVATIONS[activation] or nn.Identity())(right + wide[3] if added else right)
    rights = torch.autograd.grad(right, wide, grad.double(), create_graph=True)
    loss = sum((g.square().sum() for g in second if g.requires_grad), torch.zeros(()))
    loss_right = sum((g.square().sum() for g in rights if g.requires_grad), torch.zeros((), dtype=torch.float64))
    for ours, expected in zip(
        torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(loss_right, wide, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(ours.double(), expected, rtol=2e-3, atol=2e-3)


def test_gradients_in_batches() -> None:
    x = torch.randn(3, 4, 2, 2, requires_grad=True)
    y, _ = stoch_norm_(
        x, torch.randn(4), torch.ones(4), None, None, use_batch=torch.arange(4) > 1, momentum=0.1, eps=EPS,
        activation=nn.SiLU(),
    )  # fmt: skip
    grads = torch.randn(5, 3, 4, 2, 2)
    (batched,) = torch.autograd.grad(y, x, grads, is_grads_batched=True, retain_graph=True)
    for ours, grad in zip(batched, grads, strict=True):
        torch.testing.assert_close(ours, torch.autograd.grad(y, x, grad, retain_graph=True)[0], rtol=1e-4, atol=1e-4)


def test_other_activations_run_behind() -> None:
    x, hooked = torch.randn(3, 4, 5, 5), nn.ReLU()
    seen = []
    hooked.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].min().item()))
    vectors = torch.zeros(4), torch.ones(4), None, None
    for activation in (nn.GELU(), hooked):
        y = frozen_norm(x, *vectors, eps=0.0, residual=x, activation=activation)
        torch.testing.assert_close(y, activation(2 * x))
    assert min(seen) < 0


def test_gradients_and_inputs_of_any_strides(memory: str) -> None:
    """Gaps, expanded gradients, and gradients in the other memory order."""
    x = torch.randn(3, 4, 5, 12)[..., ::2]
    mean, var = torch.randn(4), torch.rand(4) + 0.5
    other = torch.randn(3, 4, 5, 6)
    results = []
    for input, grad in (
        (x, ordered(other, "channels_last")),
        (ordered(x, memory), other.transpose(2, 3).contiguous().transpose(2, 3)),
    ):
        leaf = input.detach().requires_grad_()
        y = frozen_norm(leaf, mean, var, None, None, eps=EPS, residual=grad, activation=nn.SiLU())
        results.append([y.detach(), *torch.autograd.grad(y, leaf, grad)])
        (expanded,) = torch.autograd.grad(frozen_norm(leaf, mean, var, None, None, eps=EPS).sum(), leaf)
        torch.testing.assert_close(expanded, (var + EPS).rsqrt().view(-1, 1, 1).expand(x.shape))
    for ours, right in zip(*results, strict=True):
        torch.testing.assert_close(ours, right)


def test_saved_tensors_may_come_back_in_another_memory_order(memory: str) -> None:
    x, residual = (ordered(torch.randn(3, 4, 5, 6), memory).requires_grad_() for _ in range(2))
    mean, var, results = torch.randn(4), torch.rand(4) + 0.5, []
    other = {"contiguous": torch.channels_last, "channels_last": torch.contiguous_format}[memory]

    def reorder(saved: Tensor) -> Tensor:
        return saved.contiguous(memory_format=other) if saved.dim() == 4 else saved

    for unpack in (lambda saved: saved, reorder):
        with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, unpack):
            y, _ = stoch_norm_(
                x, mean.clone(), var.clone(), None, None, use_batch=torch.arange(4) > 1, momentum=0.1, eps=EPS,
                residual=residual, activation=nn.SiLU(),
            )  # fmt: skip
        results.append(torch.autograd.grad(y.square().sum(), (x, residual)))
    for ours, right in zip(*results, strict=True):
        assert torch.equal(ours, right)


def test_two_runs_give_the_same_bits(memory: str) -> None:
    x = torch.randn(4, 6, 9, 9)
    first, second = (run(x, memory, activation=nn.SiLU()) for _ in range(2))
    assert all(torch.equal(first[what][0], second[what][0]) for what in first)


def test_a_layer_trains_by_the_kernels(kernels: list[str]) -> None:
    layer = StochNorm2d(4)
    layer(torch.randn(3, 4, 5, 5, requires_grad=True)).square().sum().backward()
    assert kernels == ["moments", "apply", "products", "gradient"]
    assert int(layer.num_batches_tracked) == 1
    assert layer.weight.grad is not None


def test_what_the_kernels_do_not_compute_is_left_to_pytorch(kernels: list[str]) -> None:
    mask = torch.arange(4) > 1
    x = torch.randn(3, 4, 5, 5)
    for dtype, vectors in ((torch.float64, torch.float64), (torch.bfloat16, torch.bfloat16)):
        mean, var = torch.zeros(4, dtype=vectors), torch.ones(4, dtype=vectors)
        stoch_norm(x.to(dtype), mean, var, use_batch=mask)
    frozen_norm(x, torch.zeros(4), torch.ones(4), None, None, eps=EPS, residual=torch.randn(1, 4, 1, 1))
    torch.vmap(lambda x: frozen_norm(x, torch.zeros(4), torch.ones(4), None, None, eps=EPS))(x[None])
    assert kernels == []


def test_a_cuda_graph_repeats_forward_and_backward(device: torch.device, memory: str) -> None:
    if device.type != "cuda":
        pytest.skip("needs a GPU")
    layers = [StochNorm2d(64, momentum=momentum).train() for momentum in (0.1, None)]
    x, grad = (ordered(torch.randn(8, 64, 14, 14).bfloat16(), memory) for _ in range(2))
    x.requires_grad_()
    mask = torch.arange(64) % 2 == 0

    def step() -> list[Tensor]:
        results = []
        for layer in layers:
            y, _ = stoch_norm_(
                x, layer.running_mean, layer.running_var, layer.weight, layer.bias, use_batch=mask,
                momentum=layer.momentum, eps=layer.eps, batches=layer.num_batches_tracked, residual=x.detach(),
                activation=nn.ReLU(),
            )  # fmt: skip
            results += [y, *torch.autograd.grad(y, (x, layer.weight, layer.bias), grad)]
        return results

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    before = [{k: v.clone() for k, v in layer.state_dict().items()} for layer in layers]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(2):
        graph.replay()
    replayed = [*captured, *(v for layer in layers for v in layer.state_dict().values())]
    replayed = [tensor.clone() for tensor in replayed]
    for layer, state in zip(layers, before, strict=True):
        layer.load_state_dict(state)
    for _ in range(2):
        eager = step()
    eager += [v for layer in layers for v in layer.state_dict().values()]
    assert all(torch.equal(ours, right) for ours, right in zip(replayed, eager, strict=True))


def test_nothing_waits_for_the_gpu(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("needs a GPU")
    layer, x = StochNorm2d(64, momentum=None), torch.randn(8, 64, 14, 14)
    for mode in ("default", "error"):
        torch.cuda.set_sync_debug_mode(mode)
        try:
            layer(x).sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_more_values_than_an_int32_counts(device: torch.device, memory: str) -> None:
    if device.type != "cuda" or torch.cuda.mem_get_info()[0] < 40e9:
        pytest.skip("needs a GPU with 40 GB")
    x = torch.zeros(2**11 + 1, 64, 128, 128, dtype=torch.bfloat16)  # 2^31 + 2^20 values
    x = x.contiguous(memory_format=torch.channels_last) if memory == "channels_last" else x
    x[-1] = 2.0
    x.requires_grad_()
    y = frozen_norm(x, torch.zeros(64), torch.ones(64), None, None, eps=0.0, activation=nn.ReLU())
    assert y[-1].eq(2).all()
    assert not y[:-1].any()
    del y
    mean = torch.zeros(64)
    y, _ = stoch_norm_(
        x, mean, torch.ones(64), None, None, use_batch=torch.zeros(64, dtype=torch.bool), momentum=1.0, eps=0.0
    )
    torch.testing.assert_close(mean, torch.full((64,), 2 / (2**11 + 1)))
    y.backward(x.detach())
    assert x.grad is not None
    assert x.grad[-1].eq(2).all()
    assert not x.grad[:-1].any()
