"""The log of a run: a CSV file and TensorBoard events of losses, rates, speed and validation Dice."""

from __future__ import annotations

import csv
from pathlib import Path
from types import TracebackType

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from cxredge_train.framework import TrainingState
from cxredge_train.tasks import Task
from cxredge_train.validation import Validation

LOG = "log.csv"
ADAPTATION_TERMS = ("d_real", "d_fake", "r1", "adv", "sty", "cyc", "ds")
COLUMNS = (
    "iteration",
    "learning_rate",
    "code_learning_rate",
    "images_per_second",
    "seconds_adapting",
    "seconds_segmenting",
    "seg",
    "style",
    "intra",
    "inter",
    *(f"{guide}_{term}" for guide in ("latent", "reference") for term in ADAPTATION_TERMS),
    "dice_a_seg",
    "dice_a_self",
)
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
        self.sums: dict[str, list[float]] = {}
        rows = _rows_until(folder / LOG, iteration)
        self.file = (folder / LOG).open("w", newline="", encoding="utf-8")
        self.table = csv.DictWriter(self.file, COLUMNS)
        self.table.writeheader()
        self.table.writerows(rows)
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=iteration + 1)

    def log(
        self,
        state: TrainingState,
        task: Task,
        terms: dict[str, float],
        seconds: float,
        speed: float,
        validation: Validation | None,
    ) -> None:
        """Add one iteration; every tenth, and every validation, becomes a row of means."""
        phase = "seconds_adapting" if task.adapts else "seconds_segmenting"
        for name, value in {**terms, "images_per_second": speed, phase: seconds}.items():
            self.sums.setdefault(name, []).append(value)
        if validation is None and state.iteration % LOG_EVERY:
            return
        row = {name: float(np.mean(values)) for name, values in self.sums.items()}
        row["learning_rate"] = state.optimisers["generator"].param_groups[0]["lr"]
        row["code_learning_rate"] = state.optimisers["code_generators"].param_groups[0]["lr"]
        if validation is not None:
            row |= {f"dice_{path}": value for path, value in validation.dice.items()}
        for name, value in row.items():
            self.board.add_scalar(name, value, state.iteration)
        self.table.writerow({"iteration": state.iteration} | {k: f"{v:.6g}" for k, v in row.items()})
        self.file.flush()
        self.sums.clear()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
        self.board.close()


def _rows_until(path: Path, iteration: int) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if int(row["iteration"]) <= iteration]
