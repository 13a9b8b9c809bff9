"""The weights that channel attention gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stochnorm.regularizers import attention
from stochnorm.regularizers.attention import channel_attention, softmax_attention

pytestmark = pytest.mark.usefixtures("device")


class Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def test_softmax_attention() -> None:
    increases = torch.tensor([0.0, 1.0, 5.0])
    z = (increases - 2.0) / (14 / 3) ** 0.5
    torch.testing.assert_close(softmax_attention(increases), torch.softmax(z / 5, 0))
    torch.testing.assert_close(softmax_attention(100 * increases - 7), softmax_attention(increases))
    assert softmax_attention(torch.full((4,), 0.3)).tolist() == [0.25] * 4


def test_the_channel_that_the_labels_depend_on_weighs_most() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    nn.init.eye_(model[0].weight.data[:, :, 0, 0])
    nn.init.zeros_(model[3].weight)
    nn.init.zeros_(model[3].bias)
    torch.manual_seed(0)
    x = torch.randn(64, 3, 18, 18)
    y = torch.arange(64) % 2
    x[:, 1] += 2.0 * y[:, None, None]
    reported: list[float] = []
    batches = list(zip(x.split(16), y.split(16), strict=True))
    weights = channel_attention(model, model[3], ["0"], batches, measured=2, lr=0.1, progress=reported.append)["0"]
    assert weights.argmax() == 1
    assert weights[1] > 1.2 * weights[[0, 2]].max()  # softmax(z / 5) is soft
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))
    assert weights.dtype == torch.float32
    assert not weights.is_inference()
    assert reported == [0.5, 1.0]


def test_it_is_measured_on_a_folded_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    model, measured = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), Pool(), nn.Linear(4, 3)), []
    original = attention.loss_increases

    def spy(measured_on: nn.Module, *arguments: Any, **named: Any) -> dict[str, Tensor]:
        measured.append([type(module) for module in measured_on][1])
        return original(measured_on, *arguments, **named)

    monkeypatch.setattr(attention, "loss_increases", spy)
    channel_attention(model, model[4], ["2"], [(torch.rand(4, 3, 6, 6), torch.arange(4) % 3)])
    assert measured == [nn.Identity]
    assert type(model[1]) is nn.BatchNorm2d
