"""The bundled model on real radiographs: what the README claims, and the formats of real machines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import cxredge
from cxredge import Segmenter, read_radiograph
from cxredge.data.dataset import open_dataset
from cxredge.evaluation.evaluate import DICE, evaluate

pytestmark = pytest.mark.data

REQUIRED_DICE = {"jsrt": 0.97, "nlm": 0.96, "covid": 0.94}


@pytest.fixture(scope="module")
def segmenter():
    with Segmenter.load(threads=1) as loaded:
        yield loaded


@pytest.mark.parametrize(("name", "required"), REQUIRED_DICE.items())
def test_bundled_model_reaches_the_required_dice(segmenter, data_root, name, required):
    assert evaluate(segmenter, open_dataset(data_root / name)).values(DICE).mean() >= required


def test_contract_carries_the_figures_that_evaluation_gives(segmenter, data_root):
    rows = segmenter.contract.measured["datasets"]
    written = {row["dataset"]: row for row in rows if row["shift"] == "none"}
    found = evaluate(segmenter, open_dataset(data_root / "nlm")).to_dict()
    assert found[DICE]["mean"] == pytest.approx(written["nlm"][DICE]["mean"], abs=1e-3)


def test_bundled_model_was_compared_with_its_checkpoint_on_the_jsrt_test_rows():
    with Segmenter.load() as loaded:
        parity = loaded.contract.parity
    assert parity["images"] == 49
    assert parity["flipped_pixels"] == 0


def test_segment_command_finds_two_lungs_in_every_real_scan(data_root, tmp_path):
    scans = data_root / "scans"
    command = Path(sys.executable).with_name("cxredge")
    done = subprocess.run([command, "segment", scans, "-o", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [Path(line["input"]).name for line in lines] == sorted(path.name for path in scans.iterdir())
    for line in lines:
        assert line["status"] in {"ok", "warning"}
        mask = np.asarray(Image.open(tmp_path / "out" / line["mask"]))
        assert mask.shape == read_radiograph(line["input"]).shape == (line["height"], line["width"])
        assert set(np.unique(mask)) == {0, 255}
        count, _, stats, centres = cv2.connectedComponentsWithStats(mask, connectivity=4)
        assert count == 3, line["input"]
        assert (stats[1:, cv2.CC_STAT_AREA] > 0.04 * mask.size).all()
        assert centres[1:, 0].min() < 0.5 * mask.shape[1] < centres[1:, 0].max()


def test_made_radiographs_are_segmented_as_they_were_drawn(segmenter):
    from cxredge.evaluation.scoring import dice
    from cxredge.phantom import make_radiograph

    scores = []
    for seed in range(6):
        made = make_radiograph(seed)
        scores.append(dice(segmenter(made.pixels).mask, made.lungs))
    assert min(scores) > 0.85


def test_bundled_model_is_small_enough_for_the_wheel():
    assert cxredge.bundled_model().stat().st_size < 12e6
    assert cxredge.bundled_model().with_name("MODEL_CARD.md").is_file()
