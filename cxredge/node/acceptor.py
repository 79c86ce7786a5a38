"""The listening side of a node: C-ECHO, and C-STORE of radiographs into the queue.

Success is answered only when an object is in the queue and both are on the disk. Statuses are those of PS3.4,
B.2.3; see docs/dicom-node.md for when each is given.
"""

from __future__ import annotations

import logging
import sqlite3
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLETransferSyntaxes,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, _config, evt

from cxredge.dicom.file import open_data_set
from cxredge.errors import InputError, OutputError
from cxredge.logs import log_event
from cxredge.node.connection import BoundedHandler, BoundedServer, BoundedSocket
from cxredge.node.limits import NodeLimits
from cxredge.node.metrics import Metrics
from cxredge.node.queue import JobQueue
from cxredge.node.state import StateFolder, remove

SUCCESS, NO_RESOURCES, NOT_ITS_CLASS, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000
VERIFICATION = UID("1.2.840.10008.1.1")
RADIOGRAPHS = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)
UNCOMPRESSED = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
CLOSED_WITHIN = 5.0
"""Seconds that aborted associations take to end at most."""


@dataclass(frozen=True)
class Address:
    """Where a node listens and how it is called; an empty ``allowed`` admits every calling AE title."""

    title: str
    host: str
    port: int
    allowed: tuple[str, ...] = ()


def transfer_syntaxes() -> list[UID]:
    """Every transfer syntax that this installation decodes."""
    return [
        *UNCOMPRESSED,
        *filter(
            is_decoded, JPEGTransferSyntaxes + JPEGLSTransferSyntaxes + JPEG2000TransferSyntaxes + RLETransferSyntaxes
        ),
    ]


def is_decoded(syntax: UID) -> bool:
    """Whether there is a decoder for a compressed transfer syntax."""
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


