"""Radiographs are handed over and segmented later: in order, cancellable, bounded, and nothing is left behind."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxredge import Segmentation, Segmenter
from cxredge.errors import BackendError, BusyError, InputError
from cxredge.submission import WAITING, Submissions


class Gate:
    """A call that waits for leave, and what has gone through it."""

    def __init__(self) -> None:
        self.started, self.leave = threading.Semaphore(0), threading.Event()
        self.done: list[Any] = []

    def __call__(self, item: Any) -> Any:
        self.started.release()
        assert self.leave.wait(10)
        self.done.append(item)
        return item


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def own(model_file: Path) -> Iterator[Segmenter]:
    with Segmenter.load(model_file, threads=1) as segmenter:
        yield segmenter


def submit_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("cxredge-")]


def test_a_future_gives_what_a_call_gives(own: Segmenter, chest: np.ndarray) -> None:
    future = own.submit(chest)
    assert isinstance(future, Future)
    np.testing.assert_array_equal(future.result(10).mask, own(chest).mask)


def test_a_future_gives_the_error_that_a_call_raises(own: Segmenter, tmp_path: Path) -> None:
    assert isinstance(own.submit(tmp_path / "absent.png").exception(10), InputError)
    assert isinstance(own.submit(np.zeros((64, 64))).exception(10), InputError)
    with pytest.raises(TypeError, match="int"):
        own.submit(3).result(10)


def test_many_threads_submit_and_each_gets_its_own(own: Segmenter, chest: np.ndarray) -> None:
    turned = [np.rot90(chest, turns) for turns in range(4)]
    expected = [own(one).mask for one in turned]
    failures = []

    def work(number: int) -> None:
        for _ in range(8):
            if not np.array_equal(own.submit(turned[number % 4]).result(30).mask, expected[number % 4]):
                failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_they_are_done_in_order_on_one_thread(gate: Gate) -> None:
    submissions: Submissions[int, int] = Submissions()
    gate.leave.set()
    futures = [submissions.submit(gate, number) for number in range(20)]
    wait(futures)
    assert gate.done == list(range(20))
    assert len(submit_threads()) == 1
    submissions.close()
    assert submit_threads() == []


def test_no_thread_is_there_before_something_is_submitted(model_file: Path) -> None:
    with Segmenter.load(model_file):
        assert submit_threads() == []


def test_what_waits_can_be_cancelled_and_is_let_go_of(gate: Gate) -> None:
    submissions: Submissions[np.ndarray, np.ndarray] = Submissions()
    first = submissions.submit(gate, np.zeros(3))
    gate.started.acquire()
    array = np.ones(3)
    kept = weakref.ref(array)
    second = submissions.submit(gate, array)
    del array
    assert kept() is not None
    assert second.cancel()
    assert kept() is None
    assert not first.cancel()
    gate.leave.set()
    assert first.result(10) is not None
    submissions.close()
    assert len(gate.done) == 1


def test_so_many_may_wait_and_not_one_more(gate: Gate) -> None:
    submissions: Submissions[int, int] = Submissions(most=3)
    futures = [submissions.submit(gate, number) for number in range(3)]
    with pytest.raises(BusyError, match="3 radiographs wait already"):
        submissions.submit(gate, 3)
    futures[2].cancel()
    futures[2] = submissions.submit(gate, 4)
    gate.leave.set()
    assert [future.result(10) for future in futures] == [0, 1, 4]
    for number in range(50):  # room comes back as they are done
        assert submissions.submit(gate, number).result(10) == number
    submissions.close()


def test_the_segmenter_holds_no_more_than_it_says(own: Segmenter, chest: np.ndarray) -> None:
    with ExitStack() as held:
        for _ in range(len(own._calls._idle)):
            held.enter_context(own._calls.lane())  # so that nothing goes on
        futures = [own.submit(chest) for _ in range(WAITING)]
        with pytest.raises(BusyError, match=r"stream\(\)"):
            own.submit(chest)
    assert {future.result(30).flags for future in futures} == {()}


def test_closing_finishes_what_runs_and_cancels_what_waits(gate: Gate) -> None:
    submissions: Submissions[int, int] = Submissions()
    running, waiting = submissions.submit(gate, 1), submissions.submit(gate, 2)
    gate.started.acquire()
    threading.Timer(0.05, gate.leave.set).start()
    submissions.close()
    assert (running.result(0), gate.done) == (1, [1])
    with pytest.raises(CancelledError):
        waiting.result(0)
    assert submit_threads() == []
    with pytest.raises(BackendError, match="closed"):
        submissions.submit(gate, 3)
    submissions.close()


def test_a_callback_may_submit_and_close(own: Segmenter, chest: np.ndarray) -> None:
    again: Future[Future[Segmentation]] = Future()
    closed = threading.Event()

    def resubmit(_: Future[Segmentation]) -> None:
        again.set_result(own.submit(chest))

    def close(_: Future[Segmentation]) -> None:
        own.close()
        closed.set()

    own.submit(chest).add_done_callback(resubmit)
    second = again.result(10)
    assert second.result(10).flags == ()
    own.submit(chest).add_done_callback(close)
    assert closed.wait(10)
    with pytest.raises(BackendError, match="the segmenter is closed"):
        own.submit(chest)
    for thread in threading.enumerate():
        if thread.name.startswith("cxredge-"):
            thread.join(10)
    assert submit_threads() == []


def test_a_segmenter_that_is_forgotten_ends_its_thread(model_file: Path, chest: np.ndarray) -> None:
    segmenter = Segmenter.load(model_file)
    segmenter.submit(chest).result(10)
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("cxredge-submit")]
    assert len(workers) == 1
    del segmenter
    workers[0].join(10)
    assert not workers[0].is_alive()


# asyncio


def test_coroutines_await_submissions(own: Segmenter, chest: np.ndarray) -> None:
    async def both() -> list[Segmentation]:
        futures = [asyncio.wrap_future(own.submit(one)) for one in (chest, np.rot90(chest))]
        return await asyncio.gather(*futures)

    first, second = asyncio.run(both())
    np.testing.assert_array_equal(first.mask, own(chest).mask)
    np.testing.assert_array_equal(second.mask, own(np.rot90(chest)).mask)


def test_the_event_loop_goes_on_while_a_radiograph_is_segmented(gate: Gate) -> None:
    submissions: Submissions[int, int] = Submissions()

    async def work() -> int:
        future = asyncio.wrap_future(submissions.submit(gate, 7))
        ticks = 0
        while not future.done():
            await asyncio.sleep(0.001)
            ticks += 1
            if ticks == 10:
                gate.leave.set()
        return ticks

    assert asyncio.run(work()) >= 10
    submissions.close()


def test_cancelling_the_awaiting_task_cancels_what_waits(gate: Gate) -> None:
    submissions: Submissions[int, int] = Submissions()

    async def work() -> None:
        submissions.submit(gate, 1)
        waiting = asyncio.wrap_future(submissions.submit(gate, 2))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.leave.set()

    asyncio.run(work())
    submissions.close()
    assert gate.done == [1]
