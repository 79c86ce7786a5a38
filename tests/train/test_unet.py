"""The U-Net of the comparison trains, validates and is evaluated like G, and cannot adapt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cxredge.errors import CheckpointError, ConfigError
from cxredge_train.config import TrainingConfig
from cxredge_train.config_file import read_config
from cxredge_train.framework import TrainingState
from cxredge_train.inference import CheckpointBackend
from cxredge_train.networks import Domain, NetworkConfig, a_da, a_seg, a_self
from cxredge_train.training import train
from cxredge_train.unet import UNet

TINY = NetworkConfig(width=2, input_size=32, architecture="unet")


@pytest.mark.parametrize("size", [(32, 32), (64, 48)])
def test_logits_are_as_large_as_the_image(size: tuple[int, int]) -> None:
    assert UNet(TINY)(torch.zeros(2, 1, *size), a_seg()).shape == (2, 2, *size)


def test_every_parameter_is_used() -> None:
    network = UNet(TINY)
    loss = network(torch.rand(2, 1, 32, 32), a_seg()).square().sum()
    gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


def test_it_has_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    network = UNet(TINY).eval()
    image = torch.rand(1, 1, 32, 32)
    whole = network(image, a_seg())
    with torch.no_grad():
        for enlarge in network.enlarge:
            enlarge.weight.zero_()
            enlarge.bias.zero_()
    assert not torch.equal(network(image, a_seg()), whole)
    assert not torch.equal(network(image, a_seg()), network(1 - image, a_seg()))  # what skips bring is left


@pytest.mark.parametrize("codes", [a_da(torch.zeros(1, 16), Domain.INTRA), a_self(torch.zeros(1, 16))])
def test_other_codes_than_a_seg_are_refused(codes: object) -> None:
    with pytest.raises(ValueError, match="a_seg only"):
        UNet(TINY)(torch.zeros(1, 1, 32, 32), codes)  # type: ignore[arg-type]


def test_stages_that_adapt_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "unet.toml"
    file.write_text('[network]\narchitecture = "unet"\n[losses]\nlambda_style = 0.0\n')
    with pytest.raises(ConfigError, match=r"schedule must be supervised only"):
        read_config(file)


def test_the_style_loss_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "unet.toml"
    file.write_text('[network]\narchitecture = "unet"\n[schedule]\nsupervised = 1\nadaptation = 0\ndistillation = 0\n')
    with pytest.raises(ConfigError, match=r"losses\.lambda_style must be 0"):
        read_config(file)


def test_the_average_is_in_inference_mode(config: TrainingConfig) -> None:
    state = TrainingState(unet(config), torch.device("cpu"))
    assert state.framework.generator.training
    assert not any(module.training for module in state.generator_average.modules())


def test_a_run_ends_in_a_checkpoint_that_segments_and_is_not_exported(
    config: TrainingConfig, data_root: Path, tmp_path: Path
) -> None:
    outcome = train(unet(config), data_root, tmp_path / "run")
    assert outcome.finished
    assert outcome.validation.keys() == {"a_seg"}
    backend = CheckpointBackend(tmp_path / "run")
    size = config.network.input_size
    image = np.random.default_rng(0).uniform(-1, 1, (2, 1, size, size)).astype(np.float32)
    both, first = backend.run(image), backend.run(image[:1])
    np.testing.assert_allclose(both[:1], first, atol=1e-5)  # batch statistics would tie an image to its batch
    with pytest.raises(CheckpointError, match="U-Net"):
        _ = backend.trained.folding_generator


def unet(config: TrainingConfig) -> TrainingConfig:
    return replace(
        config,
        network=replace(config.network, architecture="unet"),
        losses=replace(config.losses, lambda_style=0.0),
        schedule=replace(config.schedule, supervised=6, adaptation=0, distillation=0),
    )
