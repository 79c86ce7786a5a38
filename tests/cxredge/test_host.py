"""Whatever a host application has set up in its process is as it was, while cxredge is used and afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

PROGRAM = Path(__file__).with_name("host_program.py")
CYCLES = """
import os, sys, time
import cv2, numpy as np
from cxredge import Segmenter

def threads():
    time.sleep(0.1)  # Python gives up a thread a moment before the system does
    return len(os.listdir("/proc/self/task"))

pixels = np.load(sys.argv[3])
loaded_libraries = threads()
counts = []
for cycle in range(4):
    segmenter = Segmenter.load(sys.argv[1], backend=sys.argv[2], threads=1 + 2 * (cycle % 2))
    segmenter.warm_up()
    list(segmenter.stream([pixels] * 4, workers=3))
    segmenter.submit(pixels).result()
    segmenter.close()
    counts.append(threads())
print(loaded_libraries + cv2.getNumThreads() - 1, *counts)
"""


@pytest.fixture
def files(tmp_path: Path, phantom: np.ndarray, make_dicom: Any) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    np.save(folder / "pixels.npy", phantom)
    for name in ("pixels.png", "pixels.tif"):
        Image.fromarray(phantom).save(folder / name)
    make_dicom(phantom, 12).save_as(folder / "pixels.dcm", enforce_file_format=True)
    return folder


def run(*arguments: str | Path) -> str:
    """What a program prints, which has to be all that it says."""
    changed = {"LD_LIBRARY_PATH", "GDCM_RESOURCES_PATH"}  # what libraries would set, or did in this process
    environment = {name: value for name, value in os.environ.items() if name not in changed}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def skip_without(backend: str) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="looks at the process as Linux shows it")
@pytest.mark.parametrize("kind", ["bare", "rich"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_nothing_of_the_host_s_is_touched(kind: str, backend: str, model_file: Path, files: Path) -> None:
    skip_without(backend)
    assert json.loads(run(PROGRAM, kind, backend, model_file, files)) == {}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux shows them")
@pytest.mark.parametrize(("backend", "pool"), [("onnxruntime", 0), ("openvino", 2)])
def test_the_system_counts_no_thread_more_after_closing(backend: str, pool: int, model_file: Path, files: Path) -> None:
    """But for pools that belong to a library, not to a segmenter: OpenCV's, and the two of OpenVINO's TBB."""
    skip_without(backend)
    allowed, *counts = map(int, run("-c", CYCLES, model_file, backend, files / "pixels.npy").split())
    assert max(counts) <= allowed + pool
    assert len(set(counts[1:])) == 1
