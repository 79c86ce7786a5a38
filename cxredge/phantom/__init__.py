"""A made chest radiograph: the anatomy and the X-rays that pass through it.

Nothing here comes from a patient. Outlines of body, lungs and bones (:mod:`~.anatomy`) are drawn as maps of thickness
in centimetres along the beam; their attenuations add up, Beer-Lambert's law gives the intensity at
the detector and a film curve the grey. :mod:`cxredge.sample` writes the results to files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxredge.libraries.open_cv import cv2
from cxredge.phantom.bones import bones
from cxredge.phantom.projection import Projection, Thickness, patient_from_seed
from cxredge.phantom.tissue import lung_area, soft_tissue, vessels
from cxredge.radiograph import MINIMUM_SIDE

WHITE = 4095
"""Largest of the 12-bit values."""
SOFT_TISSUE, BONE = 0.185, 0.42
"""Attenuation per centimetre at the tube voltage of a chest radiograph; bone in excess of soft tissue."""
SCATTER = 0.03
"""Scattered radiation, as a share of the primary beam: it flattens the densest parts."""
FILM_SHOULDER = 1.2
"""Exponent by which the film curve levels out towards white."""


@dataclass(frozen=True)
class MadeRadiograph:
    """A made radiograph and the truth about it.

    Attributes:
        pixels: ``(H, W)`` 12-bit values in 0..4095, MONOCHROME2.
        lungs: ``(H, W)`` True inside the lungs, without the heart and what lies below the diaphragm.
    """

    pixels: NDArray[np.uint16]
    lungs: NDArray[np.bool_]


def make_radiograph(seed: int, height: int = 512, width: int = 512) -> MadeRadiograph:
    """Make a frontal (PA) chest radiograph.

    Args:
        seed: chooses the patient and the exposure; the same seed and size give the same pixels.
        height: height in pixels, 32 or more.
        width: width in pixels, 32 or more. The anatomy stretches with the image.

    Returns:
        The radiograph and its true lung mask.

    Raises:
        ValueError: the image would be too small.
    """
    if min(height, width) < MINIMUM_SIDE:
        raise ValueError(f"a radiograph of {width}x{height} pixels is too small, {MINIMUM_SIDE} is the least")
    projection = Projection(patient_from_seed(seed), height, width)
    lungs = lung_area(projection)
    tissue = soft_tissue(projection, lungs) + vessels(projection, lungs, seed)
    attenuation = SOFT_TISSUE * np.maximum(tissue, 0) + BONE * bones(projection)
    return MadeRadiograph(develop(projection, attenuation, seed), lungs > 0)


def develop(projection: Projection, attenuation: Thickness, seed: int) -> NDArray[np.uint16]:
    """From attenuation to 12-bit grey: Beer-Lambert's law, scatter, quantum noise and the film curve."""
    rng = np.random.default_rng([seed, 2])
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in attenuation.shape)
    beam = 1 - 0.1 * (np.square(x) + np.square(y[:, None]))
    intensity = beam * np.exp(-attenuation) + SCATTER
    grain = projection.soften(rng.standard_normal(attenuation.shape, np.float32), 0.0008)
    intensity += projection.patient.grain * np.sqrt(intensity) * grain
    density = -np.log(np.maximum(intensity, SCATTER / 2) / (1 + SCATTER))
    shade = np.clip(density / -np.log(SCATTER * 1.15), 0, 1) ** projection.patient.contrast
    grey = 1 - (1 - shade) ** FILM_SHOULDER
    return np.asarray(np.round(WHITE * np.maximum(grey, side_marker(projection))), np.uint16)


def side_marker(projection: Projection) -> Thickness:
    """The lead letter R beside the patient's right shoulder, ``(H, W)`` in [0, 1]."""
    canvas, scale = np.zeros((projection.height, projection.width), np.uint8), projection.width / 512
    corner = (round(0.03 * projection.width), round(0.1 * projection.height))
    cv2.putText(canvas, "R", corner, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, max(1, round(3 * scale)), cv2.LINE_AA)
    return projection.soften(canvas, 0.0008)
