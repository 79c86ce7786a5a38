"""Models, contracts and manifests that are too large, too deep or in several files are refused by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from PIL import Image

from cxredge.backends.onnxruntime import OnnxRuntimeBackend
from cxredge.backends.openvino import OpenVinoBackend
from cxredge.contract import Contract, parse_contract
from cxredge.data.dataset import open_dataset
from cxredge.errors import ConfigError, DatasetError, ModelError
from cxredge.evaluation.comparison import read_row
from cxredge.limits import DEEPEST_NESTING, LARGEST_JSON, LARGEST_MANIFEST, LARGEST_MODEL
from cxredge_calibration.model_file import read_model


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        os.truncate(file.fileno(), size)
    return path


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


READERS = [OnnxRuntimeBackend, OpenVinoBackend, read_model]


@pytest.mark.parametrize("reader", READERS)
def test_a_model_file_beyond_the_limit_is_refused_by_name(reader: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"huge\.onnx: has .*bytes"):
        reader(sparse(tmp_path / "huge.onnx", LARGEST_MODEL + 1))


@pytest.fixture
def external_model(model_file: Path, tmp_path: Path) -> Path:
    """The tiny model with its weight in another file beside it."""
    model = onnx.load(model_file)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == "weight")
    (tmp_path / "weight.bin").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "weight.bin"
    (tmp_path / "parts.onnx").write_bytes(model.SerializeToString())
    return tmp_path / "parts.onnx"


@pytest.mark.parametrize("reader", [OnnxRuntimeBackend, read_model])
def test_a_model_in_several_files_is_refused(reader: Any, external_model: Path) -> None:
    with pytest.raises(ModelError, match=r"parts\.onnx: "):
        reader(external_model)


@pytest.mark.parametrize("place", ["../outside.bin", "/etc/hostname"])
@pytest.mark.parametrize("reader", READERS)
def test_a_model_that_names_a_file_elsewhere_is_refused(
    reader: Any, place: str, external_model: Path, tmp_path: Path
) -> None:
    model = onnx.load(external_model, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = place
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(np.full(1, -1, np.float32).tobytes())
    (folder / "evil.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"evil\.onnx: "):
        reader(folder / "evil.onnx")


def test_a_contract_is_refused_beyond_32_levels(contract: Contract) -> None:
    content = json.loads(contract.to_json())
    for depth, accepted in ((DEEPEST_NESTING - 2, True), (DEEPEST_NESTING - 1, False), (100_000, False)):
        text = json.dumps({**content, "measured": {"a": 0}}).replace('"a": 0', '"a": ' + "[" * depth + "]" * depth)
        if accepted:
            assert parse_contract(text).name == contract.name
        else:
            with pytest.raises(ModelError, match="nested deeper than 32 levels"):
                parse_contract(text)


def test_a_contract_with_nan_is_refused(contract: Contract) -> None:
    text = json.dumps({**json.loads(contract.to_json()), "measured": {"dice": float("nan")}})
    with pytest.raises(ModelError, match="NaN is not a number"):
        parse_contract(text)


def test_evaluations_are_refused_beyond_their_limits(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text(json.dumps({"datasets": nested(100)}))
    for path in (tmp_path / "deep.json", sparse(tmp_path / "huge.json", LARGEST_JSON + 1)):
        with pytest.raises(ConfigError, match=path.name):
            read_row(path)


# Manifests


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32)).save(tmp_path / "images" / "a.png")
    return tmp_path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name,split\n" + b"a,test\n" * 1_000_001, "more than 1000000 rows"),
        (b"name,split\na,\xff\n", "cannot be read"),
        (b'name,split\n"' + b"a" * 200_000 + b'",test\n', "field larger than field limit"),
        (b"name,split\na\n", "row 1 has more or fewer fields"),
        (b"name,split\na,test,b,c\n", "row 1 has more or fewer fields"),
        (b"name,split\na,test\x00\n\x00\n", "."),
    ],
    ids=["rows", "encoding", "field", "short", "long", "NUL"],
)
def test_a_hostile_manifest_is_refused_by_name(content: bytes, said: str, dataset: Path) -> None:
    (dataset / "manifest.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=rf"manifest\.csv: .*{said}"):
        open_dataset(dataset)


def test_a_manifest_beyond_the_limit_is_refused(dataset: Path) -> None:
    sparse(dataset / "manifest.csv", LARGEST_MANIFEST + 1)
    with pytest.raises(DatasetError, match=f"has {LARGEST_MANIFEST + 1} bytes"):
        open_dataset(dataset)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "a/../../secret", "..\\secret", "images/a", ""])
def test_a_name_in_a_manifest_is_no_path(name: str, dataset: Path) -> None:
    (dataset.parent / "secret.png").write_bytes((dataset / "images" / "a.png").read_bytes())
    (dataset / "manifest.csv").write_text(f"name,split\n{name},test\n")
    with pytest.raises(DatasetError, match="no image for"):
        open_dataset(dataset)
