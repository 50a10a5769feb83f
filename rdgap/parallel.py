"""One map over images for every long loop, on any `concurrent.futures.Executor`."""

from __future__ import annotations

import reprlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_PENDING = 64
"""Most items handed to an executor whose results have not been taken yet; this bounds the memory."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


def map_images(
    fn: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    executor: Executor | None = None,
    description: str = "",
) -> Iterator[Result]:
    """Yield `fn(item)` of each item, in the order of the items, with a progress bar.

    Args:
        fn: Called once per item; where `executor` uses processes, it, its items and results must be picklable.
        items: Taken only as they are needed, so that they may come from a generator that loads images.
        executor: Where to run; by default in this process, one item after the other.
        description: Label of the progress bar, which is silent when standard error is no terminal.

    Raises:
        Exception: What `fn` raised, with a note that names the item. Items not yet started are cancelled.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor(2) as threads:
        ...     list(map_images(abs, [3, -1, 2], executor=threads))
        [3, 1, 2]
    """
    from tqdm import tqdm

    total = len(items) if isinstance(items, Sized) else None
    results = _one_by_one(fn, items) if executor is None else _ahead(fn, items, executor)
    yield from tqdm(results, total=total, desc=description, unit="image", disable=None)


def _one_by_one(fn: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    for item in items:
        yield _naming(item, lambda item=item: fn(item))


def _ahead(fn: Callable[[Item], Result], items: Iterable[Item], executor: Executor) -> Iterator[Result]:
    """Keep up to `MAX_PENDING` items ahead of the one whose result is waited for."""
    pending: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            pending.append((item, executor.submit(fn, item)))
            if len(pending) == MAX_PENDING:
                yield _naming(*_oldest(pending))
        while pending:
            yield _naming(*_oldest(pending))
    finally:
        for _, future in pending:
            future.cancel()


def _oldest(pending: deque[tuple[Item, Future[Result]]]) -> tuple[Item, Callable[[], Result]]:
    item, future = pending.popleft()
    return item, future.result


def _naming(item: object, result: Callable[[], Result]) -> Result:
    """Return the result; an error gets a note that names the item."""
    try:
        return result()
    except Exception as error:
        error.add_note(str(item) if isinstance(item, Path) else _SHORT.repr(item))
        raise
