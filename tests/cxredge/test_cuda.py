"""The CUDA seam over both libraries, on a made GPU."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cxredge.cuda import Driver, current, open_driver
from cxredge.cuda.errors import LOST, CudaError
from cxredge.cuda.graphs import capture, graphs_at_hand
from cxredge.engine.device import find_device
from cxredge.errors import BackendError, EngineError, MissingExtraError

from .fake_gpu import PRIMARY, CUresult, FakeBindings, FakeGpu, host_context, install

NOTHING = FakeGpu().live()
VALUES = np.arange(64, dtype=np.float32)


@pytest.fixture
def gpu() -> Iterator[FakeGpu]:
    made = FakeGpu()
    yield made
    assert made.violations == []


@pytest.fixture(params=[("pycuda", "bindings"), ("bindings",), ("pycuda",)], ids=["both", "cuda-bindings", "PyCUDA"])
def driver(request: pytest.FixtureRequest, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> Driver:
    install(monkeypatch, gpu, *request.param)
    opened = open_driver()
    assert opened.name == ("pycuda" if "pycuda" in request.param else "cuda-bindings")
    return opened


def there_and_back(driver: Driver) -> np.ndarray:
    """Copy :data:`VALUES` to the device and back, and give everything back."""
    with current(driver):
        stream, address = driver.create_stream(), driver.allocate(VALUES.nbytes)
        pinned = [driver.allocate_pinned(VALUES.nbytes) for _ in range(2)]
        there, back = (memory.view(np.float32) for memory in pinned)
        there[:] = VALUES
        driver.upload(address, there, stream)
        driver.download(back, address, stream)
        driver.synchronize(stream)
        found = back.copy()
        for memory in pinned:
            driver.free_pinned(memory)
        driver.free(address)
        driver.destroy_stream(stream)
    return found


def test_what_is_copied_there_comes_back_and_everything_is_given_back(driver: Driver, gpu: FakeGpu) -> None:
    np.testing.assert_array_equal(there_and_back(driver), VALUES)
    assert gpu.live() == {**NOTHING, "retained": 1}
    driver.close()
    driver.close()
    assert gpu.live() == NOTHING


def test_copies_are_asynchronous(driver: Driver) -> None:
    with current(driver):
        stream, address, memory = driver.create_stream(), driver.allocate(64), driver.allocate_pinned(64)
        memory[:] = 1
        driver.upload(address, memory, stream)
        memory[:] = 2
        driver.download(memory, address, stream)
        driver.synchronize(stream)
        assert (memory == 2).all(), "the made GPU is to do its work when it is waited for"


def test_the_primary_context_is_current_only_inside(driver: Driver, gpu: FakeGpu) -> None:
    with current(driver):
        assert gpu.stack == [PRIMARY]
        with current(driver):
            assert gpu.stack[-1] == PRIMARY
        assert gpu.stack == [PRIMARY]
    assert gpu.stack == []


def test_a_host_application_keeps_its_own_context(driver: Driver, gpu: FakeGpu) -> None:
    with host_context(gpu):
        np.testing.assert_array_equal(there_and_back(driver), VALUES)
        assert gpu.stack == [0xBEEF]
        driver.close()
        assert gpu.stack == [0xBEEF]


def test_the_context_is_left_when_something_fails_inside(driver: Driver, gpu: FakeGpu) -> None:
    with host_context(gpu), pytest.raises(ValueError, match="ours"), current(driver):
        raise ValueError("ours")


def test_any_thread_may_use_what_another_made(driver: Driver, gpu: FakeGpu) -> None:
    with current(driver):
        address, stream, event = driver.allocate(64), driver.create_stream(), driver.create_event()

    def give_back() -> None:
        with current(driver):
            driver.free(address)
            driver.destroy_stream(stream)
            driver.destroy_event(event)
        driver.close()

    thread = threading.Thread(target=give_back)
    thread.start()
    thread.join()
    assert gpu.live() == NOTHING


def test_many_threads_at_once(driver: Driver, gpu: FakeGpu) -> None:
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: there_and_back(driver), range(40)):
            np.testing.assert_array_equal(found, VALUES)
    assert gpu.live() == {**NOTHING, "retained": 1}


def test_events_take_the_time(driver: Driver) -> None:
    with current(driver):
        stream, start, end = driver.create_stream(), driver.create_event(), driver.create_event()
        driver.record(start, stream)
        driver.record(end, stream)
        driver.synchronize(stream)
        assert driver.milliseconds(start, end) > 0


def test_memory_is_told(driver: Driver, gpu: FakeGpu) -> None:
    with current(driver):
        driver.allocate(1000)
        assert driver.memory() == (gpu.total - 1000, gpu.total)


def test_too_much_memory_is_told_with_what_to_do(driver: Driver, gpu: FakeGpu) -> None:
    with current(driver), pytest.raises(BackendError) as caught:
        driver.allocate(gpu.total + 1)
    assert str(caught.value).startswith(f"allocating {gpu.total + 1} bytes on the GPU failed: CUDA_ERROR_OUT_OF_MEMORY")
    assert "smaller largest batch" in str(caught.value)
    assert not caught.value.lost


@pytest.mark.parametrize("code", [CUresult.CUDA_ERROR_LAUNCH_FAILED, CUresult.CUDA_ERROR_ILLEGAL_ADDRESS])
def test_a_lost_device_is_told_apart(code: CUresult, driver: Driver, gpu: FakeGpu) -> None:
    with current(driver):
        stream = driver.create_stream()
        gpu.fail("cuStreamSynchronize", code)
        with pytest.raises(CudaError, match=rf"{code.name}; the GPU is lost to this process: start it again") as caught:
            driver.synchronize(stream)
    assert caught.value.lost
    assert caught.value.code in LOST


@pytest.mark.parametrize(
    "function",
    ["cuMemAlloc", "cuMemHostAlloc", "cuStreamCreate", "cuStreamSynchronize", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync"],
)
def test_every_failure_is_a_backend_error_with_its_name(function: str, driver: Driver, gpu: FakeGpu) -> None:
    gpu.fail(function, CUresult.CUDA_ERROR_INVALID_VALUE)
    with pytest.raises(CudaError, match="CUDA_ERROR_INVALID_VALUE"):
        there_and_back(driver)


@pytest.mark.parametrize("library", ["bindings", "pycuda"])
def test_a_driver_that_does_not_start_is_a_backend_error(
    library: str, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, gpu, library)
    gpu.fail("cuInit", CUresult.CUDA_ERROR_NO_DEVICE)
    with pytest.raises(CudaError, match=r"starting CUDA failed: CUDA_ERROR_NO_DEVICE.*CUDA_VISIBLE_DEVICES"):
        open_driver()


def test_without_a_driver_nothing_is_touched(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, gpu, "bindings")

    def none_here() -> None:
        raise EngineError("there is no NVIDIA driver on this machine")

    monkeypatch.setattr("cxredge.cuda.require_device", none_here)
    with pytest.raises(BackendError, match="no NVIDIA driver"):
        open_driver()
    assert not gpu.calls


def test_a_library_that_cannot_be_loaded_is_passed_over(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, gpu, "pycuda", "bindings")
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    assert open_driver().name == "cuda-bindings"


def test_the_only_library_s_problem_is_told(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, gpu, "pycuda")
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(BackendError, match="pycuda cannot be loaded"):
        open_driver()


def test_without_a_library_the_extra_is_named(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, gpu)
    with pytest.raises(MissingExtraError, match=r"cxredge\[tensorrt\]"):
        open_driver()


@pytest.fixture(params=[("pycuda", "bindings"), ("bindings",)], ids=["streams of PyCUDA", "cuda-bindings"])
def graph_driver(request: pytest.FixtureRequest, gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> Driver:
    install(monkeypatch, gpu, *request.param)
    return open_driver()


def test_a_graph_does_again_what_was_captured(graph_driver: Driver, gpu: FakeGpu) -> None:
    driver = graph_driver
    assert graphs_at_hand()
    with current(driver):
        stream, address = driver.create_stream(), driver.allocate(8)
        there, back = driver.allocate_pinned(8), driver.allocate_pinned(8)
        graph = capture(lambda: driver.upload(address, there, stream), stream)
        assert gpu.memory[address][0] == 0xAB, "capturing is not running"
        for value in (3, 4):
            there[:] = value
            graph.launch(stream)
            driver.download(back, address, stream)
            driver.synchronize(stream)
            assert (back == value).all()
        graph.close()
    assert gpu.live()["graphs"] == gpu.live()["executables"] == 0


@pytest.mark.parametrize("function", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_a_graph_that_cannot_be_captured_leaves_the_stream_as_it_was(
    function: str, graph_driver: Driver, gpu: FakeGpu
) -> None:
    with current(graph_driver):
        stream = graph_driver.create_stream()
        gpu.fail(function, CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
        with pytest.raises(CudaError, match="STREAM_CAPTURE_UNSUPPORTED"):
            capture(lambda: None, stream)
        gpu.streams[stream].captured = None  # the made driver left it in place when the call itself failed
        graph_driver.synchronize(stream)
    assert gpu.live()["graphs"] == gpu.live()["executables"] == 0


def test_work_that_fails_ends_the_capture(graph_driver: Driver, gpu: FakeGpu) -> None:
    def work() -> None:
        raise BackendError("ours")

    with current(graph_driver):
        stream = graph_driver.create_stream()
        with pytest.raises(BackendError, match="ours"):
            capture(work, stream)
        assert gpu.streams[stream].captured is None
        graph_driver.synchronize(stream)


def test_without_cuda_bindings_there_are_no_graphs(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, gpu, "pycuda")
    assert not graphs_at_hand()


def functions_of_the_made_module() -> list[str]:
    return [name for name in vars(FakeBindings) if name.startswith("cu")]


@pytest.mark.parametrize("name", functions_of_the_made_module())
def test_the_made_functions_take_what_the_real_ones_take(name: str) -> None:
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    made = list(inspect.signature(vars(FakeBindings)[name]).parameters)[1:]
    assert made == list(inspect.signature(getattr(real, name)).parameters)


@pytest.mark.parametrize("name", functions_of_the_made_module())
def test_the_real_functions_take_plain_numbers(name: str) -> None:
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    if find_device() is not None:
        pytest.skip("with a GPU the made handles would be used; tests/gpu uses real ones")
    parameters = list(inspect.signature(getattr(real, name)).parameters)
    mode = real.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    arguments = [mode if parameter == "mode" else 64 for parameter in parameters]
    with pytest.raises(Exception, match=r"libcuda|driver") as caught:
        getattr(real, name)(*arguments)
    assert not isinstance(caught.value, TypeError | ValueError)
