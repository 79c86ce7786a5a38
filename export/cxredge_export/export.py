"""``cxredge export``: from a checkpoint to a model file, in the order of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cxredge.contract import Contract
from cxredge.radiograph import Radiograph
from cxredge_export.conversion import add_contract, to_onnx, write_model
from cxredge_export.folding import DirectPath, fold_code
from cxredge_export.parity import measure_parity, require_parity
from cxredge_train.checkpoint import load_generator
from cxredge_train.config import TrainingConfig
from cxredge_train.networks import a_seg

RESEARCH_LICENCE = "Research use only: trained on data sets whose terms forbid commercial use (see MODEL_CARD.md)"


def export_model(
    checkpoint: Path,
    path: Path,
    radiographs: Sequence[Radiograph],
    *,
    name: str | None = None,
    licence: str = RESEARCH_LICENCE,
    measured: dict[str, Any] | None = None,
) -> Contract:
    """Fold, convert, compare and write a model.

    Args:
        checkpoint: folder that ``cxredge train`` wrote.
        path: ONNX file to write.
        radiographs: what the parity check runs on.
        name: of the model; ``None`` for the file's stem.
        licence: terms of the weights.
        measured: figures of ``cxredge evaluate``, to travel in the contract.

    Returns:
        The contract that was written.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        ParityError: the converted model gives other masks; nothing is written.
    """
    generator, config, facts = load_generator(checkpoint)
    size = config.network.input_size
    model = to_onnx(DirectPath(fold_code(generator, None)), size)
    parity = measure_parity(model, generator, a_seg(), radiographs, size)
    require_parity(parity)
    contract = replace(
        unmeasured_contract(config, facts, name or path.stem, licence),
        parity=parity.to_dict(),
        measured=measured or {},
    )
    add_contract(model, contract)
    write_model(model, path)
    return contract


def unmeasured_contract(config: TrainingConfig, facts: dict[str, Any], name: str, licence: str) -> Contract:
    """The contract of a folded FP32 model, without the figures."""
    provenance = {
        "config": config.name,
        "config_sha256": config.content_hash(),
        "data_sha256": facts["data_sha256"],
        "data": list(config.data.intra),
        "augmentation": config.augmentation.enabled,
        "commit": facts["commit"],
        "iterations": facts["iteration"],
        "training_seconds": round(facts["seconds"]),
        "validation_dice": facts.get("validation_dice"),
    }
    return Contract(
        name=name,
        width=config.network.width,
        input_size=config.network.input_size,
        code="a_seg",
        folds=("adain",),
        licence=licence,
        provenance=provenance,
    )
