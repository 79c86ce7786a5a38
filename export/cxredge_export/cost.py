"""What a model costs: multiplications, weights, bytes, and its latency on this machine's CPU."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import onnx
import onnxruntime

from cxredge.backends.onnxruntime import session_options

REPEATS = 11
WARM_UP = 2


@dataclass(frozen=True)
class Cost:
    """Cost of a model.

    Attributes:
        gmac: 10⁹ multiply-accumulate operations of the convolutions for one image.
        parameters: stored weights.
        bytes: size of the file.
        latency_ms: median time of one image in ONNX Runtime on the CPU, in milliseconds.
    """

    gmac: float
    parameters: int
    bytes: int
    latency_ms: float

    def to_dict(self) -> dict[str, float]:
        """As a JSON object."""
        return asdict(self)


def measure_costs(models: Mapping[str, onnx.ModelProto], threads: int, repeats: int = REPEATS) -> dict[str, Cost]:
    """Cost of each of ``models``, whose latencies are measured in turns, in one run.

    Args:
        models: by name, all with inputs ``(N, 1, S, S)`` of the same size.
        threads: CPU threads of one inference.
        repeats: times that each model is run, after a warm-up.
    """
    latencies = measure_latencies(models, threads, repeats)
    return {
        name: Cost(macs(model) / 1e9, parameters(model), model.ByteSize(), latencies[name])
        for name, model in models.items()
    }


def macs(model: onnx.ModelProto) -> int:
    """Multiply-accumulate operations of the convolutions for one image.

    Each weight of a conv is used once for a pixel of its output, of a transposed conv of its input.
    """
    shapes = known_shapes(model)
    total = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            image = shapes[node.output[0] if node.op_type == "Conv" else node.input[0]]
            total += math.prod(image[2:]) * math.prod(shapes[node.input[1]])
    return total


def known_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor; the dynamic batch is 0."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    return shapes | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}


def parameters(model: onnx.ModelProto) -> int:
    """Stored weights, of whatever type."""
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer)


def measure_latencies(models: Mapping[str, onnx.ModelProto], threads: int, repeats: int) -> dict[str, float]:
    """Median milliseconds of one image by name of the model."""
    options = session_options(threads)
    sessions = {
        name: onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for name, model in models.items()
    }
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(WARM_UP + repeats):
        for name, session in sessions.items():
            entry = session.get_inputs()[0]
            image = np.random.default_rng(turn).uniform(-1, 1, (1, *entry.shape[1:])).astype(np.float32)
            started = time.perf_counter()
            session.run(None, {entry.name: image})
            if turn >= WARM_UP:
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}
