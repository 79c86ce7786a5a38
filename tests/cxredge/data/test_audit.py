"""Audit of data sets: what is counted, what is found wrong, and which images are one radiograph."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cxredge.data.audit import Audit, audit
from cxredge.data.dataset import Dataset, open_dataset
from cxredge.data.duplicates import SAME, THUMBNAIL_SIDE, candidates, find_duplicates, perceptual_hash, similarity
from cxredge.data.leaks import require_no_leaks, shared_patients, without_rows, without_shared_patients
from cxredge.errors import DatasetError
from cxredge.phantom import make_radiograph
from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph

SIDE = 160


@cache
def made(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An 8-bit radiograph and its 0/255 mask."""
    radiograph = make_radiograph(seed, SIDE, SIDE)
    return (radiograph.pixels >> 4).astype(np.uint8), radiograph.lungs.astype(np.uint8) * 255


def copied(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Another export of a film: cropped, other contrast, a figure letter, JPEG."""
    cropped = cv2.resize(pixels[3:-2, 4:-3], (200, 180), interpolation=cv2.INTER_AREA)
    levels = np.rint(255 * np.linspace(0, 1, 256) ** 0.8).astype(np.uint8)
    marked = cv2.putText(levels[cropped], "day 1", (70, 172), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 0, 2)
    _, encoded = cv2.imencode(".jpg", marked, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8)


def write_set(
    folder: Path,
    rows: Mapping[str, tuple[str, NDArray[np.uint8]]],
    masks: Mapping[str, NDArray[np.uint8]] | None = None,
    patients: Mapping[str, str] | None = None,
) -> Dataset:
    """Write a data set: split and pixels by name."""
    (folder / "images").mkdir(parents=True)
    for name, (_, pixels) in rows.items():
        cv2.imwrite(str(folder / "images" / f"{name}.png"), pixels)
    if masks is not None:
        (folder / "masks").mkdir()
        for name, mask in masks.items():
            cv2.imwrite(str(folder / "masks" / f"{name}.png"), mask)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "split", "patientid"])
        writer.writerows([name, split, (patients or {}).get(name, "")] for name, (split, _) in rows.items())
    return open_dataset(folder)


def names(found: Audit) -> list[tuple[str, str]]:
    return [(str(pair.first), str(pair.second)) for pair in found.duplicates]


def kinds(found: Audit) -> list[tuple[str, str]]:
    return sorted((finding.kind, finding.file.name) for each in found.sets for finding in each.findings)


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return network_input(Radiograph(pixels), THUMBNAIL_SIDE)


def test_images_are_counted_by_split_size_and_bits(tmp_path: Path) -> None:
    wide = (make_radiograph(3, 100, 140).pixels << 4).astype(np.uint16)
    rows = {"a": ("train", made(0)[0]), "b": ("train", made(1)[0]), "c": ("test", wide)}
    masks = {name: made(0)[1] for name in rows}
    (found,) = audit([write_set(tmp_path / "set", rows, masks)]).sets  # type: ignore[arg-type]
    assert found.splits == {"train": 2, "test": 1}
    assert found.sizes == {(SIDE, SIDE): 2, (140, 100): 1}
    assert found.bits == {8: 2, 16: 1}
    assert found.masks == 3
    assert found.findings == ()


def test_sound_set_has_nothing_wrong(tmp_path: Path) -> None:
    rows = {f"row{seed}": (("train", "test")[seed % 2], made(seed)[0]) for seed in range(8)}
    found = audit([write_set(tmp_path / "set", rows, {name: made(0)[1] for name in rows})])
    assert (kinds(found), found.duplicates, found.shared_patients, found.errors) == ([], (), (), ())
    require_no_leaks(found)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    rows = {name: ("train", made(seed)[0]) for seed, name in enumerate("abcdef")}
    masks = {"a": made(0)[1], "b": np.zeros((SIDE, SIDE), np.uint8), "c": np.full((SIDE, SIDE), 255, np.uint8)}
    masks |= {"d": made(3)[1], "e": made(4)[1], "stray": made(0)[1]}
    write_set(tmp_path / "set", rows, masks)
    cv2.imwrite(str(tmp_path / "set" / "images" / "extra.png"), made(7)[0])
    (tmp_path / "set" / "images" / "d.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    (tmp_path / "set" / "masks" / "e.png").write_bytes(b"")
    found = audit([open_dataset(tmp_path / "set")])
    assert kinds(found) == [
        ("empty mask", "b.png"),
        ("image without mask", "f.png"),
        ("mask without image", "stray.png"),
        ("nearly full mask", "c.png"),
        ("not in the manifest", "extra.png"),
        ("unreadable", "d.png"),
        ("unreadable", "e.png"),
    ]
    assert sorted(finding.file.name for finding in found.errors) == ["d.png", "e.png", "f.png", "stray.png"]
    assert sum(found.sets[0].sizes.values()) == 5


def test_set_without_masks_needs_none(tmp_path: Path) -> None:
    assert kinds(audit([write_set(tmp_path / "set", {"a": ("train", made(0)[0])})])) == []


def test_image_of_one_value_is_unreadable(tmp_path: Path) -> None:
    found = audit([write_set(tmp_path / "set", {"a": ("train", np.full((64, 64), 7, np.uint8))})])
    assert kinds(found) == [("unreadable", "a.png")]
    assert found.sets[0].sizes == {}


def test_copies_are_found_within_and_across_splits_and_sets(tmp_path: Path) -> None:
    first = write_set(
        tmp_path / "one",
        {"a": ("test", made(0)[0]), "b": ("train", made(1)[0]), "c": ("train", made(1)[0]), "d": ("train", made(2)[0])},
    )
    second = write_set(tmp_path / "two", {"e": ("train", copied(made(0)[0])), "f": ("external-test", made(3)[0])})
    found = audit([first, second])
    assert sorted(names(found)) == [("one/b (train)", "one/c (train)"), ("two/e (train)", "one/a (test)")]
    assert [str(pair) for pair in found.leaks] == ["two/e (train) = one/a (test)"]
    assert found.duplicates[0].similarity == 1.0
    assert SAME < found.duplicates[1].similarity < 1.0


@pytest.mark.parametrize(("split", "leak"), [("val", True), ("external-test", True), ("spare", False)])
def test_leak_is_a_copy_in_a_held_out_split(tmp_path: Path, split: str, leak: bool) -> None:
    found = audit([write_set(tmp_path / "set", {"a": ("train", made(0)[0]), "b": (split, made(0)[0])})])
    assert [pair.leak for pair in found.duplicates] == [leak]


def test_negative_is_a_copy(tmp_path: Path) -> None:
    rows = {"a": ("train", made(0)[0]), "b": ("test", 255 - copied(made(0)[0])), "c": ("test", made(1)[0])}
    assert names(audit([write_set(tmp_path / "set", rows)])) == [("set/a (train)", "set/b (test)")]


def test_many_copies_on_one_side_do_not_hide_the_other_side(tmp_path: Path) -> None:
    rows = {f"test{number}": ("test", made(0)[0]) for number in range(12)}
    rows |= {f"train{number}": ("train", made(0)[0]) for number in range(2)}
    leaks = audit([write_set(tmp_path / "set", rows)]).leaks
    assert {pair.second.case.name for pair in leaks} == {f"test{number}" for number in range(12)}


def test_folder_given_twice_counts_once(tmp_path: Path) -> None:
    dataset = write_set(tmp_path / "set", {"a": ("train", made(0)[0])})
    found = audit([dataset, open_dataset(tmp_path / "set" / ".." / "set")])
    assert len(found.sets) == 1
    assert found.duplicates == ()


def test_one_image_or_none_has_no_duplicates() -> None:
    assert find_duplicates([], []) == ()


def test_different_patients_are_told_apart() -> None:
    inputs = [thumbnail(made(seed)[0]) for seed in range(8)]
    apart = [similarity(inputs[i], inputs[j]) for i in range(8) for j in range(i)]
    same = [similarity(inputs[i], thumbnail(copied(made(i)[0]))) for i in range(8)]
    assert max(apart) < SAME < min(same)


def test_similarity_of_images_without_content_is_zero() -> None:
    flat = np.full((128, 128), -1, np.float32)
    dot = flat.copy()
    dot[80, 80] = 1
    assert similarity(thumbnail(made(0)[0]), dot) < SAME
    assert similarity(dot, flat) == 0


def test_hash_is_a_unit_vector_that_contrast_hardly_changes() -> None:
    first = perceptual_hash(thumbnail(made(0)[0]))
    assert first.shape == (64,)
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert first @ perceptual_hash(thumbnail((255 * (made(0)[0] / 255.0) ** 2).astype(np.uint8))) > 0.97
    assert first @ perceptual_hash(-thumbnail(made(0)[0])) < -0.97


def test_candidates_are_pairs_of_two_images_in_order() -> None:
    hashes = np.eye(64, dtype=np.float32)[[0, 1, 0, 2, 1, 0]]
    training = np.array([True, True, False, False, False, True])
    assert candidates(hashes, training) == [(0, 2), (0, 5), (1, 4), (2, 5)]


def test_patients_in_training_and_held_out_splits_are_named_and_left_out(tmp_path: Path) -> None:
    splits = {"a": "train", "b": "test", "c": "train", "d": "train", "e": "val", "f": "spare", "g": "test"}
    patients = {"a": "7", "b": "7", "c": "8", "d": " 9", "e": "9", "f": "8"}
    rows = {name: (split, made(0)[0]) for name, split in splits.items()}
    dataset = write_set(tmp_path / "set", rows, patients=patients)
    found = shared_patients([dataset])
    assert [
        (shared.dataset, shared.patient, [c.name for c in shared.training], [c.name for c in shared.held_out])
        for shared in found
    ] == [("set", "7", ["a"], ["b"]), ("set", "9", ["d"], ["e"])]
    kept = without_shared_patients(dataset.split("train"), [dataset])
    assert [case.name for case in kept] == ["c"]


def test_same_patient_number_in_two_sets_is_two_patients(tmp_path: Path) -> None:
    sets = [write_set(tmp_path / split, {"a": (split, made(0)[0])}, patients={"a": "7"}) for split in ("train", "test")]
    assert shared_patients(sets) == ()


def test_leak_is_refused_by_name_until_its_training_row_is_left_out(tmp_path: Path) -> None:
    rows = {"a": ("train", made(0)[0]), "b": ("test", copied(made(0)[0])), "c": ("train", made(1)[0])}
    dataset = write_set(tmp_path / "set", rows)
    found = audit([dataset])
    training = dataset.split("train")
    message = r"1 training image.*set/a \(train\) = set/b \(test\).*Leave the training row out"
    for cases in (None, training):
        with pytest.raises(DatasetError, match=message):
            require_no_leaks(found, cases)
    kept = without_rows(training, ["set/a"])
    assert [case.name for case in kept] == ["c"]
    require_no_leaks(found, kept)


def test_row_to_leave_out_must_be_there(tmp_path: Path) -> None:
    dataset = write_set(tmp_path / "set", {"a": ("train", made(0)[0])})
    with pytest.raises(DatasetError, match="'set/z' is not among the rows"):
        without_rows(dataset.cases, ["set/z"])


def test_content_is_json(tmp_path: Path) -> None:
    rows = {"a": ("train", made(0)[0]), "b": ("test", made(0)[0])}
    found = audit([write_set(tmp_path / "set", rows, {"a": made(0)[1]}, {"a": "1", "b": "1"})])
    content = json.loads(json.dumps(found.to_dict()))
    assert content["sets"][0]["sizes"] == {f"{SIDE}x{SIDE}": 2}
    assert [finding["kind"] for finding in content["sets"][0]["findings"]] == ["image without mask"]
    assert content["duplicates"][0]["leak"] is True
    assert content["shared_patients"] == [{"dataset": "set", "patient": "1", "training": ["a"], "held_out": ["b"]}]


def rows_of(data_root: Path, folder: Path, wanted: list[str]) -> Dataset:
    """A set of some Cohen rows and of JSRT images, which resemble each other most of all."""
    with (data_root / "cohen" / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] in wanted]
    (folder / "images").mkdir(parents=True)
    for row in rows:
        shutil.copy(data_root / "cohen" / "images" / f"{row['name']}.png", folder / "images")
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return open_dataset(folder)


@pytest.mark.data
def test_real_copies_are_found_and_films_of_one_patient_are_not_copies(data_root: Path, tmp_path: Path) -> None:
    copies = ["cohen_168", "cohen_243", "cohen_274", "cohen_402"]
    one_patient = ["cohen_077", "cohen_079", "cohen_176", "cohen_406", "cohen_246", "cohen_032", "cohen_253"]
    found = audit([rows_of(data_root, tmp_path / "cohen", copies + one_patient)])
    assert sorted(names(found)) == [
        ("cohen/cohen_168 (train)", "cohen/cohen_243 (train)"),
        ("cohen/cohen_274 (train)", "cohen/cohen_402 (test)"),
    ]
    assert len(found.leaks) == 1


@pytest.mark.data
def test_real_patients_that_look_alike_are_not_copies(data_root: Path) -> None:
    alike = ["JPCLN019", "JPCLN124", "JPCLN030", "JPCLN105", "JPCLN004", "JPCLN138", "JPCLN125", "JPCNN064"]
    cases = {case.name: case for case in open_dataset(data_root / "jsrt").cases}
    inputs = [network_input(cases[name].radiograph(), THUMBNAIL_SIDE) for name in alike]
    scores = [similarity(first, second) for first, second in zip(inputs[::2], inputs[1::2], strict=True)]
    assert 0.4 < max(scores) < SAME - 0.1


@pytest.mark.data
def test_real_patients_in_two_splits(data_root: Path) -> None:
    cohen = open_dataset(data_root / "cohen")
    found = shared_patients([cohen])
    assert len(found) == 25
    left_out = sum(len(shared.training) for shared in found)
    assert len(without_shared_patients(cohen.split("train"), [cohen])) == 418 - left_out
