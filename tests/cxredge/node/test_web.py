"""The HTTP side of a node."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread

from cxredge.node import lingering
from cxredge.node.service import Node
from cxredge.node.web import Uploads
from cxredge.node.worker import Engine
from cxredge.phantom import make_radiograph

from .peers import SMALL, get

Start = Callable[..., Node]


@pytest.fixture
def node(start: Start) -> Node:
    return start(replace(SMALL, upload_bytes=1 << 20), http=("127.0.0.1", 0))


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def post(node: Node, content: Any, kind: str = "image/png", query: str = "", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", node.http_port or 0, timeout=30)
    connection.request("POST", f"/segment{query}", content, {"Content-Type": kind, **headers})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_a_picture_gives_the_mask_that_python_gives(node: Node, engine: Engine) -> None:
    pixels = make_radiograph(3, 300, 260).pixels << 4
    status, content = post(node, png(pixels))
    answer = json.loads(content)
    assert (status, answer["width"], answer["height"], answer["flags"]) == (200, 260, 300, [])
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["mask"]["base64"]))))
    np.testing.assert_array_equal(mask == 255, engine.segmenter(pixels).mask)


def test_a_dicom_file_gives_a_segmentation(node: Node, radiograph: Path) -> None:
    status, content = post(node, radiograph.read_bytes(), "application/dicom", "?result=seg")
    result = dcmread(io.BytesIO(content))
    assert (status, result.Modality) == (200, "SEG")
    assert result.StudyInstanceUID == dcmread(radiograph).StudyInstanceUID
    status, content = post(node, radiograph.read_bytes(), "application/dicom", "?result=sc")
    assert (status, dcmread(io.BytesIO(content)).Modality) == (200, "OT")


def test_what_is_posted_is_not_kept(node: Node) -> None:
    post(node, png(make_radiograph(3, 100, 100).pixels))
    assert list(node.state.incoming.iterdir()) == []


def bomb(side: int) -> bytes:
    """A PNG of some hundred bytes that says it has many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


WRONG = {
    "no type": ("", "", b"x", 415),
    "another type": ("text/html", "", b"<html>", 415),
    "another content": ("image/jpeg", "", bomb(10), 415),
    "not DICOM": ("application/dicom", "", b"x" * 2000, 415),
    "nothing": ("image/png", "", b"", 415),
    "a bomb": ("image/png", "", bomb(60_000), 422),
    "a damaged picture": ("image/png", "", bomb(100), 422),
    "too large": ("image/png", "", b"\x89PNG" + bytes(2 << 20), 413),
    "a segmentation of a picture": ("image/png", "?result=seg", None, 422),
    "an unknown result": ("image/png", "?result=pdf", None, 422),
}


@pytest.mark.parametrize(("kind", "query", "content", "expected"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_segmented_is_refused(
    node: Node, kind: str, query: str, content: bytes | None, expected: int
) -> None:
    status, answer = post(node, png(make_radiograph(3, 100, 100).pixels) if content is None else content, kind, query)
    assert status == expected
    assert json.loads(answer)["detail"]
    assert get(f"http://127.0.0.1:{node.http_port}/readyz") == b"ready"


def test_two_gigabytes_are_refused_at_once(node: Node) -> None:
    with socket.create_connection(("127.0.0.1", node.http_port or 0), timeout=20) as client:
        client.sendall(
            b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 2147483648\r\n\r\n"
        )
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def send_all_first(node: Node, kind: str, mebibytes: int) -> bytes:
    """What a client receives that reads nothing before it has sent everything."""
    head = f"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {mebibytes << 20}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", node.http_port or 0), timeout=20) as client:
        client.sendall(head.encode() + bytes(1 << 20))
        time.sleep(0.5)  # until the node has answered
        client.sendall(bytes((mebibytes - 1) << 20))
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


@pytest.mark.parametrize(("kind", "expected"), [("image/png", 413), ("text/plain", 415)])
def test_an_early_answer_reaches_a_client_that_sends_everything_first(node: Node, kind: str, expected: int) -> None:
    assert send_all_first(node, kind, 3).startswith(f"HTTP/1.1 {expected} ".encode())


