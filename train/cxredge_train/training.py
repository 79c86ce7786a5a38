"""The training loop, from data and configuration to a checkpoint.

It reads top to bottom as one page: draw a task, draw its batches, step, average, validate, log, save.
A run that stops at its time limit or at a signal saves first, and resumes exactly.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from cxredge.errors import CheckpointError, CxredgeError
from cxredge_train.batches import TrainingData, input_size
from cxredge_train.checkpoint import STAGES, STATE, WEIGHTS, resume, save_checkpoint, save_weights, start_from
from cxredge_train.config import Stage, TrainingConfig
from cxredge_train.framework import TrainingState, set_learning_rates
from cxredge_train.monitoring import Monitor
from cxredge_train.steps import train_task
from cxredge_train.tasks import Task, draw_task
from cxredge_train.validation import Validation, refresh_adaptation_code, validate


@dataclass(frozen=True)
class Progress:
    """What a run reports after an iteration."""

    iteration: int
    iterations: int
    stage: Stage
    terms: dict[str, float]
    images_per_second: float
    validation: Validation | None


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``finished`` is False where it was stopped and can be resumed."""

    iteration: int
    finished: bool
    validation: dict[str, float]


def train(
    config: TrainingConfig,
    data_root: Path,
    folder: Path,
    *,
    continue_run: bool = False,
    init: Path | None = None,
    max_minutes: float | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train the framework on one device, or on several when started by ``torchrun``.

    Args:
        config: everything that decides the run.
        data_root: folder of the data sets that the configuration names.
        folder: checkpoint folder to write.
        continue_run: continue the checkpoint in ``folder``; without it, an existing one is an error.
        init: checkpoint whose weights a new run starts from.
        max_minutes: stop cleanly after this time.
        report: called after every iteration.
        stop: asked after every iteration; True saves and stops.

    Raises:
        CheckpointError: ``folder`` holds a checkpoint and ``continue_run`` is False, or it cannot be resumed.
        DatasetError: the data are incomplete.
        CxredgeError: the loss is not a number, or the discriminator collapsed.
    """
    started = time.monotonic()
    fabric = launch_fabric()
    data = TrainingData(data_root, config)
    state = TrainingState(config, fabric.device)
    if fabric.world_size > 1:
        state.average_over_devices = partial(average_over_devices, fabric)
    facts = start_or_resume(config, state, folder, continue_run, init)
    facts |= {"data_sha256": data.content_hash(), "commit": source_commit()}
    seconds_before = float(facts.get("seconds", 0.0))
    with Monitor(folder, state.iteration) if fabric.is_global_zero else nullcontext() as monitor:
        while state.iteration < config.schedule.iterations:
            tick = time.monotonic()
            stage, share = config.schedule.stage(state.iteration)
            if stage is Stage.DISTILLATION and share == 0:
                begin_distillation(state, config)
            seed_iteration(config.run.seed, state.iteration, stream=0)
            task = draw_task(stage, config.tasks)
            size = input_size(config, state.iteration)
            seed_iteration(config.run.seed, state.iteration, stream=1 + fabric.global_rank)
            batches = data.batches(task, state.iteration, size, fabric.device, fabric.global_rank, fabric.world_size)
            set_learning_rates(state, config)
            terms = train_task(state, task, stage, batches, config)
            require_balance(state, task, terms, config)
            state.update_averages()
            state.iteration += 1
            seconds = time.monotonic() - tick

            last = state.iteration == config.schedule.iterations
            late = max_minutes is not None and time.monotonic() - started > 60 * max_minutes
            stopping = bool(fabric.broadcast(stop() or late))
            found = None
            if monitor is not None:
                if last or state.iteration % config.run.validate_every == 0:
                    found = validate(state, data, config, monitor.folder)
                    facts["validation"] = found.dice
                images = len(batches) * config.schedule.batch_size * fabric.world_size
                monitor.log(state, task, terms, seconds, images / seconds, found)
                report(Progress(state.iteration, config.schedule.iterations, stage, terms, images / seconds, found))
                next_stage, _ = config.schedule.stage(state.iteration)
                stage_ends = next_stage is not stage
                if last or stopping or stage_ends or state.iteration % config.run.save_every == 0:
                    if stage is not Stage.SUPERVISED and found is None:
                        refresh_adaptation_code(state, data, config.network.input_size)
                    facts["seconds"] = seconds_before + time.monotonic() - started
                    save_checkpoint(folder, config, state, facts)
                    if stage_ends:
                        save_weights(folder / STAGES / stage.value, config, state, facts)
            if stopping:
                break
    finished = state.iteration >= config.schedule.iterations
    return Outcome(state.iteration, finished, facts.get("validation", {}))


def begin_distillation(state: TrainingState, config: TrainingConfig) -> None:
    """What the configuration wants before the first iteration of stage 2."""
    if config.schedule.warm_start_self:
        state.start_self_from_seg()
    if config.losses.inter_teacher == "start":
        state.keep_teacher()


def launch_fabric() -> Fabric:
    """One device, or those that ``torchrun`` started this process with."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    nodes = processes // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=processes // nodes,
        num_nodes=nodes,
        strategy="ddp" if processes > 1 else "auto",
    )
    fabric.launch()
    return fabric


def average_over_devices(fabric: Fabric, gradient: Tensor) -> Tensor:
    """The mean of ``gradient`` over all processes."""
    mean = fabric.all_reduce(gradient, reduce_op="mean")
    assert isinstance(mean, Tensor)
    return mean


def start_or_resume(
    config: TrainingConfig, state: TrainingState, folder: Path, continue_run: bool, init: Path | None
) -> dict[str, Any]:
    """Restore the checkpoint in ``folder``, or start a new run; returns the facts so far."""
    if not ((folder / STATE).is_file() or (folder / WEIGHTS).is_file()):
        if init is not None:
            start_from(init, state)
        return {"init": None if init is None else init.name}
    if not continue_run:
        raise CheckpointError(f"{folder}: holds a checkpoint already; continue it with --resume, or choose another")
    return resume(folder, config, state)


def require_balance(state: TrainingState, task: Task, terms: dict[str, float], config: TrainingConfig) -> None:
    """Raise :class:`CxredgeError` where the discriminator has won: its running loss is all but 0."""
    if not task.adapts:
        return
    for guide in ("latent", "reference"):
        loss = torch.tensor(terms[f"{guide}_d_real"] + terms[f"{guide}_d_fake"], device=state.device)
        state.watch_discriminator(float(state.average_over_devices(loss)))
    if state.discriminator_loss < config.run.collapse_below:
        raise CxredgeError(
            f"the discriminator has collapsed at iteration {state.iteration}: its loss is "
            f"{state.discriminator_loss:.2g}, so G learns nothing from it; try a larger losses.lambda_r1, "
            "losses.r1_every = 1, a lower optimiser.learning_rate, or another run.seed; the last save is intact"
        )


def source_commit() -> str | None:
    """The git commit of the code that runs, or ``None`` where git does not track it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", __file__], capture_output=True, check=True)
        return subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def seed_iteration(seed: int, iteration: int, stream: int) -> None:
    """Seed torch for one iteration, so that a resumed run draws what an uninterrupted one would.

    Stream 0 is for what all devices draw alike, stream 1 + rank for each device's own draws.
    """
    torch.manual_seed(int(np.random.SeedSequence([seed, iteration, stream]).generate_state(1)[0]))
