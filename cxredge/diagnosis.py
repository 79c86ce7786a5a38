"""What is installed on this machine, for ``cxredge doctor`` and bug reports."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from cxredge import __version__
from cxredge.backends import open_backend
from cxredge.bundle import bundled_model
from cxredge.engine.cache import cache_folder, kept_engines
from cxredge.engine.device import require_device
from cxredge.engine.flavour import FlavourChoice, find_flavour
from cxredge.errors import CxredgeError, EngineError
from cxredge.pipeline import available_cores

DISTRIBUTIONS = {
    "ONNX Runtime (CPU backend)": "onnxruntime",
    "OpenVINO (CPU backend)": "openvino",
    "Polygraphy (builds and compares engines)": "polygraphy",
    "CUDA bindings (runs engines)": "cuda-bindings",
    "PyCUDA (runs engines)": "pycuda",
    "PyTorch (train, export)": "torch",
    "ONNX (export)": "onnx",
    "pydicom": "pydicom",
    "JPEG 2000 decoder": "pylibjpeg-openjpeg",
    "JPEG, JPEG-LS, JPEG lossless decoder": "python-gdcm",
}
TENSORRT: dict[str, FlavourChoice] = {"TensorRT": "tensorrt", "TensorRT for RTX": "tensorrt-rtx"}
NVIDIA_QUERY = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader")
SECONDS_FOR_A_PROGRAM = 10


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for."""

    subject: str
    found: bool
    detail: str


def diagnose() -> Iterator[Finding]:
    """Look for everything that cxredge can use."""
    yield Finding("cxredge", True, __version__)
    yield Finding("Python", True, f"{platform.python_version()} on {platform.platform()}, {available_cores()} cores")
    for subject, distribution in DISTRIBUTIONS.items():
        yield find_distribution(subject, distribution)
    for subject, choice in TENSORRT.items():
        yield find_tensorrt(subject, choice)
    yield find_gpu()
    yield find_cuda_device()
    yield find_cache()
    yield find_model()


def find_distribution(subject: str, distribution: str) -> Finding:
    """Whether a Python distribution is installed, and in which version."""
    try:
        return Finding(subject, True, version(distribution))
    except PackageNotFoundError:
        return Finding(subject, False, f"{distribution} is not installed")


def find_tensorrt(subject: str, choice: FlavourChoice) -> Finding:
    """Whether a TensorRT is installed that engines can be built with, and what it builds for without the GPU."""
    try:
        flavour = find_flavour(choice)
    except EngineError as error:
        return Finding(subject, False, str(error))
    targets = ", ".join(flavour.capabilities)
    return Finding(
        subject, True, flavour.version + (f"; cross-builds for compute capability {targets}" if targets else "")
    )


def find_gpu() -> Finding:
    """The NVIDIA GPU and its driver, as ``nvidia-smi`` tells."""
    if shutil.which(NVIDIA_QUERY[0]) is None:
        return Finding("NVIDIA GPU", False, "no NVIDIA driver (nvidia-smi is not there)")
    try:
        done = subprocess.run(NVIDIA_QUERY, capture_output=True, text=True, timeout=SECONDS_FOR_A_PROGRAM, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("NVIDIA GPU", False, f"nvidia-smi failed: {error}")
    detail = "; ".join(done.stdout.split("\n")).strip("; ")
    return Finding("NVIDIA GPU", bool(detail), detail or "nvidia-smi lists no GPU")


def find_cuda_device() -> Finding:
    """The GPU that engines are built for and run on, as CUDA numbers them."""
    try:
        device = require_device()
    except EngineError as error:
        return Finding("CUDA device", False, str(error))
    detail = f"{device.name}, compute capability {device.compute_capability}, {device.memory / 2**30:.1f} GiB"
    return Finding("CUDA device", True, f"{detail}, driver {device.driver}")


def find_cache() -> Finding:
    """The folder for engines, and those in it."""
    folder = cache_folder()
    return Finding("Engine cache", folder.is_dir(), f"{folder}, {len(list(kept_engines()))} engines")


def find_model() -> Finding:
    """The bundled model, loaded as ``segment`` would."""
    try:
        backend = open_backend(bundled_model())
        contract = backend.contract
        backend.close()
    except CxredgeError as error:
        return Finding("Bundled model", False, str(error))
    detail = f"{contract.name}: width {contract.width}, {contract.code}, {contract.precision}, {bundled_model()}"
    return Finding("Bundled model", True, detail)
