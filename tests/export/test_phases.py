"""Enlarging convolutions in phases, and the transposed ones that GPUs and OpenVINO get in their place."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from cxredge.contract import Contract
from cxredge_calibration.calibrate import read_subject
from cxredge_calibration.model_file import add_contract, read_contract
from cxredge_calibration.options import Options, silent
from cxredge_calibration.phases import merge_phases
from cxredge_export import conversion
from cxredge_export.conversion import to_onnx
from cxredge_export.deployed import Interleave, sequence
from cxredge_export.folding import enlarged_conv, fold, fold_code, phase_conv
from cxredge_export.precision import to_fp16
from cxredge_train.networks import Generator

SIZE = 32
CONTRACT = Contract(name="phases", width=2, input_size=SIZE, code="a_seg", licence="none")
Convert = Callable[..., onnx.ModelProto]


@pytest.fixture(scope="module")
def biased(generator: Generator) -> Generator:
    """The generator with biases that are not 0, which the exporter would leave out."""
    biased = copy.deepcopy(generator)
    torch.manual_seed(5)
    for name, parameter in biased.named_parameters():
        if name.endswith("bias") and "plain" not in name:
            nn.init.normal_(parameter, 0.5, 0.5)
    return biased


@pytest.fixture(scope="module")
def convert(biased: Generator) -> Convert:
    """Exports the network with the folds that are named."""

    made: dict[tuple[str, ...], onnx.ModelProto] = {}

    def get(*folds: str) -> onnx.ModelProto:
        if folds not in made:
            made[folds] = to_onnx(fold(fold_code(biased, None), folds), SIZE)
            add_contract(made[folds], replace(CONTRACT, folds=("adain", *folds)))
        return copy.deepcopy(made[folds])

    return get


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def weights(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    named = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {name: value for name, value in named.items() if name.endswith(("weight", "bias"))}


def inputs() -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(-1, 1, (3, 1, SIZE, SIZE)).astype(np.float32)


def logits(model: onnx.ModelProto) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs()})
    return np.asarray(found)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(2, 2), (2, 6), (8, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_phases_are_the_transposed_conv_at_the_borders_too(shape: tuple[int, int], bias: bool) -> None:
    whole = enlarged_conv(nn.Conv2d(3, 5, 3, padding=1, bias=bias).double())
    assert isinstance(whole, nn.ConvTranspose2d)
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    torch.testing.assert_close(Interleave()(phase_conv(whole)(x)), whole(x), rtol=0, atol=1e-13)


def test_interleaving_is_a_pixel_shuffle_without_its_border() -> None:
    x = torch.arange(2 * 8 * 3 * 4.0).reshape(2, 8, 3, 4)
    assert torch.equal(Interleave()(x), nn.functional.pixel_shuffle(x, 2)[:, :, 1:-1, 1:-1])


@pytest.mark.parametrize("others", [(), ("norm-bias",), ("shortcut", "pool-conv", "head")], ids="+".join)
def test_merged_phases_are_the_other_fold_bit_by_bit(convert: Convert, others: tuple[str, ...]) -> None:
    in_phases, whole = convert(*others, "up-phases"), convert(*others, "up-conv")
    before = in_phases.SerializeToString()
    merged = merge_phases(in_phases)
    assert in_phases.SerializeToString() == before
    assert operators(in_phases)["ConvTranspose"] == 0
    assert operators(merged) == operators(whole)
    assert operators(whole)["ConvTranspose"] == 4
    assert weights(merged).keys() == weights(whole).keys()
    for name, weight in weights(whole).items():
        np.testing.assert_array_equal(weights(merged)[name], weight, err_msg=name)
    np.testing.assert_array_equal(logits(merged), logits(whole))
    np.testing.assert_allclose(logits(in_phases), logits(whole), atol=1e-4)
    assert set(read_contract(merged).folds) == {"adain", *others, "up-conv"}


def test_a_model_without_phases_is_left_as_it_is(convert: Convert) -> None:
    whole = convert("up-conv")
    assert merge_phases(whole) is whole


Change = Callable[[onnx.ModelProto], None]


def constant(model: onnx.ModelProto, name: str, *values: int) -> str:
    """Adds a list of integers under a name."""
    model.graph.initializer.append(numpy_helper.from_array(np.array(values), name))
    return name


def nodes(model: onnx.ModelProto, kind: str) -> list[onnx.NodeProto]:
    if kind == "phases":
        return [node for node in model.graph.node if node.name.endswith("phases")]
    return [node for node in model.graph.node if node.op_type == kind]


def change_permutations(model: onnx.ModelProto) -> None:
    for node in nodes(model, "Transpose")[::2]:
        del node.attribute[:]
        node.attribute.append(onnx.helper.make_attribute("perm", [0, 3, 2, 1]))


def change_crop(model: onnx.ModelProto) -> None:
    first, last = constant(model, "first", 0, 0), constant(model, "last", -2, -2)
    for node in nodes(model, "Slice"):
        node.input[1], node.input[2] = first, last


def add_readers(model: onnx.ModelProto) -> None:
    for node in nodes(model, "phases"):
        model.graph.node.append(onnx.helper.make_node("Identity", [node.output[0]], [f"{node.output[0]}_too"]))
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(f"{node.output[0]}_too"))


def change_biases(model: onnx.ModelProto) -> None:
    names = {node.input[2] for node in nodes(model, "phases")}
    for tensor in model.graph.initializer:
        if tensor.name in names:
            bias = numpy_helper.to_array(tensor) + np.arange(tensor.dims[0], dtype=np.float32)
            tensor.CopyFrom(numpy_helper.from_array(bias, tensor.name))


CHANGES = [change_permutations, change_crop, add_readers, change_biases]


@pytest.mark.parametrize("change", CHANGES)
def test_what_only_resembles_phases_is_left_as_it_is(convert: Convert, change: Change) -> None:
    model = convert("up-phases", "head")
    change(model)
    assert merge_phases(model) is model


@pytest.mark.parametrize(
    ("name", "value"), [("strides", [2, 2]), ("dilations", [2, 2]), ("group", 2), ("pads", [0] * 4)]
)
def test_convolutions_of_another_kind_are_left_as_they_are(convert: Convert, name: str, value: int | list[int]) -> None:
    model = convert("up-phases", "head")
    for node in nodes(model, "phases"):
        others = [entry for entry in node.attribute if entry.name != name]
        del node.attribute[:]
        node.attribute.extend([*others, onnx.helper.make_attribute(name, value)])
    assert merge_phases(model) is model


def test_phases_in_another_order_are_left_as_they_are(convert: Convert) -> None:
    model = convert("up-phases", "head")
    for node in nodes(model, "Reshape")[::3]:
        (shape,) = [numpy_helper.to_array(t) for t in model.graph.initializer if t.name == node.input[1]]
        node.input[1] = constant(model, f"shape_{node.output[0]}", 1, *shape[1:])
    assert merge_phases(model) is model


def test_weights_that_two_convolutions_share_are_merged_for_both() -> None:
    torch.manual_seed(0)
    whole = nn.ConvTranspose2d(1, 1, 4, 2, 1)
    conv = phase_conv(whole)
    twice = nn.Sequential(*(sequence({"phases": conv, "interleave": Interleave()}) for _ in range(2)))
    model = to_onnx(twice, SIZE)
    assert len({node.input[1] for node in nodes(model, "Conv")}) == 1
    for index, node in enumerate(model.graph.node):
        node.name = str(index)
    merged = merge_phases(model)
    assert (operators(merged)["Conv"], operators(merged)["ConvTranspose"]) == (0, 2)
    with torch.no_grad():
        expected = whole(whole(torch.from_numpy(inputs()))).numpy()
    np.testing.assert_allclose(logits(merged), expected, atol=1e-5)


def test_phases_are_found_without_onnxsim_too(
    biased: Generator, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "find_spec", lambda _: None)
    model = to_onnx(fold(fold_code(biased, None), ("up-phases", "head")), SIZE)
    assert len(nodes(model, "Slice")) == 8, "one for each axis"
    merged = merge_phases(model)
    assert (operators(merged)["ConvTranspose"], operators(merged)["Slice"]) == (4, 0)
    np.testing.assert_allclose(logits(merged), logits(convert("up-conv", "head")), atol=1e-5)


def test_half_precision_and_calibration_start_from_transposed_convs(convert: Convert, tmp_path: Path) -> None:
    model = convert("up-phases")
    typed = to_fp16(model)
    assert operators(typed)["ConvTranspose"] == 4
    assert (read_contract(typed).folds, read_contract(typed).precision) == (("adain", "up-conv"), "fp16")
    file = tmp_path / "model.onnx"
    file.write_bytes(model.SerializeToString())
    subject = read_subject(file, Options(), silent)
    assert operators(subject.graph)["ConvTranspose"] == 4
    assert subject.contract.folds == ("adain", "up-conv")
    assert not [layer for layer in subject.layers if "phases" in layer.name]


@pytest.mark.parametrize("others", [(), ("norm-bias",)], ids="+".join)
def test_openvino_gets_transposed_convs(convert: Convert, others: tuple[str, ...]) -> None:
    openvino = pytest.importorskip("openvino")
    from cxredge.backends.openvino_phases import merge_phases as merge_in_place

    model = convert(*others, "up-phases", "head")
    graph = openvino.Core().read_model(model.SerializeToString())
    assert merge_in_place(graph) == 4
    kinds = Counter(node.get_type_name() for node in graph.get_ordered_ops())
    assert (kinds["ConvolutionBackpropData"], kinds["Transpose"], kinds["Slice"]) == (4, 0, 0)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    found = openvino.Core().compile_model(graph, "CPU", settings)([inputs()])[0]
    np.testing.assert_allclose(found, logits(model), atol=1e-4)
    assert merge_in_place(openvino.Core().read_model(convert("up-conv").SerializeToString())) == 0


@pytest.mark.parametrize("change", CHANGES)
def test_openvino_leaves_what_only_resembles_phases(convert: Convert, change: Change) -> None:
    openvino = pytest.importorskip("openvino")
    from cxredge.backends.openvino_phases import merge_phases as merge_in_place

    model = convert("up-phases", "head")
    change(model)
    assert merge_in_place(openvino.Core().read_model(model.SerializeToString())) == 0


def test_openvino_merges_phases_without_onnxsim_too(biased: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")
    from cxredge.backends.openvino_phases import merge_phases as merge_in_place

    monkeypatch.setattr(conversion, "find_spec", lambda _: None)
    model = to_onnx(fold(fold_code(biased, None), ("up-phases", "head")), SIZE)
    assert merge_in_place(openvino.Core().read_model(model.SerializeToString())) == 4
