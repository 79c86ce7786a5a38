"""``segment --resume``: a run that was killed at any moment ends as if it had not been."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cxredge.cli import main
from cxredge.contract import Contract
from cxredge.runs.journal import journal_of
from cxredge.runs.results import PART_NAME

PROGRAM = Path(sys.executable).parent / "cxredge"
Segment = Callable[..., Result]


@pytest.fixture
def segment(model_file: Path) -> Segment:
    """``segment(inputs, output, *options)`` in this process, with the tiny model."""

    def run(inputs: Path, output: Path, *options: str | Path) -> Result:
        arguments = ["segment", inputs, "-o", output, "--model", model_file, *options]
        return CliRunner().invoke(main, list(map(str, arguments)))

    return run


@pytest.fixture
def archive(tmp_path: Path, mixed_folder: Path, chest: np.ndarray) -> Path:
    """24 good radiographs in three folders, and everything that is in the mixed folder."""
    for number in range(24):
        path = mixed_folder / "abc"[number % 3] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.kron(chest + np.uint16(number), np.ones((6, 6), np.uint16))).save(path, compress_level=1)
    return mixed_folder


def visible(folder: Path) -> dict[str, bytes]:
    """Contents of all files of an output folder but its state."""
    paths = (path for path in folder.rglob("*") if path.is_file() and ".cxredge" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def records(folder: Path) -> list[dict[str, Any]]:
    """Lines of ``results.jsonl`` but for the timings."""
    lines = (json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines())
    return [{**line, "milliseconds": sorted(line["milliseconds"])} for line in lines]


def assert_same_results(one: Path, other: Path) -> None:
    first, second = visible(one), visible(other)
    assert set(first) == set(second) != set()
    for name in first:
        if not name.startswith("results."):
            assert first[name] == second[name], name
    assert records(one) == records(other)
    tables = [list(csv.reader((folder / "results.csv").read_text().splitlines())) for folder in (one, other)]
    timed = [column.startswith("milliseconds") for column in tables[0][0]]
    untimed = [[[cell for cell, skip in zip(row, timed, strict=True) if not skip] for row in table] for table in tables]
    assert untimed[0] == untimed[1]
    assert len(tables[0]) == 1 + len(records(one))


def assert_nothing_half_written(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.suffix == ".png":
            Image.open(path).load()
        elif path.name == "results.jsonl":
            for line in path.read_bytes().splitlines(keepends=True):
                assert json.loads(line)["input"]
                assert line.endswith(b"\n")
        elif path.name == "results.csv":  # of a run that was killed after it
            rows = list(csv.reader(path.read_text().splitlines()))
            assert {len(row) for row in rows} == {len(rows[0])}
            assert len(rows) == 1 + len(records(folder))
        elif path.is_file() and ".cxredge" not in path.parts:
            assert PART_NAME.fullmatch(path.name), path


def kill_at(command: list[str | Path], output: Path, delay: float) -> bool:
    """Start a run and kill it ``delay`` seconds after its journal was opened; whether it was still going on."""
    seen = journal_of(output).stat().st_mtime_ns if journal_of(output).exists() else None
    lock = output / ".cxredge" / "lock"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None:
            if seen is None and journal_of(output).exists():
                break
            if seen is not None and process.pid == holder(lock):
                break
            time.sleep(0.002)
        time.sleep(delay)
        running = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return running


def holder(lock: Path) -> int | None:
    """Process that holds a lock, from the kernel's list."""
    inode = str(lock.stat().st_ino) if lock.exists() else ""
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[5].split(":")[2] == inode:
            return int(words[4])
    return None


def kills(archive: Path, tmp_path: Path, model_file: Path, count: int, seed: int) -> None:
    """Kill ``count`` runs at random moments, each going on with the one before, and compare each end."""
    options = ["--model", model_file, "--workers", "2", "--batch-size", "2"]
    started = time.monotonic()
    subprocess.run([PROGRAM, "segment", archive, "-o", tmp_path / "whole", *options], capture_output=True)
    longest = 0.6 * (time.monotonic() - started)
    draw, killed, turn = random.Random(seed), 0, 0
    while killed < count:
        output = tmp_path / f"out{turn}"
        command = [PROGRAM, "segment", archive, "-o", output, "--resume", *options]
        while killed < count and kill_at(command, output, draw.uniform(0, longest)):
            killed += 1
            assert_nothing_half_written(output)
        assert subprocess.run(command, capture_output=True).returncode == 3
        assert_same_results(output, tmp_path / "whole")
        shutil.rmtree(output)
        turn += 1


