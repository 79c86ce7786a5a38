"""Peak memory of a backend, measured in a process of its own that does nothing else."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import numpy as np

from cxredge.backends import Backend, StageTimed
from cxredge.errors import BackendError

STATUS = Path("/proc/self/status")
PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def peak_memory(opener: Callable[[], Backend], batches: Sequence[int]) -> dict[int, dict[str, int | None]]:
    """Open a backend in a new process and run it once with each batch size, the smallest first.

    Args:
        opener: opens the backend; it and what it refers to can be pickled.
        batches: batch sizes.

    Returns:
        By batch size, the process's ``host`` peak and what the backend holds of its ``device``, in bytes;
        ``None`` where it is not known.

    Raises:
        BackendError: the backend failed, or the system ended the process.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(partial(run_batches, opener), sorted(set(batches))).result()
        except BrokenProcessPool as error:
            raise BackendError(
                "the process that measures memory was ended from outside, for want of memory most likely; "
                "try smaller batches"
            ) from error


def run_batches(opener: Callable[[], Backend], batches: Sequence[int]) -> dict[int, dict[str, int | None]]:
    """What :func:`peak_memory` does in the new process."""
    backend = opener()
    size = backend.contract.input_size
    rng = np.random.default_rng(0)
    found: dict[int, dict[str, int | None]] = {}
    for batch in batches:
        backend.run(rng.uniform(-1, 1, (batch, 1, size, size)).astype(np.float32))
        device = backend.device_bytes() if isinstance(backend, StageTimed) else None
        found[batch] = {"host": peak_resident_bytes(), "device": device}
    backend.close()
    return found


def peak_resident_bytes() -> int | None:
    """Most memory that this process has had resident so far; ``None`` on systems other than Linux.

    ``getrusage`` is not used: its maximum goes on from that of the process that started this one.
    """
    match = PEAK.search(STATUS.read_text(encoding="ascii")) if STATUS.is_file() else None
    return None if match is None else 1024 * int(match[1])
