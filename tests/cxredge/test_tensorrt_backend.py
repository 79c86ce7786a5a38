"""The TensorRT backend on a made GPU with a made TensorRT: every version, every failure, threads, and no leak."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxredge.backends import StageTimed
from cxredge.backends.tensorrt import TensorRTBackend
from cxredge.backends.tensorrt_lane import MOST_GRAPHS
from cxredge.backends.tensorrt_log import LOGGER, logger_for
from cxredge.cuda.errors import CudaError
from cxredge.engine.flavour import Flavour, FlavourChoice
from cxredge.engine.record import EngineRecord, sidecar_path
from cxredge.errors import BackendError, EngineError

from .conftest import SIZE, contract_for
from .fake_gpu import DEVICE, CUresult, FakeGpu, host_context, install
from .fake_trt import VERSIONS, CudaGraphStrategy, FakeTrt, plan_bytes

NOTHING = FakeGpu().live()
RNG = np.random.default_rng(0)
Engine = Callable[..., Path]


def inputs_of(count: int) -> np.ndarray:
    return RNG.uniform(-1, 1, (count, 1, SIZE, SIZE)).astype(np.float32)


def assert_right(logits: np.ndarray, inputs: np.ndarray) -> None:
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, -inputs[:, 0] - np.float32(0.2))


@pytest.fixture
def gpu() -> Iterator[FakeGpu]:
    made = FakeGpu()
    yield made
    gc.collect()
    assert made.violations == []
    assert made.stack == []


@pytest.fixture
def world(gpu: FakeGpu, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> FakeTrt:
    """TensorRT 10.16 unless the test names another version."""
    made = FakeTrt(gpu, getattr(request, "param", "10.16"))
    install(monkeypatch, gpu, "bindings")

    def find(choice: FlavourChoice) -> Flavour:
        flavour = flavour_of(made)
        assert choice == flavour.name.replace("_", "-")
        return flavour

    monkeypatch.setattr("cxredge.backends.tensorrt.find_flavour", find)
    monkeypatch.setattr("cxredge.backends.tensorrt.find_device", lambda: DEVICE)
    return made


def flavour_of(world: FakeTrt) -> Flavour:
    name = "tensorrt_rtx" if world.version.startswith("rtx") else "tensorrt"
    return Flavour(name, VERSIONS[world.version], Hashable(world.module))


class Hashable:
    """A module, by identity."""

    def __init__(self, module: Any) -> None:
        self.__dict__.update(vars(module))


@pytest.fixture
def make_engine(tmp_path: Path, world: FakeTrt, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """``make_engine(plan=..., **record)`` writes a plan and its sidecar."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(content: bytes = plan_bytes(), **changes: Any) -> Path:
        flavour = flavour_of(world)
        fields: dict[str, Any] = {
            "model_sha256": hashlib.sha256(b"model").hexdigest(),
            "plan_sha256": hashlib.sha256(content).hexdigest(),
            "plan_bytes": len(content),
            "flavour": flavour.name,
            "version": flavour.version,
            "compute_capability": DEVICE.compute_capability,
            "batches": (1, 4, 16),
            "precision": "fp16",
            "contract": json.loads(contract_for().to_json()),
            "gpu_name": DEVICE.name,
        }
        plan = tmp_path / "darkness.plan"
        plan.write_bytes(content)
        sidecar_path(plan).write_text(EngineRecord(**{**fields, **changes}).to_json())
        return plan

    return make


@pytest.fixture
def backend(make_engine: Engine) -> Iterator[TensorRTBackend]:
    opened = TensorRTBackend(make_engine())
    yield opened
    opened.close()


every_version = pytest.mark.parametrize("world", sorted(VERSIONS), indirect=True)


@every_version
def test_logits_are_what_the_engine_computes(world: FakeTrt, gpu: FakeGpu, make_engine: Engine) -> None:
    backend = TensorRTBackend(make_engine())
    assert (backend.name, backend.contract) == ("tensorrt", contract_for())
    assert backend.lanes >= 2
    for count in (1, 4, 3, 16, 1, 16, 3, 4, 1):
        inputs = inputs_of(count)
        assert_right(backend.run(inputs), inputs)
    backend.close()
    gc.collect()
    assert gpu.live() == NOTHING
    assert world.alive == 0


