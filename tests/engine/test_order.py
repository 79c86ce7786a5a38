"""An order carried out: built, proved where there is a GPU, kept or deleted. ONNX Runtime stands in for the GPU."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cxredge.backends.onnxruntime import OnnxRuntimeBackend
from cxredge.bundle import bundled_model
from cxredge.engine import order as orders
from cxredge.engine.device import Device
from cxredge.engine.flavour import Flavour, load_flavour
from cxredge.engine.order import Order, carry_out, model_contract
from cxredge.engine.progress import BuildProgress
from cxredge.engine.record import EngineRecord, file_sha256, read_record, sidecar_path
from cxredge.errors import EngineError, ModelError, OutputError
from cxredge.phantom import make_radiograph
from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph

GPU = Device("NVIDIA GeForce RTX 4090", "8.9", "580.65.06", 24 << 30)
MODEL = bundled_model()


@pytest.fixture(scope="module")
def rtx() -> Flavour:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    return load_flavour("tensorrt_rtx")


@pytest.fixture(scope="module")
def order(rtx: Flavour) -> Order:
    return Order(file_sha256(MODEL), rtx, "8.9", (1, 2, 2), "fp32")


@pytest.fixture(scope="module")
def inputs() -> NDArray[np.float32]:
    return network_input(Radiograph(make_radiograph(1, 256, 256).pixels), 256)[None, None]


class StandIn(OnnxRuntimeBackend):
    """Plays the engine; ``factor`` spoils its logits."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__(MODEL)
        self.factor, self.closed = factor, False

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return super().run(inputs) * np.float32(self.factor)

    def close(self) -> None:
        super().close()
        self.closed = True


def test_a_cross_build_is_kept_without_parity(order: Order, cache: Path) -> None:
    plan, record = carry_out(order, lambda: MODEL)
    assert plan.parent == cache
    assert record == read_record(sidecar_path(plan))
    assert file_sha256(plan) == record.plan_sha256
    assert (record.parity, record.gpu_name, record.driver) == (None, None, None)
    assert (record.flavour, record.compute_capability, record.batches) == ("tensorrt_rtx", "8.9", (1, 2, 2))
    assert record.read_contract() == model_contract(MODEL)


def test_on_its_gpu_an_engine_is_proved_before_it_is_kept(
    order: Order, inputs: NDArray[np.float32], tmp_path: Path
) -> None:
    engine = StandIn()
    seen: list[tuple[bool, bool]] = []

    def open_engine(plan: Path, record: EngineRecord) -> StandIn:
        seen.append((plan.is_file(), sidecar_path(plan).exists()))
        return engine

    native = replace(order, device=GPU)
    plan, record = carry_out(native, lambda: MODEL, output=tmp_path / "a.plan", inputs=inputs, open_engine=open_engine)
    assert plan == tmp_path / "a.plan"
    assert seen == [(True, False)], "a plan without a sidecar is no engine yet"
    assert engine.closed
    assert record.parity is not None
    assert (record.parity["flipped_pixels"], record.parity["images"], record.parity["batches"]) == (0, 1, [1, 2])
    assert (record.gpu_name, record.driver) == (GPU.name, GPU.driver)


@pytest.mark.parametrize(("factor", "message"), [(-1.0, "masks differ"), (float("nan"), "not numbers")])
def test_an_engine_that_fails_is_deleted(
    factor: float, message: str, order: Order, inputs: NDArray[np.float32], tmp_path: Path
) -> None:
    engine = StandIn(factor)
    with pytest.raises(EngineError, match=message):
        carry_out(
            replace(order, device=GPU),
            lambda: MODEL,
            output=tmp_path / "a.plan",
            inputs=inputs,
            open_engine=lambda plan, record: engine,
        )
    assert list(tmp_path.iterdir()) == []
    assert engine.closed


def test_an_engine_without_parity_is_proved_when_its_gpu_is_there(
    order: Order, inputs: NDArray[np.float32], cache: Path
) -> None:
    carry_out(order, lambda: MODEL)
    native = replace(order, device=GPU)
    assert native.key == order.key, "plans of tensorrt-rtx do not depend on where they were built"
    _, record = carry_out(native, lambda: MODEL, inputs=inputs, open_engine=lambda plan, record: StandIn())
    assert record.parity is not None
    _, again = carry_out(native, lambda: MODEL, inputs=inputs, open_engine=lambda plan, record: StandIn(-1))
    assert again == record, "it is not built and not proved twice"


def test_tensorrt_measures_on_one_gpu_and_its_engines_are_named_by_it(order: Order) -> None:
    tensorrt = replace(order, flavour=Flavour("tensorrt", "10.16.1.11", None), device=GPU)
    other = replace(tensorrt, device=replace(GPU, name="NVIDIA L4"))
    assert tensorrt.key.digest() != other.key.digest()
    assert tensorrt.settings.timing_cache is not None
    assert tensorrt.settings.timing_cache != other.settings.timing_cache
    assert order.settings.timing_cache is None


def test_a_model_that_cannot_be_compiled_is_named(order: Order, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(MODEL.read_bytes()[:5000])
    with pytest.raises(EngineError, match=r"broken\.onnx: tensorrt_rtx .* builds no engine"):
        carry_out(order, lambda: broken, output=tmp_path / "out" / "a.plan")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.timeout(60)
def test_ctrl_c_leaves_nothing(order: Order, cache: Path) -> None:
    class Cancelled(BuildProgress):
        def step(self, phase: str, number: int) -> bool:
            self.cancel()
            return super().step(phase, number)

    with pytest.raises(KeyboardInterrupt):
        carry_out(order, lambda: MODEL, progress=Cancelled())
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_a_full_disk_is_found_before_the_build(order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(1 << 40, 1 << 40, 10 << 20))
    monkeypatch.setattr(orders, "build_plan", None)
    with pytest.raises(OutputError, match=r"the disk is full: a build needs \d+ MiB, 10 MiB are free"):
        carry_out(order, lambda: MODEL, output=tmp_path / "a.plan")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("cache")
def test_the_contract_is_read_without_onnx(tmp_path: Path) -> None:
    assert model_contract(MODEL).name == "cxredge-edge"
    with pytest.raises(ModelError, match="there is no such model file"):
        model_contract(tmp_path / "none.onnx")
