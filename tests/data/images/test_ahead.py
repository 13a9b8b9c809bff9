"""Work done ahead by threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count

import pytest

from stochnorm.data.images.ahead import map_ahead


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stochnorm-ahead")]


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_results_come_in_order(ahead: int) -> None:
    assert list(map_ahead(lambda x: x * x, range(20), threads=3, ahead=ahead)) == [x * x for x in range(20)]
    assert threads() == []


def test_it_works_ahead_and_no_further() -> None:
    done = {number: threading.Event() for number in range(3)}
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in count():
            taken.append(number)
            yield number

    results = map_ahead(lambda number: done[number].set(), items(), threads=1, ahead=2)
    next(results)
    assert done[2].wait(60)  # without being asked for
    assert taken == [0, 1, 2]
    results.close()


def test_an_error_comes_in_its_place_and_ends_the_threads() -> None:
    results = map_ahead(lambda x: 1 // x, [2, 1, 0, 1], threads=2, ahead=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert threads() == []


def test_closing_it_ends_the_threads() -> None:
    results = map_ahead(str, count(), threads=2, ahead=4)
    assert next(results) == "0"
    assert threads() != []
    results.close()
    assert threads() == []
