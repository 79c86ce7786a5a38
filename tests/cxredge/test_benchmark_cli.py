"""``cxredge benchmark``: the table, the JSON and the picture, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cxredge.backends import Backend, open_backend
from cxredge.cli import main
from cxredge.errors import BackendError, MissingExtraError

FIRST, OTHER = "onnxruntime", "openvino"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["benchmark", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, chest: Any) -> Path:
    folder = tmp_path_factory.mktemp("images")
    cv2.imwrite(str(folder / "chest.png"), chest)
    return folder


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, model_file: Path, images: Path) -> tuple[Result, Path]:
    """One benchmark of both CPU backends, and its folder."""
    for needed in ("openvino", "onnx", "matplotlib"):
        pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("benchmark")
    result = run(
        model_file, "--against", f"{FIRST},{OTHER}", "--batch", "1,2", "--images", images, "--repeats", 3,
        "--json", folder / "speed.json", "--figure", folder / "speed.png",
    )  # fmt: skip
    return result, folder


def test_everything_is_measured_for_every_contestant_and_batch_size(outcome: tuple[Result, Path]) -> None:
    result, folder = outcome
    assert result.exit_code == 0, result.output
    found = json.loads((folder / "speed.json").read_text())
    assert (found["repeats"], found["radiographs"]) == (3, 1)
    assert list(found["host_milliseconds"]) == ["decode", "preprocess", "postprocess", "write"]
    rows = found["results"]
    assert [(row["contestant"], row["batch"]) for row in rows] == [(FIRST, 1), (OTHER, 1), (FIRST, 2), (OTHER, 2)]
    for row in rows:
        assert list(row["stages"]) == ["compute"], "a CPU has no ways to and from a device"
        times = row["milliseconds"]
        assert 0 < times["p50"] <= times["p90"] <= times["p99"]
        assert row["images_per_second"] == pytest.approx(1e3 * row["batch"] / times["p50"])
        assert row["flipped_pixels"] == 0
        assert row["memory_bytes"]["device"] is None
        assert row["floor_milliseconds"] > 0
        assert row["floor_device"]["measured"]
    assert rows[0]["ratio"] == rows[2]["ratio"] == 1
    assert rows[2]["floor_milliseconds"] > rows[0]["floor_milliseconds"]


def test_the_table_shows_dashes_for_what_is_not_there(outcome: tuple[Result, Path]) -> None:
    lines = [line for line in outcome[0].output.splitlines() if line.startswith(f"│ {OTHER}")]
    assert len(lines) == 2
    assert [cell.strip() for cell in lines[0].split("│")][3:6:2] == ["–", "–"]


def test_the_picture_is_drawn(outcome: tuple[Result, Path]) -> None:
    picture = cv2.imread(str(outcome[1] / "speed.png"))
    assert picture.shape[1] == 1000
    assert picture.std() > 10


def test_another_model_is_compared_with_the_first(
    model_file: Path, make_model: Any, tmp_path: Path, images: Path
) -> None:
    other = make_model(tmp_path / "other.onnx")
    result = run(model_file, "--against", f"onnxruntime={other}", "--images", images, "--batch", 1, "--repeats", 1)
    assert result.exit_code == 0, result.output
    assert "onnxruntime other.onnx" in result.output


def test_files_of_one_name_are_told_apart_and_one_file_is_measured_once(
    model_file: Path, make_model: Any, tmp_path: Path, images: Path
) -> None:
    others = []
    for folder in ("a", "b", "b"):
        (tmp_path / folder).mkdir(exist_ok=True)
        others.append(f"onnxruntime={make_model(tmp_path / folder / 'm.onnx')}")
    file = tmp_path / "speed.json"
    options = ("--images", images, "--batch", 1, "--repeats", 1, "--json", file)
    assert run(model_file, "--against", ",".join(others), *options).exit_code == 0
    names = [row["contestant"] for row in json.loads(file.read_text())["results"]]
    assert names == ["onnxruntime", "onnxruntime m.onnx", f"onnxruntime m.onnx ({tmp_path / 'b'})"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint of width 1 for 64x64."""
    torch = pytest.importorskip("torch")
    from cxredge_train import networks
    from cxredge_train.checkpoint import save_weights
    from cxredge_train.config import TrainingConfig
    from cxredge_train.framework import TrainingState

    folder = tmp_path_factory.mktemp("checkpoint")
    config = TrainingConfig(network=networks.NetworkConfig(width=1, input_size=64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "CODE_GENERATOR_UNITS", 8)
        state = TrainingState(config, torch.device("cpu"))
        save_weights(folder, config, state, {"data_sha256": "", "commit": "", "seconds": 0, "iteration": 0})
    return folder


@pytest.mark.parametrize(
    "rival", ["torch", pytest.param("torch-compile", marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_a_model_is_compared_with_its_checkpoint(
    rival: str, model_file: Path, checkpoint: Path, images: Path, tmp_path: Path
) -> None:
    options = ("--checkpoint", checkpoint, "--images", images, "--batch", 1, "--repeats", 1)
    result = run(model_file, "--against", rival, *options, "--json", tmp_path / "speed.json")
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "speed.json").read_text())["results"]
    assert [row["contestant"] for row in rows] == ["onnxruntime", rival]
    assert rows[1]["milliseconds"]["p50"] > rows[0]["milliseconds"]["p50"], "a network against a single conv"
    assert rows[1]["floor_milliseconds"] is None


def test_models_with_inputs_of_different_sizes_are_not_compared(model_file: Path) -> None:
    result = run(model_file, "--against", "onnxruntime=" + str(bundled()))
    assert result.exit_code == 1
    assert "takes inputs of 256 pixels, onnxruntime of 64" in result.output


def bundled() -> Path:
    from cxredge.bundle import bundled_model

    return bundled_model()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--against", "abacus"), "'abacus' is not one of"),
        (("--against", "torch"), "needs --checkpoint"),
        (("--batch", "1,0"), "'1,0' is not a list of numbers"),
        (("--batch", "many"), "'many' is not a list of numbers"),
    ],
)
def test_wrong_options_are_refused_as_usage(arguments: tuple[str, ...], message: str, model_file: Path) -> None:
    result = run(model_file, *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_a_folder_without_radiographs_is_refused(model_file: Path, tmp_path: Path) -> None:
    result = run(model_file, "--images", tmp_path)
    assert result.exit_code == 1
    assert "no radiographs" in result.output


def test_a_missing_backend_is_asked_for_before_anything_is_measured(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "cxredge.backends.openvino", raising=False)
    monkeypatch.delitem(sys.modules, "cxredge.libraries.open_vino", raising=False)
    result = run(model_file, "--against", "openvino")
    assert result.exit_code == 1
    assert "cxredge[openvino]" in result.output


def test_a_picture_without_matplotlib_is_refused_before_anything_is_measured(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "cxredge.benchmark.figure", raising=False)
    result = run(model_file, "--figure", tmp_path / "x.png")
    assert result.exit_code == 1
    assert "cxredge[evaluate]" in result.output


def test_without_onnx_everything_but_the_floor_is_measured(
    model_file: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "cxredge_calibration.model_file", "cxredge_export.roofline_cost"):
        monkeypatch.setitem(sys.modules, name, None)
    result = run(model_file, "--images", images, "--batch", 1, "--repeats", 1)
    assert result.exit_code == 0, result.output
    assert "no roofline floor" in result.output
    assert "cxredge[calibration]" in result.output


def test_every_backend_is_closed_even_where_one_fails(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Backend] = []

    def opening(model: Path, name: Any = "auto") -> Backend:
        if name == "openvino":
            raise MissingExtraError("the OpenVINO backend", "openvino")
        opened.append(open_backend(model, name))
        return opened[-1]

    monkeypatch.setattr("cxredge.cli.benchmark.open_backend", opening)
    assert run(model_file, "--against", "openvino").exit_code == 1
    assert len(opened) == 1
    with pytest.raises(BackendError, match="closed"):
        opened[0].run(np.zeros((1, 1, 64, 64), np.float32))
