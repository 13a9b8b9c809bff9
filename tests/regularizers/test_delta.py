"""DELTA against the written formula, and its reference, which nothing may move."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import stochnorm
from stochnorm.regularizers.delta import DELTA, delta
from stochnorm.regularizers.regularizer import Step

pytestmark = pytest.mark.usefixtures("device")

CARD = Path(__file__).parents[2] / "docs/methods/delta.md"


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(
        shape, generator=torch.Generator(torch.get_default_device()).manual_seed(seed), dtype=torch.float64
    )


@pytest.fixture
def model() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
            nn.Sequential(nn.Conv2d(4, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 5),
        )


def images() -> Tensor:
    return random(8, 3, 9, 9).float()


def take_step(model: nn.Module) -> Step:
    inputs = images()
    logits = model(inputs)
    return Step(inputs, torch.arange(8) % 5, logits, logits)


def test_golden_value() -> None:
    maps, reference = torch.tensor([[[[1.0, 2.0]], [[4.0, 1.0]]]]), torch.tensor([[[[0.0, 0.0]], [[1.0, 1.0]]]])
    # c / (h w) = 1; the channels' 1/2 ||.||^2 are 2.5 and 4.5.
    assert delta([maps], [reference], [torch.tensor([0.25, 0.75])]).item() == 4.0
    assert delta([maps], [reference]).item() == 3.5
    assert delta([maps, maps], [reference, reference]).item() == 7.0


def test_gradient_is_that_of_the_written_formula_and_reaches_the_maps_alone() -> None:
    shapes = ((3, 4, 2, 5), (3, 6, 1, 1))
    maps = [random(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)]
    reference = [random(*shape, seed=9 + i).requires_grad_() for i, shape in enumerate(shapes)]
    weights = [random(shape[1]).softmax(0) for shape in shapes]
    value = delta(maps, reference, weights)
    written = torch.zeros((), dtype=torch.float64)
    for fm, fixed, w in zip(maps, reference, weights, strict=True):
        b, c, height, width = fm.shape
        for i in range(b):
            for j in range(c):
                written = written + w[j] * c / (height * width) * (fm[i, j] - fixed[i, j].detach()).norm() ** 2 / 2
    torch.testing.assert_close(value, written)
    for ours, theirs in zip(torch.autograd.grad(value, maps), torch.autograd.grad(written, maps), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert torch.autograd.grad(delta(maps, reference, weights), reference, allow_unused=True) == (None, None)
    assert torch.autograd.gradcheck(lambda *m: delta(m, reference, weights), maps)


def test_no_weights_are_uniform_ones_and_images_add_up() -> None:
    maps, reference = random(3, 4, 2, 2), random(3, 4, 2, 2, seed=1)
    uniform = delta([maps], [reference])
    torch.testing.assert_close(delta([maps], [reference], [torch.full((4,), 0.25)]), uniform)
    torch.testing.assert_close(delta([torch.cat([maps, maps])], [torch.cat([reference, reference])]), 2 * uniform)


def test_half_precision_maps_are_compared_in_float32() -> None:
    maps, reference = (random(4, 64, 8, 8, seed=seed).bfloat16() for seed in (0, 1))
    value = delta([maps], [reference])
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, delta([maps.double()], [reference.double()]).float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("maps", "reference", "weights", "message"),
    [
        ((2, 3), (2, 3), None, r"feature maps \(b, c, h, w\) of one shape, got \(2, 3\) and \(2, 3\)"),
        ((2, 3, 4, 4), (2, 3, 2, 2), None, r"got \(2, 3, 4, 4\) and \(2, 3, 2, 2\)"),
        ((2, 3, 4, 4), (2, 3, 4, 4), [torch.ones(2)], r"3 channels needs channel weights \(3,\), got \(2,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_errors(
    maps: tuple[int, ...], reference: tuple[int, ...], weights: list[Tensor] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        delta([random(*maps)], [random(*reference)], weights)


def test_nothing_is_penalized_before_anything_has_moved(model: nn.Sequential) -> None:
    regularizer = DELTA(model, copy.deepcopy(model), [model[4]], layers=["0", "1"], beta=0.0)
    assert regularizer(take_step(model.eval())).item() == 0.0
    assert regularizer(take_step(model.train())).item() > 0.0  # batch statistics are not the moving ones


def test_penalty_is_alpha_times_delta_plus_half_beta_times_the_squared_head(model: nn.Sequential) -> None:
    reference = copy.deepcopy(model).eval()
    weights = {"0": torch.tensor([0.1, 0.2, 0.3, 0.4]), "1": torch.full((6,), 1 / 6)}
    regularizer = DELTA(model, reference, [model[4]], layers=["1", "0"], weights=weights, alpha=0.5, beta=0.2)
    value = regularizer(take_step(model))
    maps, fixed = [model[0](images())], [reference[0](images())]
    maps.append(model[1](maps[0]))
    fixed.append(reference[1](fixed[0]))
    head = sum(p.square().sum() for p in model[4].parameters())
    torch.testing.assert_close(value, 0.5 * delta(maps, fixed, list(weights.values())) + 0.1 * head)


def test_gradient_reaches_the_model_and_not_the_reference(model: nn.Sequential) -> None:
    reference = copy.deepcopy(model)
    regularizer = DELTA(model, reference, [model[4]], layers=["1"], beta=0.5)
    regularizer(take_step(model)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for m in (model[0], model[1][1]) for p in m.parameters())
    torch.testing.assert_close(model[4].weight.grad, 0.5 * model[4].weight)
    assert all(p.grad is None and not p.requires_grad for p in reference.parameters())
    assert list(regularizer.parameters()) == []


def test_training_a_converted_model_leaves_the_reference_as_it_was_bit_for_bit(model: nn.Sequential) -> None:
    reference = copy.deepcopy(model)
    before = copy.deepcopy(reference.state_dict())
    stochnorm.convert(model, p=0.5)
    regularizer = DELTA(model, reference, [model[4]], layers=["0", "1"]).train()
    reference.train()  # a caller's mistake
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        step = take_step(model.train())
        optimizer.zero_grad()
        (nn.functional.cross_entropy(step.logits, step.targets) + regularizer(step)).backward()
        optimizer.step()
    assert not any(module.training for module in reference.modules())
    assert not torch.equal(model[0][1].running_mean, before["0.1.running_mean"])
    assert all(torch.equal(value, before[key]) for key, value in reference.state_dict().items())


def test_it_holds_a_model_near_its_feature_maps(model: nn.Sequential) -> None:
    def distance(alpha: float) -> float:
        live, reference = copy.deepcopy(model).eval(), copy.deepcopy(model)
        regularizer = DELTA(live, reference, [live[4]], layers=["1"], alpha=alpha)
        optimizer = torch.optim.SGD(live.parameters(), lr=0.1)
        for _ in range(20):
            step = take_step(live)
            optimizer.zero_grad()
            (nn.functional.cross_entropy(step.logits, step.targets) + regularizer(step)).backward()
            optimizer.step()
        with torch.no_grad():
            return float(delta([live[:2](images())], [reference[:2](images())]))

    assert distance(alpha=0.3) < 0.5 * distance(alpha=0.0)


def test_the_state_dict_holds_the_channel_weights_and_all_of_it_moves(model: nn.Sequential) -> None:
    weights = {"0": torch.full((4,), 0.25), "1": torch.tensor([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])}
    uniform = DELTA(model, copy.deepcopy(model), [model[4]], layers=["0", "1"])
    weighted = DELTA(model, copy.deepcopy(model), [model[4]], layers=["0", "1"], weights=weights)
    assert dict(uniform.state_dict()) == {}
    torch.testing.assert_close(dict(weighted.state_dict()), {"channel_weights": torch.cat(list(weights.values()))})
    weighted.to("meta")
    assert weighted.channel_weights.is_meta
    assert all(tensor.is_meta for tensor in weighted.reference.state_dict().values())


def test_under_autocast_the_penalty_is_float32(model: nn.Sequential) -> None:
    regularizer = DELTA(model, copy.deepcopy(model), [model[4]], layers=["0", "1"])
    exact = regularizer(take_step(model))
    with torch.autocast(torch.get_default_device().type, torch.bfloat16):
        rounded = regularizer(take_step(model))
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0)


def test_maps_of_a_step_are_let_go_and_not_used_twice(model: nn.Sequential) -> None:
    regularizer = DELTA(model, copy.deepcopy(model), [model[4]], layers=["0", "1"])
    step = take_step(model)
    regularizer(step)
    with pytest.raises(ValueError, match=r"last forward pass: call model\(step.inputs\) first"):
        regularizer(step)
    regularizer.close()
    assert not any(module._forward_hooks for module in model.modules())


def test_a_network_that_cannot_move_is_an_error(model: nn.Sequential) -> None:
    """Otherwise DELTA would silently have no effect."""
    regularizer = DELTA(model, copy.deepcopy(model), model[4], layers=["0", "1"])
    model[:2].requires_grad_(False)
    with pytest.raises(ValueError, match=r"no feature map that DELTA compares has a gradient.*use_reentrant=False"):
        regularizer(take_step(model))
    with torch.no_grad():
        assert regularizer(take_step(model)).isfinite()


def test_what_the_model_saw_since_is_an_error(model: nn.Sequential) -> None:
    regularizer = DELTA(model, copy.deepcopy(model), model[4], layers=["0", "1"])
    step = take_step(model)
    model(images()[:3])
    with pytest.raises(ValueError, match="last forward pass had 3 images, the step has 8"):
        regularizer(step)
    model[1](model[0](images()))
    model[0](images())
    partly = DELTA(model, copy.deepcopy(model), model[4], layers=["0", "1"])
    model[0](images())
    with pytest.raises(ValueError, match="last forward pass did not call 1: gradient checkpointing"):
        partly(step)


def test_one_layer_and_one_head_are_given_as_they_are(model: nn.Sequential) -> None:
    one, several = (
        DELTA(model, copy.deepcopy(model), head, layers=layers, beta=2.0)
        for head, layers in ((model[4], "1"), ([model[4]], ["1"]))
    )
    step = take_step(model)
    assert one(step) == several(step) > 0
    with pytest.raises(TypeError, match=r"head must be modules, such as \[model.fc\], got 'fc'"):
        DELTA(model, copy.deepcopy(model), ["fc"], layers="1")  # type: ignore[list-item]


def test_what_cannot_work_is_an_error(model: nn.Sequential) -> None:
    head, reference = [model[4]], copy.deepcopy(model)
    with pytest.raises(ValueError, match=r"shares tensors with the model.*copy.deepcopy\(model\)"):
        DELTA(model, model, head, layers=["0"])
    shared = copy.deepcopy(model)
    shared[0][1].running_mean = model[0][1].running_mean
    with pytest.raises(ValueError, match="shares tensors"):
        DELTA(model, shared, head, layers=["0"])
    with pytest.raises(ValueError, match=r"no layer 'layer4': Sequential has 0, 0.0"):
        DELTA(model, reference, head, layers=["layer4"])
    with pytest.raises(ValueError, match=r"compares 0, 1, got channel weights of 0"):
        DELTA(model, reference, head, layers=["0", "1"], weights={"0": torch.ones(4)})
    with pytest.raises(ValueError, match=r"alpha must be at least 0, got -1"):
        DELTA(model, reference, head, layers=["0"], alpha=-1)


def test_the_card_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, **options: original("test_resnet", **options))
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", CARD.read_text(), flags=re.DOTALL)[0], names)  # noqa: S102
    assert names["layers"] == ["layer1", "layer2", "layer3", "layer4"]
    assert names["penalty"].item() > 0
    assert any(isinstance(module, stochnorm.StochNorm2d) for module in names["model"].modules())
