"""Inference backends behind one small protocol; each is imported only when it is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from cxredge.contract import Contract
from cxredge.errors import BackendError, MissingExtraError, ModelError

BackendName: TypeAlias = Literal["auto", "onnxruntime", "openvino", "tensorrt", "torch"]
BACKENDS: tuple[BackendName, ...] = ("auto", "onnxruntime", "openvino", "tensorrt", "torch")
PLAN_SUFFIXES = (".plan", ".engine")
InferencePath: TypeAlias = Literal["direct", "indirect", "supervised"]
PATHS: tuple[InferencePath, ...] = ("direct", "indirect", "supervised")


class Backend(Protocol):
    """A loaded model that is ready to run; safe to call from several threads."""

    name: str
    contract: Contract
    lanes: int
    """Batches that it runs at once to best effect."""

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Lung logits ``(N, S, S)`` for network inputs ``(N, 1, S, S)`` in [-1, 1].

        Raises:
            BackendError: the inputs do not fit the contract, or the device failed.
        """
        ...

    def close(self) -> None:
        """Free the device's resources; running afterwards is an error."""
        ...


@runtime_checkable
class StageTimed(Protocol):
    """A backend of a device with memory of its own, which times the ways there and back apart."""

    def timed_run(self, inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], dict[str, float]]:
        """As :meth:`Backend.run`, and milliseconds of ``host_to_device``, ``compute`` and ``device_to_host``."""
        ...

    def device_bytes(self) -> int:
        """Bytes of device memory that the backend holds."""
        ...


@runtime_checkable
class Warmable(Protocol):
    """A backend of which every lane has to run before it is as fast as it can be."""

    def warm_up(self, batch: int) -> None:
        """Run batches of ``batch`` on every lane until the next one takes no longer than those after it."""
        ...


def open_backend(
    model: Path,
    name: BackendName = "auto",
    threads: int | None = None,
    path: InferencePath = "direct",
    *,
    build: bool = True,
) -> Backend:
    """Load ``model`` on the named backend, or on the best one at hand for ``auto``.

    ``auto`` runs a model file in TensorRT where the cache has an engine of it for this machine's GPU (it
    builds none), else in ONNX Runtime.

    Args:
        model: an ONNX file with a contract, the plan of an engine with its sidecar beside it, or a checkpoint
            folder (extra ``train``).
        name: one of :data:`BACKENDS`.
        threads: CPU threads of a CPU backend; ``None`` for all cores.
        path: ``indirect`` adapts first and segments then, ``supervised`` takes a_seg where there is a_self
            too; only a checkpoint can.
        build: whether ``tensorrt`` may build an engine where the cache has none.

    Raises:
        ModelError: no such file, or no valid contract in it.
        BackendError: unknown backend, or one that cannot run the model.
        EngineError: TensorRT has no engine that runs it here.
    """
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}; there are {', '.join(BACKENDS)}")
    if model.is_dir() and name in ("auto", "torch"):
        return open_checkpoint(model, path, threads)
    if name == "torch":
        raise BackendError(f"{model}: the torch backend runs checkpoint folders, not model files")
    if path != "direct":
        raise BackendError(f"{model}: an exported model has the direct path only; name a checkpoint folder")
    if not model.is_file():
        raise ModelError(f"{model}: there is no such model file")
    if is_plan(model) or name in ("tensorrt", "auto"):
        engine = open_engine(model, name, build)
        if engine is not None:
            return engine
    if name == "openvino":
        return open_openvino(model, threads)
    from cxredge.backends.onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(model, threads)


def is_plan(model: Path) -> bool:
    """Whether a file is the plan of an engine, by its name, or by the sidecar beside it."""
    suffix = model.suffix.lower()
    return suffix in PLAN_SUFFIXES or (suffix != ".onnx" and model.with_suffix(".json").is_file())


def open_engine(model: Path, name: BackendName, build: bool) -> Backend | None:
    """A plan, or the engine of a model file, in TensorRT; ``None`` where ``auto`` has to take something else."""
    from cxredge.backends import engines

    if is_plan(model):
        if name not in ("tensorrt", "auto"):
            raise BackendError(f"{model}: is the plan of an engine, which the {name} backend cannot run")
        return engines.open_plan(model)
    return engines.open_or_build(model, build=build) if name == "tensorrt" else engines.open_cached(model)


def open_openvino(model: Path, threads: int | None) -> Backend:
    """A model file in OpenVINO."""
    try:
        from cxredge.backends.openvino import OpenVinoBackend
    except ModuleNotFoundError as error:
        raise MissingExtraError("the OpenVINO backend", "openvino") from error
    return OpenVinoBackend(model, threads)


def open_checkpoint(folder: Path, path: InferencePath, threads: int | None) -> Backend:
    """A checkpoint in PyTorch."""
    try:
        from cxredge_train.inference import CheckpointBackend
    except ModuleNotFoundError as error:
        raise MissingExtraError("running a checkpoint", "train") from error
    return CheckpointBackend(folder, path, threads)


def check_inputs(inputs: NDArray[np.float32], contract: Contract) -> None:
    """Raise :class:`BackendError` where ``inputs`` are not ``(N, 1, S, S)`` float32 of the contract's size."""
    size = contract.input_size
    if inputs.dtype != np.float32 or inputs.ndim != 4 or inputs.shape[1:] != (1, size, size) or len(inputs) == 0:
        raise BackendError(f"input is {inputs.dtype} {inputs.shape}, the model takes float32 (N, 1, {size}, {size})")
