"""OpenVINO on the CPU (extra ``openvino``): the faster choice on Intel's and other recent x86 consoles.

INT8 models with Q/DQ run in INT8. Everything else is computed in FP32, whatever the CPU could do:
left to itself OpenVINO takes BF16 where there are instructions for it, which moves the logits of the
bundled model by up to 0.15 and flips some 15 mask pixels a radiograph. Convolutions in phases, which suit
ONNX Runtime, become transposed ones here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxredge.backends import check_inputs
from cxredge.backends.lane_pool import LanePool
from cxredge.backends.openvino_phases import merge_phases
from cxredge.contract import CONTRACT_KEY, Contract, parse_contract
from cxredge.errors import BackendError, ModelError
from cxredge.libraries.open_vino import openvino
from cxredge.limits import LARGEST_MODEL, LimitError, require_file_size
from cxredge.pipeline import available_cores

DEVICE = "CPU"
METADATA = ["framework", CONTRACT_KEY]
"""Where OpenVINO keeps the metadata of the ONNX file that a model was read from."""


class OpenVinoBackend:
    """A model compiled by OpenVINO for the CPU.

    Args:
        model: the ONNX file.
        threads: threads of one run; ``None`` for all cores. As many runs as fill the cores go on at once.

    Raises:
        ModelError: the file is damaged, carries no valid contract, or OpenVINO cannot compile it.
    """

    name = "openvino"

    def __init__(self, model: Path, threads: int | None = None) -> None:
        threads = threads or available_cores()
        self.lanes = max(1, available_cores() // threads)
        core = openvino.Core()
        try:
            require_file_size(model, LARGEST_MODEL)
            graph = core.read_model(model)
        except LimitError as error:
            raise ModelError(f"{model}: {error}") from error
        except RuntimeError as error:  # the only type that OpenVINO raises
            raise ModelError(f"{model}: is not an ONNX model that can be loaded: {gist(error)}") from error
        self.contract = read_contract(graph, model)
        require_signature(graph, self.contract.input_size, model)
        merge_phases(graph)
        try:
            compiled = core.compile_model(graph, DEVICE, settings(threads, self.lanes))
        except RuntimeError as error:
            raise ModelError(f"{model}: OpenVINO cannot compile it: {gist(error)}") from error
        self._compiled: openvino.CompiledModel | None = compiled
        self._pool = LanePool([compiled.create_infer_request() for _ in range(self.lanes)])

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Lung logits ``(N, S, S)``; see :class:`cxredge.backends.Backend`."""
        check_inputs(inputs, self.contract)
        with self._pool.lane() as request:
            try:
                logits = request.infer([np.ascontiguousarray(inputs)])[0]
            except RuntimeError as error:
                raise BackendError(f"OpenVINO failed: {gist(error)}") from error
        return np.asarray(logits[:, 0], np.float32)

    def close(self) -> None:
        """Wait for what runs, and free the compiled model."""
        self._pool.close()
        self._compiled = None


def settings(threads: int, lanes: int) -> dict[str, str | int | bool]:
    """OpenVINO's settings: FP32 arithmetic, ``lanes`` runs at once, no thread tied to a core that others need."""
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": lanes,
        "INFERENCE_NUM_THREADS": threads * lanes,
        "ENABLE_CPU_PINNING": False,
    }


def read_contract(graph: openvino.Model, model: Path) -> Contract:
    """The contract that the ONNX file carried.

    Raises:
        ModelError: it carried no valid one.
    """
    text = graph.get_rt_info(METADATA).astype(str) if graph.has_rt_info(METADATA) else None
    try:
        return parse_contract(text)
    except ModelError as error:
        raise ModelError(f"{model}: {error}") from error


def require_signature(graph: openvino.Model, size: int, model: Path) -> None:
    """Raise :class:`ModelError` where the graph is not ``(N, 1, S, S) -> (N, 1, S, S)`` float32 as contracted."""
    for kind, ends in (("input", graph.inputs), ("output", graph.outputs)):
        shapes = [(end.element_type.get_type_name(), str(end.partial_shape).partition(",")[2]) for end in ends]
        if shapes != [("f32", f"1,{size},{size}]")]:
            raise ModelError(f"{model}: its {kind} is {shapes}, its contract says float (N, 1, {size}, {size})")


def gist(error: RuntimeError) -> str:
    """The last line of OpenVINO's message; those before it are places in its sources."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else "no reason given"
