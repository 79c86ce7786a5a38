"""A run learns through all stages, leaves its files, stops when asked, and continues as if it had never stopped."""

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
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor

from cxredge.cli import main
from cxredge.errors import CheckpointError, CxredgeError, DatasetError
from cxredge.evaluation.scoring import dice
from cxredge_train.batches import TrainingData
from cxredge_train.checkpoint import load_trained, resume
from cxredge_train.config import (
    AugmentationConfig,
    OptimiserConfig,
    ScheduleConfig,
    Stage,
    TrainingConfig,
)
from cxredge_train.config_file import config_path, read_config
from cxredge_train.framework import TrainingState
from cxredge_train.networks import Domain, NetworkConfig, a_seg
from cxredge_train.tasks import Task
from cxredge_train.training import require_balance, seed_iteration, source_commit, train
from cxredge_train.validation import mean_style, segment

pytestmark = pytest.mark.usefixtures("small_code_generators")

CPU = torch.device("cpu")
UNITS = 8
IMPORTS = f"from cxredge_train import networks; networks.CODE_GENERATOR_UNITS = {UNITS}; "
"""What a process of its own starts with, to have the networks of this one."""
KNOWN = ", ".join(sorted(path.stem for path in config_path("paper").parent.glob("*.toml")))
Finished = tuple[Path, Any, Any]
ADAPTATION = {
    f"{guide}_{term}"
    for guide in ("latent", "reference")
    for term in ("d_real", "d_fake", "r1", "adv", "sty", "cyc", "ds")
}


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "weights.safetensors")


def facts(folder: Path) -> dict[str, Any]:
    return load_trained(folder).facts


def state_of(folder: Path, config: TrainingConfig) -> TrainingState:
    state = TrainingState(config, CPU)
    resume(folder, config, state)
    return state


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


# What a run leaves


def test_a_run_leaves_its_files_and_no_others(finished: Finished) -> None:
    folder, _, _ = finished
    names = {"config.toml", "weights.safetensors", "state.pt", "log.csv", "samples", "stages", "tensorboard"}
    assert {path.name for path in folder.iterdir()} == names
    assert cv2.imread(str(folder / "samples" / "latest.png")).shape == (5 * 32, 6 * 32, 3)
    assert any((folder / "tensorboard").iterdir())


def test_the_saved_configuration_is_the_runs(finished: Finished, config: TrainingConfig) -> None:
    assert read_config(finished[0] / "config.toml") == config


def test_every_iteration_trains_and_is_reported(finished: Finished) -> None:
    progress = finished[1].progress
    assert [p.iteration for p in progress] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [p.stage for p in progress] == [Stage.SUPERVISED] * 2 + [Stage.ADAPTATION] * 3 + [Stage.DISTILLATION] * 3
    assert all(p.iterations == 8 and p.images_per_second > 0 for p in progress)
    supervised = {"seg", "style"}
    without_diversity = {name for name in ADAPTATION if not name.endswith("ds")}  # it ended after four iterations
    assert [set(p.terms) for p in progress] == [
        supervised,
        supervised,
        ADAPTATION,
        ADAPTATION,
        supervised,
        {"inter"},
        without_diversity,
        supervised | {"intra"},
    ]


def test_validation_comes_at_its_interval_and_at_the_end(finished: Finished) -> None:
    folder, watch, outcome = finished
    found = [(p.iteration, set(p.validation.dice)) for p in watch.progress if p.validation is not None]
    assert found == [(4, {"a_seg"}), (8, {"a_seg", "a_self"})]
    assert watch.progress[-1].validation.dice == outcome.validation
    with (folder / "log.csv").open(newline="") as file:
        assert [int(row["iteration"]) for row in csv.DictReader(file)] == [4, 8]


def test_the_facts_say_what_the_weights_are(finished: Finished, data: TrainingData) -> None:
    folder, _, outcome = finished
    found = facts(folder)
    assert found["iteration"] == 8
    assert found["validation"] == outcome.validation
    assert found["data_sha256"] == data.content_hash()
    assert found["seconds"] > 0
    assert found["commit"] == source_commit()
    assert found["init"] is None


