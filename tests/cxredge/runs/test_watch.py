"""``cxredge watch``: complete files only, each once, across restarts; moved only when asked."""

from __future__ import annotations

import json
import os
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
from PIL import Image

from cxredge.errors import OutputError
from cxredge.runs.journal import Entry, Journal, RunIdentity
from cxredge.runs.proof import full_path
from cxredge.runs.watch import Arrivals, move_source, watched_target

PROGRAM = Path(sys.executable).parent / "cxredge"
HEAD = bytes(128) + b"DICM"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def arrivals(folder: Path, clock: Clock, *more: Path) -> Arrivals:
    return Arrivals(folder, [folder / "out", *more], 5, clock)


# Complete files


def test_a_file_is_given_once_when_it_has_not_changed_for_a_while(folder: Path) -> None:
    clock = Clock()
    watched = arrivals(folder, clock)
    path = folder / "a.png"
    for size in range(1, 4):
        path.write_bytes(b"x" * size)
        assert watched.poll() == []
        clock.now += 4
    assert watched.poll() == [], "the last change was 4 seconds ago"
    clock.now += 1
    assert watched.poll() == [path]
    clock.now += 100
    assert watched.poll() == []


def test_a_changed_file_is_given_again_and_so_is_one_that_was_forgotten(folder: Path) -> None:
    clock = Clock()
    watched = arrivals(folder, clock)
    path = folder / "a.png"
    path.write_bytes(b"x")
    given = []
    for turn in range(6):
        given.append(watched.poll())
        clock.now += 6
        if turn == 1:
            path.write_bytes(b"longer")
        if turn == 3:
            watched.forget(path)
    assert given == [[], [path], [], [path], [], [path]]


