"""A training step of each task: which networks it moves, what its terms are, what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cxredge.errors import CxredgeError
from cxredge_train import steps
from cxredge_train.config import LossConfig, RunConfig, ScheduleConfig, Stage, TrainingConfig
from cxredge_train.framework import TrainingState
from cxredge_train.networks import Domain, a_da, a_seg, a_self
from cxredge_train.steps import (
    Batch,
    Terms,
    adaptation_pass,
    discriminator_terms,
    distillation_terms,
    diversity_weight,
    generator_terms,
    intra_term,
    latent_codes,
    reference_codes,
    self_codes,
    step,
    supervised_terms,
    total,
    train_task,
)
from cxredge_train.tasks import Task, valid_tasks
from cxredge_train.training import begin_distillation

pytestmark = pytest.mark.usefixtures("small_code_generators")

CPU = torch.device("cpu")
D, G, F_CODES, S = "discriminator", "generator", "code_generators", "style_encoder"
ADAPTING = [task for task in Task if task.adapts]


@pytest.fixture
def state(config: TrainingConfig) -> TrainingState:
    state = TrainingState(config, CPU)
    state.update_averages()
    return state


def images(seed: int, count: int = 2) -> Tensor:
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def batch(count: int = 2) -> Batch:
    """Teacher images differ from the images, as where the teacher sees them clean."""
    return Batch(images(1, count), images(2, count), images(1, count)[:, 0] > 0.3, (images(3, count), images(4, count)))


def rows_of(whole: Batch) -> list[Batch]:
    """A batch of two as two batches of one."""
    assert whole.masks is not None
    masks = whole.masks
    return [
        Batch(
            whole.images[i : i + 1],
            whole.teacher_images[i : i + 1],
            masks[i : i + 1],
            (whole.references[0][i : i + 1], whole.references[1][i : i + 1]),
        )
        for i in range(2)
    ]


def double(state: TrainingState, one: Batch) -> Batch:
    """Bring the networks and a batch to float64."""
    state.framework.double()
    first, second = one.references
    return Batch(one.images.double(), one.teacher_images.double(), one.masks, (first.double(), second.double()))


def reached(state: TrainingState, term: Tensor) -> set[str]:
    """Names of the parameters of the framework that ``term`` has a gradient for."""
    names, values = zip(*state.framework.named_parameters(), strict=True)
    gradients = torch.autograd.grad(term, values, allow_unused=True)
    return {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None and gradient.any()}


def networks_of(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Filled, at each step of optimisers, with the networks whose weights changed in it."""
    found: list[set[str]] = []

    def recorded(state: TrainingState, *arguments: Any) -> dict[str, float]:
        before = {name: tensor.clone() for name, tensor in state.framework.state_dict().items()}
        terms = step(state, *arguments)
        after = state.framework.state_dict()
        found.append(networks_of({name for name in before if not torch.equal(before[name], after[name])}))
        return terms

    monkeypatch.setattr(steps, "step", recorded)
    return found


# Which networks move


@pytest.mark.parametrize("task", ADAPTING)
def test_adaptation_moves_d_then_g_f_s_by_latents_and_d_then_g_by_references(
    state: TrainingState, config: TrainingConfig, moves: list[set[str]], task: Task
) -> None:
    terms = train_task(state, task, Stage.ADAPTATION, [batch()], config)
    assert moves == [{D}, {G, F_CODES, S}, {D}, {G}]
    assert set(terms) == {
        f"{guide}_{name}"
        for guide in ("latent", "reference")
        for name in ("d_real", "d_fake", "r1", "adv", "sty", "cyc", "ds")
    }


@pytest.mark.parametrize(
    ("task", "stage", "iteration", "moved", "terms"),
    [
        (Task.INTRA_TO_MASK, Stage.SUPERVISED, 0, {G, F_CODES, S}, {"seg", "style"}),
        (Task.INTRA_TO_MASK, Stage.ADAPTATION, 1, {G, S}, {"seg", "style"}),  # a'_seg from S(mask)
        (Task.INTRA_TO_MASK, Stage.DISTILLATION, 1, {G, F_CODES, S}, {"seg", "style", "intra"}),
        (Task.INTER_TO_MASK, Stage.DISTILLATION, 0, {G, F_CODES}, {"inter"}),
    ],
)
def test_the_networks_and_terms_of_the_tasks_that_segment(
    state: TrainingState,
    config: TrainingConfig,
    moves: list[set[str]],
    task: Task,
    stage: Stage,
    iteration: int,
    moved: set[str],
    terms: set[str],
) -> None:
    state.iteration = iteration
    assert set(train_task(state, task, stage, [batch()], config)) == terms
    assert moves == [moved]


