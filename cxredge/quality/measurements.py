"""What is measured of the lungs: areas, their ratio and their symmetry, by the patient's side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cxredge.libraries.open_cv import cv2
from cxredge.quality.laterality import Lungs, Region, find_lungs
from cxredge.radiograph import Radiograph

SYMMETRY_SIDE = 128
"""Side in pixels at which the lungs are laid upon one another."""


@dataclass(frozen=True)
class Lung:
    """One lung.

    Attributes:
        area_pixels: number of pixels.
        area_mm2: square millimetres in the plane of the spacing, see ``Radiograph.spacing_plane``; ``None`` where it
            is unknown.
        box: (top, left, bottom, right) in pixels; bottom and right are the first beyond.
    """

    area_pixels: int
    area_mm2: float | None
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Measurements:
    """The lungs of one radiograph in numbers.

    Attributes:
        left: the patient's left lung, or ``None``.
        right: the patient's right lung, or ``None``.
        area_ratio: left by right; ``None`` without both.
        symmetry: Dice of one lung with the other's mirror image, in [0, 1], see :func:`symmetry`; ``None``
            without both.
        joined: whether both lungs were one component and were split, see :func:`cxredge.quality.laterality.find_lungs`.
        sides_from: whether the ``header`` says which side is which, or the ``custom`` of showing the patient's right
            at the image's left is taken for granted.
        spacing_plane: where square millimetres hold; ``None`` where there are none.
    """

    left: Lung | None
    right: Lung | None
    area_ratio: float | None
    symmetry: float | None
    joined: bool
    sides_from: Literal["header", "custom"]
    spacing_plane: str | None

    @property
    def lungs(self) -> tuple[Lung, ...]:
        """The lungs that there are."""
        return tuple(lung for lung in (self.left, self.right) if lung is not None)

    def to_dict(self) -> dict[str, Any]:
        """The measurements as a JSON object, rounded to what they are worth."""
        return {
            "left": lung_content(self.left),
            "right": lung_content(self.right),
            "area_ratio": None if self.area_ratio is None else round(self.area_ratio, 4),
            "symmetry": None if self.symmetry is None else round(self.symmetry, 4),
            "joined": self.joined,
            "sides_from": self.sides_from,
            "spacing_plane": self.spacing_plane,
        }


def lung_content(lung: Lung | None) -> dict[str, Any]:
    """One lung as a JSON object; one that is not there has no pixels, and the same fields."""
    if lung is None:
        return {"area_pixels": 0, "area_mm2": None, "box": None}
    area = None if lung.area_mm2 is None else round(lung.area_mm2, 1)
    return {"area_pixels": lung.area_pixels, "area_mm2": area, "box": list(lung.box)}


def measure(radiograph: Radiograph, mask: NDArray[np.bool_]) -> Measurements:
    """Measure a mask.

    Args:
        radiograph: what it is of; gives the spacing and the patient's sides.
        mask: ``(H, W)`` lungs of the radiograph's size.
    """
    found = find_lungs(mask, radiograph)
    left, right = (None if lung is None else measure_lung(lung, radiograph) for lung in (found.left, found.right))
    return Measurements(
        left,
        right,
        None if left is None or right is None else left.area_pixels / right.area_pixels,
        symmetry(found, radiograph.shape),
        found.joined,
        "header" if found.from_header else "custom",
        None if radiograph.spacing is None else radiograph.spacing_plane,
    )


def measure_lung(lung: Region, radiograph: Radiograph) -> Lung:
    """Measure one lung."""
    area, pixel = lung.area, radiograph.pixel_area_mm2
    height, width = lung.pixels.shape
    box = (lung.top, lung.left, lung.top + height, lung.left + width)
    return Lung(area, None if pixel is None else area * pixel, box)


def symmetry(lungs: Lungs, shape: tuple[int, int]) -> float | None:
    """Dice of one lung with the other mirrored; ``None`` without both.

    The mirror is the vertical line midway between the middles of the lungs' bounding boxes, so that a patient who
    stands off the middle of the image loses nothing; one who leans, or is turned, does.

    Args:
        lungs: of one image.
        shape: (height, width) of the image.
    """
    if lungs.left is None or lungs.right is None:
        return None
    at_left, at_right = (in_square(lung, shape, mirror=lung is lungs.right) for lung in lungs.found)
    total = int(at_left.sum()) + int(at_right.sum())
    return 2 * int((at_left & at_right).sum()) / total if total else None


def in_square(lung: Region, shape: tuple[int, int], *, mirror: bool) -> NDArray[np.bool_]:
    """A lung at the rows of its image, the middle of its box in the middle column, as ``(128, 256)``."""
    scale_y, scale_x = SYMMETRY_SIDE / shape[0], SYMMETRY_SIDE / shape[1]
    sign = -1 if mirror else 1
    middle = (lung.pixels.shape[1] - 1) / 2
    place = np.array(
        [[sign * scale_x, 0, SYMMETRY_SIDE - sign * middle * scale_x], [0, scale_y, lung.top * scale_y]], np.float32
    )
    size = (2 * SYMMETRY_SIDE, SYMMETRY_SIDE)
    return np.asarray(cv2.warpAffine(lung.pixels.view(np.uint8), place, size, flags=cv2.INTER_NEAREST).view(np.bool_))
