"""Backends of the runtime run side by side by Polygraphy's Comparator.

To be imported within :func:`cxredge.engine.builder.polygraphy_messages` only, since Polygraphy decides for a flavour of
TensorRT when it is imported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata
from polygraphy.comparator import Comparator

from cxredge.backends import Backend

INPUT, OUTPUT = "radiograph", "lung_logit"
"""Names under which Polygraphy passes the arrays on."""

Logits: TypeAlias = NDArray[np.float32]


class BackendRunner(BaseRunner):  # type: ignore[misc]  # Polygraphy is not typed
    """A backend, as Polygraphy runs one; it is neither opened nor closed here.

    Args:
        backend: what runs.
        name: for Polygraphy.
        singly: run the images of a batch one by one, so that none can depend on another.
    """

    def __init__(self, backend: Backend, name: str, *, singly: bool = False) -> None:
        super().__init__(name)
        self.backend, self.singly = backend, singly

    def get_input_metadata_impl(self) -> TensorMetadata:
        """The one input, with any batch."""
        size = self.backend.contract.input_size
        return TensorMetadata().add(INPUT, np.float32, (None, 1, size, size))

    def infer_impl(self, feed_dict: Mapping[str, Logits]) -> dict[str, Logits]:
        """Lung logits ``(N, S, S)``."""
        started = time.perf_counter()
        images = feed_dict[INPUT]
        parts = np.split(images, len(images)) if self.singly else [images]
        logits = [self.backend.run(part) for part in parts]
        self.inference_time = time.perf_counter() - started
        return {OUTPUT: np.concatenate(logits) if self.singly else logits[0]}


def compare_runs(
    reference: Backend, engine: Backend, batches: Iterable[Logits], compare: Callable[[Logits, Logits], bool]
) -> None:
    """Run both on each batch of network inputs ``(N, 1, S, S)``, and compare what they give.

    Args:
        reference: what is right; it sees one image at a time.
        engine: what is to be proved.
        batches: network inputs.
        compare: given the logits ``(N, S, S)`` of both for one batch, says whether they agree.

    Raises:
        BackendError: one of the two failed.
        PolygraphyException: an output is no array.
    """
    runners = [BackendRunner(reference, "reference", singly=True), BackendRunner(engine, "engine")]
    for batch in batches:  # one at a time, or Polygraphy would hold the outputs of all
        results = Comparator.run(runners, data_loader=[{INPUT: batch}])
        Comparator.compare_accuracy(
            results, compare_func=lambda wanted, found: {OUTPUT: compare(wanted[OUTPUT], found[OUTPUT])}
        )
