"""``cxredge segment``: exit codes, a line for every input, and nothing lost or half done."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from cxredge.cli import main
from cxredge.sample import write_samples

PROGRAM = Path(sys.executable).parent / "cxredge"
GOOD = ("g1.png", "g2.npy", "g3.dcm")
BAD = {
    "b1-truncated.png": "damaged",
    "b2-text.dcm": "not a DICOM file",
    "b3-photo.png": "colour image",
    "b4-dot.png": "1x1 pixels is too small",
    "b5-constant.png": "all pixels are equal",
}


@pytest.fixture
def segment(model_file: Path) -> Any:
    """``segment(*inputs, output, *options)`` in this process, with the tiny model."""

    def run(*arguments: str | Path) -> Result:
        *inputs, output = (str(argument) for argument in arguments)
        options = [word for word in inputs if word.startswith("--") or word.isdigit()]
        files = [word for word in inputs if word not in options]
        return CliRunner().invoke(main, ["segment", *files, "-o", output, "--model", str(model_file), *options])

    return run


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def files(folder: Path) -> list[str]:
    """Files that a user sees."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if not name.startswith(".cxredge/"))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files(folder)}


# Success


def test_good_inputs_are_exit_code_0_with_masks_overlays_and_lines(
    segment: Any, mixed_folder: Path, tmp_path: Path, chest: np.ndarray
) -> None:
    for name in BAD:
        (mixed_folder / name).unlink()
    result = segment(mixed_folder, tmp_path / "out")
    assert result.exit_code == 0, result.output
    expected = [f"g{n}.{kind}.png" for n in (1, 2, 3) for kind in ("mask", "overlay")]
    assert files(tmp_path / "out") == [*expected, "results.csv", "results.jsonl"]
    records = lines(tmp_path / "out")
    assert [record["input"] for record in records] == [str(mixed_folder / name) for name in GOOD]
    for record in records:
        assert record["status"] == "ok"
        assert (record["width"], record["height"]) == (96, 80)
        mask = np.asarray(Image.open(tmp_path / "out" / record["mask"]))
        assert mask.shape == chest.shape
        assert set(np.unique(mask)) == {0, 255}
        assert record["lung_area_fraction"] == pytest.approx((mask > 0).mean(), abs=1e-5)
        assert set(record["milliseconds"]) == {"read", "preprocess", "inference", "postprocess", "write"}
    assert [record["lung_area_mm2"] is None for record in records] == [True, True, False]
    assert records[2]["lung_area_mm2"] == pytest.approx((mask > 0).sum() * 0.125, abs=0.1)


def test_one_image_in_three_formats_gives_one_mask(segment: Any, mixed_folder: Path, tmp_path: Path) -> None:
    segment(*(mixed_folder / name for name in GOOD), tmp_path / "out")
    assert len({(tmp_path / "out" / f"g{n}.mask.png").read_bytes() for n in (1, 2, 3)}) == 1


def test_a_warning_still_counts_as_done(segment: Any, tmp_path: Path) -> None:
    pixels = np.full((64, 64), 200, np.uint8)
    pixels[10:50, 10:30] = 10
    Image.fromarray(pixels).save(tmp_path / "one.png")
    result = segment(tmp_path / "one.png", tmp_path / "out")
    assert result.exit_code == 0
    assert lines(tmp_path / "out")[0]["status"] == "warning"
    assert lines(tmp_path / "out")[0]["flags"] == ["one_lung"]
    assert "[one_lung]" in result.stderr


def test_no_overlay_writes_masks_only(segment: Any, one_image_folder: Path, tmp_path: Path) -> None:
    assert segment(one_image_folder, "--no-overlay", tmp_path / "out").exit_code == 0
    assert files(tmp_path / "out") == ["chest.mask.png", "results.csv", "results.jsonl"]


def test_folder_structure_is_kept_and_lines_stay_in_input_order(
    segment: Any, tmp_path: Path, one_image_folder: Path
) -> None:
    source = one_image_folder / "chest.png"
    names = [f"{'z' if n % 2 else 'a'}/deep/{n:02}.png" for n in range(12)]
    for name in names:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, tmp_path / "tree" / name)
    options = ("--batch-size", "3", "--workers", "4")
    assert segment(tmp_path / "tree", *options, tmp_path / "out").exit_code == 0
    assert [record["input"] for record in lines(tmp_path / "out")] == [
        str(tmp_path / "tree" / n) for n in sorted(names)
    ]
    assert {name for name in files(tmp_path / "out") if "mask" in name} == {
        name.replace(".png", ".mask.png") for name in names
    }


