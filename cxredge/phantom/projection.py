"""The made patient in the image plane: places thorax coordinates on it and draws what lies in the beam."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cxredge.libraries.open_cv import cv2

Canvas: TypeAlias = NDArray[np.uint8]
"""``(H, W)`` shadows, 0 to 255 (covered)."""
Points: TypeAlias = NDArray[np.float64]
"""``(N, 2)`` points in thorax coordinates."""
Thickness: TypeAlias = NDArray[np.float32]
"""``(H, W)`` centimetres along the beam, or a share of them in [0, 1]."""
RIGHT, LEFT = -1, 1
"""The patient's sides, as the sign of the image's x axis: a PA view is shown as if from the front."""
BOTH = (RIGHT, LEFT)
WIDEST_BLUR = 5
"""Standard deviation in pixels from which a blur works on a smaller image, to save time."""


@dataclass(frozen=True)
class Patient:
    """What differs from patient to patient and from exposure to exposure.

    Attributes:
        midline: x of the spine, as a share of the width.
        half_width: half the width of the rib cage, as a share of the width.
        apex: y of the apices of the lungs, as a share of the height.
        lung_height: apex to costophrenic angle, as a share of the height.
        tilt: rotation in the image plane, in radians.
        heart: size of the heart, 1 as it is drawn.
        dome: how high the diaphragm stands, added to its height in thorax coordinates.
        depth: thickness of the body, 1 on average.
        breast: thickness of breasts and muscles in front of the lungs, in cm.
        contrast: exponent of the film curve; with a larger one the lungs turn darker.
        grain: standard deviation of the noise in the unattenuated beam.
    """

    midline: float
    half_width: float
    apex: float
    lung_height: float
    tilt: float
    heart: float
    dome: float
    depth: float
    breast: float
    contrast: float
    grain: float


def patient_from_seed(seed: int) -> Patient:
    """Draw a patient; the same seed gives the same patient at every image size."""
    draw = np.random.default_rng([seed, 0]).uniform
    return Patient(
        midline=draw(0.485, 0.515),
        half_width=draw(0.375, 0.42),
        apex=draw(0.08, 0.12),
        lung_height=draw(0.7, 0.78),
        tilt=np.deg2rad(draw(-2, 2)),
        heart=draw(0.84, 1.04),
        dome=draw(-0.02, 0.03),
        depth=draw(0.9, 1.1),
        breast=draw(0.3, 2.5),
        contrast=draw(1.2, 1.55),
        grain=draw(0.003, 0.006),
    )


@dataclass(frozen=True)
class Projection:
    """The image plane: places thorax coordinates on it and draws what lies in the beam."""

    patient: Patient
    height: int
    width: int

    def place(self, points: Points, side: int) -> NDArray[np.float64]:
        """Pixel coordinates ``(N, 2)``, x before y, of points on one side of the body."""
        body = self.patient
        x = (body.midline - 0.5 + side * body.half_width * points[:, 0]) * self.width
        y = (body.apex - 0.5 + body.lung_height * points[:, 1]) * self.height
        cos, sin = np.cos(body.tilt), np.sin(body.tilt)
        return np.stack([cos * x - sin * y + self.width / 2, sin * x + cos * y + self.height / 2], axis=1)

    def area(self, outline: Points, sides: Iterable[int] = BOTH) -> Canvas:
        """Filled outline on the given sides, ``(H, W)`` of 0 and 255."""
        canvas = np.zeros((self.height, self.width), np.uint8)
        for side in sides:
            cv2.fillPoly(canvas, [fixed_point(self.place(outline, side))], 255, shift=4)
        return canvas

    def lines(self, paths: Iterable[Points], breadth: float, sides: Iterable[int] = BOTH) -> Canvas:
        """Lines of a breadth in shares of the width on the given sides, ``(H, W)`` in 0..255."""
        canvas = np.zeros((self.height, self.width), np.uint8)
        for path in paths:
            for side in sides:
                self.draw(canvas, path, side, breadth)
        return canvas

    def draw(self, canvas: Canvas, path: Points, side: int, breadth: float, value: int = 255) -> None:
        """Draw one line on ``canvas``."""
        line = fixed_point(self.place(path, side))
        cv2.polylines(canvas, [line], False, value, max(1, round(breadth * self.width)), cv2.LINE_AA, shift=4)

    def rounded(self, area: Canvas, rounding: float) -> Thickness:
        """Thickness in [0, 1] of a body with that outline whose edge is an ellipse's quarter."""
        depth = cv2.distanceTransform(area, cv2.DIST_L2, 5) / np.float32(rounding * self.width)
        return np.asarray(np.sqrt(1 - np.square(1 - np.minimum(depth, 1))))

    def soften(self, canvas: Canvas | Thickness, blur: float) -> Thickness:
        """Blur by a standard deviation in shares of the width; a canvas of 0..255 becomes 0..1."""
        scale = 255 if canvas.dtype == np.uint8 else 1
        sharp: Thickness = canvas.astype(np.float32) / np.float32(scale)
        deviation = max(blur * self.width, 0.3)
        shrink = max(1, int(deviation / WIDEST_BLUR))
        if shrink > 1:
            size = (self.width // shrink, self.height // shrink)
            sharp = np.asarray(cv2.resize(sharp, size, interpolation=cv2.INTER_AREA), np.float32)
        blurred = cv2.GaussianBlur(sharp, (0, 0), deviation / shrink)
        return np.asarray(blurred if shrink == 1 else cv2.resize(blurred, (self.width, self.height)))


def curve(points: list[tuple[float, float]] | Points, closed: bool = False, steps: int = 12) -> Points:
    """Smooth curve (Catmull-Rom spline) through ``points``."""
    knots = np.asarray(points, np.float64)
    knots = np.vstack([knots[-1:], knots, knots[:2]] if closed else [knots[:1], knots, knots[-1:]])
    p0, p1, p2, p3 = (knots[i : len(knots) - 3 + i, None] for i in range(4))
    t = np.linspace(0, 1, steps)[None, :, None]
    spline = 2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * (p1 - p2) + p3 - p0) * t**3
    return np.asarray(spline.reshape(-1, 2) / 2)


def fixed_point(pixels: NDArray[np.float64]) -> NDArray[np.int32]:
    """Coordinates with the four fractional bits that OpenCV's ``shift=4`` takes."""
    return np.round(pixels * 16).astype(np.int32)
