"""A checkpoint as a backend of the runtime, so that it is evaluated like any other model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cxredge.backends import InferencePath, check_inputs
from cxredge.backends.lane_pool import LanePool
from cxredge.contract import Contract
from cxredge.errors import BackendError
from cxredge_train.checkpoint import Trained, load_trained
from cxredge_train.networks import Codes, Domain, a_da, a_seg, a_self


class CheckpointBackend:
    """The averaged generator of a checkpoint in PyTorch.

    Args:
        folder: the checkpoint.
        path: ``direct`` is ``G(u, a_self)``, or ``G(u, a_seg)`` of a checkpoint without stage 2;
            ``indirect`` is ``G(G(u, a_da^X), a_seg)`` (method, section 5); ``supervised`` is ``G(u, a_seg)``.
        threads: CPU threads of torch, for the whole process; ``None`` leaves them.

    Raises:
        CheckpointError: missing or damaged.
        BackendError: the indirect path of a checkpoint that has not adapted.
    """

    name = "torch"
    lanes = 1

    def __init__(self, folder: Path, path: InferencePath = "direct", threads: int | None = None) -> None:
        trained = load_trained(folder)
        if path == "indirect" and not trained.adapted:
            raise BackendError(f"{folder}: has no indirect path, its training has not reached domain adaptation")
        if threads is not None:
            torch.set_num_threads(threads)
        self.path = path
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.trained = trained
        self.generator = trained.generator.to(self.device)
        self.contract = checkpoint_contract(trained)
        self._pool = LanePool([self.generator])

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Lung logits ``(N, S, S)``; see :class:`cxredge.backends.Backend`."""
        check_inputs(inputs, self.contract)
        with self._pool.lane():
            return self._logits(inputs)

    @torch.inference_mode()
    def _logits(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        images = torch.from_numpy(inputs).to(self.device)
        if self.path == "indirect":
            code = self.trained.adaptation_code.to(self.device).expand(len(images), -1)
            images = self.generator(images, a_da(code, Domain.INTRA))
        logits = self.generator(images, self.codes(len(images)))
        return np.asarray((logits[:, 1] - logits[:, 0]).float().cpu().numpy())

    def codes(self, count: int) -> Codes:
        """Code of the last step to the mask, for a batch of ``count``."""
        if self.path != "direct" or not self.trained.distilled:
            return a_seg()
        return a_self(self.trained.self_code.to(self.device).expand(count, -1))

    def close(self) -> None:
        """Wait for what runs; the network goes with the backend."""
        self._pool.close()


def checkpoint_contract(trained: Trained) -> Contract:
    """The contract that an export of the checkpoint would carry, as far as inference needs it."""
    config = trained.config
    return Contract(
        name=config.name,
        width=config.network.width,
        input_size=config.network.input_size,
        code="a_self" if trained.distilled else "a_seg",
        licence="not exported",
        provenance={"config_sha256": config.content_hash(), **trained.facts},
    )
