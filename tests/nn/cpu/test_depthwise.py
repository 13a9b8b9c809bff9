"""The depthwise kernel: that it is used, that it agrees with PyTorch's convolution, and what it leaves to it."""

from __future__ import annotations

import copy
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from stochnorm.nn.cpu import depthwise
from stochnorm.nn.cpu.accelerate import accelerate, accelerate_convolutions

needs_kernel = pytest.mark.skipif(depthwise.library is None, reason="the kernel was not built")

Calls = list[tuple[str, tuple[bool, ...]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Each call of the kernel: its direction, and for the backward one which gradients it was to write."""
    made: Calls = []
    for dtype, (forward, backward) in list(depthwise._functions.items()):

        def spy_forward(*arguments: object, run: Callable[..., None] = forward) -> None:
            made.append(("forward", ()))
            run(*arguments)

        def spy_backward(*arguments: object, run: Callable[..., None] = backward) -> None:
            made.append(("backward", tuple(address is not None for address in arguments[4:6])))
            run(*arguments)

        monkeypatch.setitem(depthwise._functions, dtype, (spy_forward, spy_backward))
    return made


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def last(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def conv(c: int, kernel: int | tuple[int, int], stride: int = 1, bias: bool = True, same: bool = False) -> nn.Conv2d:
    if same:
        return Conv2dSame(c, c, kernel, stride, groups=c, bias=bias)
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    return nn.Conv2d(c, c, kernel, stride, (sides[0] // 2, sides[1] // 2), groups=c, bias=bias)


def run(layer: nn.Conv2d, x: Tensor, grad: Tensor | None = None) -> list[Tensor]:
    """Output and all gradients, of an output gradient that is the same whenever it is called."""
    x = x.detach().requires_grad_()
    y = layer(x)
    if grad is None:
        grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return [y.detach(), *torch.autograd.grad(y, [x, *layer.parameters()], grad.to(y.dtype))]


def accelerated(layer: nn.Conv2d) -> nn.Conv2d:
    layer = copy.deepcopy(layer)
    assert accelerate(layer) == 1
    return layer


def assert_near(ours: list[Tensor], exact: list[Tensor], tolerance: float = 1e-5) -> None:
    """Compare relative to a tensor's largest value: a weight's gradient is a sum over the image, which may cancel."""
    for our, value in zip(ours, exact, strict=True):
        torch.testing.assert_close(our.double(), value.double(), rtol=0, atol=tolerance * float(value.abs().max()))


def relative_error(value: Tensor, exact: Tensor) -> float:
    return float((value.double() - exact.double()).norm() / exact.double().norm())


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("g++") is None, reason="no compiler")
def test_the_kernel_was_built_and_is_used(calls: Calls) -> None:
    assert depthwise.library is not None
    run(accelerated(conv(4, 3)), last(2, 4, 5, 5))
    assert calls == [("forward", ()), ("backward", (True, True))]


SHAPES = [(2, 16, 12, 12), (1, 5, 9, 7), (3, 33, 1, 2), (1, 70, 20, 23), (2, 3, 3, 40)]


@needs_kernel
@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 1, 2, 4, 7, (3, 5), (6, 1)])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_pytorchs_convolution(
    calls: Calls, shape: tuple[int, ...], kernel: int | tuple[int, int], stride: int, same: bool
) -> None:
    layer, x = conv(shape[1], kernel, stride, same=same), last(*shape)
    ours, exact = run(accelerated(layer), x), run(layer.double(), x.double())
    assert len(calls) == 2
    assert_near(ours, exact)
    assert ours[0].is_contiguous(memory_format=torch.channels_last)


@needs_kernel
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_any_padding(padding: int, stride: int) -> None:
    layer, x = nn.Conv2d(8, 8, 3, stride, padding, groups=8, bias=False), last(2, 8, 6, 5)
    assert_near(run(accelerated(layer), x), run(layer.double(), x.double()))


@needs_kernel
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_bfloat16_is_as_near_to_float32_as_pytorchs(kernel: int, stride: int, same: bool, autocast: bool) -> None:
    layer, x = conv(40, kernel, stride, same=same), last(4, 40, 14, 13)
    exact = run(layer.double(), x.double())
    layer = layer.float() if autocast else layer.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        x = x if autocast else x.bfloat16()
        stock, ours = run(layer, x), run(accelerated(layer), x)
    for our, value, reference in zip(ours, stock, exact, strict=True):
        assert our.dtype is value.dtype
        assert relative_error(our, reference) <= 1.5 * relative_error(value, reference) < 0.05


@needs_kernel
def test_bfloat16_rounds_the_float32_result() -> None:
    layer, x, grad = conv(20, 3).bfloat16(), last(3, 20, 9, 9).bfloat16(), torch.randn(3, 20, 9, 9).bfloat16()
    halves, floats = run(accelerated(layer), x, grad), run(accelerated(layer).float(), x.float(), grad.float())
    for half, single in zip(halves, floats, strict=True):
        torch.testing.assert_close(half, single.bfloat16(), rtol=0, atol=0)


@needs_kernel
def test_nan_and_infinity_stay_where_they_are() -> None:
    x = last(1, 2, 5, 5).bfloat16()
    x[0, 0, 0, 0], x[0, 1, 4, 4] = float("nan"), float("inf")
    y = accelerated(conv(2, 3).bfloat16())(x)
    assert y[0, 0, :2, :2].isnan().all()
    assert y[0, 1, 3:, 3:].isinf().all()
    assert int(y.isfinite().sum()) == 50 - 8


@needs_kernel
@pytest.mark.parametrize("images", [1, 4, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_any_number_of_threads_gives_the_same_to_rounding(images: int, stride: int) -> None:
    layer, x = accelerated(conv(70, 5, stride)), last(images, 70, 23, 21)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append(run(layer, x))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert_near(other, results[0])


@needs_kernel
def test_gradients_that_nobody_wants_are_not_computed(calls: Calls) -> None:
    layer, x = conv(6, 3), last(2, 6, 7, 7)
    wanted = run(layer, x)
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    frozen = accelerated(layer).requires_grad_(False)
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(frozen(leaf), leaf, grad)[0], wanted[1])
    first = accelerated(layer)
    first(x).backward(grad)
    torch.testing.assert_close([p.grad for p in first.parameters()], wanted[2:])
    with torch.no_grad():
        torch.testing.assert_close(first(x), wanted[0])
    assert calls == [
        *[("forward", ()), ("backward", (True, False))],
        *[("forward", ()), ("backward", (False, True))],
        ("forward", ()),
    ]


@needs_kernel
def test_gradients_of_any_strides() -> None:
    layer, x = conv(4, 3), last(2, 4, 6, 6)
    for grad in (torch.tensor(2.0).expand(2, 4, 6, 6), torch.randn(6, 6, 4, 2).permute(3, 2, 1, 0)):
        torch.testing.assert_close(run(accelerated(layer), x, grad), run(layer, x, grad))


@needs_kernel
@pytest.mark.parametrize("same", [False, True])
def test_second_derivatives_are_pytorchs(same: bool) -> None:
    layer, x = conv(4, 3, 2, same=same), last(2, 4, 7, 6)
    results = []
    for each in (layer, accelerated(layer)):
        leaf = x.clone().requires_grad_()
        grads = torch.autograd.grad((each(leaf) ** 2).sum(), [leaf, *each.parameters()], create_graph=True)
        results.append(torch.autograd.grad(sum((g**2).sum() for g in grads), [leaf, *each.parameters()]))
    assert_near(*map(list, results))


@needs_kernel
def test_batched_gradients_and_functional_transforms_go_through_autograd() -> None:
    layer = accelerated(conv(4, 3))
    x = last(2, 4, 5, 5).requires_grad_()
    y, grads = layer(x), torch.randn(3, 2, 4, 5, 5)
    batched = torch.autograd.grad(y, x, grads, retain_graph=True, is_grads_batched=True)[0]
    for each, grad in zip(batched, grads, strict=True):
        torch.testing.assert_close(each, torch.autograd.grad(y, x, grad, retain_graph=True)[0])
    wanted = torch.autograd.grad(y.sum(), x)[0]
    torch.testing.assert_close(torch.func.grad(lambda z: layer(z).sum())(x.detach()), wanted)


@needs_kernel
@pytest.mark.parametrize(
    "x",
    [
        torch.randn(2, 4, 5, 5),
        last(2, 4, 5, 5).double(),
        last(0, 4, 5, 5),
        torch.randn(4, 5, 5),
        last(2, 4, 5, 5)[..., 1:],
    ],
    ids=["contiguous", "float64", "empty", "no batch", "slice"],
)
def test_all_else_is_pytorchs(calls: Calls, x: Tensor) -> None:
    layer = conv(4, 3).to(x.dtype)
    torch.testing.assert_close(run(accelerated(layer), x), run(layer, x))
    assert not calls


@needs_kernel
def test_errors_are_pytorchs() -> None:
    with pytest.raises(RuntimeError, match="expected input"):
        accelerated(conv(4, 3))(last(2, 8, 5, 5))
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        accelerated(nn.Conv2d(4, 4, 3, groups=4))(last(2, 4, 2, 2))


@needs_kernel
def test_compiled_models_take_pytorchs(calls: Calls) -> None:
    layer, x = accelerated(conv(4, 3)), last(2, 4, 5, 5)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), F.conv2d(x, layer.weight, layer.bias, padding=1, groups=4))
    assert not calls


@needs_kernel
def test_a_layer_can_be_copied_and_pickled() -> None:
    x = last(2, 4, 7, 7)
    for layer in (accelerated(conv(4, 3)), accelerated(conv(4, 3, 2, same=True))):
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301
            assert type(other) is type(layer)
            torch.testing.assert_close(other(x), layer(x))


@needs_kernel
def test_a_networks_loss_and_gradients_are_pytorchs(calls: Calls) -> None:
    model = timm.create_model("tf_efficientnet_lite0", num_classes=5).to(memory_format=torch.channels_last)
    images, targets = last(4, 3, 64, 64), torch.arange(4)

    def loss_and_gradients() -> tuple[Tensor, list[Tensor]]:
        loss = F.cross_entropy(model(images), targets)
        return loss.detach(), list(torch.autograd.grad(loss, list(model.parameters())))

    loss, gradients = loss_and_gradients()
    assert accelerate_convolutions(model) == 16
    our_loss, our_gradients = loss_and_gradients()
    assert calls.count(("forward", ())) == calls.count(("backward", (True, True))) == 16
    torch.testing.assert_close(our_loss, loss, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(our_gradients, gradients, strict=True):
        if theirs.dim() > 1:  # some biases before a BatchNorm have none, but for rounding
            assert relative_error(ours, theirs) < 1e-4
