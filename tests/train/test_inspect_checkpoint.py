"""``cxredge inspect`` of a checkpoint folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from cxredge.cli import main
from cxredge_train.checkpoint import load_trained, save_weights
from cxredge_train.code_report import layer_codes
from cxredge_train.config import TrainingConfig
from cxredge_train.framework import TrainingState
from cxredge_train.networks import NetworkConfig

pytestmark = pytest.mark.usefixtures("small_code_generators")
FACTS = {"validation": {"a_self": 0.95}, "commit": None}


def inspect(folder: Path, *options: str | Path) -> Result:
    return CliRunner().invoke(main, ["inspect", str(folder), *map(str, options)])


def save(folder: Path, config: TrainingConfig, iteration: int) -> None:
    state = TrainingState(config, torch.device("cpu"))
    state.iteration = iteration
    save_weights(folder, config, state, FACTS)


def test_the_run_and_the_codes_of_a_distilled_checkpoint_are_shown(
    folder: Path, config: TrainingConfig, tmp_path: Path
) -> None:
    save(folder, config, 7)
    result = inspect(folder, "--json", tmp_path / "found.json")
    assert result.exit_code == 0, result.output
    for text in ("has adapted │ yes", "has a self │ yes", "iteration │ 7", "encoder.0.norm1", "‖γ − γ_seg‖"):
        assert text in " ".join(result.output.split()), text
    found = json.loads((tmp_path / "found.json").read_text())
    trained = load_trained(folder)
    assert found["a_self"] == [code.to_dict() for code in layer_codes(trained.folding_generator, trained.self_code)]
    assert found["config"]["network"]["width"] == config.network.width
    assert found["facts"]["validation"] == FACTS["validation"]


def test_a_checkpoint_without_stage_2_has_no_a_self_to_show(folder: Path, config: TrainingConfig) -> None:
    save(folder, config, 4)
    result = inspect(folder)
    assert "has a self │ no" in " ".join(result.output.split())
    assert "‖γ‖" not in result.output


def test_a_u_net_is_shown_without_codes(folder: Path, supervised: TrainingConfig) -> None:
    losses = replace(supervised.losses, lambda_style=0.0)
    network = NetworkConfig(width=2, input_size=32, architecture="unet")
    save(folder, replace(supervised, network=network, losses=losses), 1)
    result = inspect(folder)
    assert result.exit_code == 0, result.output
    assert "architecture │ unet" in " ".join(result.output.split())


def test_a_folder_that_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    result = inspect(tmp_path)
    assert result.exit_code == 1
    assert f"{tmp_path}: is not a checkpoint" in result.output.replace("\n", " ")
