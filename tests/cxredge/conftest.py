"""Made radiographs, tiny DICOM files and a tiny model: what the runtime's tests work on.

The model needs neither torch nor training: it calls dark pixels lung (``logit = -x - 0.2`` for an input x
in [-1, 1]), so that a test knows beforehand what the mask must be.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from cxredge import Segmenter
from cxredge.contract import CONTRACT_KEY, Contract
from cxredge.phantom import make_radiograph

SIZE = 64
"""Side of the tiny model's input."""

MakeDicom = Callable[..., Dataset]
MakeModel = Callable[..., Path]


def contract_for(size: int = SIZE, **fields: Any) -> Contract:
    return replace(Contract(name="darkness", width=1, input_size=size, code="a_seg", licence="CC0-1.0"), **fields)


def darkness_graph(size: int, channels_in: int = 1, channels_out: int = 1) -> onnx.ModelProto:
    """``logit = -x - 0.2`` for an input ``(N, channels_in, size, size)``."""
    weight = np.full((channels_out, channels_in, 1, 1), -1, np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["radiograph", "weight", "bias"], ["logits"])],
        "darkness",
        [helper.make_tensor_value_info("radiograph", TensorProto.FLOAT, ["N", channels_in, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", channels_out, size, size])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.full(channels_out, -0.2, np.float32), "bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="session")
def contract() -> Contract:
    """The tiny model's contract."""
    return contract_for()


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """``make_model(path, metadata=..., **graph)`` writes a model file; ``metadata=None`` leaves the contract out."""

    def make(path: Path, metadata: str | None = contract_for().to_json(), **graph: int) -> Path:
        model = darkness_graph(**{"size": SIZE, **graph})
        if metadata is not None:
            helper.set_model_props(model, {CONTRACT_KEY: metadata})
        path.write_bytes(model.SerializeToString())
        return path

    return make


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory, make_model: MakeModel) -> Path:
    """A tiny model that calls dark pixels lung."""
    return make_model(tmp_path_factory.mktemp("model") / "darkness.onnx")


@pytest.fixture(scope="session")
def segmenter(model_file: Path) -> Iterator[Segmenter]:
    """The tiny model, loaded once."""
    with Segmenter.load(model_file, threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def chest() -> np.ndarray:
    """``(80, 96)`` 12-bit radiograph, two dark ellipses on bright tissue: two lungs to the tiny model."""
    row, column = np.mgrid[:80, :96]
    pixels = 3000 + 5 * column + 3 * row
    for middle in (28, 68):
        inside = ((column - middle) / 13) ** 2 + ((row - 40) / 28) ** 2 < 1
        pixels[inside] = 300 + (7 * column + 11 * row)[inside] % 256
    return pixels.astype(np.uint16)


@pytest.fixture(scope="session")
def phantom() -> np.ndarray:
    """``(200, 160)`` 12-bit made chest radiograph."""
    return make_radiograph(3, 200, 160).pixels


@pytest.fixture(scope="session")
def make_dicom() -> MakeDicom:
    """``make_dicom(pixels, bits=..., **attributes)`` gives a data set that holds ``pixels`` uncompressed."""

    def make(pixels: np.ndarray, bits: int | None = None, **attributes: Any) -> Dataset:
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=["cxredge", "tests"])
        dataset.PatientName, dataset.PatientID = "Secret^Person", "ID-4711"
        dataset.Rows, dataset.Columns = pixels.shape[:2]
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.BitsAllocated = 8 * pixels.dtype.itemsize
        dataset.BitsStored = bits or dataset.BitsAllocated
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        dataset.PixelData = pixels.tobytes()
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        return dataset

    return make


@pytest.fixture(scope="session")
def dicom_errors() -> Callable[[bytes], list[str]]:
    """``dicom_errors(file)``: what dciodvfy finds wrong with a DICOM file. Without the tool the test fails."""
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.fail("dciodvfy, which checks DICOM objects, is missing: apt-get install dicom3tools")

    def check(content: bytes) -> list[str]:
        with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
            file.write(content)
            file.flush()
            told = subprocess.run([tool, "-new", file.name], capture_output=True, text=True, errors="replace")
        lines = told.stderr.splitlines()
        assert any(line in ("Segmentation", "SCImage", "DXImageForPresentation") for line in lines), told.stderr
        return [line for line in lines if line.startswith("Error")]

    return check


@pytest.fixture
def one_image_folder(tmp_path: Path, chest: np.ndarray) -> Path:
    """A folder with one good radiograph, ``chest.png``."""
    folder = tmp_path / "scans"
    folder.mkdir()
    Image.fromarray(chest).save(folder / "chest.png")
    return folder


@pytest.fixture
def mixed_folder(tmp_path: Path, chest: np.ndarray, make_dicom: MakeDicom) -> Path:
    """Good radiographs among everything that a stranger's folder may hold; ``g*`` are good, ``b*`` are bad."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    png = folder / "g1.png"
    Image.fromarray(chest).save(png)
    np.save(folder / "g2.npy", chest)
    make_dicom(chest, 12, ImagerPixelSpacing=[0.5, 0.25]).save_as(folder / "g3.dcm", enforce_file_format=True)
    (folder / "b1-truncated.png").write_bytes(png.read_bytes()[: png.stat().st_size // 2])
    (folder / "b2-text.dcm").write_text("these are not the pixels you are looking for\n")
    photo = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(photo).save(folder / "b3-photo.png")
    Image.new("L", (1, 1)).save(folder / "b4-dot.png")
    Image.new("L", (64, 64), 128).save(folder / "b5-constant.png")
    (folder / "notes.txt").write_text("not a radiograph")
    return folder
