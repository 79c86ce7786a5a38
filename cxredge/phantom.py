"""A made chest radiograph: the anatomy and the X-rays that pass through it.

Nothing here comes from a patient. Outlines of body, lungs and bones are drawn as maps of thickness
in centimetres along the beam; their attenuations add up, Beer-Lambert's law gives the intensity at
the detector and a film curve the grey. :mod:`cxredge.sample` writes the results to files.

Outlines are given in thorax coordinates ``(lateral, down)``: lateral is 0 at the midline and 1 at
the widest point of the rib cage, down is 0 at the apex of the lungs and 1 at the costophrenic angle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cxredge.libraries.open_cv import cv2
from cxredge.radiograph import MINIMUM_SIDE

Canvas: TypeAlias = NDArray[np.uint8]
"""``(H, W)`` shadows, 0 to 255 (covered)."""
Points: TypeAlias = NDArray[np.float64]
"""``(N, 2)`` points in thorax coordinates."""
Thickness: TypeAlias = NDArray[np.float32]
"""``(H, W)`` centimetres along the beam, or a share of them in [0, 1]."""

RIGHT, LEFT = -1, 1
"""The patient's sides, as the sign of the image's x axis: a PA view is shown as if from the front."""
BOTH = (RIGHT, LEFT)
WHITE = 4095
"""Largest of the 12-bit values."""

# fmt: off
BODY = [(0, -0.6), (0.28, -0.6), (0.28, -0.22), (0.4, -0.13), (0.75, -0.075), (1.08, -0.04), (1.4, 0.09), (1.8, 0.4),
        (1.8, 0.95), (1.42, 0.85), (1.26, 0.62), (1.15, 0.46), (1.13, 0.6), (1.13, 0.8), (1.12, 1), (1.18, 1.5),
        (0, 1.5)]
RIB_CAGE = [(0.38, 0), (0.55, 0.03), (0.72, 0.125), (0.84, 0.27), (0.92, 0.46), (0.975, 0.68), (0.995, 0.88), (0.97, 1)]
RIGHT_DIAPHRAGM = [(0.97, 1), (0.9, 0.925), (0.75, 0.855), (0.55, 0.82), (0.38, 0.82), (0.285, 0.835)]
LEFT_DIAPHRAGM = [(0.97, 1), (0.92, 0.945), (0.83, 0.905), (0.74, 0.885), (0.665, 0.885)]
RIGHT_MEDIASTINUM = [(0.285, 0.835), (0.295, 0.77), (0.3, 0.68), (0.265, 0.56), (0.2, 0.46), (0.17, 0.3), (0.15, 0.18),
                     (0.17, 0.09), (0.25, 0.02), (0.38, 0)]
LEFT_MEDIASTINUM = [(0.665, 0.885), (0.67, 0.82), (0.64, 0.73), (0.55, 0.61), (0.4, 0.495), (0.295, 0.43),
                    (0.25, 0.37), (0.22, 0.335), (0.255, 0.285), (0.22, 0.225), (0.15, 0.18), (0.17, 0.09),
                    (0.25, 0.02), (0.38, 0)]
# fmt: on
HEART_TOP = 0.4
"""Down from here the mediastinal border is the heart's and moves with its size."""
HIDDEN_LUNG = [(0.12, 0.5), (0.36, 0.06), (0.7, 0.3), (0.9, 0.7), (0.93, 1.1), (0.6, 1.17), (0.2, 1.12)]
"""Lung behind the heart and in the recess behind the dome of the diaphragm."""
STOMACH_BUBBLE = [(0.34, 1), (0.42, 0.955), (0.55, 0.95), (0.64, 0.985), (0.6, 1.03), (0.38, 1.035)]
CLAVICLE = [(0.08, 0.2), (0.2, 0.175), (0.42, 0.11), (0.65, 0.07), (0.88, 0.06), (1.1, 0.03)]
SCAPULA = [(0.86, 0.1), (1.02, 0.08), (1.13, 0.13), (1.1, 0.26), (1.0, 0.5), (0.94, 0.48), (0.88, 0.28)]
HUMERUS = [(1.24, 0.1), (1.3, 0.22), (1.42, 0.5), (1.6, 0.9)]
TRACHEA = [(0, -0.4), (0, 0.1), (-0.02, 0.3), (-0.01, 0.36)]
BRONCHUS = [(-0.01, 0.36), (0.1, 0.405), (0.2, 0.45)]
HILUM = [(0.24, 0.38), (0.26, 0.44), (0.27, 0.52)]
VESSEL_HEADINGS = (-1.3, -0.9, -0.5, -0.1, 0.25, 0.55, 0.8, 1.0, 1.2, 1.35, 1.5)
TEXTURE = ((8, 0.3), (30, 0.2), (90, 0.25))
"""Cells across the image, and thickness in cm, of the unevenness of lung tissue."""

RIBS, ANTERIOR_RIBS = 10, 7
VERTEBRAE = np.arange(-0.2, 1.25, 0.078)

