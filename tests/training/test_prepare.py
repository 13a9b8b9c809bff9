"""Methods applied to a model before training: in which order, from which images, and once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from stochnorm import BSSConfig, DELTAConfig, FinetuneConfig, L2SPConfig, build_classifier
from stochnorm.data import Split
from stochnorm.models import Classifier
from stochnorm.nn.cpu import kernel
from stochnorm.nn.select import normalization_layers
from stochnorm.regularizers import BSS, DELTA, L2SP, Regularizer, Step
from stochnorm.regularizers.attention import channel_attention
from stochnorm.training.prepare import prepare

CLASSES = ("a", "b", "c")


def classifier() -> Classifier:
    """As if it were pre-trained: random weights get their statistics from the images."""
    found = build_classifier("test_resnet", "random", CLASSES, image_size=32)
    found.weights = "pretrained"
    return found


def split(count: int = 8, seed: int = 0) -> Split:
    """Noise in memory, as a store holds it: uint8 (3, resize, resize)."""
    side = classifier().preprocessing.resize
    store: Any = torch.randint(
        0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    return Split(store, list(range(count)), torch.arange(count) % 3)


def prepared(network: Classifier, method: str, train: Split | None = None, **settings: Any) -> dict[str, Regularizer]:
    settings = {"delta": DELTAConfig(attention="uniform"), "batch_size": 4} | settings
    config = FinetuneConfig("-", method=method, **settings)
    return prepare(config, network, split() if train is None else train, Fabric(accelerator="cpu"))


def stem(network: Classifier) -> Any:
    """The first convolution and normalization layer."""
    model: Any = network.model
    return model.conv1[:2]


def first_means(network: Classifier, train: Split, count: int) -> Tensor:
    """Means of what goes into the first normalization layer, of the first images' center crops."""
    preprocessing = network.preprocessing
    images = torch.stack([train.store[i] for i in train.indices[:count]])
    inputs = preprocessing.normalize(preprocessing.center_crop(images))
    with torch.no_grad():
        means: Tensor = stem(network)[0](inputs).mean((0, 2, 3))
    return means


def test_the_references_of_delta_and_l2sp_are_the_pre_trained_network() -> None:
    """Though statistics are replaced and layers converted."""
    network, inherited = classifier(), classifier()
    pretrained = inherited.model
    regularizers = prepared(network, "stochnorm+l2sp+delta", statistics="target")
    delta, l2sp = regularizers["delta"], regularizers["l2sp"]
    assert isinstance(delta, DELTA)
    assert isinstance(l2sp, L2SP)
    assert not normalization_layers(delta.reference)  # but folded into the convolutions
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(delta.reference(images), pretrained.eval()(images), rtol=1e-4, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in delta.reference.parameters())
    weights = dict(pretrained.named_parameters())
    for name, anchor in l2sp.named_buffers():
        assert torch.equal(anchor, weights[name.removeprefix("anchor/").replace("/", ".")])
    assert {type(layer).__name__ for layer in normalization_layers(network.model)} == {"StochNorm2d"}
    assert not torch.equal(stem(network)[1].running_mean, stem(inherited)[1].running_mean)


def test_target_statistics_are_those_of_all_training_images() -> None:
    network, train = classifier(), split(10)
    prepared(network, "vanilla", train, statistics="target", batch_size=5)
    torch.testing.assert_close(stem(network)[1].running_mean, first_means(network, train, 10), rtol=1e-4, atol=1e-5)


def test_target_statistics_know_the_variance_between_classes_that_are_sorted() -> None:
    """Two classes, dark and light, one after the other: in batches of one class there is a third of the variance."""
    network, train = classifier(), split(48)
    store: Any = train.store
    store[:24] //= 4
    store[24:] = 192 + store[24:] // 4
    prepared(network, "vanilla", train, statistics="target", batch_size=8)
    preprocessing = network.preprocessing
    inputs = preprocessing.normalize(preprocessing.center_crop(store))
    with torch.no_grad():
        true = stem(network)[0](inputs).var((0, 2, 3))
    share: Tensor = stem(network)[1].running_var / true
    assert share.min() > 0.6
    assert share.max() < 1.01