def test_colliding_stems_keep_their_extension(segment: Any, tmp_path: Path, chest: np.ndarray) -> None:
    Image.fromarray(chest).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", chest)
    assert segment(tmp_path / "a.png", tmp_path / "a.npy", tmp_path / "out").exit_code == 0
    assert [record["mask"] for record in lines(tmp_path / "out")] == ["a.png.mask.png", "a.npy.mask.png"]


def test_samples_can_be_segmented(segment: Any, tmp_path: Path) -> None:
    write_samples(tmp_path / "samples")
    assert segment(tmp_path / "samples", tmp_path / "out").exit_code == 0
    assert len(lines(tmp_path / "out")) == 4


# Some inputs fail


def test_bad_inputs_each_get_a_line_and_good_ones_are_done(segment: Any, mixed_folder: Path, tmp_path: Path) -> None:
    result = segment(mixed_folder, tmp_path / "out")
    assert result.exit_code == 3
    records = {Path(record["input"]).name: record for record in lines(tmp_path / "out")}
    assert list(records) == [*BAD, *GOOD]
    for name, complaint in BAD.items():
        assert records[name]["status"] == "failed"
        assert complaint in records[name]["error"]
        assert records[name]["mask"] is None
        (line,) = (line for line in result.stderr.splitlines() if name in line)
        assert line.startswith("failed")
        assert complaint in line
    for name in GOOD:
        assert records[name]["status"] == "ok"
        assert (tmp_path / "out" / records[name]["mask"]).is_file()
    assert not [name for name in files(tmp_path / "out") if name.startswith("b")]


@pytest.mark.parametrize("batch_size", ["2", "8"])
def test_bad_inputs_do_not_spoil_their_batch(segment: Any, mixed_folder: Path, tmp_path: Path, batch_size: str) -> None:
    assert segment(mixed_folder, "--batch-size", batch_size, tmp_path / "out").exit_code == 3
    assert [record["status"] for record in lines(tmp_path / "out")] == ["failed"] * 5 + ["ok"] * 3