def test_a_run_that_is_killed_three_times_ends_like_a_whole_one(
    archive: Path, tmp_path: Path, model_file: Path
) -> None:
    kills(archive, tmp_path, model_file, 3, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fifty_kills_at_random_moments(archive: Path, tmp_path: Path, model_file: Path) -> None:
    kills(archive, tmp_path, model_file, 50, seed=2)


# Going on


def test_resume_begins_where_nothing_is_and_repeats_do_nothing(segment: Segment, archive: Path, tmp_path: Path) -> None:
    assert segment(archive, tmp_path / "whole").exit_code == 3
    first = segment(archive, tmp_path / "out", "--resume")
    assert first.exit_code == 3
    assert_same_results(tmp_path / "out", tmp_path / "whole")
    before, times = visible(tmp_path / "out"), {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.png")}
    again = segment(archive, tmp_path / "out", "--resume")
    assert again.exit_code == 3
    assert "resume   27 of 32 are done already" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in times} == times
    timed = {"results.jsonl", "results.csv"}
    assert {n: c for n, c in visible(tmp_path / "out").items() if n not in timed} == {
        n: c for n, c in before.items() if n not in timed
    }
    assert_same_results(tmp_path / "out", tmp_path / "whole")


def test_a_run_without_resume_names_it(segment: Segment, one_image_folder: Path, tmp_path: Path) -> None:
    segment(one_image_folder, tmp_path / "out")
    assert "--resume" in segment(one_image_folder, tmp_path / "out").stderr


def test_new_changed_and_renamed_inputs_are_done_and_gone_ones_are_kept(
    segment: Segment, archive: Path, tmp_path: Path, chest: np.ndarray
) -> None:
    out = tmp_path / "out"
    segment(archive, out)
    before = visible(out)
    np.save(archive / "a" / "00.npy", chest)  # now 00.png has a longer name, too
    Image.fromarray(chest[:, ::-1].copy()).save(archive / "b" / "01.png")
    Image.fromarray(chest).save(archive / "new.png")
    (archive / "c" / "02.png").unlink()
    result = segment(archive, out, "--resume")
    assert "resume   24 of 33" in result.stderr
    after = visible(out)
    assert "a/00.mask.png" not in after
    assert {"a/00.png.mask.png", "a/00.npy.mask.png", "new.mask.png", "c/02.mask.png"} <= set(after)
    assert after["b/01.mask.png"] != before["b/01.mask.png"]
    inputs = [line["input"] for line in records(out)]
    assert inputs[-1] == str(archive / "c" / "02.png"), "the result of an input that is gone comes last"
    assert len(inputs) == len(set(inputs)) == 34
    assert inputs[:-1] == sorted(inputs[:-1], key=lambda name: (Path(name).parent != archive, name))


def test_a_spoilt_or_missing_file_is_made_again(segment: Segment, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    segment(archive, tmp_path / "whole")
    segment(archive, out)
    (out / "a" / "00.mask.png").write_bytes(b"")
    (out / "b" / "01.overlay.png").unlink()
    assert "resume   25 of 32" in segment(archive, out, "--resume").stderr
    assert_same_results(out, tmp_path / "whole")


def test_an_input_that_failed_is_tried_again(segment: Segment, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    segment(archive, out)
    shutil.copy(archive / "g1.png", archive / "b1-truncated.png")
    segment(archive, out, "--resume")
    assert next(line for line in records(out) if "truncated" in line["input"])["status"] == "ok"


def test_nothing_of_an_input_outlives_it_when_it_fails_on_resume(
    segment: Segment, one_image_folder: Path, tmp_path: Path
) -> None:
    segment(one_image_folder, tmp_path / "out")
    (one_image_folder / "chest.png").write_bytes(b"\x89PNG and no more")
    assert segment(one_image_folder, tmp_path / "out", "--resume").exit_code == 1
    assert set(visible(tmp_path / "out")) == {"results.jsonl", "results.csv"}


@pytest.mark.parametrize("option", ["--no-overlay", "model", "inputs"])
def test_another_run_into_the_same_folder_is_refused(
    option: str, segment: Segment, one_image_folder: Path, mixed_folder: Path, tmp_path: Path, make_model: Any
) -> None:
    segment(one_image_folder, tmp_path / "out")
    before = visible(tmp_path / "out")
    contract = Contract(name="other", width=1, input_size=64, code="a_seg", licence="CC0-1.0").to_json()
    more = {"model": ["--model", make_model(tmp_path / "other.onnx", metadata=contract)], "inputs": []}
    inputs = mixed_folder if option == "inputs" else one_image_folder
    result = segment(inputs, tmp_path / "out", "--resume", *more.get(option, [option]))
    assert result.exit_code == 1
    assert "would be mixed" in result.stderr
    assert visible(tmp_path / "out") == before


def test_results_without_a_journal_are_not_gone_on_with(
    segment: Segment, one_image_folder: Path, tmp_path: Path
) -> None:
    segment(one_image_folder, tmp_path / "out")
    journal_of(tmp_path / "out").unlink()
    result = segment(one_image_folder, tmp_path / "out", "--resume")
    assert result.exit_code == 1
    assert "exists already" in result.stderr


def test_overwrite_and_resume_exclude_each_other(segment: Segment, one_image_folder: Path, tmp_path: Path) -> None:
    assert segment(one_image_folder, tmp_path / "out", "--resume", "--overwrite").exit_code == 2


@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
def test_parts_of_a_killed_run_are_removed(
    option: str, segment: Segment, one_image_folder: Path, tmp_path: Path
) -> None:
    segment(one_image_folder, tmp_path / "out")
    (tmp_path / "out" / f".{'0' * 32}.part").write_bytes(b"half")
    segment(one_image_folder, tmp_path / "out", option)
    assert not list((tmp_path / "out").rglob("*.part"))


# Stopping


def test_a_full_disk_stops_the_run_and_resume_does_the_rest(
    segment: Segment, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    segment(archive, tmp_path / "whole")
    replace, left = Path.replace, 20

    def filling_up(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", filling_up)
        result = segment(archive, out)
    assert result.exit_code == 4
    assert "No space left on device" in result.stderr
    done = len(records(out))
    assert f"{done} of 32 are done; the same command with --resume does the rest" in result.stderr
    assert 5 < done < 32
    assert {name for line in records(out) for name in line["outputs"]} == set(visible(out)) - {"results.jsonl"}
    assert segment(archive, out, "--resume").exit_code == 3
    assert_same_results(out, tmp_path / "whole")


def test_a_really_full_disk(archive: Path, tmp_path: Path, model_file: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    run = f"{PROGRAM} segment {archive} -o {mount}/out --model {model_file}"
    mounted = f"mount -t tmpfs -o size=300k none {mount}"
    script = f"{mounted} && {{ {run}; code=$?; cp -r {mount}/out {tmp_path}/out; exit $code; }}"
    try:
        done = subprocess.run(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", script], capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("no unshare on this system")
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no small file system can be mounted: {done.stderr.splitlines()[0]}")
    assert done.returncode == 4, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert_nothing_half_written(tmp_path / "out")
    assert 1 <= len(records(tmp_path / "out")) < 32


def test_a_folder_that_vanishes_stops_the_run_instead_of_failing_every_file(
    segment: Segment, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cxredge.runs import reader_process

    weigh, left = reader_process.ThreadReader.weigh, 5

    def losing(self: Any, path: Path) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            archive.rename(tmp_path / "elsewhere")
        return weigh(self, path)

    segment(archive, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(reader_process.ThreadReader, "weigh", losing)
        result = segment(archive, tmp_path / "out")
    assert result.exit_code == 4
    assert f"{archive}: 10 of its files in a row cannot be reached; is it still mounted?" in result.stderr
    (tmp_path / "elsewhere").rename(archive)
    assert segment(archive, tmp_path / "out", "--resume").exit_code == 3
    assert_same_results(tmp_path / "out", tmp_path / "whole")


def test_missing_files_that_were_named_do_not_stop_the_run(segment: Segment, tmp_path: Path) -> None:
    names = [str(tmp_path / f"absent{n}.png") for n in range(15)]
    result = segment(tmp_path / "absent.png", tmp_path / "out", *names)
    assert result.exit_code == 1
    assert len(records(tmp_path / "out")) == 16


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_cleanly_and_resume_does_the_rest(
    number: int, archive: Path, tmp_path: Path, model_file: Path
) -> None:
    options = ["--model", model_file, "--timeout", "30"]
    subprocess.run([PROGRAM, "segment", archive, "-o", tmp_path / "whole", *options], capture_output=True)
    command = [PROGRAM, "segment", archive, "-o", tmp_path / "out", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(number)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 4
    assert "Traceback" not in rest
    lines = records(tmp_path / "out")
    assert {name for line in lines for name in line["outputs"]} == set(visible(tmp_path / "out")) - {"results.jsonl"}
    assert subprocess.run([*command, "--resume"], capture_output=True).returncode == 3
    assert_same_results(tmp_path / "out", tmp_path / "whole")


def test_two_ctrl_cs_leave_nothing_half_written_and_resume_does_the_rest(
    archive: Path, tmp_path: Path, model_file: Path
) -> None:
    options = ["--model", model_file, "--timeout", "30"]
    subprocess.run([PROGRAM, "segment", archive, "-o", tmp_path / "whole", *options], capture_output=True)
    command = [PROGRAM, "segment", archive, "-o", tmp_path / "out", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 4, rest
    assert "Traceback" not in rest
    assert_nothing_half_written(tmp_path / "out")
    assert subprocess.run([*command, "--resume"], capture_output=True).returncode == 3
    assert_same_results(tmp_path / "out", tmp_path / "whole")


def test_a_reader_that_hangs_costs_only_its_file(archive: Path, tmp_path: Path, model_file: Path) -> None:
    command = [PROGRAM, "segment", archive, "-o", tmp_path / "out", "--model", model_file, "--workers", "1"]
    with subprocess.Popen([*command, "--timeout", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.readline()
        for child in reader_children(process.pid):
            os.kill(child, signal.SIGSTOP)
        process.communicate(timeout=60)
    assert process.returncode == 3
    failed = [line["error"] for line in records(tmp_path / "out") if line["status"] == "failed"]
    assert len(records(tmp_path / "out")) == 32
    assert [error for error in failed if error == "was not read within 2 s and is left out"]
    assert len(failed) <= 7


def reader_children(parent: int) -> list[int]:
    """Reading processes of a run."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    tasks = [path for path in Path(f"/proc/{parent}/task").iterdir() if (path / "children").exists()]
    children += [child for task in tasks for child in (task / "children").read_text().split()]
    return [int(child) for child in set(children) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
