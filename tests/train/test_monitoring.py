"""The log, the events and the sample picture say what happened, also after a resume."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cxredge_train.config import TrainingConfig
from cxredge_train.framework import TrainingState
from cxredge_train.monitoring import COLUMNS, Monitor, sample_row


@pytest.fixture(scope="module")
def state(config: TrainingConfig) -> TrainingState:
    return TrainingState(config, torch.device("cpu"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def log(folder: Path, state: TrainingState, iterations: range, validated: int | None = None) -> None:
    """Log ``iterations`` with the loss ``seg`` equal to their number; one of them is validated."""
    with closing(Monitor(folder, iterations.start - 1)) as monitor:
        for iteration in iterations:
            state.iteration = iteration
            monitor.log(state, {"seg": float(iteration)}, 8.0, 0.75 if iteration == validated else None)


def rows(folder: Path) -> Iterator[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        yield from csv.DictReader(file)


def test_every_tenth_iteration_is_a_row_of_means(folder: Path, state: TrainingState) -> None:
    log(folder, state, range(1, 26))
    found = [(int(row["iteration"]), float(row["seg"])) for row in rows(folder)]
    assert found == [(10, 5.5), (20, 15.5)]
    first = next(rows(folder))
    assert tuple(first) == COLUMNS
    assert float(first["learning_rate"]) == state.optimisers["generator"].param_groups[0]["lr"]
    assert float(first["images_per_second"]) == 8
    assert first["style"] == first["validation_dice"] == ""


def test_a_validation_is_a_row(folder: Path, state: TrainingState) -> None:
    log(folder, state, range(1, 6), validated=4)
    (row,) = rows(folder)
    assert (row["iteration"], row["validation_dice"], float(row["seg"])) == ("4", "0.75", 2.5)


def test_a_resumed_run_appends_and_drops_the_lost_stretch(folder: Path, state: TrainingState) -> None:
    log(folder, state, range(1, 41))
    log(folder, state, range(26, 51))  # the last save was at 25
    found = [(int(row["iteration"]), float(row["seg"])) for row in rows(folder)]
    assert found == [(10, 5.5), (20, 15.5), (30, 28.0), (40, 35.5), (50, 45.5)]


def test_tensorboard_gets_the_same_numbers(folder: Path, state: TrainingState) -> None:
    log(folder, state, range(1, 21), validated=20)
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("seg")] == [(10, 5.5), (20, 15.5)]
    assert [(e.step, e.value) for e in events.Scalars("validation_dice")] == [(20, 0.75)]


def test_the_sample_picture_shows_at_most_four_cases_with_their_contours(folder: Path) -> None:
    images, masks = torch.zeros(6, 1, 32, 32), torch.zeros(6, 32, 32, dtype=torch.bool)
    masks[:, 8:24, 8:24] = True
    with closing(Monitor(folder, 0)) as monitor:
        monitor.samples(images, masks, [mask.numpy() for mask in masks])
    picture = cv2.imread(str(folder / "samples" / "latest.png"))
    assert picture.shape == (4 * 32, 3 * 32, 3)


def test_a_sample_row_is_input_truth_in_green_and_prediction_in_red() -> None:
    image = np.zeros((32, 32), np.float32)
    truth, found = np.zeros((2, 32, 32), bool)
    truth[4:12, 4:12] = True
    found[16:28, 16:28] = True
    row = sample_row(image, truth, found)
    assert row.shape == (32, 96, 3)
    coloured = [np.argwhere(np.ptp(row[:, i * 32 : (i + 1) * 32], axis=2) > 0) for i in range(3)]
    assert len(coloured[0]) == 0
    assert (coloured[1].min(), coloured[1].max()) == (4, 11)
    assert (coloured[2].min(), coloured[2].max()) == (16, 27)
    assert row[4, 32 + 4].tolist() == [0, 255, 0]  # BGR
    assert row[16, 64 + 16].tolist() == [0, 0, 255]


def test_a_sample_row_shows_the_whole_range_of_grey() -> None:
    image = np.array([[-1.0, 0.0, 1.0]], np.float32)
    nothing = np.zeros((1, 3), bool)
    assert sample_row(image, nothing, nothing)[0, :3, 0].tolist() == [0, 127, 255]
