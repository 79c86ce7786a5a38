"""Network inputs kept on disk, so that a second run need not decode and resize full-size radiographs again.

The key is the content of the files and the rules of preprocessing: a changed image or rule gets another
key, and a file that is damaged is made anew. Training loads its images here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import platformdirs
from filelock import FileLock
from numpy.typing import NDArray

from cxredge import __version__
from cxredge.contract import NORMALISATION, RESIZE
from cxredge.data.dataset import Case, load_inputs
from cxredge.errors import DatasetError


def cached_inputs(cases: Sequence[Case], size: int) -> NDArray[np.float32]:
    """Network inputs ``(N, 1, size, size)`` in [-1, 1] of ``cases``, as :func:`~.dataset.load_inputs` gives.

    They are kept as ``inputs/KEY.npy`` in the user's cache folder. Where that cannot be written the inputs
    are made each time.

    Raises:
        DatasetError: an image cannot be read; the message names it.
    """
    path = cache_folder() / f"{input_key(cases, size)}.npy"
    with held_lock(path):
        inputs = read_inputs(path, (len(cases), 1, size, size))
        if inputs is None:
            inputs = load_inputs(cases, size)
            write_inputs(path, inputs)
    return inputs


def held_lock(path: Path) -> AbstractContextManager[object]:
    """Hold the lock of a kept file, so that of several processes one makes it; none where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path.with_suffix(".lock")).acquire()
    except OSError:
        return nullcontext()


def cache_folder() -> Path:
    """Folder of the kept inputs; it may be deleted at any time."""
    return Path(platformdirs.user_cache_dir("cxredge")) / "inputs"


def input_key(cases: Sequence[Case], size: int) -> str:
    """SHA-256 over the rules of preprocessing, ``size`` and each image file's content, in order.

    Raises:
        DatasetError: an image cannot be read.
    """
    digest = hashlib.sha256("\n".join((__version__, NORMALISATION, RESIZE, str(size))).encode())
    for case in cases:
        try:
            digest.update(hashlib.sha256(case.image.read_bytes()).digest())
        except OSError as error:
            raise DatasetError(f"{case.image}: cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def read_inputs(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Kept inputs of the given shape, or ``None`` where there are none or the file is damaged."""
    try:
        with path.open("rb") as file:
            if file.read(len(header := npy_header(shape))) != header:
                return None
            file.seek(0)
            inputs = np.asarray(np.load(file, allow_pickle=False), np.float32)
            return inputs if file.read() == checksum_of(inputs) else None
    except (OSError, ValueError, EOFError):
        return None


def write_inputs(path: Path, inputs: NDArray[np.float32]) -> None:
    """Keep ``inputs`` as NPY, followed by their SHA-256; on a full or read-only disk they are not kept."""
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            np.save(file, inputs, allow_pickle=False)
            file.write(checksum_of(inputs))
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()


def npy_header(shape: tuple[int, ...]) -> bytes:
    """First bytes of an NPY file of float32 of this shape; no other header is parsed."""
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def checksum_of(inputs: NDArray[np.float32]) -> bytes:
    """SHA-256 of the values."""
    return hashlib.sha256(inputs.data).digest()
