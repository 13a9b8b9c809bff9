from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from stochnorm.nn.cuda import check, fused

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture
def kernels(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Use the Triton kernels: on the device of `--device`, or on the CPU in Triton's interpreter.

    Returns the names of the functions that were launched. The interpreter must be chosen before Triton is imported, so
    `test_interpreter.py` runs these tests in a process of their own.
    """
    pytest.importorskip("triton")
    if device.type != "cuda":
        if not INTERPRETED:
            pytest.skip("runs in Triton's interpreter, by test_interpreter.py")
        monkeypatch.setattr(fused, "_placed", lambda input: True)
        monkeypatch.setattr(check, "passes", lambda *arguments, **options: True)
    from stochnorm.nn.cuda import launch

    called: list[str] = []
    for name in ("moments", "apply", "products", "gradient"):
        function = getattr(launch, name)

        def spy(*arguments: object, name: str = name, function: object = function) -> object:
            called.append(name)
            return function(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(launch, name, spy)
    compare = check.compare

    def unseen(*arguments: Any, **options: Any) -> Any:
        before = len(called)
        try:
            return compare(*arguments, **options)
        finally:
            del called[before:]

    monkeypatch.setattr(check, "compare", unseen)
    return called
