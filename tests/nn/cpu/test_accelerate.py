"""The layers that run through the compiled kernels, and the way back."""

from __future__ import annotations

import pytest
from timm.layers import Conv2dSame
from torch import nn

from stochnorm.nn.cpu import depthwise
from stochnorm.nn.cpu.accelerate import accelerate, decelerate
from stochnorm.nn.cpu.depthwise import DepthwiseConv2d


def depthwise_conv() -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3, padding=1, groups=4)


@pytest.mark.skipif(depthwise.library is None, reason="the kernel was not built")
def test_accelerate_changes_classes_alone_and_back() -> None:
    model = nn.Sequential(
        *[depthwise_conv(), Conv2dSame(4, 4, 3, 2, groups=4), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, groups=2)],
        *[nn.Conv2d(8, 16, 3, groups=8), nn.Conv2d(16, 16, 3, dilation=2, groups=16), nn.Conv2d(16, 16, 9, groups=16)],
    )
    classes, parameters, keys = [type(m) for m in model], list(model.parameters()), list(model.state_dict())
    assert accelerate(model) == 2
    assert accelerate(model) == 0
    assert [isinstance(m, DepthwiseConv2d) for m in model] == [True, True, *[False] * 5]
    assert isinstance(model[1], Conv2dSame)
    assert list(model.state_dict()) == keys
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert decelerate(model) == 2
    assert [type(m) for m in model] == classes


def test_without_the_library_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise, "library", None)
    assert accelerate(depthwise_conv()) == 0
