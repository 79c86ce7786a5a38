"""A node in this process, with peers on the loopback interface."""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import JPEGLSLossless, RLELossless
from pynetdicom import AE

from cxredge.node import sender as sender_module
from cxredge.node.acceptor import parse_titles, transfer_syntaxes
from cxredge.node.sender import Peer, parse_peer, pause
from cxredge.node.service import Node

from .peers import SMALL, Archive, another, echo, free_port, send, until

Start = Callable[..., Node]


def empty(node: Node) -> bool:
    return sum(node.queue.counts().values()) == 0


def test_what_is_sent_comes_back_as_a_segmentation_in_the_same_study(
    start: Start, archive: Archive, radiograph: Path
) -> None:
    node = start(reply=archive.peer)
    source = dcmread(radiograph)
    assert echo(node.acceptor.port)
    assert send(node.acceptor.port, source) == [0]
    until(lambda: archive.stored and empty(node))
    (result,) = archive.of_modality("SEG")
    assert result.StudyInstanceUID == source.StudyInstanceUID
    assert result.SeriesInstanceUID != source.SeriesInstanceUID
    assert [segment.SegmentLabel for segment in result.SegmentSequence] == ["Right lung", "Left lung"]
    until(lambda: not any([*node.state.objects.iterdir(), *node.state.results.iterdir()]))


def test_one_sent_again_is_the_same_object(start: Start, archive: Archive, radiograph: Path) -> None:
    node = start(reply=archive.peer)
    for number in (1, 2):
        assert send(node.acceptor.port, dcmread(radiograph)) == [0]
        until(lambda number=number: len(archive.arrivals) == number and empty(node))
    assert len(archive.stored) == 1


def test_without_a_peer_results_go_into_a_folder(start: Start, radiograph: Path) -> None:
    node = start()
    send(node.acceptor.port, dcmread(radiograph))
    until(lambda: empty(node))
    (result,) = node.state.outbox.iterdir()
    assert result.stem == dcmread(result).SOPInstanceUID


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_objects_are_taken_as_they_are(start: Start, radiograph: Path, syntax: str) -> None:
    node = start()
    dataset = dcmread(radiograph)
    dataset.compress(syntax, generate_instance_uid=False)
    entity = AE("SENDER")
    entity.add_requested_context(dataset.SOPClassUID, syntax)
    association = entity.associate("127.0.0.1", node.acceptor.port, ae_title="CXREDGE")
    assert association.send_c_store(dataset).Status == 0
    association.release()
    until(lambda: empty(node))
    assert len(list(node.state.outbox.iterdir())) == 1


def test_every_transfer_syntax_that_is_decoded_is_offered() -> None:
    names = {syntax.keyword for syntax in transfer_syntaxes()}
    assert {"ImplicitVRLittleEndian", "JPEGLosslessSV1", "JPEG2000Lossless", "JPEGLSLossless", "RLELossless"} <= names


def test_a_peer_that_is_away_gets_its_results_later(
    start: Start, radiograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "SHORTEST_PAUSE", 0.1)
    port = free_port()
    node = start(reply=Peer("ARCHIVE", "127.0.0.1", port))
    send(node.acceptor.port, dcmread(radiograph))
    until(lambda: node.metrics.sent.labels("unreachable")._value.get() >= 2)
    assert node.queue.counts()["sending"] == 1
    late = Archive(port=port)
    try:
        until(lambda: empty(node))
        assert len(late.stored) == 1
    finally:
        late.close()


def test_a_result_that_is_refused_is_tried_again_and_given_up_in_the_end(
    start: Start, radiograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "SHORTEST_PAUSE", 0.01)
    monkeypatch.setattr(sender_module, "MOST_REFUSALS", 3)
    archive = Archive(answers=(0xA700, 0xA700, 0, 0xA900, 0xA900, 0xA900))
    try:
        node = start(reply=archive.peer)
        send(node.acceptor.port, dcmread(radiograph))
        until(lambda: len(archive.stored) == 1 and empty(node))
        send(node.acceptor.port, another(radiograph))
        until(lambda: node.queue.counts()["failed"] == 1)
        assert [reason for _, reason in node.queue.reasons()] == ["the peer answered A900"]
    finally:
        archive.close()


