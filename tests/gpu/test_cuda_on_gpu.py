"""The CUDA seam on a real GPU, over each library that is installed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from importlib import import_module

import numpy as np
import pytest

from cxredge.cuda import IMPLEMENTATIONS, Driver, current, installed
from cxredge.cuda.graphs import capture, graphs_at_hand
from cxredge.engine.device import Device

VALUES = np.arange(1 << 20, dtype=np.float32)


@pytest.fixture(params=[library for library, _ in IMPLEMENTATIONS])
def driver(request: pytest.FixtureRequest, device: Device) -> Iterator[Driver]:
    if not installed(request.param):
        pytest.skip(f"{request.param} is not installed")
    opened: Driver = import_module(dict(IMPLEMENTATIONS)[request.param]).open_driver()
    yield opened
    opened.close()


def there_and_back(driver: Driver) -> np.ndarray:
    with current(driver):
        stream, address = driver.create_stream(), driver.allocate(VALUES.nbytes)
        start, end = driver.create_event(), driver.create_event()
        pinned = [driver.allocate_pinned(VALUES.nbytes) for _ in range(2)]
        there, back = (memory.view(np.float32) for memory in pinned)
        there[:] = VALUES
        driver.record(start, stream)
        driver.upload(address, there, stream)
        driver.download(back, address, stream)
        driver.record(end, stream)
        driver.synchronize(stream)
        found = back.copy()
        assert 0 < driver.milliseconds(start, end) < 1000
        for memory in pinned:
            driver.free_pinned(memory)
        for event in (start, end):
            driver.destroy_event(event)
        driver.free(address)
        driver.destroy_stream(stream)
    return found


def test_what_is_copied_there_comes_back(driver: Driver) -> None:
    np.testing.assert_array_equal(there_and_back(driver), VALUES)


def test_a_thread_without_a_context_may_use_it_and_close_it(driver: Driver) -> None:
    found: list[np.ndarray] = []

    def work() -> None:
        found.append(there_and_back(driver))
        driver.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0], VALUES)


def test_memory_is_given_back(driver: Driver) -> None:
    with current(driver):
        there_and_back(driver)
        before = driver.memory()[0]
        for _ in range(20):
            there_and_back(driver)
        assert before - driver.memory()[0] <= 2 << 20


def test_a_graph_does_again_what_was_captured(driver: Driver) -> None:
    if not graphs_at_hand():
        pytest.skip("cuda-bindings is not installed")
    with current(driver):
        stream, address = driver.create_stream(), driver.allocate(4096)
        there, back = driver.allocate_pinned(4096), driver.allocate_pinned(4096)
        there[:] = 0
        graph = capture(lambda: driver.upload(address, there, stream), stream)
        for value in (3, 4):
            there[:] = value
            graph.launch(stream)
            driver.download(back, address, stream)
            driver.synchronize(stream)
            assert (back == value).all()
        graph.close()
        for memory in (there, back):
            driver.free_pinned(memory)
        driver.free(address)
        driver.destroy_stream(stream)
