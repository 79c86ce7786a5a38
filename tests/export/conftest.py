"""A tiny trained checkpoint and made radiographs for the exporter's tests."""

from __future__ import annotations

from collections.abc import Iterator
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
from cxredge_export.folding import DirectPath, fold_code
from cxredge_train.config import DataConfig, OptimiserConfig, ScheduleConfig, TrainingConfig
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
    """The direct path of :func:`generator` with a_seg; copy it before changing it."""
    return to_onnx(DirectPath(fold_code(generator, None)), SIZE)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that ``train`` wrote: width 2 at 32x32, a few iterations on made radiographs."""
    root = tmp_path_factory.mktemp("trained")
    for kind in ("images", "masks"):
        (root / "lungs" / kind).mkdir(parents=True)
    for seed in range(2):
        made = make_radiograph(seed, 64, 64)
        cv2.imwrite(str(root / "lungs" / "images" / f"{seed}.png"), made.pixels)
        cv2.imwrite(str(root / "lungs" / "masks" / f"{seed}.png"), made.lungs.astype(np.uint8) * 255)
    (root / "lungs" / "manifest.csv").write_text("name,split\n0,train\n1,val\n")
    config = TrainingConfig(
        name="tiny",
        network=NetworkConfig(width=2, input_size=SIZE, shared_code_trunk=True),
        data=DataConfig(intra=("lungs",), inter=()),
        optimiser=OptimiserConfig(learning_rate=1e-2, ema_decay=0.5),
        schedule=ScheduleConfig(iterations=12),
    )
    train(config, root, root / "checkpoint")
    return root / "checkpoint"
