"""Which files are found, in which order, and under which names their results go."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxredge.errors import InputError
from cxredge.runs.discovery import Found, find_radiographs

DICOM_HEAD = bytes(128) + b"DICM"


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    return folder


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def find(*inputs: Path, output: Path | None = None) -> Found:
    return find_radiographs(inputs, output or inputs[0].parent / "no-such-output")


def stems(found: Found) -> list[str]:
    return [target.stem.as_posix() for target in found.targets]


def test_folders_are_searched_recursively_in_order_of_name(scans: Path) -> None:
    touch(scans, "b.png", "a.png", "z/1.png", "y/2.png", "y/x/3.png", "10.png")
    found = find(scans)
    assert stems(found) == ["10", "a", "b", "y/2", "y/x/3", "z/1"]
    assert [target.source for target in found.targets][-1] == scans / "z" / "1.png"


def test_order_of_the_inputs_is_kept(scans: Path) -> None:
    touch(scans, "a.png", "b.png", "c.png")
    assert stems(find(scans / "c.png", scans / "a.png", scans / "b.png")) == ["c", "a", "b"]


def test_every_radiograph_extension_counts_in_either_case_and_others_are_skipped(scans: Path) -> None:
    touch(scans, "a.png", "b.JPG", "c.jpeg", "d.tif", "e.TIFF", "f.npy", "g.dcm", "h.DICOM")
    touch(scans, "notes.txt", "table.csv", "archive.zip", "README")
    found = find(scans)
    assert stems(found) == list("abcdefgh")
    assert found.skipped == 4


def test_dicom_files_without_an_extension_are_found_by_their_first_bytes(scans: Path) -> None:
    (scans / "IM0001").write_bytes(DICOM_HEAD + b"rest")
    (scans / "short").write_bytes(b"DICM")
    found = find(scans)
    assert stems(found) == ["IM0001"]
    assert found.skipped == 1


def test_dots_of_a_uid_belong_to_the_name(scans: Path) -> None:
    (scans / "1.2.840.10008.77").write_bytes(DICOM_HEAD)
    touch(scans, "1.2.840.10008.78.dcm")
    found = find(scans)
    assert [target.mask.name for target in found.targets] == ["1.2.840.10008.77.mask.png", "1.2.840.10008.78.mask.png"]


def test_a_file_that_is_named_is_taken_whatever_it_is(scans: Path) -> None:
    touch(scans, "notes.txt")
    assert stems(find(scans / "notes.txt")) == ["notes.txt"]


def test_stems_that_collide_keep_the_extension(scans: Path) -> None:
    touch(scans, "a.dcm", "a.png", "b.png")
    masks = [target.mask.name for target in find(scans).targets]
    assert masks == ["a.dcm.mask.png", "a.png.mask.png", "b.mask.png"]


def test_stems_that_collide_on_a_case_insensitive_file_system_keep_the_extension(scans: Path) -> None:
    touch(scans, "A.dcm", "a.png")
    assert [target.mask.name for target in find(scans).targets] == ["A.dcm.mask.png", "a.png.mask.png"]


def test_same_stem_in_two_subfolders_is_no_collision(scans: Path) -> None:
    touch(scans, "x/a.dcm", "y/a.png")
    assert stems(find(scans)) == ["x/a", "y/a"]


def test_names_that_collide_all_the_same_are_refused(scans: Path) -> None:
    touch(scans, "x/a.png", "y/a.png", "CASE.png", "case.png")
    with pytest.raises(InputError, match=r"x/a\.png and .*y/a\.png .*same name"):
        find(scans / "x/a.png", scans / "y/a.png")
    with pytest.raises(InputError, match="same name"):
        find(scans)


def test_two_folders_keep_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.png", "two/a.png", "two/sub/b.png", "c.png")
    assert stems(find(tmp_path / "one", tmp_path / "two", tmp_path / "c.png")) == ["one/a", "two/a", "two/sub/b", "c"]


def test_one_folder_does_not_add_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.png", "c.png")
    assert stems(find(tmp_path / "one", tmp_path / "c.png")) == ["a", "c"]


def test_a_folder_named_by_a_dot_keeps_its_real_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "one/a.png", "two/a.png")
    monkeypatch.chdir(tmp_path / "one")
    assert stems(find_radiographs([Path(), Path("../two")], tmp_path / "out")) == ["one/a", "two/a"]


def test_an_input_that_is_given_twice_is_done_once(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(scans, "a.png", "b.png")
    assert stems(find(scans / "a.png", scans / "a.png")) == ["a"]
    assert stems(find(scans, scans)) == ["a", "b"]
    assert stems(find(scans, scans / "a.png")) == ["a", "b"]
    monkeypatch.chdir(scans)
    assert stems(find(scans / "a.png", Path("a.png"), scans / ".." / "scans" / "a.png")) == ["a"]


def test_the_output_folder_below_an_input_is_left_out(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(scans, "a.png", "out/a.mask.png", "out/deep/b.mask.png", "sub/out/c.png")
    expected = ["a", "sub/out/c"]
    assert stems(find(scans, output=scans / "out")) == expected
    monkeypatch.chdir(scans)
    assert stems(find(scans, output=Path("out"))) == expected


def test_hidden_files_and_folders_are_left_out(scans: Path) -> None:
    touch(scans, "a.png", ".a.png", "._a.png", ".DS_Store", ".cache/b.png")
    found = find(scans)
    assert stems(found) == ["a"]
    assert found.skipped == 0


def test_a_missing_input_is_kept_so_that_its_result_can_say_so(scans: Path) -> None:
    touch(scans, "a.png")
    assert stems(find(scans / "a.png", scans / "absent.png")) == ["a", "absent"]


def test_an_empty_folder_gives_nothing(scans: Path) -> None:
    assert find(scans) == Found((), 0)


def test_links_to_folders_are_not_followed_so_loops_end(scans: Path) -> None:
    touch(scans, "sub/a.png")
    (scans / "sub" / "loop").symlink_to(scans, target_is_directory=True)
    (scans / "link.png").symlink_to(scans / "sub" / "a.png")
    assert stems(find(scans)) == ["link", "sub/a"]


def test_a_dangling_link_does_not_stop_the_search(scans: Path) -> None:
    touch(scans, "a.png")
    (scans / "gone").symlink_to(scans / "nowhere")
    assert stems(find(scans)) == ["a"]


def test_a_dicomdir_is_an_index_and_no_radiograph(scans: Path) -> None:
    (scans / "DICOMDIR").write_bytes(DICOM_HEAD)
    (scans / "IM1").write_bytes(DICOM_HEAD)
    assert stems(find(scans)) == ["IM1"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_named_pipe_does_not_hang_the_search(scans: Path) -> None:
    os.mkfifo(scans / "pipe")
    program = "import sys; from pathlib import Path; from cxredge.runs.discovery import find_radiographs as find; "
    program += "print(find([Path(sys.argv[1])], Path('out')))"
    done = subprocess.run([sys.executable, "-c", program, scans], capture_output=True, text=True, timeout=60)
    assert "targets=()" in done.stdout


def test_the_real_reader_and_the_search_agree_about_dicom(scans: Path, make_dicom: Any, chest: np.ndarray) -> None:
    make_dicom(chest, 12).save_as(scans / "1.2.3.4", enforce_file_format=True)
    assert stems(find(scans)) == ["1.2.3.4"]


def test_a_malformed_url_is_refused_without_repeating_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a URL is malformed") as refused:
        find_radiographs(["https://[4711/a.png"], tmp_path)
    assert "4711" not in str(refused.value)
