"""Channel attention against brute force, without its cost."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stochnorm.regularizers import attention
from stochnorm.regularizers.attention import (
    channel_attention,
    image_losses,
    loss_increases,
    softmax_attention,
    train_head,
)

pytestmark = pytest.mark.usefixtures("device")


class Conv(nn.Conv2d):
    """Counts the images that it computes."""

    images = 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        return super().forward(x)


class Block(nn.Module):
    def __init__(self, c: int, d: int, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.skip = Conv(c, d, 3, 2, 1), nn.BatchNorm2d(d), nn.Conv2d(c, d, 1, 2)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.conv(x))
        out += self.skip(x)
        return self.act(out)


class Net(nn.Module):
    """Stages in a ModuleList, an activation shared by all, work between modules, also in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act, self.dropout = Conv(3, 6, 3), nn.ReLU(inplace=True), nn.Dropout(0.5)
        self.blocks = nn.ModuleList(Block(c, c + 2, self.act) for c in (6, 8, 10))
        self.squeeze, self.head = nn.Conv2d(12, 7, 1), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(2 * x - 1)) + 0.1
        for block in self.blocks:
            x = self.act(block(x) - 0.2)
        return self.head(self.dropout(self.act(self.squeeze(x)).mean((2, 3))))


class LongSkip(Net):
    """The input of the first block also bypasses it."""

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        x = self.blocks[2](self.blocks[1](self.blocks[0](stem)))
        return self.head(self.squeeze(x).mean((2, 3)) + stem.mean((2, 3))[:, :1])


class InPlace(LongSkip):
    """It writes into what goes past the first block."""

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        inside = self.blocks[0](stem.clone())
        stem += 0.5
        x = self.blocks[2](self.blocks[1](inside))
        return self.head(self.squeeze(x).mean((2, 3)) + stem.mean((2, 3))[:, :1])


