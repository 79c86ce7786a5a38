"""Connections of peers, bounded: pynetdicom waits for ever for a slow peer and takes PDUs of any length.

A peer that breaks a limit is cut off. It costs the node a thread and a few kilobytes until then.
"""

from __future__ import annotations

import logging
import shutil
import ssl
import time
from pathlib import Path
from queue import Empty
from socket import socket
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from cxredge.logs import log_event
from cxredge.node.limits import ASSOCIATION_REQUEST, HALF_OPEN, MESSAGE_IN_MEMORY, NodeLimits

HEADER_LENGTH = 6
"""Bytes of a PDU before its content (PS3.8, 9.3.1)."""
IDLE_PAUSE = 0.02
"""Seconds between two looks at a connection on which nothing happens; pynetdicom's own 1 ms makes 200 of them busy."""
RECEIVED_AT_ONCE = 1 << 16
DISK_CHECKED_EVERY = 16 << 20
"""Bytes of an object after which the disk is looked at again."""


class CutOff(OSError):
    """A peer broke a limit."""


class BoundedSocket(AssociationSocket):
    """The connection of a peer whose PDUs must be of a moderate length and come within a time.

    Args:
        assoc: the association.
        client_socket: the connection.
        limits: of the node.
        incoming: the folder into which objects are received.
    """

    def __init__(self, assoc: Association, client_socket: socket, limits: NodeLimits, incoming: Path) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._limits, self._incoming = limits, incoming
        self._deadline = 0.0
        self._message = 0
        self._unchecked = 0

    def message_received(self) -> None:
        """A message is complete; the next begins."""
        self._message = 0

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly ``nr_bytes``, fewer where the peer has closed.

        Raises:
            OSError: a limit is broken, or the connection lost.
        """
        if nr_bytes == HEADER_LENGTH:
            self._deadline = time.monotonic() + self._limits.pdu_seconds
        try:
            self._require_moderation(nr_bytes)
            return self._received(nr_bytes)
        except OSError as error:
            if isinstance(error, CutOff | TimeoutError):
                log_event("peer_cut_off", logging.WARNING, cause=str(error) or "too slow")
            self._shutdown_socket()
            raise

    def _received(self, length: int) -> bytearray:
        peer, content = self.socket, bytearray()
        while peer is not None and len(content) < length:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise CutOff("a PDU took too long")
            peer.settimeout(left)
            part = peer.recv(min(length - len(content), RECEIVED_AT_ONCE))
            if not part:
                break
            content += part
        if peer is not None:
            peer.settimeout(self._limits.pdu_seconds)
        return content

    def _require_moderation(self, length: int) -> None:
        established = self.assoc.is_established
        if length > (self._limits.pdu_bytes if established else ASSOCIATION_REQUEST):
            raise CutOff("a PDU is too long")
        self._message += length
        self._unchecked += length
        message: Any = self.assoc.dimse.message
        on_disk = message is not None and message._data_set_file is not None
        if self._message > (2 * self._limits.object_bytes if on_disk else MESSAGE_IN_MEMORY + self._limits.pdu_bytes):
            raise CutOff("a message is too long")
        if self._unchecked > DISK_CHECKED_EVERY:
            self._unchecked = 0
            if shutil.disk_usage(self._incoming).free < self._limits.free_bytes:
                raise CutOff("the disk is full")


class WaitingProvider(DIMSEServiceProvider):
    """Messages of an association, which are waited for rather than looked for a thousand times a second."""

    def get_msg(self, block: bool = False) -> Any:
        """The next message; two ``None`` where none has come within a moment."""
        if block:
            return super().get_msg(block=True)
        try:
            return self.msg_queue.get(timeout=IDLE_PAUSE)
        except Empty:
            return None, None


class BoundedHandler(RequestHandler):
    """Makes the association of a connection, after the TLS handshake where there is one."""

    server: BoundedServer

    def handle(self) -> None:
        self.request.settimeout(self.server.limits.request_seconds)
        if self.server.tls is not None:
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().handle()

    def _create_association(self) -> Association:
        association = super()._create_association()
        association.dul._run_loop_delay = IDLE_PAUSE
        association.dimse = WaitingProvider(association)
        association.dul.event_queue.get_nowait()  # Evt5, of the socket that is replaced; the new one gives it again
        association.dul.socket = BoundedSocket(association, self.request, self.server.limits, self.server.incoming)
        return association


class BoundedServer(ThreadedAssociationServer):
    """Takes connections, a limited number at once, and does the TLS handshake outside the accepting thread."""

    limits: NodeLimits
    incoming: Path
    tls: ssl.SSLContext | None
    daemon_threads = True
    request_queue_size = 128

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether one more connection is taken; where not, it is closed."""
        taken = len(self.active_associations) < self.limits.associations + HALF_OPEN
        if not taken:
            log_event("peer_cut_off", logging.WARNING, cause="too many connections")
        return taken

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log that a connection failed, mostly in the TLS handshake; never what was sent."""
        log_event("connection_failed", logging.WARNING)
