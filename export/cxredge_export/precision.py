"""Precision as a property of the file: an FP32 or INT8 model retyped to FP16, with its contract.

TensorRT builds the network strongly typed, so what is computed in which type is decided here. The
statistics of the instance norms stay in FP32: a sum of 65 536 pixels overflows FP16.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

from cxredge.contract import CONTRACT_KEY, Contract
from cxredge.errors import ModelError
from cxredge.radiograph import Radiograph
from cxredge_calibration.model_file import add_contract, read_contract
from cxredge_calibration.phases import merge_phases
from cxredge_export.parity import HALF, in_onnxruntime, measure_parity, require_parity

KEPT_IN_FP32 = ("InstanceNormalization",)
"""Operators that are computed in FP32 between casts."""
REMAINDER = "remainder"
"""Field of an INT8 model's calibration record that names the type of what is not quantised."""


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with everything in FP16 but its input, its output and the instance norms.

    Convolutions in phases become transposed ones, which suit a GPU. An INT8 model keeps its quantised layers;
    their scales and what lies between become FP16.

    Args:
        model: FP32 or INT8 (Q/DQ, operator set 19 or later), left as it is.

    Returns:
        A topologically sorted, checked model. A contract is carried along: ``fp32`` becomes ``fp16``,
        and what was measured says in which precision; ``int8`` stays, and its calibration record says
        that the remainder is FP16.

    Raises:
        ModelError: it is in FP16 already, or its operator set has no FP16 scales.
    """
    model = merge_phases(model)
    contract = fp16_contract(read_contract(model)) if carries_contract(model) else None
    require_scales_in_fp16(model)
    typed = convert_float_to_float16(copy.deepcopy(model), keep_io_types=True, op_block_list=list(KEPT_IN_FP32))
    sort_nodes(typed.graph)
    del typed.graph.value_info[:]  # the converter's are wrong in part
    typed = onnx.shape_inference.infer_shapes(typed, check_type=True, strict_mode=True)
    if contract is not None:
        add_contract(typed, contract)
    onnx.checker.check_model(typed, full_check=True)
    return typed


def carries_contract(model: onnx.ModelProto) -> bool:
    """Whether ``model`` is a file of cxredge, with a contract to be carried along."""
    return any(prop.key == CONTRACT_KEY for prop in model.metadata_props)


def fp16_contract(contract: Contract) -> Contract:
    """``contract`` after :func:`to_fp16`.

    Raises:
        ModelError: it says that the model is in FP16 already.
    """
    calibration: dict[str, Any] = contract.calibration or {}
    if contract.precision == "fp16" or calibration.get(REMAINDER) == "fp16":
        raise ModelError(f"{contract.name} is in FP16 already; name the FP32 or INT8 model that it was made from")
    if contract.precision == "int8":
        return replace(contract, calibration={**calibration, REMAINDER: "fp16"})
    measured = {"precision": contract.precision, **contract.measured} if contract.measured else {}
    return replace(contract, precision="fp16", measured=measured)


def compared_fp16(model: onnx.ModelProto, radiographs: Sequence[Radiograph]) -> onnx.ModelProto:
    """:func:`to_fp16` of a model with a contract, compared with the model in ONNX Runtime.

    The contract's parity becomes that comparison, and keeps the one before as ``original``. A CPU
    computes FP16 convs in FP32 between roundings, so a GPU's masks differ in about twice as many pixels.

    Raises:
        ModelError: as :func:`to_fp16`.
        ParityError: the masks differ by more than rounding to FP16 explains.
    """
    contract = read_contract(model)
    typed = to_fp16(model)
    parity = measure_parity(typed, in_onnxruntime(model), radiographs, contract.input_size)
    require_parity(parity, HALF)
    add_contract(typed, replace(read_contract(typed), parity={**parity.to_dict(), "original": contract.parity}))
    return typed


def require_scales_in_fp16(model: onnx.ModelProto) -> None:
    """Raise :class:`ModelError` for a quantised model of an operator set before 19, where scales are FP32."""
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < 19 and any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ModelError(f"a quantised model of operator set {opset} cannot be typed FP16; export it with 19 or later")


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put the nodes of ``graph`` in topological order; the converter appends its casts at the end."""
    producer = {name: node for node in graph.node for name in node.output}
    ordered: list[onnx.NodeProto] = []
    done: set[str] = set()
    for node in graph.node:
        pending = [node]
        while pending:
            needed = [producer[name] for name in pending[-1].input if name in producer and name not in done]
            if needed:
                pending += needed[:1]
                continue
            ready = pending.pop()
            if ready.output[0] not in done:
                ordered.append(copy.deepcopy(ready))
                done.update(ready.output)
    del graph.node[:]
    graph.node.extend(ordered)
