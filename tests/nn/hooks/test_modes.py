"""Evaluation mode for a while."""

from __future__ import annotations

import pytest
from torch import nn

from stochnorm.nn.hooks.modes import evaluating

pytestmark = pytest.mark.usefixtures("device")


def test_flags_are_as_before_after_an_error_too() -> None:
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
    with pytest.raises(RuntimeError, match="stop"), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise RuntimeError("stop")
    assert [module.training for module in model.modules()] == [True, True, False]
