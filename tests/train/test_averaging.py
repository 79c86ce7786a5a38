"""The mean of two checkpoints: of every weight that inference uses, and of what a_self makes of either."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from cxredge.cli import main
from cxredge.engine.record import file_sha256
from cxredge.errors import CheckpointError, OutputError
from cxredge_export.export import unmeasured_contract
from cxredge_train.averaging import average_checkpoints
from cxredge_train.checkpoint import (
    CONFIG,
    STATE,
    WEIGHTS,
    Trained,
    load_trained,
    read_weights,
    replace_file,
    save_checkpoint,
    start_from,
)
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
    arguments = ["average", start, tuned, "-o", tmp_path / "mean", "--share", 0.25]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert f"0.75 of {start}, 0.25 of {tuned}" in result.output
    mean = load_trained(tmp_path / "mean")
    assert mean.distilled
    parents = {"start": file_sha256(start / WEIGHTS), "tuned": file_sha256(tuned / WEIGHTS)}
    assert mean.facts == {**FACTS, "iteration": STAGE_2, "mean_of": {"share": 0.25, **parents}}
    assert unmeasured_contract(mean, "mean", "").provenance["mean_of"] == mean.facts["mean_of"]
    state = TrainingState(config, torch.device("cpu"))
    start_from(tmp_path / "mean", state)
    torch.testing.assert_close(state.framework.generator.state_dict(), dict(mean.generator.state_dict()))
    assert torch.equal(state.self_code(), mean.self_code)


def test_all_but_the_generator_is_that_of_the_tuned_one(tuned: Path, tmp_path: Path, config: TrainingConfig) -> None:
    start = write(tmp_path / "start", replace(config, name="other"), 1, SUPERVISED)
    average_checkpoints(start, tuned, tmp_path / "mean")
    assert (tmp_path / "mean" / CONFIG).read_text() == (tuned / CONFIG).read_text()
    of_mean, of_tuned = read_weights(tmp_path / "mean"), read_weights(tuned)
    assert of_mean.keys() == of_tuned.keys()
    for name, tensor in of_tuned.items():
        assert torch.equal(of_mean[name], tensor) or name.startswith("average.generator."), name
    assert not (tmp_path / "mean" / STATE).exists()


def test_what_has_no_mean_is_refused(tmp_path: Path, config: TrainingConfig, tuned: Path) -> None:
    supervised = write(tmp_path / "supervised", config, 1, SUPERVISED)
    wider = write(tmp_path / "wider", replace(config, network=replace(config.network, width=4)), 1, STAGE_2)
    shutil.copytree(supervised, tmp_path / "damaged")
    tensors = read_weights(tmp_path / "damaged")
    save_file({**tensors, "a_self": torch.zeros(15)}, tmp_path / "damaged" / WEIGHTS, metadata_of(supervised))
    for start, end, reason in (
        (tuned, supervised, "has no a_self, its training has not reached stage 2"),
        (wider, tuned, "has another network than"),
        (tuned, tuned, "has the same weights as"),
        (tmp_path / "absent", tuned, "is not a checkpoint"),
        (tmp_path / ("n" * 300), tuned, "is not a checkpoint"),
        (tmp_path / "damaged", tuned, "a code has not 16 values of single precision"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            average_checkpoints(start, end, tmp_path / "mean")
        assert not (tmp_path / "mean").exists()
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(CheckpointError, match="the share must be within 0 and 1"):
            average_checkpoints(supervised, tuned, tmp_path / "mean", share)


def metadata_of(folder: Path) -> dict[str, str]:
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        metadata: dict[str, str] = file.metadata()
        return metadata


@pytest.mark.parametrize("there", [CONFIG, WEIGHTS, STATE])
def test_a_checkpoint_is_not_overwritten(tmp_path: Path, start: Path, tuned: Path, there: str) -> None:
    (tmp_path / "mean").mkdir()
    (tmp_path / "mean" / there).touch()
    with pytest.raises(CheckpointError, match="holds a checkpoint already"):
        average_checkpoints(start, tuned, tmp_path / "mean")


@pytest.mark.parametrize("output", ["file/below", "n" * 300])
def test_a_mean_that_cannot_be_written_says_so(tmp_path: Path, start: Path, tuned: Path, output: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        average_checkpoints(start, tuned, tmp_path / output)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("unexpected pos 64")])
def test_of_a_file_that_cannot_be_written_nothing_stays(tmp_path: Path, error: Exception) -> None:
    def write_some(path: Path) -> None:
        path.write_bytes(b"some")
        raise error

    with pytest.raises(OutputError, match="weights: cannot be written"):
        replace_file(tmp_path / "weights", write_some)
    assert list(tmp_path.iterdir()) == []
