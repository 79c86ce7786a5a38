"""The mean of two checkpoints: of every weight that inference uses, and of what a_self makes of either."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from cxredge.cli import main
from cxredge.errors import CheckpointError
from cxredge_train.averaging import average_checkpoints
from cxredge_train.checkpoint import Trained, load_trained, save_checkpoint, start_from
from cxredge_train.config import TrainingConfig
from cxredge_train.framework import TrainingState
from cxredge_train.networks import Generator, SwitchedNorm, a_self

pytestmark = pytest.mark.usefixtures("small_code_generators")

FACTS = {"seconds": 12.5, "data_sha256": "00ff", "commit": None}
SUPERVISED, STAGE_2 = 2, 8
"""Iterations of the tiny configuration, before and after a_self means something."""


def write(folder: Path, config: TrainingConfig, seed: int, iteration: int) -> Path:
    """A checkpoint of random weights."""
    state = TrainingState(replace(config, run=replace(config.run, seed=seed)), torch.device("cpu"))
    state.iteration = iteration
    with torch.no_grad():
        for parameter in state.averages.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    save_checkpoint(folder, config, state, FACTS)
    return folder


@pytest.fixture(params=[SUPERVISED, STAGE_2], ids=["supervised", "stage 2"])
def start(request: pytest.FixtureRequest, tmp_path: Path, config: TrainingConfig) -> Path:
    return write(tmp_path / "start", config, 1, request.param)


@pytest.fixture
def tuned(tmp_path: Path, config: TrainingConfig) -> Path:
    return write(tmp_path / "tuned", config, 2, STAGE_2)


def affines(trained: Trained) -> list[Tensor]:
    """Scale and shift of every encoder norm, of a_self, or of a_seg before stage 2."""
    norms = [module for module in trained.generator.encoder.modules() if isinstance(module, SwitchedNorm)]
    if not trained.distilled:
        for norm in norms:
            norm.start_from_plain()
    return [torch.cat(norm.adaptive.affine(trained.self_code[None])) for norm in norms]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
@torch.no_grad()
def test_weights_and_what_a_self_makes_are_means(start: Path, tuned: Path, tmp_path: Path, share: float) -> None:
    average_checkpoints(start, tuned, tmp_path / "mean", share)
    first, second, mean = (load_trained(folder) for folder in (start, tuned, tmp_path / "mean"))
    of_first, of_second, of_mean = (dict(each.generator.state_dict()) for each in (first, second, mean))
    for name, tensor in of_mean.items():
        if "encoder" not in name or "adaptive" not in name:
            wanted = (1 - share) * of_first[name] + share * of_second[name]
            torch.testing.assert_close(tensor, wanted, msg=name)
    for found, one, other in zip(affines(mean), affines(first), affines(second), strict=True):
        torch.testing.assert_close(found, (1 - share) * one + share * other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, 1.0])
@torch.no_grad()
def test_at_either_end_the_direct_path_is_that_checkpoints(
    tmp_path: Path, config: TrainingConfig, tuned: Path, share: float
) -> None:
    start = write(tmp_path / "start", config, 1, STAGE_2)
    average_checkpoints(start, tuned, tmp_path / "mean", share)
    image = torch.rand(1, 1, 32, 32) * 2 - 1
    mean, end = (direct(load_trained(folder), image) for folder in (tmp_path / "mean", tuned if share else start))
    torch.testing.assert_close(mean, end, atol=1e-5, rtol=1e-4)


def direct(trained: Trained, image: Tensor) -> Tensor:
    assert isinstance(trained.generator, Generator)
    logits: Tensor = trained.generator(image, a_self(trained.self_code[None]))
    return logits


def test_a_mean_says_what_it_is_of_and_can_be_trained_further(
    start: Path, tuned: Path, tmp_path: Path, config: TrainingConfig
) -> None:
    result = CliRunner().invoke(main, ["average", str(start), str(tuned), "-o", str(tmp_path / "mean")])
    assert result.exit_code == 0, result.output
    mean = load_trained(tmp_path / "mean")
    assert mean.distilled
    assert mean.facts["iteration"] == STAGE_2
    assert mean.facts["mean_of"]["share"] == 0.5
    assert len(mean.facts["mean_of"]["start"]) == len(mean.facts["mean_of"]["tuned"]) == 64
    state = TrainingState(config, torch.device("cpu"))
    start_from(tmp_path / "mean", state)
    torch.testing.assert_close(state.framework.generator.state_dict(), dict(mean.generator.state_dict()))
    assert torch.equal(state.self_code(), mean.self_code)


def test_what_has_no_mean_is_refused(tmp_path: Path, config: TrainingConfig, tuned: Path) -> None:
    supervised = write(tmp_path / "supervised", config, 1, SUPERVISED)
    wider = write(tmp_path / "wider", replace(config, network=replace(config.network, width=4)), 1, STAGE_2)
    for start, end, reason in (
        (tuned, supervised, "has no a_self, its training has not reached stage 2"),
        (wider, tuned, "has another network than"),
        (tmp_path / "absent", tuned, "is not a checkpoint"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            average_checkpoints(start, end, tmp_path / "mean")
        assert not (tmp_path / "mean").exists()
    with pytest.raises(CheckpointError, match="holds a checkpoint already"):
        average_checkpoints(supervised, tuned, supervised)
