"""Training batches in a seeded order: iteration i always gets the same rows, however often a run stops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxredge.dataset import Case, Dataset, content_hash, load_inputs, load_masks, open_dataset
from cxredge_train.config import TrainingConfig


class LabelledImages:
    """Radiographs with lung masks, held in memory at every input size that the schedule uses."""

    def __init__(self, cases: tuple[Case, ...], sizes: set[int]) -> None:
        self.cases = cases
        self.images = {size: torch.from_numpy(load_inputs(cases, size)) for size in sizes}
        self.masks = {size: torch.from_numpy(load_masks(cases, size)) for size in sizes}

    def __len__(self) -> int:
        return len(self.cases)

    def rows(self, indices: NDArray[np.int64], size: int) -> tuple[Tensor, Tensor]:
        """Images ``(N, 1, size, size)`` in [-1, 1] and masks ``(N, size, size)`` bool."""
        chosen = torch.from_numpy(indices)
        return self.images[size][chosen], self.masks[size][chosen]


class TrainingData:
    """The data of one run: INTRA for training and validation.

    Args:
        root: folder that holds the data sets that the configuration names.
        config: the run's configuration.
    """

    def __init__(self, root: Path, config: TrainingConfig) -> None:
        self.datasets: list[Dataset] = [open_dataset(root / name) for name in config.data.intra]
        sizes = {config.network.input_size} | ({config.schedule.coarse_size} - {0})
        self.train = LabelledImages(tuple(c for d in self.datasets for c in d.split("train")), sizes)
        self.validation = LabelledImages(
            tuple(c for d in self.datasets for c in d.split("val")), {config.network.input_size}
        )
        self.seed = config.run.seed
        self.batch_size = config.schedule.batch_size

    def batch(self, iteration: int, size: int) -> tuple[Tensor, Tensor]:
        """Images and masks of ``iteration``: epochs of shuffled rows, each row once an epoch."""
        return self.train.rows(shuffled_rows(len(self.train), iteration, self.batch_size, self.seed), size)

    def content_hash(self) -> str:
        """Hash of the manifests, for the contract."""
        return content_hash(self.datasets)


def shuffled_rows(count: int, iteration: int, batch_size: int, seed: int) -> NDArray[np.int64]:
    """Row numbers of one batch: position in an endless sequence of seeded permutations of ``count`` rows."""
    positions = np.arange(iteration * batch_size, (iteration + 1) * batch_size)
    orders = {epoch: np.random.default_rng([seed, int(epoch)]).permutation(count) for epoch in set(positions // count)}
    return np.array([orders[position // count][position % count] for position in positions], np.int64)


def input_size(config: TrainingConfig, iteration: int) -> int:
    """Side of the input at ``iteration``: the coarse size during the first part of the run."""
    schedule = config.schedule
    coarse = schedule.coarse_size and iteration < schedule.coarse_share * schedule.iterations
    return schedule.coarse_size if coarse else config.network.input_size
