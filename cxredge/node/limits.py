"""How much a node takes: of associations, of bytes, of time, of disk. Beyond it, peers are refused."""

from __future__ import annotations

from dataclasses import dataclass

from cxredge.limits import MEBIBYTE

MESSAGE_IN_MEMORY = MEBIBYTE
"""Bytes of a DIMSE message that is not an object to be stored; an echo has a hundred."""
ASSOCIATION_REQUEST = MEBIBYTE
"""Bytes of a PDU that asks for an association, whose length is not negotiated; 128 contexts have 64 KiB."""
HALF_OPEN = 32
"""Connections beyond the associations: those that have not asked for one yet, or are being told no."""


@dataclass(frozen=True)
class NodeLimits:
    """Limits of a node.

    Attributes:
        associations: at once; one more is rejected (A-ASSOCIATE-RJ, local limit exceeded).
        pdu_bytes: of a P-DATA PDU, as negotiated; a peer that sends more is cut off.
        object_bytes: of an object; a larger one is refused (0xA700), one of twice the size cut off.
        queue: objects that wait; one more is refused (0xA700).
        free_bytes: of the disk, that stay free; an object that comes then is refused (0xA700).
        request_seconds: until a peer that is connected has asked for an association.
        pdu_seconds: until a PDU that has begun is complete.
        idle_seconds: between two PDUs of a peer.
        stop_seconds: for what is under way when the node is to stop.
        read_seconds: for decoding one object.
        upload_bytes: of an HTTP upload; a larger one is answered 413.
        upload_seconds: until an upload is complete, else 408.
        uploads: that are worked on or wait at once; one more is answered 503.
    """

    associations: int = 256
    pdu_bytes: int = 128 * 1024
    object_bytes: int = 512 * MEBIBYTE
    queue: int = 10_000
    free_bytes: int = 1024 * MEBIBYTE
    request_seconds: float = 30.0
    pdu_seconds: float = 30.0
    idle_seconds: float = 60.0
    stop_seconds: float = 20.0
    read_seconds: float = 60.0
    upload_bytes: int = 128 * MEBIBYTE
    upload_seconds: float = 60.0
    uploads: int = 16
