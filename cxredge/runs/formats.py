"""Names of what is written for each radiograph: ``cxredge segment --format``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

Format: TypeAlias = Literal["png", "dicom-seg", "dicom-sc", "contour-json", "npy"]
FORMATS: tuple[Format, ...] = ("png", "dicom-seg", "dicom-sc", "contour-json", "npy")
OF_DICOM = frozenset({"dicom-seg", "dicom-sc"})
"""Formats that refer to a DICOM source."""
SegmentationType: TypeAlias = Literal["binary", "labelmap"]
SEGMENTATION_TYPES: tuple[SegmentationType, ...] = ("binary", "labelmap")
"""Kinds of ``dicom-seg``."""


def format_names(formats: Sequence[Format], *, overlay: bool, segmentation_type: SegmentationType) -> Iterator[str]:
    """What a run writes, in words that tell apart runs whose results differ."""
    for name in formats:
        if name == "png":
            yield from ("mask", "overlay") if overlay else ("mask",)
        else:
            yield f"{name} {segmentation_type}" if name == "dicom-seg" else name
