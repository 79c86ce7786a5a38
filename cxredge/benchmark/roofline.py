"""The roofline: how fast a network could be on a device at best, to hold a measured time against.

The floor is the sum, over the layers, of the longer of two times: its arithmetic at the device's peak,
and its traffic at the memory's bandwidth (Williams et al., "Roofline", CACM 2009). Costs of layers
come from :mod:`cxredge_export.roofline_cost`. A CPU is measured; NVIDIA GPUs are looked up in
:data:`GPUS`, which holds NVIDIA's figures for dense arithmetic, half of the sparse ones where only those are
given. They agree with third parties' accounts of these documents; the documents themselves were not at hand:

- H100 and H200: data sheets "NVIDIA H100 Tensor Core GPU" and "NVIDIA H200 Tensor Core GPU".
- RTX 4090: "NVIDIA Ada GPU Architecture" white paper, appendix A; FP16 with FP16 accumulation (FP32: half).
- AGX Orin 64 GB: "Jetson AGX Orin Series Technical Brief" (the GPU's 170 sparse INT8 TOPS and 204.8 GB/s).
- Orin Nano 8 GB: data sheet "Jetson Orin Nano Series" (40 sparse INT8 TOPS and 68 GB/s, the 15 W mode; in the
  25 W mode of JetPack 6.1 the GPU and its memory are faster, 67 and 102, so that the floor is lower there).

It is a floor for direct convolution with every tensor in the device's memory: Winograd's algorithm needs
less arithmetic, and what stays in a cache less traffic, so a small network can come below it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cxredge.pipeline import available_cores

TERA, GIGA = 1e12, 1e9
JETSON_MODEL = Path("/proc/device-tree/model")
"""Where a Jetson says what it is; its ``nvidia-smi`` does not."""
MATRIX_SIDE = 384
"""Small, so that among many products some run undisturbed on a busy machine."""
THREAD_LIMITS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""What holds NumPy to one thread: on a busy machine two threads wait for each other."""
STREAM_BYTES = 64 << 20
"""Bytes that all cores together copy, more than caches hold."""
MEASURING_SECONDS = 1.0


@dataclass(frozen=True)
class LayerCost:
    """What one layer of a network costs, for a given batch.

    Attributes:
        name: of the layer.
        op: its ONNX operator.
        flops: multiplications and additions of its matrix arithmetic.
        bytes: read and written.
        precision: of the arithmetic, ``fp32``, ``fp16`` or ``int8``.
    """

    name: str
    op: str
    flops: float
    bytes: float
    precision: str


@dataclass(frozen=True)
class Roof:
    """What a device can do at best.

    Attributes:
        name: of the device.
        flops_per_second: peak by precision; one that is not known is left out.
        bytes_per_second: bandwidth of its memory.
        measured: whether the figures were measured here, or else published.
    """

    name: str
    flops_per_second: dict[str, float]
    bytes_per_second: float
    measured: bool

    def text(self) -> str:
        """One line that says what the floor rests on."""
        peaks = ", ".join(f"{name} {peak / TERA:.3g} TFLOP/s" for name, peak in self.flops_per_second.items())
        origin = "measured" if self.measured else "published"
        return f"floor: {self.name}, {peaks}, {self.bytes_per_second / GIGA:.3g} GB/s ({origin})"

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Floor:
    """The least time of a network on a device.

    Attributes:
        milliseconds: of one run.
        roof: what it was computed from.
    """

    milliseconds: float
    roof: Roof


def published(name: str, fp16: float, int8: float, gigabytes: float, fp32: float | None = None) -> Roof:
    """A GPU by its published TFLOP/s (TF32 for ``fp32``), INT8 TOP/s and GB/s."""
    peaks = {"fp16": fp16 * TERA, "int8": int8 * TERA}
    return Roof(name, peaks if fp32 is None else {"fp32": fp32 * TERA, **peaks}, gigabytes * GIGA, measured=False)


GPUS = (
    published("H200", 989.5, 1979, 4800, fp32=494.5),
    published("H100 PCIe", 756, 1513, 2000, fp32=378),
    published("H100", 989.5, 1979, 3350, fp32=494.5),
    published("RTX 4090", 330.3, 660.6, 1008, fp32=82.6),
    published("AGX Orin", 42.5, 85, 204.8),
    published("Orin Nano", 10, 20, 68),
)
"""Known GPUs by a part of the name that the driver gives them; the first that fits counts."""


def floor_of(costs: Iterable[LayerCost], roof: Roof) -> Floor | None:
    """The least time of layers one after another, or ``None`` where the roof at a precision is not known."""
    seconds = 0.0
    for cost in costs:
        traffic = cost.bytes / roof.bytes_per_second
        if cost.flops == 0:
            seconds += traffic
        elif cost.precision in roof.flops_per_second:
            seconds += max(traffic, cost.flops / roof.flops_per_second[cost.precision])
        else:
            return None
    return Floor(1e3 * seconds, roof)


def find_roof(backend: str) -> Roof | None:
    """The roof of the device that a backend runs on, or ``None`` where it is not known.

    Args:
        backend: name of a backend that runs model files.
    """
    if backend != "tensorrt":
        return measure_cpu()
    from cxredge.engine.device import find_device

    gpu = find_device()
    return None if gpu is None else find_gpu_roof(gpu.name)


def find_gpu_roof(name: str) -> Roof | None:
    """The entry of :data:`GPUS` for a GPU that its driver calls ``name``, or ``None``."""
    if "orin" in name.lower() and JETSON_MODEL.is_file():
        name = JETSON_MODEL.read_text(encoding="utf-8", errors="replace")
    return next((roof for roof in GPUS if roof.name.lower() in name.lower()), None)


@cache
def measure_cpu() -> Roof:
    """This machine's CPU: FP32 by NumPy's matrix product on one core times the cores, bandwidth by copying on all."""
    cores = available_cores()
    code = f"from {__name__} import matrix_flops; print(matrix_flops())"
    environment = {**os.environ, **dict.fromkeys(THREAD_LIMITS, "1")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return Roof(f"CPU, {cores} cores", {"fp32": cores * float(done.stdout)}, copied_bytes(cores), measured=True)


def matrix_flops() -> float:
    """FLOP/s of matrix products in this process, on as many threads as NumPy takes."""
    left, right = np.random.default_rng(0).random((2, MATRIX_SIDE, MATRIX_SIDE), np.float32)
    product = np.empty_like(left)
    return 2 * MATRIX_SIDE**3 / best_seconds(lambda: np.matmul(left, right, out=product))


def copied_bytes(cores: int) -> float:
    """Bytes a second, read and written, of copying on ``cores`` threads."""
    share = STREAM_BYTES // cores
    pairs = [(np.ones(share, np.uint8), np.zeros(share, np.uint8)) for _ in range(cores)]
    with ThreadPoolExecutor(cores) as pool:
        seconds = best_seconds(lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs)))
    return 2 * share * cores / seconds


def best_seconds(work: Callable[[], object]) -> float:
    """Shortest wall time of ``work`` among as many calls as fit :data:`MEASURING_SECONDS`, three at least."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < MEASURING_SECONDS:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)