@every_version
def test_batches_larger_than_the_largest_are_split(world: FakeTrt, make_engine: Engine) -> None:
    backend = TensorRTBackend(make_engine())
    inputs = inputs_of(41)
    assert_right(backend.run(inputs), inputs)
    backend.close()


def test_batches_smaller_than_the_smallest_are_filled_up(make_engine: Engine) -> None:
    backend = TensorRTBackend(make_engine(plan_bytes(batches=(3, 4, 8)), batches=(3, 4, 8)))
    for count in (1, 2, 3, 9):
        inputs = inputs_of(count)
        assert_right(backend.run(inputs), inputs)
    backend.close()


def test_results_stay_when_the_backend_runs_again(backend: TensorRTBackend) -> None:
    inputs = inputs_of(2)
    first = backend.run(inputs)
    for _ in range(2 * backend.lanes):
        backend.run(-inputs)
    assert_right(first, inputs)


def test_inputs_need_not_be_contiguous(backend: TensorRTBackend) -> None:
    turned = inputs_of(2).transpose(0, 1, 3, 2)
    assert_right(backend.run(turned), turned)


@pytest.mark.parametrize(
    "inputs", [inputs_of(1).astype(np.float64), inputs_of(1)[:, 0], inputs_of(1)[:, :, :32], inputs_of(1)[:0]]
)
def test_inputs_that_do_not_fit_are_refused(inputs: np.ndarray, backend: TensorRTBackend) -> None:
    with pytest.raises(BackendError, match="64, 64"):
        backend.run(inputs)


def test_the_stages_of_the_device_are_timed(backend: TensorRTBackend) -> None:
    assert isinstance(backend, StageTimed)
    inputs = inputs_of(20)
    for _ in range(4):
        logits, stages = backend.timed_run(inputs)
        assert_right(logits, inputs)
        assert set(stages) == {"host_to_device", "compute", "device_to_host"}
        assert min(stages.values()) > 0


def test_ten_thousand_calls_leave_the_memory_as_it_was(gpu: FakeGpu, make_engine: Engine) -> None:
    backend = TensorRTBackend(make_engine(plan_bytes(size=8), contract=json.loads(contract_for(8).to_json())))
    inputs = RNG.uniform(-1, 1, (4, 1, 8, 8)).astype(np.float32)
    for count in (1, 2, 3, 4) * 2 * backend.lanes:
        backend.run(inputs[:count])
    before, used = gpu.live(), gpu.used
    for call in range(10_000):
        backend.run(inputs[: 1 + call % 4])
    assert (gpu.live(), gpu.used) == (before, used)
    assert backend.device_bytes() >= used
    assert_right(backend.run(inputs), inputs)
    backend.close()
    gc.collect()
    assert gpu.live() == NOTHING


def test_a_size_that_comes_again_is_a_graph(gpu: FakeGpu, world: FakeTrt, make_engine: Engine) -> None:
    backend = TensorRTBackend(make_engine(), lanes=1)
    backend.run(inputs_of(2))
    assert gpu.calls["cuGraphLaunch"] == 0
    for _ in range(3):
        inputs = inputs_of(2)
        assert_right(backend.run(inputs), inputs)
    assert gpu.calls["cuGraphLaunch"] == 3
    inputs = inputs_of(5)
    assert_right(backend.run(inputs), inputs)
    assert gpu.calls["cuGraphLaunch"] == 3, "another size has no graph yet"
    assert_right(backend.run(inputs[:2]), inputs[:2])
    assert gpu.calls["cuGraphLaunch"] == 4, "the graph is still there after another size"
    backend.close()


