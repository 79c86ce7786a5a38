"""One training step of each task: what is generated, which losses it meets, which networks move."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cxredge.errors import CxredgeError
from cxredge_train import losses
from cxredge_train.config import Stage, TrainingConfig
from cxredge_train.framework import TrainingState, a_self_latent
from cxredge_train.networks import LATENT_SIZE, Codes, Domain, a_da, a_seg, a_self
from cxredge_train.tasks import Task

Terms = dict[str, Tensor]
Codings = tuple[Tensor, Tensor]
GENERATING = ("generator", "code_generators", "style_encoder")


@dataclass(frozen=True)
class Batch:
    """What one iteration needs.

    Attributes:
        images: of the task's source domain, ``(N, 1, H, W)`` in [-1, 1].
        teacher_images: what the teachers of self-consistency see; ``images`` unless those were
            augmented and the teacher is to see them clean.
        masks: lung masks ``(N, H, W)`` bool where the source is INTRA.
        references: two batches of the target domain, or of INTRA where the target is MASK.
    """

    images: Tensor
    teacher_images: Tensor
    masks: Tensor | None
    references: tuple[Tensor, Tensor]


def train_task(
    state: TrainingState, task: Task, stage: Stage, batches: Sequence[Batch], config: TrainingConfig
) -> dict[str, float]:
    """Train one task on accumulated batches; returns the terms of its losses, means over the batches."""
    if task.adapts:
        latent = [(batch, latent_codes(state, task, batch)) for batch in batches]
        found = adaptation_pass(state, task, latent, config, "latent", GENERATING)
        reference = [(batch, reference_codes(state, task, batch, config)) for batch in batches]
        return found | adaptation_pass(state, task, reference, config, "reference", ("generator",))
    if task is Task.INTER_TO_MASK:
        thunks = [partial(distillation_terms, state, batch, config) for batch in batches]
        return step(state, thunks, config, ("generator", "code_generators"))
    thunks = [partial(intra_terms, state, batch, config, stage) for batch in batches]
    return step(state, thunks, config, GENERATING)


def intra_terms(state: TrainingState, batch: Batch, config: TrainingConfig, stage: Stage) -> Terms:
    """The losses of INTRA to MASK: segmentation, and ℓ_intra in stage 2."""
    terms = supervised_terms(state, batch, config)
    if stage is Stage.DISTILLATION and config.losses.lambda_intra > 0:
        terms["intra"] = intra_term(state, batch, config)
    return terms


def autocast(state: TrainingState, config: TrainingConfig) -> torch.autocast:
    """Autocast of the run's precision."""
    return torch.autocast(state.device.type, torch.bfloat16, enabled=config.run.precision == "bf16")


def supervised_terms(state: TrainingState, batch: Batch, config: TrainingConfig) -> Terms:
    """Segmentation with the style loss (eqs. 2-4).

    The dummy code a'_seg comes in turn from ``F_d(z)`` (even iterations) and ``S(mask)`` (odd ones).
    """
    assert batch.masks is not None
    framework = state.framework
    with autocast(state, config):
        logits = framework.generator(batch.images, a_seg())
        terms = {"seg": losses.segmentation(logits, batch.masks, config.losses.class_weights)}
        if config.losses.lambda_style > 0:
            if state.iteration % 2 == 0:
                dummy = framework.code_generators.f_d(draw_latents(batch.images), Domain.MASK)
            else:
                dummy = framework.style_encoder(losses.one_hot(batch.masks), Domain.MASK)
            generated = framework.style_encoder(logits.softmax(dim=1), Domain.MASK)
            terms["style"] = losses.segmentation_style(dummy, generated)
    return terms


def intra_term(state: TrainingState, batch: Batch, config: TrainingConfig) -> Tensor:
    """ℓ_intra (eq. 8) on the INTRA batch."""
    with autocast(state, config):
        with torch.no_grad():
            teacher = state.framework.generator(batch.teacher_images, a_seg())
        student = state.framework.generator(batch.images, self_codes(state, batch.images))
        return losses.intra_consistency(teacher, student)


