"""ONNX Runtime on the CPU: the embedded default, which runs everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxredge.backends import check_inputs
from cxredge.backends.lane_pool import LanePool
from cxredge.contract import CONTRACT_KEY, Contract, parse_contract
from cxredge.errors import BackendError, ModelError
from cxredge.libraries.onnx_runtime import onnxruntime
from cxredge.limits import LARGEST_MODEL, LimitError, read_bytes
from cxredge.pipeline import available_cores

ERRORS_ONLY = 3


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Session settings: no spinning, so that other stages get the cores, and exact INT8.

    Every quantisation of an INT8 model is carried out by itself, as the gate and the GPU do. Fused integer
    kernels saturate on CPUs without VNNI, and there is nothing to fuse where outputs are not quantised, as in
    models of ``cxredge calibrate``: those run 0.78 to 0.85 times as long this way.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


class OnnxRuntimeBackend:
    """A model in an ONNX Runtime session on the CPU.

    Args:
        model: the ONNX file.
        threads: threads of one run; ``None`` for all cores, which is fastest for one radiograph; 1 is
            fastest for many, when as many runs as there are cores go on at once.

    Raises:
        ModelError: the file is damaged, too large, or carries no valid contract.
    """

    name = "onnxruntime"

    def __init__(self, model: Path, threads: int | None = None) -> None:
        threads = threads or available_cores()
        self.lanes = max(1, available_cores() // threads)
        session = open_session(model, threads)
        self.contract = session_contract(session, model)
        require_signature(session, self.contract.input_size, model)
        self._pool = LanePool([session] * self.lanes)
        self._input = session.get_inputs()[0].name

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Lung logits ``(N, S, S)``; see :class:`cxredge.backends.Backend`."""
        check_inputs(inputs, self.contract)
        with self._pool.lane() as session:
            try:
                (logits,) = session.run(None, {self._input: inputs})
            except Exception as error:  # as in open_session
                raise BackendError(f"ONNX Runtime failed: {error}") from error
        return np.asarray(logits[:, 0], np.float32)

    def close(self) -> None:
        """Wait for what runs, and free the session with its threads."""
        self._pool.close()


def open_session(model: Path, threads: int) -> onnxruntime.InferenceSession:
    """Load a model file.

    Raises:
        ModelError: it is damaged or too large.
    """
    content = read_model_file(model)
    try:
        return onnxruntime.InferenceSession(content, session_options(threads), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has its own exception types, without a public base
        raise ModelError(f"{model}: is not an ONNX model that can be loaded: {error}") from error


def session_contract(session: onnxruntime.InferenceSession, model: Path, *, with_processing: bool = False) -> Contract:
    """The contract of a loaded ``model``; see :func:`cxredge.contract.parse_contract`."""
    text = session.get_modelmeta().custom_metadata_map.get(CONTRACT_KEY)
    try:
        return parse_contract(text, with_processing=with_processing)
    except ModelError as error:
        raise ModelError(f"{model}: {error}") from error


def read_model_file(model: Path) -> bytes:
    """Content of a model file. A session made from it, not from the path, opens no other file that it may name.

    Raises:
        ModelError: it is too large or cannot be read.
    """
    try:
        return read_bytes(model, LARGEST_MODEL)
    except OSError as error:
        raise ModelError(f"{model}: cannot be read: {error.strerror or error}") from error
    except LimitError as error:
        raise ModelError(f"{model}: {error}") from error


def require_signature(session: onnxruntime.InferenceSession, size: int, model: Path) -> None:
    """Raise :class:`ModelError` where the graph is not ``(N, 1, S, S) -> (N, 1, S, S)`` float32 as contracted."""
    for kind, ends in (("input", session.get_inputs()), ("output", session.get_outputs())):
        shapes = [(end.type, list(end.shape[1:])) for end in ends]
        if shapes != [("tensor(float)", [1, size, size])]:
            raise ModelError(f"{model}: its {kind} is {shapes}, its contract says float (N, 1, {size}, {size})")
