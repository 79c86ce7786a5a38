"""What a compressed frame says about itself: JPEG, JPEG-LS and JPEG 2000.

A header of a DICOM file and the frame in it can disagree; whoever trusts the one and allocates for the other writes
past the end. Read from the first bytes only, before a decoder sees the frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

START_OF_IMAGE = b"\xff\xd8"
START_OF_CODESTREAM = b"\xff\x4f\xff\x51"
"""SOC and SIZ of JPEG 2000 (ISO/IEC 15444-1, A.4 and A.5), high-throughput or not."""
JP2_SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
"""Start of a JP2 file, in whose boxes some put the codestream (ISO/IEC 15444-1, I.5.1)."""
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0 to SOF15, without DHT, JPG and DAC (ISO/IEC 10918-1, table B.1)."""
HUFFMAN_FRAMES = frozenset(range(0xC0, 0xC8))
HUFFMAN_TABLES, START_OF_SCAN, JFIF, JPEG_LS_FRAME = 0xC4, 0xDA, 0xE0, 0xF7
SHORTEST_FRAME_SEGMENT = 10
"""Bytes of a frame header with its marker, without the components."""
WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
"""Markers SOS and EOI of JPEG and JPEG-LS; within a scan a byte of 255 is never followed by more than 127."""
SEARCHED = 1 << 20
"""Bytes of the frame in which its header is looked for."""


@dataclass(frozen=True)
class FrameHeader:
    """Size in pixels, samples a pixel and bits a sample."""

    height: int
    width: int
    samples: int
    bits: int


def frame_header(frame: bytes) -> FrameHeader | None:
    """Header of a compressed frame; ``None`` where there is none to be found, as in run-length coding."""
    head = frame[:SEARCHED]
    if head.startswith(START_OF_IMAGE):
        return jpeg_header(head)
    if head.startswith((START_OF_CODESTREAM, JP2_SIGNATURE)):
        codestream = head.find(START_OF_CODESTREAM)
        return jpeg2000_header(head, codestream) if codestream >= 0 else None
    return None


def starts_a_frame(fragment: bytes) -> bool:
    """Whether a fragment begins as a JPEG, JPEG-LS or JPEG 2000 does, which no other piece of one can."""
    return fragment.startswith((START_OF_IMAGE + b"\xff", START_OF_CODESTREAM, JP2_SIGNATURE))


def has_end(frame: bytes) -> bool:
    """Whether the last scan of a JPEG or JPEG-LS is followed by the marker EOI."""
    return frame.rfind(END_OF_IMAGE) > frame.rfind(SCAN)


def jpeg_header(head: bytes) -> FrameHeader | None:
    """The frame header (SOF) of a JPEG or JPEG-LS; ``None`` where its segments do not lead to a scan.

    A JPEG that is coded by Huffman must bring its tables: GDCM ends the process where they are missing.
    """
    found, tables = None, False
    for marker, start, end in jpeg_segments(head):
        if marker == START_OF_SCAN:
            return found if tables else None
        if end - start >= SHORTEST_FRAME_SEGMENT and (marker == JPEG_LS_FRAME or marker in FRAMES):
            bits, height, width, samples = struct.unpack_from(">BHHB", head, start + 4)
            found, tables = FrameHeader(height, width, samples, bits), tables or marker not in HUFFMAN_FRAMES
        tables = tables or marker == HUFFMAN_TABLES
    return None


def jpeg_segments(frame: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of a JPEG's segments, up to the first scan or to where there is no marker."""
    start = len(START_OF_IMAGE)
    while start + 4 <= len(frame) and frame[start] == 0xFF:
        marker = frame[start + 1]
        if marker == 0xFF or marker in WITHOUT_LENGTH:
            start += 1 if marker == 0xFF else 2
            continue
        end = start + 2 + int.from_bytes(frame[start + 2 : start + 4], "big")
        yield marker, start, min(end, len(frame))
        if marker == START_OF_SCAN:
            return
        start = end


def without_jfif(frame: bytes) -> bytes:
    """A JPEG without its JFIF segments, which say nothing of the pixels; a wrong unit in them ends GDCM's process."""
    place, kept = 0, []
    for marker, start, end in jpeg_segments(frame):
        if marker == JFIF:
            kept.append(frame[place:start])
            place = end
    return b"".join(kept) + frame[place:]


def jpeg2000_header(head: bytes, start: int) -> FrameHeader | None:
    """The SIZ marker segment of the JPEG 2000 codestream at ``start``."""
    fields = struct.Struct(">HHIIII16xHB")  # Lsiz Rsiz Xsiz Ysiz XOsiz YOsiz, tiles, Csiz Ssiz
    start += len(START_OF_CODESTREAM)
    if start + fields.size > len(head):
        return None
    _, _, right, bottom, left, top, samples, depth = fields.unpack_from(head, start)
    return FrameHeader(bottom - top, right - left, samples, (depth & 0x7F) + 1)
