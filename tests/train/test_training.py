"""A run learns, leaves its files, stops when asked, and continues as if it had never stopped."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor

from cxredge.cli import main
from cxredge.errors import CheckpointError, CxredgeError, DatasetError
from cxredge.postprocessing import lung_mask
from cxredge.scoring import dice
from cxredge_train.batches import TrainingData
from cxredge_train.checkpoint import load_generator, resume
from cxredge_train.config import (
    AugmentationConfig,
    LossConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainingConfig,
    config_path,
    read_config,
)
from cxredge_train.framework import TrainingState
from cxredge_train.networks import NetworkConfig, a_seg
from cxredge_train.training import Progress, seed_iteration, source_commit, supervised_step, train

CPU = torch.device("cpu")


class StopAt:
    """Reports what it is told, and asks the run to stop after an iteration."""

    def __init__(self, iteration: int | None = None) -> None:
        self.iteration = iteration
        self.progress: list[Progress] = []
        self.asked = 0

    def report(self, progress: Progress) -> None:
        self.progress.append(progress)

    def stop(self) -> bool:
        self.asked += 1
        return self.iteration is not None and self.asked >= self.iteration


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "weights.safetensors")


def state_of(folder: Path, config: TrainingConfig) -> TrainingState:
    state = TrainingState(config, CPU)
    resume(folder, config, state)
    return state


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, config: TrainingConfig, data_root: Path
) -> tuple[Path, StopAt, float | None]:
    """A run of the tiny configuration from start to end: its folder, its reports, its validation Dice."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    watch = StopAt()
    outcome = train(config, data_root, folder, report=watch.report)
    assert outcome.finished
    assert outcome.iteration == 6
    return folder, watch, outcome.validation_dice


# What a run leaves


def test_a_run_leaves_its_files_and_no_others(finished: tuple[Path, StopAt, float]) -> None:
    folder, _, _ = finished
    assert {path.name for path in folder.iterdir()} == {
        "config.toml",
        "weights.safetensors",
        "state.pt",
        "log.csv",
        "samples",
        "tensorboard",
    }
    assert [path.name for path in (folder / "samples").iterdir()] == ["latest.png"]
    assert cv2.imread(str(folder / "samples" / "latest.png")).shape == (3 * 32, 3 * 32, 3)
    assert any((folder / "tensorboard").iterdir())


def test_the_saved_configuration_is_the_runs(finished: tuple[Path, StopAt, float], config: TrainingConfig) -> None:
    assert read_config(finished[0] / "config.toml") == config


def test_every_iteration_is_reported(finished: tuple[Path, StopAt, float]) -> None:
    progress = finished[1].progress
    assert [p.iteration for p in progress] == [1, 2, 3, 4, 5, 6]
    assert all(p.iterations == 6 and p.images_per_second > 0 and set(p.losses) == {"seg", "style"} for p in progress)


def test_validation_comes_at_its_interval_and_at_the_end(finished: tuple[Path, StopAt, float]) -> None:
    folder, watch, validation_dice = finished
    assert [p.iteration for p in watch.progress if p.validation_dice is not None] == [4, 6]
    assert watch.progress[-1].validation_dice == validation_dice
    with (folder / "log.csv").open(newline="") as file:
        assert [int(row["iteration"]) for row in csv.DictReader(file)] == [4, 6]


def test_the_facts_say_what_the_weights_are(
    finished: tuple[Path, StopAt, float], config: TrainingConfig, data_root: Path
) -> None:
    folder, _, validation_dice = finished
    _, _, facts = load_generator(folder)
    assert facts["iteration"] == 6
    assert facts["validation_dice"] == validation_dice
    assert facts["data_sha256"] == TrainingData(data_root, config).content_hash()
    assert facts["seconds"] > 0
    assert facts["commit"] == source_commit()


def test_the_validation_dice_is_that_of_the_saved_generator(
    finished: tuple[Path, StopAt, float], config: TrainingConfig, data_root: Path
) -> None:
    folder, _, validation_dice = finished
    generator, _, _ = load_generator(folder)
    cases = TrainingData(data_root, config).validation
    images, masks = cases.rows(np.arange(3), 32)
    with torch.no_grad():
        logits = generator(images, a_seg())
    predicted = [lung_mask(one.numpy(), (32, 32)) for one in logits[:, 1] - logits[:, 0]]
    mean = np.mean([dice(p, m.numpy()) for p, m in zip(predicted, masks, strict=True)])
    assert validation_dice == pytest.approx(mean, abs=1e-6)


# Learning


