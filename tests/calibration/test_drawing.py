"""The draw is seeded and stratified, and keeps patients apart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from cxredge.data.dataset import Case
from cxredge_calibration.drawing import draw_pool, draw_samples
from cxredge_calibration.samples import Sample, Source


def sample(dataset: str, index: int, patient: str = "", brightness: float = 0.0, contrast: float = 1.0) -> Sample:
    row = {"patientid": patient} if patient else {}
    case = Case(f"n{index:03}", "train", Path(f"/{dataset}/{index}.png"), None, None, row)
    pixels = np.array([[brightness - contrast, brightness + contrast]], np.float32)
    return Sample(Source(dataset, case), pixels, f"{dataset}{index}")


def many(dataset: str, count: int) -> list[Sample]:
    draw = np.random.default_rng(count)
    return [
        sample(dataset, i, brightness=draw.uniform(-0.5, 0.5), contrast=draw.uniform(0.1, 0.5)) for i in range(count)
    ]


def test_the_same_seed_gives_the_same_draw_whatever_the_order():
    pool = many("a", 60) + many("b", 40)
    assert draw_samples(pool, 32, 1) == draw_samples(pool[::-1], 32, 1)
    assert draw_samples(pool, 32, 1) != draw_samples(pool, 32, 2)


def test_data_sets_share_as_far_as_they_reach():
    drawn = draw_samples(many("a", 200) + many("b", 60) + many("c", 5), 64, 1)
    counts = Counter(one.source.dataset for one in (*drawn.calibration, *drawn.held_back))
    assert counts["c"] == 5
    assert abs(counts["a"] - counts["b"]) <= 1
    assert counts.total() == 64


def test_a_quarter_of_each_data_set_is_held_back():
    drawn = draw_samples(many("a", 100) + many("b", 100), 64, 1)
    assert Counter(one.source.dataset for one in drawn.held_back) == {"a": 8, "b": 8}
    held_back = {one.name for one in drawn.held_back}
    assert held_back.isdisjoint(one.name for one in drawn.calibration)


def test_rare_brightness_and_contrast_are_drawn_as_often_as_ordinary_ones():
    ordinary = [sample("a", i, brightness=0.01 * (i % 7), contrast=0.5 + 0.001 * i) for i in range(90)]
    strange = [sample("a", 100 + i, brightness=-0.6 + 0.01 * i, contrast=0.1) for i in range(10)]
    drawn = draw_samples(ordinary + strange, 27, 1)
    found = {one.name for one in (*drawn.calibration, *drawn.held_back)} & {one.name for one in strange}
    assert len(found) >= 5  # 2.7 would be their share


def test_a_patient_is_on_one_side_only():
    pool = [sample("a", i, patient=str(i % 9), brightness=0.01 * i) for i in range(60)]
    drawn = draw_samples(pool, 40, 3)
    sides = [{one.source.patient for one in part} for part in (drawn.calibration, drawn.held_back)]
    assert sides[0]
    assert sides[1]
    assert sides[0].isdisjoint(sides[1])


def test_a_large_archive_is_not_read_whole():
    sources = [one.source for one in many("a", 500) + many("b", 30)]
    pool = draw_pool(sources, 16, 1)
    assert len(pool) == 64
    assert Counter(source.dataset for source in pool) == {"a": 34, "b": 30}
    assert pool == draw_pool(sources, 16, 1)
    assert pool != draw_pool(sources, 16, 2)
