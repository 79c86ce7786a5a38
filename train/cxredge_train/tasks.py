"""The tasks that an iteration can draw, each a pair of source and target domain (paper, Table 1)."""

from __future__ import annotations

from enum import Enum

import torch

from cxredge_train.config import Stage, TaskConfig
from cxredge_train.networks import Domain


class Task(Enum):
    """A valid pair (source, target); impossible pairs are never drawn."""

    INTER_TO_INTRA = (Domain.INTER, Domain.INTRA)
    INTRA_TO_INTER = (Domain.INTRA, Domain.INTER)
    INTER_TO_INTER = (Domain.INTER, Domain.INTER)
    INTRA_TO_INTRA = (Domain.INTRA, Domain.INTRA)
    INTRA_TO_MASK = (Domain.INTRA, Domain.MASK)
    INTER_TO_MASK = (Domain.INTER, Domain.MASK)

    @property
    def source(self) -> Domain:
        """Domain of the input."""
        return self.value[0]

    @property
    def target(self) -> Domain:
        """Domain of the output."""
        return self.value[1]

    @property
    def adapts(self) -> bool:
        """Whether the task is domain adaptation, image to image."""
        return self.target is not Domain.MASK


def valid_tasks(stage: Stage) -> tuple[Task, ...]:
    """Tasks of a stage: segmentation, then adaptation too, then self-consistency on INTER too."""
    if stage is Stage.SUPERVISED:
        return (Task.INTRA_TO_MASK,)
    if stage is Stage.ADAPTATION:
        return tuple(task for task in Task if task is not Task.INTER_TO_MASK)
    return tuple(Task)


def draw_task(stage: Stage, config: TaskConfig) -> Task:
    """Draw a task of ``stage`` by the weights of ``config``, from torch's global generator."""
    tasks = valid_tasks(stage)
    weights = torch.tensor([getattr(config, task.name.lower()) for task in tasks])
    return tasks[int(torch.multinomial(weights, 1))]
