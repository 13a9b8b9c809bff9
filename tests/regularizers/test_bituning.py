"""Bi-Tuning against the written formulas."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from stochnorm.regularizers import BiTuning, Step
from stochnorm.regularizers.bituning import KeyQueue, contrastive_loss

pytestmark = pytest.mark.usefixtures("device")

TAU, CLASSES, WIDTH = 0.5, 3, 6


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, WIDTH), nn.BatchNorm1d(WIDTH), nn.Tanh())
        self.fc = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x))  # type: ignore[no-any-return]


def made(**options: object) -> tuple[Network, BiTuning]:
    torch.manual_seed(0)
    network = Network()
    settings = {"temperature": TAU, "keys": 4, "momentum": 0.9} | options
    return network, BiTuning(network, network.fc, "fc", nn.Linear(WIDTH, 5), **settings)  # type: ignore[arg-type]


def step(network: Network, seed: int, *, again: bool = False) -> Step:
    torch.manual_seed(seed)
    images, targets = torch.randn(5, 3, 2, 2), torch.tensor([0, 2, 0, 1, 2])
    features = network.body(images)
    return Step(images, targets, network.fc(features), features, again=again)


def test_the_loss_is_the_cross_entropy_with_the_shares_of_the_positive_keys() -> None:
    s = torch.randn(3, 5, dtype=torch.float64).requires_grad_()
    positive = torch.tensor([[1, 1, 0, 0, 1], [0, 1, 0, 0, 0], [1, 0, 0, 1, 1]]).bool()
    present = torch.tensor([1, 1, 1, 1, 0]).bool()
    shares = (s[:, :4] / TAU).softmax(1)
    wanted = positive[:, :4].double()
    wanted = wanted / wanted.sum(1, keepdim=True)
    value = contrastive_loss(s, positive, present, TAU)
    torch.testing.assert_close(value, -(wanted * shares.log()).sum() / 3)
    (gradient,) = torch.autograd.grad(value, s, retain_graph=True)
    torch.testing.assert_close(gradient[:, :4], (shares - wanted).detach() / (3 * TAU))
    assert (gradient[:, 4] == 0).all()
    assert torch.autograd.gradcheck(lambda s: contrastive_loss(s, positive, present, TAU), s)


def test_the_queue_keeps_the_last_keys_of_each_class() -> None:
    queue = KeyQueue(classes=2, size=3, widths=[1, 2])
    kept: dict[int, list[float]] = {0: [], 1: []}
    number = 0.0
    for labels in ([0, 1, 0], [1, 1, 1, 1, 1], [0], [0, 0]):
        values = torch.arange(number, number + len(labels))
        number += len(labels)
        queue.add([values[:, None], torch.stack([values, -values], 1)], torch.tensor(labels))
        for label, value in zip(labels, values.tolist(), strict=True):
            kept[label] = [*kept[label], value][-3:]
        for label in (0, 1):
            chosen = queue.present & (queue.classes == label)
            assert sorted(queue.keys(0)[chosen].flatten().tolist()) == kept[label]
            assert (queue.keys(1)[chosen] == queue.keys(0)[chosen] * torch.tensor([1.0, -1.0])).all()


def test_both_losses_are_those_of_the_formula() -> None:
    """In the second step, against the keys of the first one, written out image by image."""
    network, term = made(strength=2.5)
    first = step(network, 1)
    term(first)
    slow, projection = copy.deepcopy(term.slow).eval(), copy.deepcopy(term.slow_projection)
    term.stepped()
    unit = nn.functional.normalize

    def with_one(h: Tensor) -> Tensor:
        return unit(torch.cat([h, torch.ones(len(h), 1)], 1), dim=1)

    earlier = slow.body(first.inputs.flip(-1)).detach()
    queue_h, queue_z, queue_y = with_one(earlier), unit(projection(earlier), dim=1).detach(), first.targets
    second = step(network, 2)
    own_key = unit(term.slow_projection(term.slow.eval().body(second.inputs.flip(-1))), dim=1)
    query, h = unit(term.projection(second.features), dim=1), with_one(second.features)
    rows = unit(torch.cat([network.fc.weight, network.fc.bias[:, None]], 1), dim=1)
    total = torch.zeros(())
    for i, label in enumerate(second.targets.tolist()):
        positive = [0, *(1 + j for j in range(5) if queue_y[j] == label)]
        for similarities in (
            torch.cat([rows[label] @ h[i : i + 1].T, rows[label] @ queue_h.T]),
            torch.cat([query[i] @ own_key[i : i + 1].T, query[i] @ queue_z.T]),
        ):
            total = total - (similarities / TAU).log_softmax(0)[positive].mean()
    value = term(second)
    torch.testing.assert_close(value, 2.5 * total / 5)
    value.backward()
    for trained in (network.fc.weight, network.body[1].weight, term.projection.weight):  # type: ignore[union-attr]
        assert trained.grad is not None
        assert trained.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in term.slow.parameters())


def test_the_slow_network_follows_at_each_step_of_the_optimizer_weights_and_statistics() -> None:
    network, term = made()
    start = copy.deepcopy(network.state_dict())
    for number in (1, 2):
        term(step(network, number))
        with torch.no_grad():
            network.fc.weight += 1
    assert all(torch.equal(value, start[key]) for key, value in term.slow.state_dict().items())
    term.stepped()
    now = network.state_dict()
    for key in ("fc.weight", "body.2.running_mean"):
        torch.testing.assert_close(term.slow.state_dict()[key], start[key] * 0.9 + now[key] * 0.1)
        assert not torch.equal(now[key], start[key])
    assert term.queue.added.sum() == 10  # two parts of a batch


def test_a_further_pass_on_the_same_images_adds_no_keys() -> None:
    """So that both passes of SAM are of one function."""
    network, term = made()
    term(step(network, 1))
    term.stepped()
    first = term(step(network, 2))
    again = term(step(network, 2, again=True))
    torch.testing.assert_close(first, again)
    term.stepped()
    assert term.queue.added.tolist() == [4, 2, 4]


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"temperature above 0, .* got 1.0, 0, 0.9 and 4"):
        made(temperature=0)
    network = Network()
    with pytest.raises(ValueError, match="a head that is one linear layer on 7 features, got Linear"):
        BiTuning(network, network.fc, "fc", nn.Linear(7, 5))
