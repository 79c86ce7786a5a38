"""The page for other languages: its Python runs as it stands, and its table is what the file has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from cxredge.bundle import bundled_model
from cxredge.phantom import make_radiograph
from cxredge.radiograph import Radiograph
from cxredge_calibration.model_file import read_model, write_model
from cxredge_export.processing_parity import compared_processing, whole_in_onnxruntime

PAGE = Path(__file__).parents[2] / "docs" / "any-language.md"
SNIPPET = re.compile(r"<!-- snippet: python -->\n```python\n(.*?)```", re.DOTALL)
USE = """
pixels = np.load("made.npy")
np.save("mask.npy", lungs(pixels))
np.save("inverted.npy", lungs(4095 - pixels, monochrome1=True))
try:
    lungs(pixels * 0)
except ValueError:
    print("refused")
"""


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return compared_processing(read_model(bundled_model())[0], [Radiograph(make_radiograph(1, 200, 200).pixels)])


def test_the_python_of_the_page_gives_the_mask(model: onnx.ModelProto, tmp_path: Path) -> None:
    (code,) = SNIPPET.findall(PAGE.read_text(encoding="utf-8"))
    assert "cxredge" not in code
    write_model(model, tmp_path / "lungs.onnx")
    pixels = make_radiograph(4, 260, 310).pixels
    np.save(tmp_path / "made.npy", pixels)
    done = subprocess.run([sys.executable, "-c", code + USE], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
    wanted, _ = whole_in_onnxruntime(model)(pixels.astype(np.float32))
    for name in ("mask.npy", "inverted.npy"):
        assert int((np.load(tmp_path / name) != wanted).sum()) <= 1


def test_the_table_of_the_page_is_what_the_file_has(model: onnx.ModelProto) -> None:
    rows = re.findall(r"^\| (input|output) \| `(\w+)` \| (\w+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    types = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.UINT8: "uint8"}
    graph = model.graph
    ends = [("input", end) for end in graph.input] + [("output", end) for end in graph.output]
    assert rows == [(kind, end.name, types[end.type.tensor_type.elem_type]) for kind, end in ends]