def test_pauses_grow_and_differ() -> None:
    assert [pause(failures, lambda: 1.0) for failures in (1, 2, 3, 50)] == [1.0, 2.0, 4.0, 600.0]
    assert pause(3, lambda: 0.0) == 2.0


def test_an_image_that_cannot_be_segmented_stops_no_other(start: Start, radiograph: Path) -> None:
    node = start()
    broken = another(radiograph)
    broken.PixelData = b"\0" * 100
    assert send(node.acceptor.port, broken, another(radiograph)) == [0, 0]
    until(lambda: node.queue.counts() == {"waiting": 0, "sending": 0, "failed": 1})
    assert len(list(node.state.outbox.iterdir())) == 1
    ((instance, reason),) = node.queue.reasons()
    assert instance == broken.SOPInstanceUID
    assert "pixels need" in reason


def test_a_full_queue_a_full_disk_and_a_large_object_are_refused(
    start: Start, radiograph: Path, tmp_path: Path
) -> None:
    full = start(replace(SMALL, queue=0), state=tmp_path / "full")
    assert send(full.acceptor.port, dcmread(radiograph)) == [0xA700]
    assert full.not_ready() == "the queue or the disk is full"
    disk = start(replace(SMALL, free_bytes=1 << 60), state=tmp_path / "disk")
    assert send(disk.acceptor.port, dcmread(radiograph)) == [0xA700]
    small = start(replace(SMALL, object_bytes=100_000), state=tmp_path / "small")
    assert send(small.acceptor.port, dcmread(radiograph)) == [0xA700], "a little too large"
    huge = another(radiograph)
    huge.PixelData = bytes(1_000_000)
    assert send(small.acceptor.port, huge) == [None], "far too large: cut off"
    assert echo(small.acceptor.port)
    for node in (full, disk, small):
        until(lambda node=node: not any(node.state.incoming.iterdir()))


def test_an_object_that_is_not_what_was_announced_is_refused(start: Start, radiograph: Path) -> None:
    node = start()
    entity = AE("SENDER")
    dataset = dcmread(radiograph)
    entity.add_requested_context(dataset.SOPClassUID, "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", node.acceptor.port, ae_title="CXREDGE")
    dataset.SOPInstanceUID = "not a uid"
    assert association.send_c_store(dataset).get("Status") != 0
    association.release()
    assert empty(node)


def test_only_listed_callers_are_accepted(start: Start, radiograph: Path) -> None:
    node = start(allowed=("MODALITY", "OTHER"))
    assert echo(node.acceptor.port, calling="MODALITY")
    assert not echo(node.acceptor.port, calling="SENDER")
    assert not echo(node.acceptor.port, calling="MODALITY", called="ANOTHER")
    assert send(node.acceptor.port, dcmread(radiograph)) == [None]


def test_one_association_too_many_is_rejected(start: Start) -> None:
    node = start(replace(SMALL, associations=2))
    entity = AE("SENDER")
    entity.add_requested_context("1.2.840.10008.1.1")
    open_ones = [entity.associate("127.0.0.1", node.acceptor.port, ae_title="CXREDGE") for _ in range(3)]
    assert [one.is_established for one in open_ones] == [True, True, False]
    assert open_ones[2].is_rejected
    open_ones[0].release()
    until(lambda: echo(node.acceptor.port))
    open_ones[1].release()


def connected(node: Node) -> socket.socket:
    return socket.create_connection(("127.0.0.1", node.acceptor.port), timeout=10)


