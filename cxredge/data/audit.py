"""Checks of data sets before training: unpaired and unreadable files, duplicates, patients in two splits.

:func:`audit` reads data sets once through the runtime's own reader. ``cxredge data check`` prints what it
finds; training refuses to start where a test image is among its images (:func:`require_no_leaks`) and
leaves out the rows of patients that a held-out split shows too (:func:`without_shared_patients`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cxredge.data.dataset import Case, Dataset, files_by_stem
from cxredge.errors import CxredgeError, DatasetError
from cxredge.libraries.open_cv import cv2
from cxredge.preprocessing import network_input, resize

TRAINING_SPLIT = "train"
HELD_OUT_SPLITS = ("val", "test", "external-test")
PATIENT_COLUMN = "patientid"

NEARLY_FULL = 0.8
"""Share of the image above which a lung mask is suspect (lungs of the real sets: 0.10 to 0.47)."""

HASH_SIDE, HASH_NUMBERS = 32, 64
THUMBNAIL_SIDE, COARSE_SIDE, BLOCK_SIDE = 128, 64, 8

ALIKE = 0.9
"""Hash similarity from which two images are compared: 1.2 % of the pairs of different radiographs reach it;
98 % of copies cropped by up to 5 % a side, with another contrast and burned-in text, do."""

NEAREST = 4
"""Most similar images that each image is compared with, so that the time grows with the images, not the pairs."""

BLOCKS_APART = 0.2
"""Share of the blocks that may differ between two copies: arrows, letters, a label."""

SAME = 0.92
"""Similarity from which two images are one radiograph. On the real sets two true copies have 0.97 and 0.98
and films of one patient or of two at most 0.77; 98 % of disturbed copies (as for ALIKE) have 0.92 or more."""

PROMISING = 0.5
"""Similarity after a coarse alignment from which it is worth refining; copies have 0.73 or more."""

FLAT = 1e-4
"""Variance (of values in [-1, 1]) below which a block shows nothing to compare."""

Thumbnail: TypeAlias = NDArray[np.float32]
Kind: TypeAlias = Literal[
    "unreadable", "image without mask", "mask without image", "empty mask", "nearly full mask", "not in the manifest"
]
ERRORS: tuple[Kind, ...] = ("unreadable", "image without mask", "mask without image")
"""What makes a data set unusable as it is; the other kinds are warnings."""


@dataclass(frozen=True)
class Entry:
    """One image of one data set."""

    dataset: str
    case: Case

    def __str__(self) -> str:
        return f"{self.dataset}/{self.case.name} ({self.case.split})"


@dataclass(frozen=True)
class Finding:
    """Something wrong with one file."""

    kind: Kind
    file: Path
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail or self.file}"


@dataclass(frozen=True)
class Duplicate:
    """Two images that are the same radiograph; a training image stands first.

    Attributes:
        similarity: 1 for identical network inputs, see :func:`similarity`.
    """

    first: Entry
    second: Entry
    similarity: float

    @property
    def leak(self) -> bool:
        """Whether a training image is a held-out image."""
        return self.first.case.split == TRAINING_SPLIT and self.second.case.split in HELD_OUT_SPLITS

    def __str__(self) -> str:
        return f"{self.first} = {self.second}"


@dataclass(frozen=True)
class SharedPatient:
    """A patient whose images stand in the training split and in a held-out split of one data set."""

    dataset: str
    patient: str
    training: tuple[Case, ...]
    held_out: tuple[Case, ...]


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


def find_duplicates(entries: Sequence[Entry], thumbnails: Sequence[Thumbnail]) -> tuple[Duplicate, ...]:
    """Pairs of images that are one radiograph, also when cropped, with other contrast, inverted or marked.

    Chest radiographs are alike, so a hash alone confuses patients: it only chooses the pairs that
    :func:`similarity` then compares. Mirrored copies are not found, and altered ones only from about 160 pixels a side.

    Args:
        entries: the images.
        thumbnails: their network inputs ``(128, 128)``.
    """
    if len(entries) < 2:
        return ()
    hashes = np.stack([perceptual_hash(thumbnail) for thumbnail in thumbnails])
    training = np.array([entry.case.split == TRAINING_SPLIT for entry in entries])
    pairs = candidates(hashes, training)

    def compare(pair: tuple[int, int]) -> float:
        first, second = pair
        inverted = float(hashes[first] @ hashes[second]) < 0
        return similarity(thumbnails[first], -thumbnails[second] if inverted else thumbnails[second])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        similarities = list(pool.map(compare, pairs))
    found = [(value, *pair) for pair, value in zip(pairs, similarities, strict=True) if value >= SAME]
    return tuple(
        Duplicate(entries[second], entries[first], value)
        if training[second] and not training[first]
        else Duplicate(entries[first], entries[second], value)
        for value, first, second in sorted(found, key=lambda each: -each[0])
    )


def perceptual_hash(thumbnail: Thumbnail) -> NDArray[np.float32]:
    """The lowest frequencies of a radiograph with equalised histogram, as a unit vector ``(64,)``.

    This is the DCT hash (pHash) with its numbers kept instead of their signs, which ranks cropped copies
    far better; the scalar product of two is their similarity, and -1 that of a negative.
    """
    small = np.clip(np.rint((resize(thumbnail, HASH_SIDE) + 1) * 127.5), 0, 255).astype(np.uint8)
    spectrum = cv2.dct(cv2.equalizeHist(small).astype(np.float32))
    rows, columns = np.indices(spectrum.shape)
    order = np.argsort((rows + columns).ravel(), kind="stable")[1 : HASH_NUMBERS + 1]  # without the mean
    numbers = spectrum.ravel()[order]
    return np.asarray(numbers / max(float(np.linalg.norm(numbers)), 1e-6), np.float32)


def candidates(hashes: NDArray[np.float32], training: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Pairs (i < j) to compare: of each image the nearest training images and the nearest others.

    Args:
        hashes: unit vectors ``(N, 64)``.
        training: ``(N,)`` which are training images. Both kinds are searched, so that many copies on
            one side cannot hide the one on the other side.
    """
    pairs = set()
    for columns in (np.flatnonzero(training), np.flatnonzero(~training)):
        if len(columns) == 0:
            continue
        kept = min(NEAREST, len(columns))
        for start in range(0, len(hashes), 1024):
            alike = np.abs(hashes[start : start + 1024] @ hashes[columns].T)
            rows = np.arange(start, start + len(alike))
            alike[rows[:, None] == columns[None]] = 0
            nearest = np.argpartition(-alike, kept - 1, axis=1)[:, :kept]
            for row, near in zip(*np.nonzero(np.take_along_axis(alike, nearest, 1) >= ALIKE), strict=True):
                first, second = int(rows[row]), int(columns[nearest[row, near]])
                pairs.add((min(first, second), max(first, second)))
    return sorted(pairs)


