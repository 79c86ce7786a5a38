"""Networks, averages and optimisers of a run: how rates fall, how averages move, what is remembered."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from cxredge_train.config import OptimiserConfig, ScheduleConfig, Stage, TrainingConfig
from cxredge_train.framework import (
    Framework,
    TrainingState,
    build_optimisers,
    learning_rate_factor,
    set_learning_rates,
)
from cxredge_train.networks import NetworkConfig, a_seg, a_self

pytestmark = pytest.mark.usefixtures("small_code_generators")

CPU = torch.device("cpu")


@pytest.fixture
def state(config: TrainingConfig) -> TrainingState:
    return TrainingState(config, CPU)


def weights_of(state: TrainingState) -> list[torch.Tensor]:
    return [p.detach() for p in state.framework.parameters()]


def disturb(state: TrainingState) -> None:
    with torch.no_grad():
        for parameter in state.framework.parameters():
            parameter += 1


@pytest.mark.parametrize(
    ("iteration", "factor"),
    [(0, 1), (21_999, 1), (22_000, 0.1), (27_999, 0.1), (28_000, 0.01), (39_999, 0.01)],
)
@pytest.mark.parametrize("stage", [1, 2])
def test_the_rate_falls_tenfold_at_55_and_at_70_percent_of_each_stage(
    stage: int, iteration: int, factor: float
) -> None:
    assert learning_rate_factor(ScheduleConfig(), 40_000 * (stage - 1) + iteration) == pytest.approx(factor)


@pytest.mark.parametrize("lengths", [(0, 20, 20), (20, 0, 20), (7, 40, 20), (0, 100, 11), (0, 5, 200)], ids=str)
def test_every_milestone_of_a_stage_lies_within_it(lengths: tuple[int, int, int]) -> None:
    schedule = ScheduleConfig(*lengths)
    for stage in Stage:
        own = [i for i in range(schedule.iterations) if schedule.stage(i)[0] is stage]
        factors = [learning_rate_factor(schedule, i) for i in own]
        if own:  # each begins at the full rate, and each falls twice
            assert factors[0] == 1
            assert sum(b < a for a, b in pairwise(factors)) == 2


def test_milestones_and_factor_are_configurable() -> None:
    schedule = ScheduleConfig(supervised=10, adaptation=4, distillation=0, milestones=(0.5,), decay_factor=0.25)
    assert [learning_rate_factor(schedule, i) for i in (4, 5, 9, 10, 11, 12)] == [1, 0.25, 0.25, 1, 1, 0.25]


def test_cosine_falls_from_one_to_the_factor() -> None:
    schedule = ScheduleConfig(supervised=100, adaptation=0, distillation=0, decay="cosine", decay_factor=0.2)
    assert learning_rate_factor(schedule, 0) == pytest.approx(1)
    assert learning_rate_factor(schedule, 50) == pytest.approx(0.6)
    assert learning_rate_factor(schedule, 100) == pytest.approx(0.2)
    factors = [learning_rate_factor(schedule, i) for i in range(101)]
    assert factors == sorted(factors, reverse=True)


def test_rates_are_set_from_each_networks_own_base(config: TrainingConfig, state: TrainingState) -> None:
    state.iteration = 4  # 67 % of stage 1: past the first milestone
    set_learning_rates(state, config)
    rates = {name: optimiser.param_groups[0]["lr"] for name, optimiser in state.optimisers.items()}
    assert rates == pytest.approx(
        {"generator": 1e-4, "code_generators": 1e-5, "style_encoder": 1e-4, "discriminator": 1e-4}
    )


def test_optimisers_are_adam_with_the_configured_values() -> None:
    framework = Framework(NetworkConfig(width=2, input_size=32))
    optimisers = build_optimisers(framework, OptimiserConfig())
    for name, optimiser in optimisers.items():
        assert isinstance(optimiser, torch.optim.Adam)
        (group,) = optimiser.param_groups
        assert (group["betas"], group["weight_decay"]) == ((0.0, 0.99), 1e-4)
        assert group["lr"] == (1e-6 if name == "code_generators" else 1e-4)


def test_every_weight_is_in_exactly_one_optimiser(state: TrainingState) -> None:
    optimised = [id(p) for o in state.optimisers.values() for group in o.param_groups for p in group["params"]]
    assert len(optimised) == len(set(optimised))
    assert set(optimised) == {id(p) for p in state.framework.parameters()}


def test_averages_are_kept_of_g_f_and_s(state: TrainingState) -> None:
    assert set(state.averages) == {"generator", "code_generators", "style_encoder"}
    assert not any(p.requires_grad for p in state.averages.parameters())


def test_an_average_starts_at_its_network_and_moves_by_one_minus_the_decay(
    config: TrainingConfig, state: TrainingState
) -> None:
    state.update_averages()
    first = [p.clone() for p in state.generator_average.parameters()]
    for average, network in zip(first, state.framework.generator.parameters(), strict=True):
        torch.testing.assert_close(average, network.detach())
    disturb(state)
    state.update_averages()
    decay = config.optimiser.ema_decay
    for before, after, network in zip(
        first, state.generator_average.parameters(), state.framework.generator.parameters(), strict=True
    ):
        torch.testing.assert_close(after, decay * before + (1 - decay) * network.detach())


def test_all_three_averages_move(state: TrainingState) -> None:
    state.update_averages()
    disturb(state)
    before = {name: [p.clone() for p in average.parameters()] for name, average in state.averages.items()}
    state.update_averages()
    for name, average in state.averages.items():
        assert all(not torch.equal(a, b) for a, b in zip(average.parameters(), before[name], strict=True))


def test_weights_are_drawn_from_the_seed(config: TrainingConfig, state: TrainingState) -> None:
    torch.manual_seed(99)
    again = TrainingState(config, CPU)
    other = TrainingState(replace(config, run=replace(config.run, seed=2)), CPU)
    assert all(torch.equal(a, b) for a, b in zip(weights_of(state), weights_of(again), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(weights_of(state), weights_of(other), strict=True))


def test_a_state_is_restored_whole(config: TrainingConfig, state: TrainingState) -> None:
    sum(p.square().sum() for p in state.framework.parameters()).backward()
    for optimiser in state.optimisers.values():
        optimiser.step()
    state.update_averages()
    state.iteration = 3
    state.adaptation_code = torch.arange(16.0)
    state.watch_discriminator(0.25)
    other = TrainingState(replace(config, run=replace(config.run, seed=2)), CPU)
    other.load_state_dict(state.state_dict())
    torch.testing.assert_close(other.state_dict(), state.state_dict(), rtol=0, atol=0)
    assert other.iteration == 3
    assert other.adaptation_code.tolist() == list(range(16))
    assert other.discriminator_loss == state.discriminator_loss == pytest.approx(0.9925)
    for restored in (other, state):  # a further step and average come out the same
        disturb(restored)
        restored.update_averages()
    torch.testing.assert_close(other.averages.state_dict(), state.averages.state_dict(), rtol=0, atol=0)


# a_self


@torch.no_grad()
def test_the_self_code_is_the_averaged_f_e_of_a_latent_of_ones(state: TrainingState) -> None:
    state.update_averages()
    disturb(state)
    assert torch.equal(state.self_code(), state.code_average.f_e(torch.ones(1, 4))[0])
    assert not torch.equal(state.self_code(), state.framework.code_generators.f_e(torch.ones(1, 4))[0])


@torch.no_grad()
@pytest.mark.parametrize("encoder_affine", [True, False])
def test_starting_from_a_seg_makes_a_self_equal_to_it_in_network_and_average(
    config: TrainingConfig, encoder_affine: bool
) -> None:
    network = replace(config.network, encoder_affine=encoder_affine)
    state = TrainingState(replace(config, network=network), CPU)
    state.framework.double()
    state.averages.double()
    for name, parameter in state.framework.generator.named_parameters():
        if "encoder" in name and "plain" in name:
            parameter += torch.randn_like(parameter)
    state.update_averages()
    for parameter in state.framework.generator.parameters():
        parameter *= 1.1  # the average is another network than G
    image, code = torch.randn(2, 1, 32, 32).double(), torch.randn(2, 16).double()
    generators = (state.framework.generator, state.generator_average)
    before = [generator(image, a_seg()) for generator in generators]
    assert not torch.allclose(before[0], before[1])
    state.start_self_from_seg()
    for generator, expected in zip(generators, before, strict=True):
        assert torch.equal(generator(image, a_seg()), expected)
        torch.testing.assert_close(generator(image, a_self(code)), expected, rtol=0, atol=1e-9)


def test_the_running_mean_of_the_discriminators_loss_forgets_slowly(state: TrainingState) -> None:
    state.watch_discriminator(0.0)
    assert state.discriminator_loss == pytest.approx(0.99)
    for _ in range(1000):
        state.watch_discriminator(1.4)
    assert state.discriminator_loss == pytest.approx(1.4, abs=0.01)
