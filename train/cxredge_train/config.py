"""The training configuration: frozen dataclasses, every field named, typed and checked.

The defaults are those of the method (the paper, and the authors' released settings where it is
silent). A wrong field is reported by its full name.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any, Literal

import tomli_w

from cxredge.errors import ConfigError
from cxredge_train.networks import NetworkConfig


class Stage(Enum):
    """The stages of a run, in order."""

    SUPERVISED = "supervised"
    ADAPTATION = "adaptation"
    DISTILLATION = "distillation"


@dataclass(frozen=True)
class DataConfig:
    """Which data sets are which domain (folder names below the data root).

    Attributes:
        intra: labelled normal radiographs, the domain INTRA.
        inter: unlabelled abnormal radiographs, the domain INTER.
        leave_out: training rows (``DATASET/NAME``) that are not trained on.
    """

    intra: tuple[str, ...] = ("jsrt",)
    inter: tuple[str, ...] = ("cohen", "nih")
    leave_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(len(self.intra) > 0, "data.intra", "must name at least one data set")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses; a term of weight 0 is left out.

    Attributes:
        lambda_seg: segmentation (eq. 2).
        lambda_style: style loss of the dummy code a'_seg (eq. 4); the release leaves it out.
        class_weights: cross-entropy weights of background and lung.
        lambda_adv: adversarial loss.
        lambda_r1: R1 penalty on real images.
        r1_every: discriminator steps between R1 penalties, which then weigh as many times more.
        lambda_sty: style reconstruction.
        lambda_cyc: cycle consistency.
        lambda_ds: diversity-sensitive loss at the start.
        ds_iterations: iterations of stage 1 over which its weight falls linearly to 0.
        lambda_inter: inter-domain self-consistency (eq. 7).
        lambda_intra: intra-domain self-consistency (eq. 8).
        inter_teacher: ``indirect`` is the method's, ``G(G(y, a_da^X), a_seg)``; ``average`` needs no adaptation:
            the averaged generator's ``G(y, a_seg)``, a mean teacher (Tarvainen & Valpola 2017); ``start`` is that as
            it was when stage 2 began, which cannot drift with its pupil.
    """

    lambda_seg: float = 5.0
    lambda_style: float = 1.0
    class_weights: tuple[float, float] = (0.7, 1.0)
    lambda_adv: float = 1.0
    lambda_r1: float = 1.0
    r1_every: int = 1
    lambda_sty: float = 1.0
    lambda_cyc: float = 2.0
    lambda_ds: float = 1.0
    ds_iterations: int = 40_000
    lambda_inter: float = 10.0
    lambda_intra: float = 1.0
    inter_teacher: Literal["indirect", "average", "start"] = "indirect"

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.name.startswith("lambda_")):
            _require(getattr(self, name) >= 0, f"losses.{name}", "must not be negative")
        _require(min(self.class_weights) > 0, "losses.class_weights", "must be positive")
        _require(self.r1_every > 0, "losses.r1_every", "must be positive")
        _require(self.ds_iterations > 0, "losses.ds_iterations", "must be positive")