def test_the_answer_to_a_fault_of_the_node_reaches_it_too(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("made for this test")

    monkeypatch.setattr(Uploads, "answer", fail)
    assert send_all_first(node, "image/png", 3).startswith(b"HTTP/1.1 500 ")


def test_the_node_does_not_read_on_for_ever(node: Node) -> None:
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        send_all_first(node, "image/png", 64)


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"], ids=["announced", "waiting to be told"])
def test_the_node_does_not_wait_for_a_body_for_ever(node: Node, monkeypatch: pytest.MonkeyPatch, expect: str) -> None:
    monkeypatch.setattr(lingering, "LINGER_SECONDS", 60.0 if expect else 0.3)
    head = f"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n{expect}Content-Length: 9\r\n\r\n"
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", node.http_port or 0), timeout=20) as client:
        client.sendall(head.encode())
        answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 415 ")
    assert (0 if expect else 0.3) <= time.monotonic() - started < 4


def test_two_gigabytes_that_are_not_announced_are_refused_on_the_way(node: Node) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(2048):
            taken += 1
            yield bytes(1 << 20)

    try:
        status, _ = post(node, endless())
        assert status == 413
    except (BrokenPipeError, ConnectionResetError):  # the node has answered and closed
        pass
    assert taken < 200, "mebibytes"
    assert list(node.state.incoming.iterdir()) == []


def test_an_upload_that_never_ends_is_given_up(start: Start) -> None:
    node = start(replace(SMALL, upload_seconds=1.0), http=("127.0.0.1", 0))
    with socket.create_connection(("127.0.0.1", node.http_port or 0), timeout=20) as client:
        client.sendall(
            b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n\x89PNG"
        )
        assert client.recv(100).startswith(b"HTTP/1.1 408 ")


def test_one_request_too_many_is_told_to_try_again(start: Start) -> None:
    node = start(replace(SMALL, uploads=0), http=("127.0.0.1", 0))
    assert post(node, png(make_radiograph(3, 100, 100).pixels))[0] == 503


def test_health_and_metrics(node: Node) -> None:
    base = f"http://127.0.0.1:{node.http_port}"
    post(node, b"", "text/html")
    assert get(f"{base}/healthz") == b"ok"
    metrics = get(f"{base}/metrics").decode()
    assert 'cxredge_http_requests_total{code="415"} 1.0' in metrics
    assert 'cxredge_jobs{state="waiting"} 0.0' in metrics
    assert b"openapi.json" in get(f"{base}/docs")


BEGINNINGS = {
    "application/dicom": bytes(128) + b"DICM\2\0\0\0UL\4\0",
    "image/png": bomb(64),
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/tiff": b"II*\0\x08\0\0\0",
}
for media_type, beginning in BEGINNINGS.items():
    anything = st.binary(max_size=2000)
    schemathesis.openapi.media_type(media_type, st.one_of(anything, anything.map(beginning.__add__)))


def conforms(node: Node, examples: int) -> Counter[tuple[str, int]]:
    """Requests made from the OpenAPI page never end in an error of the server; gives how many ended how."""
    seen: Counter[tuple[str, int]] = Counter()
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{node.http_port}/openapi.json")
    operations = [operation.ok() for operation in schema.get_all_operations()]
    assert {f"{one.method.upper()} {one.path}" for one in operations} >= {"POST /segment", "GET /readyz"}
    for operation in operations:

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            answer = case.call(timeout=30)
            seen[operation.path, answer.status_code] += 1  # noqa: B023 (called in this round)
            assert answer.status_code < 500

        check()
    return seen


def test_schemathesis_finds_no_server_error(node: Node) -> None:
    seen = conforms(node, 40)
    assert seen["/segment", 415] > 5, "of another content"
    assert seen["/segment", 422] > 5, "of the content that was announced, but damaged"


@pytest.mark.slow
def test_schemathesis_finds_no_server_error_in_many_requests(node: Node) -> None:
    seen = conforms(node, 1000)
    print(seen)
    assert sum(number for (path, _), number in seen.items() if path == "/segment") > 900
