"""Soft tissue of the made patient, lungs, airways and vessels included, as thickness in cm along the beam."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cxredge.libraries.open_cv import cv2
from cxredge.phantom.anatomy import (
    BODY,
    BREAST,
    BRONCHUS,
    HEART_TOP,
    HIDDEN_LUNG,
    HILUM,
    LEFT_DIAPHRAGM,
    LEFT_MEDIASTINUM,
    RIB_CAGE,
    RIGHT_DIAPHRAGM,
    RIGHT_MEDIASTINUM,
    STOMACH_BUBBLE,
    TRACHEA,
    TRUNK,
)
from cxredge.phantom.projection import BOTH, LEFT, RIGHT, Canvas, Patient, Points, Projection, Thickness, curve

VESSEL_HEADINGS = (-1.3, -0.9, -0.5, -0.1, 0.25, 0.55, 0.8, 1.0, 1.2, 1.35, 1.5)
TEXTURE = ((8, 0.3), (30, 0.2), (90, 0.25))
"""Cells across the image, and thickness in cm, of the unevenness of lung tissue."""
LIMB_DEPTH, TRUNK_DEPTH = 14.0, 7.5
"""Thickness of neck, shoulders and arms, and what the trunk adds to it, in cm."""
LIMB_ROUNDING, TRUNK_ROUNDING = 0.12, 0.2
"""Shares of the width over which their edges round off."""
LUNG_SHARE, LUNG_ROUNDING = 0.66, 0.075
"""Share of the body's depth that a lung replaces by air, and share of the width over which its edge rounds off."""


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