def test_a_tiny_network_learns_four_radiographs_by_heart(
    tmp_path: Path, folder: Path, config: TrainingConfig, write_dataset: Callable[..., Path]
) -> None:
    write_dataset(
        tmp_path / "data" / "lungs", [(f"{split}{i}", split, i) for split in ("train", "val") for i in range(4)]
    )
    overfit = replace(
        config,
        network=NetworkConfig(width=4, input_size=64, shared_code_trunk=True),
        optimiser=OptimiserConfig(learning_rate=1e-2, betas=(0.9, 0.99), ema_decay=0.9),
        schedule=ScheduleConfig(iterations=130, batch_size=4, decay="cosine", decay_factor=0.01),
        run=replace(config.run, validate_every=1000, save_every=1000),
    )
    watch = StopAt()
    outcome = train(overfit, tmp_path / "data", folder, report=watch.report)
    assert outcome.validation_dice is not None
    assert outcome.validation_dice >= 0.98
    assert watch.progress[-1].losses["seg"] < 0.2 * watch.progress[0].losses["seg"]
    assert watch.progress[-1].losses["style"] < watch.progress[0].losses["style"]


def test_one_seed_gives_identical_weights_and_another_seed_others(
    finished: tuple[Path, StopAt, float], folder: Path, config: TrainingConfig, data_root: Path
) -> None:
    torch.manual_seed(1234)  # what was drawn before a run does not matter
    train(config, data_root, folder)
    assert same(weights(folder), weights(finished[0]))
    other = replace(config, run=replace(config.run, seed=2))
    train(other, data_root, folder.with_name("other"))
    assert not same(weights(folder), weights(folder.with_name("other")))


def test_augmentation_changes_training_only_where_it_is_enabled(
    finished: tuple[Path, StopAt, float], folder: Path, config: TrainingConfig, data_root: Path
) -> None:
    off, on = (
        replace(config, augmentation=AugmentationConfig(enabled=enabled, noise=0.4)) for enabled in (False, True)
    )
    train(off, data_root, folder)
    train(on, data_root, folder.with_name("on"))
    assert same(weights(folder), weights(finished[0]))
    assert not same(weights(folder.with_name("on")), weights(finished[0]))


def test_the_discriminator_and_a_self_are_left_alone_by_the_supervised_task(
    finished: tuple[Path, StopAt, float], config: TrainingConfig
) -> None:
    fresh, trained = TrainingState(config, CPU).framework.state_dict(), weights(finished[0])
    moved = {name for name in fresh if not torch.equal(fresh[name], trained[name])}
    assert not [
        name for name in moved if name.startswith("discriminator") or "heads.self" in name or "adaptive" in name
    ]
    for network in ("generator.encoder", "generator.mask_head", "style_encoder", "code_generators"):
        assert [name for name in moved if name.startswith(network)]


def test_the_dummy_code_comes_in_turn_from_f_d_and_from_s(config: TrainingConfig, data_root: Path) -> None:
    state = TrainingState(config, CPU)
    images, masks = TrainingData(data_root, config).batch(0, 32)
    moved = []
    for _ in range(4):
        before = [p.clone() for p in state.framework.code_generators.parameters()]
        supervised_step(state, images, masks, config)
        after = state.framework.code_generators.parameters()
        moved.append(any(not torch.equal(a, b) for a, b in zip(after, before, strict=True)))
        state.iteration += 1
    assert moved == [True, False, True, False]


def test_without_the_style_term_only_the_generator_is_trained(
    folder: Path, config: TrainingConfig, data_root: Path
) -> None:
    plain = replace(config, losses=LossConfig(lambda_style=0))
    watch = StopAt(2)
    train(plain, data_root, folder, report=watch.report, stop=watch.stop)
    assert set(watch.progress[0].losses) == {"seg"}
    fresh, trained = TrainingState(plain, CPU).framework.state_dict(), weights(folder)
    assert {name.split(".")[0] for name in fresh if not torch.equal(fresh[name], trained[name])} == {"generator"}


def test_each_iteration_has_a_seed_of_its_own() -> None:
    def drawn(seed: int, iteration: int) -> float:
        seed_iteration(seed, iteration)
        return float(torch.rand(()))

    assert drawn(1, 5) == drawn(1, 5)
    assert len({drawn(seed, iteration) for seed in (0, 1, 2**32 - 1) for iteration in (0, 1, 39_999)}) == 9


