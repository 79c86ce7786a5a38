"""What ``cxredge doctor`` finds, and that it finds its way around what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxredge import __version__, diagnosis
from cxredge.diagnosis import diagnose, find_cache, find_cuda_device, find_distribution, find_gpu, find_tensorrt
from cxredge.engine.device import Device
from cxredge.errors import EngineError


def test_every_subject_is_reported_once_with_a_detail() -> None:
    findings = list(diagnose())
    subjects = [finding.subject for finding in findings]
    assert len(subjects) == len(set(subjects))
    assert all(finding.detail for finding in findings)
    assert findings[0].detail == __version__
    assert {"Python", "NVIDIA GPU", "Engine cache", "Bundled model"} <= set(subjects)


def test_what_every_installation_has_is_found() -> None:
    found = {finding.subject for finding in diagnose() if finding.found}
    assert {"cxredge", "Python", "ONNX Runtime (CPU backend)", "pydicom"} <= found


def test_a_distribution_that_is_missing_is_reported_by_name() -> None:
    finding = find_distribution("Abacus", "abacus-that-nobody-made")
    assert not finding.found
    assert "abacus-that-nobody-made" in finding.detail


def fake_nvidia_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_gpus_are_listed_as_the_driver_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, "echo 'Orin, 540.3, 8 GiB, 8.7'; echo 'H100, 550.1, 80 GiB, 9.0'", monkeypatch)
    finding = find_gpu()
    assert finding.found
    assert finding.detail == "Orin, 540.3, 8 GiB, 8.7; H100, 550.1, 80 GiB, 9.0"


@pytest.mark.parametrize("script", ["echo 'no devices' >&2; exit 9", "true"], ids=["fails", "lists nothing"])
def test_a_driver_without_a_gpu_is_no_gpu(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, script, monkeypatch)
    finding = find_gpu()
    assert not finding.found
    assert finding.detail


def test_no_driver_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no NVIDIA driver" in find_gpu().detail


def test_the_cache_is_where_the_platform_keeps_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    finding = find_cache()
    assert not finding.found
    assert "cxredge" in finding.detail
    assert finding.detail.endswith("engines, 0 engines")


def test_tensorrt_is_told_with_what_it_cross_builds_for() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    finding = find_tensorrt("TensorRT for RTX", "tensorrt-rtx")
    assert finding.found
    assert "cross-builds for compute capability 7.5, 8.0" in finding.detail


def test_a_tensorrt_that_cannot_be_used_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(choice: str) -> None:
        raise EngineError(f"{choice} 8.6.2 is too old")

    monkeypatch.setattr(diagnosis, "find_flavour", refuse)
    finding = find_tensorrt("TensorRT", "tensorrt")
    assert (finding.found, finding.detail) == (False, "tensorrt 8.6.2 is too old")


def test_the_device_of_cuda_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device("NVIDIA L4", "8.9", "580.65.06", 24 << 30)
    monkeypatch.setattr(diagnosis, "require_device", lambda: device)
    assert find_cuda_device().detail == "NVIDIA L4, compute capability 8.9, 24.0 GiB, driver 580.65.06"


def test_without_a_driver_there_is_no_device_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise EngineError("there is no NVIDIA driver on this machine")

    monkeypatch.setattr(diagnosis, "require_device", refuse)
    finding = find_cuda_device()
    assert not finding.found
    assert "no NVIDIA driver" in finding.detail
