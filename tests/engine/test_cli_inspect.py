"""``cxredge inspect``: what is in a model file, and what would make an engine be rebuilt."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cxredge.bundle import bundled_model
from cxredge.cli import main
from cxredge.engine import inspection
from cxredge.engine.flavour import Flavour
from cxredge.engine.inspection import inspect_engine
from cxredge.engine.record import file_sha256, sidecar_path
from cxredge.errors import EngineError

from .conftest import PLAN, MadeDriver, make_record, write_engine


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT 10.16 is installed, as far as the inspection is told."""
    monkeypatch.setattr(inspection, "find_flavour", lambda choice: Flavour("tensorrt", "10.16.1.11", None))


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "edge.plan"
    write_engine(path, make_record(parity={"flipped_pixels": 1, "pixels": 1000}))
    return path


@pytest.mark.usefixtures("cache")
def test_a_model_is_shown_with_its_contract_and_layers(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    result = run(bundled_model(), "--json", tmp_path / "found.json")
    assert result.exit_code == 0, result.output
    shown = ("cxredge-edge", "a_self", "one lung logit a pixel", "jsrt Dice 0.97", "fp32 InstanceNormalization: 25")
    for text in shown:
        assert text in " ".join(result.output.split())
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["contract"]["name"] == "cxredge-edge"
    assert {layer["precision"] for layer in found["layers"]} == {"fp32"}
    assert found["engines"] == []


def test_the_engines_of_a_model_are_listed(cache: Path) -> None:
    write_engine(cache / "a.plan", make_record(model_sha256=file_sha256(bundled_model())))
    write_engine(cache / "b.plan")
    result = run(bundled_model())
    assert f"engine {cache / 'a.plan'}: fp16 for compute capability 8.9 by tensorrt 10.16.1.11" in result.output
    assert "b.plan" not in result.output


@pytest.mark.usefixtures("cache")
def test_without_onnx_the_contract_is_shown_and_the_extra_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cxredge_export.layers", None)
    result = run(bundled_model())
    assert result.exit_code == 0
    assert "cxredge-edge" in result.output
    assert "pip install 'cxredge[calibration]'" in result.output


@pytest.mark.usefixtures("tensorrt", "driver", "untouched")
def test_an_engine_that_fits_says_so(plan: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"model")
    result = run(plan, "--model", model)
    assert result.exit_code == 0, result.output
    assert "fits this machine" in result.output
    assert "1 of 1000 mask pixels flipped" in result.output
    assert "rebuilt" not in result.output


@pytest.mark.usefixtures("tensorrt")
def test_what_would_make_an_engine_be_rebuilt_is_told(plan: Path, driver: MadeDriver, tmp_path: Path) -> None:
    old = make_record(version="10.3.0", options={"strongly_typed": True, "tf32": True, "typed_by": "0.0.1"})
    sidecar_path(plan).write_text(old.to_json())
    driver.attributes[76] = 6
    plan.write_bytes(PLAN[:10])
    result = run(plan, "--model", bundled_model(), "--json", tmp_path / "found.json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
    assert "damaged: the plan is truncated: 10 of" in result.output
    reasons = found["rebuild"]
    for text in (
        "another model",
        "built by tensorrt 10.3.0, installed is 10.16.1.11",
        "the GPU has 8.6",
        "tf32 is True, this cxredge builds with False",
        "typed by cxredge 0.0.1",
        "parity",
    ):
        assert any(text in reason for reason in reasons), text
        assert text in result.output
    assert found["unknown"] == []
    assert "fits this machine" not in result.output


@pytest.mark.usefixtures("no_driver")
def test_what_cannot_be_told_is_said(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(choice: str) -> Flavour:
        raise EngineError(f"{choice} is not installed")

    monkeypatch.setattr(inspection, "find_flavour", missing)
    found = inspect_engine(plan)
    assert found.rebuild == found.damage == ()
    assert not found.usable
    assert len(found.unknown) == 3
    result = run(plan)
    assert "cannot be told here: whether it fits the installed TensorRT: tensorrt is not installed" in result.output
    assert "cannot be told here: whether it fits the GPU: there is no NVIDIA driver" in result.output
    assert "cannot be told here: whether its model has changed" in result.output


def test_a_plan_without_its_sidecar_is_told(tmp_path: Path) -> None:
    (tmp_path / "foreign.plan").write_bytes(PLAN)
    result = run(tmp_path / "foreign.plan")
    assert result.exit_code == 1
    assert "foreign.json: there is no such file, and without its sidecar nothing is known" in result.stderr


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = run(tmp_path / "none.onnx")
    assert result.exit_code == 1
    assert "none.onnx: there is no such file" in result.stderr