# Stopping and resuming


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "augmentation": AugmentationConfig(enabled=True),
            "run": RunConfig(precision="bf16", validate_every=4, save_every=2),
            "network": NetworkConfig(width=2, input_size=48),
            "schedule": ScheduleConfig(iterations=6, batch_size=2, decay="cosine", coarse_size=32, coarse_share=0.5),
        },
    ],
    ids=["plain", "augmented, half precision, coarse first, two trunks"],
)
def test_a_run_that_was_stopped_twice_ends_with_the_same_bits(
    folder: Path, config: TrainingConfig, data_root: Path, changes: dict[str, object]
) -> None:
    config = replace(config, **changes)
    through = folder.with_name("through")
    train(config, data_root, through)
    for stop in (1, 2):  # after iterations 1 and 3
        outcome = train(config, data_root, folder, continue_run=stop > 1, stop=StopAt(stop).stop)
        assert not outcome.finished
        torch.manual_seed(1000 + stop)
    outcome = train(config, data_root, folder, continue_run=True)
    assert outcome.finished
    assert same(weights(folder), weights(through))
    stopped, uninterrupted = (state_of(path, config).state_dict() for path in (folder, through))
    torch.testing.assert_close(stopped, uninterrupted, rtol=0, atol=0)


def test_a_run_that_was_killed_continues_from_its_last_save(
    finished: tuple[Path, StopAt, float], folder: Path, config: TrainingConfig, data_root: Path
) -> None:
    def kill(progress: Progress) -> None:
        if progress.iteration == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, data_root, folder, report=kill)
    assert state_of(folder, config).iteration == 4
    watch = StopAt()
    train(config, data_root, folder, continue_run=True, report=watch.report)
    assert [p.iteration for p in watch.progress] == [5, 6]
    assert same(weights(folder), weights(finished[0]))
    with (folder / "log.csv").open(newline="") as file:
        assert [int(row["iteration"]) for row in csv.DictReader(file)] == [4, 6]


def test_a_run_that_was_killed_in_its_very_first_save_can_be_started_again(
    folder: Path, shorter: TrainingConfig, data_root: Path
) -> None:
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(shorter.to_toml())
    (folder / "state.pt.part").write_bytes(b"half a fi")
    assert train(shorter, data_root, folder, continue_run=True).finished


def test_resuming_where_there_is_nothing_starts_a_run(folder: Path, shorter: TrainingConfig, data_root: Path) -> None:
    assert train(shorter, data_root, folder, continue_run=True).iteration == 1


def test_resuming_a_finished_run_changes_nothing(
    finished: tuple[Path, StopAt, float], folder: Path, config: TrainingConfig, data_root: Path
) -> None:
    shutil.copytree(finished[0], folder)
    watch = StopAt()
    outcome = train(config, data_root, folder, continue_run=True, report=watch.report)
    assert outcome.finished
    assert (outcome.iteration, outcome.validation_dice, watch.progress) == (6, finished[2], [])
    for name in ("weights.safetensors", "state.pt", "log.csv"):
        assert (folder / name).read_bytes() == (finished[0] / name).read_bytes()


def test_a_checkpoint_is_not_overwritten_without_resume(
    finished: tuple[Path, StopAt, float], config: TrainingConfig, data_root: Path
) -> None:
    folder = finished[0]
    before = (folder / "state.pt").stat().st_mtime_ns
    with pytest.raises(CheckpointError, match=r"holds a checkpoint already.*--resume"):
        train(config, data_root, folder)
    assert (folder / "state.pt").stat().st_mtime_ns == before


def test_another_configuration_is_not_resumed(
    finished: tuple[Path, StopAt, float], config: TrainingConfig, data_root: Path
) -> None:
    longer = replace(config, schedule=replace(config.schedule, iterations=100))
    with pytest.raises(CheckpointError, match="another configuration"):
        train(longer, data_root, finished[0], continue_run=True)
    assert state_of(finished[0], config).iteration == 6


def test_a_run_without_data_leaves_no_folder(folder: Path, config: TrainingConfig, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="lungs"):
        train(config, tmp_path, folder)
    assert not folder.exists()


def test_the_time_limit_saves_and_stops(folder: Path, config: TrainingConfig, data_root: Path) -> None:
    first = train(config, data_root, folder, max_minutes=1e-9)
    assert (first.iteration, first.finished) == (1, False)
    assert state_of(folder, config).iteration == 1
    second = train(config, data_root, folder, max_minutes=1e-9, continue_run=True)
    assert (second.iteration, second.finished) == (2, False)
    assert load_generator(folder)[2]["seconds"] > 0


def test_a_time_limit_that_is_not_reached_does_not_stop(folder: Path, shorter: TrainingConfig, data_root: Path) -> None:
    assert train(shorter, data_root, folder, max_minutes=60).finished


