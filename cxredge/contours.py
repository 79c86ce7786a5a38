"""Outlines of the lungs: drawn into pictures, and as polygons in ``NAME.contour.json`` (docs/contour-json.md)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxredge.libraries.open_cv import cv2
from cxredge.preprocessing import grey_levels
from cxredge.quality.laterality import Region, find_lungs
from cxredge.radiograph import Radiograph
from cxredge.segmenter import Segmentation

CONTOUR_COLOUR = (255, 170, 0)
CONTOUR_INDEX = 255
"""Value of the contour in a picture with contours; grey levels are 0 (black) to 254 (white)."""
PIXELS_A_LINE = 512
"""Side in pixels for which a contour is one pixel wide."""
FORMAT = 1
"""Version of the JSON."""
MILLIMETRE_DIGITS = 3


def picture_with_contours(radiograph: Radiograph, mask: NDArray[np.bool_], longest_side: int) -> NDArray[np.uint8]:
    """The radiograph as a person sees it, with the lungs' contours.

    Args:
        radiograph: of any size.
        mask: ``(H, W)`` lungs of the radiograph's size.
        longest_side: a larger radiograph is scaled down to this many pixels on its longer side.

    Returns:
        ``(height, width)`` grey levels from 0 to 254, and 255 where a contour is.
    """
    height, width = radiograph.shape
    scale = min(1.0, longest_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = grey_levels(radiograph, size, CONTOUR_INDEX - 1)
    small = cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, CONTOUR_INDEX, max(1, round(max(size) / PIXELS_A_LINE)))
    return picture


def palette() -> NDArray[np.uint8]:
    """``(256, 3)`` colours of the values of a picture with contours."""
    grey = np.arange(CONTOUR_INDEX) * 255 // (CONTOUR_INDEX - 1)
    return np.vstack([np.repeat(grey[:, None], 3, axis=1), CONTOUR_COLOUR]).astype(np.uint8)


def contour_json(segmentation: Segmentation, model: dict[str, str]) -> bytes:
    """The lungs' outlines as JSON text.

    Args:
        segmentation: whose mask.
        model: ``name`` and ``sha256`` of the model.
    """
    radiograph = segmentation.radiograph
    lungs = find_lungs(segmentation.mask, radiograph)
    height, width = radiograph.shape
    content = {
        "format": FORMAT,
        "sop_instance_uid": radiograph.identity,
        "width": width,
        "height": height,
        "spacing_mm": None if radiograph.spacing is None else list(radiograph.spacing),
        "spacing_plane": None if radiograph.spacing is None else radiograph.spacing_plane,
        "sides_from": "header" if lungs.from_header else "custom",
        "model": model,
        "lungs": {
            name: outline_content(lung, radiograph.spacing)
            for name, lung in (("right", lungs.right), ("left", lungs.left))
        },
    }
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def outline_content(lung: Region | None, spacing: tuple[float, float] | None) -> dict[str, Any] | None:
    """One lung's outlines in pixels and, where the spacing is known, in millimetres; ``None`` without a lung."""
    if lung is None:
        return None
    polygons = outlines(lung)
    scaled = None if spacing is None else [(polygon * spacing[::-1]).round(MILLIMETRE_DIGITS) for polygon in polygons]
    return {
        "polygons": [polygon.tolist() for polygon in polygons],
        "polygons_mm": None if scaled is None else [polygon.tolist() for polygon in scaled],
    }


def outlines(lung: Region) -> list[NDArray[np.int32]]:
    """Polygons ``(N, 2)`` of (x, y): centres of the outermost pixels; filled, edge included, they give the lung."""
    found, _ = cv2.findContours(lung.pixels.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [np.asarray(polygon[:, 0] + (lung.left, lung.top), np.int32) for polygon in found]
