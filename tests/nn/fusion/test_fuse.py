"""A fused model computes what it computed before: on the CPU bit for bit, in one pass to rounding."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from functools import partial

import pytest
import timm
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import DenseNet, MobileNetV2, resnet
from torchvision.models.inception import BasicConv2d, InceptionA
from torchvision.models.vgg import make_layers

from stochnorm.nn import (
    convert,
    convert_batch_instance,
    freeze,
    fuse,
    hold_statistics,
    restore,
    unfreeze,
    unfuse,
    update_statistics,
)
from stochnorm.nn.cpu.accelerate import plain_class
from stochnorm.nn.fold import fold_batch_norm
from stochnorm.nn.hooks.taps import OutputTap

PREPARE: dict[str, Callable[[nn.Module], object]] = {
    "vanilla": lambda model: None,
    "stochnorm": lambda model: convert(model, p=0.5),
    "p = 1": lambda model: convert(model, p=1.0),
    "frozen": lambda model: freeze(model, what="statistics"),
    "bin": lambda model: mixed(convert_batch_instance(model)),
}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "torchvision resnet": (lambda: resnet.ResNet(resnet.BasicBlock, [2, 1, 1, 1], num_classes=3), 6),
    "torchvision bottleneck": (lambda: resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=3), 5),
    "vgg": (lambda: nn.Sequential(make_layers([8, "M", 16, 16], batch_norm=True), pooled()), 1),
    "mobilenet": (lambda: MobileNetV2(3, 0.25, [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2]]), 16),
    "densenet": (lambda: DenseNet(4, (2, 2), 8, num_classes=3), 6),
    "inception": (lambda: nn.Sequential(BasicConv2d(3, 8, kernel_size=3), InceptionA(8, 4), pooled()), 8),
    "timm resnet": (lambda: timm.models.ResNet(timm.models.resnet.BasicBlock, (2, 1, 1, 1), num_classes=3), 6),
    "timm bottleneck": (lambda: timm.models.ResNet(timm.models.resnet.Bottleneck, (1, 1, 1, 1), num_classes=3), 5),
    "timm attention": (lambda: timm.create_model("test_resnet", num_classes=3, block_args={"attn_layer": "se"}), 6),
    "efficientnet": (lambda: timm.create_model("test_efficientnet", num_classes=3), 15),
}
"""Networks, and how many of their modules are fused."""

CASES = [(name, kind) for name in NETWORKS for kind in ("vanilla", "stochnorm")] + [
    (name, kind) for name in ("torchvision resnet", "vgg", "efficientnet") for kind in ("p = 1", "frozen", "bin")
]

ONE_PASS = {"torchvision resnet": 11, "torchvision bottleneck": 13, "vgg": 3, "mobilenet": 14, "densenet": 10}
ONE_PASS |= {"inception": 8, "timm resnet": 11, "timm bottleneck": 13, "timm attention": 8, "efficientnet": 13}
"""How many layers run in one pass with what is behind them."""


def pooled() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def mixed(model: nn.Module) -> nn.Module:
    for name, parameter in model.named_parameters():
        if name.endswith("rho"):
            nn.init.uniform_(parameter, 0.2, 0.9)
    return model


def network(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = NETWORKS[name][0]()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model, torch.randn(4, 3, 32, 32)


def step(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Return what a step and a forward pass in eval mode put out, all gradients, and all buffers."""
    torch.manual_seed(1)
    x = x.detach().clone().requires_grad_()
    logits = model.train()(x)
    leaves = [x, *(p for p in model.parameters() if p.requires_grad)]
    gradients = torch.autograd.grad(logits.square().sum(), leaves, allow_unused=True)
    buffers = [buffer.clone() for buffer in model.buffers()]
    inferred = model.eval()(x)
    (frozen,) = torch.autograd.grad(inferred.sum(), x)
    return [logits, *(g for g in gradients if g is not None), *buffers, inferred, frozen]


@pytest.mark.parametrize(("name", "prepare"), CASES)
def test_on_the_cpu_nothing_changes_by_a_bit(name: str, prepare: str) -> None:
    model, x = network(name)
    PREPARE[prepare](model)
    fused = copy.deepcopy(model)
    assert fuse(fused) > 0
    assert list(fused.state_dict()) == list(model.state_dict())
    for ours, theirs in zip(step(fused, x), step(model, x), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", NETWORKS)
def test_unfuse_gives_back_the_classes_and_touches_nothing_else(name: str) -> None:
    model, _ = network(name)
    classes, tensors = [type(m) for m in model.modules()], [id(t) for t in (*model.parameters(), *model.buffers())]
    assert fuse(model) == NETWORKS[name][1]
    assert fuse(model) == 0
    assert sum(type(m) is not kind for m, kind in zip(model.modules(), classes, strict=True)) == NETWORKS[name][1]
    assert [id(t) for t in (*model.parameters(), *model.buffers())] == tensors
    assert unfuse(model) == NETWORKS[name][1]
    assert [type(m) for m in model.modules()] == classes
    assert unfuse(model) == 0


@pytest.mark.parametrize(("name", "prepare"), CASES)
def test_in_one_pass_a_step_is_the_same_to_rounding(
    name: str, prepare: str, one_pass: list[nn.Module], device: torch.device
) -> None:
    """In float64 on a CPU; on a GPU in float32, which its kernels are for, so all values are compared as one vector."""
    model, x = network(name)
    PREPARE[prepare](model)
    if device.type == "cpu":
        model, x = model.double(), x.double()
    for layer_name, layer in model.named_modules():
        if "downsample" in layer_name and hasattr(layer, "p"):
            layer.p = 1.0  # its mask would be drawn before that of its block's last layer
    fused = copy.deepcopy(model)
    fuse(fused)
    computed = step(fused, x)
    assert len(one_pass) == 2 * ONE_PASS[name] or (name, prepare) == ("efficientnet", "bin")
    expected = step(model, x)
    if device.type == "cpu":
        for ours, theirs in zip(computed, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-7)
    else:
        one, other = (torch.cat([part.double().flatten() for part in parts]) for parts in (computed, expected))
        assert (one - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("name", ["torchvision resnet", "efficientnet", "vgg"])
def test_conversions_before_and_after_fusing_are_the_same(name: str) -> None:
    model, x = network(name)
    first, then = copy.deepcopy(model), model
    for change in (convert, restore, convert_batch_instance, restore, freeze, unfreeze):
        fuse(then)
        change(then)
        change(first)
        fuse(first)
        for ours, theirs in zip(step(then, x), step(first, x), strict=True):
            assert torch.equal(ours, theirs)
    unfuse(first)
    unfuse(then)
    assert [type(m) for m in first.modules()] == [type(m) for m in then.modules()]


@pytest.mark.parametrize("name", ["torchvision resnet", "timm resnet", "efficientnet", "densenet"])
def test_copies_and_files_carry_a_fused_model(name: str) -> None:
    model, x = network(name)
    fuse(convert(model))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),  # noqa: S301
        torch.load(file, weights_only=False),
    ):
        assert [type(m) for m in twin.modules()] == [type(m) for m in model.modules()]
        assert torch.equal(twin.eval()(x), model.eval()(x))