class Acceptor:
    """Listens for associations.

    Args:
        address: of the node.
        limits: of the node.
        queue: that remembers what is accepted.
        state: where it is kept.
        metrics: of the node.
        tls: for peers that connect, or ``None`` for plain connections.

    Raises:
        OutputError: the port cannot be used.
    """

    def __init__(
        self,
        address: Address,
        limits: NodeLimits,
        queue: JobQueue,
        state: StateFolder,
        metrics: Metrics,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._limits, self._queue, self._state, self._metrics = limits, queue, state, metrics
        self._draining = False
        self._disk = threading.Lock()
        self._before = _config.STORE_RECV_CHUNKED_DATASET, tempfile.tempdir
        _config.STORE_RECV_CHUNKED_DATASET = True
        tempfile.tempdir = str(state.incoming)  # where pynetdicom receives into
        try:
            server: Any = self._entity(address).make_server(
                (address.host, address.port),
                server_class=BoundedServer,
                evt_handlers=self._handlers(),
                request_handler=BoundedHandler,
            )
        except OSError as error:
            raise OutputError(f"cannot listen on {address.host}:{address.port}: {error.strerror or error}") from error
        self._server = server
        server.limits, server.incoming, server.tls = limits, state.incoming, tls
        server.ae._servers.append(server)  # from where its shutdown() takes it
        self._thread = threading.Thread(target=server.serve_forever, name="cxredge-dicom", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port, also where any free one was asked for."""
        return int(self._server.server_address[1])

    @property
    def associations(self) -> int:
        """Number of connections, those that have no association yet included."""
        return len(self._server.active_associations)

    @property
    def listening(self) -> bool:
        """Whether associations are accepted."""
        return self._thread.is_alive() and not self._draining

    def _entity(self, address: Address) -> AE:
        limits = self._limits
        entity = AE(address.title)
        entity.require_called_aet = True
        entity.require_calling_aet = list(address.allowed)
        entity.maximum_associations = limits.associations
        entity.maximum_pdu_size = limits.pdu_bytes
        entity.acse_timeout, entity.dimse_timeout = limits.request_seconds, limits.idle_seconds
        entity.network_timeout = limits.idle_seconds
        entity.add_supported_context(VERIFICATION)
        syntaxes = transfer_syntaxes()
        for sop_class in RADIOGRAPHS:
            entity.add_supported_context(sop_class, syntaxes)
        return entity

    def _handlers(self) -> list[Any]:
        def count(outcome: str) -> Callable[[evt.Event], None]:
            return lambda _: self._metrics.associations.labels(outcome).inc()

        return [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_DIMSE_RECV, message_received),
            (evt.EVT_CONN_CLOSE, remove_unfinished),
            (evt.EVT_ABORTED, remove_unfinished),
            (evt.EVT_ACCEPTED, count("accepted")),
            (evt.EVT_REJECTED, count("rejected")),
            (evt.EVT_ABORTED, count("aborted")),
            (evt.EVT_RELEASED, count("released")),
        ]

    def _store(self, event: evt.Event) -> int:
        request: Any = event.request
        status = self._answer(event.dataset_path, request.AffectedSOPInstanceUID)
        self._metrics.received.labels(f"{status:04X}").inc()
        log_event("received", logging.INFO if status == SUCCESS else logging.WARNING, status=f"{status:04X}")
        return status

    def _answer(self, received: Path, instance: UID) -> int:
        """Keep an object and put it into the queue; gives the status."""
        if self._draining or self.full or received.stat().st_size > self._limits.object_bytes:
            return NO_RESOURCES
        try:
            header = open_data_set(received, keywords=["SOPInstanceUID"])
        except InputError:
            return NOT_UNDERSTOOD
        if header.get("SOPInstanceUID") != instance or not instance.is_valid:
            return NOT_ITS_CLASS
        try:
            kept = self._state.keep(received)
        except OSError:
            return NO_RESOURCES
        try:
            if not self._queue.add(str(instance), kept):
                remove(kept)
        except sqlite3.Error:
            remove(kept)
            return NO_RESOURCES
        return SUCCESS

    @property
    def full(self) -> bool:
        """Whether nothing more can be kept."""
        counts = self._queue.counts()
        return (
            counts["waiting"] + counts["sending"] >= self._limits.queue
            or self._state.free_bytes < self._limits.free_bytes
        )

    def close(self) -> None:
        """Take no more associations, let those that there are end for a while, then abort them."""
        self._draining = True
        self._server.shutdown()
        self._thread.join()
        self._wait_for_associations(self._limits.stop_seconds)
        for association in self._server.active_associations:
            association.abort()
        self._wait_for_associations(CLOSED_WITHIN)
        _config.STORE_RECV_CHUNKED_DATASET, tempfile.tempdir = self._before

    def _wait_for_associations(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self._server.active_associations and time.monotonic() < end:
            time.sleep(0.05)


def message_received(event: evt.Event) -> None:
    """Tell the connection that the next message begins."""
    connection = event.assoc.dul.socket
    if isinstance(connection, BoundedSocket):
        connection.message_received()


def remove_unfinished(event: evt.Event) -> None:
    """Remove what was received of an object whose sender has gone."""
    message: Any = event.assoc.dimse.message
    if message is not None and message._data_set_file is not None:
        message._data_set_file.close()
        remove(Path(message._data_set_file.name))


def parse_titles(text: str) -> tuple[str, ...]:
    """AE titles, joined by commas.

    Raises:
        ValueError: one has no or more than 16 characters, or others than ASCII (PS3.5, 6.2).
    """
    titles = tuple(title.strip() for title in text.split(","))
    wrong: Sequence[str] = [title for title in titles if not is_title(title)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no AE title: 1 to 16 ASCII characters without a backslash")
    return titles


def is_title(text: str) -> bool:
    """Whether ``text`` is an AE title."""
    return 0 < len(text) <= 16 and text.isascii() and text.isprintable() and "\\" not in text and bool(text.strip())
