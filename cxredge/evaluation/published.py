"""The figures that Oh & Ye published (ECCV 2022, Table 3), to stand beside ours.

Theirs are of other images: JSRT test and NLM for Dice, BIMCV-13 for the true-positive ratio.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedRow:
    """Means of one method under no, weak and harsh shift."""

    method: str
    dice: tuple[float, float, float]
    tpr: tuple[float, float, float]


TABLE_3 = (
    PublishedRow("U-Net", (0.90, 0.89, 0.87), (0.87, 0.82, 0.82)),
    PublishedRow("CycleGAN + U-Net", (0.89, 0.89, 0.86), (0.88, 0.84, 0.85)),
    PublishedRow("StarGANv2 + U-Net", (0.90, 0.90, 0.88), (0.90, 0.90, 0.88)),
    PublishedRow("Proposed", (0.90, 0.90, 0.89), (0.90, 0.91, 0.89)),
    PublishedRow("XLSor", (0.93, 0.92, 0.78), (0.90, 0.62, 0.56)),
    PublishedRow("lungVAE", (0.94, 0.93, 0.60), (0.90, 0.61, 0.10)),
    PublishedRow("Proposed + ℓ_self", (0.91, 0.90, 0.89), (0.90, 0.89, 0.86)),
)
