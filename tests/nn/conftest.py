from __future__ import annotations

import pytest

from stochnorm.nn import kernel


@pytest.fixture(params=["kernel", "aten"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to compute the layer on a CPU, one after the other."""
    if request.param == "aten":
        monkeypatch.setattr(kernel, "_functions", {})
    elif kernel.library is None:
        pytest.skip("the kernel was not built")
    return str(request.param)
