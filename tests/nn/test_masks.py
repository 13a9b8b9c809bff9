"""The masks of all layers, drawn in one call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stochnorm.nn import StochNorm1d, convert, hold_statistics, set_p
from stochnorm.nn.fusion.one_pass import normalize
from stochnorm.nn.masks import JointMasks

pytestmark = pytest.mark.usefixtures("device")


def network() -> nn.Sequential:
    return convert(nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 8), nn.BatchNorm1d(8)))


def last_masks(model: nn.Module) -> Tensor:
    return torch.cat([layer._last_step[0] for layer in model.modules() if isinstance(layer, StochNorm1d)])  # type: ignore[index]


def test_each_layer_takes_its_part() -> None:
    model, x = network(), torch.randn(8, 6)
    masks = JointMasks(model)
    seen = set()
    for _ in range(20):
        masks.draw()
        expected = masks.flat.clone()
        model(x)
        assert torch.equal(last_masks(model), expected)
        seen.add(tuple(expected.tolist()))
    assert len(seen) > 15


def test_one_call_draws_with_the_p_of_each_layer() -> None:
    model = nn.Sequential(
        StochNorm1d(20_000, p=0.2), StochNorm1d(20_000, p=0.9), StochNorm1d(100, p=0), StochNorm1d(50, p=1)
    )
    torch.manual_seed(0)
    masks = JointMasks(model)
    masks.draw()
    shares = [part.float().mean().item() for part in masks.flat.split([20_000, 20_000, 100, 50])]
    assert shares == pytest.approx([0.2, 0.9, 0.0, 1.0], abs=0.015)
    assert shares[2:] == [0.0, 1.0]


def test_update_takes_a_new_p_in_place() -> None:
    model = network()
    masks = JointMasks(model)
    tensor, flat = masks.p, masks.flat
    set_p(model, 1.0)
    assert masks.p.tolist() == [0.5] * 14
    masks.update()
    masks.draw()
    assert masks.p is tensor
    assert masks.flat is flat
    assert tensor.tolist() == [1.0] * 14
    assert flat.all()


def test_a_layer_with_a_given_mask_draws_nothing(random_state: Callable[[], Tensor]) -> None:
    model = network()
    masks = JointMasks(model)
    masks.draw()
    state = random_state()
    model(torch.randn(8, 6, generator=torch.Generator(torch.get_default_device()).manual_seed(0)))
    assert torch.equal(random_state(), state)


def test_a_second_run_in_a_pass_draws_by_itself(random_state: Callable[[], Tensor]) -> None:
    layer = StochNorm1d(64)
    masks = JointMasks(layer)
    masks.draw()
    x = torch.randn(8, 64)
    state = random_state()
    layer(x)
    assert torch.equal(random_state(), state)
    layer(x)
    assert not torch.equal(random_state(), state)
    assert not torch.equal(last_masks(layer), masks.flat)


def test_a_given_mask_is_used_at_p_1_too() -> None:
    """The mask is drawn on the device, so the layer cannot know that it is all True."""
    layer, plain = StochNorm1d(5, p=1.0), nn.BatchNorm1d(5)
    masks = JointMasks(layer)
    masks.draw()
    x = torch.randn(8, 5)
    torch.testing.assert_close(layer(x), plain(x))
    assert layer._last_step is not None


def test_evaluation_leaves_the_masks_for_training() -> None:
    model, x = network(), torch.randn(8, 6)
    masks = JointMasks(model)
    masks.draw()
    model.eval()(x)
    model.train()(x)
    assert torch.equal(last_masks(model), masks.flat)


def test_hold_statistics_repeats_given_masks() -> None:
    model, x = network(), torch.randn(8, 6)
    masks = JointMasks(model)
    masks.draw()
    first = model(x)
    with hold_statistics(model):
        assert torch.equal(model(x), first)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_recomputes_with_given_masks_and_the_same_dropout(use_reentrant: bool) -> None:
    results = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(*network(), nn.Dropout(), nn.Linear(8, 2))
        x = torch.randn(8, 6, requires_grad=True)
        JointMasks(model).draw()
        output = checkpoint(model, x, use_reentrant=use_reentrant) if checkpointed else model(x)
        output.square().sum().backward()
        results.append([x.grad, *(p.grad for p in model.parameters()), *model.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.usefixtures("implementation")
def test_drawing_before_the_backward_pass_is_an_error() -> None:
    model = network()
    masks = JointMasks(model)
    masks.draw()
    loss = model(torch.randn(8, 6, requires_grad=True)).sum()
    masks.draw()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_masks_are_where_loaded_statistics_are() -> None:
    with torch.device("meta"):
        model = network()
    model.load_state_dict(network().state_dict(), assign=True)
    masks = JointMasks(model)
    masks.draw()
    model(torch.randn(8, 6))
    assert torch.equal(last_masks(model), masks.flat)


def test_a_mask_on_another_device_is_an_error() -> None:
    model = network()
    JointMasks(model).draw()
    model[0]._given = torch.empty(6, dtype=torch.bool, device="meta")  # type: ignore[union-attr]
    with pytest.raises(RuntimeError, match=r"the given mask is on meta, the input on .*: make JointMasks again"):
        model(torch.randn(8, 6))


def test_masks_made_in_inference_mode_follow_p_outside_of_it() -> None:
    model = network()
    with torch.inference_mode():
        masks = JointMasks(model)
    set_p(model, 1.0)
    masks.update()
    masks.draw()
    assert masks.flat.all()


def test_after_close_layers_draw_by_themselves() -> None:
    model = network()
    masks = JointMasks(model)
    masks.draw()
    masks.close()
    model(torch.randn(8, 6))
    assert not torch.equal(last_masks(model), masks.flat)


def test_a_cuda_graph_draws_at_each_replay_and_follows_p(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("CUDA graphs need a GPU")
    model, x = network(), torch.randn(8, 6)
    masks = JointMasks(model)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        masks.draw()
        model(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        masks.draw()
        model(x)
    seen = set()
    for _ in range(20):
        graph.replay()
        seen.add(tuple(masks.flat.tolist()))
        assert torch.equal(last_masks(model), masks.flat)
    assert len(seen) > 15
    set_p(model, 0.0)
    masks.update()
    graph.replay()
    assert not masks.flat.any()


def test_what_has_no_masks_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"Linear has no StochNorm layer; call convert\(model\) first"):
        JointMasks(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"must be on one device, got \['cpu', 'meta'\]|got \['cuda:0', 'meta'\]"):
        JointMasks(nn.Sequential(StochNorm1d(3), StochNorm1d(3, device="meta")))


@pytest.mark.usefixtures("one_pass")
def test_a_given_mask_is_used_at_p_1_in_one_pass_with_an_activation() -> None:
    layer = StochNorm1d(5, p=1.0)
    JointMasks(layer).draw()
    normalize(layer, torch.randn(8, 5), None, nn.ReLU())
    assert layer._last_step is not None
    normalize(layer, torch.randn(8, 5), None, nn.ReLU())
    assert layer._last_step is None
