"""Which of the lungs is which: by the side of the image on which it lies, and by what the header says of the patient.

A frontal radiograph is customarily shown as if one stood before the patient: the patient's right at the image's left.
A header that says otherwise (:attr:`cxredge.radiograph.Radiograph.flipped`) is believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxredge.libraries.open_cv import cv2
from cxredge.radiograph import Radiograph

WIDE = 0.75
"""Width by height from which one component may be both lungs: a lung alone has about 0.4, both together about 1.1."""
WAIST = 0.5
"""Height of two joined lungs where they meet, as a share of the lower one's greatest, up to which they are two."""
LUNG_SHARE = 0.1
"""A part with a smaller share of a component's area is no lung of its own."""


@dataclass(frozen=True)
class Region:
    """One lung in an image.

    Attributes:
        top: first row.
        left: first column.
        pixels: ``(height, width)`` bool, the lung in its bounding box.
    """

    top: int
    left: int
    pixels: NDArray[np.bool_]

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.pixels))

    @property
    def centre(self) -> float:
        """Column of the bounding box's middle."""
        return self.left + int(self.pixels.shape[1]) / 2

    def within(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """The lung as a mask of a whole image's ``shape``."""
        mask = np.zeros(shape, np.bool_)
        height, width = self.pixels.shape
        mask[self.top : self.top + height, self.left : self.left + width] = self.pixels
        return mask


@dataclass(frozen=True)
class Lungs:
    """The lungs of a radiograph by the patient's side.

    Attributes:
        left: the patient's left lung, or ``None``.
        right: the patient's right lung, or ``None``.
        joined: whether both were one component, and were split where it is narrowest.
        from_header: whether the header says which side is which; else it is by custom.
    """

    left: Region | None
    right: Region | None
    joined: bool = False
    from_header: bool = False

    @property
    def found(self) -> tuple[Region, ...]:
        """The lungs that there are."""
        return tuple(lung for lung in (self.left, self.right) if lung is not None)


def find_lungs(mask: NDArray[np.bool_], radiograph: Radiograph | None = None) -> Lungs:
    """Tell the two lungs of a mask apart.

    Of two components the one whose bounding box has its middle farther left in the image is the lung at the image's
    left. One component that is at least 0.75 times as wide as it is high is split into two lungs at its waist, see
    :func:`waist`; where it has none, and where it is narrower, it is one lung, of that half of the image in which
    its middle lies.

    Args:
        mask: ``(H, W)`` lungs, at most two components without holes; of more the two largest count.
        radiograph: what the mask is of; ``None``: shown as is the custom.
    """
    regions = sorted(components(mask), key=lambda region: -region.area)[:2]
    column = waist(regions[0].pixels) if len(regions) == 1 else None
    if column is not None:
        regions = [part(regions[0], 0, column), part(regions[0], column, None)]
    at_left, at_right = by_side(regions, mask.shape[1])
    flipped = None if radiograph is None else radiograph.flipped
    left, right = (at_left, at_right) if flipped else (at_right, at_left)
    return Lungs(left, right, column is not None, flipped is not None)


def by_side(regions: list[Region], width: int) -> tuple[Region | None, Region | None]:
    """At most two lungs as (at the left, at the right) of an image of ``width`` pixels."""
    if len(regions) == 2:
        first, second = sorted(regions, key=lambda region: region.centre)
        return first, second
    if not regions:
        return None, None
    return (regions[0], None) if regions[0].centre < width / 2 else (None, regions[0])


def components(mask: NDArray[np.bool_]) -> list[Region]:
    """The components of a mask without holes, each in its bounding box."""
    outlines, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [region_within(outline) for outline in outlines]


def region_within(outline: NDArray[Any]) -> Region:
    """What an outline of OpenCV encloses, itself included."""
    left, top, width, height = cv2.boundingRect(outline)
    pixels = np.zeros((height, width), np.uint8)
    cv2.drawContours(pixels, [outline], -1, 1, cv2.FILLED, offset=(-left, -top))
    return Region(top, left, pixels.view(np.bool_))


def waist(pixels: NDArray[np.bool_]) -> int | None:
    """Column at which one component is split into two lungs, or ``None`` where it is one.

    It is the column in the middle third with the fewest pixels; of equal ones that nearest to the middle. To be a waist
    it must have at most half of the height of the lower of both parts, and either part a tenth of the area.

    Args:
        pixels: ``(height, width)`` component in its bounding box.
    """
    height, width = pixels.shape
    if width < WIDE * height or width < 3:
        return None
    heights = pixels.sum(axis=0)
    third = np.arange(width // 3, width - width // 3)
    column = int(min(third, key=lambda x: (heights[x], abs(2 * x + 1 - width))))
    sides = heights[:column], heights[column:]
    if heights[column] > WAIST * min(side.max(initial=0) for side in sides):
        return None
    return column if min(side.sum() for side in sides) >= LUNG_SHARE * heights.sum() else None


def part(region: Region, first: int, end: int | None) -> Region:
    """The columns of a region from ``first`` up to ``end``, counted in its box."""
    return Region(region.top, region.left + first, region.pixels[:, first:end])
