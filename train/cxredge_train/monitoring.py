"""What a run leaves for a person to look at: a CSV log, TensorBoard events and sample pictures."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from cxredge_train.framework import TrainingState

LOG = "log.csv"
COLUMNS = ("iteration", "learning_rate", "seg", "style", "images_per_second", "validation_dice")
SAMPLES = 4
LOG_EVERY = 10


class Monitor:
    """Writes the log of one run below its checkpoint folder; a resumed run appends.

    Args:
        folder: the checkpoint folder.
        iteration: iteration that the run starts at; rows of a lost stretch after it are dropped.
    """

    def __init__(self, folder: Path, iteration: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.iteration = iteration
        self.sums: dict[str, list[float]] = {}
        rows = _rows_until(folder / LOG, iteration)
        self.file = (folder / LOG).open("w", newline="", encoding="utf-8")
        self.table = csv.DictWriter(self.file, COLUMNS)
        self.table.writeheader()
        self.table.writerows(rows)
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=iteration + 1)

    def log(self, state: TrainingState, losses: dict[str, float], speed: float, validation_dice: float | None) -> None:
        """Add one iteration; every tenth, and every validation, becomes a row of means."""
        self.iteration = state.iteration
        for name, value in {**losses, "images_per_second": speed}.items():
            self.sums.setdefault(name, []).append(value)
        if validation_dice is None and state.iteration % LOG_EVERY:
            return
        means = {name: float(np.mean(values)) for name, values in self.sums.items()}
        rate = state.optimisers["generator"].param_groups[0]["lr"]
        row: dict[str, float] = {**means, "learning_rate": rate}
        if validation_dice is not None:
            row["validation_dice"] = validation_dice
        for name, value in row.items():
            self.board.add_scalar(name, value, state.iteration)
        self.table.writerow({"iteration": state.iteration} | {k: f"{v:.6g}" for k, v in row.items()})
        self.file.flush()
        self.sums.clear()

    def samples(self, images: Tensor, masks: Tensor, predicted: list[NDArray[np.bool_]]) -> None:
        """Write a picture of the first validation cases: input, truth (green) and prediction (red)."""
        rows = [
            sample_row(image[0].numpy(), mask.numpy(), found)
            for image, mask, found in zip(images[:SAMPLES], masks, predicted, strict=False)
        ]
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / "latest.png"), np.vstack(rows))

    def close(self) -> None:
        """Close the files."""
        self.file.close()
        self.board.close()


def sample_row(image: NDArray[np.float32], truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Input, truth contour and predicted contour side by side, BGR ``(H, 3·W, 3)``."""
    grey = cv2.cvtColor(((image + 1) * 127.5).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    panels = [grey]
    for mask, colour in ((truth, (0, 255, 0)), (found, (0, 0, 255))):
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        panels.append(cv2.drawContours(grey.copy(), contours, -1, colour, 1))
    return np.hstack(panels).astype(np.uint8)


def _rows_until(path: Path, iteration: int) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if int(row["iteration"]) <= iteration]