@pytest.mark.parametrize("stage", Stage)
def test_no_task_that_can_be_drawn_is_an_iteration_lost(
    state: TrainingState, config: TrainingConfig, moves: list[set[str]], stage: Stage
) -> None:
    for task in valid_tasks(stage):
        terms = train_task(state, task, stage, [batch()], config)
        assert terms
        assert all(math.isfinite(value) for value in terms.values())
        assert G in moves[-1]


def test_an_average_moves_with_no_step_of_its_own(state: TrainingState, config: TrainingConfig) -> None:
    before = {name: tensor.clone() for name, tensor in state.averages.state_dict().items()}
    train_task(state, Task.INTRA_TO_INTER, Stage.ADAPTATION, [batch()], config)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.averages.state_dict().items())


# Segmentation


def test_supervised_terms_are_segmentation_and_the_distance_of_the_dummy_code(
    state: TrainingState, config: TrainingConfig
) -> None:
    framework, one = state.framework, batch()
    assert one.masks is not None
    for state.iteration in (0, 1):
        torch.manual_seed(7)
        terms = supervised_terms(state, one, config)
        torch.manual_seed(7)
        logits = framework.generator(one.images, a_seg())
        weights = torch.tensor([0.7, 1.0])
        assert terms["seg"].item() == F.cross_entropy(logits, one.masks.long(), weights).item()
        if state.iteration == 0:
            dummy = framework.code_generators.f_d(torch.randn(2, 4), Domain.MASK)
        else:
            dummy = framework.style_encoder(torch.stack([~one.masks, one.masks], dim=1).float(), Domain.MASK)
        generated = framework.style_encoder(logits.softmax(dim=1), Domain.MASK)
        assert terms["style"].item() == pytest.approx((dummy - generated).abs().mean().item(), rel=1e-6)


def test_the_style_term_trains_the_mask_heads_alone_of_f_d_and_s(state: TrainingState, config: TrainingConfig) -> None:
    found = reached(state, supervised_terms(state, batch(), config)["style"])
    assert {name.split(".")[3] for name in found if ".heads." in name and name.startswith(F_CODES)} == {"mask"}
    assert {name.split(".")[2] for name in found if name.startswith(f"{S}.heads")} == {str(Domain.MASK.value)}
    assert networks_of(found) == {G, F_CODES, S}


def test_without_the_style_term_segmentation_trains_the_generator_alone(
    state: TrainingState, config: TrainingConfig, moves: list[set[str]]
) -> None:
    plain = replace(config, losses=replace(config.losses, lambda_style=0.0, lambda_intra=0.0))
    assert set(train_task(state, Task.INTRA_TO_MASK, Stage.DISTILLATION, [batch()], plain)) == {"seg"}
    assert moves == [{G}]


# Self-consistency


def test_the_inter_teacher_is_the_indirect_path_by_the_references_style_without_gradient(
    state: TrainingState, config: TrainingConfig
) -> None:
    framework, one = state.framework, batch()
    term = distillation_terms(state, one, config)["inter"]
    code = framework.style_encoder(one.references[0], Domain.INTRA)
    teacher = framework.generator(framework.generator(one.teacher_images, a_da(code, Domain.INTRA)), a_seg())
    student = framework.generator(one.images, a_self(framework.code_generators.f_e(torch.ones(2, 4))))
    assert term.item() == pytest.approx((teacher - student).abs().mean().item(), rel=1e-5)
    found = reached(state, term)
    assert networks_of(found) == {G, F_CODES}
    assert not [name for name in found if "image_head" in name or ("decoder" in name and "adaptive" in name)]
    assert not [name for name in found if "encoder" in name and "plain" in name]


