"""Networks, averages and optimisers of a run: how rates fall, how averages move, what is remembered."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cxredge_train.config import OptimiserConfig, ScheduleConfig, TrainingConfig
from cxredge_train.framework import (
    Framework,
    TrainingState,
    build_optimisers,
    learning_rate_factor,
    set_learning_rates,
)
from cxredge_train.networks import NetworkConfig

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
def test_the_rate_falls_tenfold_at_55_and_at_70_percent(iteration: int, factor: float) -> None:
    assert learning_rate_factor(ScheduleConfig(), iteration) == pytest.approx(factor)


def test_milestones_and_factor_are_configurable() -> None:
    schedule = ScheduleConfig(iterations=10, milestones=(0.5,), decay_factor=0.25)
    assert [learning_rate_factor(schedule, i) for i in (4, 5, 9)] == [1, 0.25, 0.25]


def test_cosine_falls_from_one_to_the_factor() -> None:
    schedule = ScheduleConfig(iterations=100, decay="cosine", decay_factor=0.2)
    assert learning_rate_factor(schedule, 0) == pytest.approx(1)
    assert learning_rate_factor(schedule, 50) == pytest.approx(0.6)
    assert learning_rate_factor(schedule, 100) == pytest.approx(0.2)
    factors = [learning_rate_factor(schedule, i) for i in range(101)]
    assert factors == sorted(factors, reverse=True)


def test_rates_are_set_from_each_networks_own_base(config: TrainingConfig, state: TrainingState) -> None:
    state.iteration = 4  # 67 % of six iterations: past the first milestone
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
    other = TrainingState(replace(config, run=replace(config.run, seed=2)), CPU)
    other.load_state_dict(state.state_dict())
    torch.testing.assert_close(other.state_dict(), state.state_dict(), rtol=0, atol=0)
    assert other.iteration == 3
    for restored in (other, state):  # a further step and average come out the same
        disturb(restored)
        restored.update_averages()
    torch.testing.assert_close(other.averages.state_dict(), state.averages.state_dict(), rtol=0, atol=0)
