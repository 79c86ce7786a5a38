"""Which samples are drawn, and which of them are held back for the gate: seeded, stratified, by patient.

Data sets share the samples equally as far as they reach. Within a data set the spans of the network
inputs' brightness (mean) and contrast (standard deviation) are cut into thirds, and the nine cells take
turns, so that the few dark or flat radiographs are there as well as the many ordinary ones.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cxredge_calibration.samples import Sample, Source

Item = TypeVar("Item")

POOL = 4
"""Radiographs that are read for each one that is drawn; more of a large archive are not even opened."""
STRATA = 3
"""Divisions of brightness and of contrast."""
HELD_BACK_EVERY = 4
"""One sample of so many is held back for the gate."""


@dataclass(frozen=True)
class Draw:
    """Samples for calibration and, of other patients, for the gate."""

    calibration: tuple[Sample, ...]
    held_back: tuple[Sample, ...]


def draw_pool(sources: Sequence[Source], count: int, seed: int) -> tuple[Source, ...]:
    """At most ``POOL * count`` of ``sources``, at random, the data sets taking turns."""
    by_dataset = grouped(sources, [source.dataset for source in sources])
    generator = random.Random(seed)
    for group in by_dataset:
        group.sort(key=lambda source: source.case.name)
        generator.shuffle(group)
    return tuple(interleave(by_dataset))[: POOL * count]


def draw_samples(pool: Sequence[Sample], count: int, seed: int) -> Draw:
    """Draw ``count`` samples and hold a quarter of each data set's back.

    Args:
        pool: what there is.
        count: samples to draw; all where there are fewer.
        seed: of the draw; the same pool and seed give the same samples, whatever their order.
    """
    ordered = sorted(pool, key=lambda sample: (sample.name, sample.sha256))
    by_dataset = grouped(ordered, [sample.source.dataset for sample in ordered])
    generator = random.Random(seed)
    chosen = list(interleave([stratified(group, generator) for group in by_dataset]))[:count]
    drawn = grouped(chosen, [sample.source.dataset for sample in chosen])
    patients = {sample.source.patient for group in drawn for sample in group[::HELD_BACK_EVERY]}
    return Draw(
        tuple(sample for sample in chosen if sample.source.patient not in patients),
        tuple(sample for sample in chosen if sample.source.patient in patients),
    )


def stratified(samples: Sequence[Sample], generator: random.Random) -> list[Sample]:
    """``samples`` in an order in which the cells of brightness and contrast take turns."""
    brightness = thirds(np.array([sample.input.mean() for sample in samples]))
    contrast = thirds(np.array([sample.input.std() for sample in samples]))
    cells = grouped(samples, list(zip(brightness.tolist(), contrast.tolist(), strict=True)))
    for cell in cells:
        generator.shuffle(cell)
    generator.shuffle(cells)
    return list(interleave(cells))


def thirds(values: NDArray[np.floating]) -> NDArray[np.intp]:
    """Which third of the span of ``values`` ``(N,)`` each belongs to: 0, 1 or 2."""
    bounds = np.linspace(values.min(), values.max(), STRATA + 1)[1:-1]
    return np.searchsorted(bounds, values)


def grouped(items: Sequence[Item], keys: Sequence[Hashable]) -> list[list[Item]]:
    """``items`` by key, the groups in order of their first item."""
    groups: dict[Hashable, list[Item]] = {}
    for item, key in zip(items, keys, strict=True):
        groups.setdefault(key, []).append(item)
    return list(groups.values())


def interleave(groups: Iterable[Sequence[Item]]) -> Iterator[Item]:
    """The first item of each group, then the second of each, until all are empty."""
    left = [iter(group) for group in groups]
    while left:
        for group in tuple(left):
            try:
                yield next(group)
            except StopIteration:
                left.remove(group)
