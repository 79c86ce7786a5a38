"""A second signal while a run stops cleanly: the process ends at once, with the exit code of a stopped run."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_stop_that_takes_long(second: int, tmp_path: Path) -> None:
    script = tmp_path / "stops.py"
    script.write_text(STOPS_FOR_A_MINUTE)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "stopping\n"
        sent = time.monotonic()
        child.send_signal(second)
        _, errors = child.communicate(timeout=30)
        assert time.monotonic() - sent < 20
    assert child.returncode == 4
    assert errors == ""


def test_a_signal_is_taken_between_two_items_so_that_no_lock_stays_taken(tmp_path: Path) -> None:
    script = tmp_path / "locks.py"
    script.write_text(HAS_A_LOCK)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun 0\n"
        child.send_signal(signal.SIGINT)
        told, _ = child.communicate(timeout=30)
    assert told == "done 0\nstopped False\n"
    assert child.returncode == 0
