"""What a run writes: whole files, true masks, contours on the border, honest records."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from cxredge import Radiograph, Segmentation, Segmenter
from cxredge.contours import CONTOUR_COLOUR
from cxredge.errors import InputError, OutputError
from cxredge.quality.measurements import measure
from cxredge.runs.results import (
    OVERLAY_SIDE,
    RESULTS,
    ResultsFile,
    Target,
    atomic_file,
    clear_existing,
    mask_png,
    overlay_png,
    record,
    refuse_existing,
    remove_parts,
    write_atomically,
    write_pictures,
)

TARGET = Target(Path("in/scan.dcm"), Path("sub/scan"))
FIELDS = [
    "input",
    "status",
    "error",
    "mask",
    "outputs",
    "not_written",
    "width",
    "height",
    "lung_area_fraction",
    "lung_area_mm2",
    "measurements",
    "flags",
    "milliseconds",
]


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.name.startswith("."))


# Files


def test_names_of_the_results_follow_from_the_stem() -> None:
    assert TARGET.mask.as_posix() == "sub/scan.mask.png"
    assert TARGET.overlay.as_posix() == "sub/scan.overlay.png"
    assert Target(Path("x"), Path("1.2.3")).mask.as_posix() == "1.2.3.mask.png"


def test_a_file_is_written_with_its_folders_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "c.txt", b"content")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == b"content"
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["c.txt"]


def test_a_file_that_exists_is_replaced_whole(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"a long old content")
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_ctrl_c_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", b"content")
    assert list(tmp_path.iterdir()) == []


def test_a_path_below_a_regular_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep me")
    for path in (tmp_path / "file" / "a.png", tmp_path / "file" / "deeper" / "a.png"):
        with pytest.raises(OutputError, match="cannot be written"):
            write_atomically(path, b"content")
    assert (tmp_path / "file").read_text() == "keep me"


def test_a_failed_write_leaves_no_part_and_the_old_content(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").touch()
    with pytest.raises(OutputError, match="taken: cannot be written"):
        write_atomically(tmp_path / "taken", b"content")
    assert leftovers(tmp_path) == []
    assert (tmp_path / "taken" / "inside").exists()


def test_a_name_that_is_too_long_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_atomically(tmp_path / ("x" * 300), b"content")


def test_existing_results_are_refused_by_name(tmp_path: Path) -> None:
    refuse_existing(tmp_path, [TARGET])
    for path in reversed(TARGET.results):
        write_atomically(tmp_path / path, b"")
        with pytest.raises(OutputError, match=f"{path.name}: exists already.*--overwrite"):
            refuse_existing(tmp_path, [Target(Path("x"), Path("other")), TARGET])


def test_results_of_every_format_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    for name in (*TARGET.results, "sub/scan.dcm", "sub/scan.npy", "sub/scan2.mask.png"):
        write_atomically(tmp_path / name, b"")
    clear_existing(tmp_path, [TARGET])
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == ["scan.dcm", "scan.npy", "scan2.mask.png"]


def test_parts_of_a_killed_run_are_removed_and_nothing_else(tmp_path: Path) -> None:
    parts = [tmp_path / f".{'0123456789abcdef' * 2}.part", tmp_path / "sub" / f".{'a' * 32}.part"]
    others = [tmp_path / "a.part", tmp_path / ".a.part", tmp_path / "sub" / f"{'a' * 32}.part"]
    (tmp_path / "sub").mkdir()
    for path in (*parts, *others):
        path.touch()
    remove_parts(tmp_path)
    assert not any(path.exists() for path in parts)
    assert all(path.exists() for path in others)


def test_an_error_while_a_file_is_made_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(TypeError), atomic_file(tmp_path / "a") as file:
        file.writelines([b"half of the n", "no bytes"])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


# Pictures


@pytest.mark.parametrize("shape", [(40, 50), (300, 33)])
def test_mask_png_is_black_and_white_at_the_masks_size(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(shape) > 0.5
    image = Image.open(io.BytesIO(mask_png(mask)))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), np.where(mask, 255, 0))


def test_mask_that_is_not_contiguous_is_written_right() -> None:
    mask = np.random.default_rng(0).random((50, 40)) > 0.5
    np.testing.assert_array_equal(decoded(mask_png(mask.T)) > 0, mask.T)


def overlay_rgb(radiograph: Radiograph, mask: np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(overlay_png(radiograph, mask))).convert("RGB"))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((80, 96), (80, 96)),
        ((OVERLAY_SIDE, 700), (OVERLAY_SIDE, 700)),
        ((2048, 1024), (OVERLAY_SIDE, 512)),
        ((500, 3000), (171, OVERLAY_SIDE)),
        ((32, 5000), (7, OVERLAY_SIDE)),
    ],
)
def test_overlay_is_at_most_1024_pixels_long_and_keeps_the_aspect_ratio(
    shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    pixels = np.tile(np.arange(shape[1], dtype=np.uint16), (shape[0], 1))
    assert overlay_rgb(Radiograph(pixels), np.zeros(shape, bool)).shape == (*expected, 3)


@pytest.mark.parametrize("scale", [1, 5, 20])
def test_contour_lies_along_the_whole_border_of_the_mask_and_nowhere_else(chest: np.ndarray, scale: int) -> None:
    pixels = np.kron(chest, np.ones((scale, scale), np.uint16))
    mask = pixels < 1000
    rgb = overlay_rgb(Radiograph(pixels), mask)
    contour = (rgb == CONTOUR_COLOUR).all(axis=2)
    small = cv2.resize(mask.astype(np.uint8), contour.shape[::-1], interpolation=cv2.INTER_NEAREST)
    border = cv2.morphologyEx(small, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    width = 1 + max(contour.shape) // 512
    near = cv2.dilate(border.astype(np.uint8), np.ones((2 * width + 1, 2 * width + 1), np.uint8)) > 0
    assert contour.any()
    assert not (contour & ~near).any()
    reached = cv2.dilate(contour.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert (reached & border).sum() == border.sum()


def test_everything_but_the_contour_is_the_grey_radiograph(chest: np.ndarray) -> None:
    rgb = overlay_rgb(Radiograph(chest), chest < 1000)
    grey = ~(rgb == CONTOUR_COLOUR).all(axis=2)
    assert (rgb[grey] == rgb[grey][:, :1]).all()
    expected = 255 * (chest - float(chest.min())) / (float(chest.max()) - chest.min())
    assert np.abs(rgb[..., 0].astype(float) - expected)[grey].max() <= 1.5


def test_overlay_shows_both_polarities_alike(chest: np.ndarray) -> None:
    mask = chest < 1000
    same = Radiograph(4095 - chest, "MONOCHROME1")
    np.testing.assert_array_equal(overlay_rgb(Radiograph(chest), mask), overlay_rgb(same, mask))


def test_overlay_of_an_empty_mask_has_no_contour(chest: np.ndarray) -> None:
    rgb = overlay_rgb(Radiograph(chest), np.zeros(chest.shape, bool))
    assert not (rgb == CONTOUR_COLOUR).all(axis=2).any()


def test_pictures_are_written_below_the_folder(tmp_path: Path, chest: np.ndarray, segmenter: Segmenter) -> None:
    segmentation = segmenter(chest)
    assert write_pictures(tmp_path, TARGET, segmentation, overlay=False) == ["sub/scan.mask.png"]
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["scan.mask.png"]
    written = write_pictures(tmp_path, TARGET, segmentation, overlay=True)
    assert written == ["sub/scan.mask.png", "sub/scan.overlay.png"]
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == ["scan.mask.png", "scan.overlay.png"]
    mask = decoded((tmp_path / "sub" / "scan.mask.png").read_bytes())
    np.testing.assert_array_equal(mask > 0, segmentation.mask)


# Records


def segmentation(flags: tuple[str, ...] = (), spacing: tuple[float, float] | None = None) -> Segmentation:
    mask = np.zeros((40, 50), bool)
    mask[:10, :10] = True
    radiograph = Radiograph(np.zeros((40, 50), np.uint8), spacing=spacing)
    times = {"read": 1.23456, "inference": 2.0}
    return Segmentation(radiograph, mask, np.zeros((8, 8), np.float32), flags, times, measure(radiograph, mask))


def test_record_of_a_good_input() -> None:
    line = record(TARGET, segmentation(spacing=(0.5, 0.2)), 3.14159, ["sub/scan.mask.png", "sub/scan.overlay.png"])
    assert list(line) == FIELDS
    assert line == {
        "input": "in/scan.dcm",
        "status": "ok",
        "error": None,
        "mask": "sub/scan.mask.png",
        "outputs": ["sub/scan.mask.png", "sub/scan.overlay.png"],
        "not_written": {},
        "width": 50,
        "height": 40,
        "lung_area_fraction": 0.05,
        "lung_area_mm2": 10.0,
        "measurements": {
            "left": {"area_pixels": 0, "area_mm2": None, "box": None},
            "right": {"area_pixels": 100, "area_mm2": 10.0, "box": [0, 0, 10, 10]},
            "area_ratio": None,
            "symmetry": None,
            "joined": False,
            "sides_from": "custom",
            "spacing_plane": "unknown",
        },
        "flags": [],
        "milliseconds": {"read": 1.23, "inference": 2.0, "write": 3.14},
    }


def test_record_of_a_flagged_input_is_a_warning() -> None:
    line = record(TARGET, segmentation(flags=("one_lung",)), outputs=["sub/scan.mask.png"])
    assert line["status"] == "warning"
    assert line["flags"] == ["one_lung"]
    assert line["error"] is None
    assert line["mask"] == "sub/scan.mask.png"


def test_record_without_a_mask_file_says_so() -> None:
    line = record(TARGET, segmentation(), outputs=["sub/scan.seg.dcm"])
    assert line["mask"] is None
    assert line["outputs"] == ["sub/scan.seg.dcm"]


def test_a_format_that_could_not_be_made_is_a_warning_with_the_reason() -> None:
    line = record(TARGET, segmentation(), outputs=["sub/scan.mask.png"], refused={"dicom-seg": "needs a DICOM input"})
    assert line["status"] == "warning"
    assert line["not_written"] == {"dicom-seg": "needs a DICOM input"}
    assert line["outputs"] == ["sub/scan.mask.png"]


def test_area_without_a_spacing_is_null() -> None:
    assert record(TARGET, segmentation())["lung_area_mm2"] is None


def test_record_of_a_failed_input_has_the_error_and_no_figures() -> None:
    line = record(TARGET, InputError("is damaged"))
    assert list(line) == FIELDS
    nothing: dict[str, Any] = {"outputs": [], "not_written": {}, "measurements": {}, "flags": [], "milliseconds": {}}
    told = {"input": "in/scan.dcm", "status": "failed", "error": "is damaged"}
    assert line == dict.fromkeys(FIELDS) | nothing | told


# results.jsonl


def test_lines_are_on_disk_as_soon_as_they_are_written(tmp_path: Path) -> None:
    with ResultsFile(tmp_path / "new" / "out", overwrite=False) as file:
        for number in range(3):
            file.write({"input": f"ä{number}\n"})
            lines = (tmp_path / "new" / "out" / RESULTS).read_text(encoding="utf-8").splitlines()
            assert [json.loads(line)["input"] for line in lines] == [f"ä{n}\n" for n in range(number + 1)]


def test_lines_that_are_kept_come_first_and_replace_what_was_there_at_once(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text("earlier\n")
    with ResultsFile(tmp_path, overwrite=True, kept=[{"input": "a"}, {"input": "b"}]) as file:
        assert file.lines == 2
        file.write({"input": "c"})
        assert file.lines == 3
    lines = (tmp_path / RESULTS).read_text().splitlines()
    assert [json.loads(line)["input"] for line in lines] == ["a", "b", "c"]


def test_results_of_an_earlier_run_are_kept_unless_overwritten(tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text("earlier")
    with pytest.raises(OutputError, match=r"results\.jsonl: exists already.*--overwrite"):
        ResultsFile(tmp_path, overwrite=False)
    assert (tmp_path / RESULTS).read_text() == "earlier"
    with ResultsFile(tmp_path, overwrite=True):
        pass
    assert (tmp_path / RESULTS).read_text() == ""


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("below", ["file", "file/out"])
def test_an_output_folder_that_cannot_be_is_an_output_error(below: str, overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep me")
    with pytest.raises(OutputError, match="file"):
        ResultsFile(tmp_path / below, overwrite=overwrite)
    assert (tmp_path / "file").read_text() == "keep me"