def distillation_terms(state: TrainingState, batch: Batch, config: TrainingConfig) -> Terms:
    """ℓ_inter (eq. 7): the teacher's mask of an INTER image teaches the direct path."""
    with autocast(state, config):
        teacher = inter_teacher(state, batch, config)
        student = state.framework.generator(batch.images, self_codes(state, batch.images))
        return {"inter": losses.inter_consistency(teacher, student)}


@torch.no_grad()
def inter_teacher(state: TrainingState, batch: Batch, config: TrainingConfig) -> Tensor:
    """Logits ``(N, 2, H, W)`` of ℓ_inter's teacher: the indirect path through a reference's INTRA style (eq. 7).

    Where the configuration says ``average``, of the averaged generator on the a_seg path instead; with ``start``, of
    that as it was when stage 2 began.
    """
    framework, images = state.framework, batch.teacher_images
    if config.losses.inter_teacher == "indirect":
        style = framework.style_encoder(batch.references[0], Domain.INTRA)
        images = framework.generator(images, a_da(style, Domain.INTRA))
        teacher = framework.generator
    else:
        kept = state.kept_teacher if config.losses.inter_teacher == "start" else state.generator_average
        assert kept is not None, "the training loop keeps it when stage 2 begins"
        teacher = kept
    logits: Tensor = teacher(images, a_seg())
    return logits


def self_codes(state: TrainingState, images: Tensor) -> Codes:
    """a_self for a batch: F_e at the one latent that inference uses too."""
    code = state.framework.code_generators.f_e(a_self_latent(images.device))
    return a_self(code.expand(len(images), -1))


def latent_codes(state: TrainingState, task: Task, batch: Batch) -> Codings:
    """Two codes ``F_d(z)`` of the target domain."""
    f_d = state.framework.code_generators.f_d
    return f_d(draw_latents(batch.images), task.target), f_d(draw_latents(batch.images), task.target)


@torch.no_grad()
def reference_codes(state: TrainingState, task: Task, batch: Batch, config: TrainingConfig) -> Codings:
    """Two codes ``S(reference)`` of the target domain; where references guide, S is not trained."""
    with autocast(state, config):
        first, second = (state.framework.style_encoder(reference, task.target) for reference in batch.references)
    return first, second


def adaptation_pass(
    state: TrainingState,
    task: Task,
    parts: Sequence[tuple[Batch, Codings]],
    config: TrainingConfig,
    guide: str,
    networks: Sequence[str],
) -> dict[str, float]:
    """One step of D, then one of ``networks``, on batches and their two codes."""
    discriminated = [
        partial(discriminator_terms, state, task, batch, config, codes[0].detach()) for batch, codes in parts
    ]
    generated = [partial(generator_terms, state, task, batch, config, codes) for batch, codes in parts]
    found = step(state, discriminated, config, ("discriminator",))
    found |= step(state, generated, config, networks)
    return {f"{guide}_{name}": value for name, value in found.items()}


def discriminator_terms(state: TrainingState, task: Task, batch: Batch, config: TrainingConfig, code: Tensor) -> Terms:
    """Adversarial loss of D on a real source image and a generated target image, and R1 (in FP32)."""
    framework, weights = state.framework, config.losses
    with autocast(state, config):
        with torch.no_grad():
            generated = framework.generator(batch.images, a_da(code, task.target))
        fake = losses.adversarial(framework.discriminator(generated, task.target), real=False)
        penalised = weights.lambda_r1 > 0 and state.iteration % weights.r1_every == 0
        if not penalised:
            real = losses.adversarial(framework.discriminator(batch.images, task.source), real=True)
            return {"d_real": real, "d_fake": fake}
    images = batch.images.detach().requires_grad_()
    logits = framework.discriminator(images, task.source)
    penalty = weights.r1_every * losses.r1_penalty(logits, images)
    return {"d_real": losses.adversarial(logits, real=True), "d_fake": fake, "r1": penalty}


