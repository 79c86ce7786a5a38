"""The HTTP side of a node: one radiograph in, its lungs out; health and metrics.

A request's body is the file itself, written to the disk while it comes, so that memory does not grow with it.
"""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import anyio
import anyio.to_thread
import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from cxredge import __version__
from cxredge.dicom.prefix import HEAD_LENGTH, is_dicom, lacks_preamble
from cxredge.errors import BackendError, InputError
from cxredge.logs import log_event
from cxredge.node.limits import NodeLimits
from cxredge.node.metrics import Metrics
from cxredge.node.results import result_objects
from cxredge.node.state import StateFolder
from cxredge.node.worker import Engine
from cxredge.runs.formats import Format

Result: TypeAlias = Literal["json", "seg", "sc"]
OBJECTS: dict[str, Format] = {"seg": "dicom-seg", "sc": "dicom-sc"}
DICOM = "application/dicom"
MAGICS: dict[str, tuple[bytes, ...]] = {
    "image/png": (b"\x89PNG",),
    "image/jpeg": (b"\xff\xd8",),
    "image/tiff": (b"II*\0", b"MM\0*"),
}
"""Media types of pictures and their first bytes."""
AT_ONCE = 2
"""Requests that are segmented at once; the others wait."""
RETRY_AFTER = {"Retry-After": "1"}
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>cxredge</title>
<h1>cxredge</h1><p>The interface as <a href="openapi.json">OpenAPI</a>:</p><pre id="text"></pre>
<script>fetch("openapi.json").then(r => r.json()).then(d =>
document.getElementById("text").textContent = JSON.stringify(d, null, 2))</script></html>"""
"""Without a browser library, which would have to come from elsewhere."""


class Mask(BaseModel):
    """A picture of the radiograph's size: 255 inside the lungs, else 0."""

    media_type: Literal["image/png"] = "image/png"
    base64: str


class Answer(BaseModel):
    """The lungs of one radiograph."""

    width: int
    height: int
    lung_area_fraction: float
    lung_area_mm2: float | None
    flags: list[str]
    model: str
    model_sha256: str
    mask: Mask


class Problem(BaseModel):
    """Why there is no result."""

    detail: str | list[Any]


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        408: "The upload took too long.",
        413: "The upload is too large.",
        415: "Not a media type that is read, or the content is of another.",
        422: "Nothing can be segmented in it.",
        503: "Too many requests, or the device fails; try again.",
    }.items()
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {name: {"schema": {"type": "string", "format": "binary"}} for name in (DICOM, *MAGICS)},
    }
}


class Uploads:
    """Receives and segments what is posted.

    Args:
        engine: what segments.
        state: where uploads are written to.
        limits: of the node.
    """

    def __init__(self, engine: Engine, state: StateFolder, limits: NodeLimits) -> None:
        self._engine, self._state, self._limits = engine, state, limits
        self._open = 0
        self._lanes: anyio.CapacityLimiter | None = None

    async def answer(self, request: Request, result: Result) -> Response:
        """The result of one request.

        Raises:
            HTTPException: there is none.
        """
        kind = media_type(request)
        async with self._place():
            with self._state.upload() as path:
                await self._receive(request, path)
                await anyio.to_thread.run_sync(require_kind, path, kind)
                self._lanes = self._lanes or anyio.CapacityLimiter(AT_ONCE)
                try:
                    return await anyio.to_thread.run_sync(self._segment, path, result, limiter=self._lanes)
                except InputError as error:
                    raise HTTPException(422, error.reason) from error
                except BackendError as error:
                    raise HTTPException(503, "the device failed", RETRY_AFTER) from error

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._open >= self._limits.uploads:
            raise HTTPException(503, "too many requests at once", RETRY_AFTER)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def _receive(self, request: Request, path: Path) -> None:
        most = self._limits.upload_bytes
        too_large = HTTPException(413, f"more than {most} bytes", {"Connection": "close"})
        announced = request.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > most:
            raise too_large
        received = 0
        try:
            with anyio.fail_after(self._limits.upload_seconds):
                async with await anyio.open_file(path, "wb") as file:
                    async for part in request.stream():
                        received += len(part)
                        if received > most:
                            raise too_large
                        await file.write(part)
        except TimeoutError as error:
            raise HTTPException(408, "the upload took too long", {"Connection": "close"}) from error
        except OSError as error:
            raise HTTPException(503, "the upload cannot be written", RETRY_AFTER) from error

    def _segment(self, path: Path, result: Result) -> Response:
        engine = self._engine
        segmentation = engine.segmenter(engine.reader.read(path))
        if result != "json":
            (content,) = result_objects(path, segmentation, engine.algorithm, (OBJECTS[result],))
            return Response(content, media_type=DICOM)
        height, width = segmentation.radiograph.shape
        area = segmentation.lung_area_mm2
        answer = Answer(
            width=width,
            height=height,
            lung_area_fraction=round(segmentation.lung_area_fraction, 5),
            lung_area_mm2=None if area is None else round(area, 1),
            flags=list(segmentation.flags),
            model=engine.algorithm.name,
            model_sha256=engine.algorithm.sha256,
            mask=Mask(base64=base64.b64encode(mask_png(segmentation.mask)).decode("ascii")),
        )
        return JSONResponse(answer.model_dump())


