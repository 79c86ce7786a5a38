"""The mean of a network's weights before and after further training, as a checkpoint for inference and ``--init``.

A network that is trained further gains where its new data are and loses a little elsewhere; the mean of both weights
keeps most of either, since one leads to the other through low loss (Wortsman et al., "Robust fine-tuning of zero-shot
models", CVPR 2022).
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from cxredge.engine.record import file_sha256
from cxredge.errors import CheckpointError
from cxredge_train.checkpoint import (
    AVERAGED_GENERATOR,
    CONFIG,
    STATE,
    WEIGHTS,
    Trained,
    load_trained,
    read_weights,
    write_weights,
)
from cxredge_train.networks import Generator, SwitchedNorm


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
        CheckpointError: one is missing, damaged, of another network, or without stage 2, both are the same, ``output``
            holds a checkpoint already, or ``share`` is beyond its limits.
        OutputError: ``output`` cannot be written.
    """
    if not 0 <= share <= 1:
        raise CheckpointError(f"the share must be within 0 and 1, not {share}")
    if any(os.path.lexists(output / name) for name in (CONFIG, WEIGHTS, STATE)):
        raise CheckpointError(f"{output}: holds a checkpoint already; choose another folder")
    first, second = load_trained(start), load_trained(tuned)
    parents = {"start": file_sha256(start / WEIGHTS), "tuned": file_sha256(tuned / WEIGHTS)}
    if parents["start"] == parents["tuned"]:
        raise CheckpointError(f"{tuned}: has the same weights as {start}; the mean would be no other")
    first_generator, second_generator = coded_generator(start, first), coded_generator(tuned, second)
    if first.config.network != second.config.network:
        raise CheckpointError(f"{tuned}: has another network than {start}; only weights of one network have a mean")
    if not second.distilled:
        raise CheckpointError(f"{tuned}: has no a_self, its training has not reached stage 2")
    fix_self(first_generator, first)
    tuned_weights = second_generator.state_dict()
    tensors = read_weights(tuned)
    for name, tensor in first_generator.state_dict().items():
        tensors[AVERAGED_GENERATOR + name] = mean(tensor, tuned_weights[name], share)
    facts = {name: value for name, value in second.facts.items() if name != "validation"}  # that was TUNED's own
    write_weights(output, second.config, tensors, {**facts, "mean_of": {"share": share, **parents}})


def coded_generator(folder: Path, trained: Trained) -> Generator:
    """The averaged generator of a checkpoint.

    Raises:
        CheckpointError: it is the comparison's U-Net.
    """
    if not isinstance(trained.generator, Generator):
        raise CheckpointError(f"{folder}: is a U-Net, which has no codes; only checkpoints of G have a mean here")
    return trained.generator


@torch.no_grad()
def fix_self(generator: Generator, trained: Trained) -> None:
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
    """``(1 - share) · start + share · tuned``, rounded once."""
    return torch.lerp(start.double(), tuned.double(), share).to(tuned.dtype)