def test_no_image_is_left_out_of_target_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are alike: nine in batches of four would leave one, which is no batch."""
    seen: list[int] = []

    def watch(model: Any, how: str, loader: Any) -> None:
        seen.extend(len(images) for images, _ in loader)

    monkeypatch.setattr("stochnorm.training.prepare.initialize_statistics", watch)
    for count, batch_size, expected in ((9, 4, [3, 3, 3]), (13, 3, [5, 5, 3]), (12, 4, [4, 4, 4]), (5, 2, [3, 2])):
        seen.clear()
        prepared(classifier(), "vanilla", split(count), statistics="target", batch_size=batch_size)
        assert seen == expected


def test_zero_one_statistics_forget_what_was_inherited() -> None:
    network = classifier()
    with torch.no_grad():
        for layer in normalization_layers(network.model):
            layer.running_mean.fill_(3.0)  # type: ignore[union-attr]
    prepared(network, "stochnorm", statistics="zero_one")
    assert all((layer.running_mean == 0).all() for layer in normalization_layers(network.model))  # type: ignore[union-attr]


def test_norm_momentum_reaches_every_layer_of_every_kind() -> None:
    for method in ("vanilla", "stochnorm", "bin"):
        network = classifier()
        prepared(network, method, norm_momentum=0.3)
        assert {layer.momentum for layer in normalization_layers(network.model)} == {0.3}


def test_parts_of_a_batch_move_the_statistics_less_each() -> None:
    network = classifier()
    prepared(network, "stochnorm", norm_momentum=0.19, accumulate=2)
    (momentum,) = {layer.momentum for layer in normalization_layers(network.model)}
    assert momentum == pytest.approx(0.1)  # 1 - 0.9 ** 2 = 0.19


def test_without_norm_momentum_layers_keep_their_own() -> None:
    network = classifier()
    layers = normalization_layers(network.model)
    own = [0.01 * (1 + i) for i in range(len(layers))]
    for layer, momentum in zip(layers, own, strict=True):
        layer.momentum = momentum
    prepared(network, "stochnorm")
    assert [layer.momentum for layer in normalization_layers(network.model)] == own


def test_terms_come_in_the_catalogues_order() -> None:
    assert list(prepared(classifier(), "bss+delta+stochnorm+l2sp")) == ["l2sp", "delta", "bss"]
    assert prepared(classifier(), "stochnorm") == {}


def test_every_option_reaches_its_regularizer() -> None:
    delta = DELTAConfig(0.5, 0.25, "uniform", layers=("layer2", "layer4"))
    settings = {"delta": delta, "l2sp": L2SPConfig(0.3, 0.2, "all"), "bss": BSSConfig(0.7, 3)}
    regularizers = prepared(classifier(), "delta+l2sp+bss", **settings)
    held, compared, shrunk = (regularizers[name] for name in ("l2sp", "delta", "bss"))
    assert isinstance(held, L2SP)
    assert isinstance(compared, DELTA)
    assert isinstance(shrunk, BSS)
    assert (held.alpha, held.beta) == (0.3, 0.2)
    assert any("bn1" in name for name, _ in held.named_buffers())  # of scope all
    assert (compared.alpha, compared.beta, compared.layers) == (0.5, 0.25, ["layer2", "layer4"])
    assert (shrunk.eta, shrunk.k) == (0.7, 3)


@pytest.mark.parametrize("layer", ["layer4", "conv1", "layer2.0.conv2"])
def test_delta_is_zero_before_anything_has_moved(layer: str) -> None:
    """Though BatchNorm is folded in the reference: not into what is compared (``conv1`` is a block of several)."""
    network = classifier()
    with torch.no_grad():
        for module in normalization_layers(network.model):
            module.weight.uniform_(0.3, 2.0)
    settings = DELTAConfig(1.0, 0.0, "uniform", layers=(layer,))
    regularizer = prepared(network, "delta", delta=settings)["delta"]
    images = torch.rand(2, 3, 32, 32)
    logits = network.model.eval()(images)
    assert 0 <= regularizer(Step(images, torch.tensor([0, 1]), logits, logits)) < 1e-6
    network.model.train()(images)
    assert regularizer(Step(images, torch.tensor([0, 1]), logits, logits)) > 1e-3


def test_random_weights_take_their_first_statistics_from_the_images() -> None:
    """They inherited none, and with 0 and 1 a deep network explodes."""
    network, train = build_classifier("test_resnet", "random", CLASSES, image_size=32), split()
    delta = prepared(network, "stochnorm+delta", train)["delta"]
    torch.testing.assert_close(stem(network)[1].running_mean, first_means(network, train, 8), rtol=1e-4, atol=1e-5)
    assert isinstance(delta, DELTA)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(delta.reference(images), network.model.eval()(images), rtol=1e-3, atol=1e-4)


def test_what_cannot_work_is_said_before_attention_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stochnorm.regularizers.attention.channel_attention", lambda *_, **__: pytest.fail("measured"))
    convnext = build_classifier("test_convnext", "random", CLASSES, image_size=64)
    for method, settings, message in (
        ("stochnorm+delta", {}, "has no BatchNorm layer, which stochnorm needs"),
        ("delta", {"statistics": "target"}, "has no BatchNorm layer, which --statistics target needs"),
    ):
        with pytest.raises(ValueError, match=message):
            prepared(convnext, method, delta=DELTAConfig(), **settings)
    for settings, message in (
        ({"norm_layers": "nowhere"}, "norm_layers 'nowhere': nothing to convert in ResNet"),
        ({"delta": DELTAConfig(layers=("layer9",))}, "no layer 'layer9': ResNet has conv1"),
    ):
        with pytest.raises(ValueError, match=message):
            prepared(classifier(), "stochnorm+delta", **{"delta": DELTAConfig(), **settings})


def test_channel_attention_is_computed_once_for_the_same_weights_and_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    computed, measured = 0, []

    def count(*args: Any, **options: Any) -> dict[str, Tensor]:
        nonlocal computed
        computed += 1
        measured.append(options["measured"])
        return channel_attention(*args, **options)

    def weights(
        train: Split | None = None, weight: float | None = None, method: str = "delta", **options: Any
    ) -> Tensor:
        network = classifier()
        if weight is not None:
            with torch.no_grad():
                stem(network)[0].weight[0, 0, 0, 0] = weight
        delta = prepared(network, method, train, delta=DELTAConfig(**options))["delta"]
        assert isinstance(delta, DELTA)
        return delta.channel_weights

    monkeypatch.setattr("stochnorm.regularizers.attention.channel_attention", count)
    first = weights()
    assert computed == 1
    assert len(set(first.tolist())) > 4  # four layers: not uniform
    assert first.sum().item() == pytest.approx(4, rel=1e-5)
    assert torch.equal(weights(), first)
    assert torch.equal(weights(method="stochnorm+delta"), first)  # measured before the conversion
    assert computed == 1
    weights(split(seed=1))
    assert computed == 2
    weights(weight=0.5)
    assert computed == 3
    weights(layers=("layer3", "layer4"))
    assert computed == 4
    weights(attention_images=64)
    assert computed == 5
    assert measured == [10, 10, 10, 10, 2]  # batches of 32
    network = classifier()
    network.backbone = "another"  # the same layers, called otherwise: what they compute may differ
    prepared(network, "delta", delta=DELTAConfig(), backbone="another")
    assert computed == 6


@pytest.mark.skipif(kernel.library is None, reason="the kernel was not built")
@pytest.mark.parametrize(("method", "kind"), [("vanilla", "FusedBatchNormAct2d"), ("stochnorm", "FusedStochNormAct2d")])
def test_batch_norm_runs_through_the_kernel_too(method: str, kind: str) -> None:
    network = build_classifier("test_efficientnet", "random", CLASSES, image_size=32)
    prepared(network, method)
    assert {type(layer).__name__ for layer in normalization_layers(network.model)} == {kind}


def test_a_network_is_fused_on_a_gpu_alone(job_device: str) -> None:
    network = classifier()
    prepare(FinetuneConfig("-", batch_size=4), network, split(), Fabric(accelerator=job_device, devices=1))
    assert any("_fuses" in type(module).__dict__ for module in network.model.modules()) == (job_device != "cpu")