def similarity(first: Thumbnail, second: Thumbnail) -> float:
    """How far two network inputs ``(128, 128)`` are one radiograph: 1 identical, below 0.92 another.

    The second is laid on the first by an affine map, found at half size and refined where that is promising.
    """
    if np.array_equal(first, second):
        return 1.0
    scale = THUMBNAIL_SIDE // COARSE_SIDE
    try:
        warp = align(resize(first, COARSE_SIDE), resize(second, COARSE_SIDE), np.eye(2, 3, dtype=np.float32), 40)
        warp[:, 2] = scale * warp[:, 2] + (scale - 1) / 2 * (1 - warp[:, :2].sum(1))  # pixel centres, not corners
        found = aligned_similarity(first, second, warp)
        if found < PROMISING:
            return found
        return max(found, aligned_similarity(first, second, align(first, second, warp, 10)))
    except cv2.error:  # does not converge: nothing in common
        return 0.0


def align(first: Thumbnail, second: Thumbnail, warp: Thumbnail, iterations: int) -> Thumbnail:
    """Improve the affine map ``(2, 3)`` from ``first`` to ``second`` by ECC (Evangelidis and Psarakis, 2008)."""
    until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, iterations, 1e-4)
    everywhere = np.ones(first.shape, np.uint8)
    _, found = cv2.findTransformECC(first, second, warp.copy(), cv2.MOTION_AFFINE, until, everywhere, 3)
    return np.asarray(found, np.float32)


