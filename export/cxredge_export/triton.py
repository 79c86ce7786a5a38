"""A model repository for NVIDIA's Triton Inference Server: one model or engine with its ``config.pbtxt``.

The server then gets network inputs and gives logits; what comes before and after is the client's (see
``docs/triton.md``). The text follows Triton's ``model_config.proto``; neither Triton nor protobuf is needed to write
it.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cxredge.backends import is_plan
from cxredge.backends.onnxruntime import open_session, require_signature, session_contract
from cxredge.contract import Contract
from cxredge.engine.record import Batches, EngineRecord, file_sha256, read_record, sidecar_path
from cxredge.errors import EngineError, ModelError, OutputError

INPUT, OUTPUT = "radiograph", "lung_logit"
"""Names that ``cxredge export`` gives the ends of a graph; an engine keeps them, but its sidecar does not."""
BATCHES: Batches = (1, 4, 16)
"""Of a model file, which takes any: smallest, best and largest."""
QUEUE_MICROSECONDS = 2000
"""Longest time that a request waits for others to make a batch with it."""
GPU_INSTANCES = 2
"""So that copying for one batch overlaps with computing another."""
VERSION = "1"
CONTRACT_PARAMETER = "cxredge"
"""Parameter of the configuration that holds the model's contract as JSON."""


@dataclass(frozen=True)
class Served:
    """What Triton is to serve.

    Attributes:
        source: the model file, or the plan.
        contract: of the model.
        batches: smallest, best and largest batch.
        ends: names of input and output.
        record: the engine's sidecar; ``None`` of a model file.
    """

    source: Path
    contract: Contract
    batches: Batches
    ends: tuple[str, str]
    record: EngineRecord | None = None

    @property
    def backend(self) -> str:
        """Triton's backend that runs it."""
        return "onnxruntime" if self.record is None else "tensorrt"

    @property
    def file_name(self) -> str:
        """Name under which that backend looks for it."""
        return "model.onnx" if self.record is None else "model.plan"


def write_repository(source: Path, folder: Path, name: str | None = None) -> Path:
    """Add a model to a Triton model repository.

    Args:
        source: a model file in FP32 or FP16, or the plan of an engine with its sidecar beside it.
        folder: the repository; made where it does not exist.
        name: of the model in the repository; ``None`` for the contract's.

    Returns:
        The model's folder in the repository: ``config.pbtxt`` and ``1/model.onnx`` or ``1/model.plan``.

    Raises:
        ModelError: no valid model file, or an INT8 one.
        EngineError: no valid engine, or one that Triton's TensorRT backend cannot run.
        OutputError: the repository has a model of that name, or cannot be written.
    """
    served = served_engine(source) if is_plan(source) else served_model(source)
    name = model_name(served.contract.name if name is None else name)
    target = folder / name
    part = folder / f".{uuid.uuid4().hex}.part"
    try:
        if target.exists():
            raise OutputError(f"{target}: exists already; choose another name with --name, or another folder")
        (part / VERSION).mkdir(parents=True)
        shutil.copyfile(source, part / VERSION / served.file_name)
        (part / "config.pbtxt").write_text(configuration(served, name), encoding="ascii")
        part.rename(target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            shutil.rmtree(part)
    return target


def served_model(source: Path) -> Served:
    """A model file for Triton's ONNX Runtime backend.

    Raises:
        ModelError: not a valid model file, or INT8, which that backend computes otherwise than cxredge does.
    """
    if not source.is_file():
        raise ModelError(f"{source}: there is no such model file")
    session = open_session(source, threads=1)
    contract = session_contract(session, source)
    require_signature(session, contract.input_size, source)
    if contract.precision == "int8":
        raise ModelError(
            f"{source}: is INT8, which Triton's ONNX Runtime backend fuses to kernels that give other masks; "
            "give the FP32 or FP16 model, or an engine of it ('cxredge build-engine')"
        )
    return Served(source, contract, BATCHES, (session.get_inputs()[0].name, session.get_outputs()[0].name))


def served_engine(plan: Path) -> Served:
    """An engine for Triton's TensorRT backend.

    Raises:
        EngineError: no sidecar, another's sidecar, of TensorRT for RTX, or one that takes no single request.
    """
    record = read_record(sidecar_path(plan))
    try:
        unchanged = file_sha256(plan) == record.plan_sha256
    except OSError as error:
        raise EngineError(f"{plan}: cannot be read: {error.strerror or error}") from error
    if not unchanged:
        raise EngineError(f"{plan}: is not the plan of its sidecar; build the engine again")
    if record.flavour != "tensorrt":
        raise EngineError(
            f"{plan}: was built by TensorRT for RTX, Triton runs engines of TensorRT: build it on the server's "
            "GPU with 'cxredge build-engine --flavour tensorrt', in the TensorRT version of its container"
        )
    if record.batches[0] > 1:
        raise EngineError(f"{plan}: takes no batch below {record.batches[0]}, but Triton may send single requests")
    return Served(plan, record.read_contract(), record.batches, (INPUT, OUTPUT), record)


def model_name(wanted: str) -> str:
    """A name for a folder and a URL.

    Raises:
        ModelError: nothing is left of it.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip(".-")
    if not name:
        raise ModelError(f"{wanted!r} is no name for a model; give one with --name")
    return name


def configuration(served: Served, name: str) -> str:
    """Text of ``config.pbtxt``."""
    _, best, largest = served.batches
    instances = "count: 1 kind: KIND_AUTO" if served.record is None else f"count: {GPU_INSTANCES} kind: KIND_GPU"
    size = served.contract.input_size
    shape = f"data_type: TYPE_FP32 dims: [ 1, {size}, {size} ]"
    preferred = sorted({best, largest} - {1})
    parts = [
        *comments(served),
        f"name: {quoted(name)}",
        f"backend: {quoted(served.backend)}",
        f"max_batch_size: {largest}",
        f"input [ {{ name: {quoted(served.ends[0])} {shape} }} ]",
        f"output [ {{ name: {quoted(served.ends[1])} {shape} }} ]",
        *([batching(preferred)] if preferred else []),
        f"instance_group [ {{ {instances} }} ]",
        *(warm_up(batch, served.ends[0], shape) for batch in sorted(set(served.batches))),
        f"parameters {{ key: {quoted(CONTRACT_PARAMETER)} "
        f"value {{ string_value: {quoted(served.contract.to_json())} }} }}",
    ]
    return "\n".join(parts) + "\n"


def comments(served: Served) -> list[str]:
    """What a person should know who opens the file."""
    lines = ["# Written by 'cxredge export --triton'. Input: network inputs in [-1, 1]; output: lung logits."]
    if served.record is not None:
        record = served.record
        lines.append(
            f"# Built by TensorRT {record.version} for compute capability {record.compute_capability}: "
            "another TensorRT or GPU refuses it."
        )
    return lines


def batching(preferred: Sequence[int]) -> str:
    """The dynamic batcher's settings."""
    sizes, delay = ", ".join(map(str, preferred)), QUEUE_MICROSECONDS
    return f"dynamic_batching {{ preferred_batch_size: [ {sizes} ] max_queue_delay_microseconds: {delay} }}"


def warm_up(batch: int, name: str, shape: str) -> str:
    """A request of zeros that the server runs before it is ready."""
    inputs = f"inputs {{ key: {quoted(name)} value {{ {shape} zero_data: true }} }}"
    return f"model_warmup [ {{ name: {quoted(f'batch {batch}')} batch_size: {batch} {inputs} }} ]"


def quoted(text: str) -> str:
    """A string of protobuf's text format; ``text`` is ASCII without control characters, as JSON and names are."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
