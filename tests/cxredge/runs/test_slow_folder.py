"""A folder whose every answer takes long: the results are the same, and more readers wait for it side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cxredge.cli import main
from cxredge.runs import reader_process

DELAY, COUNT, READERS = 0.2, 12, 6
"""Seconds that the folder takes to answer, radiographs in it, threads that read them."""


@pytest.fixture
def folder(tmp_path: Path, chest: np.ndarray) -> Path:
    (tmp_path / "archive").mkdir()
    for number in range(COUNT):
        Image.fromarray(np.roll(chest, number, 0)).save(tmp_path / "archive" / f"{number:02}.png")
    return tmp_path / "archive"


def late(function: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def answer(path: Path) -> Any:
        time.sleep(DELAY)
        return function(path)

    return answer


def test_readers_wait_side_by_side_and_nothing_is_lost(
    folder: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, *options: str) -> float:
        started = time.monotonic()
        result = CliRunner().invoke(
            main, ["segment", str(folder), "-o", str(tmp_path / name), "--model", str(model_file), *options]
        )
        assert result.exit_code == 0, result.output
        return time.monotonic() - started

    local = run("local")
    for name in ("source_signature", "decoded_pixels", "read_radiograph"):
        monkeypatch.setattr(reader_process, name, late(getattr(reader_process, name)))
    answers = 3 * COUNT * DELAY
    assert run("slow", "--workers", "1") > answers * 0.6, "weighing and reading overlap at most"
    assert run("side by side", "--workers", str(READERS)) < local + answers / 2
    masks = {path.name: path.read_bytes() for path in (tmp_path / "local").glob("*.mask.png")}
    assert len(masks) == COUNT
    for name in ("slow", "side by side"):
        assert {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.mask.png")} == masks
