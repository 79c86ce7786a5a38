"""What ``cxredge doctor`` finds, and that it finds its way around what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxredge import __version__
from cxredge.diagnosis import diagnose, find_cache, find_distribution, find_gpu


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
