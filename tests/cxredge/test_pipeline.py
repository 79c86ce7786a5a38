"""The overlapped stages: order, errors in their place, bounded read-ahead, and nothing left running."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cxredge.errors import BackendError, InputError, OutputError
from cxredge.pipeline import BATCHES_WAITING, available_cores, run_pipeline


def read(item: int) -> int:
    time.sleep(0.002 * (item % 3))
    return item * 10


def infer(batch: list[int]) -> list[int]:
    time.sleep(0.001)
    return [prepared + 1 for prepared in batch]


def finish(item: int, prepared: int, logits: int) -> tuple[int, int, int]:
    time.sleep(0.002 * (item % 2))
    return item, prepared, logits


def run(
    items: Any,
    read: Callable[..., Any] = read,
    infer: Callable[..., Any] = infer,
    finish: Callable[..., Any] = finish,
    batch_size: int = 1,
    workers: int = 2,
    lanes: int = 1,
) -> Iterator[Any]:
    return run_pipeline(items, read, infer, finish, batch_size=batch_size, workers=workers, lanes=lanes)


def pipeline_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("cxredge-")]


@pytest.fixture(autouse=True)
def _no_threads_are_left() -> Iterator[None]:
    assert pipeline_threads() == []
    yield
    assert pipeline_threads() == []


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_every_item_comes_out_once_and_in_order(batch_size: int, workers: int, lanes: int) -> None:
    results = list(run(range(20), batch_size=batch_size, workers=workers, lanes=lanes))
    assert results == [(item, item * 10, item * 10 + 1) for item in range(20)]


def test_no_items_give_no_results() -> None:
    assert list(run([])) == []


def test_batches_have_the_asked_size_and_a_rest() -> None:
    sizes = []

    def recording(batch: list[int]) -> list[int]:
        sizes.append(len(batch))
        return infer(batch)

    list(run(range(10), infer=recording, batch_size=4))
    assert sizes == [4, 4, 2]


def test_read_errors_stand_in_their_place_and_never_reach_inference() -> None:
    seen = []

    def failing(item: int) -> int:
        if item % 4 == 1:
            raise InputError(f"item {item}")
        return read(item)

    def recording(batch: list[int]) -> list[int]:
        seen.extend(batch)
        return infer(batch)

    results = list(run(range(10), read=failing, infer=recording, batch_size=3))
    for item, result in enumerate(results):
        if item % 4 == 1:
            assert isinstance(result, InputError)
            assert str(result) == f"item {item}"
        else:
            assert result == (item, item * 10, item * 10 + 1)
    assert sorted(seen) == [item * 10 for item in range(10) if item % 4 != 1]


def test_a_batch_of_which_nothing_could_be_read_is_not_inferred() -> None:
    def failing(item: int) -> int:
        raise InputError("unreadable")

    def unwanted(batch: list[int]) -> list[int]:
        raise AssertionError("an empty batch was inferred")

    assert all(isinstance(result, InputError) for result in run(range(4), read=failing, infer=unwanted, batch_size=2))


def test_finish_errors_stand_in_their_place() -> None:
    def failing(item: int, prepared: int, logits: int) -> int:
        if item == 2:
            raise OutputError("disk full")
        return item

    results = list(run(range(5), finish=failing, batch_size=2))
    assert isinstance(results[2], OutputError)
    assert [r for r in results if not isinstance(r, OutputError)] == [0, 1, 3, 4]


def test_an_inference_error_hits_its_whole_batch_and_no_other() -> None:
    def failing(batch: list[int]) -> list[int]:
        if 40 in batch:
            raise BackendError("device lost")
        return infer(batch)

    def sometimes_unreadable(item: int) -> int:
        if item == 5:
            raise InputError("unreadable")
        return read(item)

    results = list(run(range(9), read=sometimes_unreadable, infer=failing, batch_size=3))
    kinds = [type(result).__name__ for result in results]
    assert kinds == ["tuple"] * 3 + ["BackendError", "BackendError", "InputError"] + ["tuple"] * 3


@pytest.mark.parametrize("stage", ["read", "infer", "finish", "items"])
def test_an_error_of_ours_is_raised_and_stops_the_run(stage: str) -> None:
    def broken(*_: object) -> Any:
        raise ZeroDivisionError(stage)

    def items() -> Iterator[int]:
        yield from range(3)
        broken()

    stages = {} if stage == "items" else {stage: broken}
    with pytest.raises(ZeroDivisionError, match=stage):
        list(run(items() if stage == "items" else range(50), **stages))


def test_results_before_an_error_of_ours_are_still_given() -> None:
    def failing(item: int) -> int:
        if item == 3:
            raise ZeroDivisionError
        return read(item)

    results = run(range(10), read=failing)
    assert [next(results)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize(("batch_size", "lanes"), [(1, 1), (4, 1), (2, 3)])
def test_a_slow_consumer_keeps_the_read_ahead_bounded(batch_size: int, lanes: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(10**9):
            taken += 1
            yield item

    bound = batch_size * lanes * (1 + BATCHES_WAITING)
    results = run(items(), batch_size=batch_size, lanes=lanes, workers=4)
    assert taken == 0, "nothing is read before the first result is asked for"
    for number in range(3 * batch_size):
        assert next(results)[0] == number
        time.sleep(0.01)
        assert taken <= number + 1 + bound
    results.close()


def test_stages_overlap() -> None:
    step = 0.02

    def slow(*arguments: Any) -> Any:
        time.sleep(step)
        return arguments[0]

    started = time.monotonic()
    list(run(range(15), read=slow, infer=slow, finish=slow, workers=2))
    assert time.monotonic() - started < 0.75 * 15 * 3 * step


def test_lanes_infer_at_once() -> None:
    together = threading.Barrier(3, timeout=10)

    def meeting(batch: list[int]) -> list[int]:
        together.wait()
        return batch

    assert len(list(run(range(6), infer=meeting, lanes=3, workers=3))) == 6


def test_one_lane_infers_one_batch_at_a_time() -> None:
    busy = threading.Lock()

    def exclusive(batch: list[int]) -> list[int]:
        assert busy.acquire(blocking=False), "two batches at once"
        time.sleep(0.002)
        busy.release()
        return batch

    assert len(list(run(range(12), infer=exclusive, workers=4))) == 12


def test_closing_early_stops_the_readers() -> None:
    reads = []

    def counting(item: int) -> int:
        reads.append(item)
        return read(item)

    results = run(range(10**6), read=counting, batch_size=2)
    next(results)
    results.close()
    assert pipeline_threads() == []
    assert len(reads) <= 2 * (1 + BATCHES_WAITING) + 2


def test_a_consumer_that_raises_leaves_no_threads() -> None:
    def consume() -> None:
        results = run(range(100))
        for number, _ in enumerate(results):
            if number == 2:
                results.close()
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()


def test_at_least_one_core_is_available() -> None:
    assert available_cores() >= 1
