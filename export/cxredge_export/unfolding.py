"""Unfolding: a model file becomes a checkpoint again, from which training can go on.

Folds lose nothing but rounding, so what they multiplied out is solved for. What a model file does not hold is drawn
anew: code generators, style encoder, discriminator, and the generator's image head and mask stem.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from cxredge.backends.onnxruntime import OnnxRuntimeBackend
from cxredge.contract import Contract
from cxredge.engine.record import file_sha256
from cxredge.errors import CheckpointError, CxredgeError, ModelError
from cxredge.radiograph import Radiograph
from cxredge_calibration.model_file import read_model
from cxredge_calibration.phases import merge_phases
from cxredge_export.deployed import DeployedNetwork, deploy
from cxredge_export.parity import Parity, compare, require_parity
from cxredge_export.reference import unfolded
from cxredge_train.checkpoint import CONFIG, STATE, WEIGHTS, save_weights
from cxredge_train.config import AugmentationConfig, DataConfig, ScheduleConfig, TrainingConfig
from cxredge_train.framework import TrainingState
from cxredge_train.networks import Generator, NetworkConfig

ENCODER_SCALE = "encoder.0.residual.norm1.weight"
"""A tensor that a file has unless its encoder's norms have no affine."""
POOLED_TAPS = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], dtype=torch.float64) / 2
"""Along one axis, how the fold ``pool-conv`` makes 4 taps of 3."""
ENLARGED_TAPS = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.float64)
"""Along one axis, how the fold ``up-conv`` makes 4 taps of 3."""


def checkpoint_from_model(path: Path, output: Path, radiographs: Sequence[Radiograph]) -> Parity:
    """Write a checkpoint for ``--init``, inference and export whose a_seg path is the model in ``path``.

    Args:
        path: FP32 model that ``cxredge export`` wrote, with any folds. A code that is folded in becomes a_seg;
            a_self starts equal to it.
        output: checkpoint folder to write, without training state.
        radiographs: what the model and the checkpoint are compared on.

    Returns:
        How far the model in ONNX Runtime is from the checkpoint in PyTorch.

    Raises:
        CheckpointError: ``output`` holds a checkpoint already.
        ModelError: the model cannot be read, is quantised or in FP16, or is not a generator of cxredge.
        OutputError: ``output`` cannot be written.
        ParityError: the model computes something else than its weights say, or there is no radiograph.
    """
    if any(os.path.lexists(output / name) for name in (CONFIG, WEIGHTS, STATE)):
        raise CheckpointError(f"{output}: holds a checkpoint already; choose another folder")
    model, contract = read_model(path)
    if contract.precision != "fp32":
        raise ModelError(f"{path}: is in {contract.precision}; only the FP32 model has the weights that were trained")
    with closing(OnnxRuntimeBackend(path)) as backend:
        try:
            tensors = {entry.name: entry for entry in merge_phases(model).graph.initializer}
            config = recovered_config(contract, encoder_affine=ENCODER_SCALE in tensors)
            weights = recovered_weights(config.network, tensors)
        except (
            ValueError,  # and ConfigError
            TypeError,
            CxredgeError,
            onnx.checker.ValidationError,
            onnx.shape_inference.InferenceError,
        ) as error:
            raise ModelError(f"{path}: is not a generator as 'cxredge export' writes it: {error}") from error
        state = TrainingState(config, torch.device("cpu"))
        generator = state.generator_average
        assert isinstance(generator, Generator)
        direct_path(generator).load_state_dict(weights)
        state.framework.generator.load_state_dict(generator.state_dict())
        state.start_self_from_seg()
        state.iteration = config.schedule.iterations
        parity = compare(
            lambda image: np.asarray(backend.run(image)[:, None]),
            unfolded(generator, None),
            radiographs,
            contract.input_size,
        )
    require_parity(parity, finding=f"{path}: computes something else than its weights say")
    save_weights(output, config, state, recovered_facts(contract, path))
    return parity


