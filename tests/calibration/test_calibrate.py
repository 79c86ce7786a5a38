"""Calibration from the samples to the file: what is written passed the gate, and what does not pass is not written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from cxredge import Segmenter, bundled_model
from cxredge.errors import CalibrationError, MissingExtraError, OutputError
from cxredge.evaluation.scoring import dice
from cxredge_calibration import calibrate, ranges, report, sensitivity
from cxredge_calibration.calibrate import calibrate_model
from cxredge_calibration.model_file import read_contract, read_model
from cxredge_calibration.options import Options

FEW = Options(method="minmax", count=20, threads=1)
QUICK = Options(method="minmax", count=16, threads=1)


@pytest.fixture
def less_sensitivity(monkeypatch):
    """Measure the sensitivity of the bundled model's layers on one image, to save time."""
    monkeypatch.setattr(sensitivity, "IMAGES", 1)
    monkeypatch.setattr(sensitivity, "SIGNAL_IMAGES", 1)


def test_an_int8_model_is_written_with_its_contract(model_file, dataset, tmp_path):
    output = tmp_path / "darkness.int8.onnx"
    found = calibrate_model(model_file, [dataset], output, options=Options(count=20, threads=1, max_drop=0.01))
    model, contract = read_model(output)
    assert found.passed
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == 2 * len(found.quantised)
    assert model.opset_import[0].version >= 19
    before = read_contract(onnx.load(model_file))
    assert (contract.precision, contract.name, contract.folds) == ("int8", before.name, before.folds)
    assert contract.calibration is not None
    assert contract.calibration["method"] == "percentile"
    assert contract.calibration["remainder"] == "fp32"
    assert contract.calibration["gate"]["drop"] <= contract.calibration["gate"]["max_drop"] == 0.01
    assert contract.calibration["gate"]["tpr_drop"] is not None
    assert contract.calibration["samples"] == {"made": {"calibration": 14, "held_back": 6}}
    assert len(contract.calibration["quantised"]) + len(contract.calibration["left"]) == 4
    assert contract.measured == {}
    assert contract.calibration["fp32"]["measured"] == before.measured == {"datasets": []}


def test_the_report_stands_beside_the_model_as_json_and_picture(model_file, dataset, tmp_path):
    found = calibrate_model(model_file, [dataset], tmp_path / "a.int8.onnx", options=FEW)
    content = json.loads((tmp_path / "a.int8.calibration.json").read_text())
    assert content["passed"]
    assert {one["layer"] for one in content["sensitivity"]} == {"plain", "down", "deep", "up"}
    assert content["trials"][-1]["drop"] == found.verdict.figures.drop
    assert len(content["trials"][-1]["images"]) == 2 * len(found.choice.held_back)
    picture = cv2.imread(str(tmp_path / "a.int8.calibration.png"))
    assert picture is not None
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_the_report_goes_into_a_folder_of_choice(model_file, dataset, tmp_path):
    options = Options(method="minmax", count=20, threads=1, report=tmp_path / "new", ranges=tmp_path / "r.json")
    calibrate_model(model_file, [dataset], tmp_path / "a.onnx", options=options)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"calibration.json", "calibration.png"}
    assert (tmp_path / "r.json").is_file()


def test_ranges_are_estimated_once(model_file, dataset, tmp_path, monkeypatch):
    first = calibrate_model(model_file, [dataset], tmp_path / "a.onnx", options=FEW)
    monkeypatch.setattr(calibrate, "estimate_ranges", lambda *_: pytest.fail("were estimated again"))
    again = calibrate_model(model_file, [dataset], tmp_path / "a.onnx", options=FEW)
    assert (first.table_kept, again.table_kept) == (False, True)
    assert first.table == again.table


@pytest.mark.parametrize("changed", ["sample", "model", "seed"])
def test_ranges_of_other_samples_or_of_another_model_are_not_used(changed, model_file, dataset, tmp_path):
    calibrate_model(model_file, [dataset], tmp_path / "a.onnx", options=FEW)
    options = FEW
    if changed == "sample":
        for image in (dataset / "images").iterdir():
            pixels = cv2.imread(str(image), cv2.IMREAD_UNCHANGED)
            pixels[5, 5] += 1
            cv2.imwrite(str(image), pixels)
    elif changed == "model":
        model = onnx.load(model_file)
        model.producer_name = "another"
        model_file = tmp_path / "other.onnx"
        onnx.save(model, model_file)
    else:
        options = Options(method="minmax", count=20, threads=1, seed=2)
    assert not calibrate_model(model_file, [dataset], tmp_path / "a.onnx", options=options).table_kept


def test_the_same_samples_give_the_same_model(model_file, dataset, tmp_path):
    for name in "ab":
        calibrate_model(model_file, [dataset], tmp_path / name / "m.onnx", options=FEW)
    assert (tmp_path / "a" / "m.onnx").read_bytes() == (tmp_path / "b" / "m.onnx").read_bytes()


def test_stages_are_told(model_file, dataset, tmp_path):
    told = []
    calibrate_model(model_file, [dataset], tmp_path / "a.onnx", options=FEW, progress=lambda *step: told.append(step))
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == ["reading", "ranges", "sensitivity", "gate"]
    for stage in ("reading", "ranges", "sensitivity", "gate"):
        _, done, total = [step for step in told if step[0] == stage][-1]
        assert done == total


