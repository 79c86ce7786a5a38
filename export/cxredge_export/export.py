"""``cxredge export``: from a checkpoint to a model file, in the order of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cxredge.contract import Contract
from cxredge.radiograph import Radiograph
from cxredge_calibration.model_file import add_contract, write_model
from cxredge_export.conversion import to_onnx
from cxredge_export.folding import DirectPath, fold_code
from cxredge_export.parity import measure_parity, require_parity
from cxredge_train.checkpoint import Trained, load_trained
from cxredge_train.networks import a_seg, a_self

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
    trained = load_trained(checkpoint)
    generator, size = trained.folding_generator, trained.config.network.input_size
    code = trained.self_code if trained.distilled else None
    model = to_onnx(DirectPath(fold_code(generator, code)), size)
    codes = a_seg() if code is None else a_self(code[None])
    parity = measure_parity(model, generator, codes, radiographs, size)
    require_parity(parity)
    contract = replace(
        unmeasured_contract(trained, name or path.stem, licence),
        parity=parity.to_dict(),
        measured=measured or {},
    )
    add_contract(model, contract)
    write_model(model, path)
    return contract


def unmeasured_contract(trained: Trained, name: str, licence: str) -> Contract:
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
    return Contract(
        name=name,
        width=config.network.width,
        input_size=config.network.input_size,
        code="a_self" if trained.distilled else "a_seg",
        folds=("adain",),
        licence=licence,
        provenance=provenance,
    )
