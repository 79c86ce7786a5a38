"""A small network with every kind of layer, and radiographs that it segments: what calibration's tests work on.

The network calls dark pixels lung and gets there through a stem, a strided and a transposed convolution,
a residual block with a 1x1 shortcut, and a 1x1 head, as the real ones do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cxredge.contract import Contract
from cxredge.phantom import make_radiograph
from cxredge_calibration.layers import Layer, find_layers, prepare_graph
from cxredge_calibration.model_file import add_contract, write_model

SIZE, CHANNELS = 64, 4

MakeChests = Callable[..., Path]


def kernel(side: int, taps: slice, generator: np.random.Generator) -> np.ndarray:
    """``(C, C, side, side)``: each channel averaged over the ``taps`` of its window, and a little noise."""
    weight = np.zeros((CHANNELS, CHANNELS, side, side), np.float32)
    for channel in range(CHANNELS):
        weight[channel, channel, taps, taps] = 1 / (taps.stop - taps.start) ** 2
    return weight + generator.normal(0, 1e-3, weight.shape).astype(np.float32)


def darkness_network(opset: int = 20) -> onnx.ModelProto:
    """``logit = -x - 0.2`` roughly, for an input ``(N, 1, 64, 64)``, in seven convolutions."""
    generator = np.random.default_rng(0)
    weights = {
        "stem.weight": np.pad(np.full((CHANNELS, 1, 1, 1), -1, np.float32), ((0, 0), (0, 0), (1, 1), (1, 1))),
        "stem.bias": np.full(CHANNELS, -0.2, np.float32),
        "plain.weight": kernel(3, slice(1, 2), generator),
        "plain.bias": np.zeros(CHANNELS, np.float32),
        "down.weight": kernel(4, slice(1, 3), generator),
        "deep.weight": kernel(3, slice(1, 2), generator),
        "up.weight": 4 * kernel(4, slice(1, 3), generator),
        "shortcut.weight": np.eye(CHANNELS, dtype=np.float32)[:, :, None, None],
        "head.weight": np.full((1, CHANNELS, 1, 1), 4 / CHANNELS, np.float32),
    }
    one, half = {"pads": [1] * 4}, {"pads": [1] * 4, "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["radiograph", "stem.weight", "stem.bias"], ["s"], "stem", **one),
        helper.make_node("LeakyRelu", ["s"], ["s_"], "relu0", alpha=0.2),
        helper.make_node("Conv", ["s_", "plain.weight", "plain.bias"], ["p"], "plain", **one),
        helper.make_node("LeakyRelu", ["p"], ["p_"], "relu1", alpha=0.9),
        helper.make_node("Conv", ["p_", "down.weight"], ["d"], "down", **half),
        helper.make_node("LeakyRelu", ["d"], ["d_"], "relu2", alpha=0.9),
        helper.make_node("Conv", ["d_", "deep.weight"], ["e"], "deep", **one),
        helper.make_node("LeakyRelu", ["e"], ["e_"], "relu3", alpha=0.9),
        helper.make_node("ConvTranspose", ["e_", "up.weight"], ["u"], "up", **half),
        helper.make_node("Conv", ["s", "shortcut.weight"], ["c"], "shortcut"),
        helper.make_node("Add", ["u", "c"], ["a"], "add"),
        helper.make_node("Conv", ["a", "head.weight"], ["logits"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "darkness",
        [helper.make_tensor_value_info("radiograph", TensorProto.FLOAT, ["N", 1, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1, SIZE, SIZE])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def contract_for(**fields: Any) -> Contract:
    settings: dict[str, Any] = {"name": "darkness", "width": CHANNELS, "input_size": SIZE, "code": "a_seg"}
    return Contract(**{**settings, "licence": "CC0-1.0", "measured": {"datasets": []}, **fields})


@pytest.fixture(scope="session")
def make_network() -> Callable[..., onnx.ModelProto]:
    """``make_network(opset=20)`` gives the small network."""
    return darkness_network


@pytest.fixture(scope="session")
def make_contract() -> Callable[..., Contract]:
    """``make_contract(**fields)`` gives its contract."""
    return contract_for


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network as a model file."""
    model = darkness_network()
    add_contract(model, contract_for())
    path = tmp_path_factory.mktemp("model") / "darkness.onnx"
    write_model(model, path)
    return path


@pytest.fixture
def graph() -> onnx.ModelProto:
    """The small network, prepared for quantisation."""
    return prepare_graph(darkness_network(), contract_for())


@pytest.fixture
def layers(graph: onnx.ModelProto) -> tuple[Layer, ...]:
    """Its quantisable layers: plain, down, deep, up."""
    return find_layers(graph)


def made_chest(seed: int, side: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """``(side, side)`` 12-bit radiograph of two dark ellipses on bright tissue, and the mask of the ellipses."""
    draw = np.random.default_rng(seed)
    row, column = np.mgrid[:side, :side] / side
    lungs = np.zeros((side, side), bool)
    for middle in (0.29, 0.71):
        width, height = draw.uniform(0.12, 0.16), draw.uniform(0.28, 0.36)
        lungs |= ((column - middle) / width) ** 2 + ((row - 0.5) / height) ** 2 < 1
    pixels = np.where(lungs, draw.uniform(200, 900), draw.uniform(2600, 3200)) + draw.normal(0, 60, lungs.shape)
    pixels[0, :2] = 0, 4095
    return pixels.clip(0, 4095).astype(np.uint16), lungs


@pytest.fixture(scope="session")
def make_chests() -> MakeChests:
    """``make_chests(folder, count, first=0)`` writes radiographs that the small network segments."""

    def make(folder: Path, count: int, first: int = 0) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for seed in range(first, first + count):
            cv2.imwrite(str(folder / f"chest{seed}.png"), made_chest(seed)[0])
        return folder

    return make


@pytest.fixture
def chests(tmp_path: Path, make_chests: MakeChests) -> Path:
    """A folder of 20 radiographs."""
    return make_chests(tmp_path / "chests", 20)


@pytest.fixture
def dataset(tmp_path: Path, make_chests: MakeChests) -> Path:
    """A data set: 20 training rows of 18 patients with masks, infections in four; a val, two test rows."""
    folder = tmp_path / "made"
    make_chests(folder / "images", 23)
    rows = ["name,split,patientid"]
    for seed in range(23):
        lungs = made_chest(seed)[1]
        infection = lungs & (np.arange(80) < 40)[:, None]
        for kind, mask, wanted in (("masks", lungs, True), ("infection", infection, seed < 4)):
            if wanted:
                (folder / kind).mkdir(exist_ok=True)
                cv2.imwrite(str(folder / kind / f"chest{seed}.png"), 255 * mask.astype(np.uint8))
        split = "train" if seed < 20 else "val" if seed == 20 else "test"
        rows.append(f"chest{seed},{split},{seed % 18 if seed < 20 else seed}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 16 made radiographs that the bundled model segments."""
    folder = tmp_path_factory.mktemp("phantoms")
    for seed in range(16):
        cv2.imwrite(str(folder / f"phantom{seed}.png"), make_radiograph(seed, 256, 256).pixels)
    return folder