def ended(peer: socket.socket) -> bool:
    """Whether the node closes a connection; it may say so before (A-ABORT)."""
    try:
        while peer.recv(4096):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def associate_request() -> bytes:
    """An A-ASSOCIATE-RQ for Verification (PS3.8, 9.3.2)."""

    def item(kind: int, content: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(content)) + content

    syntaxes = item(0x30, b"1.2.840.10008.1.1") + item(0x40, b"1.2.840.10008.1.2")
    user = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3.4")
    content = struct.pack(">H2x16s16s32x", 1, b"CXREDGE".ljust(16), b"SENDER".ljust(16))
    content += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, b"\1\0\0\0" + syntaxes) + item(0x50, user)
    return struct.pack(">BxI", 1, len(content)) + content


def echo_request() -> bytes:
    """A C-ECHO-RQ (PS3.7, 9.3.5)."""
    elements = ((0x0002, b"1.2.840.10008.1.1\0"), (0x0100, b"\x30\0"), (0x0110, b"\1\0"), (0x0800, b"\1\1"))
    command = b"".join(struct.pack("<HHI", 0, tag, len(value)) + value for tag, value in elements)
    command = struct.pack("<HHII", 0, 0, 4, len(command)) + command
    return struct.pack(">BxIIBB", 4, len(command) + 6, len(command) + 2, 1, 3) + command


def test_many_associations_at_once(start: Start, radiograph: Path) -> None:
    node = start()
    with ExitStack() as opened:
        peers = [opened.enter_context(connected(node)) for _ in range(60)]
        for peer in peers:
            peer.settimeout(60)
            peer.sendall(associate_request())
        assert {peer.recv(4096)[0] for peer in peers} == {2}, "accepted"
        assert node.acceptor.associations == 60
        for peer in peers:
            peer.sendall(echo_request())
        assert {peer.recv(4096)[0] for peer in peers} == {4}, "answered"
        assert send(node.acceptor.port, dcmread(radiograph)) == [0]
    until(lambda: empty(node))


