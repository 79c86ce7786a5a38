"""``cxredge doctor``: a table that a bug report can carry."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from cxredge import __version__
from cxredge.cli import main


def test_doctor_lists_versions_backends_driver_cache_and_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0
    for word in (__version__, "Python", "ONNX Runtime", "TensorRT", "NVIDIA GPU", "Engine cache", "Bundled model"):
        assert word in result.output


def test_doctor_prints_paths_with_brackets_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("XDG_CACHE_HOME", "/tmp/caches[bold]")
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0
    assert "/tmp/caches[bold]" in result.output
