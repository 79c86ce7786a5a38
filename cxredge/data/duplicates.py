"""Radiographs that stand in data sets twice, also cropped, with another contrast, inverted or marked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cxredge.data.dataset import HELD_OUT_SPLITS, TRAINING_SPLIT, Case
from cxredge.libraries.open_cv import cv2
from cxredge.preprocessing import resize

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


@dataclass(frozen=True)
class Entry:
    """One image of one data set."""

    dataset: str
    case: Case

    def __str__(self) -> str:
        return f"{self.dataset}/{self.case.name} ({self.case.split})"


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
