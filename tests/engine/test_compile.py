"""NVIDIA's own compiler builds every model that we can make: TensorRT for RTX needs no GPU for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import onnx
import pytest

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
torch = pytest.importorskip("torch", reason="PyTorch makes the networks that are compiled")

from cxredge.contract import Contract  # noqa: E402 - what is missing skips first
from cxredge.engine.builder import BuildSettings, build_plan  # noqa: E402
from cxredge.engine.flavour import Flavour, load_flavour  # noqa: E402
from cxredge.engine.progress import BuildProgress  # noqa: E402
from cxredge.engine.record import Batches  # noqa: E402
from cxredge_calibration.layers import find_layers, prepare_graph  # noqa: E402
from cxredge_calibration.model_file import add_contract, read_contract  # noqa: E402
from cxredge_calibration.phases import merge_phases  # noqa: E402
from cxredge_calibration.quantisation import quantise  # noqa: E402
from cxredge_export.conversion import to_onnx  # noqa: E402
from cxredge_export.folding import FOLDS, fold, fold_code  # noqa: E402
from cxredge_export.precision import to_fp16  # noqa: E402
from cxredge_train.networks import Generator, NetworkConfig, initialise  # noqa: E402

WIDTHS = (16, 32, 64)
PRECISIONS = ("fp32", "fp16", "int8")
PROFILES: tuple[Batches, ...] = ((1, 1, 1), (1, 4, 16), (8, 8, 8), (1, 8, 32))
CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
SIZE = 256

SMALLEST_PLAN = 1_000_000
"""Bytes below which a plan cannot hold the weights of the smallest network."""

Typed: TypeAlias = Callable[[int, str], bytes]
PlanBytes: TypeAlias = Callable[..., int]


@pytest.fixture(scope="module")
def rtx() -> Flavour:
    return load_flavour("tensorrt_rtx")


@pytest.fixture(scope="module")
def typed() -> Typed:
    """Folded networks with random weights, by width and precision; each is made once."""
    made: dict[tuple[int, str], onnx.ModelProto] = {}

    def make(width: int, precision: str) -> onnx.ModelProto:
        if precision == "fp32":
            return folded(width)
        if precision == "fp16":
            return to_fp16(get(width, "fp32"))
        return to_fp16(quantised(get(width, "fp32")))

    def get(width: int, precision: str) -> onnx.ModelProto:
        key = width, precision
        if key not in made:
            made[key] = make(width, precision)
        return made[key]

    return lambda width, precision: get(width, precision).SerializeToString()


def folded(width: int) -> onnx.ModelProto:
    torch.manual_seed(0)
    generator = Generator(NetworkConfig(width=width, input_size=SIZE))
    initialise(generator)
    model = to_onnx(fold(fold_code(generator.eval(), None), tuple(FOLDS)), SIZE)
    add_contract(model, Contract(name="random", width=width, input_size=SIZE, code="a_seg", licence="none"))
    return model


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every layer that may be in INT8 is; the compiler does not care what the ranges are."""
    contract = read_contract(model)
    graph = prepare_graph(merge_phases(model), contract)
    layers = find_layers(graph)
    copy = quantise(graph, layers, {layer.source: (-3.0, 3.0) for layer in layers})
    add_contract(copy, replace(contract, precision="int8", calibration={}))
    return copy


@pytest.fixture(scope="module")
def plan_bytes(typed: Typed, rtx: Flavour) -> PlanBytes:
    """Compiles a network, each once, and gives the size of its plan."""
    made: dict[tuple[int, str, str, Batches], int] = {}

    def get(width: int, precision: str, capability: str = "8.9", batches: Batches = (1, 4, 16)) -> int:
        key = width, precision, capability, batches
        if key not in made:
            settings = BuildSettings(batches, capability, native=False)
            made[key] = len(build_plan(typed(width, precision), rtx, settings, BuildProgress()))
        return made[key]

    return get


def test_the_compiler_s_capabilities_are_those_of_this_test(rtx: Flavour) -> None:
    assert rtx.capabilities == CAPABILITIES


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_width_compiles_in_every_precision(width: int, precision: str, plan_bytes: PlanBytes) -> None:
    assert plan_bytes(width, precision) > SMALLEST_PLAN


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("capability", [one for one in CAPABILITIES if one != "8.9"])
def test_every_gpu_is_compiled_for(capability: str, precision: str, plan_bytes: PlanBytes) -> None:
    assert plan_bytes(16, precision, capability) > SMALLEST_PLAN


@pytest.mark.parametrize("batches", [one for one in PROFILES if one != (1, 4, 16)])
def test_every_batch_profile_compiles(batches: Batches, plan_bytes: PlanBytes) -> None:
    assert plan_bytes(16, "fp16", batches=batches) > SMALLEST_PLAN


def test_lower_precision_makes_smaller_plans(plan_bytes: PlanBytes) -> None:
    sizes = [plan_bytes(32, precision) for precision in PRECISIONS]
    assert sizes[0] > 1.5 * sizes[1]
    assert sizes[1] > 1.2 * sizes[2]


@pytest.mark.slow
@pytest.mark.parametrize("batches", PROFILES, ids=str)
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_full_product_compiles(
    width: int, precision: str, capability: str, batches: Batches, plan_bytes: PlanBytes
) -> None:
    assert plan_bytes(width, precision, capability, batches) > SMALLEST_PLAN