def generator_terms(state: TrainingState, task: Task, batch: Batch, config: TrainingConfig, codes: Codings) -> Terms:
    """The generator's losses of adaptation: adversarial, style reconstruction, cycle, diversity."""
    framework, weights, images = state.framework, config.losses, batch.images
    with autocast(state, config):
        generated = framework.generator(images, a_da(codes[0], task.target))
        terms = {"adv": losses.adversarial(framework.discriminator(generated, task.target), real=True)}
        if weights.lambda_sty > 0:
            recovered = framework.style_encoder(generated, task.target)
            terms["sty"] = losses.style_reconstruction(codes[0], recovered)
        if weights.lambda_cyc > 0:
            own_code = framework.style_encoder(images, task.source)
            returned = framework.generator(generated, a_da(own_code, task.source))
            terms["cyc"] = losses.cycle_consistency(images, returned)
        if diversity_weight(state, config) > 0:
            with torch.no_grad():
                other = framework.generator(images, a_da(codes[1], task.target))
            terms["ds"] = losses.diversity(generated, other)
    return terms


def diversity_weight(state: TrainingState, config: TrainingConfig) -> float:
    """Weight of the diversity loss: falls linearly to 0 over its iterations of adaptation."""
    done = max(0, state.iteration - config.schedule.supervised)
    return config.losses.lambda_ds * max(0.0, 1 - done / config.losses.ds_iterations)


def total(state: TrainingState, terms: Terms, config: TrainingConfig) -> Tensor:
    """Weighted sum of ``terms``; diversity is subtracted."""
    weights = config.losses
    factors = {
        "seg": weights.lambda_seg,
        "style": weights.lambda_style,
        "adv": weights.lambda_adv,
        "d_real": weights.lambda_adv,
        "d_fake": weights.lambda_adv,
        "r1": weights.lambda_r1,
        "sty": weights.lambda_sty,
        "cyc": weights.lambda_cyc,
        "ds": -diversity_weight(state, config),
        "inter": weights.lambda_inter,
        "intra": weights.lambda_intra,
    }
    return torch.stack([factors[name] * term for name, term in terms.items()]).sum()


def step(
    state: TrainingState, thunks: Sequence[Callable[[], Terms]], config: TrainingConfig, networks: Sequence[str]
) -> dict[str, float]:
    """Step the optimisers of ``networks``, and of these alone, on the mean gradient of the batches.

    Args:
        state: networks and optimisers.
        thunks: for each accumulated batch, what computes its terms.
        config: weights of the terms.
        networks: which networks move.

    Raises:
        CxredgeError: a loss or a gradient is not a number.
    """
    parameters = [p for name in networks for p in getattr(state.framework, name).parameters()]
    for parameter in parameters:
        parameter.grad = None
    sums: dict[str, float] = {}
    for thunk in thunks:
        terms = thunk()
        loss = total(state, terms, config) / len(thunks)
        require_finite(loss, terms, state)
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
        ):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + float(term.detach()) / len(thunks)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = state.average_over_devices(parameter.grad)
    require_finite_gradients(parameters, state)
    for name in networks:
        state.optimisers[name].step()
    return sums


def require_finite_gradients(parameters: Sequence[Tensor], state: TrainingState) -> None:
    """Raise :class:`CxredgeError` where a gradient is not a number, before any weight takes it."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients and not torch.isfinite(torch.nn.utils.get_total_norm(gradients)):
        raise CxredgeError(
            f"a gradient is not a number at iteration {state.iteration}; try a lower optimiser.learning_rate, "
            'or run.precision = "fp32"; the last save is intact'
        )


def require_finite(loss: Tensor, terms: Terms, state: TrainingState) -> None:
    """Raise :class:`CxredgeError` where the loss is not a number, saying which terms and what to try."""
    if not torch.isfinite(loss):
        values = ", ".join(f"{name} {float(term.detach()):.3g}" for name, term in terms.items())
        raise CxredgeError(
            f"the loss is {loss.item()} at iteration {state.iteration} ({values}); try a lower "
            'optimiser.learning_rate, or run.precision = "fp32"; the last save is intact'
        )


def draw_latents(like: Tensor) -> Tensor:
    """Latents z ``(N, 4)`` from N(0, 1), one for each image of ``like``."""
    return torch.randn(len(like), LATENT_SIZE).to(like.device)
