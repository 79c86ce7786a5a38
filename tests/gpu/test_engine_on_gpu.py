"""Engines on a real GPU: built, proved, cached, and run from threads, graphs, a host application and the CLI."""

from __future__ import annotations

import hashlib
import inspect
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cxredge.backends import Backend, open_backend
from cxredge.backends.tensorrt import TensorRTBackend
from cxredge.backends.tensorrt_log import logger_for
from cxredge.bundle import bundled_model
from cxredge.cli import main
from cxredge.cuda import current, open_driver
from cxredge.engine.device import Device
from cxredge.engine.flavour import Flavour
from cxredge.engine.record import read_record, sidecar_path
from cxredge.errors import BackendError

LARGEST_FLIPPED_SHARE = {"fp32": 1e-4, "fp16": 1e-3, "int8": 2e-2}
"""Of mask pixels, against the FP32 model in ONNX Runtime; INT8's ranges are of made radiographs here."""
ROUNDING = 0.05
"""Largest logit difference of one FP16 engine's runs, which may sum in another order."""
CALLS = 10_000
TOLERATED_BYTES = 4 << 20
Build = Callable[..., Path]


def test_an_engine_segments_as_onnx_runtime_does(
    precision: str, build: Build, reference: Backend, inputs: np.ndarray, flavour: Flavour, report: dict[str, Any]
) -> None:
    started = time.perf_counter()
    plan = build(precision)
    seconds = time.perf_counter() - started
    record = read_record(sidecar_path(plan))
    assert record.precision == precision
    assert record.parity is not None, "build-engine has not proved the engine on this GPU"
    backend = TensorRTBackend(plan)
    logits, wanted = backend.run(inputs), reference.run(inputs)
    backend.close()
    assert wanted.max() > 1, "there are lungs in the radiographs"
    flipped = float(((logits > 0) != (wanted > 0)).mean())
    largest = float(np.abs(logits - wanted).max())
    report[f"{flavour.name} {precision}"] = {
        "build_and_proof_seconds": seconds,
        "plan_bytes": record.plan_bytes,
        "parity": record.parity,
        "flipped_share_against_fp32": flipped,
        "largest_difference_against_fp32": largest,
    }
    assert np.isfinite(logits).all()
    assert flipped <= LARGEST_FLIPPED_SHARE[precision]


def test_a_second_build_is_a_hit_and_another_profile_is_not(plan: Path, build: Build) -> None:
    before, started = plan.stat().st_mtime_ns, time.perf_counter()
    assert build() == plan
    assert plan.stat().st_mtime_ns == before
    assert time.perf_counter() - started < 5
    assert build(batches="1,2,2") != plan


def test_graphs_give_what_plain_enqueues_give(plan: Path, inputs: np.ndarray) -> None:
    found: dict[bool, list[np.ndarray]] = {}
    for graphs in (True, False):
        backend = TensorRTBackend(plan, graphs=graphs, lanes=1)
        found[graphs] = [backend.run(inputs[:count]) for count in (1, 3, 16, 1, 3, 16, 1, 3, 16)]
        backend.close()
    for graph, plain in zip(found[True], found[False], strict=True):
        np.testing.assert_allclose(graph, plain, atol=ROUNDING)


def test_a_batch_gives_what_single_runs_give(backend: TensorRTBackend, inputs: np.ndarray) -> None:
    singles = np.concatenate([backend.run(inputs[i : i + 1]) for i in range(len(inputs))])
    together = backend.run(np.concatenate([inputs, inputs[:3]]))
    np.testing.assert_allclose(together[:16], singles, atol=ROUNDING)
    np.testing.assert_allclose(together[16:], singles[:3], atol=ROUNDING)
    assert ((together[:16] > 0) != (singles > 0)).mean() < 1e-3


def test_eight_threads_get_what_one_gets(backend: TensorRTBackend, inputs: np.ndarray) -> None:
    order = [slice(start, start + 1 + start % 4) for start in range(12)] * 10
    sequential = [backend.run(inputs[part]) for part in order]
    with ThreadPoolExecutor(8) as pool:
        for found, wanted in zip(pool.map(lambda part: backend.run(inputs[part]), order), sequential, strict=True):
            np.testing.assert_allclose(found, wanted, atol=ROUNDING)


def test_a_host_application_keeps_its_own_context(plan: Path, inputs: np.ndarray, device: Device) -> None:
    cuda = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    assert cuda.cuInit(0)[0] == 0
    arguments = (None, 0, 0)[3 - len(inspect.signature(cuda.cuCtxCreate).parameters) :]  # 12.x takes two
    error, own = cuda.cuCtxCreate(*arguments)
    assert error == 0
    try:
        backend = TensorRTBackend(plan)
        for count in (1, 2, 2, 2):
            backend.run(inputs[:count])
            assert int(cuda.cuCtxGetCurrent()[1]) == int(own)
        backend.close()
        assert int(cuda.cuCtxGetCurrent()[1]) == int(own)
        error, address = cuda.cuMemAlloc(1 << 20)
        assert error == 0, "the host's context can be used as before"
        cuda.cuMemFree(address)
    finally:
        cuda.cuCtxDestroy(own)
    assert int(cuda.cuCtxGetCurrent()[1]) == 0