@dataclass(frozen=True)
class TaskConfig:
    """Relative weights of the tasks when an iteration draws one (source to target domain).

    Only valid pairs exist, so no iteration is lost. ``inter_to_mask`` joins in stage 2.
    """

    inter_to_intra: float = 1.0
    intra_to_inter: float = 1.0
    inter_to_inter: float = 1.0
    intra_to_intra: float = 1.0
    intra_to_mask: float = 1.0
    inter_to_mask: float = 1.0

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self)):
            _require(getattr(self, name) >= 0, f"tasks.{name}", "must not be negative")
        _require(self.intra_to_mask > 0, "tasks.intra_to_mask", "must be positive: segmentation is what is learned")

    @property
    def adapts(self) -> bool:
        """Whether a task of domain adaptation, image to image, is ever drawn."""
        return max(self.inter_to_intra, self.intra_to_inter, self.inter_to_inter, self.intra_to_intra) > 0


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam and the moving average.

    Attributes:
        learning_rate: of G, S and D.
        code_learning_rate: of F_e and F_d.
        betas: Adam's decay rates.
        weight_decay: L2 penalty.
        ema_decay: decay of the moving average of G, F and S.
    """

    learning_rate: float = 1e-4
    code_learning_rate: float = 1e-6
    betas: tuple[float, float] = (0.0, 0.99)
    weight_decay: float = 1e-4
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        _require(self.learning_rate > 0, "optimiser.learning_rate", "must be positive")
        _require(self.code_learning_rate > 0, "optimiser.code_learning_rate", "must be positive")
        _require(all(0 <= beta < 1 for beta in self.betas), "optimiser.betas", "must be in [0, 1)")
        _require(self.weight_decay >= 0, "optimiser.weight_decay", "must not be negative")
        _require(0 <= self.ema_decay < 1, "optimiser.ema_decay", "must be in [0, 1)")


@dataclass(frozen=True)
class ScheduleConfig:
    """Length of the stages and how the learning rate falls within each.

    Attributes:
        supervised: iterations of segmentation alone before stage 1; the method has none.
        adaptation: iterations of stage 1, segmentation and domain adaptation ("Proposed").
        distillation: iterations of stage 2, all losses ("Proposed + ℓ_self").
        batch_size: radiographs of an iteration on one device and in one accumulation step.
        accumulate: gradients of as many batches are added before a step.
        decay: ``steps`` multiplies the rate by ``decay_factor`` at each milestone; ``cosine`` falls to
            ``decay_factor`` times the rate over each stage.
        milestones: shares of a stage at which ``steps`` decays.
        decay_factor: see ``decay``.
        coarse_size: input size of the first part of each stage, or 0 for none.
        coarse_share: share of each stage at ``coarse_size``.
        warm_start_self: whether stage 2 starts from a_self = a_seg, by copying the encoder's learned
            "(0, 1)" affine into its AdaIN layers; the method starts from random layers.
    """

    supervised: int = 0
    adaptation: int = 40_000
    distillation: int = 40_000
    batch_size: int = 1
    accumulate: int = 1
    decay: Literal["steps", "cosine"] = "steps"
    milestones: tuple[float, ...] = (0.55, 0.70)
    decay_factor: float = 0.1
    coarse_size: int = 0
    coarse_share: float = 0.0
    warm_start_self: bool = False

    def __post_init__(self) -> None:
        for name in ("supervised", "adaptation", "distillation"):
            _require(getattr(self, name) >= 0, f"schedule.{name}", "must not be negative")
        _require(self.iterations > 0, "schedule", "must have at least one iteration in its stages")
        _require(self.batch_size > 0, "schedule.batch_size", "must be positive")
        _require(self.accumulate > 0, "schedule.accumulate", "must be positive")
        _require(all(0 < share < 1 for share in self.milestones), "schedule.milestones", "must be in (0, 1)")
        _require(0 < self.decay_factor <= 1, "schedule.decay_factor", "must be in (0, 1]")
        _require(
            self.coarse_size == 0 or (self.coarse_size >= 32 and self.coarse_size % 16 == 0),
            "schedule.coarse_size",
            "must be 0 or a multiple of 16, at least 32",
        )
        _require(0 <= self.coarse_share <= 1, "schedule.coarse_share", "must be in [0, 1]")

    @property
    def iterations(self) -> int:
        """Iterations of the whole run."""
        return self.supervised + self.adaptation + self.distillation

    def stage(self, iteration: int) -> tuple[Stage, float]:
        """The stage of ``iteration`` and the share of it that is done, in [0, 1]."""
        start = 0
        for stage, length in zip(Stage, (self.supervised, self.adaptation, self.distillation), strict=True):
            if iteration < start + length:
                return stage, (iteration - start) / length
            start += length
        return Stage.DISTILLATION, 1.0


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of training radiographs; off by default, as in the paper.

    Geometry moves image and mask together. Photometry stands for other machines and sick lungs. None
    of it is the definition of the evaluation's distribution shift.

    Attributes:
        enabled: whether to augment at all.
        rotation: largest rotation in degrees.
        translation: largest shift, as a share of the side.
        scale: smallest and largest scale, drawn for each axis by itself.
        shear: largest shear in degrees.
        flip: probability of a left-right flip.
        gamma: smallest and largest exponent.
        opacity: probability of a cloud-like change of contrast, and of one of brightness.
        illumination: probability of a brightness gradient.
        equalisation: probability of local histogram equalisation.
        blur: probability of a Gaussian blur.
        noise: largest standard deviation of added noise, on the [0, 1] scale.
        occlusion: probability of a rectangle of one grey value, and of a collimation border.
        clean_teacher: whether the teachers of self-consistency see the image before photometry.
    """

    enabled: bool = False
    rotation: float = 20.0
    translation: float = 0.12
    scale: tuple[float, float] = (0.7, 1.3)
    shear: float = 8.0
    flip: float = 0.2
    gamma: tuple[float, float] = (0.5, 2.0)
    opacity: float = 0.4
    illumination: float = 0.3
    equalisation: float = 0.2
    blur: float = 0.3
    noise: float = 0.2
    occlusion: float = 0.3
    clean_teacher: bool = False

    def __post_init__(self) -> None:
        for name in ("flip", "opacity", "illumination", "equalisation", "blur", "occlusion", "translation"):
            _require(0 <= getattr(self, name) <= 1, f"augmentation.{name}", "must be in [0, 1]")
        for name in ("rotation", "shear", "noise"):
            _require(getattr(self, name) >= 0, f"augmentation.{name}", "must not be negative")
        for name in ("scale", "gamma"):
            low, high = getattr(self, name)
            _require(0 < low <= high, f"augmentation.{name}", "must be two positive values, the smaller first")


@dataclass(frozen=True)
class RunConfig:
    """How a run is carried out.

    Attributes:
        seed: of weights, data order, latents and augmentation.
        precision: ``fp32``, or ``bf16`` for autocast of convolutions and linear layers.
        channels_last: memory format of the networks; often faster on GPUs.
        validate_every: iterations between validations.
        save_every: iterations between checkpoints.
        collapse_below: mean discriminator loss (real plus generated) under which adaptation counts as collapsed.
    """

    seed: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = False
    validate_every: int = 1000
    save_every: int = 500
    collapse_below: float = 0.01

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**32, "run.seed", "must be in [0, 2**32)")
        _require(self.validate_every > 0, "run.validate_every", "must be positive")
        _require(self.save_every > 0, "run.save_every", "must be positive")
        _require(self.collapse_below >= 0, "run.collapse_below", "must not be negative")


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a training run."""

    name: str = "paper"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    tasks: TaskConfig = field(default_factory=TaskConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        stages = self.schedule.adaptation + self.schedule.distillation
        if self.network.architecture == "unet":
            _require(stages == 0, "schedule", "must be supervised only where network.architecture is unet")
            _require(self.losses.lambda_style == 0, "losses.lambda_style", "must be 0 where the network is a U-Net")

    def to_dict(self) -> dict[str, Any]:
        """The whole configuration as tables, defaults included."""
        return asdict(self)

    def to_toml(self) -> str:
        """:meth:`to_dict` as TOML."""
        return tomli_w.dumps(self.to_dict())

    def content_hash(self) -> str:
        """SHA-256 of :meth:`to_toml`."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()


def _require(condition: bool, name: str, rule: str) -> None:
    if not condition:
        raise ConfigError(f"{name} {rule}")
