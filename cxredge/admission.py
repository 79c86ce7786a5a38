"""How many pixels are in memory at once: large radiographs wait until there is room for them.

An item is weighed from its header before it is read. Admission is in order, and what is under way stays
within a budget; an item that is larger than the whole budget runs alone, so a run never stands still.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from cxredge.errors import CxredgeError

Item = TypeVar("Item")

BYTES_A_PIXEL = 24
"""Of memory that one pixel of a radiograph takes at most while it is read, prepared and finished: up to 19 were
measured, by ``python tests/benchmarks/memory.py``, of 16-bit colour; the rest is for what was not."""
SHARE_OF_MEMORY = 0.5
"""Share of the machine's memory that pixels may take."""
CONTROL_GROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux says how much memory a container may use (control groups version 2 and 1)."""


@dataclass(frozen=True)
class Admitted(Generic[Item]):
    """An item that may be read, and what it weighs."""

    item: Item
    cost: float
    weighing: Future[float] | None


class Admission(Generic[Item]):
    """Gives out items in order, as far as the budget goes.

    Args:
        items: taken lazily, ``ahead`` of them before they are given out.
        weigh: starts to weigh an item; ``None``: items weigh nothing.
        ahead: items that are weighed beforehand.
        budget: largest sum of costs given out and not released.
    """

    def __init__(
        self, items: Iterable[Item], weigh: Callable[[Item], Future[float]] | None, ahead: int, budget: float
    ) -> None:
        self._items = iter(items)
        self._weigh = weigh
        self._ahead = ahead if weigh else 1
        self._budget = budget
        self._waiting: deque[tuple[Item, Future[float] | None]] = deque()
        self._under_way = 0.0
        self._batches = 0

    def admit(self, most: int) -> list[Admitted[Item]]:
        """The next items that fit, at most ``most``; none where the next one has to wait or there is none."""
        admitted: list[Admitted[Item]] = []
        while len(admitted) < most and (following := self._next()):
            item, weighing = following
            cost = 0.0 if weighing is None else _cost(weighing)
            alone = self._batches == 0 and not admitted
            if cost and not alone and self._under_way + cost > self._budget:
                break
            self._waiting.popleft()
            self._under_way += cost
            admitted.append(Admitted(item, cost, weighing))
        self._batches += bool(admitted)
        return admitted

    def release(self, cost: float) -> None:
        """Give back what a batch cost."""
        self._under_way -= cost
        self._batches -= 1

    def _next(self) -> tuple[Item, Future[float] | None] | None:
        while len(self._waiting) < self._ahead:
            try:
                item = next(self._items)
            except StopIteration:
                break
            self._waiting.append((item, self._weigh(item) if self._weigh else None))
        return self._waiting[0] if self._waiting else None


def pixel_budget() -> float:
    """Pixels that may be in memory at once on this machine."""
    return memory_bytes() * SHARE_OF_MEMORY / BYTES_A_PIXEL


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or its control group's where that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CONTROL_GROUP_LIMITS:
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return min(limits)


def decoded_pixels(path: Path) -> int:
    """Samples that a file holds by its header; its size in bytes where the header does not say, 0 without a file."""
    from cxredge.dicom.prefix import HEAD_LENGTH, is_dicom, lacks_preamble
    from cxredge.radiograph import NPY_MAGIC

    try:
        if not path.is_file():  # opening a pipe would wait for a writer
            return 0
        with path.open("rb") as file:
            head = file.read(HEAD_LENGTH)
            size = path.stat().st_size
    except OSError:  # reading the file will tell why
        return 0
    dicom = is_dicom(head) or lacks_preamble(head)
    count = dicom_samples if dicom else npy_samples if head.startswith(NPY_MAGIC) else raster_samples
    try:
        return count(path)
    except Exception:  # as many types as there are kinds of damage; reading the file will tell which
        return size


def raster_samples(path: Path) -> int:
    """Width times height of a PNG, JPEG or TIFF file."""
    from cxredge.raster import open_image

    with path.open("rb") as file, open_image(file) as image:
        width, height = image.size
        return int(width * height)


def npy_samples(path: Path) -> int:
    """Elements of an NPY array."""
    import numpy as np

    return int(np.load(path, mmap_mode="r", allow_pickle=False).size)


def dicom_samples(path: Path) -> int:
    """Rows times columns, samples and frames of a DICOM file."""
    from cxredge.libraries.open_gdcm import import_quietly

    import_quietly()
    from cxredge.dicom.file import open_data_set

    dataset = open_data_set(path, keywords=["Rows", "Columns", "SamplesPerPixel", "NumberOfFrames"])
    samples, frames = int(dataset.get("SamplesPerPixel") or 1), int(dataset.get("NumberOfFrames") or 1)
    return int(dataset.Rows) * int(dataset.Columns) * samples * frames


def _cost(weighing: Future[float]) -> float:
    try:
        return weighing.result()
    except CxredgeError:
        return 0.0