# Stages


def test_the_supervised_stage_leaves_d_a_self_and_adaptation_alone(
    stops: dict[int, Path], config: TrainingConfig
) -> None:
    changed = moved(TrainingState(config, CPU).framework.state_dict(), weights(stops[2]))
    assert not [n for n in changed if n.startswith("discriminator") or "heads.self" in n or "adaptive" in n]
    for network in ("generator.encoder", "generator.mask_head", "style_encoder", "code_generators"):
        assert [name for name in changed if name.startswith(network)]


def test_stage_1_trains_d_and_the_decoders_adain_but_not_a_self(stops: dict[int, Path]) -> None:
    changed = moved(weights(stops[2]), weights(stops[5]))
    assert [name for name in changed if name.startswith("discriminator")]
    assert [name for name in changed if name.startswith("generator.decoder") and "adaptive" in name]
    assert not [n for n in changed if "heads.self" in n or (n.startswith("generator.encoder") and "adaptive" in n)]


def test_stage_2_trains_a_self(stops: dict[int, Path]) -> None:
    changed = moved(weights(stops[5]), weights(stops[8]))
    assert [name for name in changed if name.startswith("generator.encoder") and "adaptive" in name]
    assert [name for name in changed if name.startswith("code_generators") and "heads.self" in name]
    assert "a_self" in changed


def test_each_finished_stage_but_the_last_is_kept_for_evaluation(
    folder: Path, stops: dict[int, Path], config: TrainingConfig, data_root: Path
) -> None:
    train(config, data_root, folder)
    kept = folder / "stages"
    assert {path.name for path in kept.iterdir()} == {"supervised", "adaptation"}
    for stage, stop in (("supervised", stops[2]), ("adaptation", stops[5])):
        assert {path.name for path in (kept / stage).iterdir()} == {"config.toml", "weights.safetensors"}
        assert not moved(weights(stop), weights(kept / stage))
    trained = load_trained(kept / "adaptation")
    assert (trained.adapted, trained.distilled) == (True, False)


