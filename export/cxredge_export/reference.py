"""The unfolded network in PyTorch, which exported models are compared with."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cxredge_export.parity import Reference
from cxredge_train.networks import Codes, Generator


def unfolded(generator: Generator, codes: Codes) -> Reference:
    """``G(u, codes)`` as a function from an input to its lung logit; ``codes`` is a batch of one."""
    return lambda image: lung_logit(generator, codes, image)


@torch.no_grad()
def lung_logit(generator: Generator, codes: Codes, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lung minus background logit ``(1, 1, S, S)`` of the unfolded generator for an input of that shape."""
    logits = generator(torch.from_numpy(image), codes)
    return np.asarray((logits[:, 1:] - logits[:, :1]).numpy(), np.float32)