def aligned_similarity(first: Thumbnail, second: Thumbnail, warp: Thumbnail) -> float:
    """Correlation of 8x8 blocks with those of the moved second image that 80 % of the blocks reach.

    Correlation within a block does not mind contrast. Anatomy that is merely alike differs in many blocks,
    a mark in few. Too few blocks that show anything in both images give 0.
    """
    side, flags = (THUMBNAIL_SIDE, THUMBNAIL_SIDE), cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = np.asarray(cv2.warpAffine(second, warp, side, flags=flags), np.float32)
    seen = np.asarray(cv2.warpAffine(np.ones_like(second), warp, side, flags=flags) > 0.99, np.float32)
    weight, one, two = (_blocks(image) for image in (seen, first, moved))
    count = np.maximum(weight.sum(1), 1)
    one = weight * (one - ((weight * one).sum(1) / count)[:, None])
    two = weight * (two - ((weight * two).sum(1) / count)[:, None])
    variances = np.square(one).sum(1) / count, np.square(two).sum(1) / count
    usable = (weight.mean(1) > 0.5) & (np.minimum(*variances) > FLAT)
    if usable.mean() < 0.25:
        return 0.0
    covariance = (one * two).sum(1) / count
    correlations = covariance[usable] / np.sqrt(variances[0][usable] * variances[1][usable])
    return float(np.quantile(correlations, BLOCKS_APART))


def _blocks(image: Thumbnail) -> NDArray[np.float64]:
    count = THUMBNAIL_SIDE // BLOCK_SIDE
    parts = image.astype(np.float64).reshape(count, BLOCK_SIDE, count, BLOCK_SIDE).swapaxes(1, 2)
    return parts.reshape(count * count, BLOCK_SIDE * BLOCK_SIDE)


def shared_patients(datasets: Iterable[Dataset]) -> tuple[SharedPatient, ...]:
    """Patients (manifest column ``patientid``) that stand in the training and a held-out split of one data set."""
    shared = []
    for dataset in datasets:
        by_patient: dict[str, list[Case]] = {}
        for case in dataset.cases:
            if patient := (case.row.get(PATIENT_COLUMN) or "").strip():
                by_patient.setdefault(patient, []).append(case)
        for patient, cases in by_patient.items():
            training = tuple(case for case in cases if case.split == TRAINING_SPLIT)
            held_out = tuple(case for case in cases if case.split in HELD_OUT_SPLITS)
            if training and held_out:
                shared.append(SharedPatient(dataset.name, patient, training, held_out))
    return tuple(shared)


def without_shared_patients(cases: Iterable[Case], datasets: Iterable[Dataset]) -> tuple[Case, ...]:
    """The training cases whose patient stands in no held-out split of its data set.

    Args:
        cases: training cases of ``datasets``.
        datasets: the data sets; :func:`shared_patients` says what is left out of them.
    """
    left_out = {case.image for shared in shared_patients(datasets) for case in shared.training}
    return tuple(case for case in cases if case.image not in left_out)


def without_rows(cases: Iterable[Case], rows: Iterable[str]) -> tuple[Case, ...]:
    """The cases that are not among ``rows``, each ``DATASET/NAME`` as a leak's message names it.

    Raises:
        DatasetError: a row is not among the cases.
    """
    named = {f"{case.image.parents[1].name}/{case.name}": case for case in cases}
    for row in rows:
        if named.pop(row, None) is None:
            raise DatasetError(f"'{row}' is not among the rows, so it cannot be left out (write DATASET/NAME)")
    return tuple(named.values())


def require_no_leaks(audit: Audit, cases: Iterable[Case] | None = None) -> None:
    """Refuse training images that are held-out images too.

    Args:
        audit: of all data sets that are trained on or measured.
        cases: the training cases; without them every row of split ``train`` counts.

    Raises:
        DatasetError: there are such images; the message names the pairs and what to do.
    """
    images = None if cases is None else {case.image for case in cases}
    leaks = [pair for pair in audit.leaks if images is None or pair.first.case.image in images]
    if leaks:
        pairs = "; ".join(map(str, leaks[:10])) + ("; ..." if len(leaks) > 10 else "")
        raise DatasetError(
            f"{len(leaks)} training image(s) are the same radiograph as a held-out one: {pairs}. "
            "Leave the training row out, or give one of the two another split in its manifest.csv"
        )