def test_an_int8_model_is_not_calibrated_again(model_file, dataset, tmp_path):
    calibrate_model(model_file, [dataset], tmp_path / "a.onnx", options=FEW)
    with pytest.raises(CalibrationError, match=r"a\.onnx: is not an FP32 model"):
        calibrate_model(tmp_path / "a.onnx", [dataset], tmp_path / "b.onnx", options=FEW)


def test_the_model_is_not_overwritten(model_file, dataset):
    with pytest.raises(OutputError, match="is the model itself"):
        calibrate_model(model_file, [dataset], model_file.parent / "." / model_file.name, options=FEW)


def test_too_few_samples_are_refused(model_file, tmp_path, make_chests):
    with pytest.raises(CalibrationError, match=r"only 15 different radiographs.*at least 16"):
        calibrate_model(model_file, [make_chests(tmp_path / "few", 15)], tmp_path / "a.onnx", options=FEW)


@pytest.mark.parametrize("wrong", [{"count": 15}, {"max_drop": -0.1}, {"least_quantised": 1.5}, {"method": "guess"}])
def test_options_are_checked(wrong):
    with pytest.raises(CalibrationError):
        Options(**wrong)


def test_a_few_samples_without_lungs_are_set_aside_by_name(model_file, chests, tmp_path):
    draw = np.random.default_rng(0)
    for index in range(2):
        cv2.imwrite(str(chests / f"noise{index}.png"), draw.integers(0, 255, (80, 80), np.uint8))
    found = calibrate_model(model_file, [chests], tmp_path / "a.onnx", options=Options("minmax", 22, threads=1))
    assert set(found.choice.set_aside) == {"chests/noise0", "chests/noise1"}
    assert sum(sum(counts.values()) for counts in found.choice.counts().values()) == 20


def test_without_matplotlib_the_extra_is_named_before_anything_is_done(model_file, chests, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"cxredge\[calibration\]"):
        calibrate_model(model_file, [chests], tmp_path / "a.onnx", options=FEW)
    assert list(tmp_path.iterdir()) == [chests]


def spoilt(factor: float, call: int):
    """ONNX Runtime's outputs, those of one call ``factor`` times as large: one outlier among the samples."""
    calls = iter(range(10_000))

    def run(session, pixels):
        outputs = ranges_run(session, pixels)
        return [values * np.float32(factor) for values in outputs] if next(calls) == call else outputs

    return run


ranges_run = ranges.run


def test_one_outlier_that_spoils_the_ranges_is_refused_and_named(model_file, dataset, tmp_path, monkeypatch):
    output = tmp_path / "a.int8.onnx"
    output.write_bytes(b"of an earlier run")
    monkeypatch.setattr(ranges, "run", spoilt(100, call=4))
    with pytest.raises(CalibrationError) as refused:
        calibrate_model(model_file, [dataset], output, options=FEW)
    content = json.loads((tmp_path / "a.int8.calibration.json").read_text())
    (name,) = content["blamed_samples"]
    assert f"samples that stretch the ranges: {name} (" in str(refused.value)
    assert content["sensitivity"][0]["layer"] in str(refused.value)
    assert content["blamed_images"][0] in str(refused.value)
    assert not content["passed"]
    assert (tmp_path / "a.int8.calibration.png").is_file()
    assert output.read_bytes() == b"of an earlier run"


class TestBundledModel:
    """The trained model on made radiographs, which it segments."""

    @pytest.fixture(autouse=True)
    def _quick(self, less_sensitivity):
        pass

    def test_it_passes_the_gate_and_segments_as_before(self, phantoms: Path, tmp_path: Path):
        output = tmp_path / "edge.int8.onnx"
        found = calibrate_model(bundled_model(), [phantoms], output, options=QUICK)
        assert found.passed
        assert found.quantised_share >= 0.8
        with Segmenter.load(threads=1) as fp32, Segmenter.load(output, threads=1) as int8:
            masks = [(fp32(path).mask, int8(path).mask) for path in sorted(phantoms.iterdir())[:3]]
        assert all(dice(before, after) > 0.99 for before, after in masks)

    def test_noise_is_refused(self, tmp_path: Path):
        draw = np.random.default_rng(0)
        (tmp_path / "noise").mkdir()
        for index in range(16):
            cv2.imwrite(str(tmp_path / "noise" / f"n{index}.png"), draw.integers(0, 255, (256, 256), np.uint8))
        with pytest.raises(CalibrationError, match=r"no two lungs in 1\d of 16 samples \(noise/n"):
            calibrate_model(bundled_model(), [tmp_path / "noise"], tmp_path / "a.onnx", options=QUICK)
        assert not (tmp_path / "a.onnx").exists()

    def test_one_outlier_a_hundredfold_is_refused(self, phantoms: Path, tmp_path: Path, monkeypatch):
        monkeypatch.setattr(ranges, "run", spoilt(100, call=6))
        with pytest.raises(CalibrationError, match=r"samples that stretch the ranges: phantoms0/phantom\d+ \("):
            calibrate_model(
                bundled_model(), [phantoms], tmp_path / "a.onnx", options=replace(QUICK, least_quantised=0.8)
            )
        assert not (tmp_path / "a.onnx").exists()
