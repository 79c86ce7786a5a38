"""How many pixels are under way: weighed from headers, in order, within the budget but for one that is alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless, RLELossless

from cxredge.admission import BYTES_A_PIXEL, Admission, decoded_pixels, memory_bytes, pixel_budget
from cxredge.errors import InputError
from cxredge.pipeline import run_pipeline


def weighed(cost: float | Exception) -> Future[float]:
    future: Future[float] = Future()
    if isinstance(cost, Exception):
        future.set_exception(cost)
    else:
        future.set_result(cost)
    return future


def admission(costs: list[Any], budget: float, ahead: int = 2) -> Admission[Any]:
    return Admission(costs, weighed, ahead, budget)


def items(batch: list[Any]) -> list[Any]:
    return [admitted.item for admitted in batch]


# Admission


def test_items_are_admitted_in_order_until_the_budget_is_used_up() -> None:
    gate = admission([4, 5, 2, 1], budget=10)
    assert items(gate.admit(1)) == [4]
    assert items(gate.admit(1)) == [5]
    assert items(gate.admit(1)) == [], "2 more are too many, and 1 does not overtake"
    gate.release(4)
    assert items(gate.admit(1)) == [2]
    assert items(gate.admit(1)) == [1]
    assert items(gate.admit(1)) == []


def test_a_batch_is_cut_short_where_the_next_item_does_not_fit() -> None:
    gate = admission([4, 4, 4, 4], budget=10)
    assert items(gate.admit(8)) == [4, 4]
    assert items(gate.admit(8)) == []
    gate.release(8)
    assert items(gate.admit(8)) == [4, 4]


def test_an_item_larger_than_the_budget_is_admitted_alone() -> None:
    gate = admission([1, 50, 1], budget=10)
    assert items(gate.admit(3)) == [1]
    assert items(gate.admit(3)) == []
    gate.release(1)
    assert items(gate.admit(3)) == [50]
    assert items(gate.admit(3)) == []
    gate.release(50)
    assert items(gate.admit(3)) == [1]


def test_items_that_weigh_nothing_are_never_held_back() -> None:
    gate = admission([50, 0, 0], budget=10)
    assert items(gate.admit(3)) == [50, 0, 0]


def test_an_item_that_cannot_be_weighed_costs_nothing_and_keeps_its_error() -> None:
    error = InputError("took too long")
    (admitted,) = Admission(["bad"], lambda _: weighed(error), 1, 10).admit(1)
    assert admitted.cost == 0
    assert admitted.weighing is not None
    assert admitted.weighing.exception() is error


# In the pipeline


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("lanes", [1, 3])
def test_large_items_are_not_in_memory_together(batch_size: int, lanes: int) -> None:
    costs = [1, 9, 9, 2, 30, 1, 1, 9, 3, 12, 12] * 3
    lock, held, most = threading.Lock(), {}, 0.0

    def read(number: int) -> int:
        nonlocal most
        with lock:
            held[number] = costs[number]
            if len(held) > 1:
                most = max(most, sum(held.values()))
        time.sleep(0.002)
        return number

    def finish(number: int, *_: object) -> int:
        with lock:
            held.pop(number)
        return number

    results = run_pipeline(
        range(len(costs)),
        read,
        lambda batch: batch,
        finish,
        batch_size=batch_size,
        workers=4,
        lanes=lanes,
        cost=costs.__getitem__,
        budget=12,
    )
    assert list(results) == list(range(len(costs)))
    assert 9 < most <= 12


def test_an_item_that_cannot_be_weighed_is_an_error_in_its_place_and_not_read() -> None:
    def weigh(number: int) -> float:
        if number == 2:
            raise InputError("took too long")
        return 1

    def read(number: int) -> int:
        assert number != 2
        return number

    results = list(
        run_pipeline(
            range(5),
            read,
            lambda batch: batch,
            lambda *three: three[0],
            batch_size=2,
            workers=2,
            cost=weigh,
            budget=3,
        )
    )
    assert isinstance(results[2], InputError)
    assert [number for number in results if not isinstance(number, InputError)] == [0, 1, 3, 4]


# Weights


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.npy"])
def test_pixels_of_a_picture_are_read_from_its_header(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    pixels = np.zeros((70, 90), np.uint8)
    if name.endswith("npy"):
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[: 700 if name.endswith("jpg") else None])
    assert decoded_pixels(path) == 6300


@pytest.mark.parametrize("syntax", [None, RLELossless, JPEG2000Lossless])
def test_samples_of_a_dicom_file_are_read_from_its_header(
    syntax: Any, tmp_path: Path, make_dicom: Any, chest: np.ndarray
) -> None:
    dataset = make_dicom(chest, 12)
    if syntax:
        dataset.compress(syntax)
    dataset.save_as(tmp_path / "a", enforce_file_format=True)
    assert decoded_pixels(tmp_path / "a") == chest.size
    dataset.NumberOfFrames = 7
    dataset.save_as(tmp_path / "b", enforce_file_format=True)
    assert decoded_pixels(tmp_path / "b") == 7 * chest.size


def test_a_file_without_a_readable_header_weighs_its_bytes_and_a_missing_one_nothing(tmp_path: Path) -> None:
    for name, content in (("a.png", b"\x89PNG and no more"), ("b", bytes(128) + b"DICM" + bytes(9)), ("c", b"text")):
        (tmp_path / name).write_bytes(content)
        assert decoded_pixels(tmp_path / name) == len(content)
    assert decoded_pixels(tmp_path / "absent") == 0
    assert decoded_pixels(tmp_path) == 0
    os.mkfifo(tmp_path / "pipe")
    assert decoded_pixels(tmp_path / "pipe") == 0


def test_the_budget_is_a_share_of_the_machines_memory() -> None:
    assert 1 << 28 < memory_bytes() < 1 << 46
    assert pixel_budget() * 8 < memory_bytes()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no record of the peak on this system")
def test_a_pixel_takes_no_more_memory_than_it_is_weighed_with() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "memory.py"
    command = [sys.executable, script, "--sides", "2000", "--kinds", "png-rgba16"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout.splitlines()[0])["2000 bytes a pixel"]
    assert 2 < measured < BYTES_A_PIXEL
