"""Validation of a run: Dice of each path on the labelled validation rows, and a panel of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxredge.evaluation.scoring import dice
from cxredge.libraries.open_cv import cv2
from cxredge.postprocessing import lung_mask
from cxredge_train.batches import DomainImages, TrainingData
from cxredge_train.config import Stage, TrainingConfig
from cxredge_train.framework import TrainingState
from cxredge_train.networks import Codes, Domain, Generator, StyleEncoder, a_da, a_seg, a_self
from cxredge_train.unet import UNet

BATCH = 4
ROWS = 3
"""Rows of the panel for each domain."""
TRUTH, FOUND = (0, 255, 0), (0, 0, 255)
"""Contour colours, BGR."""


@dataclass(frozen=True)
class Validation:
    """Mean Dice on the validation rows by path: ``a_seg``, and ``a_self`` once stage 2 has begun."""

    dice: dict[str, float]

    def __str__(self) -> str:
        return ", ".join(f"Dice {path} {value:.4f}" for path, value in self.dice.items())


@torch.no_grad()
def validate(state: TrainingState, data: TrainingData, config: TrainingConfig, folder: Path) -> Validation:
    """Score the averaged networks, post-processed as on the device, and write ``samples/latest.png``.

    Once adaptation has begun this also sets the state's a_da^X, the mean of S over the INTRA training rows.
    """
    size = config.network.input_size
    stage, _ = config.schedule.stage(state.iteration - 1)
    if stage is not Stage.SUPERVISED:
        refresh_adaptation_code(state, data, size)
    paths: dict[str, Codes] = {"a_seg": a_seg()}
    if stage is Stage.DISTILLATION:
        paths["a_self"] = a_self(state.self_code()[None])
    scores = {}
    for name, codes in paths.items():
        found = segment(state.generator_average, data.validation.images[size], codes, state.device)
        truths = data.validation.masks[size].numpy()
        scores[name] = float(np.mean([dice(one, truth) for one, truth in zip(found, truths, strict=True)]))
    (folder / "samples").mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "samples" / "latest.png"), panel(state, data, stage, size))
    return Validation(scores)


@torch.no_grad()
def refresh_adaptation_code(state: TrainingState, data: TrainingData, size: int) -> None:
    """Set the state's a_da^X from the averaged S as it is now (method, section 5)."""
    state.adaptation_code = mean_style(state.style_average, data.domains[Domain.INTRA].images[size], state.device)


def mean_style(style_encoder: StyleEncoder, images: Tensor, device: torch.device) -> Tensor:
    """Mean INTRA style code ``(16,)`` of images ``(N, 1, H, W)``."""
    codes = [style_encoder(batch.to(device), Domain.INTRA) for batch in images.split(BATCH)]
    return torch.cat(codes).mean(dim=0).cpu()


def segment(generator: Generator | UNet, images: Tensor, codes: Codes, device: torch.device) -> list[NDArray[np.bool_]]:
    """Post-processed masks ``(H, W)`` of images ``(N, 1, H, W)`` by one code ``(1, 16)``."""
    masks = []
    for batch in images.split(BATCH):
        logits = generator(batch.to(device), expanded(codes, len(batch)))
        for lung in (logits[:, 1] - logits[:, 0]).float().cpu().numpy():
            masks.append(lung_mask(lung, lung.shape))
    return masks


def expanded(codes: Codes, count: int) -> Codes:
    """``codes`` of a batch of one for a batch of ``count``."""
    encoder = None if codes.encoder is None else codes.encoder.expand(count, -1)
    decoder = None if codes.decoder is None else codes.decoder.expand(count, -1)
    return Codes(encoder, decoder, codes.target)


def panel(state: TrainingState, data: TrainingData, stage: Stage, size: int) -> NDArray[np.uint8]:
    """Picture of a few cases of each domain, BGR.

    Columns: input, adapted to INTRA, adapted to INTER, then contours (red) of the a_seg path, the
    indirect path and the direct a_self path, with the truth (green) where it is known. Columns of a
    stage to come are left out.
    """
    shown: list[tuple[DomainImages, bool]] = [(data.validation, True)]
    if stage is not Stage.SUPERVISED:
        shown.append((data.domains[Domain.INTER], False))
    rows = []
    for cases, labelled in shown:
        for index in range(min(ROWS, len(cases))):
            truth = cases.masks[size][index].numpy() if labelled else None
            rows.append(panel_row(state, data, stage, cases.images[size][index : index + 1], truth))
    return np.vstack(rows)


def panel_row(
    state: TrainingState, data: TrainingData, stage: Stage, image: Tensor, truth: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """One row of :func:`panel` for an image ``(1, 1, H, W)``."""
    generator, device = state.generator_average, state.device
    image = image.to(device)
    cells, paths = [grey(image)], [segment(generator, image, a_seg(), device)[0]]
    if stage is not Stage.SUPERVISED:
        size = image.shape[-1]
        inter_code = state.style_average(data.domains[Domain.INTER].images[size][:1].to(device), Domain.INTER)
        to_intra = generator(image, a_da(state.adaptation_code[None].to(device), Domain.INTRA))
        cells += [grey(to_intra), grey(generator(image, a_da(inter_code, Domain.INTER)))]
        paths.append(segment(generator, to_intra, a_seg(), device)[0])
    if stage is Stage.DISTILLATION:
        paths.append(segment(generator, image, a_self(state.self_code()[None]), device)[0])
    for mask in paths:
        cell = grey(image) if truth is None else outlined(grey(image), truth, TRUTH)
        cells.append(outlined(cell, mask, FOUND))
    return np.hstack(cells)


def grey(image: Tensor) -> NDArray[np.uint8]:
    """An image ``(1, 1, H, W)`` in [-1, 1] as BGR ``(H, W, 3)``."""
    levels = ((image[0, 0].float().cpu().clamp(-1, 1).numpy() + 1) * 127.5).astype(np.uint8)
    return np.asarray(cv2.cvtColor(levels, cv2.COLOR_GRAY2BGR), np.uint8)


def outlined(picture: NDArray[np.uint8], mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """``picture`` with the contour of ``mask`` drawn on it."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(picture.copy(), contours, -1, colour, 1), np.uint8)
