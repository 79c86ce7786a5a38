"""The roofline's arithmetic, and which roof a device has."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxredge.benchmark import roofline
from cxredge.benchmark.roofline import LayerCost, Roof, find_gpu_roof, find_roof, floor_of, measure_cpu
from cxredge.engine.device import Device

ROOF = Roof("test", {"fp16": 1e12, "int8": 2e12}, 1e9, measured=False)


def layer(flops: float, traffic: float, precision: str) -> LayerCost:
    return LayerCost("layer", "Conv", flops, traffic, precision)


@pytest.mark.parametrize(
    ("costs", "milliseconds"),
    [
        ([layer(4e9, 1e6, "fp16")], 4),
        ([layer(4e9, 1e6, "int8")], 2),
        ([layer(1e9, 5e6, "fp16")], 5),
        ([layer(0, 3e6, "fp32")], 3),
        ([layer(4e9, 1e6, "fp16"), layer(1e9, 5e6, "fp16"), layer(0, 3e6, "fp32")], 12),
        ([], 0),
    ],
    ids=["arithmetic", "int8", "traffic", "no arithmetic", "sum", "nothing"],
)
def test_a_layer_takes_the_longer_of_arithmetic_and_traffic(costs: list[LayerCost], milliseconds: float) -> None:
    floor = floor_of(costs, ROOF)
    assert floor is not None
    assert floor.milliseconds == pytest.approx(milliseconds)
    assert floor.roof is ROOF


def test_there_is_no_floor_at_a_precision_whose_peak_is_not_known() -> None:
    assert floor_of([layer(4e9, 1e6, "fp16"), layer(1, 1, "fp32")], ROOF) is None


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
    ],
)
def test_gpus_are_known_by_their_drivers_name(driver: str, name: str) -> None:
    roof = find_gpu_roof(driver)
    assert roof is not None
    assert roof.name == name


def test_an_unknown_gpu_has_no_roof() -> None:
    assert find_gpu_roof("NVIDIA GeForce GT 710") is None


@pytest.mark.parametrize("board", ["AGX Orin", "Orin Nano"])
def test_a_jetson_is_known_by_its_board(board: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "JETSON_MODEL", tmp_path / "model")
    assert find_gpu_roof("Orin") is None
    (tmp_path / "model").write_bytes(f"NVIDIA Jetson {board} Developer Kit\0".encode())
    roof = find_gpu_roof("Orin")
    assert roof is not None
    assert roof.name == board


def test_tensorrt_has_the_roof_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Device("NVIDIA H200", "9.0", "575.1", 141 << 30)
    monkeypatch.setattr("cxredge.engine.device.find_device", lambda: gpu)
    assert find_roof("tensorrt") == find_gpu_roof("H200")
    monkeypatch.setattr("cxredge.engine.device.find_device", lambda: None)
    assert find_roof("tensorrt") is None


def test_a_cpu_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "MEASURING_SECONDS", 0.01)
    measure_cpu.cache_clear()
    roof = measure_cpu()
    measure_cpu.cache_clear()
    assert roof.measured
    assert 1e9 < roof.flops_per_second["fp32"] < 1e14
    assert 1e8 < roof.bytes_per_second < 1e13
    assert roof.name in roof.text()
    assert "measured" in roof.text()
