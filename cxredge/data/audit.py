"""Checks of data sets before training: unpaired and unreadable files, duplicates, patients in two splits.

:func:`audit` reads data sets once through the runtime's own reader. ``cxredge data check`` prints what it
finds; :mod:`~.duplicates` compares the images, :mod:`~.leaks` keeps training from what it must not see.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cxredge.data.dataset import Case, Dataset, files_by_stem
from cxredge.data.duplicates import THUMBNAIL_SIDE, Duplicate, Entry, Thumbnail, find_duplicates
from cxredge.data.leaks import SharedPatient, shared_patients
from cxredge.errors import CxredgeError, DatasetError
from cxredge.preprocessing import network_input

NEARLY_FULL = 0.8
"""Share of the image above which a lung mask is suspect (lungs of the real sets: 0.10 to 0.47)."""
Kind: TypeAlias = Literal[
    "unreadable", "image without mask", "mask without image", "empty mask", "nearly full mask", "not in the manifest"
]
ERRORS: tuple[Kind, ...] = ("unreadable", "image without mask", "mask without image")
"""What makes a data set unusable as it is; the other kinds are warnings."""


@dataclass(frozen=True)
class Finding:
    """Something wrong with one file."""

    kind: Kind
    file: Path
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail or self.file}"


@dataclass(frozen=True)
class SetAudit:
    """One data set.

    Attributes:
        splits: images by split.
        sizes: readable images by (width, height).
        bits: readable images by bits a stored pixel.
        masks: images that have a lung mask.
        findings: what is wrong with its files.
    """

    dataset: Dataset
    splits: dict[str, int]
    sizes: dict[tuple[int, int], int]
    bits: dict[int, int]
    masks: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Audit:
    """What :func:`audit` found in some data sets."""

    sets: tuple[SetAudit, ...]
    duplicates: tuple[Duplicate, ...]
    shared_patients: tuple[SharedPatient, ...]

    @property
    def leaks(self) -> tuple[Duplicate, ...]:
        """Duplicates of a training image and a held-out image."""
        return tuple(pair for pair in self.duplicates if pair.leak)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that make a data set unusable as it is."""
        return tuple(finding for each in self.sets for finding in each.findings if finding.kind in ERRORS)

    def to_dict(self) -> dict[str, Any]:
        """The audit as JSON content."""
        return {
            "sets": [_set_content(each) for each in self.sets],
            "duplicates": [_duplicate_content(pair) for pair in self.duplicates],
            "shared_patients": [
                {
                    "dataset": shared.dataset,
                    "patient": shared.patient,
                    "training": [case.name for case in shared.training],
                    "held_out": [case.name for case in shared.held_out],
                }
                for shared in self.shared_patients
            ],
        }


def _set_content(each: SetAudit) -> dict[str, Any]:
    return {
        "name": each.dataset.name,
        "folder": str(each.dataset.folder),
        "splits": each.splits,
        "sizes": {f"{width}x{height}": count for (width, height), count in each.sizes.items()},
        "bits": {str(bits): count for bits, count in each.bits.items()},
        "masks": each.masks,
        "findings": [{"kind": f.kind, "file": str(f.file), "detail": f.detail} for f in each.findings],
    }


def _duplicate_content(pair: Duplicate) -> dict[str, Any]:
    rows = [
        {"dataset": entry.dataset, "name": entry.case.name, "split": entry.case.split}
        for entry in (pair.first, pair.second)
    ]
    return {"rows": rows, "similarity": round(pair.similarity, 4), "leak": pair.leak}


def audit(datasets: Sequence[Dataset]) -> Audit:
    """Check data sets, each alone and all against each other.

    Args:
        datasets: opened data sets; a folder given twice counts once.
    """
    datasets = list({dataset.folder.resolve(): dataset for dataset in datasets}.values())
    sets, entries, thumbnails = [], [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for dataset in datasets:
            labelled = (dataset.folder / "masks").is_dir()
            images = list(pool.map(lambda case, labelled=labelled: inspect_case(case, labelled), dataset.cases))
            sets.append(_set_audit(dataset, images))
            for case, image in zip(dataset.cases, images, strict=True):
                if image.thumbnail is not None:
                    entries.append(Entry(dataset.name, case))
                    thumbnails.append(image.thumbnail)
    return Audit(tuple(sets), find_duplicates(entries, thumbnails), shared_patients(datasets))


@dataclass(frozen=True)
class CaseAudit:
    """One case: its size (width, height), bits a pixel and network input, where readable, and what is wrong."""

    size: tuple[int, int] | None
    bits: int | None
    thumbnail: Thumbnail | None
    findings: tuple[Finding, ...]


def inspect_case(case: Case, labelled: bool) -> CaseAudit:
    """Read the image and the labels of one case.

    Args:
        case: the row.
        labelled: whether it should have a lung mask.
    """
    findings = list(inspect_labels(case, labelled))
    try:
        radiograph = case.radiograph()
        thumbnail = network_input(radiograph, THUMBNAIL_SIDE)
    except CxredgeError as error:
        return CaseAudit(None, None, None, (Finding("unreadable", case.image, str(error)), *findings))
    height, width = radiograph.shape
    return CaseAudit((width, height), 8 * radiograph.pixels.dtype.itemsize, thumbnail, tuple(findings))


def inspect_labels(case: Case, labelled: bool) -> Iterator[Finding]:
    """What is wrong with the labels of one case."""
    if labelled and case.mask is None:
        yield Finding("image without mask", case.image)
    for path in (case.mask, case.infection):
        try:
            mask = case.label(path, THUMBNAIL_SIDE)
        except DatasetError as error:
            yield Finding("unreadable", path or case.image, str(error))
            continue
        if mask is None or path is not case.mask:  # an infection mask may be empty
            continue
        if not mask.any():
            yield Finding("empty mask", path or case.image)
        elif mask.mean() > NEARLY_FULL:
            yield Finding("nearly full mask", path or case.image)


def _set_audit(dataset: Dataset, images: Sequence[CaseAudit]) -> SetAudit:
    findings = [finding for image in images for finding in image.findings]
    return SetAudit(
        dataset,
        splits=dict(Counter(case.split for case in dataset.cases)),
        sizes=dict(Counter(image.size for image in images if image.size is not None).most_common()),
        bits=dict(Counter(image.bits for image in images if image.bits is not None).most_common()),
        masks=sum(case.mask is not None for case in dataset.cases),
        findings=(*findings, *unpaired_files(dataset)),
    )


def unpaired_files(dataset: Dataset) -> Iterator[Finding]:
    """Labels without an image and images that the manifest does not name."""
    images = files_by_stem(dataset.folder / "images")
    for kind in ("masks", "infection"):
        for name, path in files_by_stem(dataset.folder / kind).items():
            if name not in images:
                yield Finding("mask without image", path)
    for name in sorted(images.keys() - {case.name for case in dataset.cases}):
        yield Finding("not in the manifest", images[name])
