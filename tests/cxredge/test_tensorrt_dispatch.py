"""Which files and names run in TensorRT, what ``auto`` takes, and ``segment`` with an engine: on a made GPU."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cxredge import Segmenter
from cxredge.backends import open_backend
from cxredge.cli import main
from cxredge.contract import Contract
from cxredge.engine.flavour import Flavour, FlavourChoice
from cxredge.engine.record import EngineRecord, file_sha256, sidecar_path
from cxredge.errors import BackendError, EngineError, ModelError

from .fake_gpu import DEVICE, FakeGpu, install
from .fake_trt import VERSIONS, FakeTrt, plan_bytes
from .test_tensorrt_backend import Hashable

INPUTS = np.random.default_rng(0).uniform(-1, 1, (5, 1, 64, 64)).astype(np.float32)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of engines."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cxredge" / "engines"


@pytest.fixture
def gpu(polygraphy: None, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[FakeGpu]:
    """This machine has a GPU and TensorRT 10.16."""
    made = FakeGpu()
    install(monkeypatch, made, "bindings")
    flavour = Flavour("tensorrt", VERSIONS["10.16"], Hashable(FakeTrt(made).module))

    def find(choice: FlavourChoice = "auto", *, cross: bool = False) -> Flavour:
        if choice == "tensorrt-rtx":
            raise EngineError("tensorrt_rtx is not installed")
        return flavour

    for module in ("backends.tensorrt", "backends.engines", "engine.machine", "engine.build"):
        monkeypatch.setattr(f"cxredge.{module}.find_flavour", find)
    for name in ("backends.tensorrt.find_device", "engine.machine.find_device", "engine.build.find_device"):
        monkeypatch.setattr(f"cxredge.{name}", lambda: DEVICE)
    for name in ("backends.engines.require_device", "engine.build.require_device"):
        monkeypatch.setattr(f"cxredge.{name}", lambda: DEVICE)
    yield made
    assert made.violations == []


def write_engine(plan: Path, model: Path, contract: Contract, **changes: Any) -> Path:
    content = plan_bytes()
    fields: dict[str, Any] = {
        "model_sha256": file_sha256(model),
        "plan_sha256": hashlib.sha256(content).hexdigest(),
        "plan_bytes": len(content),
        "flavour": "tensorrt",
        "version": VERSIONS["10.16"],
        "compute_capability": DEVICE.compute_capability,
        "batches": (1, 4, 16),
        "precision": "fp16",
        "contract": json.loads(contract.to_json()),
        "gpu_name": DEVICE.name,
        "parity": {"flipped_pixels": 0},
    }
    plan.parent.mkdir(parents=True, exist_ok=True)
    plan.write_bytes(content)
    sidecar_path(plan).write_text(EngineRecord(**{**fields, **changes}).to_json())
    return plan


def require_no_paths(caplog: pytest.LogCaptureFixture, model: Path) -> None:
    """A log may go to a file of the host's: it names neither the model's folder nor the cache."""
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("cxredge")]
    assert ours
    assert not [message for message in ours if model.name in message or "/" in message or "\\" in message]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", ["auto", "tensorrt"])
@pytest.mark.parametrize("suffix", [".plan", ".engine", ".trt"])
def test_a_plan_runs_in_tensorrt(suffix: str, name: Any, tmp_path: Path, model_file: Path, contract: Contract) -> None:
    backend = open_backend(write_engine(tmp_path / f"darkness{suffix}", model_file, contract), name)
    assert backend.name == "tensorrt"
    np.testing.assert_array_equal(backend.run(INPUTS), -INPUTS[:, 0] - np.float32(0.2))
    backend.close()


@pytest.mark.usefixtures("gpu")
def test_no_other_backend_runs_a_plan(tmp_path: Path, model_file: Path, contract: Contract) -> None:
    plan = write_engine(tmp_path / "darkness.plan", model_file, contract)
    with pytest.raises(BackendError, match=r"darkness\.plan: is the plan of an engine"):
        open_backend(plan, "onnxruntime")


@pytest.mark.usefixtures("gpu")
def test_a_plan_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.plan: there is no such"):
        open_backend(tmp_path / "absent.plan")


@pytest.mark.usefixtures("gpu")
def test_auto_takes_the_engine_in_the_cache(
    cache: Path, model_file: Path, contract: Contract, caplog: pytest.LogCaptureFixture
) -> None:
    write_engine(cache / "a.plan", model_file, contract)
    with caplog.at_level(logging.INFO, "cxredge"):
        backend = open_backend(model_file)
    assert backend.name == "tensorrt"
    assert "runs as the engine a on TensorRT" in caplog.text
    require_no_paths(caplog, model_file)
    backend.close()
    named = open_backend(model_file, "onnxruntime")
    assert named.name == "onnxruntime"


def test_auto_takes_no_engine_of_another_model_or_gpu_or_without_proof_and_builds_none(
    gpu: FakeGpu, cache: Path, model_file: Path, contract: Contract, caplog: pytest.LogCaptureFixture
) -> None:
    write_engine(cache / "a.plan", model_file, contract, model_sha256="0" * 64)
    write_engine(cache / "b.plan", model_file, contract, compute_capability="8.6")
    write_engine(cache / "c.plan", model_file, contract, parity=None)
    with caplog.at_level(logging.INFO, "cxredge"):
        backend = open_backend(model_file)
    assert backend.name == "onnxruntime"
    assert "no engine in the cache fits the model and this machine" in caplog.text
    require_no_paths(caplog, model_file)
    assert not gpu.calls


def test_without_engines_the_driver_is_not_asked(
    cache: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise AssertionError("the driver was asked")

    monkeypatch.setattr("cxredge.engine.machine.find_device", refuse)
    with caplog.at_level(logging.INFO, "cxredge"):
        assert open_backend(model_file).name == "onnxruntime"
    assert "no engines in the cache" in caplog.text
    require_no_paths(caplog, model_file)


@pytest.mark.usefixtures("gpu", "cache")
def test_without_an_engine_and_without_building_the_command_is_named(model_file: Path) -> None:
    with pytest.raises(EngineError, match=r"the cache has no engine of it .* 'cxredge build-engine .*darkness\.onnx'"):
        open_backend(model_file, "tensorrt", build=False)


@pytest.mark.usefixtures("cache")
def test_without_a_driver_that_is_the_reason(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("cxredge.engine.device.load_library", fail)
    for build in (True, False):
        with pytest.raises(EngineError, match="no NVIDIA driver on this machine"):
            open_backend(model_file, "tensorrt", build=build)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """TensorRT's builder is left out: the models that it would have compiled."""
    pytest.importorskip("onnx", reason="typing a model needs onnx")
    compiled: list[bytes] = []

    def build(model: bytes, *_: Any) -> bytes:
        compiled.append(model)
        return plan_bytes()

    monkeypatch.setattr("cxredge.engine.order.build_plan", build)
    return compiled


