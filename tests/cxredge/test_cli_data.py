"""``cxredge data check``: what it prints and its exit codes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import pytest
from click.testing import CliRunner, Result

from cxredge.cli.data import MOST_NAMED, command
from cxredge.errors import DatasetError
from cxredge.phantom import make_radiograph


def write_set(folder: Path, rows: dict[str, tuple[str, int]], patients: dict[str, str] | None = None) -> Path:
    """Write a data set: split and seed of the made radiograph by name."""
    (folder / "images").mkdir(parents=True)
    for name, (_, seed) in rows.items():
        cv2.imwrite(str(folder / "images" / f"{name}.png"), make_radiograph(seed, 96, 96).pixels << 4)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "split", "patientid"])
        writer.writerows([name, split, (patients or {}).get(name, "")] for name, (split, _) in rows.items())
    return folder


def check(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, ["check", *map(str, arguments)])


def test_sound_sets_are_tabulated_and_exit_with_0(tmp_path: Path) -> None:
    one = write_set(tmp_path / "one", {"a": ("train", 0), "b": ("test", 1)})
    two = write_set(tmp_path / "two", {"c": ("external-test", 2)})
    result = check(one, two)
    assert result.exit_code == 0
    for text in ("train: 1, test: 1", "external-test: 1", "96x96: 2", "16 bit: 2", "nothing wrong"):
        assert text in result.output


def test_test_image_among_the_training_images_exits_with_1(tmp_path: Path) -> None:
    one = write_set(tmp_path / "one", {"a": ("train", 0), "b": ("train", 1)})
    two = write_set(tmp_path / "two", {"c": ("external-test", 1)})
    assert check(one).exit_code == check(two).exit_code == 0
    result = check(one, two)
    assert result.exit_code == 1
    assert "error: 1 pair of one radiograph for training and for testing" in result.output
    assert "one/b (train) = two/c (external-test) (similarity 1.000)" in result.output


def test_unreadable_and_unpaired_files_exit_with_1(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "one", {"a": ("train", 0), "b": ("train", 1)})
    (folder / "masks").mkdir()
    cv2.imwrite(str(folder / "masks" / "a.png"), make_radiograph(0, 96, 96).lungs * 255.0)
    result = check(folder)
    assert result.exit_code == 1
    assert "error: 1 file: image without mask" in result.output
    assert str(folder / "images" / "b.png") in result.output
    (folder / "masks").rename(tmp_path / "elsewhere")
    (folder / "images" / "a.png").write_bytes(b"damaged")
    result = check(folder)
    assert result.exit_code == 1
    assert "error: 1 file: unreadable" in result.output


def test_shared_patients_and_copies_on_one_side_are_warnings(tmp_path: Path) -> None:
    rows = {"a": ("train", 0), "b": ("test", 1), "c": ("train", 2), "d": ("train", 2)}
    result = check(write_set(tmp_path / "one", rows, {"a": "5", "b": "5"}))
    assert result.exit_code == 0
    assert "warning: 1 patient in the training split and a held-out split" in result.output
    assert "one, patient 5: training a; held out b" in result.output
    assert "one/c (train) = one/d (train)" in result.output


def test_long_lists_are_cut_on_the_screen_and_whole_in_the_file(tmp_path: Path) -> None:
    count = MOST_NAMED + 3
    folder = write_set(tmp_path / "one", {"a": ("train", 0)})
    (folder / "masks").mkdir()
    for number in range(count):
        shutil.copy(folder / "images" / "a.png", folder / "masks" / f"stray{number}.png")
    result = check(folder, "--json", tmp_path / "audit.json")
    assert result.exit_code == 1
    assert "... and 3 more" in result.output
    content = json.loads((tmp_path / "audit.json").read_text())
    kinds = [finding["kind"] for finding in content["sets"][0]["findings"]]
    assert kinds.count("mask without image") == count


def test_folder_that_is_no_data_set_is_the_users_error(tmp_path: Path) -> None:
    result = check(tmp_path)
    assert isinstance(result.exception, DatasetError)
    assert "manifest.csv: cannot be read" in str(result.exception)


@pytest.mark.data
def test_real_set(data_root: Path) -> None:
    result = check(data_root / "nlm")
    assert result.exit_code == 0
    assert "external-test: 40" in result.output
    assert "nothing wrong" in result.output
