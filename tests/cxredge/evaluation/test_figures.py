"""The figures of an evaluation show the numbers, the cases and the contours that they claim."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="figures need the extra 'evaluate'")

from cxredge.data.dataset import Case
from cxredge.errors import DatasetError, OutputError
from cxredge.evaluation.evaluate import DICE, TPR, TPR_INSIDE, Score, Summary
from cxredge.evaluation.figures import (
    INFECTION,
    NAME_LENGTH,
    PREDICTION,
    SIDE,
    TRUTH,
    case_picture,
    draw_bars,
    draw_cases,
    draw_figures,
    grey_picture,
    outlined,
    typical_cases,
)
from cxredge.evaluation.scoring import bootstrap_interval
from cxredge.evaluation.shift import Level, shifted
from cxredge.phantom import make_radiograph
from cxredge.radiograph import Radiograph
from cxredge.runs.results import mask_png

BOX = np.zeros((64, 64), bool)
BOX[20:40, 10:30] = True
EVERYWHERE = np.ones((128, 96), bool)


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A made radiograph, 128x96, with lungs and an abnormality on disk."""
    folder = tmp_path_factory.mktemp("chest")
    made = make_radiograph(3, 128, 96)
    cv2.imwrite(str(folder / "image.png"), made.pixels)
    opacity = made.lungs.copy()
    opacity[:80] = False
    for name, mask in (("lungs", made.lungs), ("opacity", opacity)):
        (folder / f"{name}.png").write_bytes(mask_png(mask))
    return Case("chest", "test", folder / "image.png", folder / "lungs.png", folder / "opacity.png", {})


def scored(case: Case, name: str, level: Level = "none", **measures: float) -> Score:
    """A score of ``case`` under another name; the prediction is the upper half of the image."""
    mask = np.zeros((128, 96) if level == "none" else (64, 64), bool)
    mask[: len(mask) // 2] = True
    return Score(Case(name, case.split, case.image, case.mask, case.infection, {}), mask, measures)


def summary_of(case: Case, values: list[float], level: Level = "none", dataset: str = "made") -> Summary:
    return Summary(dataset, level, tuple(scored(case, f"c{i}", level, dice=value) for i, value in enumerate(values)))


def texts(figure: object) -> list[str]:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    assert isinstance(figure, Figure)
    return [found.get_text() for found in figure.findobj(Text) if isinstance(found, Text)]


def colours(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}


def test_every_announced_file_is_a_png_with_a_picture(chest: Case, tmp_path: Path) -> None:
    summaries = [summary_of(chest, [0.5, 0.9, 0.7]), summary_of(chest, [0.4, 0.8, 0.6], "harsh")]
    files = draw_figures(summaries, tmp_path / "new" / "figures")
    assert [file.name for file in files] == ["bars.png", "cases-made-none.png", "cases-made-harsh.png"]
    assert sorted(files) == sorted((tmp_path / "new" / "figures").iterdir())
    for file in files:
        picture = cv2.imread(str(file))
        assert min(picture.shape[:2]) > 200
        assert picture.std() > 10


def test_without_scores_nothing_is_drawn(tmp_path: Path) -> None:
    assert draw_figures([], tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()


def test_bars_show_the_means_with_their_intervals(chest: Case) -> None:
    summaries = [
        summary_of(chest, values, level, dataset)
        for dataset, level, values in (
            ("a", "none", [0.9, 0.8, 1.0]),
            ("a", "harsh", [0.5, 0.7, 0.3]),
            ("b", "none", [0.6, 0.6, 0.6]),
        )
    ]
    (axes,) = draw_bars(summaries).axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.9, 0.5, 0.6])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    first, second, third = (bar.get_x() + bar.get_width() / 2 for bar in axes.patches)
    assert first < 0 < second < 0.5 < third
    segments = [collection.get_segments()[0] for collection in axes.collections]
    for summary, segment in zip(summaries, segments, strict=True):
        assert segment[:, 1] == pytest.approx(bootstrap_interval(summary.values(DICE)))


def test_bars_leave_out_what_nobody_has(chest: Case) -> None:
    lungs = summary_of(chest, [0.9, 0.8])
    sick = Summary("sick", "none", (scored(chest, "s", dice=0.9, tpr=0.5, tpr_inside_lung=0.6),))
    assert [axes.get_title() for axes in draw_bars([lungs]).axes] == ["Dice"]
    dice, ratio, inside = draw_bars([lungs, sick]).axes
    assert len(dice.patches) == 2
    assert [bar.get_height() for bar in (*ratio.patches, *inside.patches)] == pytest.approx([0.5, 0.6])


def test_typical_cases_are_the_worst_the_median_and_the_best(chest: Case) -> None:
    values = [0.1 * i for i in (5, 1, 9, 3, 7, 2, 8, 4, 6, 0)]
    rows = typical_cases(summary_of(chest, [*values, 1.0]))
    found = {label: [score.measures[DICE] for score in scores] for label, scores in rows.items()}
    assert found == {
        "worst": pytest.approx([0, 0.1, 0.2]),
        "median": pytest.approx([0.4, 0.5, 0.6]),
        "best": pytest.approx([0.8, 0.9, 1.0]),
    }


@pytest.mark.parametrize("count", range(1, 12))
def test_no_case_is_shown_twice(chest: Case, count: int) -> None:
    rows = typical_cases(summary_of(chest, [0.5] * count))
    names = [score.case.name for scores in rows.values() for score in scores]
    assert len(set(names)) == len(names) >= min(count, 2)
    assert all(rows.values())


