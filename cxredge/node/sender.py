"""Sends results: by C-STORE to a peer, or into a folder where the node was given none."""

from __future__ import annotations

import logging
import random
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydicom import dcmread
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom import AE
from pynetdicom.association import Association

from cxredge.errors import CxredgeError
from cxredge.logs import log_event
from cxredge.node.metrics import Metrics
from cxredge.node.queue import Job, JobQueue
from cxredge.node.state import move_durably, remove

IDLE_SECONDS = 1.0
SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 600.0
"""Seconds before the second try, and between late ones."""
MOST_REFUSALS = 30
"""Times that a peer refuses a result before it is given up: with the pauses, four hours."""
RESULTS = (SegmentationStorage, SecondaryCaptureImageStorage)
PEER_SECONDS = 30.0
WARNINGS = frozenset({0xB000, 0xB006, 0xB007})
"""Statuses with which an object is stored all the same (PS3.4, B.2.3)."""


class Unreachable(CxredgeError):
    """The peer does not answer, or not as one that stores."""


class Refused(CxredgeError):
    """The peer does not want an object."""


class Destination(Protocol):
    """Where results go."""

    def deliver(self, files: tuple[Path, ...]) -> None:
        """Give the results of one radiograph; those that are there already are the same objects.

        Raises:
            Unreachable: later, perhaps.
            Refused: the peer does not want one of them.
        """

    def pause(self) -> None:
        """Nothing more is to be delivered for now."""


@dataclass(frozen=True)
class Outbox:
    """A folder; results are named by their SOP Instance UIDs, so that a repeat replaces them."""

    folder: Path

    def deliver(self, files: tuple[Path, ...]) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
            for file in files:
                if file.exists():  # else it was moved before the node was killed
                    uid = dcmread(file, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]).SOPInstanceUID
                    move_durably(file, self.folder / f"{uid}.dcm")
        except OSError as error:
            raise Unreachable(f"outbox: {error.strerror}") from error

    def pause(self) -> None:
        pass


@dataclass(frozen=True)
class Peer:
    """An AE to which results go."""

    title: str
    host: str
    port: int


def parse_peer(text: str) -> Peer:
    """A peer as ``AET@HOST:PORT``, the host in brackets where it is an IPv6 address.

    Raises:
        ValueError: it is something else.
    """
    title, _, place = text.partition("@")
    host, _, port = place.rpartition(":")
    if not (0 < len(title) <= 16 and host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ValueError(f"{text!r} is not AET@HOST:PORT")
    return Peer(title, host.strip("[]"), int(port))


class PeerConnection:
    """Results to a peer over an association that lasts while there are any.

    Args:
        title: of this node.
        peer: the other one.
        tls: for the connection, or ``None``.
    """

    def __init__(self, title: str, peer: Peer, tls: ssl.SSLContext | None = None) -> None:
        self._entity = AE(title)
        self._peer = peer
        self._tls = None if tls is None else (tls, peer.host)
        for name in ("acse_timeout", "dimse_timeout", "network_timeout", "connection_timeout"):
            setattr(self._entity, name, PEER_SECONDS)
        for sop_class in RESULTS:
            self._entity.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        self._association: Association | None = None

    def deliver(self, files: tuple[Path, ...]) -> None:
        association = self._established()
        for file in files:
            self._store(association, file)

    def pause(self) -> None:
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None

    def _established(self) -> Association:
        if self._association is None or not self._association.is_established:
            arguments: dict[str, Any] = {} if self._tls is None else {"tls_args": self._tls}
            self._association = self._entity.associate(
                self._peer.host, self._peer.port, ae_title=self._peer.title, **arguments
            )
            if not self._association.is_established:
                rejected = self._association.is_rejected
                self._association = None
                raise Unreachable("rejected the association" if rejected else "no association")
        return self._association

    def _store(self, association: Association, file: Path) -> None:
        try:
            answer = association.send_c_store(dcmread(file))
        except (ValueError, RuntimeError) as error:  # no context for the class, or the association has ended
            if not association.is_established:
                raise Unreachable("ended the association") from error
            raise Refused("takes no objects of this class") from error
        status = answer.get("Status")
        if status is None:
            association.abort()
            raise Unreachable("does not answer")
        if status != 0 and status not in WARNINGS:
            raise Refused(f"answered {status:04X}")


class Sender:
    """A thread that sends.

    Args:
        destination: where to.
        queue: what is to be sent.
        metrics: of the node.
    """

    def __init__(self, destination: Destination, queue: JobQueue, metrics: Metrics) -> None:
        self._destination, self._queue, self._metrics = destination, queue, metrics
        self._stopping = threading.Event()
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="cxredge-send", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Finish what is under way and end."""
        self._stopping.set()
        self._queue.wake()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            job = self._queue.take("sending")
            if job is None:
                self._destination.pause()
                self._queue.wait(IDLE_SECONDS)
            else:
                self._do(job)
        self._destination.pause()

    def _do(self, job: Job) -> None:
        try:
            self._destination.deliver(job.results)
        except Unreachable as error:
            self._failures += 1
            self._queue.postpone(job, 0, counted=False)
            self._count("unreachable", str(error), job)
            self._stopping.wait(pause(self._failures))
        except Refused as error:
            self._refused(job, str(error))
        except Exception as error:  # a bug of ours, or of pynetdicom's, on this job must not stop the others
            self._refused(job, type(error).__name__)
        else:
            self._failures = 0
            self._queue.finish(job)
            for file in job.files:
                remove(file)
            self._metrics.sent.labels("sent").inc()
            log_event("sent", job=job.number, objects=len(job.results))

    def _refused(self, job: Job, cause: str) -> None:
        self._count("refused", cause, job)
        if job.tries < MOST_REFUSALS:
            self._queue.postpone(job, pause(job.tries))
            return
        for file in self._queue.fail(job, f"the peer {cause}"):
            remove(file)

    def _count(self, outcome: str, cause: str, job: Job) -> None:
        self._metrics.sent.labels(outcome).inc()
        log_event(f"sending_{outcome}", logging.WARNING, cause=cause, job=job.number, tries=job.tries)


def pause(failures: int, chance: Callable[[], float] = random.random) -> float:
    """Seconds before the next try, after a number of failures: twice as long each time, and never quite the same."""
    longest = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2.0 ** min(failures - 1, 20))
    return longest * (0.5 + 0.5 * chance())