def test_after_warming_up_every_lane_has_its_graph(gpu: FakeGpu, world: FakeTrt, make_engine: Engine) -> None:
    backend = TensorRTBackend(make_engine(), lanes=3)
    backend.warm_up(2)
    assert gpu.live()["executables"] == 3
    plain = world.plain
    with ThreadPoolExecutor(8) as pool:
        for batch, logits in [(batch, pool.submit(backend.run, batch)) for batch in [inputs_of(2)] * 40]:
            assert_right(logits.result(), batch)
    assert world.plain == plain
    with ThreadPoolExecutor(4) as pool:  # who warms up at once does not wait for lanes that the other holds
        list(pool.map(backend.warm_up, [1, 2, 1000, 1000]))
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.warm_up(1)


def test_not_more_sizes_than_a_few_are_graphs(gpu: FakeGpu, make_engine: Engine) -> None:
    backend = TensorRTBackend(make_engine(), lanes=1)
    for _ in range(3):
        for count in range(1, 17):
            inputs = inputs_of(count)
            assert_right(backend.run(inputs), inputs)
    assert gpu.live()["executables"] == MOST_GRAPHS
    backend.close()


def test_graphs_and_plain_enqueues_give_the_same(gpu: FakeGpu, make_engine: Engine) -> None:
    plan, inputs = make_engine(), inputs_of(4)
    found = []
    for graphs in (True, False):
        backend = TensorRTBackend(plan, graphs=graphs)
        found += [backend.run(inputs) for _ in range(6)]
        backend.close()
        assert (gpu.calls["cuGraphLaunch"] > 0) == (graphs or gpu.calls["cuGraphLaunch"] > 0)
    assert all((one == found[0]).all() for one in found)


def fail_to_instantiate(gpu: FakeGpu, world: FakeTrt) -> None:
    gpu.fail("cuGraphInstantiate", CUresult.CUDA_ERROR_OUT_OF_MEMORY)


def fail_to_begin(gpu: FakeGpu, world: FakeTrt) -> None:
    gpu.fail("cuStreamBeginCapture", CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)


def be_uncapturable(gpu: FakeGpu, world: FakeTrt) -> None:
    world.uncapturable = True


def have_no_room_for_a_context(gpu: FakeGpu, world: FakeTrt) -> None:
    world.refused_contexts = 1


