"""``cxredge build-engine``, end to end: cross-builds are real, the GPU is played by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from cxredge.backends.onnxruntime import OnnxRuntimeBackend
from cxredge.bundle import bundled_model
from cxredge.cli import build_engine, main
from cxredge.contract import Contract
from cxredge.engine.cache import find_engine
from cxredge.engine.fit import Wanted
from cxredge.engine.flavour import Flavour
from cxredge.engine.record import EngineRecord, file_sha256, read_record, sidecar_path
from cxredge.engine.typed_model import samples_sha256, typed_model
from cxredge.errors import EngineError, InputError
from cxredge.phantom import make_radiograph

from .conftest import MadeDriver

CROSS = ("--compute-capability", "89")


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["build-engine", *map(str, arguments)])


def fails(message: str, *arguments: str | Path, code: int = 1) -> None:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.split())


def play_the_gpu(monkeypatch: pytest.MonkeyPatch, factor: float = 1.0) -> list[EngineRecord]:
    """Let ONNX Runtime run what the engine was compiled from; returns the engines that were opened."""
    opened: list[EngineRecord] = []

    class StandIn(OnnxRuntimeBackend):
        def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
            return super().run(inputs) * np.float32(factor)

    def open_engine(plan: Path, record: EngineRecord) -> StandIn:
        opened.append(record)
        return StandIn(bundled_model())

    monkeypatch.setattr("cxredge.backends.engines.open_plan", open_engine)
    return opened


@pytest.mark.usefixtures("rtx", "no_driver")
def test_a_cross_build_says_that_parity_has_not_been_run(cache: Path) -> None:
    result = run(*CROSS, "--flavour", "tensorrt-rtx", "--batch", "1,2,4")
    assert result.exit_code == 0, result.output
    assert "fp16, batches 1,2,4, for compute capability 8.9 by tensorrt_rtx" in result.stdout
    assert "parity has not been run: there is no GPU of that compute capability" in result.stdout
    (plan,) = cache.glob("*.plan")
    record = read_record(sidecar_path(plan))
    assert record.parity is None
    assert record.model_sha256 == file_sha256(bundled_model()), "the model that was named, not the FP16 one"
    assert (record.precision, record.contract["precision"], record.batches) == ("fp16", "fp16", (1, 2, 4))
    assert record.options["tf32"] is False


@pytest.mark.usefixtures("rtx", "no_driver")
def test_the_plan_may_go_elsewhere(tmp_path: Path, cache: Path) -> None:
    plan = tmp_path / "engines" / "edge.plan"
    result = run(bundled_model(), *CROSS, "--precision", "fp32", "-o", plan)
    assert result.exit_code == 0, result.output
    assert str(plan) in result.stdout
    assert read_record(plan.with_suffix(".json")).precision == "fp32"
    assert not cache.exists()


@pytest.mark.usefixtures("rtx")
def test_on_a_gpu_the_engine_is_proved_and_segment_can_find_it(
    driver: MadeDriver, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = play_the_gpu(monkeypatch)
    result = run("--precision", "fp32", "--flavour", "tensorrt-rtx", "--batch", "2")
    assert result.exit_code == 0, result.output
    assert "parity on 8 images: 0 of" in result.stdout
    (record,) = opened
    assert (record.gpu_name, record.batches) == ("NVIDIA GeForce RTX 4090", (2, 2, 2))
    engine = find_engine(bundled_model(), Wanted(None, "tensorrt_rtx", record.version, "8.9"))
    assert engine is not None
    assert engine[1].parity is not None
    again = run("--precision", "fp32", "--flavour", "tensorrt-rtx", "--batch", "2")
    assert again.exit_code == 0
    assert len(opened) == 1, "the second time it comes from the cache"


@pytest.mark.usefixtures("rtx", "driver")
def test_an_engine_whose_masks_differ_is_deleted_and_reported(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play_the_gpu(monkeypatch, factor=-1.0)
    fails("masks differ from those of onnxruntime", "--precision", "fp32", "--flavour", "tensorrt-rtx", "--batch", "1")
    assert list(cache.glob("*.plan")) == list(cache.glob("*.json")) == []


@pytest.mark.usefixtures("untouched", "no_driver", "cache")
def test_without_a_driver_a_native_build_is_refused() -> None:
    fails("there is no NVIDIA driver on this machine")


@pytest.mark.usefixtures("untouched", "no_driver", "cache")
def test_a_gpu_that_cannot_be_built_for_is_told_with_those_that_can() -> None:
    fails("cannot cross-build for compute capability 8.7, only for 7.5, 8.0, 8.6, 8.9", "--compute-capability", "87")


@pytest.mark.usefixtures("untouched", "no_driver")
def test_a_full_disk_is_told_before_the_build(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1 << 20))
    fails("the disk is full", *CROSS, "--precision", "fp32")
    assert list(cache.glob("*.plan")) == []


@pytest.mark.usefixtures("driver", "cache")
def test_tensorrt_does_not_cross_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cxredge.engine.build.find_flavour", lambda *_, **__: Flavour("tensorrt", "10.3.0", object()))
    fails("builds only for the GPU of this machine, whose GPU has 8.9", "--compute-capability", "75")


@pytest.mark.usefixtures("no_driver", "cache")
@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("TensorRT is not installed: tensorrt: on a Jetson", "TensorRT is not installed"),
        ("tensorrt 8.6.2 is too old", "tensorrt 8.6.2 is too old"),
    ],
)
def test_what_is_wrong_with_tensorrt_is_told_and_nothing_built(
    problem: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise EngineError(problem)

    monkeypatch.setattr("cxredge.engine.build.find_flavour", refuse)
    monkeypatch.setattr("cxredge.engine.build.carry_out", None)
    fails(message, *CROSS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch", "4,2,1"), "not a smallest, best and largest batch"),
        (("--batch", "1,4"), "not a smallest, best and largest batch"),
        (("--batch", "0"), "not a smallest, best and largest batch"),
        (("--batch", "many"), "not a smallest, best and largest batch"),
        (("--compute-capability", "Ada"), "'Ada' is not a compute capability such as 89 or 8.9"),
        (("--precision", "fp8"), "'fp8' is not one of"),
        (("-o", "model.onnx"), "model.onnx is no name for a plan; call it model.plan"),
        (("-o", "engine.json"), "engine.json is no name for a plan"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...], message: str) -> None:
    fails(message, *arguments, code=2)


@pytest.mark.parametrize("text", ["89", "8.9", "sm_89", "SM89"])
def test_a_compute_capability_is_written_in_several_ways(text: str) -> None:
    assert build_engine.parse_capability(None, None, text) == "8.9"
    assert build_engine.parse_capability(None, None, "120") == "12.0"


@pytest.mark.usefixtures("untouched", "no_driver", "cache")
def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    fails("noise.onnx: is not an ONNX model", tmp_path / "noise.onnx", *CROSS)
    fails("none.onnx: there is no such model file", tmp_path / "none.onnx", *CROSS)


def contract(precision: str, **more: Any) -> Contract:
    return Contract(name="tiny", width=2, input_size=32, code="a_seg", licence="none", precision=precision, **more)


@pytest.fixture
def decide(tmp_path: Path, cache: Path) -> Callable[..., Any]:
    """What becomes of a model of a contract."""
    model = tmp_path / "model.onnx"
    model.write_bytes(b"model")

    def decided(of: Contract, wanted: Any = None, samples: tuple[Path, ...] = ()) -> Any:
        return typed_model(model, of, wanted, samples, lambda *_: None, print)

    return decided


@pytest.mark.parametrize(
    ("of", "wanted", "precision", "converted"),
    [
        (contract("fp32"), None, "fp16", True),
        (contract("fp32"), "fp32", "fp32", False),
        (contract("fp16"), None, "fp16", False),
        (contract("int8", calibration={}), None, "int8", True),
        (contract("int8", calibration={"remainder": "fp16"}), None, "int8", False),
    ],
)
def test_the_precision_is_the_model_s_or_fp16(
    of: Contract, wanted: Any, precision: str, converted: bool, decide: Callable[..., Any]
) -> None:
    typed = decide(of, wanted)
    assert typed.precision == precision
    assert bool(typed.options) == converted


@pytest.mark.parametrize(
    ("of", "wanted", "message"),
    [
        (contract("fp32"), "int8", "for INT8 pass --calibration-data"),
        (contract("fp16"), "fp32", "is fp16, no fp32 engine"),
        (contract("int8", calibration={}), "fp16", "is int8, no fp16 engine"),
    ],
)
def test_a_precision_that_cannot_be_reached_is_told(
    of: Contract, wanted: Any, message: str, decide: Callable[..., Any]
) -> None:
    with pytest.raises(EngineError, match=message):
        decide(of, wanted)


@pytest.mark.parametrize(("of", "wanted"), [(contract("fp32"), "fp16"), (contract("int8", calibration={}), None)])
def test_calibration_data_is_for_int8_of_an_fp32_model(
    of: Contract, wanted: Any, decide: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match="leave --calibration-data away"):
        decide(of, wanted, (tmp_path,))


def test_the_samples_are_part_of_the_key(decide: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"a")
    first = decide(contract("fp32"), None, (folder,)).options
    assert decide(contract("fp32"), None, (folder,)).options == first
    (folder / "a.png").write_bytes(b"b")
    assert decide(contract("fp32"), None, (folder,)).options != first
    assert samples_sha256((folder / "a.png",)) == samples_sha256((folder,))
    with pytest.raises(InputError, match="no such file or folder to calibrate on"):
        samples_sha256((tmp_path / "none",))


@pytest.mark.slow
@pytest.mark.usefixtures("rtx", "no_driver")
def test_int8_is_calibrated_on_the_way_and_only_once(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    for seed in range(100, 124):
        cv2.imwrite(str(folder / f"{seed}.png"), make_radiograph(seed, 256, 256).pixels << 4)
    result = run(*CROSS, "--calibration-data", folder)
    assert result.exit_code == 0, result.output
    assert "int8, batches" in result.stdout
    assert "holds the INT8 model, its ranges and the report" in result.stderr
    (record,) = [read_record(sidecar_path(plan)) for plan in cache.glob("*.plan")]
    assert record.contract["calibration"]["remainder"] == "fp16"
    again = run("--compute-capability", "86", "--calibration-data", folder)
    assert again.exit_code == 0
    assert "holds the INT8 model" not in again.stderr
