"""Work done ahead by threads."""

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
    """Map a function over items in threads, in order, at most `ahead` results before the one that is needed.

    An exception of the function is raised in place of its result. When the iterator is closed, also by an exception,
    calls that have not started are dropped and the others are finished, so that no thread outlives the iterator.

    Args:
        function: Function to call in the threads; in the calling thread if `ahead` is 0.
        items: Arguments, taken one by one.
        threads: Number of threads.
        ahead: Maximum number of results, finished or started, that wait.

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