TRUNK = [(0, -0.15), (0.4, -0.13), (0.8, 0), (1.05, 0.3), (1.13, 0.65), (1.13, 1), (1.13, 1.5), (0, 1.5)]
BREAST = [(0.3, 0.5), (0.55, 0.38), (0.85, 0.45), (0.98, 0.65), (0.9, 0.82), (0.6, 0.86), (0.36, 0.74)]
LIMB_DEPTH, TRUNK_DEPTH = 14.0, 7.5
"""Thickness of neck, shoulders and arms, and what the trunk adds to it, in cm."""
LIMB_ROUNDING, TRUNK_ROUNDING = 0.12, 0.2
"""Shares of the width over which their edges round off."""
LUNG_SHARE, LUNG_ROUNDING = 0.66, 0.075
"""Share of the body's depth that a lung replaces by air, and share of the width over which its edge rounds off."""
SOFT_TISSUE, BONE = 0.185, 0.42
"""Attenuation per centimetre at the tube voltage of a chest radiograph; bone in excess of soft tissue."""
SCATTER = 0.03
"""Scattered radiation, as a share of the primary beam: it flattens the densest parts."""
FILM_SHOULDER = 1.2
"""Exponent by which the film curve levels out towards white."""
WIDEST_BLUR = 5
"""Standard deviation in pixels from which a blur works on a smaller image, to save time."""


@dataclass(frozen=True)
class MadeRadiograph:
    """A made radiograph and the truth about it.

    Attributes:
        pixels: ``(H, W)`` 12-bit values in 0..4095, MONOCHROME2.
        lungs: ``(H, W)`` True inside the lungs, without the heart and what lies below the diaphragm.
    """

    pixels: NDArray[np.uint16]
    lungs: NDArray[np.bool_]


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


def lung_area(projection: Projection) -> Canvas:
    """Both lungs, ``(H, W)`` of 0 and 255."""
    right = lung_outline(RIGHT_DIAPHRAGM, RIGHT_MEDIASTINUM, projection.patient)
    left = lung_outline(LEFT_DIAPHRAGM, LEFT_MEDIASTINUM, projection.patient)
    return projection.area(right, [RIGHT]) | projection.area(left, [LEFT])


def lung_outline(
    diaphragm: list[tuple[float, float]], mediastinum: list[tuple[float, float]], patient: Patient
) -> Points:
    """Outline of one lung: down the rib cage, along the diaphragm and up the mediastinum."""
    outline = np.vstack([curve(RIB_CAGE), curve(diaphragm), curve(mediastinum)])
    lateral, down = outline[:, 0].copy(), outline[:, 1].copy()
    on_heart = np.clip((0.9 - lateral) / 0.3, 0, 1) * np.clip((down - HEART_TOP) / 0.2, 0, 1)
    outline[:, 0] += on_heart * (patient.heart - 1) * lateral
    outline[:, 1] -= np.clip((0.97 - lateral) / 0.3, 0, 1) * np.clip((down - 0.6) / 0.2, 0, 1) * patient.dome
    return outline


def soft_tissue(projection: Projection, lungs: Canvas) -> Thickness:
    """Thickness of soft tissue in cm: the body less the air in lungs, airways and stomach."""
    limbs = projection.rounded(projection.area(curve(BODY)), LIMB_ROUNDING)
    trunk = projection.rounded(projection.area(curve(TRUNK)), TRUNK_ROUNDING)
    trunk = projection.soften(trunk, 0.03)
    body = projection.patient.depth * (LIMB_DEPTH * limbs + TRUNK_DEPTH * trunk)
    behind = projection.area(curve(HIDDEN_LUNG, closed=True))
    hidden = projection.soften(projection.rounded(behind, 2 * LUNG_ROUNDING), 0.012)
    air = LUNG_SHARE * np.maximum(projection.rounded(lungs, LUNG_ROUNDING), 0.15 * hidden)
    bubble = projection.area(curve(STOMACH_BUBBLE, closed=True), [LEFT])
    breasts = projection.rounded(projection.area(curve(BREAST, closed=True)), 2 * LUNG_ROUNDING)
    tissue = body * (1 - air) - 5 * projection.rounded(bubble, 0.03) + projection.patient.breast * breasts
    return projection.soften(tissue - airways(projection), 0.002)


def airways(projection: Projection) -> Thickness:
    """Thickness of air in cm in the trachea and the main bronchi."""
    trachea = projection.soften(projection.lines([curve(TRACHEA)], 0.036, [LEFT]), 0.005)
    bronchi = projection.soften(projection.lines([curve(BRONCHUS)], 0.022), 0.005)
    return 3 * trachea + 1.1 * bronchi


