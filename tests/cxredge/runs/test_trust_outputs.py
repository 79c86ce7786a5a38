"""What a run leaves behind: nothing of a patient unless asked, nothing outside the output folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from pydicom import Dataset
from pydicom.datadict import DicomDictionary

from cxredge.cli import main
from cxredge.cli.display import describe
from cxredge.errors import InputError, OutputError, printable
from cxredge.runs.identity import read_identity
from cxredge.runs.results import write_atomically

MARKER = "ZQXPATIENT"
"""Stands in every attribute that tells who a patient is."""
DATE = "19210304"
TEXTS = {"PN", "LO", "SH", "LT", "ST", "UT", "CS", "AE"}
PATIENT_GROUPS = (0x0010, 0x0032, 0x0038, 0x0040)
"""Groups of the patient, of requests, visits and procedures."""
OF_IMAGES = {0x00080016, 0x00080018, 0x00080005}
"""SOP class, SOP instance and character set tell nothing of a patient and must be right."""

Segment = Callable[..., Result]


@pytest.fixture
def segment(model_file: Path) -> Segment:
    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, ["segment", "--model", str(model_file), *map(str, arguments)])

    return run


def marked(dataset: Dataset) -> Dataset:
    """``dataset`` with a marker in every text attribute of patient, visit, request and institution."""
    for tag, (vr, multiplicity, _, retired, keyword) in DicomDictionary.items():
        group = tag >> 16
        if retired or not keyword or tag in OF_IMAGES or tag in dataset:
            continue
        if group in PATIENT_GROUPS or (group == 0x0008 and ("Name" in keyword or "Institution" in keyword)):
            if vr in TEXTS and multiplicity.startswith("1"):
                dataset.add_new(tag, vr, MARKER)
            elif vr == "DA" and multiplicity == "1":
                dataset.add_new(tag, vr, DATE)
    dataset.PatientName, dataset.PatientID = f"{MARKER}^NAME", f"{MARKER}ID"
    dataset.AccessionNumber, dataset.StudyID = f"{MARKER}ACC", f"{MARKER}STUDY"
    dataset.ReferringPhysicianName, dataset.StationName = f"{MARKER}^DOC", f"{MARKER}STATION"
    dataset.StudyDescription, dataset.SeriesDescription = f"{MARKER} STUDY", f"{MARKER} SERIES"
    dataset.ImageComments, dataset.DeviceSerialNumber = MARKER, MARKER
    dataset.add_new(0x00091001, "LO", MARKER)
    return dataset


@pytest.fixture
def ward(tmp_path: Path, chest: np.ndarray, make_dicom: Any) -> Path:
    """A folder of marked DICOM files: one good, the others wrong in all the ways that lead to a message."""
    folder = tmp_path / "ward"
    folder.mkdir()

    def write(name: str, pixels: np.ndarray = chest, **attributes: Any) -> Path:
        dataset = marked(make_dicom(pixels, **attributes))
        dataset.save_as(folder / name, enforce_file_format=True)
        return folder / name

    good = write("good.dcm")
    write("lateral.dcm", ViewPosition="LL")
    write("constant.dcm", np.zeros_like(chest))
    write("frames.dcm", NumberOfFrames=3)
    write("huge.dcm", Rows=65_000, Columns=65_000)
    write("colour.dcm", PhotometricInterpretation="XYZ")
    write("syntax.dcm").write_bytes(good.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"))
    write("bits.dcm", BitsAllocated=12)
    content = good.read_bytes()
    for number, share in enumerate(np.linspace(0.05, 0.95, 12)):
        (folder / f"cut-{number:02}.dcm").write_bytes(content[: int(share * len(content))])
    for number, place in enumerate(np.random.default_rng(0).integers(140, len(content) - chest.nbytes, 40)):
        damaged = content[:place] + b"\xff\xff\xff" + content[place + 3 :]
        (folder / f"damaged-{number:02}.dcm").write_bytes(damaged)
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def is_dicom_object(name: str) -> bool:
    return name.endswith(".dcm")


FORMAT_OPTIONS = [
    (),
    ("--format", "png,dicom-seg,dicom-sc,contour-json,npy", "--report", "report.html"),
    ("--timeout", "30"),
    ("--log-format", "json", "--log-level", "debug"),
]


@pytest.mark.parametrize("options", FORMAT_OPTIONS, ids=lambda options: " ".join(options) or "plain")
def test_nothing_of_a_patient_is_in_any_output_log_or_message(
    options: tuple[str, ...],
    segment: Segment,
    ward: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.chdir(tmp_path)
    result = segment(ward, "-o", tmp_path / "out", *options)
    assert result.exit_code == 3, result.output
    outputs = everything(tmp_path / "out")
    assert "good.mask.png" in outputs
    outputs |= {path.name: path.read_bytes() for path in tmp_path.glob("*.html")}
    outputs = {name: content for name, content in outputs.items() if not is_dicom_object(name)}
    streams = "".join(capfd.readouterr()) + result.output + result.stderr + caplog.text
    for secret in (MARKER, DATE, "NAME", "ID-4711"):
        assert secret not in streams
        assert [name for name, content in outputs.items() if secret.encode() in content] == []


def test_a_patient_is_named_where_the_user_asks(segment: Segment, ward: Path, tmp_path: Path) -> None:
    image = tmp_path / "plain.png"
    Image.fromarray(np.asarray(np.arange(4096) % 251, np.uint8).reshape(64, 64)).save(image)
    assert segment(ward / "good.dcm", image, "-o", tmp_path / "out", "--keep-identity").exit_code == 0
    first, second = map(json.loads, (tmp_path / "out" / "results.jsonl").read_text().splitlines())
    assert (first["patient_id"], first["accession_number"]) == (f"{MARKER}ID", f"{MARKER}ACC")
    assert (second["patient_id"], second["accession_number"]) == (None, None)
    assert f"{MARKER}^NAME" not in (tmp_path / "out" / "results.jsonl").read_text()


def test_results_with_and_without_identity_are_not_mixed(segment: Segment, ward: Path, tmp_path: Path) -> None:
    assert segment(ward / "good.dcm", "-o", tmp_path / "out").exit_code == 0
    result = segment(ward / "good.dcm", "-o", tmp_path / "out", "--resume", "--keep-identity")
    assert result.exit_code == 1
    assert "mixed" in result.stderr


def test_the_identity_of_a_file_that_has_none(tmp_path: Path, make_dicom: Any, chest: np.ndarray) -> None:
    dataset = make_dicom(chest)
    del dataset.PatientID
    dataset.AccessionNumber = ""
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    nothing = {"patient_id": None, "accession_number": None}
    assert read_identity(tmp_path / "a.dcm") == nothing
    assert read_identity(tmp_path / "nowhere.dcm") == nothing


# Outside


def test_a_link_in_the_output_folder_stops_the_run_and_nothing_is_written_behind_it(
    segment: Segment, one_image_folder: Path, tmp_path: Path
) -> None:
    scans = tmp_path / "tree"
    (scans / "sub").mkdir(parents=True)
    (one_image_folder / "chest.png").rename(scans / "sub" / "chest.png")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    for options in ((), ("--overwrite",)):
        result = segment(scans, "-o", tmp_path / "out", *options)
        assert result.exit_code not in (0, 3)
        assert "leads out of the output folder through a link; remove the link" in result.stderr
        assert everything(tmp_path / "elsewhere") == {}


def test_overwriting_removes_nothing_behind_a_link(segment: Segment, one_image_folder: Path, tmp_path: Path) -> None:
    scans = tmp_path / "tree"
    (scans / "sub").mkdir(parents=True)
    (one_image_folder / "chest.png").rename(scans / "sub" / "chest.png")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "chest.mask.png").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    segment(scans, "-o", tmp_path / "out", "--overwrite")
    assert everything(tmp_path / "elsewhere") == {"chest.mask.png": b"mine"}


@pytest.mark.parametrize("name", ["results.jsonl", "results.csv", "chest.mask.png"])
def test_a_link_in_place_of_a_result_is_replaced_not_followed(
    name: str, segment: Segment, one_image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "mine")
    assert segment(one_image_folder, "-o", tmp_path / "out", "--overwrite").exit_code == 0
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "out" / name).is_symlink()


def test_a_forged_journal_removes_nothing_outside(segment: Segment, one_image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    assert segment(one_image_folder, "-o", tmp_path / "out").exit_code == 0
    (journal,) = (
        path
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
        and b"chest.mask.png" in path.read_bytes()
        and path.name not in ("results.jsonl", "results.csv")
    )
    text = journal.read_text()
    journal.write_text(text.replace('"chest.mask.png": [', '"../mine": ['))
    (one_image_folder / "chest.png").touch()
    segment(one_image_folder, "-o", tmp_path / "out", "--resume")
    assert (tmp_path / "mine").read_text() == "mine"


def test_links_that_are_passed_over_are_told(segment: Segment, one_image_folder: Path, tmp_path: Path) -> None:
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(tmp_path / "s.png")
    (one_image_folder / "out.png").symlink_to(tmp_path / "s.png")
    result = segment(one_image_folder, "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert "1 links that lead out of their folders are passed over, the first is" in result.stderr
    assert "out.mask.png" not in everything(tmp_path / "out")


# Messages command no terminal


HOSTILE = "a\x1b[2Jb\nc\r\u202ed\udcff"
TAME = r"a\x1b[2Jb\nc\r\u202ed\udcff"


def test_no_message_has_a_control_character() -> None:
    assert printable(HOSTILE) == TAME
    error = InputError(f"is {HOSTILE}", HOSTILE)
    assert str(error) == f"{TAME}: is {TAME}"
    assert error.reason == f"is {TAME}"
    record = {"status": "failed", "input": HOSTILE, "error": "no"}
    assert describe(record) == f"failed   {TAME}: no"
    record = {"status": "ok", "input": HOSTILE, "milliseconds": {}, "lung_area_fraction": 0.0, "flags": []}
    record["not_written"] = {}
    assert TAME in describe(record)


def test_the_command_line_prints_no_control_character(segment: Segment, tmp_path: Path) -> None:
    result = segment(tmp_path / "a\x1b[2Jb.png", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "\x1b" not in result.output + result.stderr
    assert r"a\x1b[2Jb.png" in result.stderr
    with pytest.raises(OutputError):
        write_atomically(Path("/proc/nowhere/a"), b"")
