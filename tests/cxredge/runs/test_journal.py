"""The journal: what it believes, what it forgets, and with which runs it refuses to go on."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cxredge.errors import OutputError
from cxredge.runs.journal import Entry, Journal, RunIdentity, journal_of, still_holds
from cxredge.runs.proof import file_proof, full_path, model_digest, source_signature
from cxredge.runs.results import Target

IDENTITY = RunIdentity("segment", "1.0", "ab" * 32, "onnxruntime", ("mask", "overlay"), ("/scans",))


def entry(stem: str = "a", **fields: Any) -> Entry:
    record = {"input": f"{stem}.png", "status": "ok", "flags": ["one_lung"]}
    return replace(Entry(f"/scans/{stem}.png", stem, (12, 34), {f"{stem}.mask.png": (5, "cd" * 32)}, record), **fields)


def opened(folder: Path, identity: RunIdentity = IDENTITY, *, resume: bool = True) -> Journal:
    return Journal(folder, identity, resume=resume)


# What is kept


def test_entries_come_back_as_they_were_in_this_run_and_the_next(tmp_path: Path) -> None:
    entries = [entry("a"), entry("b", signature=None, files={}), entry("ü\udcff", moved_to="/done/x")]
    with opened(tmp_path) as journal:
        for one in entries:
            journal.append(one)
            assert journal.entry(one.stem) == one
    with opened(tmp_path) as journal:
        assert [journal.entry(stem) for stem in journal.stems()] == entries
        assert len(journal) == 3
        assert journal.entry("absent") is None


def test_the_latest_entry_of_a_stem_counts_and_a_removed_one_is_gone(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for one in (entry("a"), entry("b"), entry("a", signature=(1, 2)), entry("c")):
            journal.append(one)
        journal.remove("c")
        assert journal.stems() == ("a", "b")
    with opened(tmp_path) as journal:
        assert journal.stems() == ("a", "b")
        assert journal.entry("a") == entry("a", signature=(1, 2))


def test_without_resume_it_begins_anew(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append(entry())
    with opened(tmp_path, replace(IDENTITY, model="other"), resume=False) as journal:
        assert len(journal) == 0
    with opened(tmp_path, replace(IDENTITY, model="other")) as journal:
        assert len(journal) == 0


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_was_cut_off_is_forgotten_and_written_over(cut: int, tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append(entry("a"))
        journal.append(entry("b"))
    path = journal_of(tmp_path)
    os.truncate(path, path.stat().st_size - cut)
    with opened(tmp_path) as journal:
        assert journal.stems() == ("a",)
        journal.append(entry("c"))
    with opened(tmp_path) as journal:
        assert [journal.entry(stem) for stem in journal.stems()] == [entry("a"), entry("c")]


def test_a_line_that_a_power_cut_has_spoilt_costs_only_itself(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for stem in "abc":
            journal.append(entry(stem))
    lines = journal_of(tmp_path).read_bytes().splitlines(keepends=True)
    lines[2] = bytes(len(lines[2]) - 1) + b"\n"
    journal_of(tmp_path).write_bytes(b"".join([*lines, bytes(100)]))
    with opened(tmp_path) as journal:
        assert journal.stems() == ("a", "c")
        journal.append(entry("d"))
        assert journal.entry("c") == entry("c")
    with opened(tmp_path) as journal:
        assert journal.stems() == ("a", "c", "d")


# Which runs may go on


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("command", "watch", "another command"),
        ("version", "2.0", r"another version \(1.0, now 2.0\)"),
        ("model", "cd" * 32, "another model"),
        ("backend", "openvino", r"another backend \(onnxruntime, now openvino\)"),
        ("formats", ("mask",), r"another format \(mask, overlay, now mask\)"),
        ("inputs", ("/scans", "/more"), "another input"),
    ],
)
def test_another_run_is_refused_and_told_in_what_it_differs(field: str, value: Any, words: str, tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append(entry())
    before = journal_of(tmp_path).read_bytes()
    with pytest.raises(OutputError, match=f"{words}.*--overwrite"):
        opened(tmp_path, replace(IDENTITY, **{field: value}))
    assert journal_of(tmp_path).read_bytes() == before
    opened(tmp_path).close()


@pytest.mark.parametrize("content", [b"", b"text\n", b'{"format": 1}\n', b'{"format": 99, "run": {}}\n', b"[1]\n"])
def test_a_journal_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    opened(tmp_path).close()
    journal_of(tmp_path).write_bytes(content)
    with pytest.raises(OutputError, match=r"damaged or from another version.*--overwrite"):
        opened(tmp_path)


def test_two_runs_into_one_folder_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(OutputError, match="another run is writing there"):
        opened(tmp_path)
    opened(tmp_path).close()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep me")
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(OutputError, match="file"):
            opened(folder)
    assert (tmp_path / "file").read_text() == "keep me"


# What spares doing an input again


@pytest.fixture
def done(tmp_path: Path) -> tuple[Path, Target, Entry]:
    """An output folder, an input that is done, and its entry."""
    target = Target(tmp_path / "a.png", Path("sub/a"))
    target.source.write_bytes(b"radiograph")
    folder = tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    (folder / target.mask).write_bytes(b"mask")
    files = {target.mask.as_posix(): file_proof(folder / target.mask)}
    record = {"status": "ok"}
    return folder, target, Entry(full_path(target.source), "sub/a", source_signature(target.source), files, record)


def test_an_entry_holds_while_source_and_files_are_what_they_were(done: tuple[Path, Target, Entry]) -> None:
    folder, target, entry = done
    assert still_holds(folder, target, entry)
    assert not still_holds(folder, target, None)
    assert not still_holds(folder, Target(target.source.with_name("b.png"), target.stem), entry)


def test_a_failed_input_is_always_tried_again(done: tuple[Path, Target, Entry]) -> None:
    folder, target, entry = done
    assert not still_holds(folder, target, replace(entry, record={"status": "failed"}, files={}))


@pytest.mark.parametrize("content", [b"longer radiograph", b"RADIOGRAPH"])
def test_a_changed_source_is_done_again(content: bytes, done: tuple[Path, Target, Entry]) -> None:
    folder, target, entry = done
    target.source.write_bytes(content)
    os.utime(target.source, ns=(0, source_signature(target.source)[1] + 1))
    assert not still_holds(folder, target, entry)


@pytest.mark.parametrize("content", [b"", b"mas", b"MASK", b"\0\0\0\0", None])
def test_a_file_that_is_not_what_was_written_is_made_again(
    content: bytes | None, done: tuple[Path, Target, Entry]
) -> None:
    folder, target, entry = done
    (folder / target.mask).unlink() if content is None else (folder / target.mask).write_bytes(content)
    assert not still_holds(folder, target, entry)


def test_models_are_told_apart_by_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"one")
    (tmp_path / "c").write_bytes(b"two")
    assert model_digest(tmp_path / "a") == model_digest(tmp_path / "b") != model_digest(tmp_path / "c")
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for name in ("weights.safetensors", "config.toml", "log.jsonl"):
        (checkpoint / name).write_text(name)
    before = model_digest(checkpoint)
    (checkpoint / "log.jsonl").write_text("more")
    assert model_digest(checkpoint) == before
    (checkpoint / "weights.safetensors").write_text("trained on")
    assert model_digest(checkpoint) != before


def test_lines_are_json(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append(entry())
    header, line = (json.loads(text) for text in journal_of(tmp_path).read_text().splitlines())
    assert header["run"]["backend"] == "onnxruntime"
    assert line["files"] == {"a.mask.png": [5, "cd" * 32]}
