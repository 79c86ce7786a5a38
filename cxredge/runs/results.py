"""What a run leaves on disk: masks, overlays and ``results.jsonl``.

Pictures are written whole or not at all, ``results.jsonl`` line by line, and nothing is ever written
outside the output folder.
"""

from __future__ import annotations

import io
import json
import os
import re
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxredge.contours import palette, picture_with_contours
from cxredge.errors import CxredgeError, InputError, OutputError
from cxredge.libraries.open_cv import cv2
from cxredge.radiograph import Radiograph
from cxredge.runs.names import require_inside
from cxredge.runs.proof import full_path
from cxredge.segmenter import Segmentation

RESULTS = "results.jsonl"
PART_SUFFIX = ".part"
PART_NAME = re.compile(rf"\.[0-9a-f]{{32}}{re.escape(PART_SUFFIX)}")
"""Names of files that are being written."""
REMEDY = "choose another folder, go on with --resume, or pass --overwrite"
MASK_SUFFIX, OVERLAY_SUFFIX = ".mask.png", ".overlay.png"
SEG_SUFFIX, SC_SUFFIX = ".seg.dcm", ".sc.dcm"
CONTOUR_SUFFIX, NPY_SUFFIX = ".contour.json", ".mask.npy"
RESULT_SUFFIXES = (MASK_SUFFIX, OVERLAY_SUFFIX, SEG_SUFFIX, SC_SUFFIX, CONTOUR_SUFFIX, NPY_SUFFIX)
OVERLAY_SIDE = 1024
"""Longest side of an overlay in pixels; larger radiographs are scaled down for it."""


@dataclass(frozen=True)
class Target:
    """Where the results of one input go.

    Attributes:
        source: the input; of a URL its name, and then the file that it is fetched to.
        stem: output path below the output folder without its ``.mask.png``.
        url: where the input is fetched from, where it is no file.
    """

    source: Path
    stem: Path
    url: str | None = None

    @property
    def label(self) -> str:
        """The input as the user named it."""
        return self.url or str(self.source)

    @property
    def address(self) -> str:
        """What tells the input from others: its absolute path, links not followed, or its URL."""
        return self.url or full_path(self.source)

    def named(self, suffix: str) -> Path:
        """The result with a suffix of :data:`RESULT_SUFFIXES`, relative to the output folder."""
        return self.stem.with_name(self.stem.name + suffix)

    @property
    def mask(self) -> Path:
        """Mask, relative to the output folder."""
        return self.named(MASK_SUFFIX)

    @property
    def overlay(self) -> Path:
        """Overlay, relative to the output folder."""
        return self.named(OVERLAY_SUFFIX)

    @property
    def results(self) -> tuple[Path, ...]:
        """All results that there may be, relative to the output folder."""
        return tuple(self.named(suffix) for suffix in RESULT_SUFFIXES)


@dataclass(frozen=True)
class Written:
    """What was written for one radiograph.

    Attributes:
        names: paths of the files below the output folder.
        refused: formats that could not be made, and why.
    """

    names: tuple[str, ...]
    refused: dict[str, str] = field(default_factory=dict)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A new file that appears under its name, in place of what is there, once the block ends without an error.

    Raises:
        OutputError: it cannot be written.
    """
    part = path.with_name(f".{uuid.uuid4().hex}{PART_SUFFIX}")  # short: the name may be as long as a name can be
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:  # also after Ctrl-C; once it has been renamed there is nothing to remove
        with suppress(OSError):
            part.unlink()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is never seen half written; makes its folder.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_file(path) as file:
        file.write(content)


def remove_parts(folder: Path) -> None:
    """Remove what a killed run left of files that it was writing below ``folder``.

    Raises:
        OutputError: one cannot be removed.
    """
    for parent, _, names in os.walk(folder):
        for name in filter(PART_NAME.fullmatch, names):
            remove_file(Path(parent) / name)


def remove_file(path: Path) -> None:
    """Remove a file, such as one of an earlier run, where it is there.

    Raises:
        OutputError: it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed: {error.strerror or error}") from error


def mask_png(mask: NDArray[np.bool_]) -> bytes:
    """A mask ``(H, W)`` as 8-bit PNG, 0 outside and 255 inside the lungs."""
    done, buffer = cv2.imencode(".png", mask.view(np.uint8) * np.uint8(255))
    if not done:
        raise OutputError("the mask cannot be encoded as PNG")
    return buffer.tobytes()


