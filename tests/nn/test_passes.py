"""Passes in every combination before one backward pass, against a reference that stores the mask of every pass."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stochnorm.nn import StochNorm2d, hold_statistics, set_p

CASES = 40
TWICE = "runs twice in one forward pass"


class Reference(nn.BatchNorm2d):
    """Algorithm 1 by autograd alone. Every pass has its own mask and statistics, which its graph holds."""

    p = 0.5
    held = False
    last: tuple[Tensor, Tensor, Tensor]

    def forward(self, input: Tensor) -> Tensor:
        if self.held:
            mask, mean, var = self.last
        else:
            mask = torch.rand(self.num_features) < self.p
            mean, var = self.running_mean.clone(), self.running_var.clone()  # type: ignore[union-attr]
            self.last = mask, mean, var
        batch_var, batch_mean = torch.var_mean(input, (0, 2, 3), correction=0)
        values = input.numel() // input.size(1)
        if not self.held:
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum  # type: ignore[arg-type]
            with torch.no_grad():
                self.running_mean.lerp_(batch_mean, rate)  # type: ignore[union-attr]
                self.running_var.lerp_(batch_var * values / (values - 1), rate)  # type: ignore[union-attr]
        mean, var = torch.where(mask, batch_mean, mean), torch.where(mask, batch_var, var)
        output = (input - mean[:, None, None]) * torch.rsqrt(var + self.eps)[:, None, None]
        return output * self.weight[:, None, None] + self.bias[:, None, None]


class Network(nn.Module):
    """Two parts, the second of which may run its layer twice."""

    def __init__(self, norm: type[nn.BatchNorm2d], *, twice: bool, dropout: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(2, 3, 1), norm(3), nn.ReLU(), nn.Dropout(dropout))
        self.conv, self.norm, self.twice = nn.Conv2d(3, 3, 1), norm(3, momentum=None), twice
        self.double()
        nn.init.uniform_(self.first[1].running_mean)  # type: ignore[arg-type]

    def second(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return self.norm(self.conv(y.sin())) if self.twice else y

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


@dataclass
class Pass:
    way: str
    """plain, or how parts are checkpointed."""
    same_input: bool
    held: bool
    seeded: bool
    """The random state is that of the first pass again."""


@dataclass
class Case:
    p: list[float]
    passes: list[Pass]
    twice: bool
    dropout: float
    preserve: bool
    within: bool
    """The backward pass is inside the block that holds."""
    another_p: float | None
    """p of all layers during the backward pass; None as before."""

    @staticmethod
    def of(seed: int) -> Case:
        draw = random.Random(seed)  # noqa: S311
        ways = ["plain", "whole", "parts", "nested", "reentrant", "reentrant parts", "reentrant nested", "mixed"]
        passes = [
            Pass(draw.choice(ways), draw.random() < 0.6, n > 0 and draw.random() < 0.3, draw.random() < 0.15)
            for n in range(draw.choice([1, 2, 2, 3, 3]))
        ]
        preserve = draw.random() < 0.7
        return Case(
            p=[draw.choice([0.3, 0.5, 0.8]) for _ in range(2)],
            passes=passes,
            twice=draw.random() < 0.25,
            dropout=0.4 * (preserve and draw.random() < 0.5),
            preserve=preserve,
            within=draw.random() < 0.3,
            another_p=draw.choice([None, None, 0.1, 1.0]),
        )


def run(model: Any, x: Tensor, way: str, preserve: bool) -> Tensor:
    def apart(function: Callable[..., Tensor], x: Tensor, reentrant: bool) -> Tensor:
        return checkpoint(function, x, use_reentrant=reentrant, preserve_rng_state=preserve)  # type: ignore[no-any-return]

    reentrant = "reentrant" in way
    if way == "plain":
        return model(x)  # type: ignore[no-any-return]
    if "parts" in way:
        return apart(model.second, apart(model.first, x, reentrant), reentrant)
    if "nested" in way:
        return apart(lambda x: apart(model.second, model.first(x), reentrant), x, reentrant)
    if way == "mixed":
        return apart(lambda x: apart(model.second, model.first(x), True), x, False)
    return apart(model, x, reentrant)


def results(model: Any, case: Case, hold: Callable[[Any], Any], *, plain: bool) -> list[Tensor]:
    """Outputs, gradients, buffers, and the next random number."""
    inputs = [torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(n)).double() for n in range(4)]
    x = inputs[0].requires_grad_()
    torch.manual_seed(1)
    outputs, loss = [], torch.zeros(())
    blocks = []
    for number, each in enumerate(case.passes):
        if each.seeded:
            torch.manual_seed(1)
        taken = x if each.same_input else inputs[number + 1].requires_grad_()
        way = "plain" if plain else each.way
        if each.held:
            block = hold(model)
            block.__enter__()
        output = run(model, taken, way, case.preserve)
        if each.held and case.within:
            blocks.append(block)
        elif each.held:
            block.__exit__(None, None, None)
        outputs.append(output)
        loss = loss + (number + 1) * (output * torch.arange(3.0)[:, None, None]).sin().mean()
        if blocks:
            break  # what follows would be held, too
    if case.another_p and not plain:
        set_p(model, case.another_p)  # what a recomputation repeats does not depend on the present p
    loss.backward()
    for block in blocks:
        block.__exit__(None, None, None)
    grads = [parameter.grad for parameter in model.parameters()]
    return [*outputs, *grads, x.grad, *model.buffers()]  # type: ignore[list-item]


class Holding:
    """What hold_statistics does to a reference."""

    def __init__(self, model: Any) -> None:
        self.layers = (model.first[1], model.norm)

    def __enter__(self) -> None:
        for layer in self.layers:
            layer.held = True

    def __exit__(self, *_: object) -> None:
        for layer in self.layers:
            layer.held = False


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")  # a reentrant one in another
@pytest.mark.parametrize("implementation", ["kernel", "aten"], indirect=True)
def test_every_pass_keeps_its_own_mask_until_backward_has_used_it(implementation: str) -> None:
    refused = 0
    for seed in range(CASES):
        case = Case.of(seed)
        reference, model = (Network(kind, twice=case.twice, dropout=case.dropout) for kind in (Reference, StochNorm2d))
        for layers in ((reference.first[1], reference.norm), (model.first[1], model.norm)):
            for layer, p in zip(layers, case.p, strict=True):
                layer.p = p  # type: ignore[union-attr]
        expected = results(reference, case, Holding, plain=True)
        try:
            got = results(model, case, hold_statistics, plain=False)
        except RuntimeError as error:
            assert TWICE in str(error), (case, error)
            assert case.twice, case
            assert any(each.held for each in case.passes), case
            refused += 1
            continue
        for number, (ours, theirs) in enumerate(zip(got, expected, strict=True)):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12, msg=lambda m: f"{seed} {case} {number} {m}")  # noqa: B023
    assert refused < CASES / 5, refused