def test_files_being_written_results_and_what_is_done_are_no_arrivals(folder: Path) -> None:
    clock = Clock()
    watched = arrivals(folder, clock, folder / "done")
    for name in ("b.dcm.part", "c.tmp", ".hidden.png", "out/d.png", "done/e.png", "f.mask.png", "sub/g"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(HEAD)
    (folder / "notes.txt").write_text("not a radiograph")
    watched.poll()
    clock.now += 9
    assert watched.poll() == [folder / "sub" / "g"]
    (folder / "b.dcm.part").rename(folder / "b.dcm")
    assert watched.poll() == []
    clock.now += 9
    assert watched.poll() == [folder / "b.dcm"]


def test_a_folder_that_is_gone_is_told_and_nothing_is_forgotten(folder: Path) -> None:
    clock = Clock()
    watched = arrivals(folder, clock)
    (folder / "a.png").write_bytes(b"x")
    watched.poll()
    clock.now += 9
    assert len(watched.poll()) == 1
    folder.rename(folder.with_name("gone"))
    with pytest.raises(FileNotFoundError):
        watched.poll()
    folder.with_name("gone").rename(folder)
    clock.now += 9
    assert watched.poll() == []


# Names and moves


def test_names_are_whole_and_a_name_that_comes_again_after_a_move_gets_a_number(folder: Path) -> None:
    path, moved = folder / "sub" / "a.dcm", folder / "moved"
    identity = RunIdentity("watch", "1", "", "", (), ())
    with Journal(folder / "out", identity, resume=True) as journal:
        assert watched_target(path, folder, journal).stem == Path("sub/a.dcm")
        entry = Entry(full_path(path), "sub/a.dcm", (1, 1), {}, {"status": "ok"}, str(moved))
        journal.append(entry)
        assert watched_target(path, folder, journal).stem == Path("sub/a.dcm"), "the move has not happened yet"
        moved.touch()
        assert watched_target(path, folder, journal).stem == Path("sub/a.dcm~2")


def test_a_move_never_writes_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("new")
    (tmp_path / "b").write_text("old")
    with pytest.raises(OutputError, match="exists already"):
        move_source(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "old"
    move_source(tmp_path / "a", tmp_path / "deeper" / "c")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b", "c", "deeper"]


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no second file system")
def test_a_move_to_another_file_system_is_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("content")
    place = Path("/dev/shm") / f"cxredge-test-{os.getpid()}" / "a"
    try:
        move_source(tmp_path / "a", place)
        assert place.read_text() == "content"
        assert [path.name for path in place.parent.iterdir()] == ["a"]
        assert list(tmp_path.iterdir()) == []
    finally:
        shutil.rmtree(place.parent, ignore_errors=True)


# The command


@pytest.fixture
def watch(folder: Path, tmp_path: Path, model_file: Path) -> Callable[..., subprocess.Popen[str]]:
    """``watch(*options)`` starts a watch of ``folder`` into ``out``."""

    def start(*options: str | Path) -> subprocess.Popen[str]:
        command = [PROGRAM, "watch", folder, "-o", tmp_path / "out", "--model", model_file, "--interval", "0.1"]
        return subprocess.Popen(
            [*command, "--settle", "0.4", "--workers", "1", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def records(output: Path) -> list[dict[str, Any]]:
    path = output / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def ended(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 0, text
    assert "Traceback" not in text
    return text


def test_a_watch_does_what_arrives_once_and_survives_restarts(
    watch: Any, folder: Path, tmp_path: Path, chest: np.ndarray
) -> None:
    out = tmp_path / "out"
    Image.fromarray(chest).save(folder / "a.png")
    process = watch()
    until(lambda: len(records(out)) == 1)
    np.save(folder / "b.npy", chest)
    (folder / "c.png").write_bytes(b"\x89PNG and no more")
    until(lambda: len(records(out)) == 3)
    process.kill()
    process.communicate()
    process = watch()
    Image.fromarray(chest).save(folder / "d.png")
    until(lambda: any(line["input"].endswith("d.png") for line in records(out)))
    assert "radiographs are done" in ended(process)
    lines = records(out)
    assert [Path(line["input"]).name for line in lines] == ["a.png", "b.npy", "c.png", "d.png"]
    assert [line["status"] for line in lines] == ["ok", "ok", "failed", "ok"]
    assert (out / "a.png.mask.png").read_bytes() == (out / "b.npy.mask.png").read_bytes()
    assert len((out / "results.csv").read_text().splitlines()) == 5
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "b.npy", "c.png", "d.png"]


def test_what_is_done_is_moved_when_asked_and_a_name_may_come_again(
    watch: Any, folder: Path, tmp_path: Path, chest: np.ndarray
) -> None:
    out, done = tmp_path / "out", tmp_path / "done"
    process = watch("--move-done", done)
    Image.fromarray(chest).save(folder / "a.png")
    (folder / "bad.png").write_bytes(b"\x89PNG and no more")
    until(lambda: (done / "a.png").exists() and len(records(out)) == 2)
    Image.fromarray(chest[:, ::-1].copy()).save(folder / "a.png")
    until(lambda: (done / "a.png~2").exists())
    ended(process)
    assert [path.name for path in folder.iterdir()] == ["bad.png"]
    assert (out / "a.png.mask.png").read_bytes() != (out / "a.png~2.mask.png").read_bytes()
    assert len(records(out)) == 3


def test_a_move_that_failed_is_told_and_made_up_for_at_the_next_start(
    watch: Any, folder: Path, tmp_path: Path, chest: np.ndarray
) -> None:
    out, done = tmp_path / "out", tmp_path / "done"
    process = watch("--move-done", done)
    until(lambda: out.exists())
    done.write_text("a file is in the way")
    Image.fromarray(chest).save(folder / "a.png")
    until(lambda: len(records(out)) == 1)
    text = ended(process)
    assert "a.png: cannot be moved" in text
    assert (folder / "a.png").exists()
    mask = (out / "a.png.mask.png").stat()
    done.unlink()
    process = watch("--move-done", done)
    until(lambda: (done / "a.png").exists())
    ended(process)
    assert not (folder / "a.png").exists()
    assert len(records(out)) == 1
    assert (out / "a.png.mask.png").stat() == mask  # it was not segmented again


def test_a_folder_that_vanishes_is_waited_for(watch: Any, folder: Path, tmp_path: Path, chest: np.ndarray) -> None:
    out = tmp_path / "out"
    process = watch()
    Image.fromarray(chest).save(folder / "a.png")
    until(lambda: len(records(out)) == 1)
    away = folder.rename(tmp_path / "away")
    time.sleep(1)  # ten looks for it
    Image.fromarray(chest).save(away / "b.png")
    away.rename(folder)
    until(lambda: len(records(out)) == 2)
    text = ended(process)
    assert text.count("cannot be reached, waiting") == 1
    assert [Path(line["input"]).name for line in records(out)] == ["a.png", "b.png"]


def test_a_watch_and_a_run_do_not_share_a_folder(
    watch: Any, folder: Path, tmp_path: Path, chest: np.ndarray, model_file: Path
) -> None:
    Image.fromarray(chest).save(folder / "a.png")
    subprocess.run([PROGRAM, "segment", folder, "-o", tmp_path / "out", "--model", model_file], capture_output=True)
    process = watch()
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "another command (segment, now watch)" in text


def test_a_folder_that_is_none_is_exit_code_1(tmp_path: Path) -> None:
    done = subprocess.run([PROGRAM, "watch", tmp_path / "absent", "-o", tmp_path / "out"], capture_output=True)
    assert done.returncode == 1
    assert b"absent: is not a folder" in done.stderr
