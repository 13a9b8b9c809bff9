"""ELPV, from its package."""

from __future__ import annotations

from collections import Counter

import pytest

from stochnorm.data import read_source


def test_elpv_has_its_published_counts() -> None:
    pytest.importorskip("elpv_dataset")
    source = read_source("elpv")
    assert Counter(row.label for row in source.rows) == {
        "mono functional": 588,
        "mono defective": 486,
        "poly functional": 920,
        "poly defective": 630,
    }
    assert all((source.root / row.path).is_file() for row in source.rows)