def test_the_installed_program_reports_bad_inputs_in_plain_lines(
    mixed_folder: Path, tmp_path: Path, model_file: Path
) -> None:
    command = [PROGRAM, "segment", mixed_folder, "-o", tmp_path / "out", "--model", model_file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stdout + done.stderr, "no colours where there is no terminal"
    shown = [line.split()[0] for line in done.stderr.splitlines()]
    assert shown == ["failed"] * 5 + ["ok"] * 3
    assert "Results in" in done.stdout


def test_a_damaged_dicom_file_is_one_line_without_the_patients_name(
    segment: Any, mixed_folder: Path, tmp_path: Path
) -> None:
    path = mixed_folder / "g3.dcm"
    path.write_bytes(path.read_bytes()[:-5000])
    result = segment(path, mixed_folder / "g1.png", tmp_path / "out")
    assert result.exit_code == 3
    assert len([line for line in result.stderr.splitlines() if line.strip()]) == 2
    assert "Secret" not in result.output
    assert "Secret" not in (tmp_path / "out" / "results.jsonl").read_text()


@pytest.mark.filterwarnings("ignore")
def test_libraries_do_not_speak_between_the_lines(
    tmp_path: Path, model_file: Path, make_dicom: Any, chest: np.ndarray
) -> None:
    folder = tmp_path / "cut"
    folder.mkdir()
    for syntax in (RLELossless, JPEG2000Lossless, ExplicitVRLittleEndian):
        dataset = make_dicom(chest, 12, PatientBirthDate="yesterday", StudyTime="noon")
        if syntax.is_compressed:
            dataset.compress(syntax)
        path = folder / f"{syntax.keyword}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        path.write_bytes(path.read_bytes()[:-200])
    command = [PROGRAM, "segment", folder, "-o", tmp_path / "out", "--model", model_file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["failed"] * 3


def test_an_interrupted_run_ends_soon_and_leaves_whole_files(
    tmp_path: Path, model_file: Path, chest: np.ndarray
) -> None:
    (tmp_path / "many").mkdir()
    Image.fromarray(np.kron(chest, np.ones((8, 8), np.uint16))).save(tmp_path / "one.png")
    for number in range(2000):
        os.link(tmp_path / "one.png", tmp_path / "many" / f"{number:04}.png")
    out = tmp_path / "out"
    command = [PROGRAM, "segment", tmp_path / "many", "-o", out, "--model", model_file]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("ok")
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=120)
    assert process.returncode == 4
    assert "Traceback" not in rest
    assert "stopped: interrupted" in rest
    done = lines(out)
    assert 1 <= len(done) < 2000
    for record in done:
        assert (out / record["mask"]).is_file()
    assert f"{len(done)} of 2000 are done; the same command with --resume" in rest
    assert len([name for name in files(out) if name.endswith(".mask.png")]) == len(done)
    for name in files(out):
        assert not name.endswith(".part")
        if name.endswith(".png"):
            Image.open(out / name).load()


def test_no_result_of_an_earlier_radiograph_outlives_a_failed_rerun(
    segment: Any, one_image_folder: Path, tmp_path: Path
) -> None:
    (image,) = one_image_folder.iterdir()
    assert segment(one_image_folder, tmp_path / "out").exit_code == 0
    image.write_bytes(image.read_bytes()[:200])
    assert segment(one_image_folder, "--overwrite", tmp_path / "out").exit_code == 1
    assert files(tmp_path / "out") == ["results.csv", "results.jsonl"]


def test_no_overlay_on_a_rerun_leaves_no_old_overlay(segment: Any, one_image_folder: Path, tmp_path: Path) -> None:
    assert segment(one_image_folder, tmp_path / "out").exit_code == 0
    assert segment(one_image_folder, "--overwrite", "--no-overlay", tmp_path / "out").exit_code == 0
    assert not [name for name in files(tmp_path / "out") if "overlay" in name]


def test_results_of_an_earlier_run_are_no_radiographs(segment: Any, one_image_folder: Path) -> None:
    assert segment(one_image_folder, one_image_folder / "first").exit_code == 0
    assert segment(one_image_folder, one_image_folder / "second").exit_code == 0
    assert len(lines(one_image_folder / "second")) == 1


def test_a_name_too_long_to_exist_is_a_failed_input(segment: Any, one_image_folder: Path, tmp_path: Path) -> None:
    result = segment(one_image_folder, tmp_path / f"{'a' * 300}.png", tmp_path / "out")
    assert result.exit_code in (1, 3)
    assert isinstance(result.exception, SystemExit | None)


def test_a_long_name_has_room_for_its_results(segment: Any, one_image_folder: Path, tmp_path: Path) -> None:
    (image,) = one_image_folder.iterdir()
    image.rename(image.with_name(f"{'a' * 240}.png"))
    assert segment(one_image_folder, tmp_path / "out").exit_code == 0


# Nothing can be done


def test_only_bad_inputs_are_exit_code_1_and_still_recorded(segment: Any, mixed_folder: Path, tmp_path: Path) -> None:
    for name in GOOD:
        (mixed_folder / name).unlink()
    assert segment(mixed_folder, tmp_path / "out").exit_code == 1
    assert [record["status"] for record in lines(tmp_path / "out")] == ["failed"] * 5


def assert_refused(result: Result, *words: str) -> None:
    """Exit code 1 and one line on stderr that says what is wrong."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit | None)
    (line,) = result.stderr.splitlines()
    assert line.startswith("cxredge: ")
    for word in words:
        assert word in line


def test_an_empty_folder_is_exit_code_1(segment: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(segment(tmp_path / "empty", tmp_path / "out"), "no radiographs")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_radiographs_says_how_many_files_it_skipped(segment: Any, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for name in "ab":
        (tmp_path / "texts" / f"{name}.txt").touch()
    assert_refused(segment(tmp_path / "texts", tmp_path / "out"), "no radiographs", "2 other files")


def test_a_missing_input_alone_is_exit_code_1(segment: Any, tmp_path: Path) -> None:
    result = segment(tmp_path / "absent.png", tmp_path / "out")
    assert result.exit_code == 1
    assert "absent.png: cannot be read: No such file" in result.stderr


def test_a_missing_input_does_not_stop_the_others(segment: Any, one_image_folder: Path, tmp_path: Path) -> None:
    result = segment(one_image_folder, tmp_path / "absent.png", tmp_path / "out")
    assert result.exit_code == 3
    assert list((tmp_path / "out").glob("*.mask.png"))


@pytest.mark.parametrize("below", ["file", "file/out"])
def test_output_that_cannot_be_written_is_exit_code_1(
    below: str, segment: Any, one_image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("keep me")
    assert_refused(segment(one_image_folder, tmp_path / below), "file")
    assert_refused(segment(one_image_folder, "--overwrite", tmp_path / below), "file")
    assert (tmp_path / "file").read_text() == "keep me"


def test_a_single_result_that_cannot_be_written_stops_with_its_name(
    segment: Any, one_image_folder: Path, tmp_path: Path
) -> None:
    (one_image_folder / "sub").mkdir()
    shutil.copy(one_image_folder / "chest.png", one_image_folder / "sub" / "chest.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("a file where a folder should be")
    result = segment(one_image_folder, tmp_path / "out")
    assert result.exit_code == 4
    assert "sub/chest.mask.png: cannot be written" in result.stderr
    assert "1 of 2 are done" in result.stderr
    assert "Traceback" not in result.stderr
    assert isinstance(result.exception, SystemExit | None)


@pytest.mark.parametrize("content", [None, b"not a model"])
def test_a_model_that_cannot_be_loaded_is_exit_code_1_and_writes_nothing(
    content: bytes | None, one_image_folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "wrong.onnx"
    if content is not None:
        model.write_bytes(content)
    arguments = ["segment", str(one_image_folder), "-o", str(tmp_path / "out"), "--model", str(model)]
    assert_refused(CliRunner().invoke(main, arguments), "wrong.onnx")
    assert not (tmp_path / "out").exists()


# Existing results


def test_existing_results_are_refused_and_nothing_is_lost(segment: Any, one_image_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert segment(one_image_folder, out).exit_code == 0
    before = snapshot(out)
    assert_refused(segment(one_image_folder, out), "exists already", "--overwrite")
    (out / "results.jsonl").unlink()
    assert_refused(segment(one_image_folder, out), "chest.mask.png", "--overwrite")
    (out / "results.jsonl").write_bytes(before["results.jsonl"])
    assert snapshot(out) == before


def test_results_of_other_inputs_are_refused_too_because_of_the_list(
    segment: Any, one_image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert segment(one_image_folder, out).exit_code == 0
    before = snapshot(out)
    (one_image_folder / "chest.png").rename(one_image_folder / "other.png")
    assert_refused(segment(one_image_folder, out), "results.jsonl", "--overwrite")
    assert snapshot(out) == before


def test_overwrite_replaces_results(segment: Any, one_image_folder: Path, tmp_path: Path, chest: np.ndarray) -> None:
    out = tmp_path / "out"
    assert segment(one_image_folder, out).exit_code == 0
    before = snapshot(out)
    Image.fromarray(np.ascontiguousarray(chest[:, ::-1])).save(one_image_folder / "chest.png")
    assert segment(one_image_folder, "--overwrite", out).exit_code == 0
    assert files(out) == sorted(before)
    assert (out / "chest.mask.png").read_bytes() != before["chest.mask.png"]
    assert len(lines(out)) == 1


def test_an_output_folder_inside_the_input_folder_is_not_segmented_itself(segment: Any, one_image_folder: Path) -> None:
    out = one_image_folder / "out"
    assert segment(one_image_folder, out).exit_code == 0
    assert segment(one_image_folder, "--overwrite", out).exit_code == 0
    assert files(out) == ["chest.mask.png", "chest.overlay.png", "results.csv", "results.jsonl"]


def test_a_run_into_the_input_folder_never_segments_its_own_results(segment: Any, one_image_folder: Path) -> None:
    assert segment(one_image_folder, one_image_folder).exit_code == 0
    assert segment(one_image_folder, "--overwrite", one_image_folder).exit_code == 0
    assert files(one_image_folder) == [
        "chest.mask.png",
        "chest.overlay.png",
        "chest.png",
        "results.csv",
        "results.jsonl",
    ]


def test_inputs_are_never_changed(segment: Any, mixed_folder: Path, tmp_path: Path) -> None:
    before = snapshot(mixed_folder)
    segment(mixed_folder, tmp_path / "out")
    assert snapshot(mixed_folder) == before


# Usage and display


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["scan.png"],
        ["-o", "out"],
        ["scan.png", "-o", "out", "--batch-size", "0"],
        ["scan.png", "-o", "out", "--workers", "none"],
        ["scan.png", "-o", "out", "--backend", "abacus"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, ["segment", *arguments])
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_the_summary_counts_by_status(segment: Any, mixed_folder: Path, tmp_path: Path) -> None:
    result = segment(mixed_folder, tmp_path / "out")
    (row,) = (line for line in result.stdout.splitlines() if "│" in line and any(c.isdigit() for c in line))
    assert [cell.strip() for cell in row.strip("│").split("│")][:4] == ["3", "0", "5", "1"]


def test_an_output_folder_with_brackets_in_its_name_is_printed_as_it_is(
    segment: Any, one_image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = segment(one_image_folder, "out[red]")
    assert result.exit_code == 0
    assert "out[red]" in result.stdout
    assert segment(one_image_folder, "x[/b]").exit_code == 0


def test_a_terminal_gets_a_progress_bar_and_the_failures(mixed_folder: Path, tmp_path: Path, model_file: Path) -> None:
    reader, terminal = pty.openpty()
    command = [PROGRAM, "segment", mixed_folder, "-o", tmp_path / "out", "--model", model_file]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal, env=environment) as process:
        os.close(terminal)
        shown = b""
        try:
            while chunk := os.read(reader, 65536):
                shown += chunk
        except OSError:  # the terminal is closed when the process has ended
            pass
    os.close(reader)
    text = shown.decode()
    assert process.returncode == 3
    assert "images/s" in text
    assert "8/8" in text
    for name in BAD:
        assert name in text
    assert "g1.png" not in text
