"""64 threads share one segmenter: the masks of a single thread, flat memory, as fast as a stream, no thread left."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from cxredge import Segmentation, Segmenter
from cxredge.phantom import make_radiograph

THREADS = 64
LONG = 10_000
ROUNDS = 10
LEAST_SHARE = 0.9
"""Of the stream's throughput."""
GROWTH = 32 << 20
"""Bytes by which the process may differ from its size after the first round: fragments, not results."""
Make: TypeAlias = Callable[[int], np.ndarray]
Digests: TypeAlias = list[str]


@pytest.fixture(scope="module")
def made() -> Make:
    """``made(number)`` is a radiograph of that number; no two are alike."""
    bases = [make_radiograph(seed, 224 + 16 * seed, 320 - 8 * seed).pixels for seed in range(12)]

    def make(number: int) -> np.ndarray:
        rolled = np.roll(bases[number % 12], number // 12 % 200, axis=0)
        return rolled + np.uint16(number // 2400)

    return make


def digest(result: Segmentation) -> str:
    return hashlib.sha256(result.mask.tobytes() + result.logits.tobytes() + repr(result.flags).encode()).hexdigest()


def streamed(segmenter: Segmenter, make: Make, numbers: range) -> Digests:
    return [digest(result) for result in segmenter.stream(map(make, numbers))]


def threaded(segmenter: Segmenter, make: Make, numbers: range) -> Digests:
    """Every thread takes the next number when it is done with one."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda number: digest(segmenter(make(number))), numbers))


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def timed(work: Callable[[], Digests]) -> tuple[Digests, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


def rounds(count: int) -> Iterator[range]:
    size = count // ROUNDS
    return (range(first, first + size) for first in range(0, size * ROUNDS, size))


def share(segmenter: Segmenter, made: Make, count: int, single: int, record: Callable[[str, object], None]) -> float:
    """Throughput of 64 threads as a share of the stream's, for ``count`` radiographs that are all compared.

    Args:
        segmenter: shared by all.
        made: gives the radiographs.
        count: of radiographs; streams and threads take turns, so that both see the same machine.
        single: every how manyth is also segmented by a plain call of one thread.
        record: takes the figures.
    """
    streams, calls, sizes = [], [], []
    threaded(segmenter, made, range(THREADS))
    for numbers in rounds(count):
        expected, spent = timed(lambda numbers=numbers: streamed(segmenter, made, numbers))
        streams.append(len(numbers) / spent)
        found, spent = timed(lambda numbers=numbers: threaded(segmenter, made, numbers))
        calls.append(len(numbers) / spent)
        sizes.append(resident_bytes())
        assert len(set(expected)) > 0.9 * len(expected), "radiographs that give the same mask would prove nothing"
        assert found == expected
        assert [digest(segmenter(made(n))) for n in numbers[::single]] == expected[::single]
    assert max(sizes) - sizes[0] < GROWTH
    record("streams", [round(rate, 1) for rate in streams])
    record("threads", [round(rate, 1) for rate in calls])
    record("MiB", [size >> 20 for size in sizes])
    return float(np.median(np.divide(calls, streams)))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the process's size as Linux gives it")
@pytest.mark.parametrize(
    ("model", "count"),
    [
        pytest.param("darkness", 600, id="sample"),
        pytest.param("darkness", LONG, id="tiny model", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
        pytest.param("bundled", LONG, id="bundled model", marks=[pytest.mark.slow, pytest.mark.timeout(14400)]),
    ],
)
def test_64_threads_share_one_segmenter(
    model: str, count: int, model_file: Path, made: Make, record_property: Callable[[str, object], None]
) -> None:
    before = threading.active_count()
    segmenter = Segmenter.load(model_file if model == "darkness" else None, backend="onnxruntime", threads=1)
    try:
        reached = share(segmenter, made, count, 10 if model == "bundled" else 1, record_property)
    finally:
        segmenter.close()
    assert threading.active_count() == before
    record_property("share", round(reached, 3))
    if count >= LONG:  # a few hundred take too little time to tell 0.9 from 1 on a busy machine
        assert reached >= LEAST_SHARE
