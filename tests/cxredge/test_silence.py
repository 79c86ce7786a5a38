"""Nothing of cxredge lets ONNX Runtime, OpenVINO or Ray report to anyone or keep an identifier of the device."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from cxredge.libraries.onnx_runtime import SWITCH
from cxredge.libraries.open_ray import QUIET

PROGRAM = Path(sys.executable).with_name("cxredge")
USERS = (
    "cxredge.backends.onnxruntime",
    "cxredge_calibration.ranges",
    "cxredge_export.precision",
    "cxredge_export.cost",
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def run(home: Path, *command: str | Path) -> str:
    """Run a command with everything that a program keeps of its own below ``home``; gives what it printed."""
    quiet = {SWITCH, *QUIET, "CI", "TF_BUILD", "JENKINS_URL"}  # with which the libraries keep silent by themselves
    environment = {name: value for name, value in os.environ.items() if name not in quiet and name[:4] != "XDG_"}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def kept(home: Path) -> list[str]:
    return [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("module", USERS)
def test_importing_what_uses_it_keeps_nothing(module: str, home: Path) -> None:
    if find_spec("onnx") is None:
        pytest.skip("onnx is not installed")
    code = f"import os, {module}, onnxruntime; print(os.environ.get({SWITCH!r}))"
    assert run(home, sys.executable, "-c", code) == "None\n"
    assert kept(home) == []


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_segmenting_keeps_nothing_but_results(backend: str, home: Path, tmp_path: Path) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    run(home, PROGRAM, "sample", tmp_path / "scans")
    run(home, PROGRAM, "segment", tmp_path / "scans", "-o", tmp_path / "out", "--backend", backend)
    assert kept(home) == []


def test_the_reporter_of_openvino_can_be_imported_afterwards(home: Path) -> None:
    if find_spec("openvino_telemetry") is None:
        pytest.skip("openvino_telemetry is not installed")
    code = "import cxredge.libraries.open_vino, openvino_telemetry; print(openvino_telemetry.Telemetry.__name__)"
    assert run(home, sys.executable, "-c", code) == "Telemetry\n"
    assert kept(home) == []


def test_a_value_that_the_host_has_set_stays(home: Path) -> None:
    code = (
        f"import os; os.environ[{SWITCH!r}] = '0'; import cxredge.libraries.onnx_runtime; print(os.environ[{SWITCH!r}])"
    )
    assert run(home, sys.executable, "-c", code) == "0\n"
    assert kept(home) == []


def test_ray_does_not_report_even_where_the_host_has_told_it_to(home: Path) -> None:
    if find_spec("ray") is None:
        pytest.skip("ray is not installed")
    code = """
import os
os.environ["RAY_USAGE_STATS_ENABLED"] = "1"
from cxredge.libraries.open_ray import import_silently, quiet
with quiet(own_cluster=True):
    import_silently()
    from ray._common.usage.usage_lib import usage_stats_enabled
    print(usage_stats_enabled())
print(usage_stats_enabled(), os.environ.get("RAY_AUTH_TOKEN"))
"""
    assert run(home, sys.executable, "-c", code) == "False\nTrue None\n"
    assert kept(home) == []


def test_segmenting_with_ray_keeps_nothing_but_results(home: Path, tmp_path: Path) -> None:
    if find_spec("ray") is None:
        pytest.skip("ray is not installed")
    run(home, PROGRAM, "sample", tmp_path / "scans")
    out = run(home, PROGRAM, "segment", tmp_path / "scans", "-o", tmp_path / "out", "--ray")
    assert kept(home) == []
    assert len(list((tmp_path / "out").glob("*.mask.png"))) == 4
    assert "raylet" not in out