def media_type(request: Request) -> str:
    """The media type of a request.

    Raises:
        HTTPException: none that is read.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (DICOM, *MAGICS):
        raise HTTPException(415, f"Content-Type is one of {', '.join((DICOM, *MAGICS))}", {"Connection": "close"})
    return kind


def require_kind(path: Path, kind: str) -> None:
    """Check that a file begins as its media type does.

    Raises:
        HTTPException: it does not.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_LENGTH)
    fits = is_dicom(head) or lacks_preamble(head) if kind == DICOM else head.startswith(MAGICS[kind])
    if not fits:
        raise HTTPException(415, f"the content is not {kind}")


def mask_png(mask: NDArray[np.bool_]) -> bytes:
    """A mask ``(H, W)`` as PNG of 0 and 255."""
    buffer = io.BytesIO()
    Image.fromarray(mask.view(np.uint8) * np.uint8(255)).save(buffer, format="PNG")
    return buffer.getvalue()


def make_app(uploads: Uploads, metrics: Metrics, ready: Callable[[], str], page: Callable[[], bytes]) -> FastAPI:
    """The application.

    Args:
        uploads: what segments.
        metrics: of the node.
        ready: gives why the node is not ready, empty text where it is.
        page: gives the metrics' text.
    """
    app = FastAPI(title="cxredge", version=__version__, docs_url=None, redoc_url=None)

    @app.post("/segment", response_model=Answer, responses=answers(), openapi_extra=BODY)
    async def segment(request: Request, result: Result = "json") -> Response:
        """Segment the lungs of one radiograph; the body is the file."""
        code = 500
        try:
            response = await uploads.answer(request, result)
            code = response.status_code
            return response
        except HTTPException as error:
            code = error.status_code
            raise
        finally:
            metrics.requests.labels(str(code)).inc()
            log_event("http_segment", logging.ERROR if code == 500 else logging.INFO, code=code)

    @app.get("/healthz", response_class=PlainTextResponse)
    def healthz() -> str:
        """Whether the process answers."""
        return "ok"

    @app.get("/readyz", response_class=PlainTextResponse, responses={503: {"description": "Not ready, and why."}})
    def readyz() -> PlainTextResponse:
        """Whether the node takes radiographs."""
        reason = ready()
        return PlainTextResponse(reason or "ready", 503 if reason else 200)

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics_page() -> Response:
        """Metrics for Prometheus."""
        return Response(page(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    @app.get("/docs", response_class=HTMLResponse)
    def docs() -> str:
        """This interface for people."""
        return PAGE

    return app


def answers() -> dict[int | str, dict[str, Any]]:
    """What ``POST /segment`` answers, for the OpenAPI page."""
    content = {DICOM: {"schema": {"type": "string", "format": "binary"}}}
    return {**PROBLEMS, 200: {"description": "The lungs.", "content": content}}