def test_the_inter_teacher_can_be_the_averaged_a_seg_path(state: TrainingState, config: TrainingConfig) -> None:
    with torch.no_grad():
        for parameter in state.framework.generator.parameters():
            parameter.mul_(1.1)  # so that network and average differ
    framework, one = state.framework, batch()
    changed = replace(config, losses=replace(config.losses, inter_teacher="average"))
    term = distillation_terms(state, one, changed)["inter"]
    teacher = state.generator_average(one.teacher_images, a_seg())
    student = framework.generator(one.images, a_self(framework.code_generators.f_e(torch.ones(2, 4))))
    assert term.item() == pytest.approx((teacher - student).abs().mean().item(), rel=1e-5)
    assert term.item() != pytest.approx(distillation_terms(state, one, config)["inter"].item(), rel=1e-3)
    assert networks_of(reached(state, term)) == {G, F_CODES}


def test_the_inter_teacher_can_be_what_stage_2_began_with(state: TrainingState, config: TrainingConfig) -> None:
    changed = replace(config, losses=replace(config.losses, inter_teacher="start"))
    begin_distillation(state, changed)
    one = batch()
    teacher = state.generator_average(one.teacher_images, a_seg())
    with torch.no_grad():
        for parameter in [*state.framework.generator.parameters(), *state.generator_average.parameters()]:
            parameter.mul_(1.1)  # training goes on
    restored = TrainingState(changed, CPU)
    restored.load_state_dict(state.state_dict())
    for each in (state, restored):
        term = distillation_terms(each, one, changed)["inter"]
        student = each.framework.generator(one.images, a_self(each.framework.code_generators.f_e(torch.ones(2, 4))))
        assert term.item() == pytest.approx((teacher - student).abs().mean().item(), rel=1e-5)
        assert networks_of(reached(each, term)) == {G, F_CODES}


def test_only_a_teacher_that_is_wanted_is_kept(state: TrainingState, config: TrainingConfig) -> None:
    begin_distillation(state, config)
    assert "kept_teacher" not in state.state_dict()


def test_the_intra_teacher_is_a_seg_without_gradient(state: TrainingState, config: TrainingConfig) -> None:
    framework, one = state.framework, batch()
    term = intra_term(state, one, config)
    teacher = framework.generator(one.teacher_images, a_seg())
    student = framework.generator(one.images, a_self(framework.code_generators.f_e(torch.ones(2, 4))))
    assert term.item() == pytest.approx((teacher - student).abs().mean().item(), rel=1e-5)
    found = reached(state, term)
    assert networks_of(found) == {G, F_CODES}
    assert not [name for name in found if "encoder" in name and "plain" in name]
    assert [name for name in found if "encoder" in name and "adaptive" in name]


@torch.no_grad()
def test_a_self_has_the_latent_and_the_heads_of_inference_in_training_too(state: TrainingState) -> None:
    codes = self_codes(state, images(1, 3))
    assert codes.encoder is not None
    assert codes.decoder is None
    assert codes.target is Domain.MASK
    assert torch.equal(codes.encoder, state.self_code().expand(3, 16))  # the average is still equal to the network


# Adaptation


@torch.no_grad()
def test_latent_codes_are_two_of_f_d_and_reference_codes_two_of_s_for_the_target(
    state: TrainingState, config: TrainingConfig
) -> None:
    task, one, framework = Task.INTRA_TO_INTER, batch(), state.framework
    torch.manual_seed(3)
    latent = latent_codes(state, task, one)
    torch.manual_seed(3)
    for code in latent:
        assert torch.equal(code, framework.code_generators.f_d(torch.randn(2, 4), Domain.INTER))
    assert not torch.equal(*latent)
    for code, reference in zip(reference_codes(state, task, one, config), one.references, strict=True):
        assert torch.equal(code, framework.style_encoder(reference, Domain.INTER))


