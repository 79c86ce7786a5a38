"""OpenVINO gives what ONNX Runtime gives, to within rounding, and refuses the same files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from cxredge import Segmenter
from cxredge.backends import open_backend
from cxredge.bundle import bundled_model
from cxredge.contract import CONTRACT_KEY, Contract
from cxredge.errors import BackendError, CxredgeError, MissingExtraError, ModelError
from cxredge.phantom import make_radiograph
from cxredge.pipeline import available_cores
from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph

openvino = pytest.importorskip("openvino")
from cxredge.backends.openvino import OpenVinoBackend  # noqa: E402 - only after the module was found

INPUTS = np.random.default_rng(0).uniform(-1, 1, (5, 1, 64, 64)).astype(np.float32)


@pytest.fixture
def backend(model_file: Path) -> Iterator[OpenVinoBackend]:
    opened = open_backend(model_file, "openvino", threads=1)
    assert isinstance(opened, OpenVinoBackend)
    yield opened
    opened.close()


def test_contract_and_logits_are_those_of_the_file(backend: OpenVinoBackend, contract: Contract) -> None:
    assert (backend.name, backend.contract) == ("openvino", contract)
    logits = backend.run(INPUTS)
    assert (logits.shape, logits.dtype) == ((5, 64, 64), np.float32)
    np.testing.assert_allclose(logits, -INPUTS[:, 0] - 0.2, atol=1e-6)


def test_the_bundled_model_gives_the_masks_of_onnx_runtime() -> None:
    images = np.stack([network_input(Radiograph(make_radiograph(seed, 320, 256).pixels), 256) for seed in (1, 2)])
    logits = []
    for name in ("onnxruntime", "openvino"):
        opened = open_backend(bundled_model(), name)
        logits.append(opened.run(images[:, None]))
        opened.close()
    assert logits[0].max() > 1, "there are lungs in the radiographs"
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-3)  # BF16 would differ by 0.1
    assert ((logits[0] > 0) == (logits[1] > 0)).mean() > 1 - 1e-6


def test_results_stay_when_the_backend_runs_again(backend: OpenVinoBackend) -> None:
    first = backend.run(INPUTS)
    kept = first.copy()
    backend.run(-INPUTS)
    np.testing.assert_array_equal(first, kept)


def test_inputs_need_not_be_contiguous(backend: OpenVinoBackend) -> None:
    turned = INPUTS.transpose(0, 1, 3, 2)
    np.testing.assert_allclose(backend.run(turned), -turned[:, 0] - 0.2, atol=1e-6)


def test_many_threads_may_run_one_backend_with_batches_of_their_own(backend: OpenVinoBackend) -> None:
    batches = [INPUTS[: 1 + turn % 5] + np.float32(turn / 100) for turn in range(60)]
    with ThreadPoolExecutor(8) as pool:
        for batch, logits in zip(batches, pool.map(backend.run, batches), strict=True):
            np.testing.assert_allclose(logits, -batch[:, 0] - 0.2, atol=1e-6)


def test_threads_and_lanes_fill_the_cores(model_file: Path) -> None:
    cores = available_cores()
    for threads, lanes in ((1, cores), (cores, 1), (None, 1)):
        opened = open_backend(model_file, "openvino", threads=threads)
        assert isinstance(opened, OpenVinoBackend)
        assert opened.lanes == lanes
        compiled = opened._compiled
        assert compiled is not None
        assert compiled.get_property("NUM_STREAMS") == lanes
        assert compiled.get_property("INFERENCE_NUM_THREADS") == lanes * (threads or cores)
        assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
        opened.close()


def test_a_closed_backend_refuses_to_run_and_closes_again_quietly(model_file: Path) -> None:
    opened = open_backend(model_file, "openvino")
    opened.run(INPUTS)
    opened.close()
    with pytest.raises(BackendError, match="closed"):
        opened.run(INPUTS)
    opened.close()


@pytest.mark.parametrize("inputs", [INPUTS.astype(np.float64), INPUTS[:, 0], INPUTS[:, :, :32], INPUTS[:0]])
def test_inputs_that_do_not_fit_are_refused(inputs: np.ndarray, backend: OpenVinoBackend) -> None:
    with pytest.raises(BackendError, match="64, 64"):
        backend.run(inputs)


def test_damaged_files_are_refused_by_their_path(tmp_path: Path, model_file: Path) -> None:
    whole = model_file.read_bytes()
    path = tmp_path / "cut.onnx"
    for content in (b"", np.random.default_rng(0).bytes(5000), whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"cut\.onnx: .*\w"):
            open_backend(path, "openvino")


def test_a_model_without_a_contract_is_refused(tmp_path: Path, make_model: Any) -> None:
    with pytest.raises(ModelError, match=r"foreign\.onnx.*no cxredge contract"):
        open_backend(make_model(tmp_path / "foreign.onnx", metadata=None), "openvino")


@pytest.mark.parametrize("graph", [{"size": 32}, {"channels_in": 3}, {"channels_out": 2}])
def test_a_model_that_breaks_its_own_contract_is_refused(
    graph: dict[str, int], tmp_path: Path, make_model: Any
) -> None:
    with pytest.raises(CxredgeError, match=r"liar\.onnx: its (in|out)put is"):
        open_backend(make_model(tmp_path / "liar.onnx", **graph), "openvino")


def test_openvino_that_is_not_installed_is_asked_for_by_its_extra(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    for importer in ("cxredge.libraries.open_vino", "cxredge.backends.openvino"):
        monkeypatch.delitem(sys.modules, importer, raising=False)
    with pytest.raises(MissingExtraError, match=r"cxredge\[openvino\]"):
        open_backend(model_file, "openvino")


def test_the_segmenter_runs_on_it(model_file: Path, chest: np.ndarray) -> None:
    with Segmenter.load(model_file) as plain, Segmenter.load(model_file, backend="openvino") as other:
        np.testing.assert_array_equal(other(chest).mask, plain(chest).mask)


def quantised_model(path: Path, contract: Contract) -> Path:
    """A conv ``1 -> 16``, an INT8 conv ``16 -> 16`` and a conv ``16 -> 1``, with symmetric Q/DQ."""
    rng = np.random.default_rng(1)
    arrays = {
        "w1": rng.normal(0, 0.5, (16, 1, 3, 3)).astype(np.float32),
        "w2": rng.integers(-127, 128, (16, 16, 3, 3)).astype(np.int8),
        "w3": rng.normal(0, 0.2, (1, 16, 1, 1)).astype(np.float32),
        "step": np.array(0.03, np.float32),
        "weight_step": np.full(16, 0.002, np.float32),
        "zero": np.array(0, np.int8),
        "zeros": np.zeros(16, np.int8),
    }
    nodes = [
        helper.make_node("Conv", ["radiograph", "w1"], ["a"], pads=[1] * 4),
        helper.make_node("QuantizeLinear", ["a", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["b"]),
        helper.make_node("DequantizeLinear", ["w2", "weight_step", "zeros"], ["w"], axis=0),
        helper.make_node("Conv", ["b", "w"], ["c"], pads=[1] * 4, name="quantised"),
        helper.make_node("Conv", ["c", "w3"], ["logits"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, 64, 64]) for name in ("radiograph", "logits")
    ]
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "quantised", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    helper.set_model_props(model, {CONTRACT_KEY: replace(contract, precision="int8").to_json()})
    path.write_bytes(model.SerializeToString())
    return path


def test_quantised_convs_run_in_int8_and_give_what_their_scales_say(tmp_path: Path, contract: Contract) -> None:
    path = quantised_model(tmp_path / "small.int8.onnx", contract)
    opened = open_backend(path, "openvino", threads=1)
    assert isinstance(opened, OpenVinoBackend)
    assert opened._compiled is not None
    facts = [node.get_rt_info() for node in opened._compiled.get_runtime_model().get_ops()]
    convs = [fact["runtimePrecision"].astype(str) for fact in facts if fact["layerType"].astype(str) == "Convolution"]
    assert len(convs) == 3
    assert sum(precision in ("i8", "u8") for precision in convs) == 1
    exact = onnxruntime.SessionOptions()
    exact.add_session_config_entry("session.disable_quant_qdq", "1")
    (wanted,) = onnxruntime.InferenceSession(path, exact).run(None, {"radiograph": INPUTS})
    found = opened.run(INPUTS)
    assert wanted.std() > 0.1
    assert np.abs(found - wanted[:, 0]).max() < 0.01 * np.abs(wanted).max()
