"""Networks in PyTorch as functions on arrays: unfolded, which all else is compared with, as trained, and folded."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxredge_export.deployed import DeployedNetwork
from cxredge_export.folding import fold_code
from cxredge_export.parity import Reference
from cxredge_train.networks import Codes, Generator


def unfolded(generator: Generator, encoder_code: Tensor | None) -> Reference:
    """The direct path layer by layer, as the method draws it, as a function from an input to its lung logit.

    Args:
        generator: left as it is.
        encoder_code: a_self's code ``(16,)``, or ``None`` for a_seg.
    """
    return in_torch(fold_code(generator, encoder_code))


def as_trained(generator: Generator, codes: Codes) -> Reference:
    """``G(u, codes)`` as the trainer computes it, as such a function; ``codes`` is a batch of one."""
    return lambda image: lung_logit(generator, codes, image)


def in_torch(network: DeployedNetwork) -> Reference:
    """A deployed network as such a function."""

    @torch.no_grad()
    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(network(torch.from_numpy(image)).numpy(), np.float32)

    return run


@torch.no_grad()
def lung_logit(generator: Generator, codes: Codes, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lung minus background logit ``(1, 1, S, S)`` of the generator for an input of that shape."""
    logits = generator(torch.from_numpy(image), codes)
    return np.asarray((logits[:, 1:] - logits[:, :1]).numpy(), np.float32)
