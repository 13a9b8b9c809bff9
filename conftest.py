"""Options of pytest, and the names that the examples in docstrings use."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch

import stochnorm
import stochnorm.nn

_TRITON = ("tiles", "forward", "backward", "launch", "autograd")
_INTEGRATIONS = {"lightning": "pytorch_lightning", "transformers": "transformers", "fastai": "fastai"}
collect_ignore = [] if find_spec("triton") else [f"src/stochnorm/nn/cuda/{name}.py" for name in _TRITON]
collect_ignore += [f"src/stochnorm/integrations/{name}.py" for name, of in _INTEGRATIONS.items() if not find_spec(of)]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device of the tests with the mark gpu: cpu (default) or cuda")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that run on a GPU too: those that take `device` or `job_device`. `make test-gpu` selects them."""
    for item in items:
        if not {"device", "job_device"}.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace |= {"torch": torch, "nn": torch.nn, "stochnorm": stochnorm, **vars(stochnorm.nn)}
    torch.manual_seed(0)
