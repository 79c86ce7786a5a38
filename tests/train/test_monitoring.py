"""The log and the events say what happened, also after a resume."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cxredge_train.config import TrainingConfig
from cxredge_train.framework import TrainingState
from cxredge_train.monitoring import COLUMNS, Monitor
from cxredge_train.tasks import Task
from cxredge_train.validation import Validation

pytestmark = pytest.mark.usefixtures("small_code_generators")


@pytest.fixture(scope="module")
def state(config: TrainingConfig, small_code_generators: None) -> TrainingState:
    return TrainingState(config, torch.device("cpu"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


def log(folder: Path, state: TrainingState, iterations: range, validated: int | None = None) -> None:
    """Log ``iterations`` with the loss ``seg`` equal to their number; one of them is validated."""
    found = Validation({"a_seg": 0.75, "a_self": 0.5})
    with Monitor(folder, iterations.start - 1) as monitor:
        for iteration in iterations:
            state.iteration = iteration
            terms = {"seg": float(iteration)}
            monitor.log(state, Task.INTRA_TO_MASK, terms, 0.25, 8.0, found if iteration == validated else None)


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
    assert float(first["code_learning_rate"]) == state.optimisers["code_generators"].param_groups[0]["lr"]
    assert (float(first["images_per_second"]), float(first["seconds_segmenting"])) == (8, 0.25)
    assert first["style"] == first["dice_a_seg"] == first["seconds_adapting"] == ""


def test_a_validation_is_a_row(folder: Path, state: TrainingState) -> None:
    log(folder, state, range(1, 6), validated=4)
    (row,) = rows(folder)
    assert (row["iteration"], row["dice_a_seg"], row["dice_a_self"], float(row["seg"])) == ("4", "0.75", "0.5", 2.5)


def test_tasks_are_averaged_each_over_its_own_iterations(folder: Path, state: TrainingState) -> None:
    with Monitor(folder, 0) as monitor:
        for state.iteration in range(1, 11):
            adapts = state.iteration % 5 == 0
            task = Task.INTRA_TO_INTER if adapts else Task.INTER_TO_MASK
            terms = {"latent_cyc": float(state.iteration)} if adapts else {"inter": 2.0}
            monitor.log(state, task, terms, 4.0 if adapts else 1.0, 8.0, None)
    (row,) = rows(folder)
    assert (float(row["latent_cyc"]), float(row["inter"])) == (7.5, 2)
    assert (float(row["seconds_adapting"]), float(row["seconds_segmenting"])) == (4, 1)


def test_a_resumed_run_appends_and_drops_the_lost_stretch(folder: Path, state: TrainingState) -> None:
    log(folder, state, range(1, 41))
    log(folder, state, range(26, 51))  # the last save was at 25
    found = [(int(row["iteration"]), float(row["seg"])) for row in rows(folder)]
    assert found == [(10, 5.5), (20, 15.5), (30, 28.0), (40, 35.5), (50, 45.5)]


def test_tensorboard_gets_the_same_numbers(folder: Path, state: TrainingState) -> None:
    log(folder, state, range(1, 21), validated=20)
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("seg")] == [(10, 5.5), (20, 15.5)]
    assert [(e.step, e.value) for e in events.Scalars("dice_a_seg")] == [(20, 0.75)]


def test_a_run_that_fails_leaves_its_log(folder: Path, state: TrainingState) -> None:
    def fail() -> None:
        with Monitor(folder, 0) as monitor:
            state.iteration = 10
            monitor.log(state, Task.INTRA_TO_MASK, {"seg": 1.0}, 0.25, 8.0, None)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [row["iteration"] for row in rows(folder)] == ["10"]
