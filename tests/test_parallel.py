"""One map for all long loops: in order, bounded, and naming the item that failed."""

import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from rdgap import parallel
from rdgap.parallel import map_images


@pytest.fixture(params=["here", "threads"])
def executor(request):
    if request.param == "here":
        yield None
    else:
        with ThreadPoolExecutor(3) as threads:
            yield threads


def late_if_first(item):
    time.sleep(0.05 if item == 0 else 0.0)
    return item * item


def test_results_come_in_the_order_of_the_items(executor):
    assert list(map_images(late_if_first, range(100), executor=executor)) == [item * item for item in range(100)]


def test_out_of_order_results_come_as_soon_as_they_are_there():
    release = threading.Event()

    def work(item):
        return item if item else release.wait(5) and item

    with ThreadPoolExecutor(2) as threads:
        results = map_images(work, range(4), executor=threads, in_order=False)
        assert sorted(next(results) for _ in range(3)) == [1, 2, 3]
        release.set()
        assert list(results) == [0]


def test_items_may_be_a_generator_or_none_at_all(executor):
    assert list(map_images(str, (item for item in "abc"), executor=executor)) == ["a", "b", "c"]
    assert list(map_images(str, [], executor=executor)) == []


def test_processes_serve_as_well():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        assert list(map_images(abs, [-2, 1, -3], executor=processes)) == [2, 1, 3]


@pytest.mark.parametrize("in_order", [True, False])
def test_only_a_bounded_number_of_items_is_taken_ahead(in_order, monkeypatch):
    monkeypatch.setattr(parallel, "MAX_PENDING", 4)
    taken = []

    def items():
        for item in range(20):
            taken.append(item)
            yield item

    with ThreadPoolExecutor(2) as threads:
        results = map_images(str, items(), executor=threads, in_order=in_order)
        ahead = [len(taken) - done for done, _ in enumerate(results)]
    assert ahead[0] == 4
    assert max(ahead) == 4
    assert taken == list(range(20))


def test_without_executor_an_item_is_taken_when_its_turn_comes():
    taken = []
    results = map_images(str, (taken.append(item) or item for item in range(5)))
    next(results)
    assert taken == [0]


@pytest.mark.parametrize("in_order", [True, False])
def test_an_error_out_of_order_names_the_item_that_failed(in_order):
    with ThreadPoolExecutor(2) as threads, pytest.raises(ZeroDivisionError) as caught:
        list(map_images(lambda item: 1 / item, [1.0, 2.0, 0.0, 3.0], executor=threads, in_order=in_order))
    assert caught.value.__notes__ == ["0.0"]


def test_an_error_keeps_its_type_and_names_the_item(executor):
    def fail(path):
        if path.name == "b.png":
            raise ValueError("too dark")
        return path.name

    results = map_images(fail, [Path("a.png"), Path("b.png"), Path("c.png")], executor=executor)
    assert next(results) == "a.png"
    with pytest.raises(ValueError, match="too dark") as caught:
        next(results)
    assert len(caught.value.__notes__) == 1
    assert "b.png" in caught.value.__notes__[0]


def test_long_items_are_named_shortly():
    with pytest.raises(ValueError, match="invalid literal") as caught:
        list(map_images(int, ["x" * 10_000]))
    assert len(caught.value.__notes__[0]) < 300


def test_after_an_error_what_has_not_started_is_cancelled():
    started, release = [], threading.Event()

    def work(item):
        started.append(item)
        if item == 0:
            raise ValueError("first")
        release.wait(5)

    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(ValueError, match="first"):
            list(map_images(work, range(30), executor=threads))
        release.set()
    assert len(started) <= 2


def test_the_bar_is_silent_when_standard_error_is_no_terminal(capfd):
    list(map_images(str, range(3), description="counting"))
    assert capfd.readouterr().err == ""
