"""Lanes are had by one thread at a time; closing refuses who waits and waits for what runs."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cxredge.backends.lane_pool import LanePool
from cxredge.errors import BackendError


def test_no_lane_is_had_twice_at_once_and_none_is_lost() -> None:
    pool = LanePool(["a", "b", "c"])
    busy: set[str] = set()
    taken = {"a": 0, "b": 0, "c": 0}
    lock = threading.Lock()

    def work(_: int) -> None:
        with pool.lane() as lane:
            with lock:
                assert lane not in busy
                busy.add(lane)
            time.sleep(0.0002)
            with lock:
                busy.remove(lane)
                taken[lane] += 1

    with ThreadPoolExecutor(64) as threads:
        list(threads.map(work, range(2000)))
    assert sum(taken.values()) == 2000
    assert sorted(pool.close()) == ["a", "b", "c"]


def test_closing_lets_what_runs_finish_and_refuses_who_waits() -> None:
    pool = LanePool([1], owner="segmenter")
    running, go_on = threading.Event(), threading.Event()
    order = []

    def run() -> None:
        with pool.lane():
            running.set()
            go_on.wait()
            order.append("ran")

    def wait() -> None:
        with pytest.raises(BackendError, match="the segmenter is closed"), pool.lane():
            pytest.fail("a closed pool gave a lane")
        go_on.set()

    def close() -> None:
        pool.close()
        order.append("closed")

    threads = [threading.Thread(target=run)]
    threads[0].start()
    running.wait()
    threads += [threading.Thread(target=wait), *(threading.Thread(target=close) for _ in range(2))]
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert order == ["ran", "closed", "closed"]


def test_only_the_first_to_close_gets_the_lanes() -> None:
    pool = LanePool(["a", "b"])
    assert [sorted(pool.close()), pool.close()] == [["a", "b"], []]
    with pytest.raises(BackendError, match="the backend is closed"), pool.lane():
        pass


def test_a_lane_is_given_back_when_its_work_fails() -> None:
    pool = LanePool(["a"], patience=0.1)
    with pytest.raises(ZeroDivisionError), pool.lane():
        _ = 1 / 0
    with pool.lane() as lane:
        assert lane == "a"


def test_patience_ends() -> None:
    pool = LanePool(["a"], patience=0.05)
    with pool.lane(), pytest.raises(BackendError, match="lanes of the engine were busy"), pool.lane():
        pytest.fail("a lane was given twice")
