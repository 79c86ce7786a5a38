"""Starting cxredge costs little more than importing click and numpy."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 5
LARGEST_RATIO = 2.5


def seconds(command: list[str | Path]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def test_help_starts_quickly():
    helping = [Path(sys.executable).with_name("cxredge"), "--help"]
    importing = [sys.executable, "-c", "import click, numpy"]
    pairs = [(seconds(helping), seconds(importing)) for _ in range(RUNS)]
    assert statistics.median(a / b for a, b in pairs) <= LARGEST_RATIO
