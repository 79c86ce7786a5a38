"""Data set folders: pairing by stem, clear errors, labels at network size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxredge.data.dataset import content_hash, load_inputs, load_masks, open_dataset
from cxredge.errors import DatasetError
from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph

IMAGE = (np.arange(64 * 48).reshape(64, 48) % 255).astype(np.uint8)
HALF = np.zeros((64, 48), np.uint8)
HALF[:, 24:] = 255


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three cases: ``a`` with all labels, ``b`` with a mask, ``c`` with none."""
    for kind, names in (("images", "abc"), ("masks", "ab"), ("infection", "a")):
        (tmp_path / kind).mkdir()
        for name in names:
            Image.fromarray(IMAGE if kind == "images" else HALF).save(tmp_path / kind / f"{name}.png")
    write_manifest(tmp_path, "name,split,age\na,train,61\nb,test,45\nc,test,\n")
    return tmp_path


def write_manifest(folder: Path, text: str, encoding: str = "utf-8") -> None:
    (folder / "manifest.csv").write_text(text, encoding=encoding)


def test_images_and_labels_are_paired_by_stem_in_the_manifests_order(folder: Path) -> None:
    write_manifest(folder, "name,split,age\nc,test,\na,train,61\nb,test,45\n")
    dataset = open_dataset(folder)
    assert [case.name for case in dataset.cases] == ["c", "a", "b"]
    c, a, b = dataset.cases
    assert a.image == folder / "images" / "a.png"
    assert a.mask == folder / "masks" / "a.png"
    assert a.infection == folder / "infection" / "a.png"
    assert (b.infection, c.mask, c.infection) == (None, None, None)
    assert a.row["age"] == "61"
    assert dataset.name == folder.name


def test_images_and_masks_may_have_different_extensions(folder: Path) -> None:
    (folder / "images" / "a.png").unlink()
    np.save(folder / "images" / "a.npy", IMAGE)
    assert open_dataset(folder).cases[0].image.name == "a.npy"


def test_splits_are_chosen_by_name(folder: Path) -> None:
    dataset = open_dataset(str(folder))
    assert [case.name for case in dataset.split("test")] == ["b", "c"]
    assert [case.name for case in dataset.split("train", "test")] == ["a", "b", "c"]
    with pytest.raises(DatasetError, match=r"no rows of split val .*test, train"):
        dataset.split("val")


@pytest.mark.parametrize(
    ("manifest", "complaint"),
    [
        ("name,split\n", "no rows"),
        ("", "no rows"),
        ("file,split\na,train\n", "no column 'name'"),
        ("name\na\n", "no column 'split'"),
        ("name,split\nz,train\n", "no image for 'z'"),
        ("name,split\na,train\na,test\n", "twice: a"),
    ],
)
def test_a_wrong_manifest_is_refused_with_what_is_wrong(manifest: str, complaint: str, folder: Path) -> None:
    write_manifest(folder, manifest)
    with pytest.raises(DatasetError, match=complaint):
        open_dataset(folder)


def test_a_missing_manifest_or_folder_says_what_a_data_set_is(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DatasetError, match=r"images/ and manifest\.csv"):
            open_dataset(path)


def test_a_manifest_that_excel_saved_is_read(folder: Path) -> None:
    write_manifest(folder, "name,split\na,train\n", encoding="utf-8-sig")
    assert open_dataset(folder).cases[0].name == "a"


def test_two_images_of_one_stem_are_refused(folder: Path) -> None:
    np.save(folder / "images" / "a.npy", IMAGE)
    with pytest.raises(DatasetError, match="two files have the name 'a'"):
        open_dataset(folder)


def test_inputs_are_those_of_the_device(folder: Path) -> None:
    inputs = load_inputs(open_dataset(folder).cases, 32)
    assert inputs.shape == (3, 1, 32, 32)
    np.testing.assert_array_equal(inputs[1, 0], network_input(Radiograph(IMAGE), 32))


def test_masks_are_at_network_size(folder: Path) -> None:
    masks = load_masks(open_dataset(folder).cases[:2], 32)
    assert masks.shape == (2, 32, 32)
    assert masks.dtype == bool
    np.testing.assert_array_equal(masks[0], np.tile(np.arange(32) >= 16, (32, 1)))


def test_a_case_without_a_mask_cannot_train_segmentation(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"c\.png: has no mask"):
        load_masks(open_dataset(folder).cases, 32)


def test_damaged_files_are_named(folder: Path) -> None:
    (folder / "images" / "a.png").write_bytes(b"garbage")
    (folder / "masks" / "b.png").write_bytes(b"garbage")
    Image.new("L", (64, 64)).save(folder / "images" / "c.png")
    a, b, c = open_dataset(folder).cases
    with pytest.raises(DatasetError, match=r"images/a\.png: is not an image"):
        load_inputs([a], 32)
    with pytest.raises(DatasetError, match=r"masks/b\.png: is not an image"):
        load_masks([b], 32)
    with pytest.raises(DatasetError, match=r"images/c\.png: all pixels are equal"):
        load_inputs([c], 32)


def test_content_hash_changes_with_the_manifest_alone(folder: Path) -> None:
    dataset = open_dataset(folder)
    before = content_hash([dataset])
    assert content_hash([dataset]) == before
    write_manifest(folder, "name,split\na,test\n")
    assert content_hash([dataset]) != before
    assert content_hash([dataset, dataset]) != content_hash([dataset])
