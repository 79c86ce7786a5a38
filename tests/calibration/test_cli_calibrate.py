"""``cxredge calibrate``: what it prints, what it writes, and how it fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cxredge.cli import main
from cxredge.cli.calibrate import METHODS
from cxredge_calibration import options


def calibrate(*arguments: str | Path) -> Result:
    fixed = ("--threads", "1", "--count", "20", "--method", "minmax")
    return CliRunner().invoke(main, ["calibrate", *map(str, arguments), *fixed], env={"COLUMNS": "200"})


def test_layers_and_verdict_are_printed(model_file, dataset, tmp_path):
    result = calibrate(model_file, dataset, "-o", tmp_path / "new" / "a.int8.onnx")
    assert result.exit_code == 0, result.output
    for layer in ("plain", "down", "deep", "up"):
        assert any(layer in line and "INT8" in line for line in result.stdout.splitlines())
    assert "4 of 4 big convolutions in INT8 (100% of their work); 12 held-back images" in result.stdout
    assert "TPR drop" in result.stdout
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "a.int8.onnx",
        "a.int8.ranges.json",
        "a.int8.calibration.json",
        "a.int8.calibration.png",
    }


def test_the_model_that_is_written_runs(model_file, dataset, tmp_path):
    calibrate(model_file, dataset, "-o", tmp_path / "a.int8.onnx")
    result = CliRunner().invoke(main, ["evaluate", str(tmp_path / "a.int8.onnx"), str(dataset), "--split", "test"])
    assert result.exit_code == 0, result.output
    assert "0.9" in result.stdout


@pytest.mark.parametrize("wrong", ["model", "samples", "gate", "output"])
def test_errors_are_one_line_and_exit_code_1(wrong, model_file, dataset, tmp_path):
    arguments: list[str | Path] = [model_file, dataset, "-o", tmp_path / "a.onnx"]
    if wrong == "model":
        arguments[0] = tmp_path / "absent.onnx"
    elif wrong == "samples":
        arguments[1] = tmp_path / "absent"
    elif wrong == "gate":
        arguments += ["--max-drop", "0", "--least-quantised", "1"]
    else:
        (tmp_path / "file").touch()
        arguments[3] = tmp_path / "file" / "a.onnx"
    result = calibrate(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    line = result.stderr.splitlines()[-1]
    assert line.startswith("cxredge: ")
    assert not (tmp_path / "a.onnx").exists()


def test_wrong_usage_is_exit_code_2(model_file, dataset, tmp_path):
    assert calibrate(model_file, "-o", tmp_path / "a.onnx").exit_code == 2
    assert calibrate(model_file, dataset).exit_code == 2
    assert calibrate(model_file, dataset, "-o", tmp_path / "a.onnx", "--max-drop", "2").exit_code == 2


def test_without_the_extra_it_is_named(model_file, dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cxredge_calibration.calibrate", None)
    result = calibrate(model_file, dataset, "-o", tmp_path / "a.onnx")
    assert result.exit_code == 1
    assert "cxredge[calibration]" in result.stderr


def test_methods_are_those_of_the_package():
    assert METHODS == options.METHODS
