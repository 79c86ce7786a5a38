"""DICOMDIR as an input, files without extension or preamble, and what an index may not do."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage, generate_uid

from cxredge import read_radiograph
from cxredge.cli import main
from cxredge.dicom.directory import listed_images
from cxredge.dicom.prefix import is_directory, lacks_preamble
from cxredge.errors import InputError
from cxredge.runs.discovery import find_radiographs


@pytest.fixture
def medium(tmp_path: Path, chest: np.ndarray, make_dicom: Any) -> Path:
    """A DICOM medium with two images, as pydicom writes it."""
    files = FileSet()
    for number in range(2):
        dataset = make_dicom(chest, 12, StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.4")
        dataset.update({"StudyDate": "20260101", "StudyTime": "0101", "StudyID": "1", "AccessionNumber": ""})
        dataset.update({"Modality": "DX", "SeriesNumber": 1, "InstanceNumber": number + 1})
        dataset.SOPInstanceUID = generate_uid()
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        files.add(dataset)
    files.write(tmp_path / "medium")
    return tmp_path / "medium"


def index(folder: Path, *file_ids: Any, kind: str = "IMAGE") -> Path:
    """A DICOMDIR that lists ``file_ids``, whatever they are."""
    dataset = Dataset()
    records = []
    for file_id in file_ids:
        record = Dataset()
        record.DirectoryRecordType, record.ReferencedFileID = kind, file_id
        records.append(record)
    dataset.DirectoryRecordSequence = records
    dataset.ensure_file_meta()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    folder.mkdir(exist_ok=True)
    dataset.save_as(folder / "DICOMDIR", enforce_file_format=True)
    return folder / "DICOMDIR"


def found(*inputs: Path) -> list[tuple[Path, str]]:
    targets = find_radiographs(inputs, inputs[0].parent / "nowhere").targets
    return [(target.source, target.stem.as_posix()) for target in targets]


def test_a_dicomdir_stands_for_the_images_that_it_lists(medium: Path) -> None:
    sources = [source for source, _ in found(medium / "DICOMDIR")]
    assert len(sources) == 2
    assert all(read_radiograph(source).shape == (80, 96) for source in sources)
    assert [stem for _, stem in found(medium / "DICOMDIR")] == [
        source.relative_to(medium).as_posix() for source in sources
    ]


def test_its_folder_gives_the_same_files_without_the_index(medium: Path) -> None:
    assert sorted(found(medium)) == sorted(found(medium / "DICOMDIR"))


def test_other_inputs_beside_it_keep_their_names_apart(medium: Path, one_image_folder: Path) -> None:
    stems = [stem for _, stem in found(medium / "DICOMDIR", one_image_folder)]
    assert [stem.split("/")[0] for stem in stems] == ["medium", "medium", "scans"]


def test_an_index_under_another_name_is_one_too(medium: Path) -> None:
    (medium / "DICOMDIR").rename(medium / "index.dcm")
    assert len(found(medium / "index.dcm")) == 2


def test_records_of_other_kinds_are_passed_over(tmp_path: Path) -> None:
    assert listed_images(index(tmp_path / "m", ["REPORT"], kind="SR DOCUMENT")) == []


def test_a_file_that_is_missing_is_kept_so_that_its_result_can_say_so(tmp_path: Path) -> None:
    assert found(index(tmp_path / "m", ["A", "B"])) == [(tmp_path / "m" / "A" / "B", "A/B")]


def test_a_file_that_is_listed_twice_is_one(tmp_path: Path) -> None:
    assert len(listed_images(index(tmp_path / "m", ["A"], "A", ["B"]))) == 2


@pytest.mark.parametrize("written", ["im001", "IM001.;1", "Im001"])
def test_names_are_found_in_any_case_and_with_the_version_of_a_cd(written: str, tmp_path: Path) -> None:
    path = index(tmp_path / "m", ["PAT", "IM001"])
    (tmp_path / "m" / "pat").mkdir()
    (tmp_path / "m" / "pat" / written).touch()
    assert listed_images(path) == [tmp_path / "m" / "pat" / written]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "file_id", [["..", "secret"], ["A", "..", "..", "secret"], "../secret", "/etc/passwd", ["", "etc"], "C:\\x", ["."]]
)
def test_an_index_cannot_name_a_file_outside_its_folder(file_id: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    path = index(tmp_path / "m", file_id)
    if isinstance(file_id, str) and "\\" in file_id:
        assert all(file.is_relative_to(tmp_path / "m") for file in listed_or_none(path))
        return
    with pytest.raises(InputError, match="outside its folder"):
        listed_images(path)
    assert found(path) == [(path, "DICOMDIR")]
    with pytest.raises(InputError, match="outside its folder"):
        read_radiograph(path)


def listed_or_none(path: Path) -> list[Path]:
    try:
        return listed_images(path)
    except InputError:
        return []


def test_a_link_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    path = index(tmp_path / "m", ["LINK"])
    (tmp_path / "m" / "LINK").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="outside its folder"):
        listed_images(path)


@pytest.mark.parametrize("share", [0.4, 0.7, 0.9, 0.99])
def test_an_index_that_is_cut_off_says_so_in_its_result(share: float, medium: Path) -> None:
    path = medium / "DICOMDIR"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert found(path) == [(path, path.name)]
    with pytest.raises(InputError, match="damaged DICOMDIR"):
        read_radiograph(path)


def test_an_index_is_no_radiograph_and_says_what_to_do(medium: Path) -> None:
    with pytest.raises(InputError, match="index of 2 images: give it"):
        read_radiograph(medium / "DICOMDIR")


@pytest.mark.filterwarnings("ignore")
def test_segment_takes_an_index_and_keeps_its_structure(medium: Path, model_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    arguments = ["segment", str(medium / "DICOMDIR"), "-o", str(output), "--model", str(model_file)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (output / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["mask"] for line in lines] == [f"{stem}.mask.png" for _, stem in found(medium / "DICOMDIR")]
    assert all((output / line["mask"]).is_file() for line in lines)


# Files without a preamble


def bare(dataset: Dataset, *, implicit: bool, little: bool = True) -> bytes:
    del dataset.file_meta
    buffer = BytesIO()
    dataset.save_as(buffer, implicit_vr=implicit, little_endian=little)
    return buffer.getvalue()


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
def test_a_folder_gives_data_sets_without_a_preamble(
    implicit: bool, little: bool, tmp_path: Path, chest: np.ndarray, make_dicom: Any
) -> None:
    dataset = make_dicom(chest, 12)
    dataset["PixelData"].VR = "OW"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "IM1").write_bytes(bare(dataset, implicit=implicit, little=little))
    (tmp_path / "in" / "notes").write_text("no radiograph")
    assert [stem for _, stem in found(tmp_path / "in")] == ["IM1"]


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x08\x00",
        bytes(1024),
        b"\xff" * 1024,
        b"plain text, and more of it\n" * 40,
        b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100",
        b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100\x08\x00\x04\x00CS\x02\x00AB" + bytes(40),
        b"\x10\x00\x10\x00PN\x04\x00A^B \x10\x00\x20\x00LO\x02\x0012" + bytes(40),
        b"\x08\x00\x05\x00\x03\x00\x00\x00abc\x08\x00\x08\x00\x02\x00\x00\x00ab" + bytes(40),
        b"\x08\x00\x05\x00\xff\xff\xff\x7f" + bytes(1000),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"II*\0\x08\0\0\0" + bytes(100),
    ],
)
def test_other_files_do_not_look_like_data_sets(head: bytes) -> None:
    assert not lacks_preamble(head)
    assert not is_directory(head)


def test_source_code_and_programs_do_not_look_like_data_sets() -> None:
    import sys

    files = [Path(sys.executable).resolve(), *Path(np.__file__).parent.rglob("*.so"), *Path(__file__).parent.iterdir()]
    heads = [path.read_bytes()[:1024] for path in files if path.is_file()]
    assert len(heads) > 30
    assert not any(lacks_preamble(head) for head in heads)
