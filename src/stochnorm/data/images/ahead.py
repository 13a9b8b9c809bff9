"""Work that threads do ahead of whoever wants its results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["map_ahead"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[Result, None, None]:
    """``map``, by threads, in order, never more than ``ahead`` results before the one that is wanted.

    What the function raises is raised where its result would have come. Closing the iterator, which an exception does
    too, drops what has not begun and waits for the rest, so that no thread outlives it.

    Args:
        function: Called in the threads; with ``ahead`` 0 in the caller's own.
        items: Taken one by one, as room comes.
        threads: How many.
        ahead: How many results, finished or begun, may wait.

    Example:
        >>> list(map_ahead(str, range(3), threads=2, ahead=2))
        ['0', '1', '2']
    """
    if ahead < 1:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="stochnorm-ahead")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
