"""Reading on after an early answer, so that the answer reaches who is still sending.

A socket that is closed with unread bytes in it is reset, and a reset discards the answer that the sender has not
read yet (RFC 9112, section 9.6). What is refused before it was read, an upload that is too large above all, would then
be a broken connection at some clients instead of a 413. So the answer goes out whole, the rest of the request is read
and dropped for a while, and only then is the answer ended; uvicorn closes the connection where the answer says so.
"""

from __future__ import annotations

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_SECONDS = 5.0
"""The longest that is read after an answer."""
BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})
WAITING_HEADER = b"expect"
"""Of clients that send nothing before they are told to."""


class Lingering:
    """An application whose answers are ended once their request was read, or the limits are reached.

    Args:
        app: the application; all of it, its answers to its own faults too.
        most: bytes that are read after an answer.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name for name, _ in scope["headers"]} if scope["type"] == "http" else set()
        if BODY_HEADERS.isdisjoint(headers):
            await self._app(scope, receive, send)
            return
        sending, ended = WAITING_HEADER not in headers, False

        async def receive_and_note() -> Message:
            nonlocal sending, ended
            sending = True
            message = await receive()
            ended = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def send_and_linger(message: Message) -> None:
            if message["type"] != "http.response.body" or message.get("more_body", False) or not sending:
                await send(message)
                return
            await send({**message, "more_body": True})
            dropped = 0
            with anyio.move_on_after(LINGER_SECONDS):
                while not ended and dropped < self._most:
                    dropped += len((await receive_and_note()).get("body", b""))
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, receive_and_note, send_and_linger)
