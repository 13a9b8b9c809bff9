"""The Triton kernels of Batch-Instance Normalization against the written formula in float64.

They run on a GPU with `--device cuda`, at realistic shapes too, and otherwise in Triton's interpreter.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from stochnorm.nn import batch_instance_norm, convert_batch_instance
from stochnorm.nn.batch_instance import _formula, _mix
from stochnorm.nn.cuda import batch_instance

pytestmark = pytest.mark.usefixtures("mixing")

ACTIVATIONS = {"none": None, "relu": nn.ReLU(), "relu6": nn.ReLU6(), "silu": nn.SiLU()}
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
SMALL = [(3, 5, 7, 6), (2, 64, 9, 9), (5, 3, 11), (1, 70, 5, 5), (3, 4, 2, 3, 5), (2, 1, 70, 70), (2, 1000, 1, 3)]
LARGE = [(48, 64, 112, 112), (48, 2048, 7, 7), (31, 24, 57, 57), (1000, 8, 4, 4)]


@pytest.fixture
def mixing(kernels: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lists the kernels that were launched."""
    from stochnorm.nn.cuda import launch_instances

    monkeypatch.setattr(batch_instance, "passes", lambda *arguments, **options: True)  # it has a test of its own
    called: list[str] = []
    for name in ("moments", "apply", "products", "gradient"):
        function = getattr(launch_instances, name)

        def spy(*arguments: object, name: str = name, function: object = function) -> object:
            called.append(name)
            return function(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(launch_instances, name, spy)
    return called


def ordered(tensor: Tensor, last: bool) -> Tensor:
    if not last:
        return tensor.contiguous()
    if tensor.dim() not in LAST:
        pytest.skip("channels_last has 4 or 5 dimensions")
    return tensor.contiguous(memory_format=LAST[tensor.dim()])


def check(
    shape: tuple[int, ...],
    last: bool,
    dtype: torch.dtype,
    activation: str,
    *,
    added: bool,
    affine: bool = True,
    training: bool = True,
) -> None:
    """Compare outputs, gradients and statistics with those of the formula in float64."""
    torch.manual_seed(0)
    c, act = shape[1], ACTIVATIONS[activation]
    x, residual, grad = (ordered(torch.randn(shape).to(dtype), last) for _ in range(3))
    tensors = {"x": x * 2 + 1, "weight": torch.randn(c), "bias": torch.randn(c), "rho": torch.rand(c)}
    tensors |= {"residual": residual} if added else {}
    for name in () if affine else ("weight", "bias"):
        del tensors[name]
    mean, var = torch.randn(c), torch.rand(c) + 0.5
    results = []
    for convert in (lambda tensor: tensor.clone(), lambda tensor: tensor.double()):
        leaves = {name: convert(tensor.detach()).requires_grad_() for name, tensor in tensors.items()}
        new_mean, new_var, batches = convert(mean), convert(var), torch.tensor(3)
        before = _mix(
            leaves["x"], new_mean, new_var, leaves.get("weight"), leaves.get("bias"), rho=leaves["rho"],
            training=training, momentum=None if training else 0.0, eps=1e-5, batches=batches if training else None,
            residual=leaves.get("residual"), activation=act,
        )  # fmt: skip
        results.append((before, leaves, new_mean, new_var, batches))
    (output, leaves, *_), (right, wide, *_) = results
    near = torch.minimum(right.abs(), (right - 6).abs()) < 0.05  # rounding decides about the derivative there
    grad = ordered(torch.where(near, 0, grad), last)
    assert output.dtype is dtype
    assert output.stride() == x.stride()
    pairs = {"output": (output, right)}
    ours = torch.autograd.grad(output, [*leaves.values()], grad)
    theirs = torch.autograd.grad(right, [*wide.values()], grad.double())
    pairs |= {name: pair for name, *pair in zip(leaves, ours, theirs, strict=True)}
    pairs |= {f"statistics {i}": (results[0][i], results[1][i]) for i in (2, 3, 4)}
    for name, (one, other) in pairs.items():
        tolerance = 1e-4 if one.dtype is not dtype or dtype is torch.float32 else 2 * torch.finfo(dtype).eps
        tolerance *= 10 if shape in LARGE else 1
        scale = other.double().abs().max() + 1e-3
        assert (one.double() - other.double()).abs().max() <= tolerance * scale, name


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", SMALL)
def test_outputs_gradients_and_statistics(
    shape: tuple[int, ...], last: bool, training: bool, mixing: list[str]
) -> None:
    check(shape, last, torch.float32, "relu", added=True, training=training)
    assert mixing == ["moments", "apply", "products", "gradient"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_and_residuals(activation: str, added: bool, dtype: torch.dtype) -> None:
    check((3, 5, 7, 6), True, dtype, activation, added=added, affine=not added)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", LARGE)
def test_realistic_shapes(shape: tuple[int, ...], last: bool) -> None:
    if torch.get_default_device().type != "cuda":
        pytest.skip("the interpreter is too slow")
    for dtype in (torch.float32, torch.bfloat16):
        check(shape, last, dtype, "relu", added=True)


@pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")  # of the interpreter
def test_infinity_stays_in_its_channel() -> None:
    x = torch.randn(2, 4, 3, 3)
    x[1, 2, 0, 0] = float("inf")
    y = batch_instance_norm(x, None, None, rho=torch.rand(4), training=True)
    assert y.isfinite().flatten(2).all(-1).tolist() == [[True, True, False, True]] * 2


def test_a_large_mean_costs_only_what_float32_cannot_hold() -> None:
    x = 1000 + 0.1 * torch.randn(4, 3, 8, 8)
    settings = {"rho": torch.rand(3), "training": True, "momentum": 0.1, "eps": 1e-5}
    right = _formula(x.double(), None, None, None, None, **(settings | {"rho": settings["rho"].double()}))
    ours = batch_instance_norm(x, None, None, rho=settings["rho"], training=True)
    assert (ours - right).abs().max() < 2 * (1000 * 2**-24) / 0.1


def test_gradients_of_the_second_order() -> None:
    x, rho, residual = torch.randn(2, 3, 3, 3), torch.rand(3), torch.randn(2, 3, 3, 3)
    found = []
    for dtype in (torch.float32, torch.float64):
        leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in (x, rho, residual)]
        y = _mix(
            leaves[0], None, None, None, None, rho=leaves[1], training=True, momentum=0.0, eps=1e-5,
            residual=leaves[2], activation=nn.SiLU(),
        )  # fmt: skip
        first = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        found.append([*first, *torch.autograd.grad(sum(g.square().sum() for g in first), leaves)])
    for ours, right in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), right, rtol=1e-3, atol=1e-3)


