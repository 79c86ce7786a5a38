"""Reading in another process gives the same radiograph, and outlives readers that hang or crash."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxredge import Radiograph, read_radiograph
from cxredge.errors import InputError
from cxredge.runs.proof import source_signature
from cxredge.runs.reader_process import ProcessReader, ThreadReader, exit_cause, radiograph_from_parts, read_parts

TIMEOUT = 3.0


@pytest.fixture(scope="module")
def reader() -> Iterator[ProcessReader]:
    reader = ProcessReader(1, TIMEOUT)
    yield reader
    reader.close()


def assert_same(one: Radiograph, other: Radiograph) -> None:
    for field in fields(Radiograph):
        if field.name == "pixels":
            assert one.pixels.dtype == other.pixels.dtype
            np.testing.assert_array_equal(one.pixels, other.pixels)
        else:
            assert getattr(one, field.name) == getattr(other, field.name), field.name
            assert type(getattr(one, field.name)) is type(getattr(other, field.name)) or field.name == "identity"


@pytest.mark.parametrize("name", ["g1.png", "g2.npy", "g3.dcm"])
def test_the_radiograph_is_the_same_in_every_field(name: str, mixed_folder: Path, reader: ProcessReader) -> None:
    path = mixed_folder / name
    assert_same(reader.read(path), read_radiograph(path))
    assert reader.weigh(path) == ThreadReader().weigh(path) == (source_signature(path), 80 * 96)


def test_fields_that_are_set_arrive_as_they_were(
    tmp_path: Path, chest: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Radiograph(
        chest[::2].T,
        "MONOCHROME1",
        (0.1, 0.2),
        "1.2.3",
        value_range=(5.0, 4000.0),
        spacing_plane="patient",
        orientation=("L", "F"),
        notes=("lateral", "rotated"),
    )
    monkeypatch.setattr("cxredge.runs.reader_process.read_radiograph", lambda path: sent)
    answer, pixels = read_parts(tmp_path)
    assert pixels is not None
    assert_same(radiograph_from_parts(answer, bytes(pixels)), sent)


@pytest.mark.parametrize(("name", "complaint"), [("b1-truncated.png", "damaged"), ("absent.png", "No such file")])
def test_errors_are_those_of_the_reader_with_the_files_name(
    name: str, complaint: str, mixed_folder: Path, reader: ProcessReader
) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        reader.read(mixed_folder / name)
    with pytest.raises(InputError) as expected:
        read_radiograph(mixed_folder / name)
    assert str(caught.value) == str(expected.value)


def test_a_missing_source_has_no_signature_and_no_weight(tmp_path: Path, reader: ProcessReader) -> None:
    assert reader.weigh(tmp_path / "absent") == (None, 0)


def test_a_name_that_is_not_unicode_arrives(tmp_path: Path, chest: np.ndarray, reader: ProcessReader) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.npy"))
    np.save(path, chest)
    np.testing.assert_array_equal(reader.read(path).pixels, chest)


def test_a_reader_that_hangs_is_ended_in_time_and_replaced(mixed_folder: Path, reader: ProcessReader) -> None:
    reader.read(mixed_folder / "g1.png")
    os.kill(process_of(reader).pid, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(InputError, match=r"g1\.png: was not read within 3 s"):
        reader.weigh(mixed_folder / "g1.png")
    assert TIMEOUT <= time.monotonic() - started < TIMEOUT + 5
    assert reader.read(mixed_folder / "g1.png").shape == (80, 96)


def process_of(reader: ProcessReader) -> Any:
    process = reader._idle.get()
    reader._idle.put(process)
    assert process is not None
    return process._process


def test_a_reader_that_crashes_is_replaced(mixed_folder: Path, reader: ProcessReader) -> None:
    reader.read(mixed_folder / "g1.png")
    os.kill(process_of(reader).pid, signal.SIGSEGV)
    with pytest.raises(InputError, match=r"g2\.npy: the reader crashed on it \(signal SIGSEGV\)"):
        reader.read(mixed_folder / "g2.npy")
    assert reader.read(mixed_folder / "g2.npy").shape == (80, 96)


def test_ctrl_c_and_sigterm_are_left_to_the_parent(mixed_folder: Path, reader: ProcessReader) -> None:
    reader.read(mixed_folder / "g1.png")
    process = process_of(reader)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(process.pid, number)
    assert reader.read(mixed_folder / "g1.png").shape == (80, 96)
    assert process_of(reader) is process


def test_more_threads_than_processes_take_turns(mixed_folder: Path, reader: ProcessReader) -> None:
    with ThreadPoolExecutor(4) as pool:
        shapes = list(pool.map(lambda _: reader.read(mixed_folder / "g3.dcm").shape, range(8)))
    assert shapes == [(80, 96)] * 8


def test_closing_ends_the_processes(mixed_folder: Path) -> None:
    reader = ProcessReader(2, TIMEOUT)
    reader.read(mixed_folder / "g1.png")
    process = process_of(reader)
    reader.close()
    process.join(10)
    assert process.exitcode == -signal.SIGKILL


def test_an_end_is_told_in_words() -> None:
    assert exit_cause(-11) == "signal SIGSEGV"
    assert exit_cause(1) == "exit code 1"
