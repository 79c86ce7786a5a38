"""What tells whether a file is still the one that it was."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TypeAlias

Signature: TypeAlias = tuple[int, int]
"""Size in bytes and time of last change in nanoseconds: what tells whether a source has changed."""
Proof: TypeAlias = tuple[int, str]
"""Size in bytes and SHA-256 of a file that was written."""


def full_path(path: Path) -> str:
    """A path as entries hold it: absolute, links not followed."""
    return os.path.normpath(path.absolute())


def source_signature(path: Path) -> Signature | None:
    """Size and time of last change of a source, or ``None`` where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def file_proof(path: Path) -> Proof:
    """Size and SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def model_digest(model: Path) -> str:
    """SHA-256 of a model file, or of the weights and the configuration of a checkpoint folder."""
    files = [model] if model.is_file() else sorted([*model.glob("*.safetensors"), *model.glob("*.toml")])
    digest = hashlib.sha256()
    for file in files:
        digest.update(file_proof(file)[1].encode())
    return digest.hexdigest()