def test_the_discriminators_terms(state: TrainingState, config: TrainingConfig) -> None:
    task, one, framework, code = Task.INTRA_TO_INTER, batch(), state.framework, torch.randn(2, 16)
    terms = discriminator_terms(state, task, one, config, code)
    real = one.images.clone().requires_grad_()
    logits = framework.discriminator(real, Domain.INTRA)  # real of the source
    (gradient,) = torch.autograd.grad(logits.sum(), real, retain_graph=True)
    generated = framework.generator(one.images, a_da(code, Domain.INTER))
    fake = framework.discriminator(generated, Domain.INTER)  # generated of the target
    assert terms["d_real"].item() == pytest.approx(F.softplus(-logits).mean().item(), rel=1e-5)
    assert terms["d_fake"].item() == pytest.approx(F.softplus(fake).mean().item(), rel=1e-5)
    assert terms["r1"].item() == pytest.approx(0.5 * gradient.square().sum().item() / 2, rel=1e-4)
    assert networks_of(reached(state, terms["d_real"] + terms["d_fake"] + terms["r1"])) == {D}


def test_the_generators_terms(state: TrainingState, config: TrainingConfig) -> None:
    task, one, framework = Task.INTER_TO_INTRA, batch(), state.framework
    codes = (torch.randn(2, 16), torch.randn(2, 16))
    terms = generator_terms(state, task, one, config, codes)
    generated, other = (framework.generator(one.images, a_da(code, Domain.INTRA)) for code in codes)
    own_code = framework.style_encoder(one.images, Domain.INTER)
    returned = framework.generator(generated, a_da(own_code, Domain.INTER))
    expected = {
        "adv": F.softplus(-framework.discriminator(generated, Domain.INTRA)).mean(),
        "sty": (codes[0] - framework.style_encoder(generated, Domain.INTRA)).abs().mean(),
        "cyc": (one.images - returned).abs().mean(),
        "ds": (generated - other).abs().mean(),
    }
    assert set(terms) == set(expected)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-5)


def test_lazy_r1_comes_every_so_often_and_weighs_as_many_times_more(
    state: TrainingState, config: TrainingConfig
) -> None:
    lazy = replace(config, losses=replace(config.losses, r1_every=4))
    code = torch.randn(2, 16)
    found = []
    for state.iteration in range(8):
        every = discriminator_terms(state, Task.INTRA_TO_INTRA, batch(), config, code)
        terms = discriminator_terms(state, Task.INTRA_TO_INTRA, batch(), lazy, code)
        found.append(terms["r1"].item() / every["r1"].item() if "r1" in terms else 0)
        for name in ("d_real", "d_fake"):
            assert terms[name].item() == pytest.approx(every[name].item(), rel=1e-5)
    assert found == pytest.approx([4, 0, 0, 0, 4, 0, 0, 0])


def test_r1_is_computed_in_single_precision_in_a_run_of_half_precision(
    state: TrainingState, config: TrainingConfig
) -> None:
    half = replace(config, run=replace(config.run, precision="bf16"))
    code = torch.randn(2, 16)
    found, exact = (discriminator_terms(state, Task.INTER_TO_INTER, batch(), one, code) for one in (half, config))
    assert found["r1"].item() == exact["r1"].item()
    assert found["d_real"].item() == exact["d_real"].item()
    assert found["d_fake"].item() != exact["d_fake"].item()  # half precision was at work


def test_diversity_weighs_linearly_less_from_the_start_of_stage_1_to_nothing(
    state: TrainingState, config: TrainingConfig
) -> None:
    config = replace(
        config,
        losses=LossConfig(lambda_ds=2.0, ds_iterations=4),
        schedule=ScheduleConfig(supervised=3, adaptation=10, distillation=10),
    )
    found = []
    for state.iteration in range(10):
        found.append(diversity_weight(state, config))
    assert found == pytest.approx([2, 2, 2, 2, 1.5, 1, 0.5, 0, 0, 0])
    codes = (torch.randn(2, 16), torch.randn(2, 16))
    for state.iteration, weighs in ((6, True), (7, False)):
        assert ("ds" in generator_terms(state, Task.INTRA_TO_INTRA, batch(), config, codes)) == weighs


def test_terms_without_weight_are_left_out(state: TrainingState, config: TrainingConfig) -> None:
    plain = replace(config, losses=LossConfig(lambda_r1=0, lambda_sty=0, lambda_cyc=0, lambda_ds=0))
    terms = train_task(state, Task.INTRA_TO_INTER, Stage.ADAPTATION, [batch()], plain)
    assert {name.removeprefix("latent_") for name in terms if name.startswith("latent")} == {"d_real", "d_fake", "adv"}