def overlay_png(radiograph: Radiograph, mask: NDArray[np.bool_]) -> bytes:
    """The radiograph with the lungs' contour as palette PNG, at most 1024 pixels on its longer side."""
    image = Image.fromarray(picture_with_contours(radiograph, mask, OVERLAY_SIDE), "L")
    image.putpalette(palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_HUFFMAN_ONLY)  # twice as fast on radiographs
    return buffer.getvalue()


def write_pictures(folder: Path, target: Target, segmentation: Segmentation, *, overlay: bool) -> list[str]:
    """Write the mask, and the overlay if wanted; gives their paths below the folder."""
    write_atomically(folder / target.mask, mask_png(segmentation.mask))
    if overlay:
        write_atomically(folder / target.overlay, overlay_png(segmentation.radiograph, segmentation.mask))
    return [target.mask.as_posix(), *([target.overlay.as_posix()] if overlay else [])]


def record(
    target: Target,
    outcome: Segmentation | CxredgeError,
    write_milliseconds: float = 0.0,
    outputs: Sequence[str] = (),
    refused: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The line of ``results.jsonl`` for one input; ``status`` is ``ok``, ``warning`` or ``failed``.

    Args:
        target: the input and the names of its results.
        outcome: what became of it.
        write_milliseconds: time that writing ``outputs`` took.
        outputs: paths below the output folder of all files that were written.
        refused: formats that could not be made of this input, and why.
    """
    line: dict[str, Any] = {
        "input": target.label,
        "status": "failed",
        "error": None,
        "mask": None,
        "outputs": [],
        "not_written": {},
        "width": None,
        "height": None,
        "lung_area_fraction": None,
        "lung_area_mm2": None,
        "measurements": {},
        "flags": [],
        "milliseconds": {},
    }
    if isinstance(outcome, CxredgeError):
        return {**line, "error": outcome.reason if isinstance(outcome, InputError) else str(outcome)}
    height, width = outcome.radiograph.shape
    area = outcome.lung_area_mm2
    times = {**outcome.milliseconds, "write": write_milliseconds}
    return {
        **line,
        "status": "warning" if outcome.flags or refused else "ok",
        "mask": mask if (mask := target.mask.as_posix()) in outputs else None,
        "outputs": list(outputs),
        "not_written": dict(refused or {}),
        "width": width,
        "height": height,
        "lung_area_fraction": round(outcome.lung_area_fraction, 5),
        "lung_area_mm2": None if area is None else round(area, 1),
        "measurements": outcome.measurements.to_dict(),
        "flags": list(outcome.flags),
        "milliseconds": {stage: round(spent, 2) for stage, spent in times.items()},
    }


class ResultsFile:
    """``results.jsonl`` of one run, a line an input in input order, each written whole and at once.

    Args:
        folder: the output folder; created.
        overwrite: replace the results of an earlier run.
        kept: lines that stand there from the start.

    Raises:
        OutputError: the folder cannot be written, or holds results and ``overwrite`` is False.
    """

    def __init__(self, folder: Path, *, overwrite: bool, kept: Iterable[dict[str, Any]] = ()) -> None:
        path = folder / RESULTS
        if path.exists() and not overwrite:
            raise OutputError(f"{path}: exists already; {REMEDY}")
        self.lines = 0
        with atomic_file(path) as file:
            for line in kept:
                file.write(_line(line))
                self.lines += 1
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error

    def write(self, line: dict[str, Any]) -> None:
        """Append one line."""
        rest = _line(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError as error:
            raise OutputError(f"{self._file.name}: cannot be written: {error.strerror or error}") from error
        self.lines += 1

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def clear_existing(folder: Path, targets: Iterable[Target]) -> None:
    """Remove the results that an earlier run left for ``targets``, so that none outlives its radiograph.

    Raises:
        OutputError: one cannot be removed.
    """
    for target in targets:
        for path in target.results:
            remove_file(require_inside(folder, path))


def refuse_existing(folder: Path, targets: Iterable[Target]) -> None:
    """Raise :class:`OutputError` where a result of ``targets`` exists already, or a list of results."""
    for target in targets:
        for path in target.results:
            refuse_file(folder / path)
    refuse_file(folder / RESULTS)


def refuse_file(path: Path) -> None:
    """Raise :class:`OutputError` where a file exists already."""
    if path.exists():
        raise OutputError(f"{path}: exists already; {REMEDY}")


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"
