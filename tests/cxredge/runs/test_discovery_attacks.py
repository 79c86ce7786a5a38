"""Folders, links and media that lead elsewhere, and names that no file system takes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from cxredge.dicom.directory import listed_images
from cxredge.errors import InputError
from cxredge.runs.discovery import find_radiographs
from cxredge.runs.names import safe_name


def write_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(path, "PNG")
    return path


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    write_image(tmp_path / "scans" / "a.png")
    return tmp_path / "scans"


def stems(*inputs: Path) -> list[str]:
    return [target.stem.as_posix() for target in find_radiographs(inputs, Path("/nowhere")).targets]


def test_a_link_that_leads_out_of_its_folder_is_passed_over_and_named(scans: Path, tmp_path: Path) -> None:
    secret = write_image(tmp_path / "secret" / "s.png")
    (scans / "out.png").symlink_to(secret)
    (scans / "up.png").symlink_to("../secret/s.png")
    (scans / "inside.png").symlink_to("a.png")
    found = find_radiographs([scans], tmp_path / "results")
    assert [target.stem.name for target in found.targets] == ["a", "inside"]
    assert found.outside == (scans / "out.png", scans / "up.png")


def test_a_link_that_the_caller_names_is_followed(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "named.png").symlink_to(scans / "a.png")
    (tmp_path / "folder").symlink_to(scans)
    assert stems(tmp_path / "named.png") == ["named"]
    assert stems(tmp_path / "folder") == ["a"]


def test_loops_of_links_end(scans: Path) -> None:
    (scans / "loop.png").symlink_to("loop.png")
    (scans / "one.png").symlink_to("two.png")
    (scans / "two.png").symlink_to("one.png")
    (scans / "round").symlink_to(".")
    assert stems(scans) == ["a"]


@pytest.mark.timeout(20)
def test_a_pipe_or_a_device_in_a_folder_does_not_stop_the_search(scans: Path) -> None:
    os.mkfifo(scans / "pipe.png")
    os.mkfifo(scans / "pipe")
    (scans / "zero.png").symlink_to("/dev/zero")
    assert stems(scans) == ["a"]


@pytest.mark.parametrize("name", ["a:b.png", "a\nb.png", "con.png", "x" * 250 + ".png", "a\u202egnp.png"])
def test_the_results_of_a_name_that_not_every_file_system_takes_have_a_safe_one(name: str, tmp_path: Path) -> None:
    write_image(tmp_path / "scans" / name)
    assert stems(tmp_path / "scans") == [safe_name(name[:-4])]


def test_names_that_are_no_text_become_text(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for byte in (b"\xff", b"\xfe"):
        source = write_image(tmp_path / "plain.png")
        source.rename(os.fsdecode(os.fsencode(tmp_path / "scans") + b"/a" + byte + b".png"))
    names = stems(tmp_path / "scans")
    assert len(set(names)) == 2
    assert all(name.encode().startswith(b"a_-") for name in names)


def test_no_name_of_an_input_leads_out_of_the_output_folder(tmp_path: Path) -> None:
    for path in (Path(".."), tmp_path / "no" / "..", Path("/"), Path("nowhere/../../x.png")):
        for target in find_radiographs([path] if not path.is_dir() else [], Path("/nowhere")).targets:
            assert ".." not in target.mask.parts
            assert not target.mask.is_absolute()


# DICOMDIR


def write_index(folder: Path, *file_ids: object) -> Path:
    index = Dataset()
    index.file_meta = FileMetaDataset()
    index.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    index.file_meta.MediaStorageSOPClassUID, index.file_meta.MediaStorageSOPInstanceUID = (
        MediaStorageDirectoryStorage,
        "1.2.3",
    )
    index.DirectoryRecordSequence = []
    for file_id in file_ids:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE"
        record.add_new("ReferencedFileID", "CS", file_id)
        index.DirectoryRecordSequence.append(record)
    folder.mkdir(exist_ok=True)
    index.save_as(folder / "DICOMDIR", enforce_file_format=True)
    return folder / "DICOMDIR"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "file_id",
    [["..", "S"], "/etc/passwd", ["", "etc", "passwd"], ["A", "..", "..", "S"], "C:x", ["."], "..\\S", ["A/../../S"]],
    ids=str,
)
def test_an_index_that_lists_what_is_elsewhere_is_refused(file_id: object, tmp_path: Path) -> None:
    index = write_index(tmp_path / "medium", file_id)
    with pytest.raises(InputError, match="lists a file outside its folder"):
        listed_images(index)


def test_an_index_that_lists_a_link_out_or_a_loop_is_refused(tmp_path: Path) -> None:
    index = write_index(tmp_path / "medium", "IMAGE1")
    write_image(tmp_path / "S")
    (tmp_path / "medium" / "IMAGE1").symlink_to("../S")
    with pytest.raises(InputError, match="outside its folder"):
        listed_images(index)
    (tmp_path / "medium" / "IMAGE1").unlink()
    (tmp_path / "medium" / "IMAGE1").symlink_to("IMAGE1")
    with pytest.raises(InputError, match="outside its folder"):
        listed_images(index)
