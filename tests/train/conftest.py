"""Made radiographs on disk and tiny configurations for the trainer's tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cxredge_train.config import DataConfig, OptimiserConfig, RunConfig, ScheduleConfig, TrainingConfig
from cxredge_train.networks import NetworkConfig

SIDE = 64


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks are fastest on one thread, and its sums always come in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw_chest(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A made radiograph and its mask, ``(64, 64)`` uint8: two dark ellipses in a bright, noisy body."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for side in (-1, 1):
        centre = (int(SIDE * (0.5 + side * rng.uniform(0.18, 0.25))), int(SIDE * rng.uniform(0.45, 0.55)))
        axes = (int(SIDE * rng.uniform(0.1, 0.15)), int(SIDE * rng.uniform(0.25, 0.35)))
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, -1)
    pixels = 170 - 90.0 * (mask > 0) + rng.normal(0, 12, mask.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8), mask


@pytest.fixture(scope="session")
def write_dataset() -> Callable[..., Path]:
    """Writes a data set folder of made radiographs; rows are (name, split, seed of the picture)."""

    def write(folder: Path, rows: list[tuple[str, str, int]], *, masks: bool = True) -> Path:
        for kind in ("images", "masks") if masks else ("images",):
            (folder / kind).mkdir(parents=True)
        for name, _, seed in rows:
            pixels, mask = draw_chest(seed)
            cv2.imwrite(str(folder / "images" / f"{name}.png"), pixels)
            if masks:
                cv2.imwrite(str(folder / "masks" / f"{name}.png"), mask)
        lines = ["name,split", *(f"{name},{split}" for name, split, _ in rows)]
        (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
        return folder

    return write


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory, write_dataset: Callable[..., Path]) -> Path:
    """A data root with one data set, ``lungs``: three training rows, and the same pictures for validation."""
    root = tmp_path_factory.mktemp("data")
    write_dataset(root / "lungs", [(f"{split}{i}", split, i) for split in ("train", "val") for i in range(3)])
    return root


@pytest.fixture(scope="session")
def config() -> TrainingConfig:
    """Six iterations of a network of width 2 at 32x32, saved at every second one."""
    return TrainingConfig(
        name="tiny",
        network=NetworkConfig(width=2, input_size=32, shared_code_trunk=True),
        data=DataConfig(intra=("lungs",), inter=()),
        optimiser=OptimiserConfig(learning_rate=1e-3, code_learning_rate=1e-4, ema_decay=0.9),
        schedule=ScheduleConfig(iterations=6, batch_size=2),
        run=RunConfig(validate_every=4, save_every=2),
    )


@pytest.fixture(scope="session")
def shorter(config: TrainingConfig) -> TrainingConfig:
    """:func:`config` with a single iteration."""
    return replace(config, schedule=replace(config.schedule, iterations=1))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A checkpoint folder that is not there yet; removed afterwards, for code generators are large at every width."""
    yield tmp_path / "runs" / "tiny"
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
