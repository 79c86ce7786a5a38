"""Sidecars, plans and a made NVIDIA driver for the engines' tests."""

from __future__ import annotations

import ctypes
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cxredge.contract import Contract
from cxredge.engine import device
from cxredge.engine.order import BUILD_OPTIONS
from cxredge.engine.record import EngineRecord, sidecar_path

PLAN = b"a plan of TensorRT" * 100
TINY = Contract(name="tiny", width=2, input_size=32, code="a_seg", licence="none", precision="fp16")
CONTRACT = json.loads(TINY.to_json())


def make_record(plan: bytes = PLAN, **changes: Any) -> EngineRecord:
    """The sidecar of ``plan``, as if it had been built on an RTX 4090."""
    fields: dict[str, Any] = {
        "model_sha256": hashlib.sha256(b"model").hexdigest(),
        "plan_sha256": hashlib.sha256(plan).hexdigest(),
        "plan_bytes": len(plan),
        "flavour": "tensorrt",
        "version": "10.16.1.11",
        "compute_capability": "8.9",
        "batches": (1, 4, 16),
        "precision": "fp16",
        "contract": CONTRACT,
        "gpu_name": "NVIDIA GeForce RTX 4090",
        "driver": "580.65.06",
        "options": dict(BUILD_OPTIONS),
        "created": "2026-11-25T04:00:00+00:00",
    }
    return EngineRecord(**{**fields, **changes})


def write_engine(plan: Path, record: EngineRecord | None = None) -> EngineRecord:
    """Write the plan and its sidecar."""
    record = record or make_record()
    plan.parent.mkdir(parents=True, exist_ok=True)
    plan.write_bytes(PLAN)
    sidecar_path(plan).write_text(record.to_json())
    return record


class MadeDriver:
    """Answers the calls to libcuda and NVML of a machine with one GPU, and counts them."""

    def __init__(self, name: str = "NVIDIA GeForce RTX 4090", capability: str = "8.9", gpus: int = 1) -> None:
        self.name, self.gpus = name.encode(), gpus
        major, minor = capability.split(".")
        self.attributes = {device.MAJOR: int(major), device.MINOR: int(minor)}
        self.failing: dict[str, int] = {}
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., int]:
        answer = {
            "cuDeviceGetCount": lambda count: write(count, self.gpus),
            "cuDeviceGet": lambda handle, number: write(handle, number),
            "cuDeviceGetName": lambda text, size, handle: fill(text, self.name),
            "cuDeviceTotalMem_v2": lambda memory, handle: write(memory, 24 << 30),
            "cuDeviceGetAttribute": lambda value, number, handle: write(value, self.attributes[number]),
            "cuDriverGetVersion": lambda version: write(version, 13010),
            "nvmlSystemGetDriverVersion": lambda text, size: fill(text, b"580.65.06"),
        }.get(name, lambda *_: 0)

        def call(*arguments: Any) -> int:
            self.called.append(name)
            return self.failing.get(name) or int(answer(*arguments) or 0)

        return call


def write(pointer: Any, value: int) -> None:
    pointer._obj.value = value


def fill(buffer: ctypes.Array[ctypes.c_char], value: bytes) -> None:
    buffer.value = value


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> MadeDriver:
    """This machine has an NVIDIA GeForce RTX 4090, as far as the driver is asked."""
    made = MadeDriver()
    monkeypatch.setattr(device, "load_library", lambda name: made)
    return made


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has no NVIDIA driver."""

    def fail(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(device, "load_library", fail)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of engines."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cxredge" / "engines"


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No object of TensorRT may be made."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

    def refuse(*_: Any) -> None:
        raise AssertionError("a TensorRT object was made")

    for name in ("Builder", "Runtime", "Logger", "OnnxParser"):
        monkeypatch.setattr(trt, name, refuse)
