"""What can be told about an image, its logits and its mask without knowing the truth.

Everything is computed at network size, so that the cost does not depend on the radiograph's. Edges of an image on
which nothing is to be seen (black padding, a collimator's shadow) are left out: :func:`content_box`.
:mod:`cxredge.quality.flags` compares the numbers with what is usual.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxredge.libraries.open_cv import cv2

Image = NDArray[np.float32]
Vector = NDArray[np.float64]

FLAT = 0.1
"""Spread of a row or column, as a share of the image's, up to which nothing is to be seen on it."""
SMALLEST_CONTENT = 16
"""Side in pixels of a content that is worth cropping to."""
GREY_CELLS, CONTRAST_CELLS, MASK_CELLS = 8, 4, 10
"""Cells a side of the grid for grey values, for local contrast, and for the mask."""
CONTRAST_WEIGHT = 0.8
DIM = 0.02
"""Contrast, as a share of the image's, below which differences between cells count for little."""
CONTRAST_SIDE = 64
"""Side in pixels at which local contrast is measured."""
FINE = 1.0
"""Standard deviation in pixels of the blur that separates fine grain from structure."""
UNSURE = 2.0
"""Logit magnitude below which a pixel is uncertain: a probability between 12 and 88 %."""
OUTLINE_WIDTH, DOUBT_WIDTH = 9 / 256, 7 / 256
"""Width, as a share of the side, of a detail that makes an outline ragged, and of doubt beyond an outline's."""
NOISE_FLOOR = 1e-4


@dataclass(frozen=True)
class Box:
    """Rows ``top:bottom`` and columns ``left:right`` of an image."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, image: NDArray[np.generic]) -> NDArray[np.generic]:
        """That part of an image."""
        return image[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True)
class MaskTraits:
    """What a mask and its logits look like; shares are of the lungs' area unless said otherwise.

    Attributes:
        shape: ``(100,)`` share of lung in each of 10×10 cells of the content.
        signal: ``(3,)`` log of the image's fine grain; median logit inside the lungs; outside, negated.
        border_share: share of the image's border pixels that are lung.
        beyond_share: share that lies outside the content, where nothing is to be seen.
        raggedness: share that changes when details narrower than 3.5 % of the side are smoothed away.
        cleaned_share: share that post-processing removed (further components) or filled (holes).
        doubt_share: area of uncertain pixels, but for the thin line that every outline has.
    """

    shape: Vector
    signal: Vector
    border_share: float
    beyond_share: float
    raggedness: float
    cleaned_share: float
    doubt_share: float


def content_box(image: Image) -> Box:
    """Where something is to be seen: without rows and columns at the edges that are nearly constant.

    Args:
        image: ``(S, S)`` network input.
    """
    flat = FLAT * float(image.std())
    top, bottom = ends(image.std(axis=1) > flat)
    left, right = ends(image[top:bottom].std(axis=0) > flat)
    box = Box(top, bottom, left, right)
    side = len(image)
    return box if min(bottom - top, right - left) >= SMALLEST_CONTENT else Box(0, side, 0, side)


def ends(seen: NDArray[np.bool_]) -> tuple[int, int]:
    """The first True and the first after the last; everything where there is none."""
    (places,) = np.nonzero(seen)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, len(seen))


def layout(image: Image, box: Box) -> Vector:
    """How grey values and contrast are spread over the content, whatever the contrast and brightness: ``(80,)``.

    The first 64 are ranks in [-1, 1] of the mean grey in 8×8 cells, the others logs of the local contrast in 4×4
    cells. Of the inverted image the first change their signs and the others stay, see :func:`inverted_layout`.
    """
    content = np.ascontiguousarray(box.of(image), np.float32)
    grey = cv2.resize(content, (GREY_CELLS, GREY_CELLS), interpolation=cv2.INTER_AREA).ravel()
    ranks = np.empty(grey.size)
    ranks[np.argsort(grey, kind="stable")] = np.linspace(-1, 1, grey.size)
    side = CONTRAST_SIDE // CONTRAST_CELLS
    larger = min(content.shape) > CONTRAST_SIDE
    small = cv2.resize(
        content, (CONTRAST_SIDE, CONTRAST_SIDE), interpolation=cv2.INTER_AREA if larger else cv2.INTER_LINEAR
    )
    cells = small.reshape(CONTRAST_CELLS, side, CONTRAST_CELLS, side).std(axis=(1, 3)).ravel()
    contrast = np.log(cells / max(float(small.std()), 1e-6) + DIM)
    return np.concatenate([ranks, CONTRAST_WEIGHT * contrast])


def inverted_layout(found: Vector) -> Vector:
    """The layout of the same image with black and white exchanged."""
    return np.concatenate([-found[: GREY_CELLS**2], found[GREY_CELLS**2 :]])


def mask_traits(image: Image, box: Box, logits: Image, clean: NDArray[np.bool_]) -> MaskTraits:
    """What a mask with at least one lung looks like.

    Args:
        image: ``(S, S)`` network input.
        box: its content.
        logits: ``(S, S)`` of the network.
        clean: ``(S, S)`` lungs after post-processing.
    """
    area = int(clean.sum())
    inside = np.asarray(box.of(clean))
    return MaskTraits(
        shape=cv2.resize(inside.astype(np.float32), (MASK_CELLS, MASK_CELLS), interpolation=cv2.INTER_AREA)
        .ravel()
        .astype(np.float64),
        signal=np.array([grain(image, box), float(np.median(logits[clean])), -outside_logit(logits, clean)]),
        border_share=float(np.concatenate([clean[0], clean[-1], clean[1:-1, 0], clean[1:-1, -1]]).mean()),
        beyond_share=1 - int(inside.sum()) / area,
        raggedness=raggedness(clean) / area,
        cleaned_share=int(((logits > 0) != clean).sum()) / area,
        doubt_share=doubt(logits) / area,
    )


def outside_logit(logits: Image, clean: NDArray[np.bool_]) -> float:
    """Median logit outside the lungs; 0 where there is no outside."""
    return 0.0 if clean.all() else float(np.median(logits[~clean]))


def grain(image: Image, box: Box) -> float:
    """Log of the fine grain in the content, as a share of its contrast."""
    content = np.ascontiguousarray(box.of(image), np.float32)
    fine = np.abs(content - cv2.GaussianBlur(content, (0, 0), FINE))
    return float(np.log(np.median(fine) / max(float(content.std()), 1e-6) + NOISE_FLOOR))


def raggedness(clean: NDArray[np.bool_]) -> int:
    """Pixels that an opening and a closing of the mask change."""
    brush = disc(len(clean) * OUTLINE_WIDTH)
    padded = np.pad(clean.view(np.uint8), len(brush))
    smooth = (cv2.morphologyEx(padded, kind, brush) for kind in (cv2.MORPH_OPEN, cv2.MORPH_CLOSE))
    return sum(int(np.count_nonzero(one != padded)) for one in smooth)


def doubt(logits: Image) -> int:
    """Uncertain pixels in regions that are wider than an outline."""
    unsure = (np.abs(logits) < UNSURE).view(np.uint8)
    return int(np.count_nonzero(cv2.morphologyEx(unsure, cv2.MORPH_OPEN, disc(len(logits) * DOUBT_WIDTH))))


def disc(width: float) -> NDArray[np.uint8]:
    """A round brush of about ``width`` pixels, an odd number, at least 3."""
    side = max(3, 2 * int(width / 2) + 1)
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)
