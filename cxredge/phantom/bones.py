"""Bones of the made patient, as thickness in cm along the beam."""

from __future__ import annotations

import numpy as np

from cxredge.phantom.anatomy import CLAVICLE, HUMERUS, RIB_CAGE, SCAPULA
from cxredge.phantom.projection import LEFT, Canvas, Points, Projection, Thickness, curve

RIBS, ANTERIOR_RIBS = 10, 7
VERTEBRAE = np.arange(-0.2, 1.25, 0.078)


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
