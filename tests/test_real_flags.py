"""Quality flags of the bundled model on real radiographs; tests/benchmarks/flags.py measures all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cxredge import Radiograph, Segmenter
from cxredge.data.dataset import open_dataset
from cxredge.evaluation.evaluate import DEFAULT_SPLITS
from cxredge.evaluation.shift import shifted

pytestmark = pytest.mark.data

MOST_FALSE_ALARMS = 0.05


@pytest.fixture(scope="module")
def segmenter() -> Iterator[Segmenter]:
    with Segmenter.load(threads=1) as loaded:
        yield loaded


def radiographs(folder: Path, count: int) -> list[Radiograph]:
    """Some test rows, spread over the set."""
    cases = open_dataset(folder).split(*DEFAULT_SPLITS)
    return [case.radiograph() for case in cases[:: max(1, len(cases) // count)]]


def flag_share(segmenter: Segmenter, sources: list[Radiograph], flag: str) -> float:
    """Share of the radiographs that have a flag."""
    return float(np.mean([flag in result.flags for result in segmenter.stream(sources)]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jsrt", "nlm", "covid", "cohen"])
def test_untouched_radiographs_are_seldom_flagged(segmenter: Segmenter, data_root: Path, name: str) -> None:
    results = list(segmenter.stream(radiographs(data_root / name, 100)))
    assert np.mean([bool(result.flags) for result in results]) <= MOST_FALSE_ALARMS


@pytest.mark.parametrize(
    ("spoil", "flag"),
    [
        (lambda pixels: np.rot90(pixels).copy(), "not_frontal"),
        (lambda pixels: np.rot90(pixels, 2).copy(), "not_frontal"),
        (lambda pixels: 255 - pixels, "inverted_polarity"),
        (lambda pixels: np.where(np.arange(256) < 128, 0, pixels), "beyond_image"),
        (lambda pixels: pixels[64:192, 64:192].copy(), "touches_border"),
        (lambda pixels: pixels[:, :128].copy(), "unusual_shape"),
    ],
)
def test_spoiled_radiographs_are_flagged(
    segmenter: Segmenter, data_root: Path, spoil: Callable[[np.ndarray], np.ndarray], flag: str
) -> None:
    chosen = [one for name in ("jsrt", "nlm") for one in radiographs(data_root / name, 5)]
    assert flag_share(segmenter, [Radiograph(spoil(one.pixels)) for one in chosen], flag) >= 0.75


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jsrt", "nlm", "covid", "cohen"])
def test_polarity_is_never_corrected_wrongly_even_under_harsh_shift(
    segmenter: Segmenter, data_root: Path, name: str
) -> None:
    for level in ("none", "weak", "harsh"):
        sources = [shifted(one, level, f"{name}{n}", 256) for n, one in enumerate(radiographs(data_root / name, 100))]
        prepared = [segmenter.prepare(source) for source in sources]
        assert not any("inverted_polarity" in one.flags for one in prepared)


def test_a_ragged_lung_that_stops_high_is_low_in_margin(segmenter: Segmenter, data_root: Path) -> None:
    flagged = {path.name: segmenter(path).flags for path in sorted((data_root / "scans").iterdir())}
    assert flagged.pop("brixia_141013073969376505.png") == ("out_of_distribution", "low_margin")
    assert set(flagged.values()) == {()}
