"""The meaning of precision auto."""

from __future__ import annotations

import platform

import pytest
import torch
from torch import nn

from stochnorm.runs.hardware import launch, precision_of

DENSE = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, groups=2))
DEPTHWISE = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8))


@pytest.mark.parametrize(
    ("amx", "avx512", "model", "precision"),
    [
        (True, True, DENSE, "bf16-mixed"),
        (False, True, DENSE, "32-true"),  # its products are slower in bfloat16
        (False, True, DEPTHWISE, "bf16-mixed"),
        (False, True, None, "bf16-mixed"),
        (False, False, DEPTHWISE, "32-true"),
    ],
)
def test_auto_is_bfloat16_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, model: nn.Module | None, precision: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert precision_of(launch("cpu", "auto", model)) == precision


def test_what_is_asked_for_is_done() -> None:
    assert precision_of(launch("cpu", "bf16", DENSE)) == "bf16-mixed"
    assert precision_of(launch("cpu", "32", DEPTHWISE)) == "32-true"