def test_an_engine_that_is_missing_is_built_proved_and_kept(
    gpu: FakeGpu, cache: Path, model_file: Path, compiler: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cxredge")
    for _ in range(2):
        backend = open_backend(model_file, "tensorrt")
        np.testing.assert_array_equal(backend.run(INPUTS), -INPUTS[:, 0] - np.float32(0.2))
        backend.close()
    assert len(compiler) == 1
    assert caplog.text.count("building one") == 1
    require_no_paths(caplog, model_file)
    (sidecar,) = cache.glob("*.json")
    parity = json.loads(sidecar.read_text())["parity"]
    assert parity["flipped_pixels"] <= parity["largest_flipped_share"] * parity["pixels"]
    with Segmenter.load(model_file) as segmenter:
        assert segmenter.backend == "tensorrt"


@pytest.mark.usefixtures("gpu")
def test_the_segmenter_runs_on_it(cache: Path, model_file: Path, contract: Contract, chest: np.ndarray) -> None:
    write_engine(cache / "a.plan", model_file, contract)
    with Segmenter.load(model_file, backend="onnxruntime") as plain, Segmenter.load(model_file) as engine:
        assert engine.backend == "tensorrt"
        np.testing.assert_array_equal(engine(chest).mask, plain(chest).mask)
        for segmentation in engine.stream([chest] * 20, batch_size=3, workers=2):
            np.testing.assert_array_equal(segmentation.mask, plain(chest).mask)


@pytest.mark.usefixtures("gpu")
def test_segment_runs_on_an_engine(
    tmp_path: Path, one_image_folder: Path, model_file: Path, contract: Contract
) -> None:
    plan = write_engine(tmp_path / "darkness.plan", model_file, contract)
    masks = []
    for model, output in ((plan, tmp_path / "engine"), (model_file, tmp_path / "plain")):
        result = CliRunner().invoke(main, ["segment", str(one_image_folder), "-o", str(output), "--model", str(model)])
        assert result.exit_code == 0, result.output
        (mask,) = output.rglob("*.mask.png")
        masks.append(mask.read_bytes())
    assert masks[0] == masks[1]


@pytest.mark.usefixtures("gpu", "cache")
def test_segment_without_building_says_what_to_do(tmp_path: Path, one_image_folder: Path, model_file: Path) -> None:
    options = ["--model", str(model_file), "--backend", "tensorrt", "--no-build"]
    result = CliRunner().invoke(main, ["segment", str(one_image_folder), "-o", str(tmp_path / "out"), *options])
    assert result.exit_code == 1
    assert "cxredge build-engine" in result.output
    assert not list((tmp_path / "out").rglob("*.png"))
