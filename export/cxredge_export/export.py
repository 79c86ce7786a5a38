"""``cxredge export``: from a checkpoint to a model file, in the order of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from cxredge.contract import Contract
from cxredge.radiograph import Radiograph
from cxredge_calibration.model_file import add_contract, read_contract, write_model
from cxredge_export.conversion import to_onnx
from cxredge_export.deployed import DeployedNetwork
from cxredge_export.folding import ADAIN, FOLDS, fold, fold_code
from cxredge_export.parity import compare, measure_parity, require_parity
from cxredge_export.reference import as_trained, in_torch, unfolded
from cxredge_train.checkpoint import Trained, load_trained
from cxredge_train.networks import a_seg, a_self

RESEARCH_LICENCE = "Research use only: trained on data sets whose terms forbid commercial use (see MODEL_CARD.md)"
ALL_FOLDS = tuple(FOLDS)


def export_model(checkpoint: Path, path: Path, radiographs: Sequence[Radiograph], **options: Any) -> Contract:
    """Make a model of a checkpoint and write it; ``options`` are those of :func:`make_model`.

    Returns:
        The contract that was written.
    """
    model = make_model(checkpoint, radiographs, **{"name": path.stem, **options})
    write_model(model, path)
    return read_contract(model)


def make_model(
    checkpoint: Path,
    radiographs: Sequence[Radiograph],
    *,
    name: str,
    licence: str = RESEARCH_LICENCE,
    measured: dict[str, Any] | None = None,
    folds: Sequence[str] = ALL_FOLDS,
) -> onnx.ModelProto:
    """Fold, convert and compare.

    The contract's parity is that of the model in ONNX Runtime, with its rounding, against the unfolded
    network in PyTorch, layer by layer; in it, ``folding`` is that of the folded network in PyTorch against
    the generator as it was trained.

    Args:
        checkpoint: folder that ``cxredge train`` wrote.
        radiographs: what the parity check runs on.
        name: of the model.
        licence: terms of the weights.
        measured: figures of ``cxredge evaluate``, to travel in the contract.
        folds: those of :data:`cxredge_export.folding.FOLDS` to apply; ``adain`` always is.

    Returns:
        The FP32 model with its contract.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        ParityError: the converted model gives other masks than the unfolded network.
    """
    trained = load_trained(checkpoint)
    size = trained.config.network.input_size
    network = folded_network(trained, folds)
    model = to_onnx(network, size)
    generator, code = trained.folding_generator, trained.self_code if trained.distilled else None
    parity = measure_parity(model, unfolded(generator, code), radiographs, size)
    codes = a_seg() if code is None else a_self(code[None])
    folding = compare(in_torch(network), as_trained(generator, codes), radiographs, size)
    for measure in (parity, folding):
        require_parity(measure)
    add_contract(
        model,
        replace(
            unmeasured_contract(trained, name, licence, folds),
            parity={**parity.to_dict(), "folding": folding.to_dict()},
            measured=measured or {},
        ),
    )
    return model


def folded_network(trained: Trained, folds: Sequence[str]) -> DeployedNetwork:
    """The direct path of ``trained`` with its code and the named folds applied."""
    code = trained.self_code if trained.distilled else None
    return fold(fold_code(trained.folding_generator, code), folds)


def unfolded_model(checkpoint: Path) -> onnx.ModelProto:
    """The direct path of a checkpoint with the fold ``adain`` only, without a contract, to compare costs with."""
    trained = load_trained(checkpoint)
    return to_onnx(folded_network(trained, ()), trained.config.network.input_size)


def unmeasured_contract(trained: Trained, name: str, licence: str, folds: Sequence[str] = ALL_FOLDS) -> Contract:
    """The contract of a folded FP32 model, without the figures."""
    config, facts = trained.config, trained.facts
    provenance = {
        "config": config.name,
        "config_sha256": config.content_hash(),
        "data_sha256": facts["data_sha256"],
        "data": [*config.data.intra, *config.data.inter],
        "augmentation": config.augmentation.enabled,
        "commit": facts["commit"],
        "iterations": facts["iteration"],
        "started_from": facts.get("init"),
        "training_seconds": round(facts["seconds"]),
        "validation": facts.get("validation"),
    }
    provenance |= {name: facts[name] for name in ("mean_of", "unfolded_from") if name in facts}
    return Contract(
        name=name,
        width=config.network.width,
        input_size=config.network.input_size,
        code="a_self" if trained.distilled else "a_seg",
        folds=(ADAIN, *(one for one in FOLDS if one in folds)),
        licence=licence,
        provenance=provenance,
    )