def test_the_total_weighs_every_term_by_its_own_lambda_and_subtracts_diversity(
    state: TrainingState, config: TrainingConfig
) -> None:
    config = replace(config, losses=LossConfig(lambda_adv=3, lambda_r1=7, lambda_sty=11, lambda_cyc=13, lambda_ds=17))
    factors = {"seg": 5, "style": 1, "adv": 3, "d_real": 3, "d_fake": 3, "r1": 7, "sty": 11, "cyc": 13, "ds": -17}
    factors |= {"inter": 10, "intra": 1}
    for name, factor in factors.items():
        assert total(state, {name: torch.tensor(2.0)}, config).item() == pytest.approx(2 * factor)
    assert total(state, dict.fromkeys(factors, torch.tensor(1.0)), config).item() == pytest.approx(
        sum(factors.values())
    )


# The optimisers' step


def gradients(state: TrainingState, names: Sequence[str]) -> list[Tensor]:
    return [p.grad.clone() for name in names for p in getattr(state.framework, name).parameters() if p.grad is not None]


@pytest.mark.parametrize("task", [Task.INTRA_TO_MASK, Task.INTER_TO_MASK])
def test_accumulated_batches_have_the_gradient_of_one_large_batch(
    config: TrainingConfig, monkeypatch: pytest.MonkeyPatch, task: Task
) -> None:
    monkeypatch.setattr(steps, "a_self_latent", lambda device: torch.ones(1, 4).double())
    config = replace(config, losses=LossConfig(class_weights=(1.0, 1.0), lambda_style=0.0))
    found = []
    for split in (False, True):
        other = TrainingState(config, CPU)
        one = double(other, batch())
        terms = train_task(other, task, Stage.DISTILLATION, rows_of(one) if split else [one], config)
        found.append((gradients(other, (G, F_CODES, S)), terms))
    for whole, accumulated in zip(found[0][0], found[1][0], strict=True):
        torch.testing.assert_close(accumulated, whole, rtol=1e-4, atol=1e-6)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)


def test_accumulated_batches_of_adaptation_have_the_gradient_of_one_large_batch(config: TrainingConfig) -> None:
    codes = [torch.randn(2, 16, generator=torch.Generator().manual_seed(i)).double() for i in (5, 6)]
    found = []
    for split in (False, True):
        state = TrainingState(config, CPU)
        state.optimisers[D].param_groups[0]["lr"] = 0.0  # the same D for both
        one = double(state, batch())
        parts = [(one, (codes[0], codes[1]))]
        if split:
            parts = [(row, (codes[0][i : i + 1], codes[1][i : i + 1])) for i, row in enumerate(rows_of(one))]
        adaptation_pass(state, Task.INTRA_TO_INTER, parts, config, "latent", (G, S))
        found.append(gradients(state, (D, G, S)))
    for whole, accumulated in zip(*found, strict=True):
        torch.testing.assert_close(accumulated, whole, rtol=1e-4, atol=1e-6)


