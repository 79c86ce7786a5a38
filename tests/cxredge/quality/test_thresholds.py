"""``cxredge thresholds``: from a made data set to flags in a model's contract, which travel on into typed models."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cxredge import Segmenter
from cxredge.cli import main
from cxredge.data.dataset import open_dataset
from cxredge.errors import DatasetError
from cxredge.quality.flags import LIMITED
from cxredge.quality.thresholds import FEWEST, QUANTILE, derive_reference

COUNT = FEWEST + 10


def made_chest(seed: int) -> np.ndarray:
    """``(64, 64)`` two dark ellipses on bright tissue, never twice alike."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:64, :64] + rng.normal(0, 1, 2)[:, None, None]
    pixels = 170 + 0.6 * column + 0.5 * row + rng.normal(0, 2, (64, 64))
    for middle in (19, 45):
        inside = ((column - middle) / rng.uniform(8, 10)) ** 2 + ((row - 30) / rng.uniform(16, 20)) ** 2 < 1
        pixels[inside] = 40 + rng.normal(0, 3, inside.sum())
    return np.clip(pixels, 0, 255).astype(np.uint8)


def write_dataset(folder: Path, rows: list[tuple[str, str, np.ndarray]]) -> Path:
    """A data set of (name, split, pixels)."""
    (folder / "images").mkdir(parents=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "split"])
        for name, split, pixels in rows:
            writer.writerow([name, split])
            Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [(f"c{seed}", "val" if seed % 9 == 0 else "train", made_chest(seed)) for seed in range(COUNT)]
    blank = np.full((64, 64), 200, np.uint8)
    blank[0, 0] = 255
    tests = [(f"t{seed}", "test", np.rot90(made_chest(seed)).copy()) for seed in range(30)]
    return write_dataset(tmp_path_factory.mktemp("sets") / "chests", [*rows, ("none", "train", blank), *tests])


@pytest.fixture(scope="module")
def flagging_model(chests: Path, model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("flagging") / "flagging.onnx"
    done = CliRunner().invoke(main, ["thresholds", str(model_file), str(chests), "-o", str(output)])
    assert done.exit_code == 0, done.output
    assert f"chests {COUNT + 1} radiographs; 1 without two lungs" in done.output
    return output


def test_only_training_and_validation_rows_count(flagging_model: Path) -> None:
    with Segmenter.load(flagging_model) as loaded:
        source = loaded.contract.reference.source
    assert source["radiographs"] == {"chests": COUNT + 1}
    assert source["without_two_lungs"] == 1
    assert source["splits"] == ["train", "val"]


def test_the_weights_and_all_else_stay(flagging_model: Path, model_file: Path) -> None:
    onnx = pytest.importorskip("onnx")
    before, after = (onnx.load(file) for file in (model_file, flagging_model))
    assert before.graph == after.graph
    with Segmenter.load(model_file) as old, Segmenter.load(flagging_model) as new:
        changed = {name for name, value in vars(new.contract).items() if value != vars(old.contract)[name]}
    assert changed == {"input_statistics", "flag_thresholds"}


def test_deriving_again_gives_the_same_file(flagging_model: Path, chests: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.onnx"
    CliRunner().invoke(main, ["thresholds", str(flagging_model), str(chests), "-o", str(again)])
    assert again.read_bytes() == flagging_model.read_bytes()


def test_what_is_usual_is_seldom_flagged_and_what_is_not_is(flagging_model: Path) -> None:
    with Segmenter.load(flagging_model) as loaded:
        usual = [loaded(made_chest(seed)).flags for seed in range(1000, 1040)]
        assert sum(bool(flags) for flags in usual) <= 0.05 * len(usual) + len(LIMITED) * (1 - QUANTILE) * len(usual)
        pixels = made_chest(2000)
        assert "not_frontal" in loaded(np.rot90(pixels).copy()).flags
        corrected = loaded(255 - pixels)
        assert "inverted_polarity" in corrected.flags
        np.testing.assert_array_equal(corrected.mask, loaded(pixels).mask)


def test_thresholds_travel_into_fp16(flagging_model: Path) -> None:
    precision = pytest.importorskip("cxredge_export.precision")
    from cxredge_calibration.model_file import read_contract, read_model

    model, contract = read_model(flagging_model)
    assert read_contract(precision.to_fp16(model)).reference.limits == contract.reference.limits


def test_inspect_says_which_flags_a_model_has(flagging_model: Path, model_file: Path) -> None:
    runner = CliRunner()
    environment = {"COLUMNS": "200"}
    assert "basic only" in runner.invoke(main, ["inspect", str(model_file)], env=environment).output
    assert f"{COUNT + 1} of chests" in runner.invoke(main, ["inspect", str(flagging_model)], env=environment).output


def test_too_few_radiographs_are_refused(segmenter: Segmenter, tmp_path: Path) -> None:
    few = write_dataset(tmp_path / "few", [(f"c{seed}", "train", made_chest(seed)) for seed in range(3)])
    with pytest.raises(DatasetError, match=f"3 radiographs, at least {FEWEST}"):
        derive_reference(segmenter, [open_dataset(few)])


def test_a_set_of_test_rows_alone_is_refused(segmenter: Segmenter, tmp_path: Path) -> None:
    held_out = write_dataset(tmp_path / "held-out", [("c", "test", made_chest(0))])
    with pytest.raises(DatasetError, match="no rows of split train or val"):
        derive_reference(segmenter, [open_dataset(held_out)])
