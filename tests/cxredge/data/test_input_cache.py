"""Kept network inputs: the same numbers as read anew, and never stale or damaged ones."""

from __future__ import annotations

import csv
import io
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxredge.data import input_cache
from cxredge.data.dataset import Case, Dataset, load_inputs, open_dataset
from cxredge.data.input_cache import cache_folder, cached_inputs, input_key
from cxredge.errors import DatasetError
from cxredge.phantom import make_radiograph


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(input_cache.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    return cache_folder()


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    for seed in range(3):
        cv2.imwrite(str(folder / "images" / f"{seed}.png"), make_radiograph(seed, 96, 96).pixels << 4)
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["name", "split"], *([seed, "train"] for seed in range(3))])
    return open_dataset(folder)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of images of each time that inputs were made and not found in the cache."""
    made: list[int] = []

    def load(cases: tuple[Case, ...], size: int) -> np.ndarray:
        made.append(len(cases))
        return load_inputs(cases, size)

    monkeypatch.setattr(input_cache, "load_inputs", load)
    return made


def kept_file() -> Path:
    (path,) = cache_folder().glob("*.npy")
    return path


def test_inputs_are_those_that_are_read_and_are_made_once(dataset: Dataset, reads: list[int]) -> None:
    for _ in range(2):
        inputs = cached_inputs(dataset.cases, 32)
        assert inputs.dtype == np.float32
        assert inputs.flags.writeable
        np.testing.assert_array_equal(inputs, load_inputs(dataset.cases, 32))
    assert reads == [3]
    np.testing.assert_array_equal(np.load(kept_file(), allow_pickle=False), inputs)
    assert not list(cache_folder().glob("*.part"))


def test_size_rows_order_and_content_have_their_own_key(dataset: Dataset) -> None:
    cases = dataset.cases
    keys = {input_key(cases, 32), input_key(cases, 64), input_key(cases[:2], 32), input_key(cases[::-1], 32)}
    cv2.imwrite(str(cases[0].image), make_radiograph(9, 96, 96).pixels)
    assert len(keys | {input_key(cases, 32)}) == 5


@pytest.mark.parametrize("rule", ["NORMALISATION", "RESIZE"])
def test_other_rule_of_preprocessing_has_its_own_key(
    dataset: Dataset, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = input_key(dataset.cases, 32)
    monkeypatch.setattr(input_cache, rule, "another")
    assert input_key(dataset.cases, 32) != before


def test_moved_and_touched_files_keep_their_key(dataset: Dataset, tmp_path: Path) -> None:
    before = input_key(dataset.cases, 32)
    os.utime(dataset.cases[0].image, (1, 1))
    dataset.folder.rename(tmp_path / "moved")
    assert input_key(open_dataset(tmp_path / "moved").cases, 32) == before


def damage(content: bytes, how: str) -> bytes:
    if how == "pickle":
        buffer = io.BytesIO()
        np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
        return buffer.getvalue()
    if how == "shape":
        buffer = io.BytesIO()
        np.save(buffer, np.zeros((1, 1, 32, 32), np.float32))
        return buffer.getvalue()
    return {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "no checksum": content[:-32],
        "bit": content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
        "header": content[:20] + b"#" * 30 + content[50:],
        "text": b"not an array",
    }[how]


@pytest.mark.parametrize("how", ["empty", "cut", "no checksum", "bit", "header", "text", "pickle", "shape"])
def test_damaged_file_is_made_anew(dataset: Dataset, reads: list[int], how: str) -> None:
    expected = cached_inputs(dataset.cases, 32)
    sound = kept_file().read_bytes()
    kept_file().write_bytes(damage(sound, how))
    np.testing.assert_array_equal(cached_inputs(dataset.cases, 32), expected)
    assert kept_file().read_bytes() == sound
    assert reads == [3, 3]


def test_cache_that_cannot_be_written_is_done_without(dataset: Dataset, tmp_path: Path, reads: list[int]) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    for _ in range(2):
        np.testing.assert_array_equal(cached_inputs(dataset.cases, 32), load_inputs(dataset.cases, 32))
    assert reads == [3, 3]


def test_of_several_at_once_one_makes_the_inputs(dataset: Dataset, reads: list[int]) -> None:
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(cached_inputs(dataset.cases, 32))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reads == [3]
    assert all((result == results[0]).all() for result in results)


def test_missing_and_damaged_images_are_named(dataset: Dataset) -> None:
    dataset.cases[1].image.write_bytes(b"damaged")
    with pytest.raises(DatasetError, match=r"1\.png"):
        cached_inputs(dataset.cases, 32)
    dataset.cases[1].image.unlink()
    with pytest.raises(DatasetError, match=r"1\.png: cannot be read"):
        cached_inputs(dataset.cases, 32)


@pytest.mark.data
def test_real_radiographs(data_root: Path, reads: list[int]) -> None:
    cases = open_dataset(data_root / "nlm").cases[:5]
    np.testing.assert_array_equal(cached_inputs(cases, 64), cached_inputs(cases, 64))
    assert reads == [5]
