"""``--format``: every kind of file by its name, what cannot be made with its reason, nothing of a patient elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest
from click.testing import CliRunner, Result
from pydicom import dcmread
from pydicom.dataset import Dataset

from cxredge import Segmenter
from cxredge.algorithm import Algorithm
from cxredge.cli import main
from cxredge.errors import InputError
from cxredge.runs.formats import FORMATS, Format
from cxredge.runs.results import RESULT_SUFFIXES, Target
from cxredge.runs.writer import ResultWriter

MakeDicom = Callable[..., Dataset]
Segment = Callable[..., Result]
ALL = ",".join(FORMATS)
OF_A_DICOM = sorted(f"g3{suffix}" for suffix in RESULT_SUFFIXES)
OF_A_PICTURE = (".contour.json", ".mask.npy", ".mask.png", ".overlay.png")
STUDY = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.5"}


@pytest.fixture
def segment(model_file: Path) -> Segment:
    """``segment(*arguments)`` in this process, with the tiny model."""

    def run(*arguments: str | Path) -> Result:
        return CliRunner().invoke(main, ["segment", *map(str, arguments), "--model", str(model_file)])

    return run


@pytest.fixture
def scans(tmp_path: Path, chest: np.ndarray, make_dicom: MakeDicom) -> Path:
    """A folder with an array and a DICOM file."""
    folder = tmp_path / "scans"
    folder.mkdir()
    np.save(folder / "g2.npy", chest)
    make_dicom(chest, 12, **STUDY).save_as(folder / "g3.dcm", enforce_file_format=True)
    return folder


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def files(output: Path) -> dict[str, bytes]:
    """Results that are neither list nor journal."""
    return {path.name: path.read_bytes() for path in output.iterdir() if path.name.endswith(RESULT_SUFFIXES)}


def test_every_format_of_a_dicom_file_and_of_a_picture(segment: Segment, scans: Path, tmp_path: Path) -> None:
    result = segment(scans, "-o", tmp_path / "out", "--format", ALL)
    assert result.exit_code == 0, result.output
    assert sorted(files(tmp_path / "out")) == [*(f"g2{suffix}" for suffix in OF_A_PICTURE), *OF_A_DICOM]
    picture, dicom = lines(tmp_path / "out")
    assert sorted(dicom["outputs"]) == OF_A_DICOM
    assert (dicom["status"], dicom["not_written"]) == ("ok", {})
    assert sorted(picture["outputs"]) == [f"g2{suffix}" for suffix in OF_A_PICTURE]
    assert picture["status"] == "warning"
    assert set(picture["not_written"]) == {"dicom-seg", "dicom-sc"}
    assert "needs a DICOM input" in picture["not_written"]["dicom-seg"]
    assert "no dicom-seg" in result.stderr


@pytest.mark.parametrize(
    ("options", "suffixes"),
    [
        ((), (".mask.png", ".overlay.png")),
        (("--no-overlay",), (".mask.png",)),
        (("--format", "npy"), (".mask.npy",)),
        (("--format", "npy, contour-json"), (".contour.json", ".mask.npy")),
        (("--format", "dicom-sc"), (".sc.dcm",)),
        (("--format", "dicom-seg,png", "--no-overlay"), (".mask.png", ".seg.dcm")),
    ],
)
def test_what_is_asked_for_is_written_and_nothing_else(
    segment: Segment, scans: Path, tmp_path: Path, options: tuple[str, ...], suffixes: tuple[str, ...]
) -> None:
    assert segment(scans / "g3.dcm", "-o", tmp_path / "out", *options).exit_code == 0
    assert sorted(files(tmp_path / "out")) == sorted(f"g3{suffix}" for suffix in suffixes)
    (line,) = lines(tmp_path / "out")
    assert line["mask"] == ("g3.mask.png" if ".mask.png" in suffixes else None)


def test_masks_of_all_formats_are_the_same(segment: Segment, scans: Path, tmp_path: Path) -> None:
    assert segment(scans, "-o", tmp_path / "out", "--format", ALL).exit_code == 0
    mask = np.load(tmp_path / "out" / "g3.mask.npy", allow_pickle=False)
    assert mask.dtype == np.bool_
    seg = dcmread(tmp_path / "out" / "g3.seg.dcm")
    np.testing.assert_array_equal(seg.pixel_array.any(axis=0), mask)
    from PIL import Image

    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "g3.mask.png")) > 0, mask)


def test_a_picture_that_can_have_nothing_of_what_is_wanted_has_failed(
    segment: Segment, scans: Path, tmp_path: Path
) -> None:
    result = segment(scans, "-o", tmp_path / "out", "--format", "dicom-seg,dicom-sc")
    assert result.exit_code == 3
    picture, dicom = lines(tmp_path / "out")
    assert picture["status"] == "failed"
    assert picture["error"].startswith("needs a DICOM input")
    assert sorted(dicom["outputs"]) == ["g3.sc.dcm", "g3.seg.dcm"]


def test_a_label_map_is_written_on_request(segment: Segment, scans: Path, tmp_path: Path) -> None:
    result = segment(scans / "g3.dcm", "-o", tmp_path / "out", "--format", "dicom-seg", "--seg-type", "labelmap")
    assert result.exit_code == 0
    assert dcmread(tmp_path / "out" / "g3.seg.dcm").SegmentationType == "LABELMAP"


@pytest.mark.parametrize("names", ["bmp", "png,bmp", "", "png,"])
def test_an_unknown_format_is_wrong_usage(segment: Segment, scans: Path, tmp_path: Path, names: str) -> None:
    result = segment(scans, "-o", tmp_path / "out", "--format", names)
    assert result.exit_code == 2
    assert "is none of png, dicom-seg, dicom-sc, contour-json, npy" in result.output
    assert not (tmp_path / "out").exists()


def test_another_run_gives_the_same_bytes(segment: Segment, scans: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert segment(scans, "-o", tmp_path / name, "--format", ALL).exit_code == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_results_of_other_formats_are_not_mixed(segment: Segment, scans: Path, tmp_path: Path) -> None:
    assert segment(scans, "-o", tmp_path / "out", "--format", "dicom-seg,npy").exit_code == 0
    for options in (("--format", "npy"), ("--format", "dicom-seg,npy", "--seg-type", "labelmap")):
        result = segment(scans, "-o", tmp_path / "out", "--resume", *options)
        assert result.exit_code != 0
        assert "another format" in result.output + result.stderr


def test_resume_makes_again_what_is_missing_of_any_format(segment: Segment, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert segment(scans, "-o", out, "--format", ALL).exit_code == 0
    before, seen = files(out), lines(out)
    (out / "g3.seg.dcm").unlink()
    (out / "g2.contour.json").write_text("{}")
    assert segment(scans, "-o", out, "--format", ALL, "--resume").exit_code == 0
    assert files(out) == before
    assert [line["outputs"] for line in lines(out)] == [line["outputs"] for line in seen]


def test_results_in_a_folder_are_no_radiographs(segment: Segment, scans: Path, tmp_path: Path) -> None:
    assert segment(scans, "-o", scans, "--format", ALL).exit_code == 0
    assert segment(scans, "-o", tmp_path / "out", "--format", "npy").exit_code == 0
    assert len(lines(tmp_path / "out")) == 2
    np.testing.assert_array_equal(np.load(scans / "g2.npy").dtype, np.uint16)


def test_a_patient_is_named_in_the_dicom_objects_only(segment: Segment, scans: Path, tmp_path: Path) -> None:
    result = segment(scans, "-o", tmp_path / "out", "--format", ALL, "--log-format", "json", "--log-level", "debug")
    assert result.exit_code == 0
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            named = any(word in path.read_bytes() for word in (b"Secret", b"Person", b"ID-4711"))
            assert named == (path.suffix == ".dcm"), path
    assert "Secret" not in result.output + result.stderr


def test_no_lung_is_a_record_and_a_picture_but_no_segmentation(
    segment: Segment, make_dicom: MakeDicom, tmp_path: Path, chest: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dicom(chest, 12, **STUDY).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    monkeypatch.setattr("cxredge.segmenter.scale_mask", lambda logits, shape: np.zeros(shape, np.bool_))
    assert segment(tmp_path / "a.dcm", "-o", tmp_path / "out", "--format", ALL).exit_code == 0
    (line,) = lines(tmp_path / "out")
    assert line["not_written"] == {"dicom-seg": "no lung was found, and a DICOM segmentation cannot be empty"}
    assert "a.sc.dcm" in line["outputs"]
    assert json.loads((tmp_path / "out" / "a.contour.json").read_text())["lungs"] == {"right": None, "left": None}


def test_a_source_that_is_gone_has_no_objects(scans: Path, tmp_path: Path, segmenter: Segmenter) -> None:
    formats: tuple[Format, ...] = ("dicom-seg", "npy")
    writer = ResultWriter(formats, Algorithm.of(segmenter.contract, "ab" * 32))
    segmentation = segmenter(scans / "g3.dcm")
    (scans / "g3.dcm").unlink()
    written = writer(tmp_path / "out", Target(scans / "g3.dcm", Path("g3")), segmentation)
    assert written.names == ("g3.mask.npy",)
    assert "cannot be read again" in written.refused["dicom-seg"]


# Files of others


def objects_are_right(paths: list[Path], segmenter: Segmenter, folder: Path, dicom_errors: Any) -> int:
    """Write and check the objects of every file that is a radiograph; gives their number."""
    formats: tuple[Format, ...] = ("dicom-seg", "dicom-sc")
    writer, number = ResultWriter(formats, Algorithm.of(segmenter.contract, "ab" * 32)), 0
    for path in paths:
        try:
            segmentation = segmenter(path)
        except InputError:
            continue
        number += 1
        written = writer(folder, Target(path, Path(f"{path.stem}-{number}")), segmentation)
        assert set(written.refused) <= ({"dicom-seg"} if not segmentation.mask.any() else set())
        for name in written.names:
            assert dicom_errors((folder / name).read_bytes()) == [], name
    return number


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom, about values that are wrong
@pytest.mark.parametrize("pattern", ["[SJ6ei]*.dcm", pytest.param("**/*", marks=pytest.mark.slow)])
def test_objects_of_pydicoms_own_files_are_right(
    segmenter: Segmenter, tmp_path: Path, dicom_errors: Any, pattern: str
) -> None:
    folder = Path(pydicom.data.__file__).parent / "test_files"
    paths = sorted(path for path in folder.glob(pattern) if path.is_file())
    assert objects_are_right(paths, segmenter, tmp_path, dicom_errors) >= 8


@pytest.mark.data
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_objects_of_real_radiographs_are_right(data_root: Path, tmp_path: Path, dicom_errors: Any) -> None:
    paths = sorted((data_root / "scans").glob("*.dcm"))
    with Segmenter.load(threads=1) as bundled:
        assert objects_are_right(paths, bundled, tmp_path, dicom_errors) == len(paths) > 0
