from __future__ import annotations

import pytest

from stochnorm.methods.catalogue import METHODS, check_method


def test_sums_come_in_the_catalogues_order() -> None:
    assert check_method("bss+delta + stochnorm") == ("stochnorm", "delta", "bss")
    assert check_method("vanilla") == ("vanilla",)
    assert check_method("vanilla+l2sp") == ("l2sp",)
    assert check_method("StochNorm+L2SP") == ("stochnorm", "l2sp")
    assert all(check_method(name) == (name,) for name in METHODS)


@pytest.mark.parametrize(("method", "message"), [
    ("stochnrom", "unknown method 'stochnrom' in 'stochnrom', did you mean stochnorm[?]"),
    ("batchnorm+bss", "unknown method 'batchnorm' in 'batchnorm[+]bss', did you mean vanilla[?]"),
    ("L2-SP", "did you mean l2sp[?]"), ("", "unknown method ''"), ("bss+bss", "duplicate method bss"),
    ("bin+l2sp+stochnorm", "bin and stochnorm both change the normalization"),
])  # fmt: skip
def test_what_cannot_be_added_up(method: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_method(method)
