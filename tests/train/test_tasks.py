"""Only valid pairs of domains are drawn, as often as their weights say."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from cxredge_train.config import Stage, TaskConfig
from cxredge_train.networks import Domain
from cxredge_train.tasks import Task, draw_task, valid_tasks

DRAWS = 4000
INTRA, INTER, MASK = Domain
ADAPTATION = {(INTER, INTRA), (INTRA, INTER), (INTER, INTER), (INTRA, INTRA)}
VALID = {
    Stage.SUPERVISED: {(INTRA, MASK)},
    Stage.ADAPTATION: ADAPTATION | {(INTRA, MASK)},
    Stage.DISTILLATION: ADAPTATION | {(INTRA, MASK), (INTER, MASK)},
}


def drawn(stage: Stage, config: TaskConfig, draws: int = DRAWS) -> Counter[Task]:
    torch.manual_seed(0)
    return Counter(draw_task(stage, config) for _ in range(draws))


@pytest.mark.parametrize("stage", Stage)
def test_the_valid_pairs_of_each_stage(stage: Stage) -> None:
    tasks = valid_tasks(stage)
    assert {(task.source, task.target) for task in tasks} == VALID[stage]
    assert len(tasks) == len(VALID[stage])


def test_four_tasks_adapt() -> None:
    assert {(task.source, task.target) for task in Task if task.adapts} == ADAPTATION


@pytest.mark.parametrize("stage", Stage)
def test_valid_pairs_are_drawn_uniformly_and_no_others(stage: Stage) -> None:
    counts = drawn(stage, TaskConfig())
    assert {(task.source, task.target) for task in counts} == VALID[stage]
    expected = DRAWS / len(VALID[stage])
    for count in counts.values():  # four standard deviations
        assert count == pytest.approx(expected, abs=4 * expected**0.5)


@pytest.mark.parametrize("name", ["inter_to_intra", "intra_to_inter", "intra_to_mask", "inter_to_mask"])
def test_each_weight_belongs_to_its_own_task(name: str) -> None:
    counts = drawn(Stage.DISTILLATION, TaskConfig(**{name: 15.0}))  # 15 of 20
    assert counts[Task[name.upper()]] == pytest.approx(0.75 * DRAWS, abs=4 * (0.75 * 0.25 * DRAWS) ** 0.5)


def test_a_task_of_no_weight_is_never_drawn() -> None:
    weights = TaskConfig(inter_to_inter=0, intra_to_intra=0, inter_to_mask=0)
    assert set(drawn(Stage.DISTILLATION, weights)) == {Task.INTER_TO_INTRA, Task.INTRA_TO_INTER, Task.INTRA_TO_MASK}


def test_one_seed_draws_one_sequence() -> None:
    def sequence(seed: int) -> list[Task]:
        torch.manual_seed(seed)
        return [draw_task(Stage.DISTILLATION, TaskConfig()) for _ in range(30)]

    assert sequence(3) == sequence(3) != sequence(4)
