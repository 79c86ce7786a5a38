"""A node put together: what it is given, and everything that it holds open."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from cxredge.errors import OutputError
from cxredge.logs import log_event
from cxredge.node.acceptor import Acceptor, Address
from cxredge.node.limits import NodeLimits
from cxredge.node.lingering import Lingering
from cxredge.node.metrics import Metrics
from cxredge.node.queue import JobQueue
from cxredge.node.sender import Destination, Outbox, Peer, PeerConnection, Sender
from cxredge.node.state import StateFolder
from cxredge.node.tls import TlsFiles
from cxredge.node.web import Uploads, make_app
from cxredge.node.worker import Engine, Worker

HTTP_CONNECTIONS = 64
START_SECONDS = 10.0
LINGER_UPLOADS = 4
"""How many times the largest upload is read on after an answer."""
SWEPT_EVERY, STALE_AFTER = 60.0, 600.0
"""Seconds between two looks at ``incoming/``, and after which what was not written to any more is removed."""


@dataclass(frozen=True)
class NodeConfig:
    """What a node is given.

    Attributes:
        address: where it listens.
        state: folder.
        reply: where results go, or ``None`` for the folder ``outbox`` in the state folder.
        reply_tls: whether over TLS.
        tls: certificates, or ``None``.
        http: host and port of the HTTP side, or ``None``.
        limits: of everything.
    """

    address: Address
    state: Path
    reply: Peer | None = None
    reply_tls: bool = False
    tls: TlsFiles | None = None
    http: tuple[str, int] | None = None
    limits: NodeLimits = field(default_factory=NodeLimits)


class Node:
    """A running node; :meth:`close` stops it.

    Args:
        config: what it is given.
        engine: what segments; it stays open.

    Raises:
        CxredgeError: a port, a file or the state folder cannot be used.
    """

    def __init__(self, config: NodeConfig, engine: Engine) -> None:
        self._stopping = False
        self._swept = time.monotonic()
        with ExitStack() as opened:
            self.metrics = Metrics()
            self.state = StateFolder(config.state)
            opened.callback(self.state.close)
            self.queue = JobQueue(self.state.path / "queue.sqlite")
            opened.callback(self.queue.close)
            strangers = self.state.remove_strangers(self.queue.files())
            self.sender = Sender(destination(config, self.state), self.queue, self.metrics)
            opened.callback(self.sender.close)
            self.worker = Worker(engine, self.queue, self.state, self.metrics)
            opened.callback(self.worker.close)
            tls = config.tls.server_context() if config.tls else None
            self.acceptor = Acceptor(config.address, config.limits, self.queue, self.state, self.metrics, tls)
            opened.callback(self.acceptor.close)
            self.http_port: int | None = None
            if config.http is not None:
                uploads = Uploads(engine, self.state, config.limits)
                app = make_app(uploads, self.metrics, self.not_ready, self.metrics_page)
                web = WebServer(Lingering(app, LINGER_UPLOADS * config.limits.upload_bytes), *config.http)
                opened.callback(web.close)
                self.http_port = web.port
            self._opened = opened.pop_all()
        waiting = sum(self.queue.counts().values())
        log_event("node_started", port=self.acceptor.port, http_port=self.http_port, jobs=waiting, removed=strangers)

    def not_ready(self) -> str:
        """Why radiographs are not taken, empty text where they are."""
        if self._stopping or not self.acceptor.listening:
            return "stopping"
        if not (self.worker.alive and self.sender.alive):
            return "a thread of the node has ended"
        return "the queue or the disk is full" if self.acceptor.full else ""

    def metrics_page(self) -> bytes:
        """The metrics as text."""
        return self.metrics.page(self.queue, self.state)

    def sweep(self) -> None:
        """Remove, now and then, what peers left behind that were cut off."""
        if time.monotonic() - self._swept > SWEPT_EVERY:
            self._swept = time.monotonic()
            self.state.remove_stale(STALE_AFTER)

    def close(self) -> None:
        """Take nothing more, finish what is under way, and end; what waits stays in the queue."""
        self._stopping = True
        self._opened.close()
        log_event("node_stopped")

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def destination(config: NodeConfig, state: StateFolder) -> Destination:
    """Where the results of a node go."""
    if config.reply is None:
        return Outbox(state.outbox)
    tls = config.tls.client_context() if config.tls and config.reply_tls else None
    return PeerConnection(config.address.title, config.reply, tls)


class WebServer:
    """Uvicorn in a thread.

    Args:
        app: what it serves.
        host: address to listen on.
        port: 0 for any that is free.

    Raises:
        OutputError: the port cannot be used.
    """

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=HTTP_CONNECTIONS)
        except OSError as error:
            raise OutputError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        self.port = int(self._socket.getsockname()[1])
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=HTTP_CONNECTIONS,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=10,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="cxredge-http", daemon=True
        )
        self._thread.start()
        end = time.monotonic() + START_SECONDS
        while not self._server.started and time.monotonic() < end:
            time.sleep(0.01)

    def close(self) -> None:
        """Answer what is under way and end."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
