"""The C program of the documentation gives cxredge's masks, with the library that the Python wheel brings."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxredge.bundle import bundled_model
from cxredge.libraries.onnx_runtime import onnxruntime
from cxredge.phantom import make_radiograph
from cxredge.radiograph import Radiograph
from cxredge_calibration.model_file import read_model, write_model
from cxredge_export.processing_parity import compared_processing, raw_image, whole_in_onnxruntime

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "docs" / "c" / "segment.c"
OWN_HEADER = Path(__file__).parent / "c_api"
SONAME = "libonnxruntime.so.1"
"""Name by which programs look for the library; the wheel has it only under its full version."""
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic")


def include_flags() -> list[str]:
    """Of the system's header where it has one, else of the part that is kept beside this test."""
    if shutil.which("pkg-config"):
        found = subprocess.run(["pkg-config", "--cflags", "libonnxruntime"], capture_output=True, text=True)
        if found.returncode == 0:
            return found.stdout.split()
    return [f"-I{OWN_HEADER}"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or pytest.skip("there is no C compiler")
    libraries = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))
    if not libraries:
        pytest.skip("this onnxruntime wheel has no shared library")
    folder = tmp_path_factory.mktemp("c")
    (folder / SONAME).symlink_to(libraries[0])
    linked = [str(folder / SONAME), f"-Wl,-rpath,{folder}"]
    subprocess.run(
        [compiler, *WARNINGS, *include_flags(), str(SOURCE), "-o", "segment", *linked], check=True, cwd=folder
    )
    return folder / "segment"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "lungs.onnx"
    radiographs = [Radiograph(make_radiograph(1, 200, 200).pixels)]
    write_model(compared_processing(read_model(bundled_model())[0], radiographs), path)
    return path


def run(*command: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.parametrize("deep", [False, True])
def test_it_gives_python_s_mask(program: Path, model: Path, deep: bool, tmp_path: Path) -> None:
    pixels = make_radiograph(5, 411, 302).pixels
    pixels = pixels if deep else (pixels >> 4).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "made.pgm"), pixels)
    done = run(program, model, tmp_path / "made.pgm", tmp_path / "mask.pgm")
    assert (done.returncode, done.stderr) == (0, "")
    found = cv2.imread(str(tmp_path / "mask.pgm"), cv2.IMREAD_UNCHANGED)
    wanted, _ = whole_in_onnxruntime(read_model(model, with_processing=True)[0])(raw_image(Radiograph(pixels)))
    assert set(np.unique(found)) == {0, 255}
    assert int(((found > 0) != (wanted > 0)).sum()) <= 1


def test_it_says_what_is_wrong(program: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.pgm").write_bytes(b"P5 64 64 255\nshort")
    assert "cut short" in run(program, model, tmp_path / "bad.pgm", tmp_path / "mask.pgm").stderr
    missing = run(program, tmp_path / "no.onnx", tmp_path / "bad.pgm", tmp_path / "mask.pgm")
    assert missing.returncode == 1
    assert "no.onnx" in missing.stderr
