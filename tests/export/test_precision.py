"""FP16 is in the file: sorted, checked, with FP32 statistics, on strange images too, and told in the contract."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from cxredge.contract import Contract
from cxredge.errors import ModelError, ParityError
from cxredge.phantom import make_radiograph
from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph
from cxredge_calibration.model_file import add_contract, read_contract
from cxredge_calibration.phases import merge_phases
from cxredge_export import precision
from cxredge_export.conversion import to_onnx
from cxredge_export.folding import FOLDS, fold, fold_code
from cxredge_export.parity import in_onnxruntime
from cxredge_export.precision import compared_fp16, to_fp16
from cxredge_train.networks import Generator

SIZE = 256
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
CONTRACT = Contract(
    name="tiny", width=2, input_size=SIZE, code="a_seg", licence="research", measured={"datasets": [{"dice": 0.9}]}
)


@pytest.fixture(scope="module")
def model(generator: Generator) -> onnx.ModelProto:
    """The folded direct path of :func:`generator` at 256x256, where sums overflow FP16, with a contract."""
    model = to_onnx(fold(fold_code(generator, None), FOLDS), SIZE)
    add_contract(model, CONTRACT)
    return model


@pytest.fixture(scope="module")
def quantised(model: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """Its convs in INT8 with Q/DQ as TensorRT takes it."""

    class Samples(CalibrationDataReader):
        images = iter([{"radiograph": chest(1)}, {"radiograph": chest(2)}])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self.images, None)

    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    quantize_static(
        copy.deepcopy(merge_phases(model)),
        path,
        Samples(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "ConvTranspose"],
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "AddQDQPairToWeight": True,
            "OpTypesToExcludeOutputQuantization": ["Conv", "ConvTranspose"],
        },
    )
    quantised = onnx.load(path)
    add_contract(quantised, replace(CONTRACT, precision="int8", calibration={"estimator": "min-max"}))
    return quantised


def chest(seed: int) -> NDArray[np.float32]:
    return network_input(Radiograph(make_radiograph(seed).pixels), SIZE)[None, None]


def with_hot_pixel(image: NDArray[np.float32]) -> NDArray[np.float32]:
    hot = image.copy()
    hot[0, 0, 100, 37] = 1
    return hot


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return stored | {value.name: value.type.tensor_type.elem_type for value in values}


IMAGES = {
    "chest": chest(1),
    "constant": np.full((1, 1, SIZE, SIZE), 0.3, np.float32),
    "black": np.full((1, 1, SIZE, SIZE), -1, np.float32),
    "low contrast, dark": 0.01 * chest(1) - 0.99,
    "low contrast, bright": 0.005 * chest(1) + 0.9,
    "low contrast with a hot pixel": with_hot_pixel(0.01 * chest(1) - 0.99),
    "black with a hot pixel": with_hot_pixel(np.full((1, 1, SIZE, SIZE), -1, np.float32)),
}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_fp16_segments_every_image_as_fp32_does(model: onnx.ModelProto, image: NDArray[np.float32]) -> None:
    expected, found = in_onnxruntime(model)(image), in_onnxruntime(to_fp16(model))(image)
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < 0.05
    assert ((found > 0) != (expected > 0)).mean() < 3e-3  # of random weights, whose logits are of the order of 1
    assert 0.1 < (expected > 0).mean() < 0.9


def test_all_but_ends_and_statistics_is_in_fp16(model: onnx.ModelProto) -> None:
    typed = to_fp16(model)
    found = types(typed)
    assert (found["radiograph"], found["lung_logit"]) == (FLOAT, FLOAT)
    for node in typed.graph.node:
        inputs = [found[name] for name in node.input if name]
        if node.op_type == "InstanceNormalization":
            assert [*inputs, found[node.output[0]]] == [FLOAT] * 4
        elif node.op_type == "Resize":  # its factors are FP32 by definition
            assert (inputs[0], found[node.output[0]]) == (HALF, HALF)
        elif node.op_type != "Cast":
            assert {*inputs, found[node.output[0]]} == {HALF}, node.name
    assert typed.ByteSize() < 0.75 * model.ByteSize()


class SumsInItsType(OpRun):
    """Instance norm whose sums have the type of its input, as a kernel on a device may have them."""

    op_domain = ""
    op_schema = onnx.defs.get_schema("InstanceNormalization", 20)

    def _run(self, x, scale, bias, epsilon=1e-5):
        count = x.dtype.type(x[0, 0].size)
        mean = x.sum(axis=(2, 3), keepdims=True, dtype=x.dtype) / count
        variance = ((x - mean) ** 2).sum(axis=(2, 3), keepdims=True, dtype=x.dtype) / count
        normalised = (x - mean) / np.sqrt(variance + x.dtype.type(epsilon))
        return (normalised * scale[None, :, None, None] + bias[None, :, None, None],)


SumsInItsType.__name__ = "InstanceNormalization"


def a_norm() -> onnx.ModelProto:
    """One instance norm at 256x256."""
    ends = [helper.make_tensor_value_info(name, FLOAT, [1, 1, SIZE, SIZE]) for name in ("radiograph", "lung_logit")]
    node = helper.make_node("InstanceNormalization", ["radiograph", "scale", "bias"], ["lung_logit"])
    affine = [helper.make_tensor("scale", FLOAT, [1], [2.0]), helper.make_tensor("bias", FLOAT, [1], [0.5])]
    graph = helper.make_graph([node], "norm", ends[:1], ends[1:], affine)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_statistics_do_not_overflow_where_sums_have_the_type_of_the_input() -> None:
    image = np.random.default_rng(0).normal(3, 1, (1, 1, SIZE, SIZE)).astype(np.float32)
    expected = in_onnxruntime(a_norm())(image)

    def run(model: onnx.ModelProto) -> NDArray[np.float32]:
        return np.asarray(ReferenceEvaluator(model, new_ops=[SumsInItsType]).run(None, {"radiograph": image})[0])

    np.testing.assert_allclose(run(to_fp16(a_norm())), expected, atol=0.02)
    all_in_fp16 = convert_float_to_float16(a_norm(), keep_io_types=True, op_block_list=[])
    precision.sort_nodes(all_in_fp16.graph)
    assert not np.isfinite(run(all_in_fp16)).all()  # so the line above would see it


@pytest.mark.parametrize("kind", ["model", "quantised"])
def test_nodes_are_in_the_order_of_their_inputs(kind: str, request: pytest.FixtureRequest) -> None:
    typed = to_fp16(request.getfixturevalue(kind))
    known = {"", *(value.name for value in typed.graph.input), *(tensor.name for tensor in typed.graph.initializer)}
    for node in typed.graph.node:
        assert set(node.input) <= known
        known |= set(node.output)
    onnx.checker.check_model(typed, full_check=True)


def test_the_given_model_is_left_as_it_was(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    to_fp16(model)
    assert model.SerializeToString() == before


def test_the_contract_says_what_was_done(model: onnx.ModelProto, quantised: onnx.ModelProto) -> None:
    measured = {"precision": "fp32", "datasets": [{"dice": 0.9}]}
    assert read_contract(to_fp16(model)) == replace(CONTRACT, precision="fp16", measured=measured)
    int8 = read_contract(to_fp16(quantised))
    assert (int8.precision, int8.calibration) == ("int8", {"estimator": "min-max", "remainder": "fp16"})


def test_a_model_without_a_contract_stays_without(model: onnx.ModelProto) -> None:
    plain = copy.deepcopy(model)
    del plain.metadata_props[:]
    assert list(to_fp16(plain).metadata_props) == []


@pytest.mark.parametrize("kind", ["model", "quantised"])
def test_a_model_in_fp16_is_refused(kind: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(ModelError, match="tiny is in FP16 already; name the FP32 or INT8 model"):
        to_fp16(to_fp16(request.getfixturevalue(kind)))


def test_quantised_layers_of_an_old_operator_set_are_refused(quantised: onnx.ModelProto) -> None:
    old = copy.deepcopy(quantised)
    old.opset_import[0].version = 18
    with pytest.raises(ModelError, match="operator set 18 cannot be typed FP16"):
        to_fp16(old)


def test_quantised_layers_stay_and_their_scales_become_fp16(model: onnx.ModelProto, quantised: onnx.ModelProto) -> None:
    typed = to_fp16(quantised)
    found = types(typed)

    def count(model: onnx.ModelProto, kind: str) -> int:
        return sum(node.op_type == kind for node in model.graph.node)

    assert count(typed, "QuantizeLinear") == count(quantised, "QuantizeLinear") == 64
    for node in typed.graph.node:
        if node.op_type == "QuantizeLinear":
            assert [found[name] for name in (*node.input, *node.output)] == [HALF, HALF, *[TensorProto.INT8] * 2]
        if node.op_type == "DequantizeLinear":
            assert [found[name] for name in (*node.input, *node.output)] == [
                TensorProto.INT8,
                HALF,
                TensorProto.INT8,
                HALF,
            ]
        if node.op_type in ("Conv", "ConvTranspose"):
            assert {found[name] for name in (*node.input, *node.output)} == {HALF}
    expected, int8, both = (in_onnxruntime(one)(chest(1)) for one in (model, quantised, typed))
    assert np.isfinite(both).all()
    assert np.abs(both - expected).mean() < 1.2 * np.abs(int8 - expected).mean()


def test_an_fp16_model_is_compared_with_its_original(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    original = copy.deepcopy(model)
    add_contract(original, replace(CONTRACT, parity={"images": 49}))
    monkeypatch.setattr(precision, "HALF", replace(precision.HALF, flipped_share=5e-3))  # of random weights
    parity = read_contract(compared_fp16(original, [Radiograph(make_radiograph(1).pixels)])).parity
    assert parity["original"] == {"images": 49}
    assert parity["images"] == 1
    assert 0 < parity["max_abs_difference"] < 0.05


def test_an_fp16_model_with_other_masks_is_refused(model: onnx.ModelProto) -> None:
    spoilt = copy.deepcopy(model)
    weight = next(tensor for tensor in spoilt.graph.initializer if tensor.name == "stem.weight")
    values = onnx.numpy_helper.to_array(weight) * 1e-7  # below what FP16 can hold
    weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight.name))
    with pytest.raises(ParityError, match="differs from its original"):
        compared_fp16(spoilt, [Radiograph(make_radiograph(1).pixels)])


def test_typing_needs_no_torch(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    program = (
        "import sys; sys.modules['torch'] = None; from cxredge_calibration.model_file import read_model\n"
        "from pathlib import Path; from cxredge_export.precision import to_fp16\n"
        "print(len(to_fp16(read_model(Path(sys.argv[1]))[0]).graph.node))"
    )
    run = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == len(to_fp16(model).graph.node)


def test_the_runtime_takes_fp32_and_gives_fp32(model: onnx.ModelProto) -> None:
    session = onnxruntime.InferenceSession(to_fp16(model).SerializeToString(), providers=["CPUExecutionProvider"])
    assert [end.type for end in (*session.get_inputs(), *session.get_outputs())] == ["tensor(float)"] * 2
