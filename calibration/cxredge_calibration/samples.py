"""The radiographs that a model may be calibrated on: training rows of data sets, or plain files.

A test image among the calibration samples would make the gate's figures worthless, so rows of other
splits are refused, also where somebody names their files directly.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxredge.data.dataset import MANIFEST, TRAINING_SPLIT, Case, open_dataset
from cxredge.data.leaks import PATIENT_COLUMN, without_shared_patients
from cxredge.errors import CalibrationError, InputError
from cxredge.preprocessing import network_input
from cxredge.runs.discovery import find_radiographs


@dataclass(frozen=True)
class Source:
    """A radiograph that may be drawn as a sample.

    Attributes:
        dataset: name of the data set or folder that it comes from.
        case: its file and labels; a plain file has no labels.
    """

    dataset: str
    case: Case

    @property
    def name(self) -> str:
        """``DATASET/NAME``, as messages and reports call it."""
        return f"{self.dataset}/{self.case.name}"

    @property
    def patient(self) -> str:
        """Key of the patient where the manifest tells (column ``patientid``), else of the file."""
        patient = (self.case.row.get(PATIENT_COLUMN) or "").strip()
        return f"{self.dataset}/patient {patient}" if patient else str(self.case.image)


@dataclass(frozen=True)
class Sample:
    """A radiograph as the network sees it.

    Attributes:
        source: where it comes from.
        input: ``(S, S)`` float32 in [-1, 1].
        sha256: of the image file.
    """

    source: Source
    input: NDArray[np.float32]
    sha256: str

    @property
    def name(self) -> str:
        """``DATASET/NAME``."""
        return self.source.name


def find_sources(paths: Sequence[Path]) -> tuple[Source, ...]:
    """The radiographs below ``paths``: training rows of data set folders, everything in other folders, files.

    Training rows of patients that a held-out split shows too are left out, as in training.

    Raises:
        DatasetError: a data set is inconsistent or has no training rows.
        CalibrationError: there are no radiographs, or a plain file belongs to a data set with a manifest.
    """
    found: dict[Path, Source] = {}
    for path in paths:
        for source in dataset_sources(path) if (path / MANIFEST).is_file() else plain_sources(path):
            found.setdefault(source.case.image.resolve(), source)
    if not found:
        raise CalibrationError(f"{', '.join(map(str, paths))}: no radiographs to calibrate on")
    return tuple(found.values())


def dataset_sources(folder: Path) -> Iterator[Source]:
    """Training rows of a data set."""
    dataset = open_dataset(folder)
    name = dataset.folder.resolve().name
    for case in without_shared_patients(dataset.split(TRAINING_SPLIT), [dataset]):
        yield Source(name, case)


def plain_sources(path: Path) -> Iterator[Source]:
    """A radiograph file, or those in a folder.

    Raises:
        CalibrationError: a file that stands in a data set, whose manifest alone says what is for training.
    """
    for target in find_radiographs([path], Path(os.devnull)).targets:
        image = target.source
        for folder in image.resolve().parents[:2]:
            if (folder / MANIFEST).is_file():
                raise CalibrationError(
                    f"{image}: belongs to the data set {folder}; name that folder, so that its {MANIFEST} says "
                    "which rows are for training (test rows are never calibrated on)"
                )
        name = path.resolve().name if path.is_dir() else image.resolve().parent.name
        yield Source(name, Case(image.stem, TRAINING_SPLIT, image, None, None, {}))


def read_samples(sources: Iterable[Source], size: int) -> Iterator[Sample]:
    """Read ``sources`` and make their network inputs; a file with the content of an earlier one is left out.

    Args:
        sources: what to read.
        size: side of the network's input in pixels.

    Raises:
        DatasetError: a file cannot be read, or has NaN or infinite values; the message names it.
        CalibrationError: nothing can be seen in one; the message names it.
    """
    seen: set[str] = set()
    for source in sources:
        radiograph = source.case.radiograph()
        try:
            pixels = network_input(radiograph, size)
        except InputError as error:
            raise CalibrationError(f"{source.case.image}: {error.reason}; leave it out of the samples") from error
        sha256 = hashlib.sha256(source.case.image.read_bytes()).hexdigest()
        if sha256 not in seen:
            seen.add(sha256)
            yield Sample(source, pixels, sha256)
