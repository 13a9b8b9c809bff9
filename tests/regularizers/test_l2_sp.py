"""L2-SP against the written formula, and what its anchors follow."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from stochnorm.regularizers import L2SP, l2_sp

pytestmark = pytest.mark.usefixtures("device")


class Net(nn.Module):
    """A convolution, its normalization, a layer shared with itself, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 4)
        self.again = self.linear
        self.head = nn.Linear(4, 2)


@pytest.fixture
def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


def drift(model: nn.Module, by: float = 0.5) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by)


def tensors(*shapes: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def test_golden_value_and_gradient() -> None:
    w = [torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([[3.0]], requires_grad=True)]
    value = l2_sp(w, [torch.tensor([0.5, 0.0]), torch.tensor([[1.0]])])
    assert value.item() == 4.125  # (0.25 + 4 + 4) / 2
    assert [g.tolist() for g in torch.autograd.grad(value, w)] == [[0.5, 2.0], [[2.0]]]


def test_first_and_second_derivatives_are_those_of_the_formula() -> None:
    shapes = ((3, 4), (5,), (2, 2, 3))
    w, anchors = [t.requires_grad_() for t in tensors(*shapes)], tensors(*shapes, seed=1)
    written = torch.stack([((a - b) ** 2).sum() for a, b in zip(w, anchors, strict=True)]).sum() / 2
    value = l2_sp(w, anchors)
    torch.testing.assert_close(value, written)
    for ours, theirs in zip(torch.autograd.grad(value, w), torch.autograd.grad(written, w), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradgradcheck(lambda *w: l2_sp(w, anchors), w)


def test_a_million_values_add_up_without_loss() -> None:
    parameters, anchors = [torch.full((1000, 1000), 1.01)], [torch.ones(1000, 1000)]
    expected = 0.5e6 * float(parameters[0][0, 0].double() - 1) ** 2
    assert l2_sp(parameters, anchors).item() == pytest.approx(expected, rel=1e-6)


def test_bfloat16_parameters_keep_float32_anchors_and_get_bfloat16_gradients() -> None:
    layer = nn.Linear(3, 3).to(torch.bfloat16)
    regularizer = L2SP(layer, [], alpha=1.0)
    drift(layer)
    anchor = next(regularizer.buffers())
    value = regularizer()
    value.backward()
    assert anchor.dtype == value.dtype == torch.float32
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.bfloat16
    torch.testing.assert_close(layer.weight.grad.float(), layer.weight.float() - anchor, rtol=1e-2, atol=1e-2)


def test_the_penalty_is_the_formula_over_convolution_and_linear_weights(net: Net) -> None:
    regularizer = L2SP(net, [net.head], alpha=0.3, beta=0.2)
    start = copy.deepcopy(net)
    drift(net)
    value = regularizer()
    value.backward()
    held = [(net.conv.weight, start.conv.weight), (net.linear.weight, start.linear.weight)]
    squares = sum(((w - w0) ** 2).sum() for w, w0 in held)  # the shared layer once
    torch.testing.assert_close(value, 0.15 * squares + 0.1 * (net.head.weight**2).sum())
    for w, w0 in held:
        torch.testing.assert_close(w.grad, 0.3 * (w - w0))
    torch.testing.assert_close(net.head.weight.grad, 0.2 * net.head.weight)
    covered = {"conv.weight", "linear.weight", "head.weight"}
    assert {name for name, p in net.named_parameters() if p.grad is not None} == covered


def test_scope_all_covers_every_parameter_once(net: Net) -> None:
    regularizer = L2SP(net, [net.head], alpha=1.0, beta=1.0, scope="all")
    assert len(list(regularizer.buffers())) == 6  # of conv, norm and linear; weight and bias each
    drift(net, by=0.5)
    count = sum(p.numel() for module in (net.conv, net.norm, net.linear) for p in module.parameters())
    head = sum((p**2).sum() for p in net.head.parameters()) / 2
    torch.testing.assert_close(regularizer(), 0.125 * count + head)


def test_frozen_parameters_are_left_out(net: Net) -> None:
    net.conv.requires_grad_(False)
    assert list(L2SP(net, [net.head]).state_dict()) == ["anchor/linear/weight"]
    net.requires_grad_(False)
    with pytest.raises(ValueError, match=r"found nothing to hold.*Net has no parameter that requires a gradient"):
        L2SP(net, [net.head])


def test_the_penalty_is_zero_at_the_start_whatever_the_dtype(net: Net) -> None:
    drift(net.double(), by=0.1)  # values that float32 does not hold
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        assert L2SP(net.to(dtype), [net.head], beta=0.0)().item() == 0


def test_anchors_stay_while_the_model_trains(net: Net) -> None:
    regularizer = L2SP(net, [net.head])
    before = {key: value.clone() for key, value in regularizer.state_dict().items()}
    optimizer = torch.optim.SGD([*net.parameters(), *regularizer.parameters()], lr=0.1)
    drift(net)
    first = regularizer()
    first.backward()
    optimizer.step()
    assert regularizer() < first
    assert all(torch.equal(before[key], value) for key, value in regularizer.state_dict().items())


def test_parameters_that_are_replaced_are_followed(net: Net) -> None:
    regularizer = L2SP(net, net.head, alpha=2.0, beta=0.0)
    moved = {name: tensor + 1.0 if tensor.is_floating_point() else tensor for name, tensor in net.state_dict().items()}
    net.load_state_dict(moved, assign=True)
    held = net.conv.weight.numel() + net.linear.weight.numel()
    assert regularizer().item() == pytest.approx(held, rel=1e-5)


def test_parametrized_weights_are_weights(net: Net) -> None:
    torch.nn.utils.parametrizations.weight_norm(net.conv)
    assert {name for name, _ in L2SP(net, net.head).named_buffers()} == {
        f"anchor/conv/parametrizations/weight/original{i}" for i in (0, 1)
    } | {"anchor/linear/weight"}


def test_the_head_is_added_up_in_float32(net: Net) -> None:
    net.to(torch.bfloat16)
    weight = net.head.weight.data.fill_(1.0078125)
    expected = weight.float().square().sum() / 2
    assert L2SP(net, net.head, alpha=0.0, beta=1.0)() == expected
    assert expected != expected.to(torch.bfloat16)


def test_the_model_is_no_child(net: Net) -> None:
    regularizer = L2SP(net, [net.head])
    assert not list(regularizer.parameters())
    assert list(regularizer.modules()) == [regularizer]
    regularizer.double()
    assert net.conv.weight.dtype == torch.float32
    assert {buffer.dtype for buffer in regularizer.buffers()} == {torch.float64}


def test_anchors_travel_in_the_state_dict(net: Net) -> None:
    state = L2SP(net, [net.head], beta=0.0).state_dict()
    assert list(state) == ["anchor/conv/weight", "anchor/linear/weight"]
    drift(net)
    resumed = L2SP(net, [net.head], beta=0.0)
    assert resumed().item() == 0
    resumed.load_state_dict(state)
    torch.testing.assert_close(resumed().item(), 0.05 * 0.25 * (net.conv.weight.numel() + net.linear.weight.numel()))


def test_a_backbone_without_its_head_is_held_as_well(net: Net) -> None:
    head = nn.Linear(4, 2)
    whole = nn.Sequential(net.conv, head)
    penalties = [L2SP(model, [head], alpha=1.0, beta=1.0) for model in (whole, net.conv)]
    drift(whole)
    torch.testing.assert_close(penalties[0](), penalties[1]())


def test_wrong_arguments_are_named(net: Net) -> None:
    with pytest.raises(ValueError, match="scope must be one of weights, all, got 'every'"):
        L2SP(net, [net.head], scope="every")
    with pytest.raises(ValueError, match="got alpha=-1 and beta=0"):
        L2SP(net, [net.head], alpha=-1, beta=0)
    with pytest.raises(ValueError, match="got 1 parameters and 2 anchors"):
        l2_sp([torch.ones(2)], [torch.ones(2)] * 2)
    with pytest.raises(ValueError, match="got 0 parameters"):
        l2_sp([], [])
    with pytest.raises(ValueError, match=r"got \(1,\) for a parameter of shape \(2,\)"):  # not broadcast
        l2_sp([torch.ones(2)], [torch.ones(1)])
