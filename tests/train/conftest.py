"""Made radiographs on disk, tiny configurations and one tiny run through all stages for the trainer's tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cxredge_train import networks
from cxredge_train.batches import TrainingData
from cxredge_train.config import DataConfig, LossConfig, OptimiserConfig, RunConfig, ScheduleConfig, TrainingConfig
from cxredge_train.networks import NetworkConfig
from cxredge_train.training import Outcome, Progress, train

SIDE = 64
SEED = 25
"""Draws every kind of task within eight iterations, see :func:`config`."""
UNITS = 8
"""Hidden units of F_e and F_d here: with the method's 512 a tiny checkpoint would have 100 MB."""


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks are fastest on one thread, and its sums always come in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Network inputs are cached beside the tests, not in the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def small_code_generators() -> Iterator[None]:
    """F_e and F_d of a few units, for modules that build or write many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "CODE_GENERATOR_UNITS", UNITS)
        yield


def draw_chest(seed: int, *, sick: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """A made radiograph and its mask, ``(64, 64)`` uint8: two dark ellipses in a bright, noisy, shaded body.

    A sick one has bright patches in the lungs.
    """
    rng = np.random.default_rng(seed)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    patches = np.zeros((SIDE, SIDE), np.uint8)
    for side in (-1, 1):
        centre = (int(SIDE * (0.5 + side * rng.uniform(0.18, 0.25))), int(SIDE * rng.uniform(0.45, 0.55)))
        axes = (int(SIDE * rng.uniform(0.1, 0.15)), int(SIDE * rng.uniform(0.25, 0.35)))
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, -1)
        cv2.circle(patches, (centre[0], centre[1] + axes[1] // 2), 5, 255, -1)
    shade = cv2.resize(rng.uniform(-30, 30, (3, 3)), (SIDE, SIDE))
    pixels = 170 - 90.0 * (mask > 0) + shade + rng.normal(0, 12, mask.shape)
    if sick:
        pixels += 60.0 * (patches > 0)
    return np.clip(pixels, 0, 255).astype(np.uint8), mask


@pytest.fixture(scope="session")
def write_dataset() -> Callable[..., Path]:
    """Writes a data set folder of made radiographs; rows are (name, split, seed of the picture)."""

    def write(
        folder: Path,
        rows: Sequence[tuple[str, str, int]],
        *,
        masks: bool = True,
        patients: Sequence[str] | None = None,
    ) -> Path:
        for kind in ("images", "masks") if masks else ("images",):
            (folder / kind).mkdir(parents=True)
        for name, _, seed in rows:
            pixels, mask = draw_chest(seed, sick=not masks)
            cv2.imwrite(str(folder / "images" / f"{name}.png"), pixels)
            if masks:
                cv2.imwrite(str(folder / "masks" / f"{name}.png"), mask)
        lines = ["name,split,patientid"]
        for (name, split, _), patient in zip(rows, patients or [""] * len(rows), strict=True):
            lines.append(f"{name},{split},{patient}")
        (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
        return folder

    return write


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory, write_dataset: Callable[..., Path]) -> Path:
    """A data root with ``lungs`` (INTRA: three training rows, two for validation) and ``sick`` (INTER: three)."""
    root = tmp_path_factory.mktemp("data")
    write_dataset(
        root / "lungs", [*((f"train{i}", "train", i) for i in range(3)), *((f"val{i}", "val", 3 + i) for i in range(2))]
    )
    write_dataset(root / "sick", [(f"train{i}", "train", 5 + i) for i in range(3)], masks=False)
    return root


@pytest.fixture(scope="session")
def config() -> TrainingConfig:
    """Two supervised iterations, three of stage 1 and three of stage 2, of a network of width 2 at 32x32.

    Validated after iterations 4 and 8, saved after 3, 6 and 8. With this seed the tasks are segmentation
    (0, 1), adaptation (2, 3), segmentation (4), ℓ_inter (5), adaptation (6) and segmentation with ℓ_intra (7).
    """
    return TrainingConfig(
        name="tiny",
        network=NetworkConfig(width=2, input_size=32, shared_code_trunk=True),
        data=DataConfig(intra=("lungs",), inter=("sick",)),
        losses=LossConfig(ds_iterations=4),
        optimiser=OptimiserConfig(learning_rate=1e-3, code_learning_rate=1e-4, ema_decay=0.9),
        schedule=ScheduleConfig(supervised=2, adaptation=3, distillation=3, batch_size=2),
        run=RunConfig(seed=SEED, validate_every=4, save_every=3),
    )


@pytest.fixture(scope="session")
def supervised(config: TrainingConfig) -> TrainingConfig:
    """:func:`config` with one supervised iteration and no others."""
    return replace(config, schedule=ScheduleConfig(supervised=1, adaptation=0, distillation=0, batch_size=2))


@pytest.fixture(scope="session")
def data(data_root: Path, config: TrainingConfig) -> TrainingData:
    return TrainingData(data_root, config)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A checkpoint folder that is not there yet; removed afterwards."""
    yield tmp_path / "runs" / "tiny"
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)


class Watch:
    """Remembers what a run reports, and asks it to stop after as many iterations of its own."""

    def __init__(self, iterations: int | None = None) -> None:
        self.iterations = iterations
        self.progress: list[Progress] = []
        self.asked = 0

    def report(self, progress: Progress) -> None:
        self.progress.append(progress)

    def stop(self) -> bool:
        self.asked += 1
        return self.iterations is not None and self.asked >= self.iterations


@pytest.fixture(scope="session")
def watch() -> type[Watch]:
    return Watch


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, config: TrainingConfig, data_root: Path
) -> tuple[Path, Watch, Outcome]:
    """A run of the tiny configuration from start to end: its folder, its reports, how it ended."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    seen = Watch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "CODE_GENERATOR_UNITS", UNITS)
        outcome = train(config, data_root, folder, report=seen.report)
    return folder, seen, outcome


@pytest.fixture(scope="session")
def stops(tmp_path_factory: pytest.TempPathFactory, config: TrainingConfig, data_root: Path) -> dict[int, Path]:
    """The same run stopped at both boundaries and within stages 1 and 2: copies of its folder by iteration."""
    folder = tmp_path_factory.mktemp("stops") / "run"
    copies, done = {}, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "CODE_GENERATOR_UNITS", UNITS)
        for iteration in (2, 4, 5, 6, 8):
            torch.manual_seed(iteration)  # what was drawn before a part of a run does not matter
            outcome = train(config, data_root, folder, continue_run=done > 0, stop=Watch(iteration - done).stop)
            assert outcome.iteration == iteration
            copies[iteration] = Path(shutil.copytree(folder, folder.with_name(str(iteration))))
            done = iteration
    return copies