def test_the_time_of_all_parts_of_a_run_is_added_up(folder: Path, config: TrainingConfig, data_root: Path) -> None:
    train(config, data_root, folder, stop=StopAt(1).stop)
    first = load_generator(folder)[2]["seconds"]
    train(config, data_root, folder, stop=StopAt(1).stop, continue_run=True)
    assert load_generator(folder)[2]["seconds"] > first > 0


def test_a_stop_saves_at_once_and_can_be_resumed(folder: Path, config: TrainingConfig, data_root: Path) -> None:
    watch = StopAt(3)
    outcome = train(config, data_root, folder, report=watch.report, stop=watch.stop)
    assert (outcome.iteration, outcome.finished, outcome.validation_dice) == (3, False, None)
    assert [p.iteration for p in watch.progress] == [1, 2, 3]
    assert state_of(folder, config).iteration == 3  # between two saves
    assert load_generator(folder)[2]["iteration"] == 3


def test_a_loss_that_is_not_a_number_ends_the_run_with_advice_and_the_last_save(
    folder: Path, config: TrainingConfig, data_root: Path
) -> None:
    wild = replace(
        config,
        optimiser=OptimiserConfig(learning_rate=1e38, code_learning_rate=1e-6),
        run=replace(config.run, save_every=1),
    )
    with pytest.raises(CxredgeError, match=r"the loss is nan at iteration \d+.*optimiser\.learning_rate.*last save"):
        train(wild, data_root, folder)
    saved = state_of(folder, wild)
    assert saved.iteration >= 1
    assert all(torch.isfinite(p).all() for p in saved.framework.parameters())


# The command


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists() and process.poll() is None:
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.05)


def test_the_command_saves_at_sigterm_and_resumes_where_it_stopped(
    tmp_path: Path, folder: Path, config: TrainingConfig, data_root: Path
) -> None:
    long = replace(config, schedule=replace(config.schedule, iterations=100_000))
    (tmp_path / "long.toml").write_text(long.to_toml())
    arguments = ["train", str(tmp_path / "long.toml"), "--data", str(data_root), "-o", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-c", "from cxredge.cli import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
    )
    try:
        wait_for(folder / "log.csv", process, seconds=140)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=140)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "stopped; continue with --resume" in output
    stopped = state_of(folder, long).iteration
    assert 1 <= stopped < 100_000

    resumed = CliRunner().invoke(main, [*arguments, "--resume", "--max-minutes", "0.00001"])
    assert resumed.exit_code == 0, resumed.output
    assert f"iteration {stopped + 1}," in resumed.output
    assert state_of(folder, long).iteration == stopped + 1


def test_the_command_trains_to_the_end(tmp_path: Path, folder: Path, shorter: TrainingConfig, data_root: Path) -> None:
    (tmp_path / "short.toml").write_text(shorter.to_toml())
    run = CliRunner().invoke(main, ["train", str(tmp_path / "short.toml"), "--data", str(data_root), "-o", str(folder)])
    assert run.exit_code == 0, run.output
    assert f"{folder}: iteration 1, validation Dice 0." in run.output
    assert "finished" in run.output
    again = CliRunner().invoke(
        main, ["train", str(tmp_path / "short.toml"), "--data", str(data_root), "-o", str(folder)]
    )
    assert again.exit_code == 1
    assert "holds a checkpoint already" in again.output


def test_show_prints_the_whole_configuration(tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, ["train", "edge", "--show"])
    assert shown.exit_code == 0
    (tmp_path / "shown.toml").write_text(shown.output)
    assert read_config(tmp_path / "shown.toml") == read_config(config_path("edge"))
    assert "weight_decay = 0.0001" in shown.output


def test_mistakes_on_the_command_line_are_one_clear_line(tmp_path: Path) -> None:
    unknown = CliRunner().invoke(main, ["train", "edgy", "--show"])
    assert unknown.exit_code == 1
    assert unknown.output == (
        "cxredge: no configuration 'edgy'; there are edge, edge-augmented, paper, standard, or give a .toml file\n"
    )
    incomplete = CliRunner(env={"CXREDGE_DATA": ""}).invoke(main, ["train", "edge"])
    assert incomplete.exit_code == 2
    assert "--data" in incomplete.output
    no_data = CliRunner().invoke(main, ["train", "edge", "--data", str(tmp_path), "-o", str(tmp_path / "out")])
    assert no_data.exit_code == 1
    assert "manifest.csv" in no_data.output
    assert not (tmp_path / "out").exists()
