"""Scores of a model on a data set, against figures counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxredge import Segmenter
from cxredge.data.dataset import open_dataset
from cxredge.errors import DatasetError
from cxredge.evaluation.evaluate import evaluate


def boxes(*corners: tuple[int, int, int, int]) -> np.ndarray:
    """``(64, 64)`` True inside the boxes (top, left, bottom, right)."""
    mask = np.zeros((64, 64), bool)
    for top, left, bottom, right in corners:
        mask[top:bottom, left:right] = True
    return mask


PREDICTED = boxes((10, 5, 50, 25), (10, 35, 50, 55))
"""What the tiny model finds: 2 x 800 pixels."""


def save(mask: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(path)


def add_case(folder: Path, name: str, truth: np.ndarray | None = None, abnormality: np.ndarray | None = None) -> None:
    save(~PREDICTED, folder / "images" / f"{name}.png")
    if truth is not None:
        save(truth, folder / "masks" / f"{name}.png")
    if abnormality is not None:
        save(abnormality, folder / "infection" / f"{name}.png")


def manifest(folder: Path, *rows: str) -> Path:
    (folder / "manifest.csv").write_text("name,split,left_lung,right_lung\n" + "\n".join(rows) + "\n")
    return folder


def test_dice_and_true_positive_ratios_by_hand(tmp_path: Path, segmenter: Segmenter) -> None:
    truth = boxes((10, 5, 50, 25))  # 800 pixels, of which all are predicted: 2*800 / (1600 + 800)
    abnormality = boxes((40, 5, 60, 25))  # 400 pixels, rows 40 to 60: 200 predicted, and these 200 are the truth's
    add_case(tmp_path, "a", truth, abnormality)
    (score,) = evaluate(segmenter, open_dataset(manifest(tmp_path, "a,test,1,1"))).scores
    assert score.case.name == "a"
    np.testing.assert_array_equal(score.mask, PREDICTED)
    assert score.measures == {
        "dice": pytest.approx(2 / 3),
        "iou": pytest.approx(1 / 2),
        "hd95_pixels": pytest.approx(30.0),
        "tpr": pytest.approx(0.5),
        "tpr_inside_lung": pytest.approx(1.0),
    }


def test_abnormality_outside_the_true_lungs_counts_only_in_the_whole_ratio(
    tmp_path: Path, segmenter: Segmenter
) -> None:
    add_case(tmp_path, "a", boxes((10, 5, 60, 25)), boxes((40, 5, 60, 25), (60, 30, 64, 40)))
    (score,) = evaluate(segmenter, open_dataset(manifest(tmp_path, "a,test,1,1"))).scores
    assert score.measures["tpr"] == pytest.approx(200 / 440)
    assert score.measures["tpr_inside_lung"] == pytest.approx(200 / 400)


def test_a_row_that_lacks_a_lung_is_not_scored_by_lungs(tmp_path: Path, segmenter: Segmenter) -> None:
    for name in "ab":
        add_case(tmp_path, name, PREDICTED, boxes((40, 5, 60, 25)))
    first, second = evaluate(segmenter, open_dataset(manifest(tmp_path, "a,test,0,1", "b,test,1,0"))).scores
    assert set(first.measures) == set(second.measures) == {"tpr"}


def test_an_empty_abnormality_is_not_scored(tmp_path: Path, segmenter: Segmenter) -> None:
    add_case(tmp_path, "a", PREDICTED, boxes())
    (score,) = evaluate(segmenter, open_dataset(manifest(tmp_path, "a,test,1,1"))).scores
    assert score.measures == {"dice": 1.0, "iou": 1.0, "hd95_pixels": 0.0}


def test_summary_gives_count_mean_deviation_and_minimum(tmp_path: Path, segmenter: Segmenter) -> None:
    add_case(tmp_path, "a", PREDICTED)
    add_case(tmp_path, "b", boxes((10, 5, 50, 25)))
    add_case(tmp_path, "c", abnormality=boxes((40, 5, 60, 25)))
    summary = evaluate(segmenter, open_dataset(manifest(tmp_path, "a,test,1,1", "b,external-test,1,1", "c,test,1,1")))
    content = summary.to_dict()
    assert content["dataset"] == tmp_path.name
    assert content["shift"] == "none"
    expected = {"count": 2, "mean": 0.83333, "sd": 0.16667, "min": 0.66667, "max": 1.0, "mean_95": [0.66667, 1.0]}
    assert content["dice"] == expected
    assert content["tpr"]["count"] == 1
    assert content["share_below_dice_0.8"] == 0.5
    assert "tpr_inside_lung" not in content


def test_only_the_asked_splits_are_scored(tmp_path: Path, segmenter: Segmenter) -> None:
    for name in "abc":
        add_case(tmp_path, name, PREDICTED)
    dataset = open_dataset(manifest(tmp_path, "a,train,1,1", "b,val,1,1", "c,test,1,1"))
    assert [score.case.name for score in evaluate(segmenter, dataset).scores] == ["c"]
    assert [score.case.name for score in evaluate(segmenter, dataset, ("train", "val")).scores] == ["a", "b"]


def test_a_data_set_without_labels_cannot_be_scored(tmp_path: Path, segmenter: Segmenter) -> None:
    add_case(tmp_path, "a")
    with pytest.raises(DatasetError, match="masks/ or infection/"):
        evaluate(segmenter, open_dataset(manifest(tmp_path, "a,test,1,1")))


def test_a_damaged_image_or_label_stops_with_its_name(tmp_path: Path, segmenter: Segmenter) -> None:
    add_case(tmp_path, "a", PREDICTED)
    dataset = open_dataset(manifest(tmp_path, "a,test,1,1"))
    (tmp_path / "masks" / "a.png").write_bytes(b"garbage")
    with pytest.raises(DatasetError, match=r"masks/a\.png"):
        evaluate(segmenter, dataset)
    (tmp_path / "images" / "a.png").write_bytes(b"garbage")
    with pytest.raises(DatasetError, match=r"images/a\.png"):
        evaluate(segmenter, dataset)


def test_a_label_of_another_size_is_refused(tmp_path: Path, segmenter: Segmenter) -> None:
    add_case(tmp_path, "a", np.zeros((32, 64), bool))
    with pytest.raises(DatasetError, match="shape"):
        evaluate(segmenter, open_dataset(manifest(tmp_path, "a,test,1,1")))