def test_nothing_starts_anew_at_the_boundary_of_stage_2(
    folder: Path, stops: dict[int, Path], config: TrainingConfig, data_root: Path
) -> None:
    """The first iteration of stage 2 takes one small step from stage 1's D, averages and optimisers."""
    before, after = (state_of(stops[iteration], config) for iteration in (5, 6))  # iteration 5 is of ℓ_inter
    for name in ("discriminator", "style_encoder"):  # not trained by it: not a bit changes
        assert same(getattr(before.framework, name).state_dict(), getattr(after.framework, name).state_dict())
        memories = (each.optimisers[name].state_dict()["state"] for each in (before, after))
        torch.testing.assert_close(*memories, rtol=0, atol=0)
    assert before.optimisers["discriminator"].state
    assert after.averages["generator"].n_averaged == before.averages["generator"].n_averaged + 1 == 6
    steps = [
        max(int(state["step"]) for state in each.optimisers["generator"].state.values()) for each in (before, after)
    ]
    assert steps[1] == steps[0] + 1 > 5
    decay = config.optimiser.ema_decay
    for old, new, network in zip(
        before.generator_average.parameters(),
        after.generator_average.parameters(),
        after.framework.generator.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(new, decay * old + (1 - decay) * network.detach(), rtol=1e-5, atol=1e-6)
    limit = 10 * config.optimiser.learning_rate
    for old, new in zip(before.framework.parameters(), after.framework.parameters(), strict=True):
        assert (old - new).abs().max() <= limit


def test_stage_2_can_start_with_a_self_equal_to_a_seg(
    folder: Path, config: TrainingConfig, data_root: Path, watch: Callable[..., Any]
) -> None:
    slow = OptimiserConfig(learning_rate=1e-9, code_learning_rate=1e-9, ema_decay=0.9)
    warm = replace(config, optimiser=slow, schedule=replace(config.schedule, warm_start_self=True))
    train(warm, data_root, folder, stop=watch(5).stop)
    generator = weights(folder)
    assert generator["average.generator.encoder.0.norm1.adaptive.style.weight"].any()
    train(warm, data_root, folder, stop=watch(1).stop, continue_run=True)
    for prefix in ("generator.", "average.generator."):
        assert weights(folder)[f"{prefix}encoder.0.norm1.adaptive.style.weight"].abs().max() < 1e-6
        assert weights(folder)[f"{prefix}decoder.0.norm1.adaptive.style.weight"].abs().max() > 1e-3


def test_a_checkpoint_that_has_adapted_carries_the_mean_style_of_its_own_networks(
    folder: Path, config: TrainingConfig, data_root: Path, data: TrainingData, watch: Callable[..., Any]
) -> None:
    """Also where it was saved before a validation."""
    train(config, data_root, folder, stop=watch(3).stop)
    assert load_trained(folder).adapted
    state = state_of(folder, config)
    with torch.no_grad():
        expected = mean_style(state.style_average, data.domains[Domain.INTRA].images[32], CPU)
    torch.testing.assert_close(load_trained(folder).adaptation_code, expected)


# Learning


def test_a_tiny_network_learns_two_radiographs_by_heart(
    tmp_path: Path, folder: Path, config: TrainingConfig, write_dataset: Callable[..., Path], watch: Callable[..., Any]
) -> None:
    rows = [("a", "train", 0), ("b", "train", 1), ("c", "val", 2)]
    write_dataset(tmp_path / "data" / "lungs", rows)
    overfit = replace(
        config,
        data=replace(config.data, inter=()),
        network=NetworkConfig(width=4, input_size=64, shared_code_trunk=True),
        optimiser=OptimiserConfig(learning_rate=1e-2, betas=(0.9, 0.99), ema_decay=0.9),
        schedule=ScheduleConfig(
            supervised=120, adaptation=0, distillation=0, batch_size=2, decay="cosine", decay_factor=0.01
        ),
        run=replace(config.run, validate_every=1000, save_every=1000),
    )
    seen = watch()
    train(overfit, tmp_path / "data", folder, report=seen.report)
    cases = TrainingData(tmp_path / "data", overfit).domains[Domain.INTRA]
    found = segment(load_trained(folder).generator.requires_grad_(False), cases.images[64], a_seg(), CPU)
    assert np.mean([dice(mask, truth.numpy()) for mask, truth in zip(found, cases.masks[64], strict=True)]) >= 0.98
    first, last = seen.progress[0].terms, seen.progress[-1].terms
    assert last["seg"] < 0.2 * first["seg"]
    assert last["style"] < first["style"]


def test_one_seed_gives_identical_weights_and_another_seed_others(
    finished: Finished, folder: Path, config: TrainingConfig, data_root: Path
) -> None:
    torch.manual_seed(1234)  # what was drawn before a run does not matter
    train(config, data_root, folder)
    assert same(weights(folder), weights(finished[0]))
    other = replace(config, run=replace(config.run, seed=2))
    train(other, data_root, folder.with_name("other"))
    assert not same(weights(folder), weights(folder.with_name("other")))


def test_augmentation_changes_training_only_where_it_is_enabled(
    finished: Finished,
    stops: dict[int, Path],
    folder: Path,
    config: TrainingConfig,
    data_root: Path,
    watch: Callable[..., Any],
) -> None:
    for enabled in (False, True):
        augmented = replace(config, augmentation=AugmentationConfig(enabled=enabled, noise=0.4))
        train(augmented, data_root, folder.with_name(str(enabled)), stop=watch(2).stop)
        assert same(weights(folder.with_name(str(enabled))), weights(stops[2])) is not enabled


def test_each_iteration_and_each_device_has_a_seed_of_its_own() -> None:
    def drawn(seed: int, iteration: int, stream: int) -> float:
        seed_iteration(seed, iteration, stream)
        return float(torch.rand(()))

    assert drawn(1, 5, 0) == drawn(1, 5, 0)
    every = [(s, i, r) for s in (0, 1, 2**32 - 1) for i in (0, 1, 39_999) for r in (0, 1, 2)]
    assert len({drawn(*each) for each in every}) == 27


def test_a_new_run_can_start_from_another_checkpoints_averages(
    finished: Finished, folder: Path, config: TrainingConfig, data_root: Path, watch: Callable[..., Any]
) -> None:
    slow = OptimiserConfig(learning_rate=1e-9, code_learning_rate=1e-9, ema_decay=0.9)
    again = replace(config, optimiser=slow, run=replace(config.run, seed=5))
    train(again, data_root, folder, init=finished[0], stop=watch(1).stop)
    started, given = weights(folder), weights(finished[0])
    for name in started:
        if name.startswith("average."):
            torch.testing.assert_close(started[name], given[name], rtol=0, atol=1e-6)
            torch.testing.assert_close(started[name.removeprefix("average.")], given[name], rtol=0, atol=1e-6)
    assert facts(folder)["init"] == finished[0].name
    assert facts(folder)["iteration"] == 1
    wider = replace(again, network=replace(config.network, width=4))
    with pytest.raises(CheckpointError, match="cannot start from it"):
        train(wider, data_root, folder.with_name("wider"), init=finished[0])
    assert not folder.with_name("wider").exists()


# Stopping and resuming


def test_a_run_that_was_stopped_at_and_between_the_boundaries_ends_with_the_same_bits(
    finished: Finished, stops: dict[int, Path], config: TrainingConfig
) -> None:
    assert same(weights(stops[8]), weights(finished[0]))
    stopped, uninterrupted = (state_of(path, config).state_dict() for path in (stops[8], finished[0]))
    torch.testing.assert_close(stopped, uninterrupted, rtol=0, atol=0)


def test_so_does_one_with_every_switch_on(
    folder: Path, config: TrainingConfig, data_root: Path, watch: Callable[..., Any]
) -> None:
    config = replace(
        config,
        augmentation=AugmentationConfig(enabled=True, clean_teacher=True),
        losses=replace(config.losses, r1_every=2, inter_teacher="start"),
        network=NetworkConfig(width=2, input_size=48),
        run=replace(config.run, precision="bf16", channels_last=True),
        schedule=replace(
            config.schedule,
            accumulate=2,
            batch_size=1,
            decay="cosine",
            coarse_size=32,
            coarse_share=0.5,
            warm_start_self=True,
        ),
    )
    through = folder.with_name("through")
    train(config, data_root, through)
    for done, iterations in ((0, 3), (3, 2), (5, 1), (6, 2)):
        torch.manual_seed(1000 + done)
        train(config, data_root, folder, continue_run=done > 0, stop=watch(iterations).stop)
    stopped, uninterrupted = (state_of(path, config).state_dict() for path in (folder, through))
    torch.testing.assert_close(stopped, uninterrupted, rtol=0, atol=0)
    assert stopped["iteration"] == 8


def test_a_run_that_was_killed_continues_from_its_last_save(
    finished: Finished, folder: Path, config: TrainingConfig, data_root: Path, watch: Callable[..., Any]
) -> None:
    def kill(progress: Any) -> None:
        if progress.iteration == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, data_root, folder, report=kill)
    assert state_of(folder, config).iteration == 3
    seen = watch()
    train(config, data_root, folder, continue_run=True, report=seen.report)
    assert [p.iteration for p in seen.progress] == [4, 5, 6, 7, 8]
    assert same(weights(folder), weights(finished[0]))
    with (folder / "log.csv").open(newline="") as file:
        assert [int(row["iteration"]) for row in csv.DictReader(file)] == [4, 8]


