"""A second pass with the masks and statistics of the first."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from stochnorm.nn import StochNorm2d, convert, set_p
from stochnorm.nn.hold import hold_statistics

pytestmark = pytest.mark.usefixtures("device")


def network(p: float | None) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    return model if p is None else convert(model, p=p)


@pytest.mark.parametrize("p", [None, 0.0, 0.5, 1.0])
def test_a_second_pass_repeats_the_first_and_updates_nothing(
    p: float | None, random_state: Callable[[], Tensor]
) -> None:
    model, x = network(p), torch.randn(4, 3, 8, 8)
    first = model(x)
    buffers = copy.deepcopy(dict(model.named_buffers()))
    state = random_state()
    with hold_statistics(model):
        second = model(x)
    assert torch.equal(first, second)
    assert torch.equal(state, random_state())
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert all(m.momentum == 0.1 for m in model if isinstance(m, nn.BatchNorm2d))


def test_the_second_pass_differentiates_the_same_function_at_other_weights() -> None:
    """The case of SAM: mask and moving statistics of the first pass, batch statistics of the second."""
    model, x = network(0.5), torch.randn(4, 3, 8, 8)
    before = [copy.deepcopy(m.state_dict()) for m in (model[1], model[4])]
    model(x)
    masks = [m._last_step[0] for m in (model[1], model[4])]
    with torch.no_grad():
        model[0].weight += 0.1
    with hold_statistics(model):
        output = model(x)

    def branch(
        layer: nn.BatchNorm2d, state: dict[str, torch.Tensor], mask: torch.Tensor, h: torch.Tensor
    ) -> torch.Tensor:
        var, mean = torch.var_mean(h, (0, 2, 3), correction=0)
        mean, var = torch.where(mask, mean, state["running_mean"]), torch.where(mask, var, state["running_var"])
        return (h - mean[:, None, None]) / (var + layer.eps).sqrt()[:, None, None]

    h = branch(model[1], before[0], masks[0], model[0](x)).relu()
    h = branch(model[4], before[1], masks[1], model[3](h))
    torch.testing.assert_close(output, h, rtol=1e-4, atol=1e-5)
    assert any(masks[0]) and not all(masks[0])


def test_without_a_pass_to_repeat_it_is_an_error() -> None:
    model = network(0.5)
    with hold_statistics(model), pytest.raises(RuntimeError, match="run a forward pass in training mode first"):
        model(torch.randn(4, 3, 8, 8))


def test_masks_are_drawn_again_afterwards() -> None:
    model, x = network(0.5), torch.randn(4, 3, 8, 8)
    first = model(x)
    with hold_statistics(model):
        model(x)
    assert not torch.equal(first, model(x))


def test_blocks_may_be_nested() -> None:
    model, x = network(0.5), torch.randn(4, 3, 8, 8)
    first = model(x)
    with hold_statistics(model):
        with hold_statistics(model):
            inner = model(x)
        outer = model(x)
    assert torch.equal(first, inner)
    assert torch.equal(first, outer)
    assert not any(m._held for m in (model[1], model[4]))


def test_a_pass_at_p_1_leaves_nothing_older_to_repeat() -> None:
    model, x = network(0.5), torch.randn(4, 3, 8, 8)
    model(x)
    set_p(model, 1.0)
    model(x)
    set_p(model, 0.5)
    with hold_statistics(model), pytest.raises(RuntimeError, match="it has none"):
        model(x)


def test_a_layer_that_runs_twice_in_a_pass_is_an_error() -> None:
    """Several passes are none, nor are parts of the model on their own."""
    layer = nn.BatchNorm1d(4)
    model = convert(nn.Sequential(layer, nn.Linear(4, 4), layer))
    x = torch.randn(8, 4)
    model(x)
    with (
        hold_statistics(model),
        pytest.raises(RuntimeError, match="runs twice in one forward pass: the mask of its first"),
    ):
        model(x)
    once = convert(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4)))
    once(x)
    with hold_statistics(once):
        assert torch.equal(once(x), once(x))
        assert torch.equal(once[0](x), once[0](x))
    assert not once._forward_hooks
    assert not once[0]._forward_pre_hooks


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks, where it gives up
def test_a_compiled_pass_leaves_nothing_to_repeat(request: pytest.FixtureRequest) -> None:
    model, x = network(0.5), torch.randn(4, 3, 8, 8)
    model(x)
    compiled = torch.compile(model, backend="eager")
    compiled(2 * x)
    request.addfinalizer(torch.compiler.reset)  # it gives up on layers that raise
    with hold_statistics(model), pytest.raises(RuntimeError, match=r"without torch\.compile, which keeps no steps"):
        compiled(2 * x)


def test_checkpointing_within_repeats_what_is_held() -> None:
    model, x = network(0.5), torch.randn(4, 3, 8, 8)
    first = model(x)
    with hold_statistics(model):
        second = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)
        second.sum().backward()
    assert torch.equal(first, second)


def test_the_mask_of_an_earlier_batch_is_not_repeated_by_copies_of_data_parallel() -> None:
    layer, x = StochNorm2d(8), torch.randn(4, 8, 3, 3)
    layer(x)
    with hold_statistics(layer):
        copies = [layer._replicate_for_data_parallel() for _ in range(2)]  # type: ignore[no-untyped-call]
        with pytest.raises(RuntimeError, match=r"the copies of nn\.DataParallel"):
            copies[1](x)
        assert layer(x).shape == x.shape