def test_cases_without_dice_are_ranked_by_the_true_positive_ratio(chest: Case) -> None:
    scores = tuple(scored(chest, f"c{i}", **{TPR: ratio}) for i, ratio in enumerate((0.7, 0.2, 0.9)))
    rows = typical_cases(Summary("sick", "none", (*scores, scored(chest, "unlabelled"))))
    assert [score.case.name for line in rows.values() for score in line] == ["c1", "c0", "c2"]


def test_panel_names_every_case_with_its_scores(chest: Case) -> None:
    scores = tuple(scored(chest, f"c{i}", **{DICE: 0.5 + i / 10, TPR: 0.25, TPR_INSIDE: 0.75}) for i in range(3))
    found = texts(draw_cases(Summary("sick", "none", scores)))
    assert {"worst", "median", "best", "sick, shift: none"} <= set(found)
    assert "c1\nDice 0.60, TPR 0.25, inside 0.75" in found


def test_legend_names_the_contours_that_there_are(chest: Case) -> None:
    bare = Case("bare", "test", chest.image, chest.mask, None, {})
    assert {"truth", "prediction", "infection label"} <= set(texts(draw_cases(summary_of(chest, [0.5]))))
    assert "infection label" not in texts(draw_cases(summary_of(bare, [0.5])))


def test_picture_has_the_contours_of_every_mask(chest: Case) -> None:
    picture = case_picture(scored(chest, "c"), "none")
    assert picture.shape == (SIDE, SIDE * 96 // 128, 3)
    assert {TRUTH, PREDICTION, INFECTION} <= colours(picture)
    rows = np.flatnonzero((picture == PREDICTION).all(axis=2).any(axis=1))
    assert rows.max() == pytest.approx(SIDE / 2, abs=3)


def test_contours_follow_the_border_and_nothing_else() -> None:
    picture = outlined(np.full((128, 128), 7, np.uint8), [(None, INFECTION), (BOX, TRUTH)], thickness=1)
    assert colours(picture) == {(7, 7, 7), TRUTH}
    rows, columns = np.nonzero((picture == TRUTH).all(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((40, 79, 20, 59), abs=1)
    assert not (picture[44:76, 24:56] != 7).any()


def test_last_contour_lies_on_top() -> None:
    assert TRUTH not in colours(outlined(np.zeros((64, 64), np.uint8), [(BOX, TRUTH), (BOX, PREDICTION)]))


def test_shifted_case_shows_the_shifted_image(chest: Case) -> None:
    plain, noisy = (case_picture(scored(chest, "c", level), level) for level in ("none", "harsh"))
    grey = grey_picture(shifted(chest.radiograph(), "harsh", "c", 64))
    drawn = (noisy != grey[..., None]).any(axis=2)
    assert drawn.mean() < 0.1
    assert noisy.shape == (SIDE, SIDE, 3) != plain.shape


@pytest.mark.parametrize("shape", [(64, 64), (1000, 500), (100, 300)])
def test_grey_picture_keeps_shape_and_polarity(shape: tuple[int, int]) -> None:
    pixels = np.tile(np.linspace(0, 4095, shape[1]).astype(np.uint16), (shape[0], 1))
    grey, inverted = (grey_picture(Radiograph(pixels, polarity=p)) for p in ("MONOCHROME2", "MONOCHROME1"))
    assert max(grey.shape) == SIDE
    assert grey.shape[0] / grey.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.01)
    assert grey[0, 0] <= 2
    assert grey[0, -1] >= 253
    np.testing.assert_allclose(grey.astype(int), 255 - inverted.astype(int), atol=1)


def test_names_are_shown_as_they_are_and_cut_where_too_long(chest: Case, tmp_path: Path) -> None:
    odd = Score(Case("$\\frac_x{", "test", chest.image, None, None, {}), EVERYWHERE, {DICE: 0.5})
    long = Score(Case("x" * 64, "test", chest.image, None, None, {}), EVERYWHERE, {DICE: 0.6})
    summary = Summary("$d_", "none", (odd, long))
    draw_figures([summary], tmp_path)
    found = texts(draw_cases(summary))
    assert "$\\frac_x{\nDice 0.50" in found
    assert "x" * (NAME_LENGTH - 1) + "…\nDice 0.60" in found


def test_figures_of_an_earlier_run_are_replaced(chest: Case, tmp_path: Path) -> None:
    (tmp_path / "bars.png").write_text("old")
    (tmp_path / "mine.txt").write_text("mine")
    draw_figures([summary_of(chest, [0.5])], tmp_path)
    assert cv2.imread(str(tmp_path / "bars.png")) is not None
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("below", [(), ("deeper",)])
def test_folder_that_cannot_be_written_is_reported(chest: Case, tmp_path: Path, below: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        draw_figures([summary_of(chest, [0.5])], (tmp_path / "file").joinpath(*below))


def test_damaged_label_is_named(chest: Case, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"garbage")
    case = Case("c", "test", chest.image, tmp_path / "broken.png", None, {})
    with pytest.raises(DatasetError, match=r"broken\.png"):
        draw_cases(summary_of(case, [0.5]))


def test_drawing_never_loads_pyplot() -> None:
    code = "import sys, cxredge.evaluation.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