def test_a_run_that_was_killed_in_its_very_first_save_can_be_started_again(
    folder: Path, supervised: TrainingConfig, data_root: Path
) -> None:
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(supervised.to_toml())
    (folder / "state.pt.part").write_bytes(b"half a fi")
    outcome = train(supervised, data_root, folder, continue_run=True)
    assert (outcome.iteration, outcome.finished) == (1, True)


def test_resuming_a_finished_run_changes_nothing(
    finished: Finished, folder: Path, config: TrainingConfig, data_root: Path, watch: Callable[..., Any]
) -> None:
    shutil.copytree(finished[0], folder)
    seen = watch()
    outcome = train(config, data_root, folder, continue_run=True, report=seen.report)
    assert outcome == finished[2]
    assert not seen.progress
    for name in ("weights.safetensors", "state.pt", "log.csv"):
        assert (folder / name).read_bytes() == (finished[0] / name).read_bytes()


def test_a_checkpoint_is_not_overwritten_without_resume(
    finished: Finished, config: TrainingConfig, data_root: Path
) -> None:
    folder = finished[0]
    before = (folder / "state.pt").stat().st_mtime_ns
    for init in (None, folder):
        with pytest.raises(CheckpointError, match=r"holds a checkpoint already.*--resume"):
            train(config, data_root, folder, init=init)
    assert (folder / "state.pt").stat().st_mtime_ns == before


