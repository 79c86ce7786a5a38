"""The gate's figures are those of the masks."""

from __future__ import annotations

import numpy as np
import pytest

from cxredge_calibration.gate import GateFigures, ImageFigures, Reference, compare, make_references, measure
from cxredge_calibration.samples import find_sources, read_samples
from cxredge_calibration.simulation import open_session

EMPTY = np.zeros((64, 64), bool)


def mask(*rows: int) -> np.ndarray:
    """``(64, 64)`` True in the rows."""
    found = EMPTY.copy()
    found[list(rows)] = True
    return found


def image(name: str, agreement: float, **figures: float) -> ImageFigures:
    return ImageFigures(name, agreement, **figures)


def test_masks_are_compared_with_each_other_and_with_labels():
    reference = Reference("a", EMPTY.astype(np.float32), mask(1, 2, 3), mask(1, 2), mask(2, 3))
    found = compare(reference, mask(1, 2, 4))
    assert found.agreement == pytest.approx(2 / 3)
    assert (found.dice_fp32, found.dice_int8) == (pytest.approx(0.8), pytest.approx(0.8))
    assert (found.tpr_fp32, found.tpr_int8) == (1.0, 0.5)


def test_without_labels_only_the_masks_are_compared():
    found = compare(Reference("a", EMPTY.astype(np.float32), mask(1), None, None), mask(1))
    assert found == ImageFigures("a", 1.0)


def test_the_drop_is_the_largest_of_disagreement_and_falls_of_dice_and_tpr():
    images = (
        image("a", 0.998, dice_fp32=0.97, dice_int8=0.96),
        image("b", 1.0, dice_fp32=0.96, dice_int8=0.97, tpr_fp32=0.9, tpr_int8=0.86),
    )
    figures = GateFigures(images, 2)
    assert figures.disagreement == pytest.approx(0.001)
    assert figures.dice_drop == pytest.approx(0)
    assert figures.tpr_drop == figures.drop == pytest.approx(0.04)
    assert figures.to_dict()["images"][1]["tpr_int8"] == 0.86


def test_a_gain_does_not_hide_disagreement():
    assert GateFigures((image("a", 0.99, dice_fp32=0.5, dice_int8=0.9),), 1).drop == pytest.approx(0.01)


def test_figures_without_labels_say_so():
    figures = GateFigures((image("a", 0.99),), 1)
    assert figures.dice_drop is None
    assert figures.tpr_drop is None


@pytest.fixture
def references(graph, dataset):
    samples = list(read_samples(find_sources([dataset]), 64))[:6]
    return list(make_references(open_session(graph, 1), samples))


def test_each_sample_is_followed_by_its_shifted_copy_with_the_same_labels(references):
    assert [one.name for one in references[:2]] == ["made/chest0", "made/chest0, shifted"]
    assert not np.array_equal(references[0].input, references[1].input)
    assert np.array_equal(references[0].lungs, references[1].lungs)
    assert references[0].infection is not None
    assert references[-1].infection is None


def test_a_row_that_lacks_a_lung_is_not_scored_for_dice(graph, dataset):
    manifest = dataset / "manifest.csv"
    header, *rows = manifest.read_text().splitlines()
    lungs = ["0" if row.startswith("chest0,") else "1" for row in rows]
    rows = [f"{row},{lung}" for row, lung in zip(rows, lungs, strict=True)]
    manifest.write_text("\n".join([f"{header},left_lung", *rows]) + "\n")
    samples = list(read_samples(find_sources([dataset]), 64))[:2]
    first, _, second, _ = make_references(open_session(graph, 1), samples)
    assert first.lungs is None
    assert second.lungs is not None


def test_a_model_agrees_with_itself(graph, references):
    figures = measure(open_session(graph, 1), references)
    assert figures.complete
    assert figures.drop == 0
    assert all(one.dice_fp32 == one.dice_int8 > 0.9 for one in figures.images)


def test_measuring_stops_when_the_limit_is_out_of_reach(graph, references):
    changed = [Reference(one.name, one.input, ~one.mask, None, None) for one in references]
    figures = measure(open_session(graph, 1), changed, limit=0.002)
    assert len(figures.images) == 1
    assert not figures.complete
    assert figures.drop > 0.002
