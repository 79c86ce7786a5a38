"""The driver and the GPU, asked through a made libcuda."""

from __future__ import annotations

import pytest

from cxredge.engine import device
from cxredge.engine.device import Device, find_device, require_device
from cxredge.errors import EngineError

from .conftest import MadeDriver


def test_the_first_gpu_is_described(driver: MadeDriver) -> None:
    assert require_device() == Device("NVIDIA GeForce RTX 4090", "8.9", "580.65.06", 24 << 30)


def test_no_context_is_made(driver: MadeDriver) -> None:
    require_device()
    assert not [name for name in driver.called if "Ctx" in name or "Context" in name]


@pytest.mark.usefixtures("no_driver")
def test_without_a_driver_the_message_says_what_to_do() -> None:
    assert find_device() is None
    with pytest.raises(EngineError, match=r"no NVIDIA driver on this machine .*install one, or cross-build"):
        require_device()


def test_a_driver_without_a_gpu_is_told_apart(driver: MadeDriver) -> None:
    driver.gpus = 0
    assert find_device() is None
    with pytest.raises(EngineError, match="finds no GPU; look at 'nvidia-smi'"):
        require_device()


@pytest.mark.parametrize("function", ["cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetAttribute"])
def test_a_driver_that_fails_is_named_with_its_error(function: str, driver: MadeDriver) -> None:
    driver.failing[function] = 999
    with pytest.raises(EngineError, match=f"{function} gives error 999"):
        require_device()


def test_without_the_management_library_the_driver_is_told_by_its_cuda(
    driver: MadeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> MadeDriver:
        if name == device.MANAGEMENT_LIBRARY:
            raise OSError(name)
        return driver

    monkeypatch.setattr(device, "load_library", load)
    assert require_device().driver == "CUDA 13.1"
