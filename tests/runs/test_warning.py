"""Warnings shown in another way: within, and not after."""

from __future__ import annotations

import warnings

import pytest

from stochnorm.runs.warning import show_warnings, warnings_once


def test_a_warning_within_is_shown_by_the_function_alone(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[str, type[Warning]]] = []

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        seen.append((str(message), category))

    with show_warnings(show):
        warnings.simplefilter("always")
        warnings.warn("here", UserWarning, stacklevel=1)
    assert seen == [("here", UserWarning)]
    assert capsys.readouterr().err == ""


def test_function_and_filters_are_as_before_even_after_an_error() -> None:
    show, filters = warnings.showwarning, list(warnings.filters)
    with pytest.raises(ZeroDivisionError), show_warnings(lambda *_, **__: None):
        warnings.simplefilter("ignore")
        raise ZeroDivisionError
    assert warnings.showwarning is show
    assert warnings.filters == filters


def test_the_same_warning_is_shown_once() -> None:
    seen: list[str] = []
    with show_warnings(lambda message, *_, **__: seen.append(str(message))):
        warnings.simplefilter("always")
        with warnings_once():
            for text in ("skipped 3", "skipped 3", "skipped 4", "skipped 3"):
                warnings.warn(text, UserWarning, stacklevel=1)
        warnings.warn("skipped 3", UserWarning, stacklevel=1)
    assert seen == ["skipped 3", "skipped 4", "skipped 3"]
