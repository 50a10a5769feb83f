"""One map over images for every long loop, on any `concurrent.futures.Executor`."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_PENDING = 64
"""Most items handed to an executor whose results have not been taken yet; this bounds the memory.

An executor with many workers may say otherwise by an attribute `max_pending`.
"""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200


def map_images(
    fn: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    executor: Executor | None = None,
    in_order: bool = True,
    description: str = "",
) -> Iterator[Result]:
    """Yield `fn(item)` of each item with a progress bar.

    Args:
        fn: Called once per item; where `executor` uses processes, it, its items and results must be picklable.
        items: Taken only as they are needed, so that they may come from a generator that loads images.
        executor: Where to run; by default in this process, one item after the other.
        in_order: Yield results in the order of the items, or else each as soon as it is there.
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
    if executor is None:
        results = _one_by_one(fn, items)
    else:
        results = _ahead(fn, items, executor, _oldest if in_order else _finished)
    yield from tqdm(results, total=total, desc=description, unit="image", disable=None)


def _one_by_one(fn: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    for item in items:
        yield _naming(item, lambda item=item: fn(item))


def _ahead(
    fn: Callable[[Item], Result],
    items: Iterable[Item],
    executor: Executor,
    choose: Callable[[Iterable[Future[Result]]], Future[Result]],
) -> Iterator[Result]:
    """Keep some items ahead of the one whose result is waited for, `MAX_PENDING` unless the executor says otherwise."""
    pending: dict[Future[Result], Item] = {}
    try:
        for item in items:
            pending[executor.submit(fn, item)] = item
            while len(pending) >= getattr(executor, "max_pending", MAX_PENDING):
                future = choose(pending)
                yield _naming(pending.pop(future), future.result)
        while pending:
            future = choose(pending)
            yield _naming(pending.pop(future), future.result)
    finally:
        for future in pending:
            future.cancel()


def _oldest(pending: Iterable[Future[Result]]) -> Future[Result]:
    return next(iter(pending))


def _finished(pending: Iterable[Future[Result]]) -> Future[Result]:
    """Wait until one is finished."""
    return next(iter(wait(pending, return_when=FIRST_COMPLETED).done))


def _naming(item: object, result: Callable[[], Result]) -> Result:
    """Return the result; an error gets a note that names the item."""
    try:
        return result()
    except Exception as error:
        error.add_note(str(item) if isinstance(item, Path) else _SHORT.repr(item))
        raise