def test_another_configuration_is_not_resumed(finished: Finished, config: TrainingConfig, data_root: Path) -> None:
    longer = replace(config, schedule=replace(config.schedule, distillation=100))
    with pytest.raises(CheckpointError, match="another configuration"):
        train(longer, data_root, finished[0], continue_run=True)
    assert state_of(finished[0], config).iteration == 8


def test_a_run_without_data_leaves_no_folder(folder: Path, config: TrainingConfig, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="lungs"):
        train(config, tmp_path, folder)
    assert not folder.exists()


def test_the_time_limit_saves_and_stops_and_the_time_of_all_parts_is_added_up(
    folder: Path, config: TrainingConfig, data_root: Path
) -> None:
    first = train(config, data_root, folder, max_minutes=1e-9)
    assert (first.iteration, first.finished, first.validation) == (1, False, {})
    seconds = facts(folder)["seconds"]
    second = train(config, data_root, folder, max_minutes=1e-9, continue_run=True)
    assert (second.iteration, second.finished) == (2, False)
    assert facts(folder)["iteration"] == state_of(folder, config).iteration == 2
    assert facts(folder)["seconds"] > seconds > 0


def test_a_time_limit_that_is_not_reached_does_not_stop(
    folder: Path, supervised: TrainingConfig, data_root: Path
) -> None:
    assert train(supervised, data_root, folder, max_minutes=60).finished


# What ends a run


def test_a_loss_that_is_not_a_number_ends_the_run_with_advice_and_the_last_save(
    folder: Path, config: TrainingConfig, data_root: Path
) -> None:
    wild = replace(
        config,
        optimiser=OptimiserConfig(learning_rate=1e30, code_learning_rate=1e-6),
        run=replace(config.run, save_every=1),
    )
    with pytest.raises(CxredgeError, match=r"the loss is nan at iteration \d+.*optimiser\.learning_rate.*last save"):
        train(wild, data_root, folder)
    saved = state_of(folder, wild)
    assert saved.iteration >= 1
    assert all(torch.isfinite(p).all() for p in saved.framework.parameters())


def balance(real: float, generated: float) -> dict[str, float]:
    return {
        f"{guide}_d_{kind}": v for guide in ("latent", "reference") for kind, v in (("real", real), ("fake", generated))
    }


def test_a_discriminator_that_has_won_ends_the_run_with_advice(config: TrainingConfig) -> None:
    state = TrainingState(config, CPU)
    for _ in range(100):  # a few good iterations of D are no collapse
        require_balance(state, Task.INTRA_TO_INTER, balance(1e-4, 1e-4), config)
    state.discriminator_loss = 0.0101
    with pytest.raises(CxredgeError, match=r"collapsed at iteration 0.*losses\.lambda_r1.*run\.seed.*last save"):
        require_balance(state, Task.INTRA_TO_INTER, balance(1e-4, 1e-4), config)