def recovered_config(contract: Contract, *, encoder_affine: bool) -> TrainingConfig:
    """What a contract tells of the run that its model came from; the rest are defaults.

    A contract tells neither which of the data were labelled, so that the first counts as such, nor how many
    iterations each stage had, so that all count as supervised, which is what the a_seg path of the result is.

    Raises:
        ConfigError: a value is out of range.
        TypeError: a value is of another type.
        ValueError: it has sizes that no generator has.
    """
    run: dict[str, Any] = {"config": contract.name, "data": ["unknown"], "iterations": 1, "augmentation": False}
    run |= contract.provenance
    for name, kind in (("config", str), ("data", list), ("iterations", int), ("augmentation", bool)):
        if type(run[name]) is not kind:
            raise TypeError(f"provenance.{name} is {run[name]!r}")
    intra, *inter = run["data"] or ["unknown"]
    return TrainingConfig(
        name=run["config"],
        network=NetworkConfig(contract.width, contract.input_size, encoder_affine),
        data=DataConfig(intra=(str(intra),), inter=tuple(map(str, inter))),
        schedule=ScheduleConfig(supervised=max(1, run["iterations"]), adaptation=0, distillation=0),
        augmentation=AugmentationConfig(enabled=run["augmentation"]),
    )


def recovered_facts(contract: Contract, path: Path) -> dict[str, Any]:
    """Facts of the checkpoint: those of the run that its model came from, and which model that is."""
    run = contract.provenance
    seconds = run.get("training_seconds")
    return {
        "init": run.get("started_from"),
        "data_sha256": run.get("data_sha256"),
        "commit": run.get("commit"),
        "seconds": float(seconds) if isinstance(seconds, int) else 0.0,
        "unfolded_from": {
            "sha256": file_sha256(path),
            "name": contract.name,
            "code": contract.code,
            "licence": contract.licence,
            **({"mean_of": run["mean_of"]} if "mean_of" in run else {}),
        },
    }


def direct_path(generator: Generator) -> DeployedNetwork:
    """The a_seg path of a generator, under the names of a model file; it shares the generator's weights."""
    return deploy(generator, lambda norm: norm.plain)


def recovered_weights(config: NetworkConfig, tensors: Mapping[str, onnx.TensorProto]) -> dict[str, Tensor]:
    """The weights of the direct path, unfolded, by name; memory is taken only for what is in the file.

    Raises:
        ValueError: one is missing, not in FP32, or of a shape that no fold gives it.
    """
    with torch.device("meta"):
        expected = direct_path(Generator(config)).named_parameters()
    return {name: recovered_weight(name, tensors.get(name), parameter.shape) for name, parameter in expected}


def recovered_weight(name: str, folded: onnx.TensorProto | None, shape: torch.Size) -> Tensor:
    """The weight of this ``shape`` that a fold, if any, made ``folded`` of; 0 for a bias that one dropped.

    Raises:
        ValueError: as :func:`recovered_weights`.
    """
    if folded is None and name.endswith("bias") and "norm" not in name:  # by norm-bias
        return torch.zeros(shape)
    if folded is None or folded.data_type != onnx.TensorProto.FLOAT:
        raise ValueError(f"it has no {name} in FP32")
    weight = torch.from_numpy(numpy_helper.to_array(folded).copy())
    if len(shape) == 4 and weight.shape[2:] == (4, 4):
        weight = (
            solved(weight, POOLED_TAPS) if name.startswith("encoder") else solved(weight.transpose(0, 1), ENLARGED_TAPS)
        )
    elif name.startswith("head.conv") and len(weight) == 1:
        weight = torch.cat([-weight, weight]) / 2
    if weight.shape != shape:
        raise ValueError(f"its {name} has the shape {tuple(folded.dims)}")
    return weight


def solved(kernel: Tensor, taps: Tensor) -> Tensor:
    """The kernel ``(O, I, 3, 3)`` that ``taps`` ``(4, 3)`` along both axes make ``kernel`` ``(O, I, 4, 4)`` of."""
    inverse = torch.linalg.pinv(taps)
    return torch.einsum("ay,bx,oiyx->oiab", inverse, inverse, kernel.double()).to(kernel.dtype)
