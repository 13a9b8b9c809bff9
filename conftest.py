"""Names that the examples in docstrings use."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import stochnorm
import stochnorm.nn


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace |= {"torch": torch, "nn": torch.nn, "stochnorm": stochnorm, **vars(stochnorm.nn)}
    torch.manual_seed(0)