def test_a_gradient_is_averaged_over_devices_before_the_step(config: TrainingConfig) -> None:
    alone, together = TrainingState(config, CPU), TrainingState(config, CPU)
    together.average_over_devices = lambda gradient: 0 * gradient + 1
    for state in (alone, together):
        train_task(state, Task.INTER_TO_MASK, Stage.DISTILLATION, [batch()], config)
    assert all(bool((gradient == 1).all()) for gradient in gradients(together, (G, F_CODES)))
    assert len(gradients(together, (G, F_CODES))) == len(gradients(alone, (G, F_CODES)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_a_number_is_refused_before_anything_moves(
    state: TrainingState, config: TrainingConfig, moves: list[set[str]], value: float
) -> None:
    before = {name: tensor.clone() for name, tensor in state.framework.state_dict().items()}

    def terms() -> Terms:
        weight = next(state.framework.generator.parameters())
        return {"seg": weight.sum() * value, "style": weight.sum()}

    state.iteration = 12
    with pytest.raises(CxredgeError, match=r"loss is (nan|-?inf) at iteration 12 \(seg.*try a lower.*last save"):
        step(state, [terms], config, (G,))
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.framework.state_dict().items())


def test_a_gradient_that_is_not_a_number_is_refused_too(state: TrainingState, config: TrainingConfig) -> None:
    """Otherwise the weights are spoilt, and perhaps saved, before the next loss tells."""

    def terms() -> Terms:
        weight = next(state.framework.generator.parameters())
        return {"seg": (0 * weight).sum().sqrt()}  # 0, with the gradient 0 · ∞

    with pytest.raises(CxredgeError, match="at iteration 0"):
        step(state, [terms], config, (G,))
    assert all(torch.isfinite(parameter).all() for parameter in state.framework.parameters())


# Overfitting


@pytest.fixture
def learner(config: TrainingConfig) -> Callable[..., tuple[TrainingState, TrainingConfig]]:
    """A state of width 4 that learns fast, with its configuration."""

    def build(rate: float, **losses: float) -> tuple[TrainingState, TrainingConfig]:
        quick = replace(
            config,
            network=replace(config.network, width=4),
            losses=LossConfig(**losses),
            optimiser=replace(config.optimiser, learning_rate=rate, code_learning_rate=2e-3, betas=(0.5, 0.99)),
            run=RunConfig(seed=3),
        )
        return TrainingState(quick, CPU), quick

    return build


def smooth(seed: int) -> Tensor:
    """Two images ``(2, 1, 32, 32)`` of smooth blobs, as radiographs are."""
    coarse = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, 32, mode="bicubic").clamp(-1, 1)


def test_cycle_consistency_can_be_learned(learner: Callable[..., tuple[TrainingState, TrainingConfig]]) -> None:
    state, config = learner(3e-3, lambda_ds=0.0, r1_every=4)
    one, other = smooth(1), smooth(2)
    there, back = Batch(one, one, None, (other, other)), Batch(other, other, None, (one, one))
    found = []
    for _ in range(35):
        for task, part in ((Task.INTRA_TO_INTER, there), (Task.INTER_TO_INTRA, back)):
            codes = latent_codes(state, task, part)
            found.append(adaptation_pass(state, task, [(part, codes)], config, "latent", (G, F_CODES, S))["latent_cyc"])
            state.iteration += 1
    assert sum(found[-6:]) < 0.6 * sum(found[:6])


def test_self_consistency_makes_a_self_agree_with_its_teachers(
    learner: Callable[..., tuple[TrainingState, TrainingConfig]],
) -> None:
    state, config = learner(2e-3, lambda_style=0.0)
    intra, inter = smooth(1), smooth(2)
    normal = Batch(intra, intra, intra[:, 0] < 0, (intra, intra))
    sick = Batch(inter, inter, None, (intra, intra))
    tasks = [(Task.INTRA_TO_MASK, normal), (Task.INTER_TO_MASK, sick)]
    before = differences(state, normal, sick)
    for _ in range(80):
        for task, one in tasks:
            train_task(state, task, Stage.DISTILLATION, [one], config)
            state.iteration += 1
    after = differences(state, normal, sick)
    for (difference, _), (remaining, dice) in zip(before, after, strict=True):
        assert remaining < 0.3 * difference
        assert dice > 0.95


@torch.no_grad()
def differences(state: TrainingState, normal: Batch, sick: Batch) -> list[tuple[float, float]]:
    """Mean absolute difference of a_self's logits and its teacher's over their deviation, and the masks' Dice."""
    generator = state.framework.generator
    code = state.framework.style_encoder(sick.references[0], Domain.INTRA)
    adapted = generator(sick.images, a_da(code, Domain.INTRA))
    found = []
    for teacher, one in (
        (generator(normal.images, a_seg()), normal),
        (generator(adapted, a_seg()), sick),
    ):
        student = generator(one.images, self_codes(state, one.images))
        a, b = (logits.argmax(dim=1).bool() for logits in (teacher, student))
        dice = 2 * (a & b).sum() / (a.sum() + b.sum())
        found.append((float((teacher - student).abs().mean() / teacher.std()), float(dice)))
    return found
