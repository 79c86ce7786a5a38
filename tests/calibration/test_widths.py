"""Calibration at the widths of ``standard`` and ``paper``: the bundled model, widened, and networks without training.

Widening repeats every channel and shares the weights of those that read it between the copies, unevenly: the
function stays the bundled model's, so that the gate has lungs to compare, and the weights are as different from each
other as trained ones.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from onnx import numpy_helper

from cxredge import bundled_model
from cxredge.cli import main
from cxredge.engine.builder import BuildSettings, build_plan
from cxredge.engine.flavour import load_flavour
from cxredge.engine.progress import BuildProgress
from cxredge.phantom import make_radiograph
from cxredge_calibration import sensitivity
from cxredge_calibration.layers import CONVOLUTIONS, first_convolutions, last_convolutions, name_nodes
from cxredge_calibration.model_file import add_contract, read_contract, read_model, write_model
from cxredge_calibration.phases import merge_phases
from cxredge_calibration.simulation import open_session, run
from cxredge_export.precision import to_fp16

EDGE = 16
WIDTHS = (32, 64)
UNEVEN = 0.25
"""How far a copy's share of a weight is from an even one, at most."""


def narrow_model() -> onnx.ModelProto:
    """The bundled model as calibration sees it, without phases."""
    return merge_phases(read_model(bundled_model())[0])


def widened(model: onnx.ModelProto, times: int) -> onnx.ModelProto:
    """``model`` with ``times`` as many channels in every layer but the input and the output, and the same function."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    generator = np.random.default_rng(0)
    weights = {tensor.name: tensor for tensor in copy.graph.initializer}
    name_nodes(copy.graph)
    first, last = set(first_convolutions(copy.graph)), set(last_convolutions(copy.graph))
    done: set[str] = set()  # norms share theirs
    for node in copy.graph.node:
        parameters = [name for name in node.input if name in weights and name not in done]
        done.update(parameters)
        if not parameters:
            continue
        if node.op_type in CONVOLUTIONS:
            ends = node.name not in first, node.name not in last
            weight, *bias = (numpy_helper.to_array(weights[name]) for name in parameters)
            new = [widened_weight(weight, times, ends, node.op_type == "ConvTranspose", generator)]
            new += [np.tile(one, times) if ends[1] else one for one in bias]
        elif node.op_type == "InstanceNormalization":
            new = [np.tile(numpy_helper.to_array(weights[name]), times) for name in parameters]
        else:
            new = [numpy_helper.to_array(weights[name]) for name in parameters]
            assert all(one.size == 1 for one in new) or node.op_type == "Resize", f"{node.op_type} is not widened"
        for name, value in zip(parameters, new, strict=True):
            weights[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))
    del copy.graph.value_info[:]
    contract = read_contract(model)
    add_contract(copy, replace(contract, name=f"widened-{times}", width=times * contract.width))
    return copy


def widened_weight(
    weight: NDArray[np.float32], times: int, ends: tuple[bool, bool], transposed: bool, generator: np.random.Generator
) -> NDArray[np.float32]:
    """``(O, I, H, W)``, or ``(I, O, H, W)`` of a transposed convolution; ``ends`` says whether I and O are repeated."""
    reading, giving = (0, 1) if transposed else (1, 0)
    if ends[1]:
        weight = np.concatenate([weight] * times, axis=giving)
    if not ends[0]:
        return weight
    shares = 1 / times + generator.uniform(-UNEVEN, UNEVEN, (times, *weight.shape)).astype(np.float32) / times
    shares[-1] = 1 - shares[:-1].sum(axis=0)
    return np.concatenate([weight * share for share in shares], axis=reading)


@pytest.fixture(scope="module", params=WIDTHS)
def wide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, widened."""
    path: Path = tmp_path_factory.mktemp("wide") / f"w{request.param}.onnx"
    write_model(widened(narrow_model(), request.param // EDGE), path)
    return path


def test_a_widened_model_is_the_same_function() -> None:
    narrow = narrow_model()
    wide = widened(narrow, 2)
    assert read_contract(wide).width == 2 * EDGE
    pixels = made_input()
    before, after = (run(open_session(model, 1), pixels)[0] for model in (narrow, wide))
    np.testing.assert_allclose(after, before, atol=2e-3)
    assert ((after > 0) != (before > 0)).sum() <= 2


def made_input() -> NDArray[np.float32]:
    """``(256, 256)`` network input."""
    pixels = make_radiograph(1, 256, 256).pixels.astype(np.float32)
    return 2 * (pixels - pixels.min()) / np.ptp(pixels) - 1


def calibrate(model: Path, samples: Path, output: Path, *options: str) -> tuple[int, str]:
    """``cxredge calibrate`` with few samples; gives its exit code and what it printed."""
    few = ("--count", "16", "--method", "minmax", "--threads", "1")
    result = CliRunner().invoke(main, ["calibrate", str(model), str(samples), "-o", str(output), *few, *options])
    return result.exit_code, result.output


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sensitivity is measured on one image, to save time."""
    monkeypatch.setattr(sensitivity, "IMAGES", 1)
    monkeypatch.setattr(sensitivity, "SIGNAL_IMAGES", 1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("quick")
def test_a_wide_model_is_calibrated_typed_and_compiled(wide: Path, phantoms: Path, tmp_path: Path) -> None:
    output = tmp_path / "wide.int8.onnx"
    code, said = calibrate(wide, phantoms, output)
    assert code == 0, said
    model, contract = read_model(output)
    assert contract.calibration is not None
    assert contract.calibration["quantised_share_of_macs"] >= 0.5
    assert contract.calibration["gate"]["drop"] <= contract.calibration["gate"]["max_drop"] == 0.002
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    settings = BuildSettings((1, 4, 16), "8.9", native=False)
    plan = build_plan(to_fp16(model).SerializeToString(), load_flavour("tensorrt_rtx"), settings, BuildProgress())
    assert len(plan) > 1_000_000


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("quick")
def test_the_gate_refuses_a_wide_model_that_may_lose_nothing(wide: Path, phantoms: Path, tmp_path: Path) -> None:
    code, said = calibrate(wide, phantoms, tmp_path / "a.onnx", "--max-drop", "0", "--least-quantised", "1")
    assert code == 1
    assert "INT8 loses" in said
    content = json.loads((tmp_path / "a.calibration.json").read_text())
    assert not content["passed"]
    assert content["sensitivity"][0]["layer"] in said
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("width", WIDTHS)
def test_an_untrained_wide_model_is_refused(width: int, phantoms: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch makes the network")
    from cxredge.contract import Contract
    from cxredge_export.conversion import to_onnx
    from cxredge_export.folding import FOLDS, fold, fold_code
    from cxredge_train.networks import Generator, NetworkConfig, initialise

    torch.manual_seed(0)
    generator = Generator(NetworkConfig(width=width, input_size=256))
    initialise(generator)
    model = to_onnx(fold(fold_code(generator.eval(), None), tuple(FOLDS)), 256)
    add_contract(model, Contract(name="random", width=width, input_size=256, code="a_seg", licence="none"))
    write_model(model, tmp_path / "random.onnx")
    code, said = calibrate(tmp_path / "random.onnx", phantoms, tmp_path / "a.onnx")
    assert code == 1
    assert "the model finds no two lungs in" in said
    assert not (tmp_path / "a.onnx").exists()