@pytest.mark.parametrize(
    "layer", ["layer1.0.bn1", "layer1.1.bn2", "layer1.0.relu", "layer1.0.conv2", "layer2.0", "bn1"]
)
@pytest.mark.usefixtures("one_pass")
def test_taps_see_the_same_maps(layer: str) -> None:
    model, x = network("torchvision resnet")
    fused = copy.deepcopy(model)
    fuse(fused)
    maps: list[list[Tensor]] = [[], []]
    for network_of, seen in zip((model, fused), maps, strict=True):
        keep = partial(lambda seen, module, taken, put: seen.append(put.clone()), seen)
        network_of.get_submodule(layer).register_forward_hook(keep)
        network_of(x)
    assert len(maps[0]) == len(maps[1]) > 0
    for ours, theirs in zip(*maps, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("device")
def test_a_hooked_layer_runs_by_itself_and_the_others_do_not(one_pass: list[nn.Module]) -> None:
    model, x = network("torchvision resnet")
    fuse(model)
    with OutputTap(model, ["layer3.0.bn2"]) as tap:
        model(x)
    assert "layer3.0.bn2" in tap.values
    assert len(one_pass) == 10  # 14 layers less 3 in shortcuts and the tapped one
    assert model.layer3[0].bn2 not in one_pass


@pytest.mark.usefixtures("one_pass")
def test_in_one_pass_activation_checkpointing_repeats_the_step() -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    convert(block)
    twin = copy.deepcopy(block)
    assert fuse(twin) == 1
    x = torch.randn(4, 3, 9, 9)
    results = []
    for module in (block, twin):
        torch.manual_seed(1)
        y = x.clone().requires_grad_()
        checkpoint(module, y, use_reentrant=False).square().sum().backward()
        results.append([y.grad, *(p.grad for p in module.parameters()), *module.buffers()])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("one_pass")
def test_statistics_can_be_held_and_recomputed() -> None:
    model, x = network("torchvision resnet")
    fuse(convert(model))
    first = model(x)
    with hold_statistics(model):
        torch.testing.assert_close(model(x), first, rtol=1e-2, atol=1e-2)
    unfused = copy.deepcopy(model)
    unfuse(unfused)
    update_statistics(model, [x, 2 * x])
    update_statistics(unfused, [x, 2 * x])
    for ours, theirs in zip(model.buffers(), unfused.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["torchvision resnet", "efficientnet"])
def test_a_fused_model_can_be_folded_and_exported(name: str) -> None:
    model, x = network(name)
    model.eval()
    expected = model(x)
    fuse(model)
    exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), expected)
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert fold_batch_norm(model) == norms > 0
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("one_pass")
def test_the_compiler_takes_the_model_as_it_was_in_one_graph() -> None:
    torch.manual_seed(0)
    block = resnet.BasicBlock(4, 4)
    convert(block)
    x = torch.randn(2, 4, 6, 6)
    expected = copy.deepcopy(block)(x).shape
    fuse(block)
    assert torch.compile(block, backend="eager", fullgraph=True)(x).shape == expected


def test_what_is_no_module_is_named() -> None:
    with pytest.raises(TypeError, match="fuse needs a module, got 3; give the network"):
        fuse(3)  # type: ignore[arg-type]


def test_derived_classes_and_other_modules_are_left_alone() -> None:
    class Block(resnet.BasicBlock):
        def forward(self, x: Tensor) -> Tensor:
            return -super().forward(x)

    class Sequence(nn.Sequential):
        pass

    for module in (
        Block(3, 3),
        Sequence(nn.BatchNorm2d(3), nn.ReLU()),
        nn.Sequential(nn.BatchNorm2d(3), nn.GELU()),
        nn.Sequential(nn.GroupNorm(1, 3), nn.ReLU()),
        resnet.BasicBlock(3, 3, norm_layer=nn.Identity),
    ):
        assert fuse(module) == 0


def test_records_name_a_fused_layer_as_it_was() -> None:
    layer = BatchNormAct2d(3)
    assert fuse(layer) == 1
    assert plain_class(layer) is BatchNormAct2d


def test_a_part_of_a_fused_sequence_is_one() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    fuse(model)
    assert type(model[1:]) is type(model)
    assert len(model[1:]) == 2