def test_saved_tensors_may_come_back_in_another_memory_order() -> None:
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    residual, rho = torch.randn(2, 3, 4, 5), torch.rand(3)
    gradients = []
    for pack in (lambda tensor: tensor, lambda tensor: tensor.contiguous()):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = _mix(
                x, None, None, None, None, rho=rho, training=True, momentum=0.0, eps=1e-5, residual=residual,
                activation=nn.SiLU(),
            )  # fmt: skip
        gradients += torch.autograd.grad(y.square().sum(), x)
    assert torch.equal(*gradients)


def test_a_layer_trains_through_the_kernels(mixing: list[str]) -> None:
    layer = convert_batch_instance(nn.BatchNorm2d(4))
    wide = copy.deepcopy(layer).double()
    x = torch.randn(3, 4, 5, 5)
    for module in (layer, wide):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            module(x.to(module.weight.dtype)).pow(3).sum().backward()
            optimizer.step()
    assert mixing.count("gradient") == 0  # the input needs none
    assert mixing.count("products") == 3
    for ours, right in zip(layer.state_dict().values(), wide.state_dict().values(), strict=True):
        torch.testing.assert_close(ours.double(), right.double(), rtol=1e-3, atol=1e-3)
    y = layer.eval()(x)
    torch.testing.assert_close(y.double(), wide.eval()(x.double()), rtol=1e-3, atol=1e-3)


def test_one_value_per_image_and_other_dtypes_are_left_to_pytorch(mixing: list[str]) -> None:
    for x in (torch.randn(4, 3, 1, 1), torch.randn(4, 3), torch.randn(4, 3, 2, 2).double(), torch.randn(1025, 3, 2, 1)):
        batch_instance_norm(x, None, None, rho=torch.rand(3, dtype=x.dtype), training=True)
    assert mixing == []


def test_the_kernels_agree_with_the_formula_as_the_guard_checks_it() -> None:
    x = torch.randn(2, 3, 4, 5)
    pairs = list(batch_instance.compare(x, True, True, True, 1, _formula, training=True))
    assert len(pairs) == 9
    assert all(batch_instance.trust.agree(ours, right) for ours, right in pairs)
