"""The script that measures everything on a GPU: it says so without one, and no step takes another with it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from cxredge.engine.device import find_device
from cxredge.engine.flavour import Flavour

from .fake_gpu import DEVICE, FakeGpu, install
from .fake_trt import VERSIONS, FakeTrt, plan_bytes
from .test_tensorrt_backend import Hashable

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PROGRAM = """
import json, os, subprocess, sys, time
sys.path.insert(0, {benchmarks!r})
from gpu_steps import isolated

def fine():
    yield {{"a": 1}}
    yield {{"a": 1, "b": 2}}

def fails():
    yield {{"a": 1}}
    raise RuntimeError("out of memory")

def crashes():
    yield {{"a": 1}}
    os.abort()

def hangs():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield {{"child": child.pid}}
    time.sleep(600)

if __name__ == "__main__":
    print(json.dumps({{step.__name__: list(isolated(step, 20 if step is not hangs else 3))
                      for step in (hangs, crashes, fails, fine)}}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX")
def test_a_step_that_fails_crashes_or_hangs_keeps_what_it_found_and_the_next_is_done(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(benchmarks=str(BENCHMARKS)))
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["fine"] == [{"a": 1}, {"a": 1, "b": 2}]
    assert found["fails"] == [{"a": 1}, {"a": 1, "failed": "RuntimeError: out of memory (program.py:12)"}]
    assert found["crashes"] == [{"a": 1}, {"a": 1, "failed": "its process ended with exit code -6"}]
    first, last = found["hangs"]
    assert last == {**first, "failed": "it was stopped after 3 s"}
    assert not is_running(first["child"]), "what the step has started is stopped too"


def is_running(process: int) -> bool:
    status = Path(f"/proc/{process}/status")
    return status.is_file() and "State:\tZ" not in status.read_text()


def test_without_a_gpu_the_script_says_so(tmp_path: Path) -> None:
    if find_device() is not None:
        pytest.skip("there is a GPU")
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "-o", str(tmp_path / "gpu.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("nothing can be measured here: there is no NVIDIA driver")
    assert not (tmp_path / "gpu.json").exists()


@pytest.fixture
def script(polygraphy: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module, on a made GPU."""
    pytest.importorskip("onnx", reason="the script reads models")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module, made = import_module("gpu"), FakeGpu()
    install(monkeypatch, made, "bindings")
    flavour = Flavour("tensorrt", VERSIONS["10.16"], Hashable(FakeTrt(made).module))
    for name in ("cxredge.backends.tensorrt.find_flavour", "gpu.find_flavour"):
        monkeypatch.setattr(name, lambda *_: flavour)
    for name in ("cxredge.backends.tensorrt.find_device", "gpu.require_device"):
        monkeypatch.setattr(name, lambda: DEVICE)
    monkeypatch.setattr("cxredge.engine.order.build_plan", lambda *_: plan_bytes(batches=module.PROFILE))
    for name, value in {"SIZE": 64, "SECONDS_OF_WARM_UP": 0.0, "SECONDS_A_SERIES": 0.0, "WARM_UP": 1}.items():
        monkeypatch.setattr(module, name, value)
    return module


def test_an_engine_is_built_and_measured_batch_by_batch(
    script: Any, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "make_models", lambda folder, width: None)
    monkeypatch.setattr(script, "model_path", lambda folder, width, precision: model_file)
    every = [json.loads(json.dumps(one)) for one in script.engine(tmp_path, 16, "fp32", "auto")]
    assert [sorted(one.get("batches", {}), key=int) for one in every] == [
        [], ["1"], ["1", "8"], ["1", "8", "32"], ["1", "8", "32"]
    ]  # fmt: skip
    single = every[-1]["batches"]["1"]
    assert set(single["stages"]) == {"host_to_device", "compute", "device_to_host"}
    assert single["images_per_second"] > 0
    assert single["floor"] > 0
    assert list(every[-1]["without graphs"]) == ["1"]
    (line,) = script.summary({"engines": {"w16": {"batches": {1: single}}}})["w16"].values()
    assert "times the floor of" in line
    assert script.machine(DEVICE, "auto")["flavour"]["name"] == "tensorrt"


def test_what_failed_or_was_left_out_is_in_the_summary(script: Any) -> None:
    engines = {"w32 fp16": {"build_seconds": 1.0, "failed": "no"}, "w64 fp16": "left out: no time was left"}
    assert script.summary({"engines": engines, "torch": {}}) == {
        "w32 fp16": {"failed": "no"},
        "w64 fp16": "left out: no time was left",
    }


@pytest.mark.parametrize(
    ("batch", "compute", "floor", "aim"),
    [(1, 0.34, 0.05, "reached"), (1, 0.36, 0.05, "missed"), (1, 0.9, 0.31, "reached"), (32, 1.9, 1.0, "reached"),
     (32, 2.1, 1.0, "missed")],
)  # fmt: skip
def test_the_aim_is_that_of_the_design(batch: int, compute: float, floor: float, aim: str, script: Any) -> None:
    figures = {"stages": {"compute": {"p50": compute}}, "total": {"p50": 1.0}, "floor": floor}
    assert script.told(batch, figures).endswith(f"the aim is {aim}")
