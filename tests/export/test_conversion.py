"""The ONNX file is plain, takes any batch, carries its contract, and tells nothing about the machine that made it."""

from __future__ import annotations

import copy
import getpass
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from cxredge.contract import CONTRACT_KEY, Contract, parse_contract
from cxredge_calibration.model_file import add_contract, write_model
from cxredge_export.conversion import to_onnx
from cxredge_export.folding import FOLDS, TRANSPOSED_FOLDS, fold, fold_code
from cxredge_train.networks import Generator

PLAIN = {"Add", "AveragePool", "Conv", "ConvTranspose", "Div", "InstanceNormalization", "LeakyRelu", "Mul", "Resize"}
"""Operators of the folded generator; every runtime has them."""


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {"radiograph": images})
    return np.asarray(out)


def contract(name: str = "tiny") -> Contract:
    return Contract(name=name, width=2, input_size=32, code="a_seg", licence="research")


def test_the_model_passes_the_checker_and_has_an_operator_set_that_tensorrt_parses(converted: onnx.ModelProto) -> None:
    onnx.checker.check_model(converted, full_check=True)
    assert [(entry.domain, entry.version <= 20) for entry in converted.opset_import] == [("", True)]


def test_input_and_output_have_names_and_a_dynamic_batch(converted: onnx.ModelProto) -> None:
    assert [value.name for value in converted.graph.input] == ["radiograph"]
    assert [value.name for value in converted.graph.output] == ["lung_logit"]
    for value in (converted.graph.input[0], converted.graph.output[0]):
        batch, *rest = value.type.tensor_type.shape.dim
        assert batch.dim_param
        assert [dim.dim_value for dim in rest] == [1, 32, 32]
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_any_batch_gives_what_torch_gives(converted: onnx.ModelProto, generator: Generator, batch: int) -> None:
    images = np.random.default_rng(batch).uniform(-1, 1, (batch, 1, 32, 32)).astype(np.float32)
    with torch.no_grad():
        expected = fold_code(generator, None)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(run(converted, images), expected, atol=1e-3)


def test_only_plain_operators_are_left(generator: Generator) -> None:
    converted = to_onnx(fold(fold_code(generator, None), TRANSPOSED_FOLDS), 32)
    used = [node.op_type for node in converted.graph.node]
    assert set(used) <= PLAIN
    assert used.count("InstanceNormalization") == 25  # two a block and the head's: none was taken apart
    assert used.count("Conv") == 28
    assert used.count("ConvTranspose") == 4
    assert not converted.functions
    assert {node.domain for node in converted.graph.node} == {""}


def test_phases_are_convs_and_moves_through_memory(converted: onnx.ModelProto) -> None:
    used = Counter(node.op_type for node in converted.graph.node)
    assert set(used) <= PLAIN - {"ConvTranspose"} | {"Reshape", "Transpose", "Slice"}
    assert (used["InstanceNormalization"], used["Conv"]) == (25, 32)
    assert (used["Reshape"], used["Transpose"], used["Slice"]) == (4 * 3, 4 * 2, 4)
    assert not converted.functions
    assert {node.domain for node in converted.graph.node} == {""}


def test_convs_are_named_after_their_weights(converted: onnx.ModelProto) -> None:
    names = [node.name for node in converted.graph.node if node.op_type.startswith("Conv")]
    assert len(set(names)) == 32
    assert {"stem", "encoder.0.residual.conv1", "encoder.0.shortcut.conv", "decoder.5.residual.conv2", "head.conv"} <= {
        *names
    }


def test_no_weight_is_stored_that_the_path_does_not_use(converted: onnx.ModelProto, generator: Generator) -> None:
    stored = sum(int(np.prod(tensor.dims)) for tensor in converted.graph.initializer)
    folded = sum(p.numel() for p in fold(fold_code(generator, None), FOLDS).parameters())
    assert stored == pytest.approx(folded, rel=0.02)  # equal ones are stored once


def test_the_file_tells_nothing_about_the_machine_that_made_it(converted: onnx.ModelProto) -> None:
    content = converted.SerializeToString()
    here = Path(__file__).resolve()
    words = [
        "/home",
        str(Path.home()),
        "site-packages",
        "cxredge_train",
        ".py",
        "Traceback",
        *map(str, here.parents[:3]),
    ]
    found = [word for word in words if word.encode() in content]
    assert not found
    assert f"/{getpass.getuser()}/".encode() not in content


def test_nodes_and_values_carry_no_notes(converted: onnx.ModelProto) -> None:
    graph = converted.graph
    for item in [*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph]:
        assert not item.doc_string
        assert not item.metadata_props
    assert not converted.doc_string


def test_the_tools_notes_are_not_left_in_the_metadata(converted: onnx.ModelProto) -> None:
    assert [prop.key for prop in converted.metadata_props] == []


def test_the_contract_travels_in_the_metadata(converted: onnx.ModelProto) -> None:
    model = copy.deepcopy(converted)
    add_contract(model, contract())
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map[CONTRACT_KEY]
    assert parse_contract(text) == contract()
    assert json.loads(text)["input_statistics"] is None


def test_a_contract_takes_the_place_of_another_and_of_nothing_else(converted: onnx.ModelProto) -> None:
    model = copy.deepcopy(converted)
    del model.metadata_props[:]
    model.metadata_props.add(key="mine", value="kept")
    add_contract(model, contract("first"))
    add_contract(model, contract("second"))
    props = [(prop.key, prop.value) for prop in model.metadata_props]
    assert props == [("mine", "kept"), (CONTRACT_KEY, contract("second").to_json())]


def test_a_model_is_written_whole_into_a_new_folder(converted: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "model.onnx"
    write_model(converted, path)
    assert onnx.load(path) == converted
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
