"""The gate: how far the masks of an INT8 model are from those of the FP32 model on the held-back samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cxredge.data.dataset import Case
from cxredge.evaluation.scoring import dice, true_positive_ratio
from cxredge.postprocessing import clean_logits
from cxredge_calibration.choice import with_shifted_copies
from cxredge_calibration.samples import Sample
from cxredge_calibration.simulation import run


@dataclass(frozen=True)
class Reference:
    """A held-back image and what it is compared with, all ``(S, S)``.

    Attributes:
        name: of the sample; a shifted copy says so.
        input: network input.
        mask: lungs as the FP32 model finds them.
        lungs: true lungs, or ``None`` where both are not labelled.
        infection: labelled abnormality, or ``None`` where there is none.
    """

    name: str
    input: NDArray[np.float32]
    mask: NDArray[np.bool_]
    lungs: NDArray[np.bool_] | None
    infection: NDArray[np.bool_] | None


@dataclass(frozen=True)
class ImageFigures:
    """Figures of one held-back image.

    Attributes:
        name: of the image.
        agreement: Dice between the masks of both models.
        dice_fp32: Dice of the FP32 model against the true lungs, where they are known.
        dice_int8: Dice of the INT8 model.
        tpr_fp32: true-positive ratio of the FP32 model, where there is a labelled abnormality.
        tpr_int8: true-positive ratio of the INT8 model.
    """

    name: str
    agreement: float
    dice_fp32: float | None = None
    dice_int8: float | None = None
    tpr_fp32: float | None = None
    tpr_int8: float | None = None


@dataclass(frozen=True)
class GateFigures:
    """Figures of an INT8 model on the held-back images.

    Attributes:
        images: those that were measured.
        total: those that there are; fewer are measured where the gate cannot be passed any more.
    """

    images: tuple[ImageFigures, ...]
    total: int

    @property
    def complete(self) -> bool:
        """Whether all images were measured."""
        return len(self.images) == self.total

    @property
    def disagreement(self) -> float:
        """Mean of 1 - Dice between both models' masks, at least; it bounds what Dice can fall."""
        return sum(1 - image.agreement for image in self.images) / self.total

    @property
    def dice_drop(self) -> float | None:
        """Mean fall of Dice against the true lungs."""
        return mean_fall((image.dice_fp32, image.dice_int8) for image in self.images)

    @property
    def tpr_drop(self) -> float | None:
        """Mean fall of the true-positive ratio."""
        return mean_fall((image.tpr_fp32, image.tpr_int8) for image in self.images)

    @property
    def drop(self) -> float:
        """What the gate looks at: the largest of the three."""
        return max(value for value in (self.disagreement, self.dice_drop, self.tpr_drop) if value is not None)

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "drop": self.drop,
            "disagreement": self.disagreement,
            "dice_drop": self.dice_drop,
            "tpr_drop": self.tpr_drop,
            "images": [asdict(image) for image in self.images],
        }


def mean_fall(pairs: Iterable[tuple[float | None, float | None]]) -> float | None:
    """Mean of first minus second over the pairs that are there; ``None`` without any."""
    falls = [before - after for before, after in pairs if before is not None and after is not None]
    return sum(falls) / len(falls) if falls else None


def make_references(session: onnxruntime.InferenceSession, samples: Sequence[Sample]) -> Iterator[Reference]:
    """Each held-back sample and its shifted copy, with the masks of the FP32 model in ``session``.

    Raises:
        DatasetError: a label cannot be read.
    """
    for sample in samples:
        lungs, infection = true_lungs(sample.source.case, sample.input.shape[0]), infection_of(sample)
        for name, pixels in zip(*with_shifted_copies([sample]), strict=True):
            yield Reference(name, pixels, mask_of(session, pixels), lungs, infection)


def true_lungs(case: Case, size: int) -> NDArray[np.bool_] | None:
    """The labelled lungs at network size; ``None`` without a label, or where it lacks a lung."""
    both = "0" not in (case.row.get("left_lung"), case.row.get("right_lung"))
    return case.label(case.mask, size) if both else None


def infection_of(sample: Sample) -> NDArray[np.bool_] | None:
    """The labelled abnormality at network size, or ``None`` where there is none."""
    infection = sample.source.case.label(sample.source.case.infection, sample.input.shape[0])
    return infection if infection is not None and infection.any() else None


def mask_of(session: onnxruntime.InferenceSession, pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Lungs ``(S, S)`` that a model finds, after post-processing at network size."""
    return np.asarray(clean_logits(run(session, pixels)[0][0, 0]) > 0)


def measure(
    session: onnxruntime.InferenceSession, references: Sequence[Reference], limit: float = float("inf")
) -> GateFigures:
    """Compare an INT8 model with the FP32 model.

    Args:
        session: of the INT8 model.
        references: what to compare on, at least one.
        limit: mean disagreement beyond which the other images need not be measured.
    """
    images: list[ImageFigures] = []
    apart = 0.0
    for reference in references:
        images.append(compare(reference, mask_of(session, reference.input)))
        apart += 1 - images[-1].agreement
        if apart > limit * len(references):
            break
    return GateFigures(tuple(images), len(references))


def compare(reference: Reference, mask: NDArray[np.bool_]) -> ImageFigures:
    """Figures of one mask ``(S, S)`` of an INT8 model."""
    lungs, infection = reference.lungs, reference.infection
    return ImageFigures(
        reference.name,
        dice(mask, reference.mask),
        None if lungs is None else dice(reference.mask, lungs),
        None if lungs is None else dice(mask, lungs),
        None if infection is None else true_positive_ratio(reference.mask, infection),
        None if infection is None else true_positive_ratio(mask, infection),
    )