def test_ten_thousand_calls_leak_no_device_memory(plan: Path, inputs: np.ndarray, report: dict[str, Any]) -> None:
    driver, backend = open_driver(), TensorRTBackend(plan)

    def free() -> int:
        with current(driver):
            return driver.memory()[0]

    for _ in range(50):
        for count in (1, 2, 3):
            backend.run(inputs[:count])
    before = free()
    for call in range(CALLS):
        backend.run(inputs[: 1 + call % 3])
    lost = before - free()
    backend.close()
    given_back = free() - before
    driver.close()
    report["leak"] = {"calls": CALLS, "bytes_lost": lost, "bytes_given_back_at_close": given_back}
    assert lost <= TOLERATED_BYTES
    assert given_back > 0


def test_opening_and_closing_leaks_no_device_memory(plan: Path, inputs: np.ndarray) -> None:
    driver = open_driver()
    free = []
    for _ in range(8):
        backend = TensorRTBackend(plan)
        backend.run(inputs[:2])
        backend.close()
        with current(driver):
            free.append(driver.memory()[0])
    driver.close()
    assert free[1] - free[-1] <= TOLERATED_BYTES


def test_the_stages_are_timed_and_fit_in_the_whole(backend: TensorRTBackend, inputs: np.ndarray) -> None:
    for _ in range(5):
        backend.timed_run(inputs)
    started = time.perf_counter()
    _, stages = backend.timed_run(inputs)
    whole = 1e3 * (time.perf_counter() - started)
    assert min(stages.values()) > 0
    assert sum(stages.values()) <= whole
    assert backend.device_bytes() > 0


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_throughput_is_reported(
    batch: int, backend: TensorRTBackend, inputs: np.ndarray, flavour: Flavour, device: Device, report: dict[str, Any]
) -> None:
    part = inputs[:batch]
    runs = [backend.timed_run(part)[1]["compute"] for _ in range(110)][10:]
    started = time.perf_counter()
    with ThreadPoolExecutor(backend.lanes) as pool:
        list(pool.map(lambda _: backend.run(part), range(200)))
    rate = 200 * batch / (time.perf_counter() - started)
    figures = {"gpu": device.name, "compute_ms_p50": statistics.median(runs), "images_per_second": rate}
    report[f"{flavour.name} fp16 batch {batch}"] = figures
    assert rate > 0


def test_too_much_memory_is_told_and_the_gpu_goes_on(backend: TensorRTBackend, inputs: np.ndarray) -> None:
    driver = open_driver()
    with current(driver), pytest.raises(BackendError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        driver.allocate(2 * driver.memory()[1])
    driver.close()
    assert backend.run(inputs[:1]).shape == (1, 256, 256)


def test_a_closed_backend_refuses_to_run(plan: Path, inputs: np.ndarray) -> None:
    backend = TensorRTBackend(plan)
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.run(inputs[:1])


@pytest.mark.usefixtures("plan")
def test_auto_takes_the_engine_and_segment_runs_on_it(tmp_path: Path, inputs: np.ndarray) -> None:
    opened = open_backend(bundled_model())
    assert opened.name == "tensorrt"
    opened.close()
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, one in enumerate(inputs):
        Image.fromarray((127.5 * (one[0] + 1)).astype(np.uint8)).save(folder / f"{number:02}.png")
    masks = []
    for backend in ("tensorrt", "onnxruntime"):
        output = tmp_path / backend
        options = ["--backend", backend, "--no-build", "--batch-size", "4", "--no-overlay"]
        result = CliRunner().invoke(main, ["segment", str(folder), "-o", str(output), *options])
        assert result.exit_code == 0, result.output
        masks.append(np.stack([np.asarray(Image.open(path)) for path in sorted(output.rglob("*.mask.png"))]))
    assert masks[0].shape == masks[1].shape == (16, 256, 256)
    assert (masks[0] != masks[1]).mean() < 1e-3


def test_whether_a_plan_of_tensorrt_for_rtx_is_valid_here_is_recorded(
    plan: Path, flavour: Flavour, device: Device, report: dict[str, Any]
) -> None:
    trt = flavour.module
    if not hasattr(trt, "EngineValidity"):
        pytest.skip(f"{flavour.name} {flavour.version} does not tell")
    driver = open_driver()
    with current(driver):
        runtime = trt.Runtime(logger_for(trt))
        validity, diagnostics = runtime.get_engine_validity(plan.read_bytes())
    driver.close()
    found = {"compute_capability": device.compute_capability, "validity": str(validity), "diagnostics": diagnostics}
    report[f"{flavour.name} {flavour.version} validity"] = {**found, "cross_builds_for": flavour.capabilities}
    assert validity != trt.EngineValidity.INVALID


def test_a_plan_with_a_wrong_byte_is_refused(plan: Path, tmp_path: Path) -> None:
    content = bytearray(plan.read_bytes())
    content[len(content) // 2] ^= 1
    copy = tmp_path / "damaged.plan"
    copy.write_bytes(content)
    sidecar_path(copy).write_bytes(sidecar_path(plan).read_bytes())
    assert hashlib.sha256(content).hexdigest() != read_record(sidecar_path(copy)).plan_sha256
    result = CliRunner().invoke(main, ["segment", str(tmp_path), "-o", str(tmp_path / "out"), "--model", str(copy)])
    assert result.exit_code == 1
    with pytest.raises(Exception, match="sha256 differs"):
        TensorRTBackend(copy)
