"""The networks that are trained together, their moving averages and their optimisers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cxredge_train.config import OptimiserConfig, ScheduleConfig, TrainingConfig
from cxredge_train.networks import (
    CODE_SIZE,
    LATENT_SIZE,
    CodeGenerators,
    Discriminator,
    Generator,
    NetworkConfig,
    StyleEncoder,
    SwitchedNorm,
    initialise,
)
from cxredge_train.unet import UNet


def build_generator(config: NetworkConfig) -> Generator | UNet:
    """G, or the U-Net that stands in its place in the comparison."""
    return UNet(config) if config.architecture == "unet" else Generator(config)


class Framework(nn.Module):
    """G, F_e and F_d, S and D of one configuration."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.generator = build_generator(config)
        self.code_generators = CodeGenerators(config)
        self.style_encoder = StyleEncoder(config)
        self.discriminator = Discriminator(config)
        initialise(self)


AVERAGED = ("generator", "code_generators", "style_encoder")
"""Networks of the framework that have a moving average."""


DISCRIMINATOR_MEMORY = 0.99
"""Decay of the running mean of the discriminator's loss."""


class TrainingState:
    """Everything that a run changes: networks, averages, optimisers, constants of inference, the iteration count.

    Args:
        config: the run's configuration; the weights are drawn from its seed.
        device: where the networks live.
    """

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        torch.manual_seed(config.run.seed)
        self.device = device
        self.framework = Framework(config.network).to(device)
        if config.run.channels_last:
            self.framework.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = get_ema_multi_avg_fn(config.optimiser.ema_decay)
        self.averages = nn.ModuleDict(
            {
                name: AveragedModel(getattr(self.framework, name), multi_avg_fn=average, use_buffers=True)
                for name in AVERAGED
            }
        )
        self.averages.requires_grad_(False)
        self.averages.eval()
        self.optimisers = build_optimisers(self.framework, config.optimiser)
        self.adaptation_code = torch.zeros(CODE_SIZE)
        self.kept_teacher: Generator | None = None
        self.discriminator_loss = 1.0
        self.iteration = 0
        self.average_over_devices: Callable[[Tensor], Tensor] = lambda gradient: gradient

    @property
    def generator_average(self) -> Generator | UNet:
        """Moving average of G, the network that validation and export use."""
        average = self.averages["generator"]
        assert isinstance(average, AveragedModel)
        assert isinstance(average.module, Generator | UNet)
        return average.module

    @property
    def code_average(self) -> CodeGenerators:
        """Moving average of F_e and F_d."""
        average = self.averages["code_generators"]
        assert isinstance(average, AveragedModel)
        assert isinstance(average.module, CodeGenerators)
        return average.module

    @property
    def style_average(self) -> StyleEncoder:
        """Moving average of S."""
        average = self.averages["style_encoder"]
        assert isinstance(average, AveragedModel)
        assert isinstance(average.module, StyleEncoder)
        return average.module

    @torch.no_grad()
    def self_code(self) -> Tensor:
        """a_self's encoder code ``(16,)`` of the averaged F_e."""
        return self.code_average.f_e(a_self_latent(self.device))[0]

    def watch_discriminator(self, loss: float) -> None:
        """Move the running mean of the discriminator's loss (real plus generated)."""
        self.discriminator_loss += (1 - DISCRIMINATOR_MEMORY) * (loss - self.discriminator_loss)

    def start_self_from_seg(self) -> None:
        """Make a_self equal to a_seg in networks and averages; see ``ScheduleConfig.warm_start_self``."""
        for generator in (self.framework.generator, self.generator_average):
            assert isinstance(generator, Generator)
            for module in generator.encoder.modules():
                if isinstance(module, SwitchedNorm):
                    module.start_from_plain()

    def keep_teacher(self) -> None:
        """Keep the averaged generator as it is now, to teach ℓ_inter; see ``LossConfig.inter_teacher``."""
        assert isinstance(self.generator_average, Generator)
        self.kept_teacher = copy.deepcopy(self.generator_average)

    def update_averages(self) -> None:
        """Move every average one step towards its network."""
        for name, average in self.averages.items():
            assert isinstance(average, AveragedModel)
            average.update_parameters(getattr(self.framework, name))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers that a resumed run needs."""
        kept = {} if self.kept_teacher is None else {"kept_teacher": self.kept_teacher.state_dict()}
        return {
            **kept,
            "framework": self.framework.state_dict(),
            "averages": self.averages.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "adaptation_code": self.adaptation_code,
            "discriminator_loss": self.discriminator_loss,
            "iteration": self.iteration,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.framework.load_state_dict(state["framework"])
        self.averages.load_state_dict(state["averages"])
        if "kept_teacher" in state:
            self.keep_teacher()
            assert self.kept_teacher is not None
            self.kept_teacher.load_state_dict(state["kept_teacher"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.adaptation_code = state["adaptation_code"]
        self.discriminator_loss = float(state["discriminator_loss"])
        self.iteration = int(state["iteration"])


def a_self_latent(device: torch.device) -> Tensor:
    """The latent ``(1, 4)`` of a_self, all ones, in training and inference alike (method, section 5)."""
    return torch.ones(1, LATENT_SIZE, device=device)


def build_optimisers(framework: Framework, config: OptimiserConfig) -> dict[str, torch.optim.Optimizer]:
    """One Adam for each network; F_e and F_d have a rate of their own."""
    rates = {
        "generator": config.learning_rate,
        "code_generators": config.code_learning_rate,
        "style_encoder": config.learning_rate,
        "discriminator": config.learning_rate,
    }
    return {
        name: torch.optim.Adam(
            getattr(framework, name).parameters(), lr=rate, betas=config.betas, weight_decay=config.weight_decay
        )
        for name, rate in rates.items()
    }


def learning_rate_factor(schedule: ScheduleConfig, iteration: int) -> float:
    """What the learning rates are multiplied by at ``iteration``; each stage decays by itself."""
    _, share = schedule.stage(iteration)
    if schedule.decay == "cosine":
        return schedule.decay_factor + (1 - schedule.decay_factor) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    passed = sum(share >= milestone for milestone in schedule.milestones)
    return float(schedule.decay_factor**passed)


def set_learning_rates(state: TrainingState, config: TrainingConfig) -> None:
    """Set every optimiser's learning rate for the state's iteration."""
    factor = learning_rate_factor(config.schedule, state.iteration)
    for name, group in _groups(state.optimisers):
        base = config.optimiser.code_learning_rate if name == "code_generators" else config.optimiser.learning_rate
        group["lr"] = base * factor


def _groups(optimisers: dict[str, torch.optim.Optimizer]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, optimiser in optimisers.items():
        for group in optimiser.param_groups:
            yield name, group
