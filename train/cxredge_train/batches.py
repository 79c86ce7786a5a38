"""Training batches in a seeded order: iteration i always gets the same rows, however often a run stops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxredge.data.audit import audit
from cxredge.data.dataset import Case, Dataset, content_hash, load_masks, open_dataset
from cxredge.data.input_cache import cached_inputs
from cxredge.data.leaks import require_no_leaks, without_rows, without_shared_patients
from cxredge.errors import ConfigError
from cxredge_train.augmentation import Augmentation
from cxredge_train.config import TrainingConfig
from cxredge_train.networks import Domain
from cxredge_train.steps import Batch
from cxredge_train.tasks import Task

REFERENCE_STREAMS = (1, 2)
"""Seeds, beside the source's 0, of the orders in which the two references are drawn."""


class DomainImages:
    """Radiographs of one domain, with lung masks where it has them, at every input size of the schedule."""

    def __init__(self, cases: Sequence[Case], sizes: set[int], *, labelled: bool) -> None:
        self.cases = tuple(cases)
        self.images = {size: torch.from_numpy(cached_inputs(self.cases, size)) for size in sizes}
        self.masks = {size: torch.from_numpy(load_masks(self.cases, size)) for size in sizes} if labelled else {}

    def __len__(self) -> int:
        return len(self.cases)

    def rows(self, indices: NDArray[np.int64], size: int) -> tuple[Tensor, Tensor | None]:
        """Images ``(N, 1, size, size)`` in [-1, 1] and masks ``(N, size, size)`` bool."""
        chosen = torch.from_numpy(indices)
        return self.images[size][chosen], self.masks[size][chosen] if self.masks else None


class TrainingData:
    """The data of one run: INTRA and INTER for training, INTRA for validation.

    Args:
        root: folder that holds the data sets that the configuration names.
        config: the run's configuration.

    Training rows of patients who stand in held-out rows too are left out.

    Raises:
        ConfigError: the schedule adapts, but there is no INTER data set.
        DatasetError: a training image is a held-out image too, or near-identical to one.
    """

    def __init__(self, root: Path, config: TrainingConfig) -> None:
        schedule, data = config.schedule, config.data
        if schedule.adaptation + schedule.distillation > 0 and not data.inter:
            raise ConfigError("data.inter names no data set, but schedule.adaptation or distillation needs one")
        intra = [open_dataset(root / name) for name in data.intra]
        inter = [open_dataset(root / name) for name in data.inter]
        self.datasets: list[Dataset] = intra + inter
        size = config.network.input_size
        sizes = {size} | ({schedule.coarse_size} - {0})
        kept = training_rows(self.datasets, data.leave_out)
        self.left_out = len(_split(self.datasets, "train")) - len(kept)
        self.domains = {Domain.INTRA: DomainImages(_among(kept, intra), sizes, labelled=True)}
        if inter:
            self.domains[Domain.INTER] = DomainImages(_among(kept, inter), sizes, labelled=False)
        self.validation = DomainImages(_split(intra, "val"), {size}, labelled=True)
        self.config = config
        self.augment = Augmentation(config.augmentation) if config.augmentation.enabled else None

    def batches(
        self, task: Task, iteration: int, size: int, device: torch.device, rank: int, ranks: int
    ) -> list[Batch]:
        """The accumulated batches of ``iteration`` for one of ``ranks`` devices.

        Augmentation changes what is segmented, never what is adapted.
        """
        schedule = self.config.schedule
        count = schedule.batch_size * schedule.accumulate
        first = (iteration * ranks + rank) * count
        target = Domain.INTRA if task.target is Domain.MASK else task.target
        images, masks = self._rows(task.source, first, count, 0, size)
        references = [self._rows(target, first, count, stream, size)[0] for stream in REFERENCE_STREAMS]
        teacher_images = images
        if self.augment is not None and not task.adapts:
            blank = torch.zeros(count, size, size, dtype=torch.bool)
            images, clean, moved = self.augment(images, blank if masks is None else masks)
            masks = None if masks is None else moved
            teacher_images = clean if self.config.augmentation.clean_teacher else images
        parts = [
            part.to(device).split(schedule.batch_size) if part is not None else [None] * schedule.accumulate
            for part in (images, teacher_images, masks, *references)
        ]
        return [Batch(i, t, m, (a, b)) for i, t, m, a, b in zip(*parts, strict=True)]

    def _rows(self, domain: Domain, first: int, count: int, stream: int, size: int) -> tuple[Tensor, Tensor | None]:
        images = self.domains[domain]
        order = shuffled_rows(len(images), first, count, (self.config.run.seed, int(domain), stream))
        return images.rows(order, size)

    def content_hash(self) -> str:
        """Hash of the manifests, for the contract."""
        return content_hash(self.datasets)


def training_rows(datasets: Sequence[Dataset], leave_out: Sequence[str]) -> list[Case]:
    """Rows to train on: without those to leave out, and without patients of held-out rows.

    Raises:
        DatasetError: a row among them is a held-out image too, or near-identical to one.
    """
    rows = without_rows(_split(datasets, "train"), leave_out)
    rows = without_shared_patients(rows, datasets)
    require_no_leaks(audit(datasets), rows)
    return list(rows)


def _among(rows: Sequence[Case], datasets: Sequence[Dataset]) -> list[Case]:
    images = {case.image for dataset in datasets for case in dataset.cases}
    return [case for case in rows if case.image in images]


def _split(datasets: Sequence[Dataset], split: str) -> list[Case]:
    return [case for dataset in datasets for case in dataset.split(split)]


def shuffled_rows(count: int, first: int, length: int, seed: Sequence[int]) -> NDArray[np.int64]:
    """``length`` row numbers from position ``first`` of an endless sequence of permutations of ``count`` rows."""
    positions = np.arange(first, first + length)
    epochs = {int(epoch) for epoch in positions // count}
    orders = {epoch: np.random.default_rng([*seed, epoch]).permutation(count) for epoch in epochs}
    return np.array([orders[int(position // count)][position % count] for position in positions], np.int64)


def input_size(config: TrainingConfig, iteration: int) -> int:
    """Side of the input at ``iteration``: the coarse size during the first part of each stage."""
    schedule = config.schedule
    _, share = schedule.stage(iteration)
    return schedule.coarse_size if schedule.coarse_size and share < schedule.coarse_share else config.network.input_size
