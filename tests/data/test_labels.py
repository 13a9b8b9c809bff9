"""Class names as numbers."""

from __future__ import annotations

import pytest

from stochnorm.data import encode_labels


def test_an_unknown_label_is_named() -> None:
    with pytest.raises(ValueError, match="unknown classes c, d; the classes are a, b"):
        encode_labels(["a", "d", "c"], ["a", "b"])
