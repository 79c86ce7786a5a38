"""What a benchmark measures, in which order, and what it says of a backend that tells its stages apart."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxredge.backends import StageTimed, open_backend
from cxredge.benchmark.measure import HOST_STAGES, Series, flipped_pixels, measure, percentiles, run_once
from cxredge.benchmark.memory import peak_memory
from cxredge.contract import Contract
from cxredge.errors import BackendError, InputError

LOGITS = np.where(np.arange(64) % 32 < 12, 1.0, -1.0).astype(np.float32)


class Recorder:
    """A backend that writes down when it was run, and with how many radiographs; ``wrong`` pixels flip."""

    lanes = 1

    def __init__(self, name: str, contract: Contract, log: list[tuple[str, int]], wrong: int = 0) -> None:
        self.name, self.contract, self.log, self.wrong = name, contract, log, wrong

    def run(self, inputs: np.ndarray) -> np.ndarray:
        self.log.append((self.name, len(inputs)))
        logits = np.tile(LOGITS, (len(inputs), 64, 1))
        logits[:, 0, : self.wrong] *= -1
        return logits

    def close(self) -> None:
        pass


class Device(Recorder):
    """A backend with memory of its own."""

    def timed_run(self, inputs: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
        self.log.append(("stages", len(inputs)))
        return np.zeros((len(inputs), 64, 64), np.float32), {
            "host_to_device": 1.0,
            "compute": 2.0,
            "device_to_host": 3.0,
        }

    def device_bytes(self) -> int:
        return 1 << 20


@pytest.fixture
def sources(tmp_path: Path, chest: np.ndarray) -> Sequence[Path]:
    for turn in range(2):
        cv2.imwrite(str(tmp_path / f"{turn}.png"), chest + np.uint16(turn))
    return [tmp_path / "0.png", tmp_path / "1.png"]


def test_contestants_take_turns_at_every_batch_size(
    contract: Contract, sources: Sequence[Path], tmp_path: Path
) -> None:
    log: list[tuple[str, int]] = []
    backends = {name: Recorder(name, contract, log) for name in "AB"}
    steps: list[int] = []
    found = measure(backends, sources, tmp_path, batches=(1, 3), repeats=2, step=lambda: steps.append(1))
    assert log[2:] == [(name, batch) for batch in (1, 3) for _ in range(3) for name in "AB"]
    assert log[:2] == [("A", 1)] * 2, "the logits of the two radiographs, for the stages after inference"
    assert len(steps) == 12
    assert [(one.contestant, one.batch, len(one.total)) for one in found.series] == [
        ("A", 1, 2), ("B", 1, 2), ("A", 3, 2), ("B", 3, 2)
    ]  # fmt: skip
    assert found.reference(found.series[3]) is found.series[2]


def test_the_stages_of_the_host_are_timed_by_doing_them(
    contract: Contract, sources: Sequence[Path], tmp_path: Path
) -> None:
    found = measure({"A": Recorder("A", contract, [])}, sources, tmp_path / "out", batches=(1,), repeats=3)
    assert tuple(found.host) == HOST_STAGES
    assert all(len(times) == 3 and min(times) > 0 for times in found.host.values())
    assert cv2.imread(str(tmp_path / "out" / "result.mask.png"), cv2.IMREAD_UNCHANGED).shape == (80, 96)


def test_only_a_backend_that_tells_its_stages_apart_has_them(contract: Contract) -> None:
    plain, device = Recorder("plain", contract, []), Device("device", contract, [])
    assert isinstance(device, StageTimed)
    assert not isinstance(plain, StageTimed)
    inputs = np.zeros((2, 1, 64, 64), np.float32)
    total, stages = run_once(plain, inputs)
    assert stages == {"compute": total}
    total, stages = run_once(device, inputs)
    assert stages == {"host_to_device": 1.0, "compute": 2.0, "device_to_host": 3.0}
    assert device.log == [("device", 2), ("stages", 2)], "timing the stages does not slow the run that is timed"
    assert 0 < total < 1e3


def test_the_ratio_is_that_of_neighbouring_runs() -> None:
    slow, fast = Series("slow", 2, [10, 100, 30]), Series("fast", 2, [5, 25, 15])
    assert fast.ratio_to(slow) == 0.5
    assert slow.ratio_to(fast) == 2
    assert slow.images_per_second == pytest.approx(2 / 0.030)


def test_percentiles() -> None:
    assert percentiles(range(101)) == {"p50": 50, "p90": 90, "p99": 99}


def test_pixels_that_differ_from_the_first_contestant_are_counted(contract: Contract, sources: Sequence[Path]) -> None:
    backends = {"right": Recorder("right", contract, []), "wrong": Recorder("wrong", contract, [], wrong=5)}
    assert flipped_pixels(backends, sources) == {"right": 0, "wrong": 10}


def test_a_radiograph_that_cannot_be_read_is_named(contract: Contract, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        measure({"A": Recorder("A", contract, [])}, [tmp_path / "absent.png"], tmp_path, batches=(1,), repeats=1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_that_of_the_backend_alone(model_file: Path) -> None:
    ballast = np.ones(100_000_000)  # 800 MB in this process
    found = peak_memory(partial(open_backend, model_file, "onnxruntime", 1), (2000, 1))
    assert list(found) == [1, 2000]
    one, many = found[1]["host"], found[2000]["host"]
    assert one is not None
    assert many is not None
    assert 20e6 < one < ballast.nbytes / 2
    assert many - one > 2000 * 64 * 64 * 4, "the larger batch needs more memory"
    assert found[1]["device"] is None


def test_a_backend_that_fails_in_its_own_process_says_so(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="unknown backend"):
        peak_memory(partial(open_backend, tmp_path / "x.onnx", "abacus"), (1,))


def test_a_process_that_the_system_ends_says_so() -> None:
    with pytest.raises(BackendError, match="ended from outside"):
        peak_memory(partial(os._exit, 9), (1,))
