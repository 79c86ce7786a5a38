"""Peak memory of ``cxredge segment`` on one large radiograph, in bytes a pixel, for each kind of file.

    python tests/benchmarks/memory.py [--sides 2000,8000,20000] [--kinds png8,png16] [--formats png,dicom-seg]

Each file is segmented by a process of its own, whose peak is compared with that on a small file of the same kind;
what is left is divided by the pixels that :func:`cxredge.admission.decoded_pixels` counts. ``BYTES_A_PIXEL`` in
:mod:`cxredge.admission` must not be below any of them. 20 000 pixels a side need up to 10 GB of memory, and of disk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxredge.admission import BYTES_A_PIXEL, decoded_pixels
from cxredge.benchmark.memory import PEAK
from cxredge.libraries.open_cv import cv2
from cxredge.phantom import make_radiograph
from cxredge.sample import dicom_header

PROGRAM = Path(sys.executable).with_name("cxredge")
MADE_SIDE, SMALL_SIDE = 1024, 256
SECONDS_BETWEEN_SAMPLES = 0.02

Pixels = NDArray[np.uint16]


def write_png8(path: Path, pixels: Pixels) -> None:
    Image.fromarray((pixels >> 4).astype(np.uint8)).save(path, "PNG", compress_level=1)


def write_png16(path: Path, pixels: Pixels) -> None:
    Image.fromarray(pixels).save(path, "PNG", compress_level=1)


def write_colour_png(path: Path, pixels: Pixels) -> None:
    grey = Image.fromarray((pixels >> 4).astype(np.uint8))
    Image.merge("RGB", [grey] * 3).save(path, "PNG", compress_level=1)


def write_deep_colour_png(path: Path, pixels: Pixels) -> None:
    cv2.imwrite(str(path), cv2.merge([pixels, pixels, pixels, np.full_like(pixels, 65535)]))


def write_jpeg(path: Path, pixels: Pixels) -> None:
    Image.fromarray((pixels >> 4).astype(np.uint8)).save(path, "JPEG")


def write_npy(path: Path, pixels: Pixels) -> None:
    np.save(path, pixels.astype(np.float32))


def write_double_npy(path: Path, pixels: Pixels) -> None:
    np.save(path, pixels.astype(np.float64))


def dicom(pixels: Pixels, **attributes: Any) -> Any:
    """A DX data set of 12 bits."""
    dataset = dicom_header("large", "MONOCHROME2", *pixels.shape)
    dataset.PixelData = pixels.tobytes()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def write_dicom(path: Path, pixels: Pixels) -> None:
    dicom(pixels).save_as(path, enforce_file_format=True)


def write_compressed_dicom(path: Path, pixels: Pixels) -> None:
    from pydicom.uid import JPEGLSLossless

    dataset = dicom(pixels)
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)


def write_bordered_dicom(path: Path, pixels: Pixels) -> None:
    """With a shutter, a window and padding, each of which costs a mask."""
    rows, columns = pixels.shape
    dicom(
        pixels,
        PixelPaddingValue=0,
        ShutterShape="RECTANGULAR",
        ShutterLeftVerticalEdge=columns // 20,
        ShutterRightVerticalEdge=columns - columns // 20,
        ShutterUpperHorizontalEdge=rows // 20,
        ShutterLowerHorizontalEdge=rows - rows // 20,
        WindowCenter=2000,
        WindowWidth=3000,
    ).save_as(path, enforce_file_format=True)


def write_tabled_dicom(path: Path, pixels: Pixels) -> None:
    """With a rescale and a VOI LUT, which is applied pixel by pixel."""
    from pydicom.dataset import Dataset

    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 16], np.arange(0, 65536, 16, np.uint16).tobytes()
    dicom(pixels, RescaleSlope=1.5, RescaleIntercept=-1, RescaleType="US", VOILUTSequence=[table]).save_as(
        path, enforce_file_format=True
    )


KINDS: dict[str, tuple[str, Callable[[Path, Pixels], None]]] = {
    "png8": (".png", write_png8),
    "png16": (".png", write_png16),
    "png-rgb": (".png", write_colour_png),
    "png-rgba16": (".png", write_deep_colour_png),
    "jpeg8": (".jpg", write_jpeg),
    "npy-float32": (".npy", write_npy),
    "npy-float64": (".npy", write_double_npy),
    "dicom": (".dcm", write_dicom),
    "dicom-jpegls": (".dcm", write_compressed_dicom),
    "dicom-bordered": (".dcm", write_bordered_dicom),
    "dicom-table": (".dcm", write_tabled_dicom),
}
"""Suffix and writer of each kind of file."""


def make_pixels(side: int) -> Pixels:
    """A made radiograph of 12 bits, enlarged to ``side`` pixels a side."""
    made = make_radiograph(1, MADE_SIDE, MADE_SIDE).pixels
    return np.asarray(cv2.resize(made, (side, side), interpolation=cv2.INTER_LINEAR), np.uint16)


def peak_bytes(file: Path, output: Path, formats: str) -> int:
    """Most memory that a run on one file has resident, from the kernel's own record of the peak."""
    command = [PROGRAM, "segment", file, "-o", output, "--workers", "1", "--format", formats]
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            found = PEAK.search(Path(f"/proc/{process.pid}/status").read_text(encoding="ascii"))
            peak = max(peak, 1024 * int(found[1])) if found else peak
            time.sleep(SECONDS_BETWEEN_SAMPLES)
    if process.returncode:
        raise SystemExit(f"segment of {file.name} ended with exit code {process.returncode}")
    return peak


def measured(kind: str, sides: list[int], formats: str) -> dict[str, float]:
    """Peak in MiB and bytes a pixel by side, for one kind of file."""
    suffix, write = KINDS[kind]
    result, base = {}, 0
    for side in [SMALL_SIDE, *sides]:
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / f"{kind}{suffix}"
            write(file, make_pixels(side))
            pixels, peak = decoded_pixels(file), peak_bytes(file, Path(name) / "out", formats)
        base = base or peak
        result[f"{side} MiB"] = round(peak / (1 << 20))
        if side != SMALL_SIDE:
            result[f"{side} bytes a pixel"] = round((peak - base) / pixels, 1)
    return result


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", default="2000,8000")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--formats", default="png")
    arguments = parser.parse_args()
    sides = [int(side) for side in arguments.sides.split(",")]
    for kind in arguments.kinds.split(","):
        print(json.dumps({"kind": kind, **measured(kind, sides, arguments.formats)}), flush=True)
    print(json.dumps({"BYTES_A_PIXEL": BYTES_A_PIXEL}))


if __name__ == "__main__":
    main()
