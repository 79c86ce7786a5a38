"""The mean of a network's weights before and after further training, as a checkpoint for inference and ``--init``.

A network that is trained further gains where its new data are and loses a little elsewhere; the mean of both weights
keeps most of either, since one leads to the other through low loss (Wortsman et al., "Robust fine-tuning of zero-shot
models", CVPR 2022).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from cxredge.errors import CheckpointError
from cxredge_train.checkpoint import CONFIG, STATE, WEIGHTS, Trained, load_trained, replace_file
from cxredge_train.networks import Generator, SwitchedNorm

PREFIX = "average.generator."


def average_checkpoints(start: Path, tuned: Path, output: Path, share: float = 0.5) -> None:
    """Write the checkpoint ``(1 - share) · start + share · tuned``.

    Only the averaged generator, which inference uses, is a mean; all else is that of ``tuned``. The mean's γ and β of
    a_self are the means of both; a ``start`` without stage 2 has those of a_seg.

    Args:
        start: checkpoint that the training of ``tuned`` started from.
        tuned: checkpoint with stage 2.
        output: checkpoint folder to write, without training state.
        share: of ``tuned``, within 0 and 1.

    Raises:
        CheckpointError: one is missing, damaged, of another network, or without stage 2, or ``output`` holds a
            checkpoint already.
    """
    first, second = load_trained(start), load_trained(tuned)
    if not second.distilled:
        raise CheckpointError(f"{tuned}: has no a_self, its training has not reached stage 2")
    if first.config.network != second.config.network:
        raise CheckpointError(f"{tuned}: has another network than {start}; only weights of one network have a mean")
    if (output / WEIGHTS).exists() or (output / STATE).exists():
        raise CheckpointError(f"{output}: holds a checkpoint already; choose another folder")
    generator = first.folding_generator
    hold_self(generator, first)
    try:
        with safe_open(tuned / WEIGHTS, framework="pt") as file:
            metadata = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{tuned / WEIGHTS}: cannot be read: {error}") from error
    for name, tensor in generator.state_dict().items():
        tensors[PREFIX + name] = mean(tensor, tensors[PREFIX + name], share)
    of = {"share": share, **{role: sha256(folder / WEIGHTS) for role, folder in (("start", start), ("tuned", tuned))}}
    metadata["facts"] = json.dumps(json.loads(metadata["facts"]) | {"mean_of": of})
    output.mkdir(parents=True, exist_ok=True)
    replace_file(output / CONFIG, lambda path: path.write_text(second.config.to_toml(), encoding="utf-8"))
    replace_file(output / WEIGHTS, lambda path: path.write_bytes(safetensors_bytes(tensors, metadata)))


@torch.no_grad()
def hold_self(generator: Generator, trained: Trained) -> None:
    """Make every encoder AdaIN layer give what a_self gives in it, whatever the code; a_seg's without stage 2."""
    for module in generator.encoder.modules():
        if isinstance(module, SwitchedNorm):
            if not trained.distilled:
                module.start_from_plain()
                continue
            scale, shift = module.adaptive.affine(trained.self_code[None])
            module.adaptive.style.weight.zero_()
            module.adaptive.style.bias.copy_(torch.cat([scale[0] - 1, shift[0]]))


def mean(start: Tensor, tuned: Tensor, share: float) -> Tensor:
    """``(1 - share) · start + share · tuned``, in float64 and back."""
    return torch.lerp(start.double(), tuned.double(), share).to(tuned.dtype)


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