class Remembering(Net):
    """One module reads what another has left behind."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.read(self.blocks[0](self.write(x))))

    def __init__(self) -> None:
        super().__init__()
        net = self

        class Write(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                net.memory = net.stem(x)
                return net.memory

        class Read(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.mean((2, 3))[:, :7] + net.memory.mean((2, 3))[:, :1]

        self.write, self.read = Write(), Read()


CHANNELS = {"blocks.0": 8, "blocks.1": 10, "blocks.1.conv": 10, "blocks.1.norm": 10, "blocks.1.skip": 10, "squeeze": 7}
LAYERS = list(CHANNELS)


def network(kind: type[Net] = Net) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind()
        for module in model.modules():  # statistics that do something
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 1.5)
        nn.init.normal_(model.head.weight, std=3.0)
    return model


def images(count: int = 5, seed: int = 0, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(torch.get_default_device()).manual_seed(seed)
    return torch.randn(count, 3, 18, 18, generator=generator), torch.randint(classes, (count,), generator=generator)


def batches() -> list[tuple[Tensor, Tensor]]:
    return [images(5), images(3, seed=1)]


def brute_force(model: nn.Module, layer: str, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """One whole forward pass a channel."""
    model = copy.deepcopy(model).eval()
    masked: list[int] = []

    def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, masked] = 0
        return output

    model.get_submodule(layer).register_forward_hook(hook)
    with torch.no_grad():
        plain = [F.cross_entropy(model(x), y) for x, y in batches]
        increases = []
        for channel in range(CHANNELS[layer]):
            masked[:] = [channel]
            increases.append(
                sum(F.cross_entropy(model(x), y) - before for (x, y), before in zip(batches, plain, strict=True))
                / len(batches)
            )
    return torch.stack(increases)


@pytest.mark.parametrize("chunk_bytes", [1, 2**25])
def test_loss_increases_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch, chunk_bytes: int) -> None:
    monkeypatch.setattr(attention, "_TAIL_BYTES", {"cpu": chunk_bytes, "cuda": chunk_bytes})
    model = network()
    increases = loss_increases(model, LAYERS, batches())
    for layer in LAYERS:
        expected = brute_force(model, layer, batches())
        assert expected.std() > 0.01
        torch.testing.assert_close(increases[layer], expected, rtol=0, atol=1e-5)


def test_only_the_tail_runs_and_not_for_channels_that_are_zero() -> None:
    model = network()
    with torch.no_grad():
        model.blocks[0].norm.bias[:3] = -100.0  # these end in the ReLU
    b = 5
    loss_increases(model, ["blocks.0"], [images(b)])
    # A forward pass, two trials of the tail, and pairs of an image and one of five channels.
    assert [model.stem.images, model.blocks[0].conv.images] == [b, b]
    assert model.blocks[1].conv.images == b + 2 * (b + 1) + 5 * b


@pytest.mark.parametrize("kind", [LongSkip, InPlace])
@pytest.mark.parametrize("count", [1, 4])
def test_what_leads_past_the_layer_is_kept_too(kind: type[Net], count: int) -> None:
    model, batches = network(kind), [images(count)]
    increases = loss_increases(model, ["blocks.0"], batches)
    assert model.stem.images <= 2 * count  # recorded again if it must be gathered
    torch.testing.assert_close(increases["blocks.0"], brute_force(model, "blocks.0", batches), rtol=0, atol=1e-5)


def test_a_network_that_cannot_be_cut_runs_whole_and_says_so() -> None:
    model = network(Remembering)
    with pytest.warns(UserWarning, match="Remembering cannot run from blocks.0 on: the whole network runs for each"):
        increases = loss_increases(model, ["blocks.0"], batches())
    torch.testing.assert_close(increases["blocks.0"], brute_force(model, "blocks.0", batches()), rtol=0, atol=1e-5)


def test_the_model_is_left_as_it_was(random_state: Callable[[], Tensor]) -> None:
    model = network()
    model.blocks[1].eval()
    model.stem.weight.requires_grad_(False)
    before, flags = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    state = random_state()
    channel_attention(model, model.head, LAYERS, batches(), epochs=2)
    loss_increases(model, LAYERS, batches())
    assert torch.equal(state, random_state())
    assert [m.training for m in model.modules()] == flags
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any("forward" in m.__dict__ or m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert model.head.weight.requires_grad
    assert model.head.weight.grad is None


def test_several_labels_an_image() -> None:
    model = network()
    x = images(6)[0]
    y = torch.randint(2, (6, 4), generator=torch.Generator(torch.get_default_device()).manual_seed(0))
    torch.testing.assert_close(
        image_losses(x[:, 0, 0, :4], y).mean(), F.binary_cross_entropy_with_logits(x[:, 0, 0, :4], y.float())
    )
    increases = loss_increases(model, ["squeeze"], [(x, y)])["squeeze"]
    with torch.no_grad():
        plain = model.eval()(x)
        model.head.weight[:, 2] = 0  # behind a mean, a channel set to zero is a feature set to zero
        masked = model(x)
    expected = F.binary_cross_entropy_with_logits(masked, y.float()) - F.binary_cross_entropy_with_logits(
        plain, y.float()
    )
    torch.testing.assert_close(increases[2], expected, rtol=0, atol=1e-5)


def test_the_trained_head_is_that_of_training_the_frozen_model_and_repeats() -> None:
    model = network()
    x, y = images(6)
    trained = train_head(model, model.head, [(x[:4], y[:4]), (x[4:], y[4:])], epochs=3, lr=0.1, seed=7)
    expected = copy.deepcopy(model).eval()
    for name, parameter in expected.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    optimizer = torch.optim.SGD(expected.head.parameters(), lr=0.1, momentum=0.9)
    order = torch.Generator().manual_seed(7)
    for _ in range(3):
        for indices in torch.randperm(6, generator=order, device="cpu").split(4):
            optimizer.zero_grad()
            F.cross_entropy(expected(x[indices]), y[indices]).backward()
            optimizer.step()
    torch.testing.assert_close(dict(trained.state_dict()), dict(expected.head.state_dict()))
    assert not torch.equal(trained.weight, model.head.weight)


def test_what_cannot_be_measured_is_an_error() -> None:
    model = network()
    with pytest.raises(ValueError, match="got no batch"):
        loss_increases(model, ["stem"], [])
    with pytest.raises(ValueError, match=r"the output of head is \(5, 4\), not a feature map \(b, c, h, w\)"):
        loss_increases(model, ["head"], batches())
    with pytest.raises(ValueError, match="act runs 8 times in a forward pass"):
        loss_increases(model, ["act"], batches())
    for measure in (loss_increases, lambda *given: channel_attention(given[0], given[0].head, *given[1:])):
        with pytest.raises(ValueError, match="no layer 'layer9': Net has stem"):
            measure(model, ["layer9"], batches())
    with pytest.raises(ValueError, match="linear head, got Conv2d, in Net; use uniform channel weights"):
        train_head(model, model.squeeze, batches())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="linear head, got Linear, not a part of Net"):
        train_head(model, nn.Linear(7, 4), batches())
    with pytest.raises(ValueError, match="got no batch"):
        train_head(model, model.head, [])


@pytest.mark.parametrize("layer", ["blocks.1", "blocks.1.conv"])
def test_attention_is_the_softmax_of_what_brute_force_finds_with_the_trained_head(layer: str) -> None:
    """Also of a convolution, whose BatchNorm must not be folded into it then."""
    model = network()
    model.blocks[1].norm.weight.data.uniform_(0.2, 2.0)
    weights = channel_attention(model, model.head, layer, batches(), epochs=3, seed=1)[layer]
    model.head.load_state_dict(train_head(model, model.head, batches(), epochs=3, seed=1).state_dict())
    torch.testing.assert_close(weights, softmax_attention(brute_force(model, layer, batches())), rtol=0, atol=1e-5)
