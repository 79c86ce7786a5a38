"""A data set on disk: ``images/``, optional ``masks/`` and ``infection/``, and ``manifest.csv``.

Training, calibration and evaluation read their radiographs and labels here, through the runtime's
own reader and preprocessing.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import CxredgeError, DatasetError
from cxredge.limits import LARGEST_MANIFEST, MOST_ROWS, LimitError, read_bytes
from cxredge.preprocessing import network_input, network_mask
from cxredge.radiograph import RADIOGRAPH_SUFFIXES, Radiograph, read_radiograph

MANIFEST = "manifest.csv"
TRAINING_SPLIT = "train"
HELD_OUT_SPLITS = ("val", "test", "external-test")


@dataclass(frozen=True)
class Case:
    """One row of a data set.

    Attributes:
        name: file stem of the image and its labels.
        split: what the row is for, such as ``train``, ``val``, ``test``.
        image: path of the image.
        mask: path of the lung mask, or ``None``.
        infection: path of the abnormality mask, or ``None``.
        row: the manifest's row as text.
    """

    name: str
    split: str
    image: Path
    mask: Path | None
    infection: Path | None
    row: dict[str, str]

    def radiograph(self) -> Radiograph:
        """Read the image; errors name the file."""
        try:
            return read_radiograph(self.image)
        except CxredgeError as error:
            raise DatasetError(str(error)) from error

    def label(self, path: Path | None, size: int) -> NDArray[np.bool_] | None:
        """Read a mask of this case at network size ``(size, size)``, or ``None`` where there is none."""
        if path is None:
            return None
        try:
            return network_mask(read_radiograph(path).pixels, size)
        except CxredgeError as error:
            raise DatasetError(str(error)) from error


@dataclass(frozen=True)
class Dataset:
    """The cases of one folder, in the manifest's order."""

    folder: Path
    cases: tuple[Case, ...]

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.name

    def split(self, *names: str) -> tuple[Case, ...]:
        """Cases of the named splits.

        Raises:
            DatasetError: there are none.
        """
        cases = tuple(case for case in self.cases if case.split in names)
        if not cases:
            present = sorted({case.split for case in self.cases})
            raise DatasetError(f"{self.folder}: no rows of split {' or '.join(names)} (splits: {', '.join(present)})")
        return cases


def open_dataset(folder: str | Path) -> Dataset:
    """Open a data set folder and pair its files.

    Raises:
        DatasetError: no folder or manifest, a row without an image, a name twice, or no rows.
    """
    folder = Path(folder)
    manifest = folder / MANIFEST
    try:
        rows = read_manifest(manifest)
    except (OSError, ValueError, csv.Error) as error:
        raise DatasetError(f"{manifest}: cannot be read ({error}); a data set has images/ and manifest.csv") from error
    if not rows:
        raise DatasetError(f"{manifest}: has no rows")
    for column in ("name", "split"):
        if column not in rows[0]:
            raise DatasetError(f"{manifest}: has no column '{column}'")
    folders = {kind: files_by_stem(folder / kind) for kind in ("images", "masks", "infection")}
    cases = tuple(_case(row, folders, folder) for row in rows)
    names = [case.name for case in cases]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DatasetError(f"{manifest}: names stand twice: {', '.join(twice[:5])}")
    return Dataset(folder, cases)


def read_manifest(path: Path) -> list[dict[str, str]]:
    """The rows of a manifest.

    Raises:
        OSError: it cannot be read.
        ValueError: too large, too many rows, not UTF-8, or a row with more or fewer fields than the first line.
        csv.Error: not CSV.
    """
    text = read_bytes(path, LARGEST_MANIFEST).decode("utf-8-sig")
    rows = list(islice(csv.DictReader(StringIO(text, newline="")), MOST_ROWS + 1))
    if len(rows) > MOST_ROWS:
        raise LimitError(f"has more than {MOST_ROWS} rows")
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise ValueError(f"row {number} has more or fewer fields than there are columns")
    return rows


def _case(row: dict[str, str], folders: dict[str, dict[str, Path]], folder: Path) -> Case:
    name = row["name"]
    image = folders["images"].get(name)
    if image is None:
        raise DatasetError(f"{folder}: no image for '{name}' in images/")
    return Case(name, row["split"], image, folders["masks"].get(name), folders["infection"].get(name), row)


def files_by_stem(folder: Path) -> dict[str, Path]:
    """Radiograph files directly in ``folder`` by stem; empty where there is no such folder."""
    if not folder.is_dir():
        return {}
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in RADIOGRAPH_SUFFIXES:
            if path.stem in files:
                raise DatasetError(f"{folder}: two files have the name '{path.stem}'")
            files[path.stem] = path
    return files


def load_inputs(cases: Sequence[Case], size: int) -> NDArray[np.float32]:
    """Network inputs ``(N, 1, size, size)`` in [-1, 1] of ``cases``."""
    inputs = []
    for case in cases:
        radiograph = case.radiograph()
        try:
            inputs.append(network_input(radiograph, size))
        except CxredgeError as error:
            raise DatasetError(f"{case.image}: {error}") from error
    return np.stack(inputs)[:, None]


def load_masks(cases: Sequence[Case], size: int) -> NDArray[np.bool_]:
    """Lung masks ``(N, size, size)`` of ``cases``; every case must have one."""
    masks = []
    for case in cases:
        mask = case.label(case.mask, size)
        if mask is None:
            raise DatasetError(f"{case.image}: has no mask, which supervised segmentation needs")
        masks.append(mask)
    return np.stack(masks)


def content_hash(datasets: Iterable[Dataset]) -> str:
    """SHA-256 over the manifests of ``datasets``, to say in a model's contract what it was trained on."""
    digest = hashlib.sha256()
    for dataset in datasets:
        digest.update(dataset.name.encode())
        digest.update((dataset.folder / MANIFEST).read_bytes())
    return digest.hexdigest()
