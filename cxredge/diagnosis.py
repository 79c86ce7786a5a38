"""What is installed on this machine, for ``cxredge doctor`` and bug reports."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import platformdirs

from cxredge import __version__
from cxredge.backends import open_backend
from cxredge.bundle import bundled_model
from cxredge.errors import CxredgeError
from cxredge.pipeline import available_cores

DISTRIBUTIONS = {
    "ONNX Runtime (CPU backend)": "onnxruntime",
    "OpenVINO (CPU backend)": "openvino",
    "TensorRT": "tensorrt",
    "TensorRT for RTX": "tensorrt-rtx",
    "PyTorch (train, export)": "torch",
    "ONNX (export)": "onnx",
    "pydicom": "pydicom",
    "JPEG 2000 decoder": "pylibjpeg-openjpeg",
    "JPEG, JPEG-LS, JPEG lossless decoder": "python-gdcm",
}
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
    yield find_gpu()
    yield find_cache()
    yield find_model()


def find_distribution(subject: str, distribution: str) -> Finding:
    """Whether a Python distribution is installed, and in which version."""
    try:
        return Finding(subject, True, version(distribution))
    except PackageNotFoundError:
        return Finding(subject, False, f"{distribution} is not installed")


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


def find_cache() -> Finding:
    """The folder for engines."""
    folder = Path(platformdirs.user_cache_dir("cxredge"))
    return Finding("Engine cache", folder.is_dir(), str(folder))


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
