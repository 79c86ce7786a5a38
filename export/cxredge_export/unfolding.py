"""Unfolding: a model file becomes a checkpoint again, from which training can go on.

Folds lose nothing but rounding, so what they multiplied out is solved for. What a model file does not hold is drawn
anew: code generators, style encoder, discriminator, and the generator's image head, mask stem and AdaIN layers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from onnx import numpy_helper
from torch import Tensor

from cxredge.contract import Contract
from cxredge.engine.record import file_sha256
from cxredge.errors import CheckpointError, ModelError, ParityError
from cxredge.radiograph import Radiograph
from cxredge_calibration.model_file import read_model
from cxredge_calibration.phases import merge_phases
from cxredge_export.deployed import deploy
from cxredge_export.parity import Parity, measure_parity, require_parity
from cxredge_export.reference import unfolded
from cxredge_train.checkpoint import CONFIG, STATE, WEIGHTS, save_weights
from cxredge_train.config import AugmentationConfig, DataConfig, ScheduleConfig, TrainingConfig
from cxredge_train.framework import TrainingState
from cxredge_train.networks import Generator, NetworkConfig, a_seg
from cxredge_train.resampled_conv import ENLARGED_TAPS, POOLED_TAPS, gathered

ENCODER_SCALE = "encoder.0.residual.norm1.weight"
"""A tensor that a file has unless its encoder's norms have no affine."""


def unfold_model(path: Path, output: Path, radiographs: Sequence[Radiograph]) -> Parity:
    """Write a checkpoint for ``--init``, inference and export whose a_seg path is the model in ``path``.

    Args:
        path: FP32 model that ``cxredge export`` wrote, with any folds. A code that is folded in becomes a_seg.
        output: checkpoint folder to write, without training state.
        radiographs: what the model and the checkpoint are compared on.

    Returns:
        How far the model is from the checkpoint, in ONNX Runtime and PyTorch.

    Raises:
        CheckpointError: ``output`` holds a checkpoint already.
        ModelError: the model cannot be read, is quantised or in FP16, or is not a generator of cxredge.
        OutputError: ``output`` cannot be written.
    """
    if any(os.path.lexists(output / name) for name in (CONFIG, WEIGHTS, STATE)):
        raise CheckpointError(f"{output}: holds a checkpoint already; choose another folder")
    model, contract = read_model(path)
    if contract.precision != "fp32":
        raise ModelError(f"{path}: is in {contract.precision}; only the FP32 model has the weights that were trained")
    graph = merge_phases(model).graph
    tensors = {entry.name: torch.from_numpy(numpy_helper.to_array(entry).copy()) for entry in graph.initializer}
    config = unfolded_config(contract, encoder_affine=ENCODER_SCALE in tensors)
    state = TrainingState(config, torch.device("cpu"))
    state.iteration = config.schedule.iterations
    generator = state.generator_average
    assert isinstance(generator, Generator)
    try:
        give_weights(generator, tensors)
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"{path}: is not a generator as 'cxredge export' writes it: {error}") from error
    state.framework.generator.load_state_dict(generator.state_dict())
    parity = measure_parity(model, unfolded(generator, a_seg()), radiographs, contract.input_size)
    try:
        require_parity(parity, finding="the model does not compute what its weights say")
    except ParityError as error:
        raise ModelError(f"{path}: {error}") from error
    save_weights(output, config, state, unfolded_facts(contract, path))
    return parity


def unfolded_config(contract: Contract, *, encoder_affine: bool) -> TrainingConfig:
    """What a contract tells of the run that its model came from; the rest are defaults."""
    provenance = contract.provenance
    return TrainingConfig(
        name=contract.name,
        network=NetworkConfig(contract.width, contract.input_size, encoder_affine),
        data=DataConfig(intra=tuple(provenance.get("data") or ("unknown",)), inter=()),
        schedule=ScheduleConfig(supervised=int(provenance.get("iterations") or 1), adaptation=0, distillation=0),
        augmentation=AugmentationConfig(enabled=bool(provenance.get("augmentation"))),
    )


def unfolded_facts(contract: Contract, path: Path) -> dict[str, object]:
    """Facts of the checkpoint: those of the run, and the model that it was unfolded from."""
    provenance = contract.provenance
    return {
        "init": file_sha256(path),
        "data_sha256": provenance.get("data_sha256"),
        "commit": provenance.get("commit"),
        "seconds": float(provenance.get("training_seconds") or 0),
    }


@torch.no_grad()
def give_weights(generator: Generator, tensors: Mapping[str, Tensor]) -> None:
    """Give a generator's a_seg path the weights of a model file.

    Raises:
        KeyError: one is not there.
        RuntimeError: one has another shape than any fold gives it.
    """
    for name, parameter in deploy(generator, lambda norm: norm.plain).named_parameters():
        dropped = name.endswith("bias") and "norm" not in name and name not in tensors  # by the fold norm-bias
        parameter.copy_(torch.zeros_like(parameter) if dropped else unfolded_weight(name, tensors[name], parameter))


def unfolded_weight(name: str, folded: Tensor, like: Tensor) -> Tensor:
    """The weight of the shape of ``like`` that a fold, if any, made ``folded`` of."""
    if like.dim() == 4 and folded.shape[2:] == (4, 4):
        if name.startswith("encoder"):
            return gathered(folded, POOLED_TAPS)
        return gathered(folded.transpose(0, 1), ENLARGED_TAPS)
    if name.startswith("head.conv") and len(folded) == 1:
        return torch.cat([-folded, folded]) / 2
    if folded.shape != like.shape:
        raise RuntimeError(f"{name} has the shape {tuple(folded.shape)}, not {tuple(like.shape)}")
    return folded
