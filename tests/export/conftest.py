"""A tiny trained checkpoint and made radiographs for the exporter's tests."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from cxredge.phantom import make_radiograph
from cxredge.radiograph import Radiograph
from cxredge_export.conversion import to_onnx
from cxredge_export.folding import FOLDS, fold, fold_code
from cxredge_train import networks
from cxredge_train.config import DataConfig, OptimiserConfig, ScheduleConfig, TaskConfig, TrainingConfig
from cxredge_train.networks import Generator, NetworkConfig, initialise
from cxredge_train.training import train

SIZE = 32


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks are fastest on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def generator() -> Generator:
    """A generator of width 2 for 32x32 whose norms all have an affine of their own."""
    torch.manual_seed(0)
    generator = Generator(NetworkConfig(width=2, input_size=SIZE))
    initialise(generator)
    for name, parameter in generator.named_parameters():
        if "plain" in name or "_head.0" in name:
            nn.init.normal_(parameter, 1.0 if name.endswith("weight") else 0.0, 0.3)
    return generator.eval()


@pytest.fixture(scope="session")
def radiographs() -> list[Radiograph]:
    """Two made radiographs."""
    return [Radiograph(make_radiograph(seed, 128, 96).pixels) for seed in (1, 2)]


@pytest.fixture(scope="session")
def converted(generator: Generator) -> onnx.ModelProto:
    """The direct path of :func:`generator` with a_seg, all folds applied; copy it before changing it."""
    return to_onnx(fold(fold_code(generator, None), FOLDS), SIZE)


def write_dataset(folder: Path, seeds: range, splits: Sequence[str]) -> None:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    rows = ["name,split"]
    for seed, split in zip(seeds, splits, strict=True):
        made = make_radiograph(seed, 64, 64)
        cv2.imwrite(str(folder / "images" / f"{seed}.png"), made.pixels)
        cv2.imwrite(str(folder / "masks" / f"{seed}.png"), made.lungs.astype(np.uint8) * 255)
        rows.append(f"{seed},{split}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of ``train`` on made radiographs, width 2 at 32x32: at the end of its supervised stage, and at its end."""
    root = tmp_path_factory.mktemp("trained")
    write_dataset(root / "lungs", range(2), ("train", "val"))
    write_dataset(root / "sick", range(2, 4), ("train", "train"))
    config = TrainingConfig(
        name="tiny",
        network=NetworkConfig(width=2, input_size=SIZE, shared_code_trunk=True),
        data=DataConfig(intra=("lungs",), inter=("sick",)),
        optimiser=OptimiserConfig(learning_rate=1e-2, code_learning_rate=1e-2, ema_decay=0.5),
        schedule=ScheduleConfig(supervised=8, adaptation=0, distillation=4),
        tasks=TaskConfig(inter_to_mask=1e9),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "CODE_GENERATOR_UNITS", 8)  # with the method's 512 a checkpoint would have 100 MB
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        asked = itertools.count(1)
        assert train(config, root, root / "run", stop=lambda: next(asked) == 8).iteration == 8
        shutil.copytree(root / "run", root / "supervised")
        train(config, root, root / "run", continue_run=True)
    return root / "supervised", root / "run"


@pytest.fixture(scope="session")
def supervised(checkpoints: tuple[Path, Path]) -> Path:
    """A checkpoint whose direct path is a_seg."""
    return checkpoints[0]


@pytest.fixture(scope="session")
def checkpoint(checkpoints: tuple[Path, Path]) -> Path:
    """A checkpoint of stage 2, whose direct path is a_self."""
    return checkpoints[1]