@pytest.mark.parametrize("spoil", [fail_to_instantiate, fail_to_begin, be_uncapturable, have_no_room_for_a_context])
def test_what_cannot_be_captured_is_enqueued_plainly(
    spoil: Callable[[FakeGpu, FakeTrt], None],
    gpu: FakeGpu,
    world: FakeTrt,
    make_engine: Engine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = TensorRTBackend(make_engine(), lanes=1)
    backend.run(inputs_of(2))
    spoil(gpu, world)
    with caplog.at_level(logging.INFO, "cxredge"):
        for _ in range(4):
            inputs = inputs_of(2)
            assert_right(backend.run(inputs), inputs)
    assert gpu.calls["cuGraphLaunch"] == 0
    assert caplog.text.count("no CUDA graph for batches of 2") == 1, "it is tried once and told once"
    backend.close()
    gc.collect()
    assert gpu.live() == NOTHING
    assert world.alive == 0


def test_without_cuda_bindings_all_is_enqueued_plainly(
    gpu: FakeGpu, world: FakeTrt, make_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, gpu, "pycuda")
    backend = TensorRTBackend(make_engine())
    for _ in range(6):
        inputs = inputs_of(2)
        assert_right(backend.run(inputs), inputs)
    backend.close()
    assert gpu.calls["cuStreamBeginCapture"] == 0
    gc.collect()
    assert gpu.live() == NOTHING


def test_pycuda_s_streams_are_captured_through_cuda_bindings(
    gpu: FakeGpu, make_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, gpu, "pycuda", "bindings")
    with host_context(gpu):
        backend = TensorRTBackend(make_engine())
        for _ in range(6):
            inputs = inputs_of(2)
            assert_right(backend.run(inputs), inputs)
        backend.close()
    assert gpu.calls["cuGraphLaunch"] > 0
    gc.collect()
    assert gpu.live() == NOTHING


@pytest.mark.parametrize("libraries", [("bindings",), ("pycuda",), ("pycuda", "bindings")], ids=str)
def test_eight_threads_get_what_one_gets(
    libraries: tuple[str, ...], gpu: FakeGpu, make_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, gpu, *libraries)
    backend = TensorRTBackend(make_engine())

    def work(seed: int) -> None:
        inputs = np.random.default_rng(seed).uniform(-1, 1, (1 + seed % 5, 1, SIZE, SIZE)).astype(np.float32)
        assert_right(backend.run(inputs), inputs)
        assert gpu.stack == []

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    backend.close()
    gc.collect()
    assert gpu.live() == NOTHING


def test_as_many_batches_as_there_are_lanes_are_under_way_at_once(world: FakeTrt, make_engine: Engine) -> None:
    backend = TensorRTBackend(make_engine())
    together = threading.Barrier(backend.lanes)
    world.before_enqueue = lambda: together.wait(30) and None
    inputs = inputs_of(1)
    with ThreadPoolExecutor(4) as pool:
        for logits in pool.map(lambda _: backend.run(inputs), range(4)):
            assert_right(logits, inputs)
    backend.close()


def test_a_host_application_keeps_its_own_context(gpu: FakeGpu, make_engine: Engine) -> None:
    with host_context(gpu):
        backend = TensorRTBackend(make_engine())
        inputs = inputs_of(3)
        for _ in range(5):
            assert_right(backend.run(inputs), inputs)
            assert gpu.stack == [0xBEEF]
        backend.close()


def test_a_closed_backend_refuses_to_run_and_closes_again_quietly(backend: TensorRTBackend) -> None:
    backend.run(inputs_of(1))
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.run(inputs_of(1))
    backend.close()


def test_a_backend_that_is_forgotten_gives_everything_back(gpu: FakeGpu, world: FakeTrt, make_engine: Engine) -> None:
    backend = TensorRTBackend(make_engine())
    for _ in range(4):
        backend.run(inputs_of(2))
    del backend
    gc.collect()
    assert gpu.live() == NOTHING
    assert world.alive == 0


def test_closing_waits_for_what_runs_and_refuses_what_waits(world: FakeTrt, make_engine: Engine) -> None:
    backend = TensorRTBackend(make_engine(), lanes=1)
    running, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        running.set()
        assert go_on.wait(30)

    world.before_enqueue = hold
    inputs = inputs_of(1)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(backend.run, inputs)
        assert running.wait(30)
        second = pool.submit(backend.run, inputs)
        closing = pool.submit(backend.close)
        with pytest.raises(BackendError, match="closed"):
            second.result(30)
        time.sleep(0.05)
        assert not closing.done()
        go_on.set()
        assert_right(first.result(30), inputs)
        closing.result(30)


def test_a_lane_is_not_waited_for_without_end(world: FakeTrt, make_engine: Engine) -> None:
    backend = TensorRTBackend(make_engine(), lanes=1, patience=0.05)
    running, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        running.set()
        assert go_on.wait(30)

    world.before_enqueue = hold
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(backend.run, inputs_of(1))
        assert running.wait(30)
        with pytest.raises(BackendError, match="all 1 lanes of the engine were busy"):
            backend.run(inputs_of(1))
        go_on.set()
        first.result(30)
    backend.close()


def test_an_enqueue_that_fails_is_told_and_the_next_one_goes(gpu: FakeGpu, world: FakeTrt, make_engine: Engine) -> None:
    backend = TensorRTBackend(make_engine(), lanes=1)
    world.refused_enqueues = 1
    inputs = inputs_of(2)
    with pytest.raises(BackendError, match=r"cannot enqueue a batch of 2: enqueueV3: made to fail"):
        backend.run(inputs)
    assert not any(stream.pending for stream in gpu.streams.values()), "copies are still under way in the buffers"
    assert_right(backend.run(inputs), inputs)
    backend.close()


def test_a_batch_that_tensorrt_refuses_is_told(make_engine: Engine, world: FakeTrt) -> None:
    backend = TensorRTBackend(make_engine(), lanes=1)
    lane = backend._pool._idle[0]
    lane._plain._context._plan = {**lane._plain._context._plan, "batches": (1, 1, 1)}
    with pytest.raises(BackendError, match=r"refuses a batch of 2: set_input_shape: .* outside of the profile"):
        backend.run(inputs_of(2))
    assert backend.run(inputs_of(1)).shape == (1, SIZE, SIZE)
    backend.close()


def test_a_lost_device_is_told_and_stays_lost(gpu: FakeGpu, make_engine: Engine) -> None:
    backend = TensorRTBackend(make_engine())
    inputs = inputs_of(2)
    backend.run(inputs)
    gpu.lose()
    for _ in range(3):
        with pytest.raises(CudaError, match=r"CUDA_ERROR_LAUNCH_FAILED; the GPU is lost .*start it again") as caught:
            backend.run(inputs)
        assert caught.value.lost
    backend.close()


def test_a_device_that_is_lost_during_a_run_is_the_reason_that_is_told(
    gpu: FakeGpu, world: FakeTrt, make_engine: Engine
) -> None:
    backend = TensorRTBackend(make_engine())
    world.before_enqueue = gpu.lose
    with pytest.raises(CudaError, match="the GPU is lost"):
        backend.run(inputs_of(2))
    backend.close()


CALLS = {"cuMemAlloc": 6, "cuMemHostAlloc": 4, "cuStreamCreate": 2, "cuEventCreate": 8}
"""Of a backend with two lanes."""


@pytest.mark.parametrize("nth", range(1, 10))
@pytest.mark.parametrize("function", CALLS)
def test_memory_that_does_not_suffice_is_told_and_given_back(
    function: str, nth: int, gpu: FakeGpu, world: FakeTrt, make_engine: Engine
) -> None:
    plan = make_engine()
    gpu.fail(function, CUresult.CUDA_ERROR_OUT_OF_MEMORY, nth)
    if nth > CALLS[function]:
        TensorRTBackend(plan).close()
        assert gpu.calls[function] == CALLS[function]
    else:
        with pytest.raises(BackendError, match="CUDA_ERROR_OUT_OF_MEMORY; close other programs on the GPU"):
            TensorRTBackend(plan)
    gc.collect()
    assert gpu.live() == NOTHING
    assert world.alive == 0


def test_a_gpu_that_is_too_small_is_told(make_engine: Engine, gpu: FakeGpu) -> None:
    gpu.total = 1 << 20
    with pytest.raises(BackendError, match="OUT_OF_MEMORY"):
        TensorRTBackend(make_engine())
    assert gpu.live() == NOTHING


def test_a_context_that_cannot_be_made_is_told_and_all_is_given_back(
    gpu: FakeGpu, world: FakeTrt, make_engine: Engine
) -> None:
    world.refused_contexts = 1
    with pytest.raises(BackendError, match="makes no execution context: no room for a context"):
        TensorRTBackend(make_engine())
    gc.collect()
    assert gpu.live() == NOTHING


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (b"not a plan", "cannot load it: the serialized plan file is not a plan file"),
        (plan_bytes(size=32), "its input is .*32, 32.*its contract says"),
        (plan_bytes(output=[-1, 2, 64, 64]), "its output is .*2, 64, 64"),
        (plan_bytes(dtype="HALF"), "its input is .*HALF"),
        (plan_bytes(batches=(1, 8, 32)), r"for batches \(1, 8, 32\), its sidecar says \(1, 4, 16\)"),
    ],
    ids=["damaged", "other size", "two classes", "half", "other batches"],
)
def test_a_plan_that_is_not_what_its_sidecar_says_is_refused(
    plan: bytes, message: str, gpu: FakeGpu, make_engine: Engine
) -> None:
    with pytest.raises(EngineError, match=rf"darkness\.plan: .*{message}"):
        TensorRTBackend(make_engine(plan))
    assert gpu.live() == NOTHING


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compute_capability": "8.6"}, "for compute capability 8.6, the GPU has 8.9"),
        ({"gpu_name": "NVIDIA L4"}, "built on NVIDIA L4"),
        ({"version": "10.3.0"}, "built by tensorrt 10.3.0"),
        ({"plan_bytes": 10_000}, "truncated"),
        ({"plan_sha256": "0" * 64}, "sha256 differs"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_a_sidecar_that_does_not_fit_is_refused_before_the_gpu_is_touched(
    change: dict[str, Any], message: str, gpu: FakeGpu, make_engine: Engine
) -> None:
    with pytest.raises(EngineError, match=rf"darkness\.plan: cannot run here: .*{message}.*build-engine"):
        TensorRTBackend(make_engine(**change))
    assert not gpu.calls


def test_a_plan_without_a_sidecar_is_refused(gpu: FakeGpu, make_engine: Engine) -> None:
    plan = make_engine()
    sidecar_path(plan).unlink()
    with pytest.raises(EngineError, match=r"darkness\.json: there is no such file"):
        TensorRTBackend(plan)
    assert not gpu.calls


@pytest.mark.parametrize("world", ["rtx-1.7"], indirect=True)
def test_tensorrt_for_rtx_says_itself_whether_a_plan_is_valid(
    gpu: FakeGpu, world: FakeTrt, make_engine: Engine
) -> None:
    world.invalid = True
    with pytest.raises(EngineError, match=r"not valid on this machine \(4\); build it again"):
        TensorRTBackend(make_engine())
    assert gpu.live() == NOTHING


@pytest.mark.parametrize("world", ["rtx-1.7"], indirect=True)
def test_tensorrt_for_rtx_captures_its_graphs_itself(gpu: FakeGpu, world: FakeTrt, make_engine: Engine) -> None:
    plan = make_engine()
    for graphs in (True, False):
        backend = TensorRTBackend(plan, graphs=graphs)
        for _ in range(4):
            inputs = inputs_of(2)
            assert_right(backend.run(inputs), inputs)
        backend.close()
    assert world.strategies == [CudaGraphStrategy.WHOLE_GRAPH_CAPTURE, CudaGraphStrategy.DISABLED]
    assert gpu.calls["cuStreamBeginCapture"] == 0


@pytest.mark.parametrize("world", ["rtx-1.7"], indirect=True)
def test_kernels_are_compiled_once_and_kept_for_the_next_process(
    world: FakeTrt, make_engine: Engine, tmp_path: Path
) -> None:
    plan = make_engine()
    for _ in range(2):
        backend = TensorRTBackend(plan)
        for count in (1, 4, 1, 4):
            backend.run(inputs_of(count))
        backend.close()
    assert world.compiled == [1, 4]
    (kernels,) = (tmp_path / "cache").rglob("kernels-*.bin")
    kernels.write_bytes(b"damaged")
    backend = TensorRTBackend(plan)
    backend.run(inputs_of(1))
    backend.close()
    assert world.compiled == [1, 4, 1]


def test_tensorrt_s_messages_go_to_logging(world: FakeTrt, caplog: pytest.LogCaptureFixture) -> None:
    from .fake_trt import Severity

    log = logger_for(Hashable(world.module))
    with caplog.at_level(logging.DEBUG, LOGGER.name):
        for severity in Severity:
            log.log(severity, f"of {severity.name}")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "of INTERNAL_ERROR"),
        ("ERROR", "of ERROR"),
        ("WARNING", "of WARNING"),
        ("INFO", "of INFO"),
        ("DEBUG", "of VERBOSE"),
    ]


@pytest.mark.parametrize("version", sorted(VERSIONS))
def test_the_made_modules_have_only_what_the_real_ones_have(version: str) -> None:
    world = FakeTrt(FakeGpu(), version)
    lists = world.api
    assert set(vars(world.module)) - {"__version__"} <= set(lists)
    for name, made in vars(world.module).items():
        if name in lists:
            own = {member for member in vars(made) if not member.startswith("_")}
            assert own <= set(lists[name]), name
