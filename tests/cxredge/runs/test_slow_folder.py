"""A folder whose every answer takes long: the results are the same, and more readers wait for it side by side."""

from __future__ import annotations

import threading
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

DELAY, COUNT, READERS = 0.1, 12, 6
"""Seconds that the folder takes to answer, radiographs in it, threads that read them."""


@pytest.fixture
def folder(tmp_path: Path, chest: np.ndarray) -> Path:
    (tmp_path / "archive").mkdir()
    for number in range(COUNT):
        Image.fromarray(np.roll(chest, number, 0)).save(tmp_path / "archive" / f"{number:02}.png")
    return tmp_path / "archive"


class SlowFolder:
    """Makes functions that ask a file system slow, and counts how many are asked at once."""

    def __init__(self) -> None:
        self.waiting, self.most, self.lock = 0, 0, threading.Lock()

    def slow(self, function: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def answer(path: Path) -> Any:
            with self.lock:
                self.waiting += 1
                self.most = max(self.most, self.waiting)
            time.sleep(DELAY)
            with self.lock:
                self.waiting -= 1
            return function(path)

        return answer


def test_readers_wait_side_by_side_and_nothing_is_lost(
    folder: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def masks(name: str, workers: int) -> dict[str, bytes]:
        arguments = ["segment", folder, "-o", tmp_path / name, "--model", model_file, "--workers", workers]
        result = CliRunner().invoke(main, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        return {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.mask.png")}

    fast = masks("fast", 1)
    assert len(fast) == COUNT
    for workers, alone in ((1, True), (READERS, False)):
        slow = SlowFolder()
        with monkeypatch.context() as patch:
            for name in ("source_signature", "decoded_pixels", "read_radiograph"):
                patch.setattr(reader_process, name, slow.slow(getattr(reader_process, name)))
            assert masks(f"{workers} workers", workers) == fast
        assert (slow.most == 1) == alone
