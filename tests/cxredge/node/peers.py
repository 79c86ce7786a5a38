"""Peers of a node, and nodes in processes of their own, for the tests."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from pynetdicom import AE, evt

from cxredge.node.acceptor import RADIOGRAPHS
from cxredge.node.limits import NodeLimits
from cxredge.node.sender import RESULTS, Peer

SMALL = NodeLimits(free_bytes=0, stop_seconds=3.0)


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true value of a condition."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("did not happen in time")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def need(program: str) -> str:
    """Path of a program of the system; the test is skipped where it is missing."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if not found:
        pytest.skip(f"{program} is not installed (Debian's dcmtk, orthanc or systemd)")
    return found


class Archive:
    """A peer that stores what it gets, as an archive does."""

    def __init__(self, title: str = "ARCHIVE", tls: Any = None, answers: tuple[int, ...] = (), port: int = 0) -> None:
        self.stored: dict[str, Dataset] = {}
        self.arrivals: list[str] = []
        self._answers = list(answers)
        self._lock = threading.Lock()
        entity = AE(title)
        entity.maximum_associations = 50
        for sop_class in (*RESULTS, *RADIOGRAPHS):
            entity.add_supported_context(sop_class)
        self._server = entity.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)], ssl_context=tls
        )
        self.peer = Peer(title, "127.0.0.1", self._server.server_address[1])

    def _store(self, event: Any) -> int:
        dataset = event.dataset
        with self._lock:
            self.arrivals.append(dataset.SOPInstanceUID)
            if self._answers and (status := self._answers.pop(0)):
                return status
            self.stored[dataset.SOPInstanceUID] = dataset
        return 0

    def of_modality(self, modality: str) -> list[Dataset]:
        with self._lock:
            return [one for one in self.stored.values() if one.Modality == modality]

    def close(self) -> None:
        self._server.shutdown()


def another(path: Path) -> Dataset:
    """The same radiograph as another object of the same study."""
    dataset = dcmread(path)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return dataset


def send(port: int, *datasets: Dataset, called: str = "CXREDGE", calling: str = "SENDER") -> list[int | None]:
    """Statuses of objects sent over one association; ``None`` where it has ended."""
    entity = AE(calling)
    for sop_class in RADIOGRAPHS:
        entity.add_requested_context(sop_class, "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return [None] * len(datasets)
    statuses = []
    for dataset in datasets:
        try:
            statuses.append(association.send_c_store(dataset).get("Status"))
        except RuntimeError:
            statuses.append(None)
    if association.is_established:
        association.release()
    return statuses


def echo(port: int, calling: str = "SENDER", called: str = "CXREDGE") -> bool:
    """Whether a node answers a C-ECHO."""
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
    entity.add_requested_context("1.2.840.10008.1.1")
    association = entity.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return False
    status = association.send_c_echo().get("Status")
    association.release()
    return status == 0


class Served:
    """``cxredge serve`` in a process of its own."""

    def __init__(self, state: Path, *options: str, port: int = 0) -> None:
        program = [str(Path(sys.executable).with_name("cxredge")), "serve", "--state", str(state), "--port", str(port)]
        program += ["--log-format", "json", "--min-free", "0", *options]
        self.log = state.with_suffix(".log")
        with self.log.open("ab") as file:
            file.write(b"\n")
            self._begin = file.tell()
            self.process = subprocess.Popen(program, stderr=file)
        started = until(lambda: self.event("node_started") or self.ended(), 120)
        self.port, self.http_port = started["port"], started["http_port"]

    def ended(self) -> None:
        if self.process.poll() is not None:
            raise AssertionError(f"the node ended:\n{self.log.read_text()[self._begin :]}")

    def events(self) -> list[dict[str, Any]]:
        lines = self.log.read_bytes()[self._begin :].splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"\n")]

    def event(self, name: str) -> dict[str, Any] | None:
        return next((event for event in self.events() if event["event"] == name), None)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())
