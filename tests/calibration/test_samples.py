"""Only training radiographs are calibrated on, and what cannot be used is named."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from cxredge.errors import CalibrationError, CxredgeError, DatasetError
from cxredge_calibration.samples import find_sources, read_samples


def names(paths) -> set[str]:
    return {source.case.name for source in find_sources(paths)}


def test_only_training_rows_of_a_data_set_are_found(dataset):
    assert names([dataset]) == {f"chest{seed}" for seed in range(20)}


def test_training_rows_of_a_patient_of_the_test_rows_are_left_out(dataset):
    manifest = dataset / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("chest21,test,21", "chest21,test,3"))
    assert names([dataset]) == {f"chest{seed}" for seed in range(20)} - {"chest3"}


def test_a_data_set_without_training_rows_is_refused(dataset):
    manifest = dataset / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("train", "test"))
    with pytest.raises(DatasetError, match="no rows of split train"):
        find_sources([dataset])


@pytest.mark.parametrize("inside", ["images", "images/chest21.png", ".."])
def test_files_of_a_data_set_are_refused_without_its_manifest(dataset, inside):
    with pytest.raises(CalibrationError, match=r"belongs to the data set .*made"):
        find_sources([dataset / inside])


def test_folders_and_files_are_found_once(chests):
    assert names([chests, chests / "chest3.png"]) == {f"chest{seed}" for seed in range(20)}


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(CalibrationError, match="no radiographs"):
        find_sources([tmp_path])


def test_patients_are_told_by_the_manifest_else_by_the_file(dataset, chests):
    by_name = {source.case.name: source.patient for source in find_sources([dataset])}
    assert by_name["chest0"] == by_name["chest18"] != by_name["chest1"]
    assert len({source.patient for source in find_sources([chests])}) == 20


def test_samples_are_network_inputs(dataset):
    samples = list(read_samples(find_sources([dataset]), 64))
    assert len(samples) == 20
    assert all(sample.input.shape == (64, 64) and sample.input.dtype == np.float32 for sample in samples)
    assert samples[0].name == "made/chest0"


def test_a_copy_of_an_earlier_file_is_left_out(chests):
    shutil.copy(chests / "chest0.png", chests / "again.png")
    assert len(list(read_samples(find_sources([chests]), 64))) == 20


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_name(chests, value):
    pixels = np.ones((64, 64), np.float32)
    pixels[3, 3] = value
    np.save(chests / "broken.npy", pixels)
    with pytest.raises(CxredgeError, match=r"broken\.npy: .*NaN or infinite"):
        list(read_samples(find_sources([chests]), 64))


@pytest.mark.parametrize("kind", ["unreadable", "constant", "missing"])
def test_files_that_cannot_be_used_are_named(chests, kind):
    bad = chests / "bad.png"
    if kind == "unreadable":
        bad.write_bytes(b"\x89PNG garbage")
    elif kind == "constant":
        cv2.imwrite(str(bad), np.full((64, 64), 7, np.uint8))
    with pytest.raises(CxredgeError, match=r"bad\.png"):
        list(read_samples(find_sources([chests, bad]), 64))
