"""A second signal while a run stops cleanly: the process ends at once, with the exit code of a stopped run."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cxredge.runs.interruption import SIGNALS, Interruption

STOPS_FOR_A_MINUTE = """
import time
from cxredge.runs.interruption import Interruption

def items():
    try:
        print("begun", flush=True)
        time.sleep(60)
        yield
    finally:
        print("stopping", flush=True)
        time.sleep(60)

with Interruption(4) as interruption:
    for _ in interruption.each(items(), at_once=True):
        pass
"""

HAS_A_LOCK = """
import threading
import time
from cxredge.runs.interruption import Interrupted, Interruption

lock = threading.Lock()

def items():
    for number in range(2):
        lock.acquire()
        print("begun", number, flush=True)
        time.sleep(0.5)
        lock.release()
        yield number

with Interruption(4) as interruption:
    try:
        for number in interruption.each(items()):
            print("done", number, flush=True)
    except Interrupted:
        print("stopped", lock.locked(), flush=True)
"""

CLOSES_FOR_A_MINUTE = """
import time
from cxredge.runs.interruption import Interrupted, Interruption

with Interruption(4) as interruption:
    try:
        print("begun", flush=True)
        interruption.sleep(60)
    except Interrupted:
        pass
print("stopping", flush=True)
time.sleep(60)
"""

ENDS_FOR_A_SECOND = """
import ctypes
import signal
from cxredge.runs.interruption import Interrupted, Interruption

class Last:
    def __del__(self, printf=ctypes.CDLL(None).dprintf, sleep=ctypes.CDLL(None).sleep):
        printf(1, b"ending\\n")
        sleep(1)

with Interruption(4) as interruption:
    try:
        print("begun", flush=True)
        interruption.sleep(60)
    except Interrupted:
        pass
signal.last = Last()  # given up after Python's handlers are
raise SystemExit(4)
"""


@contextmanager
def begun(script: str, tmp_path: Path, first_line: str = "begun\n") -> Iterator[subprocess.Popen[str]]:
    """A program that has been sent SIGINT once it had written its first line."""
    program = tmp_path / "program.py"
    program.write_text(script)
    with subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == first_line
        child.send_signal(signal.SIGINT)
        yield child


@pytest.mark.parametrize("script", [STOPS_FOR_A_MINUTE, CLOSES_FOR_A_MINUTE], ids=["stops", "closes"])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_stop_that_takes_long(second: int, script: str, tmp_path: Path) -> None:
    with begun(script, tmp_path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "stopping\n"
        sent = time.monotonic()
        child.send_signal(second)
        _, errors = child.communicate(timeout=30)
        assert time.monotonic() - sent < 20
    assert child.returncode == 4
    assert errors == ""


def test_a_signal_is_taken_between_two_items_so_that_no_lock_stays_taken(tmp_path: Path) -> None:
    with begun(HAS_A_LOCK, tmp_path, "begun 0\n") as child:
        told, _ = child.communicate(timeout=30)
    assert told == "done 0\nstopped False\n"
    assert child.returncode == 0


def test_a_second_signal_does_not_change_the_code_of_a_process_that_is_ending(tmp_path: Path) -> None:
    with begun(ENDS_FOR_A_SECOND, tmp_path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ending\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 4


def test_without_a_signal_the_handlers_are_what_they_were() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruption(4):
        assert all(signal.getsignal(number) not in before for number in SIGNALS)
    assert [signal.getsignal(number) for number in SIGNALS] == before