@pytest.mark.parametrize(("real", "generated"), [(0.69, 0.69), (0.02, 0.02)])
def test_a_discriminator_that_can_still_be_fooled_does_not(
    config: TrainingConfig, real: float, generated: float
) -> None:
    state = TrainingState(config, CPU)
    for _ in range(1000):
        require_balance(state, Task.INTER_TO_INTER, balance(real, generated), config)
    for _ in range(1000):  # tasks without D do not count
        require_balance(state, Task.INTRA_TO_MASK, {"seg": 0.0}, config)
    assert state.discriminator_loss == pytest.approx(real + generated, rel=0.01)


def test_a_collapse_ends_the_run(folder: Path, config: TrainingConfig, data_root: Path) -> None:
    touchy = replace(config, run=replace(config.run, collapse_below=1e9))
    with pytest.raises(CxredgeError, match="collapsed at iteration 2"):  # the first that adapts
        train(touchy, data_root, folder)


# Several processes

TWO = """
from cxredge_train.config_file import read_config
from cxredge_train.framework import TrainingState
from cxredge_train.training import train
import os, sys, torch
from pathlib import Path

torch.set_num_threads(1)
here, states = Path(sys.argv[1]), []
update = TrainingState.update_averages
TrainingState.update_averages = lambda state: (states.append(state), update(state))[1]
train(read_config(here / "two.toml"), Path(sys.argv[2]), here / "run")
torch.save(states[-1].state_dict(), here / f"rank{os.environ['RANK']}.pt")
"""


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights_and_rank_0_saves_them(
    tmp_path: Path, config: TrainingConfig, data_root: Path
) -> None:
    two = replace(config, schedule=ScheduleConfig(supervised=1, adaptation=1, distillation=0, batch_size=1))
    two = replace(two, tasks=replace(two.tasks, inter_to_intra=1e9))
    (tmp_path / "two.toml").write_text(two.to_toml())
    (tmp_path / "two.py").write_text(IMPORTS + TWO)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
            *("two.py", str(tmp_path), str(data_root)),
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=250)
    finally:
        process.terminate()  # torchrun ends its processes then
    assert process.returncode == 0, output[-3000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    for part in ("framework", "averages", "optimisers"):
        torch.testing.assert_close(first[part], second[part], rtol=0, atol=0)
    assert first["iteration"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in first["framework"].values())
    saved, fresh = weights(tmp_path / "run"), TrainingState(two, CPU).framework.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in first["framework"].items())
    changed = {name.split(".")[0] for name in moved(fresh, saved)}
    assert changed == {"generator", "code_generators", "style_encoder", "discriminator"}
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        assert [row["iteration"] for row in csv.DictReader(file)] == ["2"]


# The command


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists() and process.poll() is None:
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.05)


def test_the_command_saves_at_sigterm_and_resumes_where_it_stopped(
    tmp_path: Path, folder: Path, config: TrainingConfig, data_root: Path
) -> None:
    long = replace(config, schedule=replace(config.schedule, supervised=100_000))
    (tmp_path / "long.toml").write_text(long.to_toml())
    arguments = ["train", str(tmp_path / "long.toml"), "--data", str(data_root), "-o", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-c", IMPORTS + "from cxredge.cli import main; main()", *arguments],
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


def test_the_command_trains_to_the_end(
    tmp_path: Path, folder: Path, supervised: TrainingConfig, data_root: Path
) -> None:
    (tmp_path / "short.toml").write_text(supervised.to_toml())
    run = CliRunner().invoke(main, ["train", str(tmp_path / "short.toml"), "--data", str(data_root), "-o", str(folder)])
    assert run.exit_code == 0, run.output
    assert f"{folder}: iteration 1, validation Dice a_seg 0." in run.output
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
    assert unknown.output == (f"cxredge: no configuration 'edgy'; there are {KNOWN}, or give a .toml file\n")
    incomplete = CliRunner(env={"CXREDGE_DATA": ""}).invoke(main, ["train", "edge"])
    assert incomplete.exit_code == 2
    assert "--data" in incomplete.output
    no_data = CliRunner().invoke(main, ["train", "edge", "--data", str(tmp_path), "-o", str(tmp_path / "out")])
    assert no_data.exit_code == 1
    assert "manifest.csv" in no_data.output
    assert not (tmp_path / "out").exists()