def vessels(projection: Projection, lungs: Canvas, seed: int) -> Thickness:
    """Thickness in cm of the pulmonary vessels, which branch from the hila and fade outwards."""
    rng = np.random.default_rng([seed, 1])
    branches = [
        (breadth, side, path)
        for side in BOTH
        for heading in VESSEL_HEADINGS
        for breadth, path in vessel_tree(
            rng, np.array(HILUM[1]), heading + rng.normal(0, 0.12), rng.uniform(0.008, 0.013)
        )
    ]
    canvas = np.zeros_like(lungs)
    for breadth, side, path in sorted(branches, key=lambda branch: branch[0]):
        projection.draw(canvas, path, side, breadth, value=round(255 * breadth / 0.013))
    hila = projection.soften(projection.lines([curve(HILUM)], 0.035), 0.014)
    tree = 2.4 * projection.soften(canvas, 0.0014) + 2.2 * hila
    return (tree + small_vessels(projection, rng)) * projection.soften(lungs, 0.004)


def small_vessels(projection: Projection, rng: np.random.Generator) -> Thickness:
    """Uneven thickness in cm, around 0, of the vessels that are too small to be told apart."""
    size = (projection.width, projection.height)
    uneven = np.zeros(size[::-1], np.float32)
    for cells, thickness in TEXTURE:
        grid = rng.standard_normal((cells, cells), np.float32) * np.float32(thickness)
        uneven += cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)
    return uneven


def vessel_tree(
    rng: np.random.Generator, start: Points, heading: float, breadth: float
) -> Iterator[tuple[float, Points]]:
    """Grow one vessel and all its branches: (breadth as a share of the width, path) each."""
    steps = np.cumsum(rng.normal(0, 0.12, 5)) + heading
    stride = rng.uniform(0.016, 0.03)
    path = np.vstack([start, start + stride * np.cumsum(np.stack([np.cos(steps), np.sin(steps)], axis=1), axis=0)])
    yield breadth, path
    if breadth > 0.002:
        fork = rng.uniform(0.25, 0.5)
        for turn, share in ((-fork, 0.7), (fork, 0.55)):
            yield from vessel_tree(rng, path[-1], float(steps[-1]) + turn, breadth * share)


def bones(projection: Projection) -> Thickness:
    """Thickness of bone in cm."""
    arm = projection.lines([curve(HUMERUS)], 0.06)
    head = projection.lines([np.array([HUMERUS[0], HUMERUS[0]])], 0.1)
    shoulders = 1.2 * tubular(projection, arm | head)
    shoulders += 0.45 * tubular(projection, projection.area(curve(SCAPULA, closed=True)))
    shoulders += 0.75 * tubular(projection, projection.lines([curve(CLAVICLE)], 0.027))
    return shoulders + ribs(projection) + 1.1 * spine(projection)


def tubular(projection: Projection, shadow: Canvas) -> Thickness:
    """Thickness of bones with a dense cortex, which shows as a bright rim, around a spongy core."""
    return np.asarray(projection.soften(shadow, 0.0015) * (1.35 - 0.7 * projection.soften(shadow, 0.005)))


def ribs(projection: Projection) -> Thickness:
    """Thickness of the ribs in cm: the posterior arcs, and the fainter anterior ones that cross them."""
    arcs = [rib_arcs(number) for number in range(RIBS)]
    posterior = projection.lines([back for back, _ in arcs], 0.02)
    anterior = projection.lines([front for _, front in arcs[:ANTERIOR_RIBS]], 0.022)
    return 0.65 * tubular(projection, posterior) + 0.42 * tubular(projection, anterior)


def rib_arcs(number: int) -> tuple[Points, Points]:
    """Posterior arc, from the spine to the side, and anterior arc, from there to the cartilage."""
    spine_down = 0.005 + 0.083 * number
    side_down = spine_down + 0.055 + 0.021 * number
    cage = np.array(RIB_CAGE)
    reach = float(np.interp(side_down, cage[:, 1], cage[:, 0])) + 0.005
    drop = side_down - spine_down
    back = [(0.06, spine_down), (0.3 * reach, spine_down - 0.012), (0.62 * reach, spine_down + 0.2 * drop),
            (0.88 * reach, spine_down + 0.58 * drop), (reach, side_down)]  # fmt: skip
    fall = 0.11 + 0.012 * number
    front = [(reach, side_down), (0.97 * reach, side_down + 0.3 * fall), (0.8 * reach, side_down + 0.68 * fall),
             (0.42 + 0.2 * reach, side_down + fall)]  # fmt: skip
    return curve(back), curve(front)


def spine(projection: Projection) -> Thickness:
    """Thickness, as a share of a vertebra's, of the vertebral column with its discs and pedicles."""
    column = projection.lines([np.array([(0, -0.5), (0, 1.5)])], 0.07, [LEFT])
    bodies = projection.lines([np.array([(0, down), (0.06, down)]) for down in VERTEBRAE], 0.038)
    pedicles = projection.lines([np.array([(0.055, down), (0.055, down + 0.012)]) for down in VERTEBRAE], 0.012)
    processes = projection.lines([np.array([(0.07, down), (0.14, down - 0.012)]) for down in VERTEBRAE], 0.014)
    vertebrae: Thickness = 0.55 * projection.soften(column, 0.004) + 0.3 * projection.soften(bodies, 0.004)
    vertebrae += 0.25 * projection.soften(pedicles, 0.004) + 0.12 * projection.soften(processes, 0.004)
    return vertebrae


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
