"""What the tests on a real GPU start from: its TensorRT, and engines that ``build-engine`` makes of real models.

They run unchanged on any machine with an NVIDIA GPU and one of the two TensorRTs, without PyTorch, and skip
elsewhere, saying why. ``CXREDGE_GPU_REPORT`` names a file to which figures are written as JSON, as they come.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cxredge.backends import Backend
from cxredge.backends.onnxruntime import OnnxRuntimeBackend
from cxredge.backends.tensorrt import TensorRTBackend
from cxredge.bundle import bundled_model
from cxredge.cli import main
from cxredge.engine.device import Device, require_device
from cxredge.engine.flavour import Flavour, FlavourChoice, find_flavour
from cxredge.errors import EngineError
from cxredge.phantom import make_radiograph
from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph
from cxredge.runs.results import write_atomically

FLAVOURS: tuple[FlavourChoice, ...] = ("tensorrt", "tensorrt-rtx")
REPORT = "CXREDGE_GPU_REPORT"
Build = Callable[..., Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def device() -> Device:
    """The GPU."""
    try:
        return require_device()
    except EngineError as error:
        pytest.skip(f"no CUDA device: {error}")


@pytest.fixture(scope="session", params=FLAVOURS)
def flavour(request: pytest.FixtureRequest, device: Device) -> Flavour:
    """Each TensorRT that is installed."""
    try:
        return find_flavour(request.param)
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def choice(flavour: Flavour) -> FlavourChoice:
    """The flavour's name on the command line."""
    return "tensorrt" if flavour.name == "tensorrt" else "tensorrt-rtx"


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cache of engines for the whole session."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "cxredge" / "engines"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``models(precision)`` gives a model file of the bundled network."""
    onnx_files = pytest.importorskip("cxredge_calibration.model_file", reason="typing models needs onnx")
    from cxredge_calibration.layers import find_layers, prepare_graph
    from cxredge_calibration.quantisation import quantise
    from cxredge_calibration.ranges import estimate_ranges

    folder, inputs = tmp_path_factory.mktemp("models"), made_inputs(8)

    def int8(path: Path) -> Path:
        model, contract = onnx_files.read_model(bundled_model())
        graph = prepare_graph(model, contract)
        layers = find_layers(graph)
        names = tuple(f"made {number}" for number in range(len(inputs)))
        table = estimate_ranges(graph, layers, list(inputs[:, 0]), names, "minmax", 1, lambda done, total: None)
        ranges = {name: (one.low, one.high) for name, one in table.items()}
        quantised = quantise(graph, layers, ranges)
        onnx_files.add_contract(quantised, replace(contract, precision="int8", calibration={"samples": "made"}))
        onnx_files.write_model(quantised, path)
        return path

    def get(precision: str) -> Path:
        path = folder / f"bundled.{precision}.onnx"
        if precision != "int8":
            return bundled_model()
        return path if path.is_file() else int8(path)

    return get


@pytest.fixture(scope="session")
def build(models: Callable[[str], Path], choice: FlavourChoice) -> Build:
    """``build(precision, batches)`` runs ``cxredge build-engine`` into the cache and gives the plan."""

    def run(precision: str = "fp16", batches: str = "1,4,16") -> Path:
        options = ["--precision", precision, "--batch", batches, "--flavour", choice]
        result = CliRunner().invoke(main, ["build-engine", str(models(precision)), *options])
        assert result.exit_code == 0, result.output
        return Path(result.output.partition(": ")[0])

    return run


@pytest.fixture(scope="session", params=["fp32", "fp16", "int8"])
def precision(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


@pytest.fixture(scope="session")
def plan(build: Build) -> Path:
    """An FP16 engine for batches of 1 to 16."""
    return build()


@pytest.fixture
def backend(plan: Path) -> Iterator[TensorRTBackend]:
    opened = TensorRTBackend(plan)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def reference() -> Iterator[Backend]:
    """The bundled FP32 model in ONNX Runtime."""
    opened = OnnxRuntimeBackend(bundled_model())
    yield opened
    opened.close()


def made_inputs(count: int) -> np.ndarray:
    """``(count, 1, 256, 256)`` network inputs of made radiographs."""
    made = [Radiograph(make_radiograph(seed, 320, 256).pixels) for seed in range(count)]
    return np.stack([network_input(one, 256) for one in made])[:, None]


@pytest.fixture(scope="session")
def inputs() -> np.ndarray:
    return made_inputs(16)


class Figures(dict[str, Any]):
    """What the tests have measured, written to the file that ``CXREDGE_GPU_REPORT`` names as each figure comes."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        if REPORT in os.environ:
            write_atomically(Path(os.environ[REPORT]), self.text().encode())

    def text(self) -> str:
        """All of it as JSON."""
        return json.dumps(self, indent=2, default=str)


@pytest.fixture(scope="session")
def report() -> Iterator[dict[str, Any]]:
    """Figures of the session; printed at its end."""
    figures = Figures()
    figures["started"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    yield figures
    print(f"\n{figures.text()}")
