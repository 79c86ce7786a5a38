"""Radiographs for runs on a cluster, and clusters of two nodes on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from cxredge.phantom import make_radiograph

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

PROGRAM = Path(sys.executable).with_name("cxredge")
STORE = 100 << 20


@pytest.fixture(scope="session", autouse=True)
def _ray() -> None:
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'cxredge[ray]'")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without cores and two nodes with two cores each, all processes of this machine."""
    from cxredge.libraries.open_ray import PRIORITY, quiet

    monkeypatch.setenv(PRIORITY, "0")
    with quiet(own_cluster=False):
        from ray.cluster_utils import Cluster

        started = Cluster()
        try:
            started.add_node(num_cpus=0, object_store_memory=STORE, include_dashboard=False)
            for _ in range(2):
                started.add_node(num_cpus=2, object_store_memory=STORE, wait=False)
            started.wait_for_nodes()
            yield started
        finally:
            started.shutdown()


def write_radiographs(folder: Path, count: int, height: int, width: int) -> Path:
    """Write ``count`` made radiographs, no two alike."""
    folder.mkdir(parents=True)
    base = [make_radiograph(seed, height, width).pixels for seed in range(min(count, 8))]
    for number in range(count):
        shifted = np.roll(base[number % len(base)], number // len(base) % 16 - 8, axis=1)
        pixels = (shifted + np.uint16(number % 97)) << 3
        Image.fromarray(pixels.astype(np.uint16)).save(folder / f"{number:04}.png", compress_level=1)
    return folder


class Started(subprocess.Popen[bytes]):
    """A process that tells what it has to tell to a file: a pipe that nobody empties would stop it."""

    def __init__(self, command: list[str], told: Path) -> None:
        self.told = told
        with told.open("wb") as file:
            super().__init__(command, stdout=file, stderr=subprocess.STDOUT)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """``start(*arguments)`` starts ``cxredge segment``, which :func:`finished` waits for; at the end it is killed."""
    started: list[Started] = []

    def run(*arguments: str | Path) -> Started:
        command = [str(PROGRAM), "segment", *map(str, arguments)]
        started.append(Started(command, tmp_path / f"told-{len(started)}.txt"))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def finished(process: Started, code: int) -> str:
    """Wait for a process that has to end with an exit code; gives what it told."""
    returned, told = process.wait(), process.told.read_text()
    assert returned == code, told
    return told


def journalled(output: Path) -> int:
    """Entries that are in the journal of an output folder."""
    journal = output / ".cxredge" / "journal.jsonl"
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


def records(output: Path) -> list[dict[str, Any]]:
    """Lines of ``results.jsonl`` but for the timings."""
    lines = (json.loads(line) for line in (output / "results.jsonl").read_text().splitlines())
    return [{**line, "milliseconds": sorted(line["milliseconds"])} for line in lines]


def files(output: Path) -> dict[str, bytes]:
    """Contents of all files of an output folder but its state and its lists of results."""
    paths = (path for path in output.rglob("*") if path.is_file() and ".cxredge" not in path.parts)
    return {str(p.relative_to(output)): p.read_bytes() for p in paths if not p.name.startswith("results.")}


def assert_same_results(one: Path, other: Path) -> None:
    """All files byte for byte, and all records but for the timings."""
    first, second = files(one), files(other)
    assert first.keys() == second.keys() != set()
    assert [name for name in first if first[name] != second[name]] == []
    assert records(one) == records(other)
