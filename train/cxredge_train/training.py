"""The training loop, from data and configuration to a checkpoint.

It reads top to bottom as one page: draw a batch, compute the losses, step, average, log, validate,
save. A run that stops at its time limit or at a signal saves first, and resumes exactly.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxredge.errors import CheckpointError, CxredgeError
from cxredge.postprocessing import lung_mask
from cxredge.scoring import dice
from cxredge_train.augmentation import Augmentation
from cxredge_train.batches import LabelledImages, TrainingData, input_size
from cxredge_train.checkpoint import STATE, WEIGHTS, resume, save_checkpoint
from cxredge_train.config import TrainingConfig
from cxredge_train.framework import TrainingState, set_learning_rates
from cxredge_train.losses import supervised_losses, supervised_total
from cxredge_train.monitoring import Monitor
from cxredge_train.networks import LATENT_SIZE, Generator, a_seg


@dataclass(frozen=True)
class Progress:
    """What a run reports after an iteration."""

    iteration: int
    iterations: int
    losses: dict[str, float]
    images_per_second: float
    validation_dice: float | None


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``finished`` is False where it was stopped and can be resumed."""

    iteration: int
    finished: bool
    validation_dice: float | None


def train(
    config: TrainingConfig,
    data_root: Path,
    folder: Path,
    *,
    continue_run: bool = False,
    max_minutes: float | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train the framework.

    Args:
        config: everything that decides the run.
        data_root: folder of the data sets that the configuration names.
        folder: checkpoint folder to write.
        continue_run: continue the checkpoint in ``folder``; without it, an existing one is an error.
        max_minutes: stop cleanly after this time.
        report: called after every iteration.
        stop: asked after every iteration; True saves and stops.

    Raises:
        CheckpointError: ``folder`` holds a checkpoint and ``continue_run`` is False, or it cannot be resumed.
        DatasetError: the data are incomplete.
        CxredgeError: the loss is not a number.
    """
    started = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    exists = (folder / STATE).is_file() or (folder / WEIGHTS).is_file()
    if exists and not continue_run:
        raise CheckpointError(f"{folder}: holds a checkpoint already; continue it with --resume, or choose another")
    data = TrainingData(data_root, config)
    state = TrainingState(config, device)
    facts: dict[str, Any] = resume(folder, config, state) if exists else {"seconds": 0.0}
    facts |= {"data_sha256": data.content_hash(), "commit": source_commit()}
    seconds_before = float(facts["seconds"])
    monitor = Monitor(folder, state.iteration)
    augment = Augmentation(config.augmentation) if config.augmentation.enabled else None

    while state.iteration < config.schedule.iterations:
        tick = time.monotonic()
        seed_iteration(config.run.seed, state.iteration)
        images, masks = data.batch(state.iteration, input_size(config, state.iteration))
        if augment is not None:
            images, masks = augment(images, masks)
        set_learning_rates(state, config)
        losses = supervised_step(state, images.to(device), masks.to(device), config)
        state.update_averages()
        state.iteration += 1

        elapsed = time.monotonic() - started
        last = state.iteration == config.schedule.iterations
        stopping = stop() or (max_minutes is not None and elapsed > 60 * max_minutes)
        validation_dice = None
        if last or state.iteration % config.run.validate_every == 0:
            validation_dice = validate(state.generator_average, data.validation, device, monitor)
            facts["validation_dice"] = validation_dice
        speed = len(images) / (time.monotonic() - tick)
        monitor.log(state, losses, speed, validation_dice)
        report(Progress(state.iteration, config.schedule.iterations, losses, speed, validation_dice))
        if last or stopping or state.iteration % config.run.save_every == 0:
            facts["seconds"] = seconds_before + time.monotonic() - started
            save_checkpoint(folder, config, state, facts)
        if stopping:
            break
    monitor.close()
    return Outcome(state.iteration, state.iteration >= config.schedule.iterations, facts.get("validation_dice"))


def source_commit() -> str | None:
    """The git commit of the code that runs, or ``None`` outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def seed_iteration(seed: int, iteration: int) -> None:
    """Seed torch for one iteration, so that a resumed run draws what an uninterrupted one would."""
    torch.manual_seed(int(np.random.SeedSequence([seed, iteration]).generate_state(1)[0]))


def supervised_step(state: TrainingState, images: Tensor, masks: Tensor, config: TrainingConfig) -> dict[str, float]:
    """One step of G, S and F on the supervised task (eqs. 2-4); returns the terms.

    The dummy code comes in turn from F_d (even iterations) and from S (odd ones).
    """
    latents = torch.randn(len(images), LATENT_SIZE).to(images.device) if state.iteration % 2 == 0 else None
    with torch.autocast(images.device.type, torch.bfloat16, enabled=config.run.precision == "bf16"):
        losses = supervised_losses(state.framework, images, masks, latents, config.losses)
        total = supervised_total(losses, config.losses)
    if not torch.isfinite(total):
        raise CxredgeError(
            f"the loss is {total.item()} at iteration {state.iteration}; try a lower optimiser.learning_rate, "
            'or run.precision = "fp32"; the last save is intact'
        )
    names = ("generator", "code_generators", "style_encoder")
    for name in names:
        state.optimisers[name].zero_grad()
    total.backward()
    for name in names:
        state.optimisers[name].step()
    return {name: float(loss.detach()) for name, loss in losses.items()}


@torch.no_grad()
def validate(generator: Generator, cases: LabelledImages, device: torch.device, monitor: Monitor) -> float:
    """Mean Dice of ``G(x, a_seg)``, post-processed as on the device; also gives the monitor its samples."""
    (size,) = cases.images
    images, masks = cases.rows(np.arange(len(cases)), size)
    predicted = []
    for image in images.split(4):
        logits = generator(image.to(device), a_seg())
        lung = (logits[:, 1] - logits[:, 0]).float().cpu().numpy()
        predicted += [lung_mask(one, (size, size)) for one in lung]
    monitor.samples(images, masks, predicted)
    return float(np.mean([dice(p, m.numpy()) for p, m in zip(predicted, masks, strict=True)]))