GARBAGE = {
    "not DICOM": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3,
    "nothing known": bytes(range(8, 200)),
    "a PDU of 4 GB": struct.pack(">BxI", 1, 0xFFFFFFFF) + bytes(5000),
    "an empty request": struct.pack(">BxI", 1, 0),
    "data before an association": struct.pack(">BxI", 4, 10) + bytes(10),
    "a damaged request": associate_request()[:80] + bytes(200),
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_garbage_ends_only_its_own_connection(start: Start, content: bytes) -> None:
    node = start(replace(SMALL, request_seconds=1.0, pdu_seconds=1.0))
    with connected(node) as peer:
        peer.sendall(content)
        assert ended(peer)
    assert echo(node.acceptor.port)
    until(lambda: not node.acceptor.associations)


DAMAGED = {
    "no values": struct.pack(">BxI", 4, 0),
    "a value longer than its PDU": struct.pack(">BxIIBB", 4, 6, 1000, 1, 3),
    "a context that was not agreed on": struct.pack(">BxIIBB", 4, 8, 4, 99, 3) + b"\0\0",
    "a command that is none": struct.pack(">BxIIBB", 4, 26, 22, 1, 3) + b"\0\0\0\1\2\0\0\0\xff\xff" + bytes(10),
    "a PDU longer than agreed": struct.pack(">BxI", 4, 1 << 24) + bytes(1 << 16),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_data_end_only_their_own_association(start: Start, content: bytes) -> None:
    node = start(replace(SMALL, request_seconds=1.0, pdu_seconds=1.0, idle_seconds=2.0))
    with connected(node) as peer:
        peer.sendall(associate_request())
        assert peer.recv(4096)[0] == 2, "accepted"
        peer.sendall(content)
        assert ended(peer)
    assert echo(node.acceptor.port)
    until(lambda: not node.acceptor.associations)


def test_a_command_without_end_is_cut_off(start: Start) -> None:
    node = start()
    fragment = struct.pack(">BxIIBB", 4, 65_006, 65_002, 1, 1) + bytes(65_000)
    with connected(node) as peer:
        peer.sendall(associate_request())
        assert peer.recv(4096)[0] == 2
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            peer.sendall(fragment * 200)
    assert echo(node.acceptor.port)


def test_half_open_and_slow_peers_are_cut_off(start: Start) -> None:
    node = start(replace(SMALL, request_seconds=1.0, pdu_seconds=1.0, idle_seconds=1.0))
    silent, slow, idle = connected(node), connected(node), connected(node)
    idle.sendall(associate_request())
    began = time.monotonic()
    with silent, slow, idle:
        for byte in associate_request()[:40]:
            try:
                slow.sendall(bytes([byte]))
            except OSError:
                break
            time.sleep(0.1)
        else:
            raise AssertionError("the slow peer was not cut off")
        assert ended(silent)
        assert ended(idle)
    assert time.monotonic() - began < 10
    assert echo(node.acceptor.port)
    until(lambda: not node.acceptor.associations)


def test_connections_are_limited_too(start: Start) -> None:
    node = start(replace(SMALL, associations=2, request_seconds=3.0))
    peers = [connected(node) for _ in range(60)]
    try:
        until(lambda: 30 <= node.acceptor.associations <= 34)
        assert node.acceptor.associations <= 34
    finally:
        for peer in peers:
            peer.close()
    until(lambda: echo(node.acceptor.port))


def test_an_object_whose_sender_goes_leaves_nothing(start: Start, radiograph: Path) -> None:
    node = start(replace(SMALL, pdu_seconds=1.0))
    entity = AE("SENDER")
    dataset = dcmread(radiograph)
    entity.add_requested_context(dataset.SOPClassUID, "1.2.840.10008.1.2.1")
    association = entity.associate("127.0.0.1", node.acceptor.port, ae_title="CXREDGE")
    connection = association.dul.socket
    assert connection
    whole = connection.send

    def half(content: bytes) -> None:
        if len(content) < 10_000:
            whole(content)
            return
        whole(content[: len(content) // 2])
        connection._shutdown_socket()

    connection.send = half
    association.send_c_store(dataset)
    until(lambda: not node.acceptor.associations)
    until(lambda: not any(node.state.incoming.iterdir()))
    assert empty(node)


def test_logs_tell_nothing_about_patients(
    start: Start, archive: Archive, radiograph: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "cxredge")
    node = start(reply=archive.peer)
    dataset = another(radiograph)
    dataset.PatientName, dataset.PatientID, dataset.AccessionNumber = "Secret^Name", "SECRET-1", "SECRET-2"
    broken = another(radiograph)
    broken.PatientName, broken.PatientID = "Secret^Other", "SECRET-3"
    broken.PixelData = b"\0\0"
    send(node.acceptor.port, dataset, broken)
    until(lambda: archive.stored and node.queue.counts()["failed"])
    (result,) = archive.of_modality("SEG")
    assert result.PatientID == "SECRET-1", "the object itself says whose it is"
    text = caplog.text + str([vars(record) for record in caplog.records if record.name == "cxredge"])
    assert "received" in text
    assert "secret" not in text.lower()
    assert "secret" not in node.metrics_page().decode().lower()
    for uid in (dataset.SOPInstanceUID, dataset.StudyInstanceUID):
        assert uid not in text


def test_stopping_keeps_what_waits(start: Start, radiograph: Path, archive: Archive, tmp_path: Path) -> None:
    node = start(reply=Peer("NOBODY", "127.0.0.1", free_port()), state=tmp_path / "kept")
    send(node.acceptor.port, *(another(radiograph) for _ in range(5)))
    node.close()
    assert not echo(node.acceptor.port)
    again = start(reply=archive.peer, state=tmp_path / "kept")
    until(lambda: empty(again))
    assert len(archive.stored) == 5


def test_peers_and_titles_are_checked() -> None:
    assert parse_peer("A@[::1]:104") == Peer("A", "::1", 104)
    assert parse_titles("A, B C") == ("A", "B C")
    for wrong in ("A", "A@host", "@host:1", "A@host:0", "A@host:99999", "A" * 17 + "@host:1"):
        with pytest.raises(ValueError, match="is not AET@HOST:PORT"):
            parse_peer(wrong)
    for wrong in ("", "A,,B", "A" * 17, "Ä", "A\\B"):
        with pytest.raises(ValueError, match="is no AE title"):
            parse_titles(wrong)
