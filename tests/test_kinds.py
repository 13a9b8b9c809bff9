"""JSON is checked against types; what does not fit is named."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import pytest

from stochnorm.kinds import parse_json


class Point(TypedDict):
    x: float
    name: Literal["a", "b"]
    more: list[int | None]


class Loose(TypedDict, total=False):
    point: Point | None
    pair: tuple[int, float]
    by_name: dict[str, int]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", r"it must be Loose, got \[1\]"),
        ('{"point": 3}', "point must be Point or None, got 3"),
        ('{"point": {"x": 1, "name": "a"}}', "point.more is missing"),
        ('{"point": {"x": true, "name": "a", "more": []}}', "point.x must be float, got True"),
        ('{"point": {"x": 1, "name": "c", "more": []}}', "point.name must be a or b, got 'c'"),
        ('{"point": {"x": 1, "name": "a", "more": [1, "2"]}}', r"point.more\[1\] must be int or None, got '2'"),
        ('{"pair": [1]}', "pair must have 2 entries, got 1"),
        ('{"by_name": {"a": null}}', "by_name.a must be int, got None"),
        ('{"pair": [1, NaN]}', "NaN is no number"),
        ("[" * 100000, "nested too deeply"),
        ("{", "Expecting property name"),
    ],
)
def test_what_does_not_fit_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text, Loose)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{}", {}),
        ('{"point": null, "other": "left alone"}', {"point": None, "other": "left alone"}),
        ('{"pair": [1, 2], "by_name": {"a": 1}}', {"pair": [1, 2], "by_name": {"a": 1}}),
    ],
)
def test_what_fits_is_returned(text: str, value: Any) -> None:
    assert parse_json(text, Loose) == value
