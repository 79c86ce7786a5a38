"""Images per second of full training steps and their split by phase, on made images: `python training.py [WIDTH]`.

A figure is the median of a few steps on the device that torch finds. Adaptation steps are two of D and two of
G, as in training.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from cxredge_train.config import LossConfig, RunConfig, Stage, TrainingConfig
from cxredge_train.framework import TrainingState
from cxredge_train.networks import NetworkConfig
from cxredge_train.steps import Batch, train_task
from cxredge_train.tasks import Task

STEPS = 5
BATCH = 4
NO_R1 = replace(LossConfig(), lambda_r1=0.0)


def median_seconds(step: Callable[[], object], device: torch.device) -> float:
    step()
    times = []
    for _ in range(STEPS):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def made_batch(size: int, device: torch.device) -> Batch:
    images = (2 * torch.rand(BATCH, 1, size, size) - 1).to(device)
    return Batch(images, images, (images[:, 0] > 0), (images, images))


def measure(width: int, size: int, run: RunConfig, device: torch.device) -> dict[str, float]:
    """Median seconds of a step by phase."""
    config = TrainingConfig(network=NetworkConfig(width=width), run=run)
    state, batch = TrainingState(config, device), made_batch(size, device)
    phases = {
        "segmentation": (Task.INTRA_TO_MASK, Stage.ADAPTATION, config),
        "adaptation": (Task.INTER_TO_INTRA, Stage.ADAPTATION, replace(config, losses=NO_R1)),
        "adaptation + R1": (Task.INTER_TO_INTRA, Stage.ADAPTATION, config),
        "self-consistency": (Task.INTER_TO_MASK, Stage.DISTILLATION, config),
    }
    return {
        name: median_seconds(lambda task=task, stage=stage, c=c: train_task(state, task, stage, [batch], c), device)
        for name, (task, stage, c) in phases.items()
    }


def main(width: int) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"width {width}, batch {BATCH}, {device}, {torch.get_num_threads()} threads, median of {STEPS} steps")
    for size in (128, 256):
        for precision, channels_last in (("fp32", False), ("bf16", False), ("bf16", True)):
            run = RunConfig(precision=precision, channels_last=channels_last)  # type: ignore[arg-type]
            found = measure(width, size, run, device)
            layout = "channels_last" if channels_last else "contiguous"
            cells = "  ".join(f"{name} {seconds:.3f} s ({BATCH / seconds:.1f}/s)" for name, seconds in found.items())
            print(f"{size}x{size} {precision} {layout}: {cells}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 16)
